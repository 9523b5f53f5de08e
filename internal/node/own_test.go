package node

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/lardertest"
	"larder/internal/node/config"
)

// What a standard publisher's clients send is of consequence for themselves only,
// and answers keep their order.

// big is content of more than one run.
func big(tag string) string { return strings.Repeat(tag+"0123456789abcde"[:16-len(tag)], 40<<16) }

// download begins one by a range, and reads its first bytes; rest reads all others
// and returns the whole.
func (r *running) download(url string) (rest func() (string, error)) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=0-")
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { resp.Body.Close() })
	head := make([]byte, 100)
	if _, err := io.ReadFull(resp.Body, head); err != nil {
		r.t.Fatal(err)
	}
	return func() (string, error) {
		tail, err := io.ReadAll(resp.Body)
		return string(head) + string(tail), err
	}
}

// A client who joins a download, with fields that the origin breaks the connection
// on, fails alone.
func TestJoinersBreakNothing(t *testing.T) {
	t.Parallel()
	content := big("a")
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Bad") != "" {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("ETag", `"v"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
	})
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	rest := n.download("http://std.example/x")
	if a := n.get("http://std.example/x", "Range: bytes=0-10", "X-Bad: 1"); a.status != http.StatusPartialContent {
		t.Fatalf("who joins, of what is there: %d %q", a.status, a.cache())
	}
	if got, err := rest(); err != nil || got != content {
		t.Errorf("who was there before: %d of %d bytes, %v", len(got), len(content), err)
	}
}

// Who waits for a first answer that fails asks for themselves.
func TestAFailureIsOfWhoAsked(t *testing.T) {
	t.Parallel()
	asked, open := make(chan struct{}), make(chan struct{})
	var first sync.Once
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Bad") != "" {
			first.Do(func() { close(asked) })
			<-open
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, "content")
	})
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	var wg sync.WaitGroup
	wg.Go(func() {
		if a := n.get("http://std.example/x", "X-Bad: 1"); a.status != http.StatusBadGateway {
			t.Errorf("the bad one: %d", a.status)
		}
	})
	<-asked
	wg.Go(func() {
		if a := n.get("http://std.example/x"); a.status != 200 || a.body != "content" {
			t.Errorf("who waited: %d %q", a.status, a.body)
		}
	})
	lardertest.Eventually(t, "one waits", func() bool { return n.metric("larder_fill_coalesced_total") == "1" })
	close(open)
	wg.Wait()
}

// One broken transfer of content without validators: who asks next has it fetched
// anew, once.
func TestContentWithoutValidatorsIsFetchedAnew(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1000, 100 << 10, 3 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			var whole atomic.Bool
			o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=600")
				w.Header().Set("Content-Length", fmt.Sprint(size))
				if !whole.Load() {
					io.WriteString(w, strings.Repeat("x", size/2))
					w.(http.Flusher).Flush()
					panic(http.ErrAbortHandler)
				}
				io.WriteString(w, strings.Repeat("y", size))
			})}
			n := start(t, o, map[string]string{"std.yaml": standardPublisher})
			resp, err := n.client.Get("http://std.example/x")
			if err == nil {
				got, err := io.ReadAll(resp.Body)
				if resp.Body.Close(); err == nil && resp.StatusCode == 200 || strings.Contains(string(got), "xy") {
					t.Errorf("the broken one: %d bytes, %v", len(got), err)
				}
			}
			lardertest.Eventually(t, "nothing is fetched", func() bool { return n.metric("larder_fill_active_runs") == "0" })
			whole.Store(true)
			before := o.count("GET /x")
			want := strings.Repeat("y", size)
			lardertest.Eventually(t, "it is a hit", func() bool {
				a := n.get("http://std.example/x")
				if a.status != 200 || a.body != want {
					t.Errorf("later: %d, %d bytes", a.status, len(a.body))
				}
				return strings.HasPrefix(a.cache(), "Larder; hit")
			})
			if got := o.count("GET /x") - before; got > 2 {
				t.Errorf("asked %d times for what is whole", got)
			}
		})
	}
}

// What replaces changed content is fetched once, and what somebody's credentials
// brought switches nothing off for others.
func TestSuccessors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		field   []string
		control string // of who has the field
		asked   int    // for the new version, by them and two others
	}{
		"for all":     {nil, "max-age=600", 1},
		"of one only": {[]string{"Cookie: sid=alice"}, "private", 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var version atomic.Int64
			o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=600")
				if version.Load() == 0 {
					w.Header().Set("ETag", `"v0"`)
					http.ServeContent(w, r, "", time.Time{}, strings.NewReader(big("a")))
					return
				}
				if r.Header.Get("Cookie") != "" {
					w.Header().Set("Cache-Control", c.control)
				}
				io.WriteString(w, "new for "+r.Header.Get("Cookie"))
			})}
			n := start(t, o, map[string]string{"std.yaml": standardPublisher})
			n.get("http://std.example/x", "Range: bytes=0-10")
			version.Store(1)
			before := o.count("GET /x")
			n.get("http://std.example/x", append([]string{"Range: bytes=20971520-20971529"}, c.field...)...)
			if c.field != nil {
				n.get("http://std.example/x", "Range: bytes=20971520-20971529") // finds out that it changed for all
			}
			for range 2 {
				if a := n.get("http://std.example/x"); a.body != "new for " {
					t.Errorf("another: %d %q %q", a.status, a.body, a.cache())
				}
			}
			if a := n.get("http://std.example/x"); !strings.HasPrefix(a.cache(), "Larder; hit") {
				t.Errorf("later: %q", a.cache())
			}
			if got := o.count("GET /x") - before; got > c.asked {
				t.Errorf("asked %d times, want %d", got, c.asked)
			}
		})
	}
}

// A purge reaches what was asked for before it.
func TestAPurgeReachesWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	asked, open := make(chan struct{}), make(chan struct{})
	var begun atomic.Bool
	var version atomic.Int64
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := version.Load()
		if !begun.Swap(true) {
			close(asked)
			<-open
		}
		w.Header().Set("Cache-Control", "max-age=600")
		fmt.Fprint(w, "version ", v)
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	var wg sync.WaitGroup
	wg.Go(func() { n.get("http://std.example/x") })
	<-asked
	wg.Go(func() {
		if a := n.get("http://std.example/x"); a.body != "version 1" {
			t.Errorf("who waited: %q %q", a.body, a.cache())
		}
	})
	lardertest.Eventually(t, "one waits", func() bool { return n.metric("larder_fill_coalesced_total") == "1" })
	version.Store(1)
	var res Selected
	if s := n.admin(http.MethodPost, PathPurge, Selection{Publisher: "std"}, &res); s != http.StatusOK {
		t.Fatalf("purge: %d", s)
	}
	if a := n.get("http://std.example/x"); a.body != "version 1" {
		t.Errorf("who asked after the purge: %q %q", a.body, a.cache())
	}
	if got := n.metric("larder_fill_overtaken_total"); got != "0" {
		t.Errorf("they waited for what was asked for before it, until %s more requests were made", got)
	}
	close(open)
	wg.Wait()
	if a := n.get("http://std.example/x"); a.body != "version 1" {
		t.Errorf("later: %q %q", a.body, a.cache())
	}
}

// A part that turned out to be all of it says nothing of parts.
func TestAWholeThatCameInPart(t *testing.T) {
	t.Parallel()
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", map[string]string{"/shared": "max-age=60", "/private": "private"}[r.URL.Path])
		w.Header().Set("ETag", `"x"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
	})
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	for _, path := range []string{"/shared", "/private"} {
		want := map[string]string{"/shared": "206 23 bytes 2-3/10", "/private": "200 0123456789 "}[path]
		a := n.get("http://std.example"+path, "Range: bytes=2-3")
		if got := fmt.Sprint(a.status, " ", a.body, " ", a.header.Get("Content-Range")); got != want {
			t.Errorf("%s, a part: %s, want %s", path, got, want)
		}
		if a := n.get("http://std.example" + path); a.status != 200 || a.body != "0123456789" || a.header.Get("Content-Range") != "" {
			t.Errorf("%s, all: %d %q %q", path, a.status, a.body, a.header.Get("Content-Range"))
		}
	}
}

// What a HEAD tells of a stored answer is told of its own request.
func TestWhatAHeadTells(t *testing.T) {
	t.Parallel()
	validated, open := make(chan struct{}), make(chan struct{})
	var once sync.Once
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("X-Saw", r.Method)
		switch r.URL.Path {
		case "/vary":
			w.Header().Set("Cache-Control", "max-age=0")
			if r.Method == http.MethodHead {
				w.Header().Set("Cache-Control", "max-age=600")
				w.Header().Set("Vary", "Accept-Language")
				return
			}
			fmt.Fprint(w, "in ", r.Header.Get("Accept-Language"))
			return
		case "/secret":
			w.Header().Set("Cache-Control", "max-age=600")
		case "/later":
			w.Header().Set("Cache-Control", "max-age=0")
			switch {
			case r.Method == http.MethodHead:
				w.Header().Set("Cache-Control", "no-cache")
			case r.Header.Get("If-None-Match") != "":
				w.Header().Set("Cache-Control", "max-age=600")
				once.Do(func() {
					close(validated)
					<-open
				})
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
		fmt.Fprint(w, "content")
	})
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	n.get("http://std.example/vary", "Accept-Language: de")
	n.do("HEAD", "http://std.example/vary", "", "Accept-Language: de")
	if a := n.get("http://std.example/vary", "Accept-Language: fr"); a.body != "in fr" {
		t.Errorf("after a HEAD that says that it varies: %q %q", a.body, a.cache())
	}
	n.get("http://std.example/secret")
	n.do("HEAD", "http://std.example/secret", "", "Cache-Control: no-store, no-cache")
	if a := n.get("http://std.example/secret"); a.header.Get("X-Saw") != "GET" {
		t.Errorf("the answer to a HEAD with no-store was kept: %q", a.cache())
	}
	n.get("http://std.example/later")
	var wg sync.WaitGroup
	wg.Go(func() { n.get("http://std.example/later") })
	<-validated
	n.do("HEAD", "http://std.example/later", "")
	close(open)
	wg.Wait()
	if a := n.get("http://std.example/later"); strings.HasPrefix(a.cache(), "Larder; hit") {
		t.Errorf("a 304 that was asked for before the HEAD: %q", a.cache())
	}
}

// An answer that was asked for earlier does not replace a newer one.
func TestTheNewestAnswerIsKept(t *testing.T) {
	t.Parallel()
	asked, open := make(chan struct{}), make(chan struct{})
	var version atomic.Int64
	begun := time.Now().Add(-time.Minute)
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := version.Load()
		w.Header().Set("Date", begun.Add(time.Duration(v)*time.Second).UTC().Format(http.TimeFormat))
		w.Header().Set("Cache-Control", "public, max-age=600")
		if r.Header.Get("Cookie") != "" {
			close(asked)
			<-open
		}
		fmt.Fprint(w, "version ", v)
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	var wg sync.WaitGroup
	wg.Go(func() {
		if a := n.get("http://std.example/x", "Cookie: a=b"); a.body != "version 0" {
			t.Errorf("who asked first: %q", a.body)
		}
	})
	<-asked
	version.Store(1)
	n.get("http://std.example/x")
	close(open)
	wg.Wait()
	if a := n.get("http://std.example/x"); a.body != "version 1" || o.count("GET /x") != 2 {
		t.Errorf("later: %q %q, asked %d times", a.body, a.cache(), o.count("GET /x"))
	}
}

// However many come with credentials of their own, one refreshes.
func TestOneRefreshAtATime(t *testing.T) {
	t.Parallel()
	open := make(chan struct{})
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=0, stale-while-revalidate=600")
		w.Header().Set("ETag", `"v"`)
		if r.Header.Get("If-None-Match") != "" {
			<-open
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, "x")
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	n.get("http://std.example/x")
	for i := range 30 {
		if a := n.get("http://std.example/x", fmt.Sprintf("Cookie: sid=%d", i)); !strings.HasPrefix(a.cache(), "Larder; hit") {
			t.Errorf("%d: %q", i, a.cache())
		}
	}
	close(open)
	n.background.Wait()
	if got := o.count("GET /x"); got > 4 { // one, and another if it was silent for long
		t.Errorf("asked %d times", got)
	}
}

// That one path has no ranges says nothing of another.
func TestRangesAreOfAPath(t *testing.T) {
	t.Parallel()
	var got atomic.Value
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v"`)
		w.Header().Set("Cache-Control", "max-age=600")
		if r.URL.Path == "/no" {
			w.Header().Set("Content-Length", fmt.Sprint(2<<20))
			io.WriteString(w, strings.Repeat("x", 2<<20))
			return
		}
		got.Store(r.Header.Get("Range"))
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(big("a")))
	})
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	n.get("http://std.example/no", "Range: bytes=0-0")
	if a := n.get("http://std.example/big", "Range: bytes=40000000-40000009"); a.status != 206 || got.Load() == "" {
		t.Errorf("another path: %d, asked for %q", a.status, got.Load())
	}
}

// An answer without Date gets that of its receipt (RFC 9110, 6.6.1), and the same
// each time.
func TestAnswersWithoutDate(t *testing.T) {
	t.Parallel()
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		w.Header().Set("Cache-Control", "max-age=600")
		fmt.Fprint(w, "content")
	})
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	first := n.get("http://std.example/x").header.Get("Date")
	<-time.After(1100 * time.Millisecond)
	if again := n.get("http://std.example/x").header.Get("Date"); again != first || first == "" {
		t.Errorf("first %q, then %q", first, again)
	}
}

// What may not be forwarded is not.
func TestWhatIsNotForwarded(t *testing.T) {
	t.Parallel()
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		fmt.Fprint(w, "left: ", r.Header.Get("Max-Forwards"))
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	n.get("http://std.example/x")
	if a := n.get("http://std.example/x", "Authorization: Basic x", "Cache-Control: only-if-cached"); a.status != http.StatusGatewayTimeout || o.count("GET /x") != 1 {
		t.Errorf("only-if-cached with credentials: %d, asked %d times", a.status, o.count("GET /x"))
	}
	for _, c := range []struct {
		method, left string
		status       int
		body         string
	}{
		{"OPTIONS", "0", http.StatusNoContent, ""}, {"TRACE", "0", http.StatusMethodNotAllowed, ""},
		{"OPTIONS", "5", 200, "left: 4"}, {"OPTIONS", "x", 200, "left: x"}, {"POST", "0", 200, "left: 0"},
	} {
		before := o.count(c.method + " /x")
		a := n.do(c.method, "http://std.example/x", "", "Max-Forwards: "+c.left)
		asked := o.count(c.method+" /x") - before
		if a.status != c.status || c.body != "" && a.body != c.body || (asked == 1) != (c.body != "") {
			t.Errorf("%s, Max-Forwards %s: %d %q, asked %d times", c.method, c.left, a.status, a.body, asked)
		}
	}
}

// Without a Date nothing says that a Last-Modified tells two versions apart, and a
// broken transfer is not continued by the next one's bytes.
func TestWeakDatesBindNothing(t *testing.T) {
	t.Parallel()
	const size = 3 << 20
	modified := time.Now().Add(-time.Minute).Truncate(time.Second)
	var changed atomic.Bool
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		w.Header().Set("Cache-Control", "max-age=600")
		if changed.Load() {
			http.ServeContent(w, r, "", modified, strings.NewReader(strings.Repeat("b", size)))
			return
		}
		w.Header().Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", fmt.Sprint(size))
		io.WriteString(w, strings.Repeat("a", size/2))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	if resp, err := n.client.Get("http://std.example/x"); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	lardertest.Eventually(t, "nothing is fetched", func() bool { return n.metric("larder_fill_active_runs") == "0" })
	changed.Store(true)
	if a := n.get("http://std.example/x"); a.status != 200 || a.body != strings.Repeat("b", size) {
		t.Errorf("%d, %d bytes of the old version, %d of the new", a.status, strings.Count(a.body, "a"), strings.Count(a.body, "b"))
	}
}

// A purge changes nothing of how a publisher's first answers are made, only that
// they are not kept.
func TestAPurgeWhileOthersAreAsked(t *testing.T) {
	t.Parallel()
	asked, open := make(chan struct{}), make(chan struct{})
	var begun atomic.Bool
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") != "" {
			t.Error("a cookie went to an immutable publisher's origin")
		}
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/there", http.StatusFound)
			return
		}
		if !begun.Swap(true) {
			close(asked)
			<-open
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(big("a")))
	})
	n := start(t, o, map[string]string{"imm.yaml": "name: imm\nhosts: [imm.example]\nfreshness: immutable\norigin: {address: \"$ORIGIN\"}\n"})
	var wg sync.WaitGroup
	wg.Go(func() {
		if a := n.get("http://imm.example/moved", "Cookie: sid=alice", "Range: bytes=0-9"); a.status != 206 || a.body != big("a")[:10] {
			t.Errorf("who waited: %d %.40q %q", a.status, a.body, a.header.Get("Location"))
		}
	})
	<-asked
	var res Selected
	if s := n.admin(http.MethodPost, PathPurge, Selection{Key: "other\n/y"}, &res); s != http.StatusOK {
		t.Fatalf("purge: %d", s)
	}
	close(open)
	wg.Wait()
}

// What is for all is validated for whoever comes, cookie or not.
func TestValidationByCookies(t *testing.T) {
	t.Parallel()
	var whole atomic.Int64
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v"`)
		w.Header().Set("Cache-Control", "no-cache")
		if r.Header.Get("If-None-Match") == `"v"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		whole.Add(1)
		fmt.Fprint(w, "content")
	})
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	for i := range 5 {
		n.get("http://std.example/x")
		n.get("http://std.example/x", fmt.Sprintf("Cookie: sid=%d", i))
	}
	if got := whole.Load(); got != 1 {
		t.Errorf("fetched %d times", got)
	}
}

// What an origin answers to somebody's credentials says nothing of the content that
// others are reading, and what it answers to a no-store nothing of others' answers.
func TestWhatOneIsToldEndsNobodysDownload(t *testing.T) {
	t.Parallel()
	content := big("a")
	var version atomic.Int64
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") != "" {
			w.Header().Set("Cache-Control", "private")
			fmt.Fprint(w, "please log in")
			return
		}
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("ETag", fmt.Sprintf(`"v%d"`, version.Load()))
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	rest := n.download("http://std.example/x")
	if a := n.get("http://std.example/x", "Range: bytes=40000000-40000010", "Cookie: sid=x"); a.body != "please log in" {
		t.Errorf("who has a cookie: %d %.40q", a.status, a.body)
	}
	if got, err := rest(); err != nil || got != content {
		t.Errorf("who was there before: %d of %d bytes, %v", len(got), len(content), err)
	}

	n.get("http://std.example/y", "Range: bytes=0-10")
	version.Store(1)
	n.get("http://std.example/y", "Range: bytes=20971520-20971529", "Cache-Control: no-store")
	lardertest.Eventually(t, "others have it from the cache", func() bool {
		return strings.HasPrefix(n.get("http://std.example/y", "Range: bytes=0-10").cache(), "Larder; hit")
	})
}

// A crowd at an origin that says nothing waits once.
func TestSilenceIsShared(t *testing.T) {
	t.Parallel()
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher}, func(c *config.Config) { c.Upstream.SilenceTimeout = 3 * time.Second })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a := n.get("http://std.example/x"); a.status != http.StatusGatewayTimeout {
				t.Errorf("%d %q", a.status, a.body)
			}
		})
	}
	wg.Wait()
	if got := o.count("GET /x"); got > 8 {
		t.Errorf("asked %d times", got)
	}
}
