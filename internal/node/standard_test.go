package node

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// A field's value per what Vary names gets an answer of its own, each kept, and
// nobody gets another's, whoever comes at the same time.
func TestVariants(t *testing.T) {
	t.Parallel()
	var vary atomic.Value
	vary.Store("Accept-Language")
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Vary", vary.Load().(string))
		fmt.Fprintf(w, "in %s for %s", r.Header.Get("Accept-Language"), r.Header.Get("X-Device"))
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	want := func(path, body, cache string, fields ...string) {
		t.Helper()
		if a := n.get("http://std.example"+path, fields...); a.body != body || !strings.HasPrefix(a.cache(), "Larder; "+cache) {
			t.Errorf("%s %q: got %q, %q; want %q, %s", path, fields, a.body, a.cache(), body, cache)
		}
	}
	const de, en = "Accept-Language: de", "Accept-Language: en"
	want("/a", "in de for ", "fwd=uri-miss; stored", de)
	want("/a", "in en for ", "fwd=vary-miss; stored", en)
	want("/a", "in en for ", "fwd=request; stored", en, "Cache-Control: no-cache")
	for range 2 {
		want("/a", "in de for ", "hit", de)
		want("/a", "in en for ", "hit", en)
		want("/a", "in de for ", "hit", "Accept-Language: DE,")
	}
	want("/a", "in  for ", "fwd")
	want("/a", "in  for ", "hit")
	want("/a", "in de for ", "hit", de, "X-Device: phone") // Vary does not name it
	if got := o.count("GET /a"); got != 4 {
		t.Errorf("the origin was asked %d times, want once a language and once more as somebody wished", got)
	}
	// A change invalidates all of them.
	if a := n.do("POST", "http://std.example/a", "x"); a.status != 200 || a.cache() != "Larder; fwd=method" {
		t.Fatalf("POST: %d %s", a.status, a.cache())
	}
	want("/a", "in en for ", "fwd", en)
	want("/a", "in de for ", "fwd", de)
	// In whatever order they are asked for again.
	if a := n.do("POST", "http://std.example/a", "x"); a.status != 200 {
		t.Fatalf("POST: %d", a.status)
	}
	want("/a", "in en for ", "fwd", en)
	want("/a", "in de for ", "fwd", de)
	want("/a", "in de for ", "hit", de)
	// The origin begins to vary by another field.
	vary.Store("X-Device")
	want("/b", "in de for phone", "fwd", de, "X-Device: phone")
	want("/b", "in en for tv", "fwd", en, "X-Device: tv")
	want("/b", "in en for tv", "hit", de, "X-Device: tv")
	vary.Store("Accept-Language, X-Device")
	if a := n.do("POST", "http://std.example/b", "x"); a.status != 200 {
		t.Fatalf("POST: %d", a.status)
	}
	want("/b", "in de for phone", "fwd", de, "X-Device: phone")
	want("/b", "in de for tv", "fwd", de, "X-Device: tv")
	want("/b", "in en for tv", "fwd", en, "X-Device: tv")
	want("/b", "in de for tv", "hit", de, "X-Device: tv")
}

// Requests that come at once share an answer only if it is for all of them.
func TestSharing(t *testing.T) {
	t.Parallel()
	const crowd = 12
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		own    func(i int) []string // what the i-th sends
		want   func(i int) string
		count  func(n int) bool
	}{
		"for all": {func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", "max-age=60") },
			func(int) []string { return nil }, func(int) string { return "" }, func(n int) bool { return n == 1 }},
		"private": {func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", "private, max-age=60") },
			func(i int) []string { return []string{fmt.Sprintf("X-Who: %d", i)} }, func(i int) string { return fmt.Sprint(i) }, func(n int) bool { return n == crowd }},
		"no-store": {func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", "no-store") },
			func(i int) []string { return []string{fmt.Sprintf("X-Who: %d", i)} }, func(i int) string { return fmt.Sprint(i) }, func(n int) bool { return n == crowd }},
		"credentials": {func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", "max-age=60") },
			func(i int) []string {
				return []string{fmt.Sprintf("X-Who: %d", i), fmt.Sprintf("Authorization: Basic %d", i)}
			}, func(i int) string { return fmt.Sprint(i) }, func(n int) bool { return n == crowd }},
		"credentials, for all": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=60")
			r.Header.Del("X-Who")
		}, func(i int) []string { return []string{fmt.Sprintf("Authorization: Basic %d", i)} }, func(int) string { return "" }, func(n int) bool { return n <= crowd }},
		"three variants": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Vary", "X-Who")
		}, func(i int) []string { return []string{fmt.Sprintf("X-Who: %d", i%3)} }, func(i int) string { return fmt.Sprint(i % 3) }, func(n int) bool { return n == 3 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The first answer waits until it was asked for; the others come then.
			var first sync.Once
			asked, open := make(chan struct{}), make(chan struct{})
			o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				first.Do(func() {
					close(asked)
					<-open
				})
				c.answer(w, r)
				fmt.Fprint(w, "for ", r.Header.Get("X-Who"))
			})}
			n := start(t, o, map[string]string{"std.yaml": standardPublisher})
			var wg sync.WaitGroup
			for i := range crowd {
				wg.Go(func() {
					if a := n.get("http://std.example/x", c.own(i)...); a.status != 200 || a.body != "for "+c.want(i) {
						t.Errorf("%d: %d %q", i, a.status, a.body)
					}
				})
			}
			<-asked
			close(open)
			wg.Wait()
			if got := o.count("GET /x"); !c.count(got) {
				t.Errorf("the origin was asked %d times", got)
			}
		})
	}
}

// An answer that may not be reused without asking serves nobody who came after
// it was asked for; they share one that was asked for later, however many they
// are.
func TestWhoComesLaterAsksAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		control string
		fields  []string // of those who come later
		asked   int
	}{
		"no-cache":           {"no-cache", nil, 2},
		"max-age=0":          {"max-age=0", nil, 2},
		"the client's wish":  {"max-age=600", []string{"Cache-Control: no-cache"}, 2},
		"a field is unknown": {`max-age=600, no-cache="X-Note"`, nil, 1},
		"fresh":              {"max-age=600", nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const crowd = 8
			var version atomic.Int64
			asked, open := make(chan struct{}), make(chan struct{})
			again := make(chan struct{})
			opened, goOn := sync.OnceFunc(func() { close(open) }), sync.OnceFunc(func() { close(again) })
			t.Cleanup(func() { // for a test that failed
				opened()
				goOn()
			})
			var first sync.Once
			o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				v := fmt.Sprint("version-", version.Load())
				leads := false
				first.Do(func() {
					leads = true
					close(asked)
					<-open
				})
				if !leads && c.asked > 1 {
					<-again // all who wait have come together
				}
				w.Header().Set("Cache-Control", c.control)
				w.Header().Set("ETag", `"`+v+`"`)
				fmt.Fprint(w, v)
			})}
			n := start(t, o, map[string]string{"std.yaml": standardPublisher})
			var wg sync.WaitGroup
			wg.Go(func() {
				if a := n.get("http://std.example/x"); a.body != "version-0" {
					t.Errorf("the first: %d %q", a.status, a.body)
				}
			})
			<-asked
			version.Store(1)
			want := fmt.Sprint("version-", c.asked-1)
			var collapsed atomic.Int64
			for i := range crowd {
				wg.Go(func() {
					a := n.get("http://std.example/x", c.fields...)
					if a.status != 200 || a.body != want {
						t.Errorf("%d: %d %q, want %q", i, a.status, a.body, want)
					}
					if strings.Contains(a.cache(), "; collapsed") {
						collapsed.Add(1)
					}
				})
			}
			lardertest.Eventually(t, "all wait", func() bool { return n.metric("larder_fill_coalesced_total") == fmt.Sprint(crowd) })
			opened()
			if c.asked > 1 {
				lardertest.Eventually(t, "all wait again", func() bool { return n.metric("larder_fill_coalesced_total") == fmt.Sprint(2*crowd-1) })
			}
			goOn()
			wg.Wait()
			if got := o.count("GET /x"); got != c.asked {
				t.Errorf("the origin was asked %d times, want %d", got, c.asked)
			}
			if got := collapsed.Load(); got != int64(crowd+1-c.asked) {
				t.Errorf("%d answers say that they were got together with others, want %d", got, crowd+1-c.asked)
			}
		})
	}
}

// The length becomes known while a validation of what has none yet is under way.
func TestValidationOfWhatIsStillComing(t *testing.T) {
	t.Parallel()
	validated, whole := make(chan struct{}), make(chan struct{})
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", `"a"`)
		if r.Header.Get("If-None-Match") != "" {
			close(validated)
			<-whole
			w.WriteHeader(http.StatusNotModified)
			return
		}
		io.WriteString(w, strings.Repeat("first ", 10000))
		w.(http.Flusher).Flush()
		<-validated
		io.WriteString(w, "last")
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	want := strings.Repeat("first ", 10000) + "last"
	resp, err := n.client.Get("http://std.example/x") // the head comes before the end
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	second := make(chan answer, 1)
	go func() { second <- n.get("http://std.example/x") }()
	got, err := io.ReadAll(resp.Body)
	if err != nil || string(got) != want {
		t.Errorf("the first: %d bytes, %v", len(got), err)
	}
	close(whole)
	if a := <-second; a.status != 200 || a.body != want || !strings.Contains(a.cache(), "fwd-status=304") {
		t.Errorf("the second: %d %d bytes %q", a.status, len(a.body), a.cache())
	}
}

// An origin that answers with parts of its own choice is left to those who asked.
func TestPartsOfTheOriginsChoice(t *testing.T) {
	t.Parallel()
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Range", "bytes 4-9/10")
		w.Header().Set("ETag", `"a"`)
		w.WriteHeader(http.StatusPartialContent)
		fmt.Fprint(w, "456789")
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	for _, asked := range []string{"bytes=-6", "bytes=4-", "bytes=4-9", "bytes=4-9, 20-30"} {
		a := n.get("http://std.example/x", "Range: "+asked)
		if a.status != http.StatusPartialContent || a.body != "456789" || a.header.Get("Content-Range") != "bytes 4-9/10" || a.cache() != "Larder; fwd=bypass" {
			t.Errorf("%s: %d %q %q %q", asked, a.status, a.body, a.header.Get("Content-Range"), a.cache())
		}
	}
}

// What a HEAD tells, and what a change does, reaches what is stored.
func TestStoredAnswersLearn(t *testing.T) {
	t.Parallel()
	var tag, control atomic.Value
	tag.Store(`"1"`)
	control.Store("max-age=0")
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case "GET", "HEAD":
			w.Header().Set("ETag", tag.Load().(string))
			w.Header().Set("Cache-Control", control.Load().(string))
			if r.Header.Get("If-None-Match") == tag.Load().(string) {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			fmt.Fprintf(w, "%s at %s", tag.Load(), r.URL.Path)
		case "DELETE":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			w.Header().Set("Location", "/b?x#y")
			w.Header().Set("Content-Location", "http://other.example/c")
			w.WriteHeader(http.StatusCreated)
		}
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher + "", "other.yaml": strings.ReplaceAll(strings.ReplaceAll(standardPublisher, "name: std", "name: other"), "std.example", "other.example")})
	asked := func(what string, want int) {
		t.Helper()
		if got := o.count(what); got != want {
			t.Errorf("%s: the origin was asked %d times, want %d", what, got, want)
		}
	}
	// Stale: a HEAD goes through and freshens it.
	n.get("http://std.example/h")
	control.Store("max-age=600")
	if a := n.do("HEAD", "http://std.example/h", ""); a.status != 200 || a.header.Get("ETag") != `"1"` || a.header.Get("Content-Length") != "9" {
		t.Errorf("HEAD: %d %v", a.status, a.header)
	}
	asked("HEAD /h", 1)
	if a := n.get("http://std.example/h"); a.body != `"1" at /h` || !strings.HasPrefix(a.cache(), "Larder; hit; ttl=") {
		t.Errorf("after the HEAD: %q %q", a.body, a.cache())
	}
	asked("GET /h", 1)
	// Fresh: it is answered from what is stored.
	if a := n.do("HEAD", "http://std.example/h", ""); !strings.HasPrefix(a.cache(), "Larder; hit") || a.body != "" {
		t.Errorf("a second HEAD: %q", a.cache())
	}
	asked("HEAD /h", 1)
	// What only some may see, and what was steered elsewhere, tells nothing.
	control.Store("max-age=0")
	n.get("http://std.example/j")
	control.Store("max-age=600")
	for _, f := range []string{"Authorization: Basic x", "Cookie: a=b", "X-Original-URL: /k"} {
		n.do("HEAD", "http://std.example/j", "", f)
	}
	if a := n.get("http://std.example/j"); !strings.Contains(a.cache(), "fwd=stale") {
		t.Errorf("after another's HEAD: %q", a.cache())
	}
	// A HEAD that forbids to keep the answer.
	control.Store("max-age=0")
	n.get("http://std.example/l")
	control.Store("no-store")
	n.do("HEAD", "http://std.example/l", "")
	control.Store("max-age=600")
	if a := n.get("http://std.example/l"); a.cache() != "Larder; fwd=uri-miss; stored" {
		t.Errorf("after a HEAD with no-store: %q", a.cache())
	}
	// Nothing is fetched for who forbids it.
	if a := n.do("HEAD", "http://std.example/m", "", "Cache-Control: only-if-cached"); a.status != http.StatusGatewayTimeout || o.count("HEAD /m") != 0 {
		t.Errorf("only-if-cached: %d, the origin was asked %d times", a.status, o.count("HEAD /m"))
	}
	// Of something else: what is stored is of no use any more.
	control.Store("max-age=0")
	n.get("http://std.example/i")
	tag.Store(`"2"`)
	n.do("HEAD", "http://std.example/i", "")
	if a := n.get("http://std.example/i"); a.body != `"2" at /i` {
		t.Errorf("after a HEAD of another version: %q", a.body)
	}
	// Methods that change something.
	control.Store("max-age=600")
	for _, u := range []string{"http://std.example/a", "http://std.example/b?x", "http://other.example/c"} {
		n.get(u)
		n.get(u)
	}
	n.do("DELETE", "http://std.example/a", "")
	for _, what := range []string{"GET /a", "GET /b", "GET /c"} {
		asked(what, 1)
	}
	n.get("http://std.example/a") // the failed one left it
	asked("GET /a", 1)
	n.do("M-SEARCH", "http://std.example/a", "x")
	for _, u := range []string{"http://std.example/a", "http://std.example/b?x", "http://other.example/c"} {
		n.get(u)
	}
	asked("GET /a", 2)
	asked("GET /b", 2) // by Location
	asked("GET /c", 1) // another host's: it has no say there
}

// Answers of every status are kept if the origin says for how long.
func TestStatusesAreKept(t *testing.T) {
	t.Parallel()
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := 0
		fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		if status != 204 {
			fmt.Fprintf(w, "this is %d", status)
		}
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	for _, status := range []int{200, 203, 204, 299, 301, 302, 307, 308, 400, 403, 404, 410, 499, 500, 503, 599} {
		u := fmt.Sprintf("http://std.example/%d", status)
		first := n.get(u)
		// Conditions and ranges are of content, and an error is none.
		second := n.get(u, "Range: bytes=0-3")
		want := first.body
		if status == 200 {
			want = first.body[:4]
		}
		if first.status != status || second.body != want || !strings.HasPrefix(second.cache(), "Larder; hit") || second.header.Get("Location") != "/elsewhere" {
			t.Errorf("%d: first %d %q, then %d %q, %q", status, first.status, first.body, second.status, second.body, second.cache())
		}
		if got := o.count(fmt.Sprintf("GET /%d", status)); got != 1 {
			t.Errorf("%d: the origin was asked %d times", status, got)
		}
	}
}

// An origin's interim answers reach the client that waits.
func TestInterimAnswers(t *testing.T) {
	t.Parallel()
	n := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "content")
	}), map[string]string{"std.yaml": standardPublisher})
	for _, method := range []string{"GET", "POST"} {
		var hints []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		}})
		req, err := http.NewRequestWithContext(ctx, method, "http://std.example/"+method, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := n.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if len(hints) != 1 || hints[0] != "103 </style.css>; rel=preload" || resp.StatusCode != 200 || resp.Header.Get("Link") != "" {
			t.Errorf("%s: got %q, then %d %v", method, hints, resp.StatusCode, resp.Header)
		}
	}
	if a := n.get("http://std.example/GET"); !strings.HasPrefix(a.cache(), "Larder; hit") || a.header.Get("Link") != "" {
		t.Errorf("the stored answer: %q, %v", a.cache(), a.header)
	}
}

// What goes upstream for an answer that others get, too: all that the origin may
// vary by, and nothing that steers it behind the cache's back.
func TestFieldsOfSharedRequests(t *testing.T) {
	t.Parallel()
	var got atomic.Pointer[http.Header]
	n := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(&r.Header)
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "content")
	}), map[string]string{"std.yaml": standardPublisher})
	n.get("http://std.example/x", "Accept: a/b", "Accept-Language: de", "X-Anything: 1", "Cookie: a=b", "Cache-Control: max-age=5", "Connection: X-Hop", "X-Hop: 1",
		"If-None-Match: \"x\"", "If-Modified-Since: Thu, 26 Nov 2026 00:00:00 GMT", "X-Forwarded-Host: evil.example", "X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1",
		"X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-HTTP-Method-Override: DELETE", "X-Host: evil.example")
	h := *got.Load()
	for name, want := range map[string]string{"Accept": "a/b", "Accept-Language": "de", "X-Anything": "1", "Cookie": "a=b", "Cache-Control": "max-age=5", "Accept-Encoding": "identity"} {
		if h.Get(name) != want {
			t.Errorf("%s: the origin got %q, want %q", name, h.Get(name), want)
		}
	}
	for _, name := range []string{"X-Hop", "If-None-Match", "If-Modified-Since", "X-Forwarded-Host", "X-Forwarded-For", "Forwarded", "X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "X-Host"} {
		if v := h.Get(name); v != "" {
			t.Errorf("%s: the origin got %q", name, v)
		}
	}
}

// What somebody got for themselves costs nobody else the cache, and a part of it
// is a part.
func TestCredentialsAreTheirOwn(t *testing.T) {
	t.Parallel()
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", `"x"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("the content"))
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	for _, f := range []string{"Authorization: Basic x", "Cookie: a=b"} {
		path := "http://std.example/" + f[:4]
		for range 2 {
			if a := n.get(path, f, "Range: bytes=-7"); a.status != 206 || a.body != "content" {
				t.Errorf("%s: %d %q, %q", f, a.status, a.body, a.cache())
			}
		}
		n.get(path)
		if a := n.get(path, "Range: bytes=-7"); a.status != 206 || a.body != "content" || !strings.HasPrefix(a.cache(), "Larder; hit") {
			t.Errorf("others after %s: %d %q, %q", f, a.status, a.body, a.cache())
		}
	}
	if a := n.do("REPORT", "http://std.example/m", "x", "Range: bytes=0-2"); a.status != 206 || a.body != "the" {
		t.Errorf("a part by another method: %d %q", a.status, a.body)
	}
}

// A client that forbids to keep its answer costs nobody else theirs.
func TestAClientsNoStoreIsItsOwn(t *testing.T) {
	t.Parallel()
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "content")
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	for range 2 {
		if a := n.get("http://std.example/x", "Cache-Control: no-store"); a.cache() != "Larder; fwd=bypass" {
			t.Errorf("got %q", a.cache())
		}
	}
	n.get("http://std.example/x")
	if a := n.get("http://std.example/x"); !strings.HasPrefix(a.cache(), "Larder; hit") || o.count("GET /x") != 3 {
		t.Errorf("the others: %q, the origin was asked %d times", a.cache(), o.count("GET /x"))
	}
}

// What an origin says after a body reaches a client that gets it in chunks, and
// nothing that a trailer may not hold does (RFC 9110, section 6.5.1).
func TestTrailers(t *testing.T) {
	t.Parallel()
	n := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Trailer", "X-Sum, Connection")
		io.WriteString(w, "body")
		w.(http.Flusher).Flush()
		w.Header().Set("X-Sum", "1234")
		w.Header().Set(http.TrailerPrefix+"Server-Timing", "db;dur=1")
		w.Header().Set(http.TrailerPrefix+"Content-Length", "999")
	}), map[string]string{"std.yaml": standardPublisher})
	for _, method := range []string{"GET", "POST", "BREW"} {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://std.example/t", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := n.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != "body" || err != nil || resp.Trailer.Get("X-Sum") != "1234" || resp.Trailer.Get("Server-Timing") != "db;dur=1" || resp.Trailer.Get("Content-Length") != "" {
			t.Errorf("%s: %q, %v, trailer %v", method, b, err, resp.Trailer)
		}
	}
}

// A client that waits to be told to go on sends its body to the origin, however
// long that is, and hears what the origin says of it.
func TestBodiesWaitToBeAskedFor(t *testing.T) {
	t.Parallel()
	var got atomic.Int64
	n := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			http.Error(w, "not here", http.StatusRequestEntityTooLarge)
			return
		}
		k, _ := io.Copy(io.Discard, r.Body)
		got.Store(k)
		w.WriteHeader(299)
	}), map[string]string{"std.yaml": standardPublisher})
	const size = 5 << 20
	for path, want := range map[string]int{"/yes": 299, "/no": 413} {
		req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://std.example"+path, io.LimitReader(zeros{}, size))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Expect", "100-continue")
		resp, err := n.client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	if got.Load() != size {
		t.Errorf("the origin got %d bytes of %d", got.Load(), size)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// Fields of one connection are not kept, and neither are those that Connection
// names: the public suite looks at their storage and demands nothing.
func TestFieldsOfAConnectionAreNotKept(t *testing.T) {
	t.Parallel()
	hop := http.Header{
		"Keep-Alive": {"timeout=5"}, "Proxy-Authenticate": {"Basic"}, "Proxy-Authentication-Info": {"x"}, "Proxy-Connection": {"keep-alive"}, "Te": {"trailers"},
		"Upgrade": {"x"}, "X-Hop": {"1"}, "X-Other": {"2"},
	}
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, v := range hop {
			w.Header()[name] = v
		}
		w.Header().Set("Connection", "X-Hop, x-other")
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("X-End", "to end")
		io.WriteString(w, "x")
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	for i, want := range []string{"Larder; fwd=uri-miss; stored", "Larder; hit; ttl="} {
		a := n.get("http://std.example/h")
		if !strings.HasPrefix(a.cache(), want) || a.header.Get("X-End") != "to end" {
			t.Errorf("answer %d: %q %v", i, a.cache(), a.header)
		}
		for name := range hop {
			if v := a.header.Get(name); v != "" {
				t.Errorf("answer %d has %s: %s", i, name, v)
			}
		}
	}
	if got := o.count("GET /h"); got != 1 {
		t.Errorf("the origin was asked %d times", got)
	}
}

// A part that says it is another than its bytes are is nothing to serve or keep:
// the public suite wants it stored in one test and refused in another.
func TestPartsThatContradictThemselves(t *testing.T) {
	t.Parallel()
	const body = "0123456789"
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("ETag", `"a"`)
		if r.Header.Get("Range") == "" {
			io.WriteString(w, body)
			return
		}
		w.Header().Set("Content-Range", map[string]string{"/longer": "bytes 0-8/10", "/other": "bytes 5-7/10", "/beyond": "bytes 8-12/10", "/nonsense": "bytes x"}[r.URL.Path])
		w.WriteHeader(http.StatusPartialContent)
		io.WriteString(w, body[:3])
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	for _, path := range []string{"/longer", "/other", "/beyond", "/nonsense"} {
		if a := n.get("http://std.example"+path, "Range: bytes=0-2"); a.status == http.StatusPartialContent && a.body != body[:3] || a.status < 500 && a.status != http.StatusPartialContent && a.body != body {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
		if a := n.get("http://std.example" + path); a.status == http.StatusOK && a.body != body {
			t.Errorf("%s, the whole afterwards: %d %q", path, a.status, a.body)
		}
	}
}
