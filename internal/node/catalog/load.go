package catalog

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"larder/internal/strictyaml"
)

//go:embed builtin/*.yaml
var builtinFiles embed.FS

// builtinNames are the built-in files. Where two of them name the same host and
// path, the earlier takes it.
var builtinNames = []string{"windows-update", "office", "intune", "teams", "store", "defender", "edge", "xbox", "device-update"}

// BuiltinNames returns the names that catalog.builtin may list.
func BuiltinNames() []string { return slices.Clone(builtinNames) }

// Source is a directory of publisher files: those directly in it whose names end
// in .yaml or .yml and do not begin with a dot.
type Source struct {
	Name string // what messages call the directory
	FS   fs.FS

	// ReadFile reads what files name by path (origin.ca). Nil: nothing may be named.
	ReadFile func(name string) ([]byte, error)
}

// Load makes a catalogue of built-in files (nil: all of them) and own ones. The
// error is a strictyaml.Mistakes that holds all that is wrong.
func Load(builtin []string, sources ...Source) (*Catalog, error) {
	l := loader{seen: make(map[string]*Publisher), claims: make(map[claim]*Publisher)}
	if builtin == nil {
		builtin = builtinNames
	}
	for i, name := range builtin {
		if !slices.Contains(builtinNames, name) {
			l.mistakes = append(l.mistakes, strictyaml.Mistake{Field: item("catalog.builtin", i),
				Problem: fmt.Sprintf("%q is not built in; known are %s", name, strings.Join(builtinNames, ", "))})
		}
	}
	for _, name := range builtinNames { // in our order, which decides between equals
		if !slices.Contains(builtin, name) {
			continue
		}
		file := path.Join("builtin", name+".yaml")
		data, err := builtinFiles.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading the built-in catalogue: %w", err)
		}
		l.file(file, data, name, nil)
	}
	for _, s := range sources {
		l.source(s)
	}
	if err := l.mistakes.Err(); err != nil {
		return nil, err
	}
	return l.catalog(), nil
}

// loader gathers publishers and mistakes.
type loader struct {
	publishers []*Publisher
	mistakes   strictyaml.Mistakes
	seen       map[string]*Publisher // by name
	claims     map[claim]*Publisher  // own publishers by what only one of them may take
}

type claim struct{ host, path, scheme string }

func (l *loader) source(s Source) {
	entries, err := fs.ReadDir(s.FS, ".")
	if err != nil {
		l.mistakes = append(l.mistakes, strictyaml.Mistake{File: s.Name, Problem: "cannot be read: " + err.Error()})
		return
	}
	for _, e := range entries { // sorted by name
		ext := path.Ext(e.Name())
		if ext != ".yaml" && ext != ".yml" || e.Name()[0] == '.' || e.IsDir() {
			continue
		}
		name := path.Join(s.Name, e.Name())
		data, err := fs.ReadFile(s.FS, e.Name())
		if err != nil {
			l.mistakes = append(l.mistakes, strictyaml.Mistake{File: name, Problem: "cannot be read: " + err.Error()})
			continue
		}
		l.file(name, data, "", s.ReadFile)
	}
}

// file reads one publisher file. builtin is the name of a built-in one, or empty.
func (l *loader) file(name string, data []byte, builtin string, readFile func(string) ([]byte, error)) {
	var f publisherFile
	doc, _ := strictyaml.Decode(name, data, &f) // its mistakes are doc's
	entries := []entry{f.Single}
	list := doc.Has("publishers")
	if list {
		entries = f.Publishers
		if doc.Has("name") || doc.Has("hosts") {
			doc.Add("publishers", "stands beside a publisher of the file itself; move that into the list")
		} else if len(entries) == 0 {
			doc.Add("publishers", "is an empty list; expected at least one publisher")
		}
	}
	for i := range entries {
		w := place{doc: doc}
		if list {
			w.at = item("publishers", i)
		}
		p := entries[i].publisher(w, readFile)
		p.Builtin, p.order = builtin, len(l.publishers)
		l.claim(p, w)
		l.publishers = append(l.publishers, p)
	}
	l.mistakes = append(l.mistakes, doc.Mistakes()...)
}

// claim notes what a publisher takes, and finds who took it before.
func (l *loader) claim(p *Publisher, w place) {
	if other := l.seen[p.Name]; other != nil && p.Name != "" {
		w.add("name", "%q is the name of another publisher, %s", p.Name, other.place())
	} else {
		l.seen[p.Name] = p
	}
	if p.Builtin != "" {
		return
	}
	take := func(field, host string) {
		for _, path := range p.routes() {
			for _, scheme := range p.Schemes {
				c := claim{host, path, scheme}
				if other := l.claims[c]; other != nil && other != p {
					w.add(field, "the publisher %s (%s) has the same hosts and paths: %s%s", other.Name, other.place(), cmp.Or(host, "default: true"), pathWords(path))
					return
				}
				l.claims[c] = p
			}
		}
	}
	for i, host := range p.Hosts {
		take(item("hosts", i), host)
	}
	if p.Default {
		take("default", "")
	}
}

func pathWords(path string) string {
	if path == everyPath {
		return ""
	}
	return ", " + path
}

// place says in which file and line the publisher is.
func (p *Publisher) place() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

// everyPath is the pattern of a publisher without paths.
const everyPath = "*"

// routes returns the publisher's path patterns.
func (p *Publisher) routes() []string {
	if len(p.Paths) == 0 {
		return []string{everyPath}
	}
	return p.Paths
}

// catalog compiles the publishers into maps.
func (l *loader) catalog() *Catalog {
	c := &Catalog{publishers: l.publishers, exact: make(map[string]*site), suffix: make(map[string]*site)}
	for _, p := range c.publishers {
		for _, h := range p.Hosts {
			if rest, ok := strings.CutPrefix(h, "*."); ok {
				addRoutes(c.suffix, rest, h, p)
			} else {
				addRoutes(c.exact, h, h, p)
			}
		}
		if p.Default {
			if c.fallback == nil {
				c.fallback = &site{name: "default: true"}
			}
			c.fallback.add(p)
		}
	}
	sites := []*site{c.fallback}
	for _, m := range []map[string]*site{c.exact, c.suffix} {
		for _, s := range m {
			sites = append(sites, s)
		}
	}
	for _, s := range sites {
		if s != nil {
			slices.SortStableFunc(s.routes, compareRoutes)
		}
	}
	return c
}

func addRoutes(m map[string]*site, key, name string, p *Publisher) {
	if m[key] == nil {
		m[key] = &site{name: name}
	}
	m[key].add(p)
}

func (s *site) add(p *Publisher) {
	for _, path := range p.routes() {
		s.routes = append(s.routes, route{newPattern(path, false), p})
	}
}

// compareRoutes orders the routes of a site: own publishers first, then the more
// specific pattern, then the one loaded first.
func compareRoutes(a, b route) int {
	own := func(r route) int {
		if r.publisher.Builtin == "" {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(own(a), own(b)), a.pattern.moreSpecific(&b.pattern), cmp.Compare(a.publisher.order, b.publisher.order))
}

// CheckFiles says what is wrong with publisher files, by the names of their
// publishers, if a node has them beside all that are built in.
func CheckFiles(files map[string]string) error {
	fs := Memory{}
	for name, text := range files {
		fs[name+".yaml"] = []byte(text)
	}
	_, err := Load(nil, Source{Name: "publishers", FS: fs})
	return err
}
