package catalog_test

import (
	"bufio"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"larder/internal/node/catalog"
	"larder/internal/strictyaml"
)

func mustLoad(t testing.TB, builtin []string, files ...string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load(builtin, source(files...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// source makes a directory of publisher files named a.yaml, b.yaml, ….
func source(files ...string) catalog.Source {
	m := fstest.MapFS{}
	for i, f := range files {
		m[string(rune('a'+i))+".yaml"] = &fstest.MapFile{Data: []byte(f)}
	}
	return catalog.Source{Name: "catalog.d", FS: m}
}

var none = []string{} // no built-in file

type hostRow struct{ host, scheme, path, publisher, contentType, freshness string }

func hostRows(t testing.TB) []hostRow {
	t.Helper()
	f, err := os.Open("testdata/hosts.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rows []hostRow
	for s := bufio.NewScanner(f); s.Scan(); {
		w := strings.Fields(s.Text())
		if len(w) == 0 || w[0][0] == '#' {
			continue
		}
		if len(w) != 6 {
			t.Fatalf("hosts.txt: %q has %d words, expected 6", s.Text(), len(w))
		}
		rows = append(rows, hostRow{w[0], w[1], w[2], w[3], w[4], w[5]})
	}
	if len(rows) < 110 {
		t.Fatalf("hosts.txt has %d rows, expected the vendor's tables", len(rows))
	}
	return rows
}

func TestEveryHostOfTheVendorsTables(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, nil)
	for _, row := range hostRows(t) {
		hosts := []string{row.host}
		if bare, ok := strings.CutPrefix(row.host, "*."); ok {
			hosts = []string{bare, "name." + bare, "a.b." + bare}
		}
		for _, host := range hosts {
			m, err := c.Match(&catalog.Request{Scheme: row.scheme, Host: host, Path: row.path, RawQuery: "P1=1&P4=secret"})
			if err != nil {
				t.Errorf("%s %s: %v", host, row.path, err)
				continue
			}
			if m.Publisher.Name != row.publisher || m.Publisher.ContentType != row.contentType || m.Freshness.String() != row.freshness {
				t.Errorf("%s %s: got %s %s %s (rule %s), want %s %s %s", host, row.path,
					m.Publisher.Name, m.Publisher.ContentType, m.Freshness, m.Rule, row.publisher, row.contentType, row.freshness)
			}
			if m.Origin.Host != host || m.Origin.Scheme != row.scheme || m.Origin.Address != "" {
				t.Errorf("%s: origin %+v", host, m.Origin)
			}
			if strings.Contains(m.Key, "P4") != (m.Freshness == catalog.Standard) {
				t.Errorf("%s: the key is %q", host, m.Key)
			}
			if !m.Publisher.Allows("GET") || !m.Publisher.Allows("HEAD") || m.Publisher.Allows("POST") {
				t.Errorf("%s: methods %v", host, m.Publisher.Methods)
			}
		}
	}
}

// What is not content is not served, though the vendor's firewall table names
// hosts above it.
func TestServicesOfTheVendorAreNotServed(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, nil)
	for _, u := range []string{
		"http://kv801.prod.do.dsp.mp.microsoft.com/all",
		"http://fe3.delivery.mp.microsoft.com/ClientWebService/client.asmx",
		"https://portal.manage.microsoft.com/enrollment",
		"http://www.cdn.office.net/index.html",
		"http://hub.azure-devices.net/x",
		"http://x.azurecr.io/v2/",
		"http://github.com/x",
		"http://other.blob.core.windows.net/g/g/g.intunewin.bin",
		"http://windowsupdate.com/x",
		"http://www.xboxlive.com/x",
		"https://download.windowsupdate.com/x",
		"http://installer.teams.static.microsoft/x",
	} {
		e, err := c.Explain(u)
		if err != nil {
			t.Fatal(err)
		}
		if e.Served {
			t.Errorf("%s is served by %s", u, e.Publisher)
		}
	}
}

func TestEachBuiltinFileStandsAlone(t *testing.T) {
	t.Parallel()
	for name, u := range map[string]string{
		"windows-update": "http://dl.delivery.mp.microsoft.com/filestreamingservice/files/x",
		"office":         "http://officecdn.microsoft.com/pr/x",
		"intune":         "https://swda01.manage.microsoft.com/x",
		"teams":          "https://installer.teams.static.microsoft/x",
		"store":          "http://dl.delivery.mp.microsoft.com/filestreamingservice/files/x",
		"defender":       "http://download.windowsupdate.com/c/msdownload/update/software/defu/x",
		"edge":           "http://msedge.sf.dl.delivery.mp.microsoft.com/x",
		"xbox":           "http://assets1.xboxlive.com/x",
		"device-update":  "http://a.nlu.dl.adu.microsoft.com/x",
	} {
		c := mustLoad(t, []string{name})
		e, err := c.Explain(u)
		if err != nil || !e.Served || e.ContentType != name {
			t.Errorf("%s alone: %+v, %v", name, e, err)
		}
		for _, p := range c.Publishers() {
			if p.Builtin != name {
				t.Errorf("%s brings publisher %s of %s", name, p.Name, p.Builtin)
			}
		}
	}
	if got := catalog.BuiltinNames(); len(got) != 9 {
		t.Errorf("built-in names %v", got)
	}
	if _, err := catalog.Load([]string{"office", "offfice"}); err == nil || !strings.Contains(err.Error(), `catalog.builtin[1]: "offfice" is not built in; known are windows-update, office,`) {
		t.Errorf("unknown built-in name: %v", err)
	}
	if c := mustLoad(t, none); len(c.Publishers()) != 0 {
		t.Error("an empty list of built-in files loads some")
	}
}

// The objects that the vendor's scripts ask for are kept once they were fetched.
func TestProbeObjectsArePinned(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, nil)
	for _, u := range []string{
		"http://au.download.windowsupdate.com/mscomtest/wuidt.gif",
		"http://b1.download.windowsupdate.com/mscomtest/wuidt.gif",
		"http://download.windowsupdate.com/mscomtest/cedtest/r20.gif",
		"http://node/filestreamingservice/files/7bc846e0-af9c-49be-a03d-bb04428c9bb5/Microsoft.png?cacheHostOrigin=dl.delivery.mp.microsoft.com",
		"https://swda01-mscdn.manage.microsoft.com/ee344de8-d177-4720-86c1-a076581766f9/070a8fd4-79a7-42c8-b7c8-9883253bb01a/c7b1b825-88b2-4e66-9b15-ff5fe0374bc6.appxbundle.bin",
	} {
		if e, err := c.Explain(u); err != nil || !e.Pin {
			t.Errorf("%s is not pinned: %+v, %v", u, e, err)
		}
	}
	if e, _ := c.Explain("http://download.windowsupdate.com/mscomtest/other.gif"); e.Pin {
		t.Error("everything is pinned")
	}
}

func key(t *testing.T, c *catalog.Catalog, url string) string {
	t.Helper()
	e, err := c.Explain(url)
	if err != nil || !e.Served {
		t.Fatalf("%s: %+v, %v", url, e, err)
	}
	return e.Key
}

func TestHostsWithTheSameBytesShareKeys(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, nil)
	const path = "/c/msdownload/update/software/defu/2024/01/am_base_3d1a.exe"
	want := key(t, c, "http://download.windowsupdate.com"+path)
	for _, host := range []string{"au.download.windowsupdate.com", "b1.download.windowsupdate.com", "AU.B1.Download.WindowsUpdate.com.", "7.au.download.windowsupdate.com"} {
		if got := key(t, c, "http://"+host+path+"?P1=1"); got != want {
			t.Errorf("%s: key %q, want %q", host, got, want)
		}
	}
	// Which of the built-in files are in use does not change where things lie.
	for _, builtin := range [][]string{{"windows-update"}, {"defender"}} {
		if got := key(t, mustLoad(t, builtin), "http://download.windowsupdate.com"+path); got != want {
			t.Errorf("with %v: key %q, want %q", builtin, got, want)
		}
	}
	const fss = "/filestreamingservice/files/7bc846e0"
	if a, b := key(t, c, "http://tlu.dl.delivery.mp.microsoft.com"+fss), key(t, c, "http://msedge.sf.dl.delivery.mp.microsoft.com"+fss); a != b {
		t.Errorf("Edge keeps %q, Windows Update %q", b, a)
	}
	if a, b := key(t, c, "http://officecdn.microsoft.com/pr/x"), key(t, c, "http://f.c2r.ts.cdn.office.net/pr/x"); a == b {
		t.Error("hosts that were not seen to serve the same bytes share keys")
	}
}

// A catalogue that is not anchored would hand one host's entry to another
// (seen in a popular cache's generated host map).
func TestHostConfusions(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, nil, "name: epic\nhosts: [download.epicgames.com, \"*.cdn.epicgames.com\"]\n")
	for _, host := range []string{
		"download.epicgames.com.evil.test", "evildownload.epicgames.com", "a.download.epicgames.com", "epicgames.com",
		"cdn.epicgames.com", "evilcdn.epicgames.com", "x.cdn.epicgames.com.evil.test", "download.windowsupdate.com.evil.test",
		"evil-download.windowsupdate.com", "downloadXwindowsupdate.com", "com", "xn--download.epicgames.com",
	} {
		_, err := c.Match(&catalog.Request{Scheme: "http", Host: host, Path: "/x"})
		var not *catalog.NotServedError
		if !errors.As(err, &not) || not.Reason != strings.ToLower(host)+" is not in this node's catalogue." {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, host := range []string{"download.epicgames.com", "DOWNLOAD.epicgames.com.", "a.cdn.epicgames.com", "a.b.cdn.epicgames.com", "ｄownload。epicgames．com"} {
		if _, err := c.Match(&catalog.Request{Scheme: "http", Host: host, Path: "/x"}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestNotServedInOneSentence(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, none, "name: a\nhosts: [a.example]\npaths: [\"/pool/*\"]\nschemes: https\n")
	for _, tt := range []struct{ scheme, host, path, query, want string }{
		{"https", "b.example", "/pool/x", "", "b.example is not in this node's catalogue."},
		{"https", "a.example", "/other", "", "This path of a.example is not in this node's catalogue."},
		{"https", "a.example", "/POOL/x", "", "This path of a.example is not in this node's catalogue."},
		{"http", "a.example", "/pool/x", "", "a.example is served over https only."},
		{"ftp", "a.example", "/pool/x", "", "Only http and https are served."},
		{"https", "10.1.2.3", "/pool/x", "", "IP addresses are not served unless this node's catalogue names them."},
		{"https", "[::1]", "/pool/x", "", "IP addresses are not served unless this node's catalogue names them."},
		{"https", "127.1", "/pool/x", "", "The host name is not valid."},
		{"https", "a.example\r\nX: y", "/pool/x", "", "The host name is not valid."},
		{"https", "a.example", "/pool/../etc", "", "The path holds a dot segment."},
		{"https", "a.example", "/pool/..%2fetc", "", "The path holds a dot segment."},
		{"https", "a.example", "/pool/x\ny", "", "The path holds a character that no path may hold."},
		{"https", "a.example", "/pool/x", "a b", "The query holds a character that no query may hold."},
	} {
		_, err := c.Match(&catalog.Request{Scheme: tt.scheme, Host: tt.host, Path: tt.path, RawQuery: tt.query})
		var not *catalog.NotServedError
		if !errors.As(err, &not) || not.Reason != tt.want {
			t.Errorf("%s %q %q: got %v, want %s", tt.scheme, tt.host, tt.path, err, tt.want)
		}
	}
}

const intranet = `
name: intranet-packages
content_type: internal
hosts: [packages.example.com, "*.cdn.example.com", 10.9.8.7, "fd00::7"]
paths: ["/pool/*", "/index.*"]
freshness: immutable
query: {allow: [v]}
rules:
  - {path: "*.json", freshness: revalidate, max_age: 60s}
  - {path: "/pool/*/fixed/*.json", freshness: immutable, query: keep}
  - {path: "/pool/live/*", freshness: standard}
  - {path: "*.JSON.asc", query: drop}
pin: ["/pool/probe.bin"]
origin: {scheme: https, host: files.example.com, address: "10.1.2.3:8443"}
alias: packages
`

func TestOwnPublisher(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, nil, intranet)
	for _, tt := range []struct {
		host, path, query, key, rule string
		freshness                    catalog.Freshness
		maxAge                       time.Duration
		pin                          bool
	}{
		{"packages.example.com", "/pool/a.deb", "v=1&x=2", "packages\n/pool/a.deb?v=1", "publisher default", catalog.Immutable, 0, false},
		{"a.cdn.example.com", "/pool/%61.deb", "x=2", "packages\n/pool/a.deb", "publisher default", catalog.Immutable, 0, false},
		{"packages.example.com", "/index.json", "", "packages\n/index.json", "*.json", catalog.Revalidate, time.Minute, false},
		{"packages.example.com", "/index.JSON", "", "packages\n/index.JSON", "*.json", catalog.Revalidate, time.Minute, false},
		{"packages.example.com", "/pool/x/fixed/y.json", "a=1&b", "packages\n/pool/x/fixed/y.json?a=1&b", "/pool/*/fixed/*.json", catalog.Immutable, 0, false},
		{"packages.example.com", "/pool/live/a.json", "", "packages\n/pool/live/a.json", "/pool/live/*", catalog.Standard, 0, false},
		{"packages.example.com", "/pool/a.json.asc", "v=1", "packages\n/pool/a.json.asc", "*.JSON.asc", catalog.Immutable, 0, false},
		{"10.9.8.7", "/pool/probe.bin", "", "packages\n/pool/probe.bin", "publisher default", catalog.Immutable, 0, true},
		{"[fd00::7]", "/pool/a%2fb", "", "packages\n/pool/a%2Fb", "publisher default", catalog.Immutable, 0, false},
	} {
		m, err := c.Match(&catalog.Request{Scheme: "http", Host: tt.host, Path: tt.path, RawQuery: tt.query, Explicit: true})
		if err != nil {
			t.Errorf("%s%s: %v", tt.host, tt.path, err)
			continue
		}
		if m.Key != tt.key || m.Rule != tt.rule || m.Freshness != tt.freshness || m.MaxAge != tt.maxAge || m.Pin != tt.pin {
			t.Errorf("%s%s: got key %q rule %q %s %s pin %v\nwant %q %q %s %s %v", tt.host, tt.path,
				m.Key, m.Rule, m.Freshness, m.MaxAge, m.Pin, tt.key, tt.rule, tt.freshness, tt.maxAge, tt.pin)
		}
		if o := m.Origin; o.Scheme != "https" || o.Host != "files.example.com" || o.Address != "10.1.2.3:8443" {
			t.Errorf("%s: origin %+v", tt.host, o)
		}
	}
}

func TestDefaultsOfAPublisherFile(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, none, "name: plain\nhosts: [a.example]\n", "name: fixed\nhosts: [b.example]\nfreshness: immutable\n",
		"publishers:\n  - {name: one, hosts: [c.example], freshness: revalidate}\n  - {name: two, hosts: [c.example], paths: [\"/two/*\"], methods: any, freshness: immutable}\n")
	type defaults struct {
		freshness, query string
		methods          []string
	}
	want := map[string]defaults{
		"plain": {"standard", "keep", nil},
		"fixed": {"immutable", "drop", []string{"GET", "HEAD"}},
		"one":   {"revalidate", "keep", []string{"GET", "HEAD"}},
		"two":   {"immutable", "drop", nil},
	}
	for _, p := range c.Publishers() {
		w := want[p.Name]
		if p.Freshness.String() != w.freshness || p.Query.String() != w.query || !slices.Equal(p.Methods, w.methods) {
			t.Errorf("%s: %s %s %v, want %+v", p.Name, p.Freshness, p.Query, p.Methods, w)
		}
		if p.ContentType != p.Name || p.Alias != p.Name || !slices.Equal(p.Schemes, []string{"http", "https"}) {
			t.Errorf("%s: %+v", p.Name, p)
		}
	}
	if p := c.Publishers()[0]; !p.Allows("PROPFIND") {
		t.Error("a standard publisher does not take any method")
	}
	if e, _ := c.Explain("http://c.example/two/x"); e.Publisher != "two" {
		t.Errorf("the more specific path is not preferred: %+v", e)
	}
}

func TestAnAddressInHostsNamesTheOrigin(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, none, "name: ip\nhosts: [10.9.8.7, \"fd00::7\"]\n")
	for host, want := range map[string]string{"10.9.8.7": "10.9.8.7:443", "::ffff:10.9.8.7": "10.9.8.7:443", "[FD00::7]": "[fd00::7]:443"} {
		m, err := c.Match(&catalog.Request{Scheme: "https", Host: host, Path: "/x"})
		if err != nil || m.Origin.Address != want {
			t.Errorf("%s: %+v, %v; want address %s", host, m, err, want)
		}
	}
}

func TestLongestHostThenOwnThenMostSpecificPath(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, nil,
		"name: wide\nhosts: [\"*.example.com\"]\n",
		"name: narrow\nhosts: [\"*.a.example.com\"]\npaths: [\"/x/*\"]\n",
		"name: exact\nhosts: [b.a.example.com]\n",
		"name: office-mirror\nhosts: [officecdn.microsoft.com]\npaths: [\"/pr/*\"]\norigin: {address: \"10.0.0.1:80\"}\n",
		"name: windows-wide\nhosts: [\"*.windowsupdate.com\"]\n")
	for url, want := range map[string]string{
		"http://z.example.com/x/1":                  "wide",
		"http://z.a.example.com/x/1":                "narrow",
		"http://z.a.example.com/y":                  "", // the longest host decides, whatever its paths
		"http://b.a.example.com/x/1":                "exact",
		"http://a.example.com/x/1":                  "wide",
		"http://officecdn.microsoft.com/pr/v64.cab": "office-mirror",
		"http://officecdn.microsoft.com/other":      "office",
		"http://download.windowsupdate.com/x":       "windows-update",
		"http://anything.else.windowsupdate.com/x":  "windows-wide",
	} {
		e, err := c.Explain(url)
		if err != nil || e.Publisher != want {
			t.Errorf("%s: %q (%s), %v; want %q", url, e.Publisher, e.Reason, err, want)
		}
	}
}

func TestDefaultPublisher(t *testing.T) {
	t.Parallel()
	c := mustLoad(t, nil, "name: site\ndefault: true\nhosts: [www.example.com]\npaths: [\"/files/*\"]\norigin: {address: \"10.1.2.3:8080\"}\n",
		"name: rest\ndefault: true\npaths: [\"/rest/*\"]\norigin: {address: \"backend.example:8080\"}\n")
	match := func(host, path string, explicit bool) (*catalog.Match, error) {
		return c.Match(&catalog.Request{Scheme: "http", Host: host, Path: path, Explicit: explicit})
	}
	var keys []string
	for _, host := range []string{"www.example.com", "node-7.lan", "10.0.0.5", "[::1]", "localhost"} {
		m, err := match(host, "/files/a", false)
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		// The origin is never asked for what the client called the node: the
		// key does not hold it.
		if m.Origin.Host != "www.example.com" || m.Origin.Address != "10.1.2.3:8080" {
			t.Errorf("%s: origin %+v", host, m.Origin)
		}
		keys = append(keys, m.Key)
	}
	if keys = slices.Compact(keys); !slices.Equal(keys, []string{"site\n/files/a"}) {
		t.Errorf("keys %q", keys)
	}
	if m, err := match("node-7.lan", "/rest/a", false); err != nil || m.Publisher.Name != "rest" || m.Origin.Host != "backend.example" {
		t.Errorf("second default publisher: %+v, %v", m, err)
	}
	if _, err := match("node-7.lan", "/etc", false); err == nil {
		t.Error("a default publisher takes paths it does not name")
	}
	if _, err := match("elsewhere.example", "/files/a", true); err == nil || err.Error() != "elsewhere.example is not in this node's catalogue." {
		t.Errorf("a default publisher takes a host named by cacheHostOrigin: %v", err)
	}
	if m, err := match("download.windowsupdate.com", "/files/a", false); err != nil || m.Publisher.Name != "windows-update" {
		t.Errorf("a default publisher takes a named host: %+v, %v", m, err)
	}
	if _, err := match("127.1", "/files/a", false); err == nil {
		t.Error("a default publisher takes what is no host name")
	}
}

// Load reports what is wrong in all files at once.
func TestAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	_, err := catalog.Load([]string{"office", "x"}, source("name: a\nhost: [x.example]\n", "name: b\nhosts: [\"*\"]\nquery: maybe\n", "name: office\nhosts: [y.example]\n"),
		catalog.Source{Name: "gone", FS: os.DirFS("testdata/no-such-directory")})
	var m strictyaml.Mistakes
	if !errors.As(err, &m) || len(m) != 6 {
		t.Fatalf("got %d mistakes:\n%v", len(m), err)
	}
	for i, want := range []string{
		`catalog.builtin[1]: "x" is not built in`,
		"catalog.d/a.yaml:2: host: unknown field; did you mean hosts?",
		`catalog.d/b.yaml:2: hosts[0]: "*" names every host; that would be an open proxy`,
		`catalog.d/b.yaml:3: query: found "maybe", expected drop, keep or {allow: [v]}`,
		`catalog.d/c.yaml:1: name: "office" is the name of another publisher, builtin/office.yaml:`,
		"gone: cannot be read:",
	} {
		if got := m[i].Error(); !strings.HasPrefix(got, want) {
			t.Errorf("mistake %d is\n%s\nwant\n%s", i, got, want)
		}
	}
}

func TestWhichFilesAreRead(t *testing.T) {
	t.Parallel()
	file := func(name string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("name: " + name + "\nhosts: [" + name + ".example]\n")}
	}
	c, err := catalog.Load(none, catalog.Source{Name: "d", FS: fstest.MapFS{
		"a.yaml": file("a"), "b.yml": file("b"), ".c.yaml": file("c"), "d.yaml~": file("d"), "e.yaml.disabled": file("e"), "sub/f.yaml": file("f"), "README": file("g"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Hosts(); !slices.Equal(got, []string{"a.example", "b.example"}) {
		t.Errorf("hosts %v", got)
	}
}

func BenchmarkMatch(b *testing.B) {
	c := mustLoad(b, nil)
	for name, r := range map[string]*catalog.Request{
		"plain":   {Scheme: "http", Host: "au.download.windowsupdate.com", Path: "/c/msdownload/update/software/secu/2024/01/windows10.0-kb5034122-x64_3d1a7a1bfd0e0b5b.cab", RawQuery: "P1=1&P4=x"},
		"suffix":  {Scheme: "http", Host: "a.b.7.tlu.dl.delivery.mp.microsoft.com", Path: "/filestreamingservice/files/7bc846e0-af9c-49be-a03d-bb04428c9bb5"},
		"encoded": {Scheme: "http", Host: "AU.download.windowsupdate.com", Path: "/c/msdownload/update/software/secu/2024/01/windows%31%30.cab"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Match(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		mustLoad(b, nil)
	}
}

func TestMatchAllocates(t *testing.T) {
	c := mustLoad(t, nil)
	r := &catalog.Request{Scheme: "http", Host: "au.download.windowsupdate.com", Path: "/c/msdownload/update/x_3d1a7a1bfd0e0b5b.cab", RawQuery: "P1=1"}
	if n := testing.AllocsPerRun(100, func() { c.Match(r) }); n > 3 {
		t.Errorf("Match allocates %v times, expected at most 3", n)
	}
}
