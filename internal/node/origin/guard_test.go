package origin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

func lookup(addrs ...string) func(context.Context, string) ([]netip.Addr, error) {
	var ips []netip.Addr
	for _, a := range addrs {
		ips = append(ips, netip.MustParseAddr(a))
	}
	return func(context.Context, string) ([]netip.Addr, error) { return ips, nil }
}

func ownPort(address string) func(netip.AddrPort) bool {
	own := netip.MustParseAddrPort(address)
	return func(a netip.AddrPort) bool { return a == own }
}

func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestPublic(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"1.1.1.1": true, "13.107.4.50": true, "100.63.255.255": true, "100.128.0.1": true, "172.15.0.1": true, "172.32.0.1": true,
		"192.167.255.255": true, "198.17.255.255": true, "198.20.0.1": true, "223.255.255.254": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "100.64.0.1": false, "100.127.255.255": false, "127.0.0.1": false,
		"127.255.255.254": false, "169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false, "192.0.0.8": false,
		"192.0.2.1": false, "192.88.99.1": false, "192.168.1.1": false, "198.18.0.1": false, "198.19.255.255": false,
		"198.51.100.1": false, "203.0.113.9": false, "224.0.0.1": false, "239.255.255.250": false, "240.0.0.1": false, "255.255.255.255": false,

		"2606:4700::1111": true, "2a01:111::1": true, "2620:1ec::1": true,
		"::": false, "::1": false, "fe80::1": false, "fe80::1%eth0": false, "2606:4700::1111%eth0": false, "fc00::1": false, "fd12:3456::1": false,
		"fec0::1": false, "ff02::1": false, "100::1": false, "2001:db8::1": false, "3fff::1": false, "2001:2::1": false, "2001:10::1": false,
		"5f00::1": false, "4000::1": false, "::8.8.8.8": false,

		"::ffff:8.8.8.8": true, "::ffff:127.0.0.1": false, "::ffff:10.1.2.3": false, "::ffff:169.254.169.254": false,
		"64:ff9b::8.8.8.8": true, "64:ff9b::127.0.0.1": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b:1::8.8.8.8": false,
		"2002:0808:0808::1": true, "2002:7f00:1::1": false, "2002:c0a8:101::1": false,
		"2001:0:0808:0808::f7f7:f7f7": true,  // Teredo: server 8.8.8.8, client 8.8.8.8
		"2001:0:0808:0808::80ff:fffe": false, // client 127.0.0.1
		"2001:0:7f00:1::f7f7:f7f7":    false, // server 127.0.0.1
		"2606:4700::5efe:8.8.8.8":     true, "2606:4700::5efe:10.0.0.1": false, "2606:4700::200:5efe:192.168.0.1": false,
	} {
		if got := public(netip.MustParseAddr(text)); got != want {
			t.Errorf("public(%s) = %v", text, got)
		}
	}
	if public(netip.Addr{}) {
		t.Error("no address at all is public")
	}
}

func TestHostsThatAreNotAsked(t *testing.T) {
	t.Parallel()
	p := newProxy(t, nil, nil)
	for _, c := range []*Client{newClient(t, Config{}), newClient(t, Config{Proxy: p.url})} {
		for _, host := range []string{
			"127.0.0.1", "8.8.8.8", "[::1]", "::1", "[2606:4700::1111]:80", "8.8.8.8:443", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0x", "1.2.3.4.",
			"localhost", "LOCALHOST.", "intranet", "a.localhost", "files.example.com:8080", "files.example.com:22",
		} {
			_, err := c.Do(t.Context(), &Request{Endpoint: Endpoint{Scheme: "http", Host: host}, Target: "/"})
			wantError(t, err, 502, KindForbidden)
		}
		for _, ep := range []Endpoint{
			{Scheme: "http", Host: ""}, {Scheme: "http", Host: "."}, {Scheme: "http", Host: "a..example"}, {Scheme: "http", Host: "a b.example"},
			{Scheme: "http", Host: "a.example/x"}, {Scheme: "http", Host: "u@a.example"}, {Scheme: "http", Host: "a.example:"}, {Scheme: "http", Host: "a.example:0"},
			{Scheme: "http", Host: "a.example:99999"}, {Scheme: "http", Host: "a.example\r\nX: " + "y"}, {Scheme: "http", Host: "münchen.example"},
			{Scheme: "http", Host: strings.Repeat("a.", 130) + "example"}, {Scheme: "ftp", Host: "a.example"}, {Scheme: "", Host: "a.example"},
			{Scheme: "http", Host: "a.example", Address: "10.0.0.1"}, {Scheme: "http", Host: "a.example", Address: ":80"},
			{Scheme: "http", Host: "a.example", Address: "10.0.0.1:0"}, {Scheme: "http", Host: "a.example", Address: "10.0.0.1:http"},
			{Scheme: "http", Host: "a.example\n", Address: "10.0.0.1:80"},
		} {
			_, err := c.Do(t.Context(), &Request{Endpoint: ep, Target: "/"})
			wantError(t, err, 502, KindProtocol)
		}
		if hosts := c.Hosts(); len(hosts) > 0 {
			t.Errorf("hosts never asked are listed: %+v", hosts)
		}
	}
	if heads := p.seen(); len(heads) > 0 {
		t.Errorf("the proxy was asked %q", heads)
	}
}

// The name is looked up for each connection, and what counts is the address
// that is dialled: a name that was public a moment ago gives nothing.
func TestRebinding(t *testing.T) {
	t.Parallel()
	answers := [][]string{{"1.1.1.1"}, {"127.0.0.1"}, {"::ffff:127.0.0.1"}, {"64:ff9b::7f00:1"}, {"10.0.0.1", "fd00::1"}}
	var asked int
	c := newClient(t, Config{Lookup: func(context.Context, string) ([]netip.Addr, error) {
		asked++
		return lookup(answers[asked-1]...)(context.Background(), "")
	}})
	var (
		mu     sync.Mutex
		passed []string
	)
	c.beforeDial = func(_ context.Context, a netip.AddrPort) error {
		mu.Lock()
		defer mu.Unlock()
		passed = append(passed, a.String())
		return errors.New("stays at home")
	}
	req := &Request{Endpoint: Endpoint{Scheme: "http", Host: "rebind.example"}, Target: "/"}
	_, err := c.Do(t.Context(), req)
	wantError(t, err, 502, KindConnect)
	for range answers[1:] {
		_, err = c.Do(t.Context(), req)
		wantError(t, err, 502, KindForbidden)
	}
	if want := []string{"1.1.1.1:80"}; !slices.Equal(passed, want) {
		t.Errorf("the guard let pass %v, want %v", passed, want)
	}
}

// Of several addresses the private ones are left out, wherever they stand.
func TestMixedAddresses(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{Lookup: lookup("127.0.0.1", "1.1.1.1", "::1", "2606:4700::1111", "10.0.0.1")})
	var (
		mu     sync.Mutex
		passed []string
	)
	c.beforeDial = func(_ context.Context, a netip.AddrPort) error {
		mu.Lock()
		defer mu.Unlock()
		passed = append(passed, a.Addr().String())
		return errors.New("stays at home")
	}
	_, err := c.Do(t.Context(), &Request{Endpoint: Endpoint{Scheme: "https", Host: "mixed.example"}, Target: "/"})
	if e := wantError(t, err, 502, KindConnect); strings.Contains(e.Error(), "127.0.0.1") {
		t.Errorf("the error is about an address that is not to be dialled: %v", e)
	}
	if slices.Contains(passed, "127.0.0.1") || slices.Contains(passed, "::1") || slices.Contains(passed, "10.0.0.1") {
		t.Errorf("the guard let pass %v", passed)
	}
	if !slices.Contains(passed, "1.1.1.1") {
		t.Errorf("the public address was not tried: %v", passed)
	}
}

func TestOwnAddress(t *testing.T) {
	t.Parallel()
	address, heads := answering(t, nil, answerOK)
	c := newClient(t, Config{Own: ownPort(address), Lookup: lookup("::ffff:127.0.0.1")})
	_, port, _ := net.SplitHostPort(address)
	for _, a := range []string{address, "[::ffff:127.0.0.1]:" + port, "name.example:" + port} {
		_, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(a), Target: "/"})
		wantError(t, err, http.StatusLoopDetected, KindForbidden)
	}
	if len(heads) > 0 {
		t.Error("the node asked itself")
	}
}

func TestProxyIsAskedForNamesOnly(t *testing.T) {
	t.Parallel()
	p := newProxy(t, nil, nil)
	c := newClient(t, Config{Proxy: p.url})
	_, err := c.Do(t.Context(), &Request{Endpoint: Endpoint{Scheme: "https", Host: "unknown.example"}, Target: "/?" + url.QueryEscape(secret)})
	wantError(t, err, 502, KindProxy)
	if got := p.seen()[0][0]; got != "CONNECT unknown.example:443 HTTP/1.1" {
		t.Errorf("got %q", got)
	}
}
