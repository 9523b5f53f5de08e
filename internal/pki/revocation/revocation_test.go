package revocation

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"
)

// TestCheck: what the two ways say, put together.
func TestCheck(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	const serial = 0x1001
	responses := map[string][]byte{
		"good": response(t, ca, nil, serial, nil),
		"revoked": response(t, ca, nil, serial, func(r *ocsp.Response) {
			r.Status, r.RevokedAt, r.RevocationReason = ocsp.Revoked, time.Now().Add(-time.Hour), ocsp.KeyCompromise
		}),
		"unknown": []byte("garbage"),
	}
	lists := map[string][]byte{"good": crl(t, ca, nil, 7), "revoked": crl(t, ca, nil, serial), "unknown": []byte("garbage")}
	tests := []struct {
		byOCSP, byCRL string
		want          Status
		source        string
		problems      int
	}{
		{"", "", NotOffered, "", 0},
		{"good", "", Good, "OCSP", 0},
		{"", "good", Good, "CRL", 0},
		{"good", "good", Good, "OCSP", 0},
		{"good", "revoked", Revoked, "CRL", 0},
		{"revoked", "good", Revoked, "OCSP", 0},
		{"", "revoked", Revoked, "CRL", 0},
		{"unknown", "", Unknown, "", 1},
		{"", "unknown", Unknown, "", 1},
		{"unknown", "unknown", Unknown, "", 2},
		{"unknown", "good", Good, "CRL", 1},
		{"unknown", "revoked", Revoked, "CRL", 1},
		{"good", "unknown", Good, "OCSP", 1},
	}
	for _, tt := range tests {
		internet := answering{"http://ocsp.example/": responses[tt.byOCSP], "http://crl.example/": lists[tt.byCRL]}
		var responders, points []string
		if tt.byOCSP != "" {
			responders = []string{"http://ocsp.example/"}
		}
		if tt.byCRL != "" {
			points = []string{"http://crl.example/"}
		}
		leaf := issue(t, ca, "cache.example", asking(serial, responders, points))
		a := New(Options{Transport: internet}).Check(t.Context(), leaf.Certificate, ca.Certificate)
		if a.Status != tt.want || !strings.HasPrefix(a.Source, tt.source) || (a.Source == "") != (tt.source == "") || len(a.Problems) != tt.problems {
			t.Errorf("OCSP %q, CRL %q: got %+v, want %s by %s", tt.byOCSP, tt.byCRL, a, tt.want, tt.source)
		}
		if (a.Staple != nil) != (a.Status == Good && tt.byOCSP == "good") {
			t.Errorf("OCSP %q, CRL %q: a staple %v", tt.byOCSP, tt.byCRL, a.Staple != nil)
		}
	}
}

// counting gives what get returns and counts.
type counting struct {
	n    atomic.Int32
	get  func(url string) ([]byte, error)
	gate chan struct{} // nil: none; otherwise answers wait for it
}

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	if c.gate != nil {
		select {
		case <-c.gate:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	data, err := c.get(r.URL.String())
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: 200, Status: "200 OK", Body: io.NopCloser(strings.NewReader(string(data))), Request: r}, nil
}

// TestOneFetch: many who check at once cost one fetch, an hour later it is
// another, and none of them waits for longer than he wants to.
func TestOneFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t)
		web := &counting{gate: make(chan struct{}), get: func(string) ([]byte, error) {
			return crl(t, ca, func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(5 * time.Hour) }), nil
		}}
		c := New(Options{Transport: web})
		leaf := issue(t, ca, "cache.example", asking(1, nil, []string{"http://crl.example/"})).Certificate
		check := func(ctx context.Context, want Status) {
			if a, err := c.CRL(ctx, leaf, ca.Certificate); a.Status != want {
				t.Errorf("got %+v, %v; want %s", a, err, want)
			}
		}
		var wg sync.WaitGroup
		short, cancel := context.WithCancel(t.Context())
		wg.Go(func() { check(short, Unknown) }) // it fetches first, and leaves
		synctest.Wait()
		for range 10 {
			wg.Go(func() { check(t.Context(), Good) })
		}
		wg.Go(func() { check(short, Unknown) }) // it waits for the first, and leaves
		synctest.Wait()
		if n := web.n.Load(); n != 1 {
			t.Errorf("%d fetches have begun, want 1", n)
		}
		cancel()
		synctest.Wait()
		close(web.gate)
		wg.Wait()
		if n := web.n.Load(); n != 2 {
			t.Errorf("%d fetches, want 2: the first was given up by him who made it", n)
		}
		time.Sleep(59 * time.Minute)
		check(t.Context(), Good)
		if n := web.n.Load(); n != 2 {
			t.Errorf("%d fetches within the hour, want still 2", n)
		}
		time.Sleep(2 * time.Minute)
		check(t.Context(), Good)
		if n := web.n.Load(); n != 3 {
			t.Errorf("%d fetches after an hour, want 3", n)
		}
	})
}

// TestListEnds: a list is not used again after its end, hour or not.
func TestListEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t)
		web := &counting{get: func(string) ([]byte, error) {
			return crl(t, ca, func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(10 * time.Minute) }), nil
		}}
		c := New(Options{Transport: web})
		leaf := issue(t, ca, "cache.example", asking(1, nil, []string{"http://crl.example/"})).Certificate
		for _, wait := range []time.Duration{0, 9 * time.Minute, 2 * time.Minute} {
			time.Sleep(wait)
			if a, err := c.CRL(t.Context(), leaf, ca.Certificate); a.Status != Good {
				t.Errorf("%v, %v", a, err)
			}
		}
		if n := web.n.Load(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
	})
}

// TestSilence: with the real patience, ten who ask a server that says nothing
// wait ten seconds and not a hundred, and it is asked again half a minute
// later.
func TestSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t)
		web := &counting{gate: make(chan struct{}), get: func(string) ([]byte, error) { return crl(t, ca, nil), nil }}
		c := New(Options{Transport: web})
		leaf := issue(t, ca, "cache.example", asking(1, nil, []string{"http://crl.example/"})).Certificate
		began := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				a, err := c.CRL(t.Context(), leaf, ca.Certificate)
				unknownBecause(t, "silence", a, err, "nothing but silence for 10s")
			})
		}
		wg.Wait()
		if took := time.Since(began); took != 10*time.Second || web.n.Load() != 1 {
			t.Errorf("took %s and %d fetches", took, web.n.Load())
		}
		close(web.gate)
		time.Sleep(31 * time.Second)
		if a, err := c.CRL(t.Context(), leaf, ca.Certificate); a.Status != Good {
			t.Errorf("%v, %v", a, err)
		}
	})
}

// TestSlow: a list that comes slowly is waited for, and not for ever.
func TestSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t)
		der := crl(t, ca, func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(time.Hour) })
		leaf := issue(t, ca, "cache.example", asking(1, nil, []string{"http://crl.example/"})).Certificate
		for _, tt := range []struct {
			pause time.Duration // before each of 20 pieces
			want  Status
		}{{5 * time.Second, Good}, {9 * time.Second, Unknown}} {
			c := New(Options{Transport: dripping{der, tt.pause}})
			began := time.Now()
			if a, err := c.CRL(t.Context(), leaf, ca.Certificate); a.Status != tt.want || time.Since(began) > longest {
				t.Errorf("a piece every %s: %v, %v, after %s", tt.pause, a, err, time.Since(began))
			}
		}
	})
}

// dripping gives its bytes in 20 pieces.
type dripping struct {
	data  []byte
	pause time.Duration
}

func (d dripping) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Body: io.NopCloser(&drips{r.Context(), d.data, d.pause, len(d.data)/20 + 1}), Request: r}, nil
}

type drips struct {
	ctx   context.Context
	left  []byte
	pause time.Duration
	piece int
}

func (d *drips) Read(b []byte) (int, error) {
	if len(d.left) == 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(d.pause):
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	}
	n := copy(b, d.left[:min(d.piece, len(d.left))])
	d.left = d.left[n:]
	return n, nil
}

// TestShelfIsBounded: however many lists there are, few are held.
func TestShelfIsBounded(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	der := crl(t, ca, nil)
	web := &counting{get: func(url string) ([]byte, error) {
		if strings.Contains(url, "bad") {
			return nil, fmt.Errorf("no such host")
		}
		return der, nil
	}}
	c := New(Options{Transport: web})
	for i := range 3 * mostHeld {
		for _, kind := range []string{"good", "bad"} {
			leaf := issue(t, ca, "cache.example", asking(1, nil, []string{fmt.Sprintf("http://%s%d.example/", kind, i)})).Certificate
			_, _ = c.CRL(t.Context(), leaf, ca.Certificate)
		}
	}
	if n := len(c.shelf.held); n > mostHeld {
		t.Errorf("%d lists are held, want %d at most", n, mostHeld)
	}
	// By weight: two large ones leave no room for others.
	for key, h := range c.shelf.held {
		c.shelf.weigh(key, h, mostCRL)
	}
	if n := len(c.shelf.held); n > 2 {
		t.Errorf("%d lists of 32 MiB are held, want 2 at most", n)
	}
}

func TestStatusAsWords(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal([]Status{Unknown, Good, Revoked, NotOffered})
	if err != nil || string(text) != `["unknown","good","revoked","not offered"]` {
		t.Errorf("got %s, %v", text, err)
	}
	var back []Status
	if err := json.Unmarshal(text, &back); err != nil || back[2] != Revoked {
		t.Errorf("got %v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`["fine"]`), &back); err == nil {
		t.Error("a status without meaning was read")
	}
	if _, err := json.Marshal(Status(9)); err == nil || Status(9).String() != "status 9" {
		t.Error("a status without a word was written")
	}
	if got := reason(7) + ", " + reason(10) + ", " + reason(-1); got != "reason 7, AA compromise, reason -1" {
		t.Errorf("got %s", got)
	}
	if got := clean(strings.Repeat("a", 300)); len(got) > 210 {
		t.Errorf("%d bytes", len(got))
	}
	if a, err := json.Marshal(Answer{Status: Good, Source: "OCSP x", Staple: []byte{1}}); err != nil || string(a) != `{"status":"good","source":"OCSP x"}` {
		t.Errorf("got %s, %v", a, err)
	}
}
