package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"larder/internal/strictyaml"
)

// cacheDomainsIndex is the file of the cache-domains format that names the
// others (github.com/uklans/cache-domains).
const cacheDomainsIndex = "cache_domains.json"

// File is a publisher file to be written.
type File struct {
	Name string // such as "steam.yaml"
	Data []byte
}

type cacheDomains struct {
	Services []service `yaml:"cache_domains"`
}

type service struct {
	Name        string   `yaml:"name"`
	Description string   `yaml:"description"`
	Notes       string   `yaml:"notes"`
	DomainFiles []string `yaml:"domain_files"`

	// MixedContent: the service has the same content over http and https.
	MixedContent bool `yaml:"mixed_content"`

	hosts    []string // as they will stand in the file
	left     []string // named by the built-in catalogue or an earlier service
	overlaps bool     // some of left are the built-in catalogue's
}

// ImportCacheDomains makes publisher files from a directory in the cache-domains
// format: cache_domains.json and the text files it names, one host a line, "#"
// comments, a wildcard only as a leading "*." (which does not cover the bare name).
// All mistakes are reported at once, as a strictyaml.Mistakes.
//
// Those services are game stores, whose chunks lie under hashes: they become
// immutable with the query dropped, but for files that look like an index. A service
// with hosts of the built-in catalogue is no mere store: those hosts and all its
// wildcards are left out, and its other hosts become standard. A host that two
// services name goes to the first. What was left out is said in a comment on top
// of the file; a service of which nothing remains makes none.
func ImportCacheDomains(fsys fs.FS) ([]File, error) {
	im := importer{fsys: fsys, owner: make(map[string]string)}
	builtin, err := wholeBuiltin()
	if err != nil {
		return nil, err
	}
	im.builtin = builtin
	var files []File
	taken := make(map[string]string) // file name → service
	for _, p := range builtin.publishers {
		taken[p.Name] = ""
	}
	index, doc := im.index()
	for i := range index.Services {
		s := &index.Services[i]
		name := sanitise(s.Name)
		switch other, dup := taken[name]; {
		case name == "":
			doc.Add(item("cache_domains", i)+".name", "%q holds no letter or digit; expected a name such as steam", s.Name)
		case dup && other != "":
			doc.Add(item("cache_domains", i)+".name", "%q becomes %s, as does %q", s.Name, name, other)
		case dup:
			name += "-cache-domains" // the built-in publisher keeps its name
		}
		taken[name] = s.Name
		im.hosts(s, item("cache_domains", i), doc)
		if len(s.hosts) > 0 {
			files = append(files, File{name + ".yaml", s.yaml(name)})
		}
	}
	im.mistakes = append(im.mistakes, doc.Mistakes()...)
	if err := im.mistakes.Err(); err != nil {
		return nil, err
	}
	return files, nil
}

// wholeBuiltin is the catalogue of all built-in files.
var wholeBuiltin = sync.OnceValues(func() (*Catalog, error) { return Load(nil) })

type importer struct {
	fsys     fs.FS
	builtin  *Catalog
	owner    map[string]string // host → service that took it
	mistakes strictyaml.Mistakes
}

// index reads cache_domains.json. The document is never nil.
func (im *importer) index() (cacheDomains, *strictyaml.Document) {
	var index cacheDomains
	data, err := fs.ReadFile(im.fsys, cacheDomainsIndex)
	if err == nil {
		data, err = jsonAsYAML(data)
	}
	if err != nil {
		line, problem := 0, unreadable(cacheDomainsIndex, err)
		var at *jsonError
		if errors.As(err, &at) {
			line, problem = at.line, at.Error()
		}
		im.mistakes = append(im.mistakes, strictyaml.Mistake{File: cacheDomainsIndex, Line: line, Problem: problem})
		return index, new(strictyaml.Document)
	}
	doc, _ := strictyaml.Decode(cacheDomainsIndex, data, &index) // its mistakes are doc's
	if len(index.Services) == 0 {
		doc.Add("cache_domains", "must list at least one service")
	}
	return index, doc
}

// unreadable says why a file could not be read.
func unreadable(name string, err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return name + " is not in this directory"
	}
	return "cannot be read: " + err.Error()
}

type jsonError struct {
	line int
	err  error
}

func (e *jsonError) Error() string { return "is not valid JSON: " + e.err.Error() }
func (e *jsonError) Unwrap() error { return e.err }

// jsonAsYAML checks that data is JSON and makes it what a YAML reader takes, so
// that the strict reader reports on it with lines. JSON strings hold no raw tabs,
// so replacing tabs changes nothing but white space.
func jsonAsYAML(data []byte) ([]byte, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	var raw json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		line := 0
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			line = 1 + bytes.Count(data[:min(int64(len(data)), syntax.Offset)], []byte("\n"))
		}
		return nil, &jsonError{line, err}
	}
	return bytes.ReplaceAll(data, []byte("\t"), []byte("  ")), nil
}

// hosts reads the text files of a service.
func (im *importer) hosts(s *service, at string, doc *strictyaml.Document) {
	if len(s.DomainFiles) == 0 {
		doc.Add(at+".domain_files", "must name at least one file")
	}
	read := make(map[string]bool)
	for i, name := range s.DomainFiles {
		field := at + "." + item("domain_files", i)
		if !fs.ValidPath(name) || path.Base(name) != name {
			doc.Add(field, "%q is not the name of a file in this directory", name)
			continue
		}
		if read[name] {
			doc.Add(field, "%q is named twice", name)
			continue
		}
		read[name] = true
		data, err := fs.ReadFile(im.fsys, name)
		if err != nil {
			doc.Add(field, "%s", unreadable(name, err))
			continue
		}
		im.lines(s, name, string(bytes.TrimPrefix(data, []byte("\ufeff"))))
	}
	if s.overlaps {
		wild := func(h string) bool { return strings.HasPrefix(h, "*.") }
		for _, h := range s.hosts {
			if wild(h) {
				s.left = append(s.left, h)
			}
		}
		s.hosts = slices.DeleteFunc(s.hosts, wild)
	}
}

// lines reads one text file.
func (im *importer) lines(s *service, file, text string) {
	n, found := 0, 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		found++
		host, suffix, kind, problem := hostPattern(line)
		switch {
		case problem == "" && kind == ipHost:
			problem = "is an IP address; expected a host name"
		case problem == "" && suffix && !strings.Contains(host, "."):
			problem = "is a whole top-level domain"
		}
		if problem != "" {
			im.mistakes = append(im.mistakes, strictyaml.Mistake{File: file, Line: n, Problem: fmt.Sprintf("%q %s", clip(line), problem)})
			continue
		}
		pattern, sites := host, im.builtin.exact
		if suffix {
			pattern, sites = "*."+host, im.builtin.suffix
		}
		covered := sites[host] != nil || im.builtin.find("x."+host, nameHost) != nil && suffix || im.builtin.find(host, nameHost) != nil && !suffix
		s.overlaps = s.overlaps || covered || suffix && im.above(host)
		switch owner, taken := im.owner[pattern]; {
		case covered || taken && owner != s.Name:
			if !slices.Contains(s.left, pattern) {
				s.left = append(s.left, pattern)
			}
		case !taken:
			im.owner[pattern] = s.Name
			s.hosts = append(s.hosts, pattern)
		}
	}
	if found == 0 {
		im.mistakes = append(im.mistakes, strictyaml.Mistake{File: file, Problem: "names no host"})
	}
}

// above reports whether some built-in host lies below a suffix.
func (im *importer) above(suffix string) bool {
	for _, m := range []map[string]*site{im.builtin.exact, im.builtin.suffix} {
		for host := range m {
			if host == suffix || strings.HasSuffix(host, "."+suffix) {
				return true
			}
		}
	}
	return false
}

func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

// sanitise makes a publisher's name of a service's.
func sanitise(s string) string {
	var b strings.Builder
	for _, r := range lowerASCII(s) {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() == 40 {
			break
		}
	}
	return strings.Trim(b.String(), "-")
}

// indexRules are for files in a store that say which version is current.
const indexRules = `rules:
  - {path: "*.json", freshness: revalidate, max_age: 60s}
  - {path: "*.xml", freshness: revalidate, max_age: 60s}
  - {path: "*.txt", freshness: revalidate, max_age: 60s}
  - {path: "*.html", freshness: revalidate, max_age: 60s}
  - {path: "*.version", freshness: revalidate, max_age: 60s}
  - {path: "*/latest/*", freshness: revalidate, max_age: 60s}
`

// yaml writes the publisher file of a service.
func (s *service) yaml(name string) []byte {
	var b bytes.Buffer
	if len(s.left) > 0 {
		fmt.Fprintf(&b, "# Left out, for the built-in catalogue or another file has them: %s\n", strings.Join(s.left, ", "))
	}
	fmt.Fprintf(&b, "name: %q\ncontent_type: %q\nhosts:\n", name, name)
	for _, h := range s.hosts {
		fmt.Fprintf(&b, "  - %q\n", h) // hosts hold nothing that needs escaping
	}
	if s.MixedContent {
		b.WriteString("schemes: [http, https]\n")
	} else {
		b.WriteString("schemes: [http]\n")
	}
	if s.overlaps {
		b.WriteString("# Not only a store: the origin's headers decide.\nfreshness: standard\nquery: keep\nmethods: [GET, HEAD]\n")
	} else {
		b.WriteString("freshness: immutable\nquery: drop\n" + indexRules)
	}
	return b.Bytes()
}
