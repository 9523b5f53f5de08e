package node

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/node/config"
	"larder/internal/node/origin"
	"larder/internal/strictyaml"
)

// The proxy of the configuration is used, with its user and password, and the
// answer is kept like any other.
func TestUpstreamProxy(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		user, password, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
		if r.RequestURI != "http://proxied.example/a?P1=x%2Fy" || user != "me" || password != "pass:word" {
			t.Errorf("the proxy was asked for %s by %q %q", r.RequestURI, user, password)
		}
		w.Header().Set("ETag", `"1"`)
		io.WriteString(w, "through the proxy")
	}))
	t.Cleanup(proxy.Close)
	n := start(t, nil, map[string]string{"p.yaml": "name: p\nhosts: [proxied.example]\nfreshness: immutable\n"}, func(c *config.Config) {
		if err := c.Upstream.Proxy.UnmarshalText([]byte(strings.Replace(proxy.URL, "http://", "http://me:pass%3Aword@", 1))); err != nil {
			t.Fatal(err)
		}
	})
	for range 2 {
		if a := n.get("http://proxied.example/a?P1=x%2Fy"); a.status != 200 || a.body != "through the proxy" {
			t.Errorf("got %d %q", a.status, a.body)
		}
	}
	if got := asked.Load(); got != 1 {
		t.Errorf("the proxy was asked %d times, want once", got)
	}
}

// The limit and its schedule reach the origin client as they are written.
func TestLimitOfTheConfiguration(t *testing.T) {
	t.Parallel()
	cfg, err := config.Parse("node.yaml", []byte(`
drives: [{path: /srv/x, size: 1GB}]
upstream:
  limit:
    rate: 200Mbit/s
    schedule: [{days: mon-fri, from: "08:00", to: "18:00", rate: 50Mbit/s}]
`), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	l := limit(cfg.Upstream.Limit)
	for _, tt := range []struct {
		at   time.Time
		want strictyaml.Rate
	}{
		{time.Date(2026, 11, 20, 7, 59, 0, 0, time.Local), 25_000_000}, // a Friday
		{time.Date(2026, 11, 20, 8, 0, 0, 0, time.Local), 6_250_000},
		{time.Date(2026, 11, 20, 18, 0, 0, 0, time.Local), 25_000_000},
		{time.Date(2026, 11, 21, 12, 0, 0, 0, time.Local), 25_000_000},
	} {
		if got := l.At(tt.at); got != int64(tt.want) {
			t.Errorf("at %s: %d bytes/s, want %d", tt.at.Format("Mon 15:04"), got, tt.want)
		}
	}
	if (origin.Limit{}).At(time.Now()) != limit(config.Limit{}).At(time.Now()) {
		t.Error("no limit in the file is a limit upstream")
	}
}
