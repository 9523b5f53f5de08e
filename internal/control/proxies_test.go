package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"

	"larder/internal/lardertest"
)

// Behind a load balancer everybody is who the balancer says, and nobody else may
// say so.
func TestBalancersSayWhoComes(t *testing.T) {
	t.Parallel()
	const client = "203.0.113.9"
	for name, tt := range map[string]struct {
		trusted string
		version byte // 0: no header
		want    string
	}{
		"version 2":              {"127.0.0.0/8", 2, client},
		"version 1":              {"127.0.0.0/8", 1, client},
		"without a header":       {"127.0.0.0/8", 0, "127.0.0.1"},
		"from elsewhere":         {"10.0.0.0/8", 2, ""},
		"no proxy is trusted":    {"", 2, ""},
		"none, and no header":    {"", 0, "127.0.0.1"},
		"elsewhere, no header":   {"10.0.0.0/8", 0, "127.0.0.1"},
		"elsewhere, version one": {"10.0.0.0/8", 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t)
			if tt.trusted != "" {
				c.cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(tt.trusted)}
			}
			addr := running(t, c)
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if tt.version != 0 {
				h := proxyproto.HeaderProxyFromAddrs(tt.version, &net.TCPAddr{IP: net.ParseIP(client), Port: 4711}, conn.LocalAddr())
				if _, err := h.WriteTo(conn); err != nil {
					t.Fatal(err)
				}
			}
			tc := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"})
			body := "grant_type=client_credentials&client_id=x&client_secret=wrong&scope=x"
			r, err := http.NewRequest("POST", "https://localhost/"+c.subscription+"/oauth2/v2.0/token", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if err := r.Write(tc); err != nil {
				if tt.want == "" {
					return
				}
				t.Fatal(err)
			}
			answer, _ := io.ReadAll(io.LimitReader(tc, 12))
			if !bytes.HasPrefix(answer, []byte("HTTP/1.1 ")) {
				t.Fatalf("got %q", answer)
			}
			if tt.want == "" {
				t.Fatalf("a header from anybody was taken: %q", answer)
			}
			var counted string
			lardertest.Eventually(t, "the failure is counted", func() bool {
				return c.d.QueryRowContext(t.Context(), `SELECT subject FROM login_failures`).Scan(&counted) == nil
			})
			if counted != "from "+tt.want {
				t.Errorf("counted %s, want from %s", counted, tt.want)
			}
		})
	}
}

// running runs a control plane until the test ends, and returns its address.
func running(t *testing.T, c *Control) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	addr, err := c.WaitServing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return addr
}
