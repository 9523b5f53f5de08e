package origin

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"
)

func start(t *testing.T, c Config) *Server {
	t.Helper()
	s, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func get(t *testing.T, s *Server, path, byteRange string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if byteRange != "" {
		r.Header.Set("Range", byteRange)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Rate: 1 << 40})
	for _, path := range []string{Small(3), Large(3), Cold(3)} {
		content, err := s.Content(path)
		if err != nil {
			t.Fatal(err)
		}
		resp, body := get(t, s, path, "bytes=1000-2999")
		if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(body, content[1000:3000]) {
			t.Errorf("%s: status %d, %d bytes; expected bytes 1000 to 3000", path, resp.StatusCode, len(body))
		}
		if resp.Header.Get("ETag") == "" || resp.Header.Get("Last-Modified") == "" || resp.Header.Get("Cache-Control") == "" {
			t.Errorf("%s: no validators or lifetime in %v", path, resp.Header)
		}
	}
	a, _ := s.Content(Large(1))
	b, _ := s.Content(Large(2))
	if bytes.Equal(a[:64], b[:64]) {
		t.Error("two files begin alike")
	}
	if resp, _ := get(t, s, "/nothing", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("unknown file: status %d", resp.StatusCode)
	}
}

func TestThinLine(t *testing.T) {
	t.Parallel()
	const rate, delay, size = 10_000_000, 20 * time.Millisecond, 1_000_000
	s := start(t, Config{Rate: rate, Delay: delay})
	began := time.Now()
	get(t, s, Cold(0), "bytes=0-999999")
	if took, least := time.Since(began), delay-slack+size*time.Second/rate; took < least {
		t.Errorf("%d bytes took %s: expected at least %s", size, took, least)
	}
	if n := s.ColdBytes(); n != size {
		t.Errorf("%d cold bytes counted: expected %d", n, size)
	}
	get(t, s, Large(0), "bytes=0-999999")
	if n := s.ColdBytes(); n != size {
		t.Errorf("a large file was counted as cold: %d bytes", n)
	}
}
