package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"larder/internal/strictyaml"
)

// Explanation says in words what the catalogue makes of a URL.
type Explanation struct {
	URL    string `json:"url"` // as asked, with the query's values left out
	Served bool   `json:"served"`

	// Reason and Near are set when the URL is not served: why, and the hosts of
	// the catalogue that look like the one asked for.
	Reason string   `json:"reason,omitempty"`
	Near   []string `json:"near,omitempty"`

	Host        string   `json:"host,omitempty"`
	HostFrom    string   `json:"hostFrom,omitempty"` // where in the URL the host was found
	Publisher   string   `json:"publisher,omitempty"`
	ContentType string   `json:"contentType,omitempty"`
	File        string   `json:"file,omitempty"`
	MatchedHost string   `json:"matchedHost,omitempty"` // as the file writes it
	Key         string   `json:"key,omitempty"`
	Freshness   string   `json:"freshness,omitempty"`
	MaxAgeSecs  float64  `json:"maxAgeSeconds,omitempty"`
	Rule        string   `json:"rule,omitempty"`
	Query       string   `json:"query,omitempty"` // what happens to it
	Methods     []string `json:"methods,omitempty"`
	Pin         bool     `json:"pin,omitempty"`
	Origin      string   `json:"origin,omitempty"`
	Notes       []string `json:"notes,omitempty"`
}

// Explain says what the catalogue makes of a URL as a client would send it; it
// may carry cacheHostOrigin. A URL that is not served is an answer, not an error:
// errors are for what is no http or https URL.
func (c *Catalog) Explain(rawURL string) (*Explanation, error) {
	r, e, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	m, err := c.Match(r)
	if err != nil {
		var not *NotServedError
		if !errors.As(err, &not) {
			return nil, err
		}
		e.Reason = not.Reason
		if host, kind := normalHost(r.Host); kind == nameHost && c.find(host, kind) == nil {
			e.Near = c.near(host)
		}
		return e, nil
	}
	p := m.Publisher
	e.Served, e.Host, e.Publisher, e.ContentType = true, m.Host, p.Name, p.ContentType
	e.File = p.place()
	e.Key, e.Freshness, e.MaxAgeSecs, e.Rule, e.Pin, e.Methods = m.Key, m.Freshness.String(), m.MaxAge.Seconds(), m.Rule, m.Pin, p.Methods
	if s := c.find(normalHost(r.Host)); s != nil {
		e.MatchedHost = s.name
	} else {
		e.MatchedHost = c.fallback.name
	}
	e.Query = queryWords(r.RawQuery, m)
	e.Origin = m.Origin.words()
	if p.Alias != p.Name {
		e.Notes = append(e.Notes, "keys are shared with the other publishers of alias "+p.Alias)
	}
	if p.http && p.https && p.Origin.Scheme == "" {
		e.Notes = append(e.Notes, "the copy is the same for http and https; origin.scheme: https would keep what came in the clear from it")
	}
	return e, nil
}

// parseURL takes a URL apart without changing a byte of path and query, as the
// way of a request does.
func parseURL(raw string) (*Request, *Explanation, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		scheme, rest = "http", raw
	}
	scheme = lowerASCII(scheme)
	if scheme != "http" && scheme != "https" {
		return nil, nil, fmt.Errorf("%q is not an http or https URL", raw)
	}
	rest, _, _ = strings.Cut(rest, "#")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority, target := rest[:end], rest[end:]
	if authority == "" || strings.ContainsAny(authority, "@ ") {
		return nil, nil, fmt.Errorf("the URL must name a host and no user, as in https://files.example.com/path")
	}
	path, query, _ := strings.Cut(target, "?")
	r := &Request{Scheme: scheme, Path: cmp.Or(path, "/")}
	e := &Explanation{HostFrom: "the URL's host"}
	var port string
	r.Host, port = cutPort(authority)
	var origin string
	if r.RawQuery, origin, ok = cutCacheHostOrigin(query); ok {
		r.Host, r.Explicit, e.HostFrom = origin, true, "cacheHostOrigin"
	} else if port != "" && !(port == "80" && scheme == "http") && !(port == "443" && scheme == "https") {
		e.Notes = append(e.Notes, "port "+port+" is not passed on: origins are asked on the default port unless a publisher's origin.address says otherwise")
	}
	e.URL = scheme + "://" + authority + r.Path
	if query != "" {
		e.URL += "?…" // values may be secrets
	}
	return r, e, nil
}

// cutPort parts "host:port"; an IPv6 address keeps its brackets.
func cutPort(authority string) (host, port string) {
	i := strings.LastIndexByte(authority, ':')
	if i < 0 || strings.IndexByte(authority[i:], ']') >= 0 {
		return authority, ""
	}
	return authority[:i], authority[i+1:]
}

// cutCacheHostOrigin removes every cacheHostOrigin parameter from a raw query and
// returns the last one's value.
func cutCacheHostOrigin(query string) (rest, host string, ok bool) {
	if !strings.Contains(query, "cacheHostOrigin=") {
		return query, "", false
	}
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		value, is := strings.CutPrefix(pair, "cacheHostOrigin=")
		if !is {
			kept = append(kept, pair)
			continue
		}
		ok, host = true, value
		if v, err := url.QueryUnescape(value); err == nil {
			host = v
		}
	}
	host, _ = cutPort(host)
	return strings.Join(kept, "&"), host, ok
}

func queryWords(raw string, m *Match) string {
	_, kept, some := strings.Cut(m.Key, "?")
	switch {
	case raw == "":
		return "none"
	case !some:
		return "sent to the origin, not part of the key"
	case kept == raw:
		return "sent to the origin, all of it part of the key"
	}
	return "sent to the origin, of it part of the key: " + kept
}

// words says where bytes come from.
func (o *Origin) words() string {
	s := o.Scheme + "://" + o.Host
	if o.Address != "" {
		s += " at " + o.Address + " (named by the publisher's file, so private addresses are allowed)"
	} else {
		s += " by DNS, public addresses only"
	}
	if o.Roots != nil {
		s += ", certificates of origin.ca"
	}
	return s
}

// String returns the explanation as lines a person reads.
func (e *Explanation) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-13s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("url", "%s", e.URL)
	if !e.Served {
		line("served", "no: %s", e.Reason)
		if len(e.Near) > 0 {
			line("did you mean", "%s", strings.Join(e.Near, ", "))
		}
	} else {
		line("host", "%s, from %s", e.Host, e.HostFrom)
		line("publisher", "%s (%s), by %s", e.Publisher, e.File, e.MatchedHost)
		line("content type", "%s", e.ContentType)
		line("key", "%s", strings.Replace(e.Key, "\n", " ", 1))
		line("freshness", "%s", e.freshnessWords())
		line("query", "%s", e.Query)
		if e.Methods != nil {
			line("methods", "%s", strings.Join(e.Methods, ", "))
		} else {
			line("methods", "any")
		}
		line("origin", "%s", e.Origin)
		if e.Pin {
			line("pinned", "yes: never evicted, once fetched")
		}
	}
	for _, n := range e.Notes {
		line("note", "%s", n)
	}
	return b.String()
}

func (e *Explanation) freshnessWords() string {
	why := "rule " + e.Rule
	if e.Rule == PublisherDefault {
		why = PublisherDefault
	}
	switch {
	case e.Freshness == Revalidate.String() && e.MaxAgeSecs == 0:
		return "revalidate: the origin is asked every time (" + why + ")"
	case e.Freshness == Revalidate.String():
		age := strictyaml.Duration(e.MaxAgeSecs * float64(time.Second))
		return fmt.Sprintf("revalidate: the origin is asked when the copy is older than %s (%s)", age, why)
	case e.Freshness == Immutable.String():
		return "immutable: never asked for again (" + why + ")"
	}
	return "standard: as the origin's headers say, RFC 9111 (" + why + ")"
}

// near returns up to three host patterns of the catalogue that look like host:
// those that share most of its beginning and end.
func (c *Catalog) near(host string) []string {
	type candidate struct {
		name  string
		score float64
	}
	var all []candidate
	for _, m := range []map[string]*site{c.exact, c.suffix} {
		for name, s := range m {
			pre, post := 0, 0
			shorter := min(len(name), len(host))
			for pre < shorter && name[pre] == host[pre] {
				pre++
			}
			for post < shorter-pre && name[len(name)-1-post] == host[len(host)-1-post] {
				post++
			}
			if score := float64(pre+post) / float64(max(len(name), len(host))); score >= 0.6 {
				all = append(all, candidate{s.name, score})
			}
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.name, b.name))
	})
	var names []string
	for _, c := range all[:min(3, len(all))] {
		names = append(names, c.name)
	}
	return names
}

// Hosts returns every host pattern of the catalogue as files write them, sorted.
func (c *Catalog) Hosts() []string {
	names := make(map[string]bool)
	for _, p := range c.publishers {
		for _, h := range p.Hosts {
			names[h] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}
