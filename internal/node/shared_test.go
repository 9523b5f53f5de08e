package node

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// What a standard publisher's answers must never do to those they are not for.

// A 304 that takes an answer from all is believed like a 200 that does.
func TestA304MayEndTheSharing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first, again http.Header // of the 200 and of the 304
		fields       []string    // of the request that is answered with the 304
	}{
		"a session renewed": {http.Header{"Last-Modified": {"Mon, 02 Jan 2006 15:04:05 GMT"}}, http.Header{"Set-Cookie": {"sid=alice"}}, []string{"Cookie: sid=alice", "Cache-Control: no-cache"}},
		"private":           {http.Header{"Cache-Control": {"max-age=600"}}, http.Header{"Cache-Control": {"private, max-age=600"}}, []string{"Cache-Control: no-cache"}},
		"no-store":          {http.Header{"Cache-Control": {"max-age=600"}}, http.Header{"Cache-Control": {"no-store, max-age=600"}}, []string{"Cache-Control: no-cache"}},
		"Vary: *":           {http.Header{"Cache-Control": {"max-age=600"}}, http.Header{"Vary": {"*"}}, []string{"Cache-Control: no-cache"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var later atomic.Bool
			o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("ETag", `"a"`)
				more := c.first
				if later.Swap(true) && (r.Header.Get("Cookie") != "" || c.again["Set-Cookie"] == nil) {
					more = c.again
				}
				for name, values := range more {
					w.Header()[name] = values
				}
				if r.Header.Get("If-None-Match") != "" {
					w.WriteHeader(http.StatusNotModified)
					return
				}
				fmt.Fprint(w, "content")
			})}
			n := start(t, o, map[string]string{"std.yaml": standardPublisher})
			if a := n.get("http://std.example/x"); a.status != 200 || !strings.HasSuffix(a.cache(), "stored") {
				t.Fatalf("the first: %d %q", a.status, a.cache())
			}
			if a := n.get("http://std.example/x", c.fields...); a.status != 200 || a.body != "content" {
				t.Errorf("who wants it asked: %d %q", a.status, a.body)
			}
			asked := o.count("GET /x")
			if a := n.get("http://std.example/x"); a.status != 200 || a.body != "content" || a.header.Get("Set-Cookie") != "" || o.count("GET /x") != asked+1 {
				t.Errorf("another: %d %q %q, cookie %q", a.status, a.body, a.cache(), a.header.Get("Set-Cookie"))
			}
		})
	}
}

// Somebody else's range that lies behind the end is their 416 alone, and a range
// that is of another version is none.
func TestRangesOfOthers(t *testing.T) {
	t.Parallel()
	asked, open := make(chan struct{}), make(chan struct{})
	var first sync.Once
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/x" {
			first.Do(func() {
				close(asked)
				<-open
			})
		}
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", `"new"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	var wg sync.WaitGroup
	wg.Go(func() {
		if a := n.get("http://std.example/x", "Range: bytes=5000000-"); a.status != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("a range behind the end: %d", a.status)
		}
	})
	<-asked
	for _, r := range []string{"", "bytes=2-3", "bytes=6000000-"} {
		wg.Go(func() {
			want := map[string]int{"": 200, "bytes=2-3": 206, "bytes=6000000-": 416}[r]
			fields := []string{"Range: " + r}
			if r == "" {
				fields = nil
			}
			if a := n.get("http://std.example/x", fields...); a.status != want {
				t.Errorf("together with it, range %q: %d %q, want %d", r, a.status, a.header.Get("Content-Range"), want)
			}
		})
	}
	lardertest.Eventually(t, "all wait", func() bool { return n.metric("larder_fill_coalesced_total") == "3" })
	close(open)
	wg.Wait()
	if a := n.get("http://std.example/y", "Range: bytes=5000000-", `If-Range: "old"`); a.status != 200 || a.body != "0123456789" {
		t.Errorf("a range of another version: %d %q", a.status, a.body)
	}
}

// Who asks after a change is never answered with what was asked for before it,
// and that is not kept.
func TestInvalidationOfWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	asked, open := make(chan struct{}), make(chan struct{})
	var begun atomic.Bool
	var version atomic.Int64
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			version.Add(1)
			return
		}
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
	wg.Go(func() {
		if a := n.get("http://std.example/x"); a.body != "version 0" {
			t.Errorf("who asked before the change: %q", a.body)
		}
	})
	<-asked
	if a := n.do("POST", "http://std.example/x", "change"); a.status != 200 {
		t.Fatalf("POST: %d", a.status)
	}
	if a := n.get("http://std.example/x"); a.body != "version 1" {
		t.Errorf("who asked after the change: %q %q", a.body, a.cache())
	}
	close(open)
	wg.Wait()
	if a := n.get("http://std.example/x"); a.body != "version 1" {
		t.Errorf("later: %q %q", a.body, a.cache())
	}
	if got := o.count("GET /x"); got != 2 {
		t.Errorf("the origin was asked %d times", got)
	}
}

// Preconditions about the origin's representation are held against what they are
// about, or left to the origin (RFC 9110, 13.1).
func TestPreconditionsAreNobodyElses(t *testing.T) {
	t.Parallel()
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", map[string]string{"/stored": "max-age=60", "/private": "private"}[r.URL.Path])
		if r.URL.Path == "/private" {
			w.Header().Set("ETag", `"new"`)
			if m := r.Header.Get("If-Match"); m != "" && m != `"new"` {
				w.WriteHeader(http.StatusPreconditionFailed)
				return
			}
		}
		fmt.Fprint(w, "content")
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	n.get("http://std.example/stored")
	for range 2 {
		if a := n.get("http://std.example/stored", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"); a.status != 200 || !strings.HasPrefix(a.cache(), "Larder; hit") {
			t.Errorf("If-Unmodified-Since where nothing says when it was modified: %d %q", a.status, a.cache())
		}
		if a := n.get("http://std.example/private", `If-Match: "old"`); a.status != http.StatusPreconditionFailed {
			t.Errorf("If-Match of another version: %d %q", a.status, a.body)
		}
	}
	if a := n.get("http://std.example/stored", "If-Modified-Since: "+time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)); a.status != http.StatusNotModified {
		t.Errorf("If-Modified-Since, for which Date stands in: %d", a.status)
	}
}

// A date that two versions may share joins no parts (RFC 9110, 13.1.5).
func TestWeakDatesJoinNothing(t *testing.T) {
	t.Parallel()
	const then, later = "Mon, 02 Jan 2006 15:04:05 GMT", "Mon, 02 Jan 2006 15:04:07 GMT"
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000000000")
		w.Header().Set("Last-Modified", then)
		w.Header().Set("Date", map[string]string{"/weak": then, "/strong": later}[r.URL.Path])
		fmt.Fprint(w, "0123456789")
	})
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	for path, want := range map[string]int{"/weak": 200, "/strong": 206} {
		n.get("http://std.example" + path)
		if a := n.get("http://std.example"+path, "Range: bytes=5-", "If-Range: "+then); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
}

// The Age that is sent is the answer's current age (RFC 9111, 4).
func TestAgeIsTheCurrentAge(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3000")
		switch r.URL.Path {
		case "/slow":
			w.Header().Set("Age", "10")
			<-time.After(1100 * time.Millisecond)
		case "/old":
			w.Header().Set("Date", begun.Add(-5*time.Minute).UTC().Format(http.TimeFormat))
		case "/list":
			w.Header().Set("Age", "10, 20")
		case "/huge":
			w.Header().Set("Age", "99999999999999999999")
		}
		fmt.Fprint(w, "content")
	})
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	for path, least := range map[string]int{"/slow": 11, "/old": 300, "/list": 10, "/huge": 1 << 31} {
		for _, when := range []string{"first", "again"} {
			a := n.get("http://std.example" + path)
			age, err := strconv.Atoi(a.header.Get("Age"))
			if most := least + 1 + int(time.Since(begun)/time.Second); err != nil || age < least || age > most {
				t.Errorf("%s, %s: Age %q, want %d to %d (%q)", path, when, a.header.Get("Age"), least, most, a.cache())
			}
		}
	}
}

// One client's request does not switch the cache off for others.
func TestOneClientDoesNotSwitchTheCacheOff(t *testing.T) {
	t.Parallel()
	var version atomic.Int64
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", map[string]string{"/stale": "max-age=0, stale-while-revalidate=600", "/fresh": "max-age=600", "/asked": "max-age=600"}[r.URL.Path])
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, version.Load()))
		switch {
		case r.Header.Get("If-None-Match") == w.Header().Get("ETag"):
			w.WriteHeader(http.StatusNotModified)
		case r.Method == http.MethodGet:
			fmt.Fprint(w, "version ", version.Load())
		}
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	for _, path := range []string{"/stale", "/fresh", "/asked"} {
		n.get("http://std.example" + path)
	}
	// In the window of stale-while-revalidate, a HEAD has it refreshed like a GET.
	version.Store(1)
	n.do("HEAD", "http://std.example/stale", "")
	lardertest.Eventually(t, "it is refreshed", func() bool { return n.get("http://std.example/stale").body == "version 1" })
	n.get("http://std.example/stale", "Cache-Control: no-store")
	if a := n.get("http://std.example/stale"); !strings.HasPrefix(a.cache(), "Larder; hit") {
		t.Errorf("after a HEAD and a no-store: %q", a.cache())
	}
	version.Store(0)
	// The client's no-store is no verdict on what others stored.
	n.do("HEAD", "http://std.example/fresh", "", "Cache-Control: no-store, no-cache")
	n.get("http://std.example/asked", "Cache-Control: no-store, no-cache")
	for _, path := range []string{"/fresh", "/asked"} {
		if a := n.get("http://std.example" + path); !strings.HasPrefix(a.cache(), "Larder; hit") {
			t.Errorf("%s after somebody's no-store: %q", path, a.cache())
		}
	}
}

// A request on which the origin breaks the connection fails, and no other one.
func TestOneClientsFailureIsItsOwn(t *testing.T) {
	t.Parallel()
	o := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Bad") != "" {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, "content")
	})
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	if a := n.get("http://std.example/x", "X-Bad: 1"); a.status != http.StatusBadGateway {
		t.Errorf("the bad one: %d", a.status)
	}
	if a := n.get("http://std.example/x"); a.status != 200 || a.body != "content" {
		t.Errorf("the next: %d %q", a.status, a.body)
	}
}

// Who has what is still coming, its length not known, is told so: it is not sent
// again. What a request demands of the origin's own representation is the origin's
// to judge as long as nothing whole is stored.
func TestPreconditionsOfWhatIsStillComing(t *testing.T) {
	t.Parallel()
	const then = "Mon, 02 Jan 2006 15:04:05 GMT"
	open := make(chan struct{})
	end := sync.OnceFunc(func() { close(open) })
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", `"v"`)
		w.Header().Set("Last-Modified", then)
		if r.Header.Get("If-Match") != "" {
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		fmt.Fprint(w, "cont")
		w.(http.Flusher).Flush()
		<-open
		fmt.Fprint(w, "ent")
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	t.Cleanup(end)
	c := n.raw("GET /x HTTP/1.1\r\nHost: std.example\r\n\r\n")
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err != nil { // its head is out
		t.Fatal(err)
	}
	for _, field := range []string{`If-None-Match: "v"`, "If-Modified-Since: " + then} {
		if a := n.get("http://std.example/x", field); a.status != http.StatusNotModified || o.count("GET /x") != 1 {
			t.Errorf("%s: %d %q, asked %d times", field, a.status, a.cache(), o.count("GET /x"))
		}
	}
	if a := n.get("http://std.example/x", `If-Match: "old"`); a.status != http.StatusPreconditionFailed || o.count("GET /x") != 2 {
		t.Errorf("If-Match: %d %q, asked %d times", a.status, a.cache(), o.count("GET /x"))
	}
	end()
	if a := n.get("http://std.example/x", `If-None-Match: "old"`); a.status != 200 || a.body != "content" || o.count("GET /x") != 2 {
		t.Errorf("a condition that holds: %d %q, asked %d times", a.status, a.body, o.count("GET /x"))
	}
}

// What the origin answers to the refresh that a client with credentials set off
// is of them, and stops nobody else's.
func TestARefreshWithCredentialsIsTheirs(t *testing.T) {
	t.Parallel()
	var version atomic.Int64
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=0, stale-while-revalidate=600")
		if r.Header.Get("Cookie") != "" {
			w.Header().Set("Cache-Control", "private")
			fmt.Fprint(w, "of alice")
			return
		}
		fmt.Fprint(w, "version ", version.Load())
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	n.get("http://std.example/x")
	version.Store(1)
	n.get("http://std.example/x", "Cookie: sid=alice")
	lardertest.Eventually(t, "it was asked with her cookie", func() bool { return o.count("GET /x") == 2 })
	lardertest.Eventually(t, "others refresh it", func() bool {
		a := n.get("http://std.example/x")
		if a.body == "of alice" {
			t.Fatal("somebody got what is hers")
		}
		return a.body == "version 1"
	})
}

// Two wait for one validation, and its 304 says that the answer varies: it was
// about the request of the first.
func TestA304MayAddVary(t *testing.T) {
	t.Parallel()
	asked, open := make(chan struct{}), make(chan struct{})
	o := &counting{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lang := r.Header.Get("Accept-Language")
		w.Header().Set("Cache-Control", "max-age=0")
		w.Header().Set("ETag", `"`+lang+`"`)
		if lang == "" || r.Header.Get("If-None-Match") == `""` && lang == "de" {
			w.Header().Set("ETag", `""`)
		}
		if lang == "" {
			fmt.Fprint(w, "in de")
			return
		}
		w.Header().Set("Vary", "Accept-Language")
		if lang == "de" && r.Header.Get("If-None-Match") == `""` {
			close(asked)
			<-open
			w.Header().Set("Cache-Control", "max-age=600")
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, "in ", lang)
	})}
	n := start(t, o, map[string]string{"std.yaml": standardPublisher})
	n.get("http://std.example/x")
	var wg sync.WaitGroup
	want := func(lang string) {
		if a := n.get("http://std.example/x", "Accept-Language: "+lang); a.status != 200 || a.body != "in "+lang {
			t.Errorf("%s: %d %q %q", lang, a.status, a.body, a.cache())
		}
	}
	wg.Go(func() { want("de") })
	<-asked
	wg.Go(func() { want("fr") })
	lardertest.Eventually(t, "both wait", func() bool { return n.metric("larder_fill_coalesced_total") == "1" })
	close(open)
	wg.Wait()
}
