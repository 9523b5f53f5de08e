package catalog

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"larder/internal/strictyaml"
)

// publisherFile is a file: one publisher, or a list of them.
type publisherFile struct {
	Single     entry   `yaml:",inline"`
	Publishers []entry `yaml:"publishers"`
}

// entry is a publisher as a file writes it. See the package comment for what the
// fields mean.
type entry struct {
	Name        string        `yaml:"name"`
	ContentType string        `yaml:"content_type"`
	Hosts       []string      `yaml:"hosts"`
	Paths       []string      `yaml:"paths"`
	Schemes     schemes       `yaml:"schemes"`
	Freshness   *Freshness    `yaml:"freshness"`
	MaxAge      time.Duration `yaml:"max_age"`
	Query       *queryField   `yaml:"query"`
	Rules       []ruleEntry   `yaml:"rules"`
	Pin         []string      `yaml:"pin"`
	Origin      originEntry   `yaml:"origin"`
	Alias       string        `yaml:"alias"`
	Default     bool          `yaml:"default"`
	Methods     *methods      `yaml:"methods"`
}

type ruleEntry struct {
	Path      string        `yaml:"path"`
	Freshness *Freshness    `yaml:"freshness"`
	MaxAge    time.Duration `yaml:"max_age"`
	Query     *queryField   `yaml:"query"`
}

type originEntry struct {
	Scheme  string `yaml:"scheme"`
	Host    string `yaml:"host"`
	Address string `yaml:"address"`
	CA      string `yaml:"ca"`
}

// schemes is a scheme or a list of them.
type schemes []string

func (schemes) Expected() string { return "http, https or [http, https]" }

func (s *schemes) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*s = schemes{n.Value}
	} else if err := strictyaml.DecodeNode(n, (*[]string)(s)); err != nil {
		return err
	}
	for i, v := range *s {
		if v != "http" && v != "https" {
			return fmt.Errorf("found %q, expected %s", v, s.Expected())
		}
		if slices.Contains((*s)[:i], v) {
			return fmt.Errorf("%s is given twice", v)
		}
	}
	if len(*s) == 0 {
		return fmt.Errorf("is an empty list; expected %s", s.Expected())
	}
	return nil
}

// methods is "any", which is nil, or a list.
type methods []string

func (methods) Expected() string { return "any, or a list such as [GET, HEAD]" }

func (m *methods) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		if n.Value != "any" {
			return fmt.Errorf("found %q, expected %s", n.Value, m.Expected())
		}
		*m = nil
		return nil
	}
	if err := strictyaml.DecodeNode(n, (*[]string)(m)); err != nil {
		return err
	}
	for i, v := range *m {
		switch {
		case v == "" || strings.Trim(v, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "":
			return fmt.Errorf("%q is not a method; methods are upper case, such as GET", v)
		case v == "CONNECT" || v == "TRACE":
			return fmt.Errorf("%s is never served", v)
		case slices.Contains((*m)[:i], v):
			return fmt.Errorf("%s is given twice", v)
		}
	}
	if len(*m) == 0 {
		return fmt.Errorf("is an empty list; expected %s", m.Expected())
	}
	return nil
}

// queryField is drop, keep or {allow: [names]}.
type queryField Query

func (queryField) Expected() string { return "drop, keep or {allow: [v]}" }

func (q *queryField) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.MappingNode {
		var m struct {
			Allow []string `yaml:"allow"`
		}
		if err := strictyaml.DecodeNode(n, &m); err != nil {
			return err
		}
		for _, name := range m.Allow {
			if name == "" || strings.ContainsAny(name, "&=;#% ") {
				return fmt.Errorf("%q is not the name of a query parameter", name)
			}
		}
		if len(m.Allow) == 0 {
			return fmt.Errorf("allows no parameter; write drop for that")
		}
		*q = queryField{Allow: m.Allow}
		return nil
	}
	switch n.Value {
	case "drop":
		*q = queryField{}
	case "keep":
		*q = queryField{Keep: true}
	default:
		return fmt.Errorf("found %q, expected %s", n.Value, q.Expected())
	}
	return nil
}

// place is where an entry stands: what its mistakes are added to, and under which
// field ("" or "publishers[2]").
type place struct {
	doc *strictyaml.Document
	at  string
}

func (w place) add(field, format string, args ...any) {
	w.doc.Add(w.field(field), format, args...)
}

func (w place) field(field string) string {
	if w.at == "" || field == "" {
		return w.at + field
	}
	return w.at + "." + field
}

// item is the path of a list's item.
func item(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }

const nameRule = "may hold lower-case letters, digits, -, _ and ., at most 64, and begins and ends with a letter or digit"

func goodName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		inner := i > 0 && i < len(s)-1
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || inner && (c == '-' || c == '_' || c == '.')) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// publisher checks an entry and fills in the defaults. The result is complete only
// if nothing was added to the document.
func (e *entry) publisher(w place, readFile func(string) ([]byte, error)) *Publisher {
	p := &Publisher{
		Name: e.Name, ContentType: e.ContentType, Alias: e.Alias, Schemes: e.Schemes, Paths: e.Paths, Pin: e.Pin, Default: e.Default,
		Freshness: Standard, MaxAge: e.MaxAge, File: w.doc.File(), Line: w.doc.Line(w.field("name")),
	}
	e.names(p, w)
	if e.Freshness != nil {
		p.Freshness = *e.Freshness
	}
	if e.MaxAge != 0 && p.Freshness != Revalidate {
		w.add("max_age", "only goes with freshness: revalidate")
	}
	if p.Schemes == nil {
		p.Schemes = []string{"http", "https"}
	}
	p.http, p.https = slices.Contains(p.Schemes, "http"), slices.Contains(p.Schemes, "https")
	switch {
	case e.Methods != nil:
		p.Methods = *e.Methods
	case p.Freshness != Standard:
		p.Methods = []string{"GET", "HEAD"}
	}
	p.Query = Query{Keep: p.Freshness != Immutable}
	if e.Query != nil {
		p.Query = Query(*e.Query)
	}
	e.hosts(p, w)
	checkPatterns(w, "paths", e.Paths)
	if e.Paths != nil && len(e.Paths) == 0 {
		w.add("paths", "is an empty list, which serves nothing; remove it to serve every path")
	}
	checkPatterns(w, "pin", e.Pin)
	for _, pin := range e.Pin {
		p.pins = append(p.pins, newPattern(pin, true))
	}
	e.rules(p, w)
	e.origin(p, w, readFile)
	return p
}

func (e *entry) names(p *Publisher, w place) {
	switch {
	case e.Name == "":
		w.add("name", "must be set; a short word for charts and keys, such as intranet-packages")
	case !goodName(e.Name):
		w.add("name", "%q is not a name; it %s", e.Name, nameRule)
	}
	if p.ContentType == "" {
		p.ContentType = e.Name
	} else if !goodName(e.ContentType) {
		w.add("content_type", "%q is not a name; it %s", e.ContentType, nameRule)
	}
	if p.Alias == "" {
		p.Alias = e.Name
	} else if !goodName(e.Alias) {
		w.add("alias", "%q is not a name; it %s", e.Alias, nameRule)
	}
}

func (e *entry) hosts(p *Publisher, w place) {
	if len(e.Hosts) == 0 && !e.Default {
		w.add("hosts", "must name at least one host, such as packages.example.com or \"*.example.com\"")
	}
	for i, h := range e.Hosts {
		host, suffix, _, problem := hostPattern(h)
		switch {
		case problem != "":
			w.add(item("hosts", i), "%q %s", h, problem)
			continue
		case suffix && !strings.Contains(host, ".") && e.Origin.Address == "":
			w.add(item("hosts", i), "%q is a whole top-level domain; name at least two labels, such as *.example.com, or set origin.address", h)
			continue
		case suffix:
			host = "*." + host
		}
		if j := slices.Index(p.Hosts, host); j >= 0 {
			w.add(item("hosts", i), "%q repeats an earlier host", h)
			continue
		}
		p.Hosts = append(p.Hosts, host)
	}
}

func (e *entry) rules(p *Publisher, w place) {
	var paths []string
	for i, r := range e.Rules {
		at := item("rules", i)
		if r.Path == "" {
			w.add(at+".path", "must be set, such as \"*.json\"")
		} else if problem := patternProblem(r.Path, paths); problem != "" {
			w.add(at+".path", "%q %s", r.Path, problem)
		}
		paths = append(paths, r.Path)
		if r.Freshness == nil && r.Query == nil && r.MaxAge == 0 {
			w.add(at, "says neither freshness nor max_age nor query, so it changes nothing")
		}
		c := &Rule{Path: r.Path, Freshness: p.Freshness, MaxAge: p.MaxAge, Query: p.Query}
		if r.Freshness != nil {
			c.Freshness, c.MaxAge = *r.Freshness, r.MaxAge
		}
		if r.MaxAge != 0 {
			if c.MaxAge = r.MaxAge; c.Freshness != Revalidate {
				w.add(at+".max_age", "only goes with freshness: revalidate")
			}
		}
		if r.Query != nil {
			c.Query = Query(*r.Query)
		}
		p.Rules = append(p.Rules, *c)
		p.rules = append(p.rules, rule{newPattern(r.Path, true), c})
	}
	slices.SortStableFunc(p.rules, func(a, b rule) int { return a.pattern.moreSpecific(&b.pattern) })
}

func checkPatterns(w place, list string, patterns []string) {
	for i, s := range patterns {
		if problem := patternProblem(s, patterns[:i]); problem != "" {
			w.add(item(list, i), "%q %s", s, problem)
		}
	}
}

// patternProblem says what is wrong with a path pattern, if anything.
func patternProblem(s string, earlier []string) string {
	switch {
	case s == "" || s[0] != '/' && s[0] != '*':
		return "must begin with / or *"
	case len(s) > 1024:
		return "is longer than 1024 bytes"
	case strings.Contains(s, "?"):
		return "has a ?; a query is never part of a path"
	case slices.Contains(earlier, s):
		return "repeats an earlier pattern"
	}
	// What stands between the stars must be in the form that it is compared with.
	normal, reason := normalPath("/" + strings.ReplaceAll(s, "*", "x"))
	if reason != "" {
		return "can never match: no served path " + reason
	}
	if len(normal) != len(s)+1 || normal[1:] != strings.ReplaceAll(s, "*", "x") {
		parts := strings.Split(s, "*")
		for i := range parts {
			if n, reason := normalPath("/" + parts[i]); reason == "" {
				parts[i] = n[1:]
			}
		}
		return fmt.Sprintf("is not in normal form; write %q", strings.Join(parts, "*"))
	}
	return ""
}
