package main_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"larder/internal/lardertest"
)

// What answers say, over the wire.

func TestAnswersToRanges(t *testing.T) {
	t.Parallel()
	const size = 3*mib + 100
	l := newLab(t, labOptions{})
	l.origin.Add("/r", size)
	l.origin.Add("/empty", 0)
	for _, when := range []string{"cold", "warm"} {
		for _, tt := range []struct {
			ask      string
			from, to int64
		}{
			{"bytes=0-0", 0, 1},
			{"bytes=1048575-1048576", mib - 1, mib + 1},
			{"bytes=3145828-", size - 0, size},
			{"bytes=3145827-", size - 1, size},
			{"bytes=5-", 5, size},
			{"bytes=-1", size - 1, size},
			{"bytes=-3145828", 0, size},
			{"bytes=-9223372036854775807", 0, size},
			{"bytes=100-9223372036854775807", 100, size},
			{"bytes=0-99999999", 0, size},
			{"Bytes = 7-9", 0, size},
			{"bytes=7 - 9", 0, size},
			{"bytes= 7-9 , ", 7, 10},
			{"bytes=9-7", 0, size},
			{"bytes=", 0, size},
			{"bytes=-", 0, size},
			{"lines=1-2", 0, size},
			{"bytes=1-2,x", 0, size},
			{"bytes=18446744073709551616-", size, size},
			{"bytes=-0", size, size},
		} {
			r := l.get(t, "/r", "Range: "+tt.ask)
			switch {
			case tt.from == size:
				r.want(t, http.StatusRequestedRangeNotSatisfiable)
				if got := r.header.Get("Content-Range"); got != fmt.Sprintf("bytes */%d", size) {
					t.Errorf("%s %q: Content-Range %q", when, tt.ask, got)
				}
			case tt.to-tt.from == size && r.status == http.StatusOK:
				r.wantContent(t, "/r", 1, size, 0, size)
				if strings.HasPrefix(tt.ask, "bytes=-") && len(tt.ask) > 8 || strings.HasPrefix(tt.ask, "bytes=0-") {
					t.Errorf("%s %q: a range was answered with 200", when, tt.ask)
				}
			default:
				r.wantContent(t, "/r", 1, size, tt.from, tt.to)
			}
		}
		// A range of nothing is none.
		r := l.get(t, "/empty", "Range: bytes=0-1")
		r.want(t, http.StatusRequestedRangeNotSatisfiable)
		if got := r.header.Get("Content-Range"); got != "bytes */0" {
			t.Errorf("%s: Content-Range %q", when, got)
		}
		r = l.get(t, "/empty")
		r.want(t, http.StatusOK)
		if len(r.body) != 0 || r.header.Get("Content-Length") != "0" {
			t.Errorf("%s: %d bytes of nothing\n%s", when, len(r.body), r.head)
		}
	}
	l.wantSent(t, "/r", size, size)
}

func TestAnswersToConditions(t *testing.T) {
	t.Parallel()
	const size = 2 * mib
	l := newLab(t, labOptions{})
	l.origin.Add("/c", size)
	tag := lardertest.ETag("/c", 1, size)
	const at, before, after = "Sun, 01 Mar 2026 01:00:00 GMT", "Sat, 28 Feb 2026 01:00:00 GMT", "Mon, 02 Mar 2026 01:00:00 GMT"
	for _, when := range []string{"cold", "warm"} {
		for _, tt := range []struct {
			fields string
			status int
		}{
			{"If-None-Match: " + tag, 304},
			{"If-None-Match: W/" + tag, 304},
			{"If-None-Match: \"x\", " + tag, 304},
			{"If-None-Match: *", 304},
			{"If-None-Match: \"x\"", 200},
			{"If-Modified-Since: " + at, 304},
			{"If-Modified-Since: " + after, 304},
			{"If-Modified-Since: " + before, 200},
			{"If-None-Match: \"x\"|If-Modified-Since: " + after, 200},
			{"If-Match: " + tag, 200},
			{"If-Match: \"x\"", 412},
			{"If-Unmodified-Since: " + before, 412},
			{"Range: bytes=0-9|If-Range: " + tag, 206},
			{"Range: bytes=0-9|If-Range: W/" + tag, 200},
			{"Range: bytes=0-9|If-Range: \"x\"", 200},
			{"Range: bytes=0-9|If-Range: " + at, 206},
			{"Range: bytes=0-9|If-Range: " + before, 200},
			{"Range: bytes=0-9|If-None-Match: " + tag, 304},
		} {
			r := l.get(t, "/c", strings.Split(tt.fields, "|")...)
			if r.status != tt.status || r.err != nil {
				t.Errorf("%s, %s: got %d, %v; want %d", when, tt.fields, r.status, r.err, tt.status)
			}
			if tt.status == 304 && (len(r.body) != 0 || r.header.Get("ETag") != tag) {
				t.Errorf("%s, %s: a 304 with %d bytes\n%s", when, tt.fields, len(r.body), r.head)
			}
			if tt.status == 200 && int64(len(r.body)) != size || tt.status == 206 && len(r.body) != 10 {
				t.Errorf("%s, %s: %d bytes", when, tt.fields, len(r.body))
			}
		}
	}
	// The first answer, a 304, wanted none of the bytes that were on their way.
	l.wantSent(t, "/c", size, size+mib)
}

// What every answer says about itself.
func TestAnswersSayWhatTheCacheDid(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{publisher: `
name: cdn
hosts: [cdn.test]
freshness: immutable
rules:
  - {path: "/checked/*", freshness: revalidate}
  - {path: "/aged/*", freshness: revalidate, max_age: 1h}
  - {path: "/web/*", freshness: standard}
origin: {scheme: http, address: "$ORIGIN"}
`})
	const size = 2 * mib
	for _, path := range []string{"/a", "/checked/a", "/aged/a", "/web/a", "/web/private"} {
		l.origin.Add(path, size)
	}
	l.origin.Set("/web/a", lardertest.Behaviour{Header: []string{"Cache-Control: max-age=100", "Age: 40"}})
	l.origin.Set("/web/private", lardertest.Behaviour{Header: []string{"Cache-Control: no-store"}})
	steps := []struct {
		path, fields string
		status       int
		says         string // the beginning of Cache-Status
	}{
		{"/a", "Range: bytes=0-1", 206, "Larder; fwd=uri-miss; stored"},
		{"/a", "Range: bytes=0-9", 206, "Larder; hit"},
		{"/a", "", 200, "Larder; fwd=partial; stored"},
		{"/a", "", 200, "Larder; hit"},
		{"/checked/a", "", 200, "Larder; fwd=uri-miss; stored"},
		{"/checked/a", "", 200, "Larder; fwd=stale; fwd-status=304; detail=revalidated"},
		{"/aged/a", "", 200, "Larder; fwd=uri-miss; stored"},
		{"/aged/a", "", 200, "Larder; hit; ttl="},
		{"/web/a", "", 200, "Larder; fwd=uri-miss; stored"},
		{"/web/a", "", 200, "Larder; hit; ttl="},
		{"/web/private", "", 200, "Larder; fwd=bypass"},
		{"/missing", "", 404, "Larder; detail=error"},
	}
	for _, tt := range steps {
		var fields []string
		if tt.fields != "" {
			fields = []string{tt.fields}
		}
		r := l.get(t, tt.path, fields...)
		r.want(t, tt.status)
		lardertest.Eventually(t, "what is on its way is stored", func() bool { return l.Metric("larder_fill_active_runs") == 0 })
		if cs := r.header.Get("Cache-Status"); cs != tt.says && !(strings.HasSuffix(tt.says, "=") && strings.HasPrefix(cs, tt.says)) {
			t.Errorf("%s %s: Cache-Status %q, want %q", tt.path, tt.fields, cs, tt.says)
		}
		if via := r.header.Get("Via"); !strings.HasPrefix(via, "1.1 larder-") {
			t.Errorf("%s: Via %q", tt.path, via)
		}
		if r.header.Get("Date") == "" || strings.Count(r.head, "\r\nDate:") != 1 {
			t.Errorf("%s: not one Date\n%s", tt.path, r.head)
		}
		if tt.status < 300 && tt.says != "Larder; fwd=bypass" {
			if r.header.Get("Age") == "" || r.header.Get("Accept-Ranges") != "bytes" {
				t.Errorf("%s: no Age or Accept-Ranges\n%s", tt.path, r.head)
			}
		}
		if tt.path == "/web/a" {
			var age, ttl int
			if _, err := fmt.Sscan(r.header.Get("Age"), &age); err != nil || age < 40 || age > 60 {
				t.Errorf("Age %q, want 40 and a little", r.header.Get("Age"))
			}
			if _, after, ok := strings.Cut(r.header.Get("Cache-Status"), "ttl="); ok {
				if _, err := fmt.Sscan(after, &ttl); err != nil || ttl < 40 || ttl > 60 {
					t.Errorf("ttl %q, want 60 and a little less", after)
				}
			}
		}
	}

	// The origin is gone: what may be used without it is.
	l.origin.Refuse()
	l.get(t, "/a").wantContent(t, "/a", 1, size, 0, size)
	r := l.get(t, "/checked/a")
	r.wantContent(t, "/checked/a", 1, size, 0, size)
	if cs := r.header.Get("Cache-Status"); cs != "Larder; fwd=stale; detail=origin-unavailable" {
		t.Errorf("Cache-Status %q", cs)
	}
	r = l.get(t, "/web/private")
	r.want(t, http.StatusBadGateway)
}

func TestRevalidationBringsTheNewVersion(t *testing.T) {
	t.Parallel()
	const size = 2*mib + 9
	l := newLab(t, labOptions{publisher: strings.Replace(labPublisher, "immutable", "revalidate", 1)})
	l.origin.Add("/v", size)
	for version := 1; version <= 3; version++ {
		l.origin.SetVersion("/v", version, size)
		for range 2 {
			l.get(t, "/v").wantContent(t, "/v", version, size, 0, size)
			l.get(t, "/v", "Range: bytes=-10").wantContent(t, "/v", version, size, size-10, size)
		}
	}
	l.wantSent(t, "/v", 3*size, 3*size)
}

// One name that fails must not answer for another that does not, though both
// have the same content: else whoever makes up a name takes it from everybody.
func TestFailureOfOneHostIsNotThatOfAnother(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{publisher: `
publishers:
  - {name: good, alias: same, hosts: [good.test], freshness: immutable, origin: {scheme: http, address: "$ORIGIN"}}
  - {name: bad, alias: same, hosts: [bad.test], freshness: immutable, origin: {scheme: http, address: "127.0.0.1:1"}}
`})
	l.origin.Add("/a", 1000)
	ask(t, question{addr: l.HTTP, host: "bad.test", target: "/a"}).want(t, http.StatusBadGateway)
	r := ask(t, question{addr: l.HTTP, host: "good.test", target: "/a"})
	r.wantContent(t, "/a", 1, 1000, 0, 1000)
}

// A standard publisher is served as a shared cache does it: what is one
// client's own goes through and is not kept, redirects are the client's.
func TestStandardPublisher(t *testing.T) {
	t.Parallel()
	const size = mib + 5
	l := newLab(t, labOptions{publisher: strings.Replace(labPublisher, "immutable", "standard", 1)})
	l.origin.Add("/s", size)
	l.origin.Set("/s", lardertest.Behaviour{Header: []string{"Cache-Control: max-age=60"}})
	for range 2 {
		r := l.get(t, "/s", "Authorization: Basic eDp5", "X-Own: 1", "Connection: close, X-Hop", "X-Hop: 1")
		r.wantContent(t, "/s", 1, size, 0, size)
	}
	for _, q := range l.origin.RequestsFor("/s") {
		if q.Header.Get("Authorization") != "Basic eDp5" || q.Header.Get("X-Own") != "1" || q.Header.Get("X-Hop") != "" {
			t.Errorf("passed on:\n%s", q.Head)
		}
	}
	l.wantSent(t, "/s", 2*size, 2*size)
	for range 2 {
		l.get(t, "/s").wantContent(t, "/s", 1, size, 0, size)
		l.get(t, "/s", "Range: bytes=-5").wantContent(t, "/s", 1, size, size-5, size)
	}
	l.wantSent(t, "/s", 3*size, 3*size)

	l.origin.Set("/moved", lardertest.Behaviour{Status: 302, Location: "http://elsewhere.test/x"})
	r := l.get(t, "/moved")
	r.want(t, http.StatusFound)
	if got := r.header.Get("Location"); got != "http://elsewhere.test/x" {
		t.Errorf("Location %q", got)
	}
	l.origin.Set("/gone", lardertest.Behaviour{Status: 418})
	l.get(t, "/gone").want(t, http.StatusTeapot)
	r = ask(t, question{addr: l.HTTP, method: "HEAD", target: "/s"})
	r.want(t, http.StatusOK)
	if got := r.header.Get("Content-Length"); got != fmt.Sprint(int64(size)) {
		t.Errorf("HEAD: Content-Length %q", got)
	}
}

func TestHead(t *testing.T) {
	t.Parallel()
	const size = 5 * mib
	l := newLab(t, labOptions{})
	for path, how := range map[string]lardertest.Behaviour{
		"/plain": {}, "/noranges": {IgnoreRange: true}, "/chunked": {Chunked: true, IgnoreRange: true}, "/none": {Validators: lardertest.NoValidators},
	} {
		l.origin.Add(path, size)
		l.origin.Set(path, how)
		for _, when := range []string{"cold", "warm"} {
			r := ask(t, question{addr: l.HTTP, host: path[1:] + ".cdn.test", method: "HEAD", target: path})
			r.want(t, http.StatusOK)
			if got := r.header.Get("Content-Length"); got != fmt.Sprint(int64(size)) || len(r.body) != 0 {
				t.Errorf("%s, %s: Content-Length %q\n%s", path, when, got, r.head)
			}
		}
		r := ask(t, question{addr: l.HTTP, host: path[1:] + ".cdn.test", target: path})
		r.wantContent(t, path, 1, size, 0, size)
	}
	r := ask(t, question{addr: l.HTTP, method: "HEAD", target: "/missing"})
	r.want(t, http.StatusNotFound)
	if len(r.body) != 0 {
		t.Errorf("a HEAD was answered with %d bytes", len(r.body))
	}
}
