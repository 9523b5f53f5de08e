package front

import (
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"larder/internal/lardertest"
)

// Who has too many connections gets no more, and others go on; what was closed
// makes room.
func TestConnectionsOfOneAddress(t *testing.T) {
	t.Parallel()
	s, addr := start(t, Config{MaxConns: 5, MaxConnsPerAddress: 3, Handler: func(x *Exchange) { x.Text(200, "ok") }}, nil)
	const get = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
	from := func(ip string) *client {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		nc, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil && runtime.GOOS == "darwin" {
			t.Skip("this system has one loopback address: ", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		c := dialed(t, nc)
		io.WriteString(c, get) // a connection that is closed may be so already
		return c
	}
	served := func(ip string) *client {
		t.Helper()
		c := from(ip)
		c.want("GET", 200, "ok\n")
		return c
	}
	turned := func(ip, bound string) {
		t.Helper()
		before := testutil.ToFloat64(s.m.turned.WithLabelValues(bound))
		if _, _, err := from(ip).answer("GET"); err == nil {
			t.Errorf("another one of %s was served", ip)
		}
		if n := testutil.ToFloat64(s.m.turned.WithLabelValues(bound)); n != before+1 {
			t.Errorf("another one of %s: %g were turned away by the bound of %s, want %g", ip, n, bound, before+1)
		}
	}
	var all []*client
	for range 3 {
		all = append(all, served("127.0.0.1"))
	}
	turned("127.0.0.1", "address")
	served("127.0.0.2")
	served("127.0.0.3")
	turned("127.0.0.4", "all")
	all[0].Close()
	lardertest.Eventually(t, "its place is free", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.conns) == 4 && s.from[source(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})] == 2
	})
	served("127.0.0.1")
	for _, c := range all[1:] { // those that were there before never noticed
		c.say(get)
		c.want("GET", 200, "ok\n")
	}
}

func TestAddressesOfANetwork(t *testing.T) {
	t.Parallel()
	of := func(ip string) string { return source(&net.TCPAddr{IP: net.ParseIP(ip)}).String() }
	if of("2001:db8::1") != of("2001:db8::ffff") || of("2001:db8::1") == of("2001:db8:0:1::1") || of("::ffff:10.0.0.1") != of("10.0.0.1") || of("10.0.0.1") == of("10.0.0.2") {
		t.Errorf("%s %s %s", of("2001:db8::1"), of("2001:db8:0:1::1"), of("::ffff:10.0.0.1"))
	}
	if source(&net.UnixAddr{}).IsValid() {
		t.Error("what is no TCP address has one")
	}
}
