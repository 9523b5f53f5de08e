package lardertest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	labPath = "/file.bin"
	labSize = 1 << 20
	labURL  = "http://cdn.test" + labPath
)

// lab is a client between an origin that plays the node and one that plays
// the CDN. Both have the same file.
type lab struct {
	node, cdn *Origin
	c         *DOClient
	file      bytes.Buffer
}

func newLab(t *testing.T) *lab {
	l := &lab{node: NewOrigin(t), cdn: NewOrigin(t, "cdn.test")}
	for _, o := range []*Origin{l.node, l.cdn} {
		o.Add(labPath, labSize)
	}
	l.c = &DOClient{
		CacheHost: l.node.Addr,
		Connect:   map[string]string{"cdn.test:80": l.cdn.Addr, "cdn.test:443": l.cdn.TLSAddr},
		Wait:      func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
	t.Cleanup(l.c.Close)
	return l
}

func (l *lab) download(t *testing.T, url string) *Result {
	t.Helper()
	l.file.Reset()
	r, err := l.c.Download(t.Context(), url, &l.file)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// whole fails the test unless the file came right.
func (l *lab) whole(t *testing.T, r *Result) {
	t.Helper()
	if r.State != Transferred || r.BytesTotal != labSize || r.Bytes != labSize || r.Corrupted {
		t.Errorf("got %s, %d of %d bytes, corrupted %v, %v", r.State, r.Bytes, r.BytesTotal, r.Corrupted, r.ErrorCode)
	}
	l.right(t)
}

func (l *lab) right(t *testing.T) {
	t.Helper()
	if wrong := Content(labPath, 1, labSize).Wrong(l.file.Bytes(), 0); wrong != 0 || l.file.Len() != labSize {
		t.Errorf("the file has %d bytes, %d of them wrong", l.file.Len(), wrong)
	}
}

// asked says whom the client asked and when, in seconds: "cache@0 cdn@2".
func asked(r *Result) string {
	var words []string
	for _, a := range r.Attempts {
		words = append(words, fmt.Sprintf("%s@%d", a.To, int(a.At.Seconds())))
	}
	return strings.Join(words, " ")
}

func wantAsked(t *testing.T, r *Result, want string) {
	t.Helper()
	if got := asked(r); got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

// wantBan fails unless exactly one ban is in force, of a quarter of an hour
// and for that host; "none": no ban.
func wantBan(t *testing.T, r *Result, host string) {
	t.Helper()
	if host == "none" {
		if len(r.Bans) != 0 {
			t.Errorf("banned: %v", r.Bans)
		}
		return
	}
	if len(r.Bans) != 1 || r.Bans[0].Host != host || r.Bans[0].Left != 900*time.Second {
		t.Errorf("bans %v, want one of 900 s for %q", r.Bans, host)
	}
}

// The rows of the table of what the real client did, in the same order. The
// origin plays the server; the model must do what the client was seen to do.

func TestRow1PathAndQueryAreKept(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const path = "/ok/a%2Fb;c=1/d+e%20f"
	l.node.Add(path, labSize)
	r := l.download(t, "http://officecdn.microsoft.com"+path+"?x=%25&y=a+b")
	if r.State != Transferred || r.BytesTotal != labSize {
		t.Errorf("got %+v", r)
	}
	want := "GET " + path + "?x=%25&y=a+b&cacheHostOrigin=officecdn.microsoft.com HTTP/1.1\r\n" +
		"Host: " + l.node.Addr + "\r\n" +
		"User-Agent: Microsoft-Delivery-Optimization-Lite/10.0.0.1\r\n" +
		"Accept: */*\r\n\r\n"
	if diff := cmp.Diff(want, l.node.Requests()[0].Head); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestRow2PortInThePolicy(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.download(t, labURL)
	l.whole(t, r)
	wantAsked(t, r, "cache@0")
}

func TestRow3PortInPolicyAndURL(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.download(t, "http://cdn.test:8080"+labPath)
	if r.State != Paused || r.ErrorCode != ErrInvalidURL || len(r.Attempts) != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestRow4ListOfHosts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.CacheHost = "127.0.0.1,127.0.0.2"
	r := l.download(t, labURL)
	if r.State != Paused || r.ErrorCode != ErrInvalidURL || len(l.cdn.Requests()) != 0 {
		t.Errorf("got %+v, %d requests to the CDN", r, len(l.cdn.Requests()))
	}
}

func TestRow5IPv6Literal(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.node.Refuse()
	l.c.CacheHost = "[::1]"
	l.c.Connect["[::1]:80"] = l.node.Addr
	r := l.download(t, labURL)
	l.whole(t, r)
	wantAsked(t, r, "cache@0 cdn@0")
	wantBan(t, r, "")
}

func TestRow6ClientErrors(t *testing.T) {
	t.Parallel()
	for _, status := range []int{404, 403, 416, 429} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.node.SetEvery(Behaviour{Status: status})
			r := l.download(t, labURL)
			l.whole(t, r)
			wantAsked(t, r, "cache@0 cdn@0")
			wantBan(t, r, "cdn.test")
			if r.Attempts[0].Status != status {
				t.Errorf("status %d, want %d", r.Attempts[0].Status, status)
			}

			// Other hosts' content still comes from the cache.
			l.node.SetEvery()
			wantAsked(t, l.download(t, "http://other.test"+labPath), "cache@0")
			wantAsked(t, l.download(t, labURL), "cdn@0")
			l.c.Skip(banTime)
			wantAsked(t, l.download(t, labURL), "cache@0")
		})
	}
}

func TestRow7PolicyDoesNotHelpAgainst404(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Fallback = FallbackAfter(time.Minute)
	l.node.SetEvery(Behaviour{Status: 404})
	r := l.download(t, labURL)
	l.whole(t, r)
	wantAsked(t, r, "cache@0 cdn@0")
}

func TestRow8NoFallbackAnd404(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Fallback = FallbackNever()
	l.node.SetEvery(Behaviour{Status: 404})
	r := l.download(t, labURL)
	if r.State != Paused || r.ErrorCode != 0x80190194 || len(l.cdn.Requests()) != 0 {
		t.Errorf("got %+v", r)
	}
	wantAsked(t, r, "cache@0")
}

func TestRow9ServerErrorsWithoutPolicy(t *testing.T) {
	t.Parallel()
	for _, status := range []int{502, 503} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.node.SetEvery(Behaviour{Status: status})
			l.cdn.SetEvery(Behaviour{Status: 503})
			r := l.download(t, labURL)
			// Five minutes without a byte end it.
			wantAsked(t, r, "cache@0 cdn@0 cdn@2 cache@6 cache@14 cdn@30 cdn@60 cache@90 cache@120 cdn@150 cdn@180 cache@210 cache@240 cdn@270")
			if r.State != Paused || r.ErrorCode != ErrNoProgress {
				t.Errorf("got %s, %v", r.State, r.ErrorCode)
			}
			wantBan(t, r, "none")
		})
	}
}

func TestRow10ServerErrorsWithPolicy(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Fallback = FallbackAfter(10 * time.Second)
	l.node.SetEvery(Behaviour{Status: 503})
	r := l.download(t, labURL)
	l.whole(t, r)
	wantAsked(t, r, "cache@0 cache@2 cache@6 cdn@14")
}

func TestRow11Refused(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.node.Refuse()
	r := l.download(t, labURL)
	l.whole(t, r)
	wantAsked(t, r, "cache@0 cdn@0")
	wantBan(t, r, "")
	if r.Attempts[0].Err != ErrCannotConnect {
		t.Errorf("got %v, want %v", r.Attempts[0].Err, ErrCannotConnect)
	}
	l.node.Accept(t)
	wantAsked(t, l.download(t, labURL), "cdn@0")
}

func TestRow12Hang(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Hurry = 10
	l.node.SetEvery(Behaviour{Hang: true})
	r := l.download(t, labURL)
	l.whole(t, r)
	wantBan(t, r, "")
	wantAsked(t, r, "cache@0 cdn@20")
	if r.Attempts[0].Err != ErrTimeout {
		t.Errorf("got %v", r.Attempts[0].Err)
	}
}

func TestRow13CutBodyIsResumed(t *testing.T) {
	t.Parallel()
	cut := Behaviour{Truncate: true, After: labSize / 2}
	t.Run("no policy", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		l.node.SetEvery(cut, Behaviour{})
		r := l.download(t, labURL)
		l.whole(t, r)
		wantAsked(t, r, "cache@0 cdn@0")
		wantBan(t, r, "none")
		if got := l.cdn.Requests()[0].Range; got != "bytes=524288-1048575" {
			t.Errorf("Range %q", got)
		}
	})
	t.Run("policy", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		l.c.Fallback = FallbackAfter(time.Minute)
		l.node.SetEvery(cut, Behaviour{})
		r := l.download(t, labURL)
		l.whole(t, r)
		wantAsked(t, r, "cache@0 cache@2")
		reqs := l.node.Requests()
		if reqs[1].Range != "bytes=524288-1048575" || reqs[1].Target != reqs[0].Target {
			t.Errorf("second request: %s", reqs[1].Head)
		}
	})
}

func TestRow14WholeAnswerToARangeCorrupts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Fallback = FallbackAfter(time.Minute)
	l.node.SetEvery(Behaviour{Truncate: true, After: labSize / 2}, Behaviour{IgnoreRange: true})
	r := l.download(t, labURL)
	if r.State != Transferred || r.Bytes != 1572864 || l.file.Len() != 1572864 || !r.Corrupted {
		t.Errorf("got %s, %d bytes, corrupted %v", r.State, r.Bytes, r.Corrupted)
	}
}

func TestRow15Chunked(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.node.SetEvery(Behaviour{Chunked: true})
	r := l.download(t, labURL)
	l.right(t)
	if r.State != Transferred || r.BytesTotal != 0 {
		t.Errorf("got %s, total %d", r.State, r.BytesTotal)
	}
}

func TestRow16LowerCaseLength(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.node.SetEvery(Behaviour{LowerCase: true})
	r := l.download(t, labURL)
	l.right(t)
	if r.State != Transferred || r.BytesTotal != 0 {
		t.Errorf("got %s, total %d", r.State, r.BytesTotal)
	}
}

func TestRow17LowerCaseAndCutKillsTheAgent(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Fallback = FallbackAfter(time.Minute)
	l.node.SetEvery(Behaviour{LowerCase: true, Truncate: true, After: labSize / 2})
	if r := l.download(t, labURL); r.State != Crashed {
		t.Errorf("got %s", r.State)
	}
}

func TestRow18LowerCaseContentRange(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Fallback = FallbackAfter(time.Minute)
	l.node.SetEvery(Behaviour{Truncate: true, After: labSize / 2}, Behaviour{LowerCase: true})
	r := l.download(t, labURL)
	if r.State != Paused || r.ErrorCode != 0x80070490 || len(l.cdn.Requests()) != 0 {
		t.Errorf("got %s, %v, %d requests to the CDN", r.State, r.ErrorCode, len(l.cdn.Requests()))
	}
}

func TestRow19RedirectLosesTheOrigin(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.node.Set(labPath, Behaviour{Status: 302, Location: "http://cdn.test/moved?a=b"})
	l.cdn.Add("/moved", labSize)
	r := l.download(t, labURL)
	if r.State != Transferred || r.BytesTotal != labSize {
		t.Errorf("got %s, total %d", r.State, r.BytesTotal)
	}
	if got := l.node.Requests()[0].Target; got != labPath+"?cacheHostOrigin=cdn.test" {
		t.Errorf("first target %q", got)
	}
	if got := l.cdn.Requests()[0].Target; got != "/moved?a=b" {
		t.Errorf("second target %q", got)
	}
}

func TestRow20HTTPS(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.CacheHost, l.c.Roots = l.node.TLSAddr, l.node.CA.Pool()
	r := l.download(t, "https://cdn.test"+labPath)
	l.whole(t, r)
	wantAsked(t, r, "cache@0")
	if r.Attempts[0].Proto != "HTTP/1.1" || !l.node.Requests()[0].TLS {
		t.Errorf("over %s", r.Attempts[0].Proto)
	}
}

// http2Server is a server that offers HTTP/2 and nothing else unusual.
func http2Server(t *testing.T, ca *CA, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Leaf(t, "127.0.0.1").TLS}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func TestRow21HTTP2(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.Roots = l.node.CA.Pool()
	content := Content(labPath, 1, labSize)
	l.c.CacheHost = http2Server(t, l.node.CA, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, content.Reader())
	})
	r := l.download(t, "https://cdn.test"+labPath)
	l.right(t)
	if r.State != Transferred || r.BytesTotal != 0 || r.Attempts[0].Proto != "HTTP/2.0" {
		t.Errorf("got %s, total %d, over %s", r.State, r.BytesTotal, r.Attempts[0].Proto)
	}
}

func TestRow22UntrustedCertificate(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.c.CacheHost, l.c.Roots = l.node.TLSAddr, l.cdn.CA.Pool()
	r := l.download(t, "https://cdn.test"+labPath)
	l.whole(t, r)
	wantAsked(t, r, "cache@0 cdn@0")
	wantBan(t, r, "none")
	if r.Attempts[0].Err != 0xC0D0003C {
		t.Errorf("got %v", r.Attempts[0].Err)
	}
	wantAsked(t, l.download(t, "https://cdn.test"+labPath), "cache@0 cdn@0") // later the cache again
}
