package catalog_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"larder/internal/node/catalog"
	"larder/internal/strictyaml"
)

// covers says whether a host pattern of a file covers a host: the dumbest
// correct way.
func covers(pattern, host string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(host, suffix) && len(host) > len(suffix)
	}
	return host == pattern
}

func FuzzMatch(f *testing.F) {
	c := mustLoad(f, nil, intranet, "name: site\ndefault: true\npaths: [\"/files/*\"]\norigin: {address: \"10.1.2.3:8080\"}\n")
	f.Add("download.windowsupdate.com", "/c/%61", "P1=1", false)
	f.Add("download.epicgames.com.evil.test", "/files/x", "", true)
	f.Add("ＡＵ。download.windowsupdate.com", "/..;/x", "a;v=1", false)
	f.Add("packages.example.com", "/pool/%2e%2e%2f", "v=1&%76=2", false)
	f.Add("::ffff:10.9.8.7", "/index.", "v", true)
	f.Add("[fd00::7]", "/pool//x", "v=%zz", true)
	f.Add("packages.example.com", "/pool//x", "v=%\x98g\\{z", false)
	f.Fuzz(func(t *testing.T, host, path, query string, explicit bool) {
		r := catalog.Request{Scheme: "http", Host: host, Path: path, RawQuery: query, Explicit: explicit}
		m, err := c.Match(&r)
		if err != nil {
			var not *catalog.NotServedError
			if !errors.As(err, &not) || not.Reason == "" || strings.ContainsAny(not.Reason, "\r\n<>") {
				t.Fatalf("not a plain sentence: %q", err)
			}
			return
		}
		p := m.Publisher
		named := slices.ContainsFunc(p.Hosts, func(h string) bool { return covers(h, m.Host) })
		if !named && (!p.Default || explicit) {
			t.Fatalf("%q (%q) went to %s, which does not name it", host, m.Host, p.Name)
		}
		// The key holds the alias, the normal path and the kept query, and no
		// line of it can be another's.
		rest, ok := strings.CutPrefix(m.Key, p.Alias+"\n/")
		if !ok || strings.ContainsAny(rest, "\n\r\x00 #") {
			t.Fatalf("key %q", m.Key)
		}
		keyPath, keyQuery, _ := strings.Cut(m.Key[len(p.Alias)+1:], "?")
		if strings.Contains(keyPath, "\\") { // in a query it separates nothing
			t.Fatalf("the path of key %q", m.Key)
		}
		if p.Query.String() == "drop" && m.Rule == catalog.PublisherDefault && keyQuery != "" {
			t.Fatalf("key %q holds a query that is dropped", m.Key)
		}
		for pair := range strings.SplitSeq(keyQuery, "&") {
			if keyQuery != "" && !slices.Contains(strings.Split(query, "&"), pair) {
				t.Fatalf("key %q holds a parameter that was not asked", m.Key)
			}
		}
		// Nothing else of the request is in it.
		for _, same := range []catalog.Request{
			{Scheme: "http", Host: strings.TrimSuffix(m.Host, ".") + ".", Path: path, RawQuery: query, Explicit: explicit},
			{Scheme: "http", Host: m.Host, Path: keyPath, RawQuery: query, Explicit: explicit},
			{Scheme: "https", Host: m.Host, Path: path, RawQuery: query, Explicit: explicit},
		} {
			if strings.Contains(m.Host, ":") && strings.HasSuffix(same.Host, ".") {
				continue // an IPv6 address takes no trailing dot
			}
			if same.Scheme == "https" && !slices.Contains(p.Schemes, "https") {
				continue
			}
			m2, err := c.Match(&same)
			if err != nil || m2.Key != m.Key || m2.Freshness != m.Freshness || m2.Rule != m.Rule {
				t.Fatalf("%+v gives %+v, %v; but %+v gives key %q", same, m2, err, r, m.Key)
			}
		}
		if m.Origin.Scheme == "" || m.Origin.Host == "" || strings.ContainsAny(m.Origin.Host, "\r\n /@") {
			t.Fatalf("origin %+v", m.Origin)
		}
		if _, err := c.Explain("http://" + host + path + "?" + query); err == nil && host == "" {
			t.Fatal("a URL without a host is explained")
		}
	})
}

func FuzzLoad(f *testing.F) {
	for _, glob := range []string{"testdata/bad/*.yaml", "builtin/*.yaml"} {
		files, _ := filepath.Glob(glob)
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte(intranet))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := catalog.Load(none, catalog.Source{Name: "d", FS: fstest.MapFS{"a.yaml": {Data: data}}, ReadFile: readCA})
		if err != nil {
			var m strictyaml.Mistakes
			if !errors.As(err, &m) || len(m) == 0 || c != nil {
				t.Fatalf("got %v, %v", c, err)
			}
			return
		}
		for _, p := range c.Publishers() {
			if p.Name == "" || len(p.Schemes) == 0 || len(p.Hosts) == 0 && !p.Default {
				t.Fatalf("an incomplete publisher got through: %+v", p)
			}
			if p.Default && p.Origin.Address == "" {
				t.Fatalf("an open proxy got through: %+v", p)
			}
			for _, h := range p.Hosts {
				if name := strings.TrimPrefix(h, "*."); strings.ContainsAny(name, "*/ ") || name == "" {
					t.Fatalf("host %q got through", h)
				}
			}
		}
		// Whatever was loaded, a host it does not name is not served by name.
		if m, err := c.Match(&catalog.Request{Scheme: "http", Host: "not-in-any-file.test", Path: "/x", Explicit: true}); err == nil && !slices.ContainsFunc(m.Publisher.Hosts, func(h string) bool { return covers(h, m.Host) }) {
			t.Fatalf("%+v", m)
		}
	})
}

func FuzzImportCacheDomains(f *testing.F) {
	f.Add([]byte(`{"cache_domains":[{"name":"a","domain_files":["x.txt"],"mixed_content":true}]}`), []byte("*.a.example\nb.example # c\n"))
	f.Add([]byte("{\n\t\"cache_domains\": []}"), []byte("*.windowsupdate.com\n"))
	f.Add([]byte(`{"cache_domains":[{"name":"\u00e4\ud83d\ude00","domain_files":["x.txt","x.txt"]}]}`), []byte("\xff\n"))
	f.Fuzz(func(t *testing.T, index, hosts []byte) {
		files, err := catalog.ImportCacheDomains(fstest.MapFS{"cache_domains.json": {Data: index}, "x.txt": {Data: hosts}})
		if err != nil {
			var m strictyaml.Mistakes
			if !errors.As(err, &m) || len(m) == 0 {
				t.Fatalf("got %v", err)
			}
			return
		}
		dir := fstest.MapFS{}
		for _, file := range files {
			if dir[file.Name] != nil || filepath.Base(file.Name) != file.Name {
				t.Fatalf("file name %q", file.Name)
			}
			dir[file.Name] = &fstest.MapFile{Data: file.Data}
		}
		if _, err := catalog.Load(none, catalog.Source{Name: "d", FS: dir}); err != nil {
			t.Fatalf("what was imported does not load: %v", err)
		}
	})
}
