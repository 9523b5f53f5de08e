package load

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var content = bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB

func serveContent(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "x.bin", time.Time{}, bytes.NewReader(content))
}

func serve(t *testing.T, secure *tls.Config, h http.HandlerFunc) Target {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	t.Cleanup(s.Close)
	target := Target{Addr: s.Listener.Addr().String(), Host: "example.com"}
	if secure == nil {
		s.Start()
		return target
	}
	s.TLS = secure
	s.StartTLS()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	target.TLS = &tls.Config{RootCAs: roots, ServerName: "example.com"}
	return target
}

func TestHot(t *testing.T) {
	t.Parallel()
	for _, secure := range []*tls.Config{nil, {}} {
		target := serve(t, secure, serveContent)
		begun := false
		f, err := Hot{
			Target: target, Pieces: target.Ranges("/x", content, 100_000), Conns: 3, Duration: 50 * time.Millisecond,
			Begin: func() error { begun = true; return nil },
		}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !begun || f.InTime == 0 || f.Requests < f.InTime || f.Bytes == 0 || f.Longest <= 0 {
			t.Errorf("begun %t, %+v", begun, f)
		}
	}
}

func TestStampede(t *testing.T) {
	t.Parallel()
	target := serve(t, nil, serveContent)
	pieces := target.Ranges("/x", content, 100_000)
	f, err := Stampede{Target: target, Pieces: pieces, Clients: 4, Conns: 2}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(f.FirstByte); n != 4*len(pieces) || len(f.FirstBody) != n {
		t.Errorf("%d and %d answers: expected %d", n, len(f.FirstBody), 4*len(pieces))
	}
	if f.FirstByte[0] <= 0 || f.FirstByte[0] > f.FirstBody[len(f.FirstBody)-1] {
		t.Errorf("first bytes from %s, first bytes of a body to %s", f.FirstByte[0], f.FirstBody[len(f.FirstBody)-1])
	}
}

// TestWrongAnswers proves that a cache with wrong answers cannot win.
func TestWrongAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, want string
		answer     func(w http.ResponseWriter, r *http.Request)
	}{
		{"bytes", "wrong bytes", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			wrong := bytes.Clone(content[:1000])
			wrong[999]++
			_, _ = w.Write(wrong)
		}},
		{"status", "expected 206", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content[:1000]) }},
		{"length", "expected 1000", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[:999])
		}},
		{"chunked", "without Content-Length", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(content[:1000])
		}},
		{"cut", "before the end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[:500])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}},
		{"surplus", "behind the answer", func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer c.Close()
			fmt.Fprintf(c, "HTTP/1.1 206 Partial Content\r\nContent-Length: 1000\r\n\r\n%s!", content[:1000])
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			target := serve(t, nil, test.answer)
			err := Fetch(t.Context(), target, []Piece{target.Range("/x", content, 0, 1000)})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v: expected one with %q", err, test.want)
			}
		})
	}
}

func TestOtherTLS(t *testing.T) {
	t.Parallel()
	target := serve(t, &tls.Config{MaxVersion: tls.VersionTLS12}, serveContent)
	_, err := Hot{Target: target, Pieces: []Piece{target.Whole("/x", content)}, Conns: 1, Duration: time.Second}.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "expected TLS 1.3") {
		t.Errorf("error %v: expected one about TLS 1.3", err)
	}
}
