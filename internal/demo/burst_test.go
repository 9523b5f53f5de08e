package demo

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serve plays the node: whatever h answers.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

var small = []File{{"/files/1KiB.bin", 1 << 10}, {"/files/64KiB.bin", 64 << 10}, {"/files/1MiB.bin", 1 << 20}}

func TestBurstGetsEverythingRight(t *testing.T) {
	t.Parallel()
	o := NewOrigin()
	var foreign atomic.Int64
	node := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "cacheHostOrigin="+Host || r.UserAgent() != userAgent {
			foreign.Add(1)
		}
		o.ServeHTTP(w, r)
	}))
	// As if the origin had been asked once per file by a node that caches.
	var calls int64
	r, err := Burst(t.Context(), BurstConfig{
		NodeURL: node, Clients: 4, Files: small, Timeout: time.Minute,
		UpstreamBytes: func() int64 { calls++; return 5000 + (calls-1)*(1<<20+65<<10) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK() || r.Incomplete || foreign.Load() != 0 {
		t.Errorf("not OK, %d foreign requests:\n%s", foreign.Load(), r)
	}
	if want := int64(4 * (1<<20 + 65<<10 + 6)); r.Asked != want || r.Requests != 4*6 {
		t.Errorf("asked %d bytes in %d requests, want %d in 24", r.Asked, r.Requests, want)
	}
	if r.Upstream != 1<<20+65<<10 || r.HitRatio() < 0.749 || r.HitRatio() > 0.751 {
		t.Errorf("upstream %d, hit ratio %v; want %d, 0.75", r.Upstream, r.HitRatio(), 1<<20+65<<10)
	}
	for _, want := range []string{"4, each wanting 3 files", "1.1 MiB", "75.0 %", "all right"} {
		if !strings.Contains(r.String(), want) {
			t.Errorf("no %q in\n%s", want, r)
		}
	}
}

func TestBurstSeesWrongAnswers(t *testing.T) {
	t.Parallel()
	o := NewOrigin()
	for _, c := range []struct {
		name    string
		node    http.HandlerFunc
		wrong   bool
		failure string
	}{
		{"other bytes", func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path = "/files/1MiB.bin"
			rec := httptest.NewRecorder()
			o.ServeHTTP(rec, r)
			w.Header().Set("Content-Range", strings.Replace(rec.Header().Get("Content-Range"), "/1048576", "/65536", 1))
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
		}, true, ""},
		{"200 to a range", func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			o.ServeHTTP(w, r)
		}, false, "200 OK instead of 206"},
		{"other total", func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path = "/files/1MiB.bin"
			o.ServeHTTP(w, r)
		}, false, `Content-Range "bytes 0-1/1048576" instead of "bytes 0-1/65536"`},
		{"refused", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "not served here", http.StatusForbidden)
		}, false, "403 Forbidden instead of 206: not served here"},
		{"cut", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-1/65536")
			w.Header().Set("Content-Length", "2")
			w.WriteHeader(http.StatusPartialContent)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			panic(http.ErrAbortHandler)
		}, false, "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, err := Burst(t.Context(), BurstConfig{
				NodeURL: serve(t, c.node), Clients: 1, Files: []File{{"/files/64KiB.bin", 64 << 10}}, Timeout: time.Minute,
			})
			if err != nil {
				t.Fatal(err)
			}
			if r.OK() || c.wrong != (r.Wrong > 0) || !strings.Contains(r.Failure, c.failure) {
				t.Errorf("wrong %d, failure %q; want one with %q", r.Wrong, r.Failure, c.failure)
			}
			if r.Upstream != -1 {
				t.Errorf("Upstream = %d though nobody said", r.Upstream)
			}
		})
	}
}

func TestBurstKeepsItsLimits(t *testing.T) {
	t.Parallel()
	node := serve(t, NewOrigin())
	r, err := Burst(t.Context(), BurstConfig{NodeURL: node, Clients: 3, Files: small, MaxBytes: 1 << 20, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if r.Asked > 1<<20 || !r.Incomplete || !r.OK() {
		t.Errorf("asked %d of at most %d, incomplete %v:\n%s", r.Asked, 1<<20, r.Incomplete, r)
	}

	// A node that never answers costs the time-out, not more, and is no failure.
	hang := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	r, err = Burst(t.Context(), BurstConfig{NodeURL: hang, Clients: 2, Files: small, Timeout: 50 * time.Millisecond})
	if err != nil || !r.Incomplete || r.Failures != 0 || r.OK() {
		t.Errorf("%v, incomplete %v, failures %d", err, r.Incomplete, r.Failures)
	}
}

func TestBurstEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	hang := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	if _, err := Burst(ctx, BurstConfig{NodeURL: hang, Clients: 1, Timeout: time.Minute}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestBurstRefusesBadURL(t *testing.T) {
	t.Parallel()
	for _, u := range []string{"", "127.0.0.1:80", "ftp://127.0.0.1", "http://"} {
		if _, err := Burst(t.Context(), BurstConfig{NodeURL: u}); err == nil {
			t.Errorf("%q was taken", u)
		}
	}
}

func TestBytesText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 16 << 20: "16 MiB", 1 << 30: "1 GiB", 5 << 40: "5 TiB", 3 << 50: "3072 TiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", n, got, want)
		}
	}
}
