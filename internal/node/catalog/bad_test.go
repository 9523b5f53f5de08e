package catalog_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"larder/internal/lardertest/golden"
	"larder/internal/node/catalog"
	"larder/internal/strictyaml"
)

// readCA stands for the disk that origin.ca names files on.
func readCA(name string) ([]byte, error) {
	if name == "missing.pem" {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return []byte("not a certificate\n"), nil
}

// TestMistakes loads each file of testdata/bad; beside it lies what must be said.
func TestMistakes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 45 {
		t.Fatalf("found %d files (%v), expected the fixtures", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := fstest.MapFS{filepath.Base(file): {Data: data}}
			_, err = catalog.Load(none, catalog.Source{Name: "catalog.d", FS: dir, ReadFile: readCA})
			var m strictyaml.Mistakes
			if !errors.As(err, &m) {
				t.Fatalf("error is %v, want Mistakes", err)
			}
			for _, one := range m {
				if one.Line == 0 && !strings.Contains(one.Problem, "empty") {
					t.Errorf("no line: %v", one)
				}
			}
			golden.Check(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
		})
	}
}

func TestCAFile(t *testing.T) {
	t.Parallel()
	pem, err := os.ReadFile("testdata/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	const file = "name: a\nhosts: [a.example]\norigin: {scheme: https, ca: /etc/ca.pem}\n"
	s := source(file)
	s.ReadFile = func(name string) ([]byte, error) {
		if name != "/etc/ca.pem" {
			t.Errorf("asked for %s", name)
		}
		return pem, nil
	}
	c, err := catalog.Load(none, s)
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Match(&catalog.Request{Scheme: "http", Host: "a.example", Path: "/x"})
	if err != nil || m.Origin.Roots == nil || m.Origin.Scheme != "https" {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, err := catalog.Load(none, source(file)); err == nil || !strings.Contains(err.Error(), "origin.ca: other files cannot be read from here") {
		t.Errorf("without ReadFile: %v", err)
	}
}

// The example of the package comment is a file that loads.
func TestTheManualsExample(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile("testdata/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	var example strings.Builder
	for line := range strings.Lines(string(doc)) {
		if code, ok := strings.CutPrefix(line, "//\t"); ok {
			example.WriteString(code)
		}
	}
	s := source(example.String())
	s.ReadFile = func(string) ([]byte, error) { return ca, nil }
	c, err := catalog.Load(nil, s)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := c.Explain("https://packages.example.com/pool/a.json?x=1"); err != nil || e.Publisher != "intranet-packages" || e.Key != "packages\n/pool/a.json?x=1" {
		t.Errorf("got %+v, %v", e, err)
	}
}

// TestCacheDomainsMistakes imports each directory of testdata/cachedomains-bad.
func TestCacheDomainsMistakes(t *testing.T) {
	t.Parallel()
	dirs, err := filepath.Glob("testdata/cachedomains-bad/*/cache_domains.json")
	if err != nil || len(dirs) < 7 {
		t.Fatalf("found %d directories (%v), expected the fixtures", len(dirs), err)
	}
	for _, dir := range append(dirs, "testdata/cachedomains-bad/no-index/cache_domains.json") {
		dir := filepath.Dir(dir)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			files, err := catalog.ImportCacheDomains(os.DirFS(dir))
			var m strictyaml.Mistakes
			if !errors.As(err, &m) || files != nil {
				t.Fatalf("got %d files and %v, want Mistakes", len(files), err)
			}
			golden.Check(t, filepath.Join(dir, "mistakes.golden"), err.Error()+"\n")
		})
	}
}

func TestImportCacheDomains(t *testing.T) {
	t.Parallel()
	files, err := catalog.ImportCacheDomains(os.DirFS("testdata/cachedomains-good"))
	if err != nil {
		t.Fatal(err)
	}
	dir := fstest.MapFS{}
	var all strings.Builder
	for _, f := range files {
		fmt.Fprintf(&all, "== %s\n%s", f.Name, f.Data)
		dir[f.Name] = &fstest.MapFile{Data: f.Data}
	}
	golden.Check(t, "testdata/cachedomains-good.golden", all.String())
	c, err := catalog.Load(nil, catalog.Source{Name: "catalog.d", FS: dir})
	if err != nil {
		t.Fatalf("what was imported does not load: %v", err)
	}
	for url, want := range map[string]string{
		"http://cache1.steam.example/depot/1/chunk/ab":      "steam immutable",
		"http://cache1.steam.example/depot/latest/app.json": "steam revalidate",
		"http://steam.example/depot/1":                      " ", // *. does not cover the bare name
		"https://lancache.steam.example/x":                  " ", // not mixed content
		"https://mixed.example/x":                           "mixed-content-store immutable",
		"http://shared.example/x":                           "steam immutable",
		"http://ctldl.windowsupdate.com/msdownload/update/v3/static/trustedr/en/authrootstl.cab": "windows-update-trust revalidate",
		"http://other.windowsupdate.com/x": " ",
		"http://amupdate.example/x":        "wsus standard",
		"http://xbox-only.example/x":       "xbox-cache-domains immutable",
	} {
		e, err := c.Explain(url)
		if err != nil {
			t.Fatal(err)
		}
		got := " "
		if e.Served {
			got = e.Publisher + " " + e.Freshness
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", url, got, want)
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, nil, intranet, "name: site\ndefault: true\npaths: [\"/files/*\"]\norigin: {address: \"10.1.2.3:8080\"}\n", "name: apt\nhosts: [deb.example]\nrules:\n  - {path: \"*/InRelease\", freshness: revalidate}\n")
	var all strings.Builder
	for _, url := range []string{
		"http://127.0.0.1:8080/filestreamingservice/files/7bc846e0-af9c-49be-a03d-bb04428c9bb5/Microsoft.png?P1=1&cacheHostOrigin=evil.example&P4=secret&cacheHostOrigin=dl.delivery.mp.microsoft.com",
		"http://ctldl.windowsupdate.com/msdownload/update/v3/static/trustedr/en/authrootstl.cab?1a2b",
		"https://packages.example.com/pool/%61.bin?v=1&token=secret",
		"http://a.cdn.example.com:8080/index.json?x=1",
		"deb.example/dists/stable/InRelease",
		"https://deb.example/pool/a.deb?x=1",
		"http://node-7.lan/files/a",
		"http://node-7.lan/other",
		"http://node-7.lan/files/a?cacheHostOrigin=downlod.windowsupdate.com",
		"http://installer.teams.static.microsoft/x",
		"http://packages.example.com/pool/../x",
		"http://node/x?cacheHostOrigin=10.0.0.1",
		"http://node/x?cacheHostOrigin=",
	} {
		e, err := c.Explain(url)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if strings.Contains(e.String(), "secret") && !strings.Contains(e.Key, "secret") {
			t.Errorf("%s: a secret of the query is shown", url)
		}
		fmt.Fprintf(&all, "== %s\n%s", url, e)
	}
	golden.Check(t, "testdata/explain.golden", all.String())
	for _, url := range []string{"", "ftp://a.example/x", "http:///x", "http://user:pw@a.example/x", "http://a b/x"} {
		if e, err := c.Explain(url); err == nil || strings.Contains(err.Error(), "pw") {
			t.Errorf("%q: got %+v, %v; want an error without the password", url, e, err)
		}
	}
}
