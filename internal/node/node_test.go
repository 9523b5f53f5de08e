package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/lardertest"
	"larder/internal/node/config"
	"larder/internal/strictyaml"
)

// running is a node in this process, in front of an origin that a test wrote.
type running struct {
	*Node
	t      *testing.T
	dir    string
	client *http.Client
	access string
}

// start runs a node whose publishers are files, by name; $ORIGIN in them is
// the address of origin.
func start(t *testing.T, origin http.Handler, files map[string]string, change ...func(*config.Config)) *running {
	t.Helper()
	dir := t.TempDir()
	addr := "127.0.0.1:1"
	if origin != nil {
		srv := httptest.NewServer(origin)
		t.Cleanup(srv.Close)
		addr = strings.TrimPrefix(srv.URL, "http://")
	}
	r := &running{t: t, dir: dir, access: filepath.Join(dir, "access.log")}
	for name, text := range files {
		r.write(filepath.Join("catalog.d", name), strings.ReplaceAll(text, "$ORIGIN", addr))
	}
	cfg := config.Default(func(string) string { return "" })
	cfg.Listen.HTTP, cfg.Listen.HTTPS, cfg.Listen.Admin = []string{"127.0.0.1:0"}, nil, "127.0.0.1:0"
	cfg.Drives = []config.Drive{{Path: filepath.Join(dir, "drive"), Size: strictyaml.Bytes(256 << 20)}}
	cfg.Catalog = config.Catalog{Builtin: []string{}, Dirs: []string{filepath.Join(dir, "catalog.d")}}
	cfg.State = filepath.Join(dir, "state")
	cfg.TLS.Dir = filepath.Join(dir, "tls")
	cfg.Log.Access = r.access
	for _, f := range change {
		f(cfg)
	}
	n, err := Open(t.Context(), cfg, Options{Version: "test", Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	r.Node = n
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	if err := n.WaitServing(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy, _ := url.Parse("http://" + n.Addresses().HTTP[0])
	tr := &http.Transport{Proxy: http.ProxyURL(proxy), DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	r.client = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return r
}

func (r *running) write(name, text string) {
	r.t.Helper()
	file := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// an answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) cache() string { return a.header.Get("Cache-Status") }

// do asks the node for a URL of a publisher, with fields "Name: value".
func (r *running) do(method, url, body string, fields ...string) answer {
	r.t.Helper()
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, url, rd)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		req.Header.Add(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: body after %d bytes: %v", method, url, len(b), err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func (r *running) get(url string, fields ...string) answer {
	r.t.Helper()
	return r.do(http.MethodGet, url, "", fields...)
}

// admin makes an admin call and decodes its answer.
func (r *running) admin(method, path string, in, out any) int {
	r.t.Helper()
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			r.t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+r.Addresses().Admin+path, &body)
	if err != nil {
		r.t.Fatal(err)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if s, ok := out.(*string); ok {
		b, _ := io.ReadAll(resp.Body)
		*s = string(b)
	} else if resp.StatusCode == http.StatusOK && out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			r.t.Fatal(err)
		}
	}
	return resp.StatusCode
}

// counting is an origin that counts what it is asked per method and path.
type counting struct {
	http.Handler
	mu    sync.Mutex
	asked map[string]int
}

func (c *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	if c.asked == nil {
		c.asked = map[string]int{}
	}
	c.asked[r.Method+" "+r.URL.Path]++
	c.mu.Unlock()
	c.Handler.ServeHTTP(w, r)
}

func (c *counting) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[what]
}

const standardPublisher = `
name: std
hosts: [std.example]
freshness: standard
origin: {address: "$ORIGIN"}
`

func TestStandardContentFollowsTheOriginsDirectives(t *testing.T) {
	t.Parallel()
	var version atomic.Int64
	version.Store(1)
	var broken atomic.Bool
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body := fmt.Sprintf("version %d of %s", version.Load(), r.URL.Path)
		switch r.URL.Path {
		case "/fresh":
			w.Header().Set("Cache-Control", "max-age=60")
		case "/stale":
			w.Header().Set("Cache-Control", "max-age=0, stale-if-error=600")
			tag := fmt.Sprintf(`"v%d"`, version.Load())
			w.Header().Set("ETag", tag)
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
		case "/secret":
			w.Header().Set("Cache-Control", "private, max-age=60")
		case "/cookie":
			w.Header().Set("Set-Cookie", "a=b")
		case "/vary":
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Vary", "Accept")
			body += " for " + r.Header.Get("Accept")
		case "/auth":
			w.Header().Set("Cache-Control", "max-age=60")
			body += " for " + r.Header.Get("Authorization")
		case "/moved":
			w.Header().Set("Location", "http://elsewhere.example/")
			w.WriteHeader(http.StatusFound)
			return
		}
		w.Write([]byte(body))
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})

	t.Run("fresh is a hit", func(t *testing.T) {
		for i, want := range []string{"Larder; fwd=uri-miss; stored", "Larder; hit; ttl=60"} {
			a := n.get("http://std.example/fresh")
			if a.status != 200 || a.body != "version 1 of /fresh" || i == 0 && a.cache() != want || i == 1 && !strings.HasPrefix(a.cache(), "Larder; hit; ttl=") {
				t.Errorf("request %d: %d %q, Cache-Status %q; want %q", i, a.status, a.body, a.cache(), want)
			}
		}
		if got := o.count("GET /fresh"); got != 1 {
			t.Errorf("the origin was asked %d times, want once", got)
		}
	})
	t.Run("stale is revalidated, and served if the origin is out of order", func(t *testing.T) {
		n.get("http://std.example/stale")
		if a := n.get("http://std.example/stale"); !strings.Contains(a.cache(), "fwd-status=304") || a.body != "version 1 of /stale" {
			t.Errorf("second: %q, Cache-Status %q; want the stored one, revalidated", a.body, a.cache())
		}
		version.Store(2)
		if a := n.get("http://std.example/stale"); a.body != "version 2 of /stale" {
			t.Errorf("after a change: %q; want version 2", a.body)
		}
		broken.Store(true)
		defer broken.Store(false)
		if a := n.get("http://std.example/stale"); a.status != 200 || a.body != "version 2 of /stale" || !strings.Contains(a.cache(), "origin-unavailable") {
			t.Errorf("with a broken origin: %d %q, Cache-Status %q; want the stored one", a.status, a.body, a.cache())
		}
	})
	t.Run("what must not be shared is not", func(t *testing.T) {
		for _, path := range []string{"/secret", "/cookie"} {
			n.get("http://std.example" + path)
			if a := n.get("http://std.example" + path); a.cache() != "Larder; fwd=bypass" {
				t.Errorf("%s: Cache-Status %q; want bypass", path, a.cache())
			}
			if got := o.count("GET " + path); got != 2 {
				t.Errorf("%s: the origin was asked %d times, want 2", path, got)
			}
		}
		if a := n.get("http://std.example/cookie"); a.header.Get("Set-Cookie") != "a=b" {
			t.Errorf("/cookie: Set-Cookie %q is not passed on", a.header.Get("Set-Cookie"))
		}
		for _, who := range []string{"one", "two"} {
			if a := n.get("http://std.example/auth", "Authorization: "+who); !strings.HasSuffix(a.body, "for "+who) {
				t.Errorf("Authorization %q got %q", who, a.body)
			}
			if a := n.get("http://std.example/vary", "Accept: "+who); !strings.HasSuffix(a.body, "for "+who) {
				t.Errorf("Accept %q got %q", who, a.body)
			}
		}
	})
	t.Run("redirects are the client's to follow", func(t *testing.T) {
		if a := n.get("http://std.example/moved"); a.status != 302 || a.header.Get("Location") != "http://elsewhere.example/" {
			t.Errorf("%d, Location %q", a.status, a.header.Get("Location"))
		}
	})
}

func TestOtherMethodsPassThrough(t *testing.T) {
	t.Parallel()
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Asked", r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Content-Type")+" "+r.Header.Get("X-Forwarded-For"))
		w.WriteHeader(http.StatusCreated)
		w.Write(bytes.ToUpper(b))
	})
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	big := strings.Repeat("x", 3<<20)
	for _, body := range []string{"hello", big} {
		a := n.do(http.MethodPost, "http://std.example/things?a=%2F", body, "Content-Type: text/x", "X-Forwarded-For: 10.0.0.1")
		if a.status != 201 || a.body != strings.ToUpper(body) || a.header.Get("X-Asked") != "POST /things?a=%2F text/x" {
			t.Errorf("POST of %d bytes: %d, %d bytes, asked %q", len(body), a.status, len(a.body), a.header.Get("X-Asked"))
		}
	}
	if a := n.do(http.MethodPatch, "http://std.example/x", ""); a.status != 201 {
		t.Errorf("PATCH: %d", a.status)
	}
	if a := n.do(http.MethodHead, "http://std.example/x", ""); a.status != 201 || a.body != "" {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
}

const revalidatePublisher = `
name: rev
hosts: [rev.example]
freshness: revalidate
origin: {address: "$ORIGIN"}
`

// What is missing may be there in a moment: of manifests no absence is
// remembered, of immutable content it is for seconds.
func TestFailuresAreRememberedOnlyForImmutableContent(t *testing.T) {
	t.Parallel()
	o := &counting{Handler: http.HandlerFunc(http.NotFound)}
	n := start(t, o, map[string]string{
		"rev.yaml": revalidatePublisher,
		"imm.yaml": "name: imm\nhosts: [imm.example]\nfreshness: immutable\norigin: {address: \"$ORIGIN\"}\n",
	})
	for _, tt := range []struct {
		host string
		want int
	}{{"rev.example", 3}, {"imm.example", 1}} {
		before := o.count("GET /a")
		for range 3 {
			if a := n.get("http://" + tt.host + "/a"); a.status != 404 {
				t.Errorf("%s: %d, want 404", tt.host, a.status)
			}
		}
		if got := o.count("GET /a") - before; got != tt.want {
			t.Errorf("%s: the origin was asked %d times for three requests, want %d", tt.host, got, tt.want)
		}
	}
}

func TestPublisherContentIgnoresCookiesAndVary(t *testing.T) {
	t.Parallel()
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, v := range map[string]string{
			"Set-Cookie": "a=b", "Vary": "User-Agent", "Cache-Control": "no-store", "Alt-Svc": `h3=":443"`,
			"Strict-Transport-Security": "max-age=1", "ETag": `"1"`, "X-Cid": "7",
		} {
			w.Header().Set(name, v)
		}
		http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader("content"))
	})}
	n := start(t, o, map[string]string{"imm.yaml": "name: imm\nhosts: [imm.example]\nfreshness: immutable\norigin: {address: \"$ORIGIN\"}\n"})
	for i := range 3 {
		a := n.get("http://imm.example/a?P1="+fmt.Sprint(i), fmt.Sprintf("User-Agent: %d", i))
		if a.body != "content" {
			t.Fatalf("got %d %q", a.status, a.body)
		}
		for _, name := range []string{"Set-Cookie", "Vary", "Alt-Svc", "Strict-Transport-Security"} {
			if v := a.header.Get(name); v != "" {
				t.Errorf("%s: %s is replayed", name, v)
			}
		}
		if a.header.Get("X-Cid") != "7" {
			t.Errorf("the CDN's own field is lost")
		}
	}
	if got := o.count("GET /a"); got != 1 {
		t.Errorf("the origin was asked %d times for one file, want once", got)
	}
}

func TestContentOfUnknownLength(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789abcdef", 200_000) // 3.2 MB, four chunks
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, big[:100_000])
		w.(http.Flusher).Flush() // from here on it is chunked
		if r.URL.Path == "/slow" {
			<-gate
		}
		io.WriteString(w, big[100_000:])
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher, "rev.yaml": strings.Replace(revalidatePublisher, "freshness: revalidate", "freshness: revalidate\nrules: [{path: \"*\", freshness: revalidate, max_age: 1h}]", 1)})
	a := n.get("http://rev.example/soon")
	if a.body != big || a.header.Get("Content-Length") != fmt.Sprint(len(big)) {
		t.Errorf("what is over soon: %d bytes, Content-Length %q", len(a.body), a.header.Get("Content-Length"))
	}
	if a := n.get("http://rev.example/soon", "Range: bytes=-5"); a.status != 206 || a.body != big[len(big)-5:] || o.count("GET /soon") != 1 {
		t.Errorf("then its end: %d %q, origin asked %d times", a.status, a.body, o.count("GET /soon"))
	}
	// What takes longer leaves in chunks, as it comes, of standard publishers.
	t.Cleanup(open) // the origin's end waits for it
	conn := n.raw("GET http://std.example/slow HTTP/1.1\r\nHost: std.example\r\n\r\n")
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 100_000)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != big[:100_000] {
		t.Fatalf("the first bytes did not come while the rest is awaited: %v", err)
	}
	if resp.ContentLength != -1 {
		t.Errorf("Content-Length %d of what is not known", resp.ContentLength)
	}
	open()
	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(rest) != big[100_000:] {
		t.Errorf("the rest: %d bytes, %v", len(rest), err)
	}
}

func (r *running) raw(head string) io.ReadWriteCloser {
	r.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(r.t.Context(), "tcp", r.Addresses().HTTP[0])
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, head); err != nil {
		r.t.Fatal(err)
	}
	return conn
}

func TestCatalogueReload(t *testing.T) {
	t.Parallel()
	n := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }), map[string]string{"std.yaml": standardPublisher})
	other := "name: other\nhosts: [other.example]\norigin: {address: \"127.0.0.1:1\"}\n"
	if a := n.get("http://other.example/"); a.status != 403 || !strings.Contains(a.body, "other.example") {
		t.Fatalf("before: %d %q", a.status, a.body)
	}
	n.write("catalog.d/other.yaml", other)
	lardertest.Eventually(t, "the new publisher to be served", func() bool { return n.get("http://other.example/").status != 403 })

	n.write("catalog.d/other.yaml", other+"hosts: twice\nnonsense: 1\n")
	lardertest.Eventually(t, "the mistake to be seen", func() bool {
		var s Status
		n.admin("GET", PathStatus, nil, &s)
		return strings.Contains(s.Catalog.Error, "other.yaml:5") && len(s.Problems) > 0
	})
	if got := n.metric("larder_node_catalog_reload_success_info"); got != "0" {
		t.Errorf("the metric says %s with a bad file, want 0", got)
	}
	if a := n.get("http://other.example/"); a.status == 403 {
		t.Errorf("the old catalogue is not in use any more")
	}
	n.write("catalog.d/other.yaml", other)
	n.Reload() // as on SIGHUP
	if got := n.metric("larder_node_catalog_reload_success_info"); got != "1" {
		t.Errorf("the metric says %s after the file was mended, want 1", got)
	}
}

// metric returns the value of a metric without labels.
func (r *running) metric(name string) string {
	r.t.Helper()
	var text string
	r.admin("GET", "/metrics", nil, &text)
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func TestAdminCalls(t *testing.T) {
	t.Parallel()
	content := strings.Repeat("x", 2<<20)
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader(content))
	})
	n := start(t, o, map[string]string{"imm.yaml": "name: imm\ncontent_type: files\nhosts: [imm.example]\nfreshness: immutable\norigin: {address: \"$ORIGIN\"}\n"})
	for range 2 {
		for _, p := range []string{"/a/1", "/a/2", "/b/1"} {
			n.get("http://imm.example" + p)
		}
	}
	// An answer is counted when it has left, a chunk stored while it leaves.
	var stored []ObjectInfo
	lardertest.Eventually(t, "everything to be stored and counted", func() bool {
		var s Summary
		n.admin("GET", "/summary", nil, &s)
		n.admin("GET", PathObjects, nil, &stored)
		total := int64(0)
		for _, o := range stored {
			total += o.Stored
		}
		return total == 3*2<<20 && s.Lifetime.Requests == 6
	})
	var sum Summary
	if n.admin("GET", "/summary", nil, &sum); sum.Lifetime.HitBytes != 3*2<<20 || sum.Lifetime.MissBytes != 3*2<<20 ||
		sum.Lifetime.EgressBytes != 6*2<<20 || sum.Lifetime.EggressBytes != sum.Lifetime.EgressBytes || sum.Lifetime.HitRatioBytes != 0.5 ||
		sum.LifetimeByType["files"].HitBytes != 3*2<<20 {
		t.Errorf("summary: %+v", sum)
	}
	var objects []ObjectInfo
	if n.admin("GET", PathObjects+"?prefix=imm.example/a/", nil, &objects); len(objects) != 2 || objects[0].Stored != 2<<20 {
		t.Errorf("objects: %+v", objects)
	}
	var res Selected
	for _, dry := range []bool{true, false} {
		if n.admin("POST", PathPurge, Selection{Prefix: "imm.example/a/", DryRun: dry}, &res); res.Objects != 2 || res.Bytes != 4<<20 {
			t.Errorf("purge, dry run %v: %+v; want 2 objects", dry, res)
		}
	}
	if a := n.get("http://imm.example/a/1"); !strings.Contains(a.cache(), "uri-miss") {
		t.Errorf("after the purge: Cache-Status %q", a.cache())
	}
	lardertest.Eventually(t, "the purged file to be stored again", func() bool {
		n.admin("GET", PathObjects+"?prefix=imm.example/a/1", nil, &stored)
		return len(stored) == 1 && stored[0].Stored == 2<<20
	})
	if n.admin("POST", PathPin, Selection{Publisher: "imm"}, &res); res.Objects != 2 {
		t.Errorf("pin: %+v", res)
	}
	if n.admin("GET", PathObjects+"?publisher=imm", nil, &objects); len(objects) != 2 || !objects[0].Pinned {
		t.Errorf("after the pin: %+v", objects)
	}
	var scrubbed Scrubbed
	if n.admin("POST", PathScrub, ScrubRequest{}, &scrubbed); scrubbed.Chunks != 4 || scrubbed.BadChunks != 0 {
		t.Errorf("scrub: %+v; want 4 chunks", scrubbed)
	}
	for _, bad := range []Selection{{}, {Key: "a", Prefix: "b"}} {
		if got := n.admin("POST", PathPurge, bad, nil); got != 400 {
			t.Errorf("purge of %+v: %d, want 400", bad, got)
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/debug/pprof/", PathExplain + "?url=http://imm.example/x"} {
		var text string
		if got := n.admin("GET", path, nil, &text); got != 200 || text == "" {
			t.Errorf("%s: %d", path, got)
		}
	}
	// A page that made its own name point here gets nothing.
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+n.Addresses().Admin+"/summary", nil)
	req.Host = "evil.example"
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Errorf("a foreign Host got %d from the admin listener, want 403", resp.StatusCode)
	}
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader("content"))
	})
	n := start(t, o, map[string]string{"imm.yaml": "name: imm\ncontent_type: files\nhosts: [imm.example]\nfreshness: immutable\norigin: {address: \"$ORIGIN\"}\n"})
	n.get("http://imm.example/a?P1=123&P4=verysecret&x=1", "Range: bytes=0-1")
	n.get("http://imm.example/a?P1=123&P4=verysecret")
	n.get("http://nowhere.example/a?token=verysecret")
	var b []byte
	lardertest.Eventually(t, "three lines", func() bool { // a line is written when its answer has left
		if err := n.Node.access.Flush(); err != nil {
			t.Fatal(err)
		}
		var err error
		b, err = os.ReadFile(n.access)
		return err == nil && bytes.Count(b, []byte("\n")) == 3
	})
	if strings.Contains(string(b), "verysecret") {
		t.Errorf("a secret is in the log:\n%s", b)
	}
	type line struct {
		Method, Host, Path, Query, Publisher, Cache, Range string
		ContentType                                        string `json:"content_type"`
		Status                                             int
		Bytes                                              int64
	}
	var got []line
	for l := range strings.Lines(string(b)) {
		var x line
		if err := json.Unmarshal([]byte(l), &x); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		x.Query = ""
		got = append(got, x)
	}
	want := []line{
		{"GET", "imm.example", "/a", "", "imm", "miss", "bytes=0-1", "files", 206, 2},
		{"GET", "imm.example", "/a", "", "imm", "hit", "", "files", 200, 7},
		{"GET", "nowhere.example", "/a", "", "", "refused", "", "", 403, int64(len("nowhere.example is not in this node's catalogue.\n"))},
	}
	if len(got) != 3 {
		t.Fatalf("got %d lines:\n%s", len(got), b)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("line %d: %+v\nwant %+v", i, got[i], want[i])
		}
	}
}
