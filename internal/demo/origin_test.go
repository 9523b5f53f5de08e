package demo

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func get(t *testing.T, h http.Handler, method, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestOriginAnswers(t *testing.T) {
	t.Parallel()
	o := NewOrigin()
	const file = "/files/1KiB.bin"
	tag := get(t, o, "HEAD", file).Header.Get("ETag")
	if !strings.HasPrefix(tag, `"`) {
		t.Fatalf("ETag %q is not strong", tag)
	}
	for _, c := range []struct {
		name, method, path string
		header             []string
		status             int
		contentRange       string
		length             int64 // of the body that arrives
	}{
		{"whole", "GET", file, nil, 200, "", 1024},
		{"head", "HEAD", file, nil, 200, "", 0},
		{"range", "GET", file, []string{"Range", "bytes=10-19"}, 206, "bytes 10-19/1024", 10},
		{"suffix", "GET", file, []string{"Range", "bytes=-24"}, 206, "bytes 1000-1023/1024", 24},
		{"past the end", "GET", file, []string{"Range", "bytes=1024-"}, 416, "bytes */1024", -1},
		{"if-range", "GET", file, []string{"Range", "bytes=0-1", "If-Range", tag}, 206, "bytes 0-1/1024", 2},
		{"if-range of another", "GET", file, []string{"Range", "bytes=0-1", "If-Range", `"other"`}, 200, "", 1024},
		{"not modified", "GET", file, []string{"If-None-Match", tag}, 304, "", 0},
		{"index", "GET", "/", nil, 200, "", int64(len(index()))},
		{"nothing there", "GET", "/files/2KiB.bin", nil, 404, "", -1},
		{"post", "POST", file, nil, 405, "", -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			resp := get(t, o, c.method, c.path, c.header...)
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status || resp.Header.Get("Content-Range") != c.contentRange {
				t.Errorf("got %d, Content-Range %q; want %d, %q",
					resp.StatusCode, resp.Header.Get("Content-Range"), c.status, c.contentRange)
			}
			if c.length >= 0 && int64(len(body)) != c.length {
				t.Errorf("got %d bytes, want %d", len(body), c.length)
			}
			if c.status < 300 && resp.Header.Get("Last-Modified") == "" {
				t.Error("no Last-Modified")
			}
		})
	}
}

func TestIndexNamesEveryFile(t *testing.T) {
	t.Parallel()
	page := string(index())
	for _, f := range Files() {
		if !strings.Contains(page, `href="`+f.Path+`"`) {
			t.Errorf("the index has no link to %s", f.Path)
		}
	}
}

func TestSumsAreThoseOfTheFiles(t *testing.T) {
	t.Parallel()
	o := NewOrigin()
	listing, err := io.ReadAll(get(t, o, "GET", SumsPath).Body)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(get(t, o, "GET", "/files/1MiB.bin").Body)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%x  1MiB.bin\n", sha256.Sum256(body))
	if !strings.Contains(string(listing), want) {
		t.Errorf("no line %q in:\n%s", want, listing)
	}
	if lines := strings.Count(string(listing), "\n"); lines != len(Files()) {
		t.Errorf("%d lines, want %d", lines, len(Files()))
	}
	if got, want := o.BytesSent(), int64(len(listing)+len(body)); got != want {
		t.Errorf("BytesSent = %d, want %d", got, want)
	}
}

func TestRunServesUntilTheContextEnds(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewOrigin().Run(ctx, ln) }()
	resp, err := http.Get("http://" + ln.Addr().String() + "/files/64KiB.bin")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); n != 64<<10 || err != nil {
		t.Errorf("got %d bytes, %v", n, err)
	}
	_ = resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

func TestPublisherIsACatalogueFile(t *testing.T) {
	t.Parallel()
	var p struct {
		Name        string
		ContentType string `yaml:"content_type"`
		Hosts       []string
		Schemes     []string
		Freshness   string
		Query       string
		Origin      struct{ Scheme, Address string }
	}
	dec := yaml.NewDecoder(strings.NewReader(string(Publisher("127.0.0.1:4711"))))
	dec.KnownFields(true)
	if err := dec.Decode(&p); err != nil {
		t.Fatal(err)
	}
	if len(p.Hosts) != 1 || p.Hosts[0] != Host || p.Freshness != "immutable" || p.Origin.Address != "127.0.0.1:4711" {
		t.Errorf("got %+v", p)
	}
}
