package lardertest

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"
)

// What the model does besides the rows, from the client's source.

func TestPolicyAndRefusedCache(t *testing.T) {
	t.Parallel()
	// The ban decides at the next try, which a policy delays by 2 s; and -1
	// does not keep the client from the CDN here.
	for name, policy := range map[string]Fallback{"60": FallbackAfter(time.Minute), "-1": FallbackNever()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.c.Fallback = policy
			l.node.Refuse()
			r := l.download(t, labURL)
			l.whole(t, r)
			wantAsked(t, r, "cache@0 cdn@2")
		})
	}
}

func TestNameThatDoesNotResolve(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.CacheHost = "cache.test"
	l.c.Connect["cache.test:80"] = ""
	r := l.download(t, labURL)
	l.whole(t, r)
	wantAsked(t, r, "cache@0 cdn@0")
	wantBan(t, r, "")
	if r.Attempts[0].Err != ErrNameNotResolved {
		t.Errorf("got %v", r.Attempts[0].Err)
	}
}

func TestClientErrorAtTheCDNIsFinal(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.node.SetEvery(Behaviour{Status: 404})
	l.cdn.SetEvery(Behaviour{Status: 403})
	r := l.download(t, labURL)
	if r.State != Paused || r.ErrorCode != ErrStatusForbidden {
		t.Errorf("got %s, %v", r.State, r.ErrorCode)
	}
	wantAsked(t, r, "cache@0 cdn@0")
}

func TestStallInTheBody(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Hurry = 10
	l.node.SetEvery(Behaviour{Stall: true, After: labSize / 4})
	r := l.download(t, labURL)
	l.whole(t, r)
	wantBan(t, r, "")
	if r.Attempts[0].Err != ErrTimeout || r.Attempts[0].Bytes != labSize/4 || r.Attempts[1].Range != "bytes=262144-1048575" {
		t.Errorf("got %v after %d bytes, then %s", r.Attempts[0].Err, r.Attempts[0].Bytes, r.Attempts[1].Range)
	}
}

func TestDripBelowTheLowSpeedLimit(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Hurry = 10 // 4000 B/s for 20 s become 40000 B/s for 2 s
	l.node.SetEvery(Behaviour{Pace: 20000})
	r := l.download(t, labURL)
	l.whole(t, r)
	if r.Attempts[0].Err != ErrTimeout || r.Attempts[0].Bytes == 0 {
		t.Errorf("got %v after %d bytes", r.Attempts[0].Err, r.Attempts[0].Bytes)
	}
}

func TestSlowButFastEnoughIsNotATimeout(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Hurry = 10
	l.node.SetEvery(Behaviour{Pace: 400 << 10}) // 1 MiB in 2.5 s, more than the patience for silence
	r := l.download(t, labURL)
	l.whole(t, r)
	wantAsked(t, r, "cache@0")
}

func TestDeafServerOverTLS(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Hurry = 10
	l.node.SetDeaf(true)
	l.c.CacheHost, l.c.Roots = l.node.TLSAddr, l.cdn.CA.Pool()
	r := l.download(t, "https://cdn.test"+labPath)
	l.whole(t, r)
	wantAsked(t, r, "cache@0 cdn@3")
	wantBan(t, r, "")
	if r.Attempts[0].Err != ErrTimeout {
		t.Errorf("got %v: %v", r.Attempts[0].Err, r.Attempts[0].Cause)
	}
}

func TestHTTP2AndCutBodyKillsTheAgent(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Fallback, l.c.Roots = FallbackAfter(time.Minute), l.node.CA.Pool()
	l.c.CacheHost = http2Server(t, l.node.CA, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1048576")
		_, _ = w.Write(make([]byte, 1000))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	if r := l.download(t, "https://cdn.test"+labPath); r.State != Crashed || r.Bytes != 1000 {
		t.Errorf("got %s after %d bytes", r.State, r.Bytes)
	}
}

func TestHTTP2Hang(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Hurry, l.c.Roots = 10, l.node.CA.Pool()
	l.c.CacheHost = http2Server(t, l.node.CA, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	l.c.Connect["cdn.test:443"] = l.node.TLSAddr
	r := l.download(t, "https://cdn.test"+labPath)
	if r.Attempts[0].Err != ErrTimeout {
		t.Errorf("got %v: %v", r.Attempts[0].Err, r.Attempts[0].Cause)
	}
}

func TestRedirectRing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.node.SetEvery(Behaviour{Status: 302, Location: "/again"})
	r := l.download(t, labURL)
	l.whole(t, r)
	wantAsked(t, r, "cache@0 cdn@0")
	wantBan(t, r, "none")
	if n := len(l.node.Requests()); n != 11 || r.Attempts[0].Err != curlCode(47) {
		t.Errorf("%d requests, %v", n, r.Attempts[0].Err)
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.download(t, labURL)
	r := l.download(t, labURL)
	l.whole(t, r)
	if reqs := l.node.Requests(); reqs[0].Conn != reqs[1].Conn || !r.Attempts[0].Reused {
		t.Errorf("connections %d and %d", reqs[0].Conn, reqs[1].Conn)
	}

	// One that the server closed meanwhile is no failure.
	l.node.Refuse()
	l.node.Accept(t)
	r = l.download(t, labURL)
	l.whole(t, r)
	wantAsked(t, r, "cache@0")
}

func TestKindsOfBrokenAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		b     Behaviour
		want  ErrorCode
		asked string
	}{
		{"reset", Behaviour{Reset: true}, curlCode(52), "cache@0 cdn@0"},
		{"garbage", Behaviour{Raw: []byte("SSH-2.0-nothing\r\n\r\n")}, curlCode(8), "cache@0 cdn@0"},
		{"head cut", Behaviour{Raw: []byte("HTTP/1.1 200 OK\r\nContent-")}, ErrShortBody, "cache@0 cdn@0"},
		{"length too long", Behaviour{LengthDelta: 10}, ErrShortBody, "cache@0 cdn@0"},
		{"body missing", Behaviour{Truncate: true}, ErrShortBody, "cache@0 cdn@0"},
		{"interim answer", Behaviour{Interim: []int{100, 103}}, NoError, "cache@0"},
		{"closed in order", Behaviour{NoKeepAlive: true}, NoError, "cache@0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.node.SetEvery(c.b)
			r := l.download(t, labURL)
			wantAsked(t, r, c.asked)
			wantBan(t, r, "none")
			if r.Attempts[0].Err != c.want {
				t.Errorf("got %v: %v; want %v", r.Attempts[0].Err, r.Attempts[0].Cause, c.want)
			}
		})
	}
}

func TestTotalThatCannotBeRead(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Fallback = FallbackAfter(time.Minute)
	l.node.SetEvery(Behaviour{Truncate: true, After: 10}, Behaviour{UnknownTotal: true})
	if r := l.download(t, labURL); r.State != Paused || r.ErrorCode != ErrUnhandled {
		t.Errorf("got %s, %v", r.State, r.ErrorCode)
	}
}

func TestDownloadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	l.node.SetEvery(Behaviour{Hang: true, Before: func(Recorded) { cancel() }})
	begin := time.Now()
	if _, err := l.c.Download(ctx, labURL, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("it waited %v for its own time-out", took)
	}
}

func TestDefaultWaitWaits(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Wait, l.c.Hurry = nil, 10
	l.c.Fallback = FallbackAfter(time.Minute)
	l.node.SetEvery(Behaviour{Status: 503}, Behaviour{})
	begin := time.Now()
	r := l.download(t, labURL)
	l.whole(t, r)
	if real := time.Since(begin); real < 200*time.Millisecond || r.Attempts[1].At < 2*time.Second {
		t.Errorf("second try after %v, for the client %v", real, r.Attempts[1].At)
	}
}

func TestSwapHost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ url, cache, want string }{
		{"http://a.test/p", "cache", "http://cache/p?cacheHostOrigin=a.test"},
		{"http://A.Test/P", "cache", "http://cache/P?cacheHostOrigin=a.test"},
		{"https://a.test:8443/p?q", "cache", "https://cache:8443/p?q&cacheHostOrigin=a.test"},
		{"http://a.test/p?q&", "cache", "http://cache/p?q&cacheHostOrigin=a.test"},
		{"http://a.test/p?", "cache", "http://cache/p?cacheHostOrigin=a.test"},
		{"http://a.test", "cache:1", "http://cache:1/?cacheHostOrigin=a.test"},
		{"http://a.test/p#f", "[::1]", "http://[::1]/p?cacheHostOrigin=a.test"},
		{"http://a.test?x=/y", "cache", "http://cache/?x=/y&cacheHostOrigin=a.test"},
		{"http://a.test:1/p", "cache:2", ""},
		{"http://a.test/p", "a,b", ""},
		{"http://a.test/p", "[::1", ""},
		{"ftp://a.test/p", "cache", ""},
		{"http:///p", "cache", ""},
		{"http://a.test:0/p", "cache", ""},
		{"http://a.test:/p", "cache", ""},
		{"a.test/p", "cache", ""},
	} {
		got, err := swapHost(c.url, c.cache)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("swapHost(%q, %q) = %q, %v; want %q", c.url, c.cache, got, err, c.want)
		}
	}
}

func TestResolveLocation(t *testing.T) {
	t.Parallel()
	from, err := parseURL("https://a.test:8443/d/e?q")
	if err != nil {
		t.Fatal(err)
	}
	for location, want := range map[string]string{
		"http://b.test/x": "http://b.test/x",
		"//b.test/x":      "https://b.test/x",
		"/x?y":            "https://a.test:8443/x?y",
		"x":               "https://a.test:8443/d/x",
	} {
		if got, err := resolveLocation(from, location); err != nil || got.String() != want {
			t.Errorf("resolveLocation(%q) = %v, %v; want %s", location, got, err, want)
		}
	}
}
