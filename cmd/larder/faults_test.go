package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// Whatever an origin does, a client gets the right bytes, or learns that it
// did not: by a status of 5xx in time, or by a connection that is cut.

const faultSize = 2*mib + mib/2

// What a fault may come to.
const (
	wantWhole  = 0  // the right bytes
	wantBroken = -1 // 5xx, or cut; never anything that looks whole
	wantEither = -2 // right, or broken
)

func raw(text string) []byte { return []byte(strings.ReplaceAll(text, "\n", "\r\n")) }

var faults = []struct {
	name   string
	steps  []lardertest.Behaviour
	want   int           // wantWhole, wantBroken or a status
	within time.Duration // to the first byte; default 3 s
}{
	{"truncates once", []lardertest.Behaviour{{Truncate: true, After: 300_000}, {}}, wantWhole, 0},
	{"truncates every answer", []lardertest.Behaviour{{Truncate: true, After: 700_000}}, wantWhole, 0},
	{"truncates in the first byte of a chunk", []lardertest.Behaviour{{Truncate: true, After: 1}, {}}, wantWhole, 0},
	{"ends after the head for ever", []lardertest.Behaviour{{Truncate: true}}, wantBroken, 0},
	{"ends after a part for ever", []lardertest.Behaviour{{Truncate: true, After: 300_000}, {Truncate: true}}, wantBroken, 0},
	{"stalls once", []lardertest.Behaviour{{Stall: true, After: 300_000}, {}}, wantWhole, 0},
	{"stalls after the head once", []lardertest.Behaviour{{Stall: true}, {}}, wantWhole, 0},
	{"stalls for ever", []lardertest.Behaviour{{Stall: true, After: 300_000}, {Stall: true}}, wantBroken, 0},
	{"is silent after the head for ever", []lardertest.Behaviour{{Stall: true}}, http.StatusGatewayTimeout, 0},
	{"is slow without being dead", []lardertest.Behaviour{{Pace: 600_000}}, wantWhole, 0},
	{"takes its time for the head", []lardertest.Behaviour{{Delay: 1500 * time.Millisecond}}, wantWhole, 0},
	{"announces more than it sends", []lardertest.Behaviour{{LengthDelta: 1000}}, http.StatusBadGateway, 0},
	{"announces less than it sends", []lardertest.Behaviour{{LengthDelta: -1000}}, http.StatusBadGateway, 0},
	{"announces more than it sends and ignores ranges", []lardertest.Behaviour{{LengthDelta: 1000, IgnoreRange: true}}, wantBroken, 0},
	{"sends another range than was asked for", []lardertest.Behaviour{{StartDelta: 1}}, wantEither, 0},
	{"says that it begins before zero", []lardertest.Behaviour{{StartDelta: -1}}, wantEither, 0},
	{"says that the whole is longer", []lardertest.Behaviour{{TotalDelta: 5}}, wantBroken, 0},
	{"says that the whole is shorter", []lardertest.Behaviour{{TotalDelta: -5}}, wantBroken, 0},
	{"does not know how long the whole is", []lardertest.Behaviour{{UnknownTotal: true}}, wantWhole, 0},
	{"sends 200 to a range", []lardertest.Behaviour{{IgnoreRange: true}}, wantWhole, 0},
	{"sends 200 to a range after it broke off", []lardertest.Behaviour{{Truncate: true, After: 300_000}, {IgnoreRange: true}}, wantWhole, 0},
	{"sends 200 and breaks off", []lardertest.Behaviour{{IgnoreRange: true, Truncate: true, After: 1_500_000}, {IgnoreRange: true}}, wantWhole, 0},
	{"sends chunks without a length", []lardertest.Behaviour{{Chunked: true}}, wantWhole, 0},
	{"sends chunks without a length and ignores ranges", []lardertest.Behaviour{{Chunked: true, IgnoreRange: true}}, wantWhole, 0},
	{"breaks off in a chunked body", []lardertest.Behaviour{{Chunked: true, IgnoreRange: true, Truncate: true, After: 1_500_000}}, wantBroken, 0},
	{"ends the body with the connection", []lardertest.Behaviour{{NoLength: true, IgnoreRange: true}}, wantWhole, 0},
	{"has no validators", []lardertest.Behaviour{{Validators: lardertest.NoValidators}}, wantWhole, 0},
	{"has no validators and truncates", []lardertest.Behaviour{
		{Validators: lardertest.NoValidators, Truncate: true, After: 300_000}, {Validators: lardertest.NoValidators},
	}, wantWhole, 0},
	{"has a weak validator", []lardertest.Behaviour{{Validators: lardertest.WeakETag}}, wantWhole, 0},
	{"has no date", []lardertest.Behaviour{{NoDate: true}}, wantWhole, 0},
	{"closes every connection", []lardertest.Behaviour{{NoKeepAlive: true}}, wantWhole, 0},
	{"sends interim answers", []lardertest.Behaviour{{Interim: []int{100, 103, 103}}}, wantWhole, 0},
	{"redirects in a ring", []lardertest.Behaviour{{Status: 302, Location: "?again"}}, http.StatusBadGateway, 0},
	{"redirects to an address", []lardertest.Behaviour{{Status: 302, Location: "http://127.0.0.1/x"}}, http.StatusBadGateway, 0},
	{"redirects to another port", []lardertest.Behaviour{{Status: 302, Location: "http://cdn.test:8080/x"}}, http.StatusBadGateway, 0},
	{"redirects without saying where to", []lardertest.Behaviour{{Status: 302}}, http.StatusBadGateway, 0},
	{"hangs", []lardertest.Behaviour{{Hang: true}}, http.StatusGatewayTimeout, 0},
	{"hangs once", []lardertest.Behaviour{{Hang: true}, {}}, wantWhole, 0},
	{"resets", []lardertest.Behaviour{{Reset: true}}, http.StatusBadGateway, 0},
	{"answers 500", []lardertest.Behaviour{{Status: 500}}, http.StatusBadGateway, 0},
	{"answers 501", []lardertest.Behaviour{{Status: 501}}, http.StatusBadGateway, 0},
	{"answers 503", []lardertest.Behaviour{{Status: 503}}, http.StatusServiceUnavailable, 0},
	{"answers 504", []lardertest.Behaviour{{Status: 504}}, http.StatusGatewayTimeout, 0},
	{"answers 304 to what had no condition", []lardertest.Behaviour{{Status: 304}}, http.StatusBadGateway, 0},
	{"answers 204", []lardertest.Behaviour{{Status: 204}}, http.StatusBadGateway, 0},
	{"sends garbage", []lardertest.Behaviour{{Raw: bytes.Repeat([]byte("\x00\xff garbage\n"), 1000)}}, http.StatusBadGateway, 0},
	{"sends half a head", []lardertest.Behaviour{{Raw: raw("HTTP/1.1 200 OK\nContent-Le")}}, http.StatusBadGateway, 0},
	{"sends nothing at all", []lardertest.Behaviour{{Raw: []byte{}}}, http.StatusBadGateway, 0},
	{"sends a head without end", []lardertest.Behaviour{{Raw: append(raw("HTTP/1.1 200 OK\n"), bytes.Repeat([]byte("X-Filler: 0123456789\r\n"), 200_000)...)}}, http.StatusBadGateway, 0},
	{"sends two lengths", []lardertest.Behaviour{{Raw: raw("HTTP/1.1 200 OK\nContent-Length: 4\nContent-Length: 5\n\nabcde")}}, http.StatusBadGateway, 0},
	{"sends a negative length", []lardertest.Behaviour{{Raw: raw("HTTP/1.1 200 OK\nContent-Length: -4\n\nabcde")}}, http.StatusBadGateway, 0},
	{"sends a 206 without a range", []lardertest.Behaviour{{Raw: raw("HTTP/1.1 206 Partial Content\nContent-Length: 4\n\nabcd")}}, http.StatusBadGateway, 0},
	{"sends a range that is none", []lardertest.Behaviour{{Raw: raw("HTTP/1.1 206 Partial Content\nContent-Length: 4\nContent-Range: bytes 9-2/7\n\nabcd")}}, http.StatusBadGateway, 0},
	{"sends several ranges", []lardertest.Behaviour{{Raw: raw("HTTP/1.1 206 Partial Content\nContent-Length: 4\nContent-Type: multipart/byteranges; boundary=x\n\nabcd")}}, http.StatusBadGateway, 0},
	{"speaks HTTP/2 to HTTP/1.1", []lardertest.Behaviour{{Raw: []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")}}, http.StatusBadGateway, 0},
}

func TestFaultsOfTheOrigin(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{yaml: hastyConfig})
	for i, tt := range faults {
		for form, fields := range map[string][]string{"whole": nil, "part": {"Range: bytes=1048576-2097151"}} {
			t.Run(tt.name+", "+form, func(t *testing.T) {
				t.Parallel()
				// A host of its own: what is learnt of origins is learnt by host.
				host := fmt.Sprintf("fault%d-%s.cdn.test", i, form)
				path := fmt.Sprintf("/fault/%d/%s", i, form)
				l.origin.Add(path, faultSize)
				l.origin.Set(path, tt.steps...)
				q := question{addr: l.HTTP, host: host, target: path, fields: fields}
				r := ask(t, q)
				l.wantOutcome(t, r, path, form, tt.want)
				within := tt.within
				if within == 0 {
					within = 3 * time.Second
				}
				r.wantQuick(t, within)
				if r.whole > 15*time.Second {
					t.Errorf("the answer took %v", r.whole)
				}

				// When the origin is mended, all is well, and nothing wrong was kept.
				l.origin.Set(path)
				q.fields = nil
				lardertest.Eventually(t, "the mended origin is asked", func() bool {
					r = ask(t, q)
					if r.status == http.StatusOK && lardertest.Content(path, 1, faultSize).Wrong(r.body, 0) != 0 {
						t.Fatalf("wrong bytes were kept:\n%s", l.askedFor(path))
					}
					return r.status == http.StatusOK && r.err == nil && len(r.body) == faultSize
				})
			})
		}
	}
}

func (l *lab) wantOutcome(t *testing.T, r *reply, path, form string, want int) {
	t.Helper()
	from, to := int64(0), int64(faultSize)
	if form == "part" {
		from, to = mib, 2*mib
	}
	if form == "part" && r.status == http.StatusOK {
		t.Errorf("a range was answered with 200\n%s%s", r.head, l.askedFor(path))
		return
	}
	if r.status < 300 {
		if wrong := lardertest.Content(path, 1, faultSize).Wrong(r.body, from); wrong != 0 {
			t.Errorf("%d of %d bytes are wrong\n%s%s", wrong, len(r.body), r.head, l.askedFor(path))
		}
	}
	switch {
	case want == wantWhole:
		if r.status >= 300 || r.err != nil {
			t.Fatalf("got %d, %d bytes, %v: %.200q\n%s", r.status, len(r.body), r.err, r.body, l.askedFor(path))
		}
		r.wantContent(t, path, 1, faultSize, from, to)
	case want == wantEither:
		if r.status < 300 && r.err == nil {
			r.wantContent(t, path, 1, faultSize, from, to)
		} else if r.status < 500 {
			t.Errorf("got %d", r.status)
		}
	case want == wantBroken:
		if r.status < 500 && r.err == nil && !(form == "part" && int64(len(r.body)) == to-from) {
			t.Errorf("got %d, %d bytes, which looks whole\n%s%s", r.status, len(r.body), r.head, l.askedFor(path))
		}
	case r.status != want:
		t.Errorf("got %d, %d bytes, %v; want %d\n%s%s", r.status, len(r.body), r.err, want, r.head, l.askedFor(path))
	default:
		r.wantSentence(t)
	}
}

func TestFaultValidatorChangesInTheMiddle(t *testing.T) {
	t.Parallel()
	const size = 4 * mib
	l := newLab(t, labOptions{})
	for i, after := range []int64{0, 1, mib - 1, mib, 3*mib + 5} {
		path := fmt.Sprintf("/change/%d", i)
		l.origin.Add(path, size)
		l.origin.Set(path,
			lardertest.Behaviour{Truncate: true, After: after},
			lardertest.Behaviour{Before: func(lardertest.Recorded) { l.origin.SetVersion(path, 2, size+77) }},
			lardertest.Behaviour{})
		r := l.get(t, path)
		switch {
		case r.status == http.StatusOK && r.err == nil:
			// Nothing had left yet: the new version, whole.
			r.wantContent(t, path, 2, size+77, 0, size+77)
		case r.status == http.StatusOK:
			if wrong := lardertest.Content(path, 1, size).Wrong(r.body, 0); wrong != 0 {
				t.Errorf("after %d: %d of %d bytes are not version 1", after, wrong, len(r.body))
			}
		case r.status < 500:
			t.Errorf("after %d: got %d", after, r.status)
		}
		l.get(t, path).wantContent(t, path, 2, size+77, 0, size+77)
		l.get(t, path).wantContent(t, path, 2, size+77, 0, size+77)
	}
}

// Clients append what answers a range, and one kind of them dies of a body
// without a length that is cut (docs/protocol.md).
func TestFaultSlowBodyWithoutALength(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{})
	for form, fields := range map[string][]string{
		"whole": nil, "part": {"Range: bytes=1048576-2097151"}, "suffix": {"Range: bytes=-5"}, "open": {"Range: bytes=5-"},
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			path := "/slow/" + form
			l.origin.Add(path, faultSize)
			l.origin.Set(path, lardertest.Behaviour{Chunked: true, IgnoreRange: true, Pace: faultSize / 5})
			r := ask(t, question{addr: l.HTTP, host: form + ".cdn.test", target: path, fields: fields})
			switch {
			case r.status >= 500:
			case form != "whole" && r.status != http.StatusPartialContent:
				t.Errorf("a range was answered with %d\n%s", r.status, r.head)
			case form == "whole" && (r.err != nil || lardertest.Content(path, 1, faultSize).Wrong(r.body, 0) != 0):
				t.Errorf("got %d bytes, %v", len(r.body), r.err)
			}
			lardertest.Eventually(t, "the length is known", func() bool {
				r = ask(t, question{addr: l.HTTP, host: form + ".cdn.test", target: path, fields: fields})
				return r.header.Get("Content-Length") != "" && r.status < 300
			})
			l.wantSent(t, path, faultSize, faultSize)
		})
	}
}

func TestFaultOriginRefuses(t *testing.T) {
	t.Parallel()
	for _, publisher := range []string{labPublisher, tlsPublisher} {
		l := newLab(t, labOptions{publisher: publisher})
		l.origin.Add("/a", 1000)
		l.origin.Add("/stored", 1000)
		l.get(t, "/stored").wantContent(t, "/stored", 1, 1000, 0, 1000)
		l.origin.Refuse()
		r := l.get(t, "/a")
		r.want(t, http.StatusBadGateway)
		r.wantQuick(t, 3*time.Second)
		r.wantSentence(t)
		l.get(t, "/stored").wantContent(t, "/stored", 1, 1000, 0, 1000)
		l.origin.Accept(t)
		lardertest.Eventually(t, "the origin is asked again", func() bool { return l.get(t, "/a").status == http.StatusOK })
	}
}

func TestFaultOriginIsDeaf(t *testing.T) {
	t.Parallel()
	for name, publisher := range map[string]string{"plain": labPublisher, "TLS": tlsPublisher} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{yaml: hastyConfig, publisher: publisher})
			l.origin.SetDeaf(true)
			r := l.get(t, "/a")
			r.want(t, http.StatusGatewayTimeout)
			r.wantQuick(t, 3500*time.Millisecond)
		})
	}
}

func TestFaultOriginIsSilentForTheDefaultPatience(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{})
	l.origin.SetEvery(lardertest.Behaviour{Hang: true})
	limit := 10500 * time.Millisecond
	if lardertest.Race {
		limit = 13 * time.Second
	}
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			// Every request is answered in time, those that wait for another's too.
			r, err := question{addr: l.HTTP, target: fmt.Sprintf("/a?%d", i)}.send(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if r.status != http.StatusGatewayTimeout || r.first < 9*time.Second || r.first > limit {
				t.Errorf("got %d after %v, want 504 after 10 s", r.status, r.first)
			}
		})
	}
	all.Wait()
}

// What an origin says beyond its answer reaches nobody but the log, and that in
// the log's own form.
func TestFaultOriginTalksOutOfTurn(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{yaml: lardertest.DefaultNodeConfig + "\nlog: {level: debug}\n"})
	l.origin.Set("/a", lardertest.Behaviour{Raw: raw("HTTP/1.1 200 OK\nETag: \"a\"\nContent-Length: 2\n\nokHTTP/1.1 200 OK\nContent-Length: 4\n\nevil")})
	l.origin.Add("/b", 1000)
	r := l.get(t, "/a")
	r.want(t, http.StatusOK)
	if string(r.body) != "ok" {
		t.Errorf("got %q", r.body)
	}
	l.get(t, "/b").wantContent(t, "/b", 1, 1000, 0, 1000)
	lardertest.Eventually(t, "it is said", func() bool { return strings.Contains(l.Output(), "Unsolicited response") })
	for line := range strings.Lines(l.Output()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not of the log: %q", line)
		}
	}
}

func TestFaultNameDoesNotResolve(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{publisher: `{name: lost, hosts: [no-such-host.invalid], freshness: immutable}`})
	r := ask(t, question{addr: l.HTTP, host: "no-such-host.invalid", target: "/a"})
	if r.status < 502 || r.status > 504 {
		t.Errorf("got %d", r.status)
	}
	r.wantQuick(t, 3500*time.Millisecond)
	r.wantSentence(t)
}

func TestFaultCertificateOfTheOrigin(t *testing.T) {
	t.Parallel()
	for name, publisher := range map[string]string{
		"of a foreign authority": `{name: cdn, hosts: [cdn.test], freshness: immutable, origin: {scheme: https, address: "$TLSORIGIN"}}`,
		"for another name":       `{name: cdn, hosts: [cdn.test], freshness: immutable, origin: {scheme: https, host: wrong.test, address: "$TLSORIGIN", ca: "$CA"}}`,
		"none, plain text":       `{name: cdn, hosts: [cdn.test], freshness: immutable, origin: {scheme: https, address: "$ORIGIN", ca: "$CA"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{publisher: publisher})
			l.origin.Add("/a", 1000)
			r := l.get(t, "/a")
			if r.status != http.StatusBadGateway && r.status != http.StatusGatewayTimeout {
				t.Errorf("got %d: %s", r.status, r.body)
			}
			r.wantQuick(t, 3500*time.Millisecond)
			if n := len(l.origin.Requests()); n != 0 {
				t.Errorf("%d requests were sent", n)
			}
		})
	}
}
