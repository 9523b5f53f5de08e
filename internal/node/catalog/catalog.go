package catalog

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Freshness says how long a copy may be used.
type Freshness int

const (
	Immutable  Freshness = iota // never changes under its path; the origin's directives are ignored
	Revalidate                  // ask the origin, every time or once the copy is older than MaxAge
	Standard                    // RFC 9111, as a shared cache
)

var freshnessNames = [...]string{"immutable", "revalidate", "standard"}

// String returns the word used in files.
func (f Freshness) String() string { return freshnessNames[f] }

// MarshalText writes the word used in files.
func (f Freshness) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads the word used in files.
func (f *Freshness) UnmarshalText(text []byte) error {
	i := slices.Index(freshnessNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("found %q, expected %s", text, f.Expected())
	}
	*f = Freshness(i)
	return nil
}

// Expected says what belongs into a field of this type.
func (Freshness) Expected() string { return "immutable, revalidate or standard" }

// Query says which part of a query belongs to the key: all of it, the allowed
// parameters, or, when zero, nothing.
type Query struct {
	Keep  bool
	Allow []string
}

// String returns "keep", "drop", or "allow" with the names.
func (q Query) String() string {
	switch {
	case q.Keep:
		return "keep"
	case len(q.Allow) > 0:
		return "allow " + strings.Join(q.Allow, ", ")
	}
	return "drop"
}

// MarshalText writes what String returns.
func (q Query) MarshalText() ([]byte, error) { return []byte(q.String()), nil }

// Publisher is one publisher as its file describes it, with the defaults filled
// in. It must not be changed.
type Publisher struct {
	Name        string        `json:"name"`
	ContentType string        `json:"content_type"`
	Alias       string        `json:"alias"` // what keys begin with; the name unless the file says otherwise
	Hosts       []string      `json:"hosts"`
	Paths       []string      `json:"paths,omitempty"` // nil: all
	Schemes     []string      `json:"schemes"`
	Methods     []string      `json:"methods,omitempty"` // nil: any
	Freshness   Freshness     `json:"freshness"`
	MaxAge      time.Duration `json:"max_age_ns,omitempty"`
	Query       Query         `json:"query"`
	Rules       []Rule        `json:"rules,omitempty"`
	Pin         []string      `json:"pin,omitempty"`
	Origin      Origin        `json:"origin"` // Scheme and Host are empty where the client's are used
	Default     bool          `json:"default,omitempty"`

	Builtin string `json:"builtin,omitempty"` // which built-in file; empty for own ones
	File    string `json:"file"`
	Line    int    `json:"line"`

	order       int // of loading; decides between equals
	http, https bool
	rules       []rule
	pins        []pattern
}

// Allows reports whether the publisher serves requests with this method.
func (p *Publisher) Allows(method string) bool {
	return p.Methods == nil || slices.Contains(p.Methods, method)
}

// Rule is an exception to a publisher's freshness for the paths of a pattern.
type Rule struct {
	Path      string        `json:"path"`
	Freshness Freshness     `json:"freshness"`
	MaxAge    time.Duration `json:"max_age_ns,omitempty"`
	Query     Query         `json:"query"`
}

// rule is a Rule with its pattern compiled.
type rule struct {
	pattern pattern
	*Rule
}

// Origin is where bytes come from.
type Origin struct {
	Scheme  string         `json:"scheme,omitempty"`  // http or https
	Host    string         `json:"host,omitempty"`    // sent as Host and checked in the certificate
	Address string         `json:"address,omitempty"` // "host:port" the file names, which may be private; "": Host by DNS, default port
	Roots   *x509.CertPool `json:"-"`                 // nil: the system's
}

// Request is what a client asks for.
type Request struct {
	Scheme   string // http or https, as the client came
	Host     string // without port; any case
	Path     string // raw, as received
	RawQuery string // raw, as received, without cacheHostOrigin

	// Explicit: the client named the host by cacheHostOrigin or in an
	// absolute-form request target, not by Host alone. Default publishers do
	// not take such requests.
	Explicit bool
}

// Match is the catalogue's answer to a Request that is served.
type Match struct {
	Publisher *Publisher
	Host      string // the host asked for, normalised

	// Key is the publisher's alias, a newline, the normalised path and, where
	// one is kept, "?" and the query. It holds nothing else of the client's.
	Key string

	Freshness Freshness
	MaxAge    time.Duration // Revalidate: how long a copy is used without asking; 0: ask every time
	Rule      string        // which rule decided: its pattern, or PublisherDefault
	Pin       bool          // never to be evicted, once fetched
	Origin    Origin
}

// PublisherDefault is Match.Rule when no rule of the publisher applied.
const PublisherDefault = "publisher default"

// NotServedError says why a request is not for this node.
type NotServedError struct {
	Reason string // one plain sentence, fit for the client's eyes
}

func (e *NotServedError) Error() string { return e.Reason }

// Catalog is all publishers a node serves. It is immutable and safe for
// concurrent use.
type Catalog struct {
	publishers []*Publisher
	exact      map[string]*site // host → publishers
	suffix     map[string]*site // what follows "*." → publishers
	fallback   *site            // default publishers; nil: none
}

// site is what lies under one host pattern.
type site struct {
	name   string  // as in a file: "example.com", "*.example.com"
	routes []route // the one to try first first
}

type route struct {
	pattern   pattern
	publisher *Publisher
}

// Publishers returns all publishers in the order they were loaded.
func (c *Catalog) Publishers() []*Publisher { return slices.Clone(c.publishers) }

// Match finds the publisher of a request and what follows from it. The error is
// a *NotServedError.
func (c *Catalog) Match(r *Request) (*Match, error) {
	host, kind := normalHost(r.Host)
	if kind == badHost {
		return nil, &NotServedError{"The host name is not valid."}
	}
	path, reason := normalPath(r.Path)
	if reason != "" {
		return nil, &NotServedError{"The path " + reason + "."}
	}
	if !goodQuery(r.RawQuery) {
		return nil, &NotServedError{"The query holds a character that no query may hold."}
	}
	if r.Scheme != "http" && r.Scheme != "https" {
		return nil, &NotServedError{"Only http and https are served."}
	}
	s := c.find(host, kind)
	byDefault := s == nil && !r.Explicit
	if byDefault {
		s = c.fallback
	}
	if s == nil {
		if kind == ipHost {
			return nil, &NotServedError{"IP addresses are not served unless this node's catalogue names them."}
		}
		return nil, &NotServedError{host + " is not in this node's catalogue."}
	}
	p, scheme := s.route(path, r.Scheme)
	if p == nil {
		if scheme != "" {
			return nil, &NotServedError{host + " is served over " + scheme + " only."}
		}
		return nil, &NotServedError{"This path of " + host + " is not in this node's catalogue."}
	}
	return p.match(r, host, path, kind, byDefault), nil
}

// find returns the site of the longest host pattern, or nil.
func (c *Catalog) find(host string, kind hostKind) *site {
	if s := c.exact[host]; s != nil || kind == ipHost {
		return s
	}
	for rest := host; ; {
		dot := strings.IndexByte(rest, '.')
		if dot < 0 {
			return nil
		}
		rest = rest[dot+1:]
		if s := c.suffix[rest]; s != nil {
			return s
		}
	}
}

// route returns the publisher that takes a path. When there is one but for the
// scheme, otherScheme is the scheme it takes.
func (s *site) route(path, scheme string) (p *Publisher, otherScheme string) {
	for i := range s.routes {
		t := &s.routes[i]
		if !t.pattern.match(path) {
			continue
		}
		switch {
		case scheme == "http" && t.publisher.http, scheme == "https" && t.publisher.https:
			return t.publisher, ""
		case t.publisher.http:
			otherScheme = "http"
		default:
			otherScheme = "https"
		}
	}
	return nil, otherScheme
}

func (p *Publisher) match(r *Request, host, path string, kind hostKind, byDefault bool) *Match {
	m := &Match{Publisher: p, Host: host, Freshness: p.Freshness, MaxAge: p.MaxAge, Rule: PublisherDefault, Origin: p.Origin}
	query := &p.Query
	for i := range p.rules {
		if t := &p.rules[i]; t.pattern.match(path) {
			m.Freshness, m.MaxAge, m.Rule = t.Freshness, t.MaxAge, t.Path
			query = &t.Query
			break
		}
	}
	for i := range p.pins {
		if p.pins[i].match(path) {
			m.Pin = true
			break
		}
	}
	kept := ""
	switch {
	case r.RawQuery == "":
	case query.Keep:
		kept = r.RawQuery
	case len(query.Allow) > 0:
		kept = allowed(r.RawQuery, query.Allow)
	}
	if kept == "" {
		m.Key = p.Alias + "\n" + path
	} else {
		m.Key = p.Alias + "\n" + path + "?" + kept
	}
	if m.Origin.Scheme == "" {
		m.Origin.Scheme = r.Scheme
	}
	if m.Origin.Host == "" {
		m.Origin.Host = host
	}
	if kind == ipHost && m.Origin.Address == "" && !byDefault {
		// The file names this address in hosts: that is where it is.
		m.Origin.Address = joinPort(host, m.Origin.Scheme)
	}
	return m
}
