package httpsrv_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"larder/internal/httpsrv"
)

func TestGuardHost(t *testing.T) {
	t.Parallel()
	served := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	lan := &net.TCPAddr{IP: net.ParseIP("192.0.2.7"), Port: 5001}
	lan6 := &net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 5001, Zone: "eth0"}
	tests := []struct {
		host  string
		local net.Addr
		ok    bool
	}{
		{"localhost", lan, true},
		{"LocalHost.:5001", lan, true},
		{"127.0.0.1:5001", lan, true},
		{"127.8.9.10", lan, true},
		{"[::1]:5001", lan, true},
		{"[::1]", lan, true},
		{"[::ffff:127.0.0.1]:80", lan, true},
		{"192.0.2.7:9", lan, true},
		{"[fe80::1]:5001", lan6, true},
		{"node1.example", lan, true},
		{"NODE1.example.:5001", lan, true},
		{"", lan, false},
		{"192.0.2.8:5001", lan, false},
		{"rebound.example:5001", lan, false},
		{"localhost.rebound.example", lan, false},
		{"127.0.0.1.rebound.example:5001", lan, false},
		{"node1.example.rebound.example", lan, false},
		{"0.0.0.0:5001", lan, false},
		{"2130706433", lan, false}, // 127.0.0.1 to some resolvers
		{"rebound.example", nil, false},
		{"anything", &net.UnixAddr{Name: "/run/larder.sock", Net: "unix"}, true},
	}
	h := httpsrv.GuardHost(served, "node1.example:5001", "")
	for _, tt := range tests {
		t.Run(tt.host, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = tt.host
			if tt.local != nil {
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, tt.local))
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			want := http.StatusForbidden
			if tt.ok {
				want = http.StatusNoContent
			}
			if w.Code != want {
				t.Errorf("Host %q at %v: got %d, want %d", tt.host, tt.local, w.Code, want)
			}
			if !tt.ok && !strings.Contains(w.Body.String(), "use localhost") {
				t.Errorf("refusal does not say what to do: %q", w.Body)
			}
		})
	}
}

func TestGuardOrigin(t *testing.T) {
	t.Parallel()
	h, err := httpsrv.GuardOrigin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}), "https://portal.example")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, method string
		header       http.Header
		want         int
	}{
		{"a program", "POST", nil, 204},
		{"the same site", "POST", http.Header{"Sec-Fetch-Site": {"same-origin"}}, 204},
		{"another site reads", "GET", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 204},
		{"another site writes", "POST", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		{"another origin writes", "DELETE", http.Header{"Origin": {"https://evil.example"}}, 403},
		{"a trusted origin writes", "POST", http.Header{"Origin": {"https://portal.example"}, "Sec-Fetch-Site": {"cross-site"}}, 204},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(tt.method, "http://localhost:5001/purge", nil)
			for k, v := range tt.header {
				r.Header[k] = v
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("got %d, want %d", w.Code, tt.want)
			}
		})
	}
	if _, err := httpsrv.GuardOrigin(nil, "portal"); err == nil {
		t.Error("a name that is no origin was accepted")
	}
}
