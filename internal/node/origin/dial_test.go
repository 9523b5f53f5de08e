package origin

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNextAddressAfterRefusal(t *testing.T) {
	t.Parallel()
	address, _ := answering(t, nil, answerOK)
	_, port, _ := net.SplitHostPort(address)
	c := newClient(t, Config{Lookup: lookup("::1", "127.0.0.1")})
	if _, body := get(t, c, &Request{Endpoint: plainEndpoint("two.example:" + port), Target: "/"}); body != "ok" {
		t.Errorf("got %q", body)
	}
}

func TestNextAddressAfterSilence(t *testing.T) {
	t.Parallel()
	address, _ := answering(t, nil, answerOK)
	_, port, _ := net.SplitHostPort(address)
	c := newClient(t, Config{ConnectTimeout: 10 * time.Second, Lookup: lookup("127.0.0.99", "127.0.0.1")})
	c.beforeDial = func(ctx context.Context, a netip.AddrPort) error {
		if a.Addr() == netip.MustParseAddr("127.0.0.99") {
			<-ctx.Done() // packets get lost
			return ctx.Err()
		}
		return nil
	}
	start := time.Now()
	get(t, c, &Request{Endpoint: plainEndpoint("two.example:" + port), Target: "/"})
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

type fakeConn struct {
	net.Conn
	closed bool
}

func (c *fakeConn) Close() error { c.closed = true; return nil }

func TestRace(t *testing.T) {
	t.Parallel()
	addrs := []netip.AddrPort{
		netip.MustParseAddrPort("1.0.0.1:80"), netip.MustParseAddrPort("1.0.0.2:80"),
		netip.MustParseAddrPort("1.0.0.3:80"), netip.MustParseAddrPort("1.0.0.4:80"),
	}
	t.Run("head start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var (
				mu    sync.Mutex
				begun []time.Duration // guarded by mu
			)
			late := &fakeConn{}
			conn, errs := race(t.Context(), addrs, func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
				mu.Lock()
				begun = append(begun, time.Since(start))
				mu.Unlock()
				switch a {
				case addrs[0]:
					<-ctx.Done()
					return late, nil // connected while being canceled
				case addrs[1]:
					return nil, errors.New("refused")
				case addrs[2]:
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return &fakeConn{}, nil
			})
			if conn == nil || conn == net.Conn(late) || errs != nil {
				t.Fatalf("got %v %v", conn, errs)
			}
			// The third begins when the second is refused.
			want := []time.Duration{0, attemptDelay, attemptDelay, 2 * attemptDelay}
			if d := cmp.Diff(want, begun); d != "" {
				t.Errorf("attempts began (-want +got)\n%s", d)
			}
			if !late.closed {
				t.Error("a late connection was left open")
			}
		})
	})
	t.Run("all fail", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			start := time.Now()
			conn, errs := race(ctx, addrs, func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
				if a == addrs[0] {
					return nil, errors.New("refused")
				}
				<-ctx.Done()
				return nil, ctx.Err()
			})
			if conn != nil || len(errs) != len(addrs) || time.Since(start) != 3*time.Second {
				t.Errorf("got %v %v after %v", conn, errs, time.Since(start))
			}
			wantError(t, worst(ctx, "h", errs), 504, KindConnect)
		})
	})
}

func TestAddressesTakeTurns(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{Lookup: lookup("2606::1", "2606::2", "::ffff:1.0.0.1", "1.0.0.1", "2606::3", "1.0.0.2", "2606::1")})
	addrs, err := c.resolve(t.Context(), "h.example", "h.example:80")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range addrs {
		got = append(got, a.Addr().String())
	}
	if want := []string{"2606::1", "1.0.0.1", "2606::2", "1.0.0.2", "2606::3"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestResolverFailures(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err    error
		status int
	}{
		"no such host": {&net.DNSError{Err: "no such host", Name: "h", IsNotFound: true}, 502},
		"SERVFAIL":     {&net.DNSError{Err: "server misbehaving", Name: "h", IsTemporary: true}, 504},
		"timeout":      {&net.DNSError{Err: "i/o timeout", Name: "h", IsTimeout: true}, 504},
		"other":        {errors.New("odd"), 502},
		"no address":   {nil, 502},
	} {
		c := newClient(t, Config{Lookup: func(context.Context, string) ([]netip.Addr, error) { return nil, tt.err }})
		_, err := c.Do(t.Context(), &Request{Endpoint: Endpoint{Scheme: "http", Host: "h.example"}, Target: "/?" + secret})
		wantError(t, err, tt.status, KindResolve)
		if h := c.Hosts(); len(h) != 1 || h[0].Host != "h.example" || h[0].Failures != 1 || h[0].LastErr != err.Error() {
			t.Errorf("%s: hosts %+v", name, h)
		}
	}
	c := newClient(t, Config{ConnectTimeout: 50 * time.Millisecond, Lookup: func(ctx context.Context, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	_, err := c.Do(t.Context(), &Request{Endpoint: Endpoint{Scheme: "http", Host: "h.example"}, Target: "/"})
	wantError(t, err, 504, KindResolve)
}

func TestConnectFailures(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{})
	start := time.Now()
	_, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(closedPort(t)), Target: "/?" + secret})
	wantError(t, err, 502, KindRefused)
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("refused after %v", d)
	}

	c = newClient(t, Config{ConnectTimeout: 50 * time.Millisecond})
	c.beforeDial = func(ctx context.Context, _ netip.AddrPort) error { <-ctx.Done(); return ctx.Err() }
	_, err = c.Do(t.Context(), &Request{Endpoint: plainEndpoint("127.0.0.1:1"), Target: "/"})
	wantError(t, err, 504, KindConnect)
	if n := metric(t, c, "larder_origin_requests_total", "outcome", KindConnect); n != 1 {
		t.Errorf("%v requests counted", n)
	}
}

func TestServersThatSayNothing(t *testing.T) {
	t.Parallel()
	conf := serverTLS(t, anHour(), "files.example.com")
	swallow := func(_ net.Conn, br *bufio.Reader) { io.Copy(io.Discard, br) }
	for name, tt := range map[string]struct {
		serve  func(net.Conn, *bufio.Reader)
		status int
		kind   string
	}{
		"silent": {swallow, 504, KindTimeout},
		"closes": {func(_ net.Conn, br *bufio.Reader) { readHead(br) }, 502, KindConnect},
		"half a head": {func(c net.Conn, br *bufio.Reader) {
			readHead(br)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
		}, 502, KindConnect},
		"drips": {func(c net.Conn, br *bufio.Reader) {
			readHead(br)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nX-A: ")
			for _, err := io.WriteString(c, "a"); err == nil; _, err = io.WriteString(c, "a") {
				<-time.After(10 * time.Millisecond)
			}
		}, 504, KindTimeout},
	} {
		for _, conf := range []*tls.Config{nil, conf} {
			scheme, ep := "http", plainEndpoint
			if conf != nil {
				scheme, ep = "https", tlsEndpoint
			}
			t.Run(scheme+" "+name, func(t *testing.T) {
				t.Parallel()
				address := rawServer(t, conf, tt.serve)
				c := newClient(t, Config{SilenceTimeout: shortIf(tt.status == 504)})
				start := time.Now()
				_, err := c.Do(t.Context(), &Request{Endpoint: ep(address), Target: "/x?" + secret})
				wantError(t, err, tt.status, tt.kind)
				if d := time.Since(start); d > 3*time.Second {
					t.Errorf("took %v", d)
				}
				eventually(t, "the connection is closed", func() bool { return metric(t, c, "larder_origin_open_connections") == 0 })
			})
		}
	}
}

func TestTLSFailures(t *testing.T) {
	t.Parallel()
	good, _ := answering(t, serverTLS(t, anHour(), "files.example.com"), answerOK)
	other, _ := answering(t, serverTLS(t, anHour(), "other.example"), answerOK)
	expired, _ := answering(t, serverTLS(t, time.Now().Add(-time.Hour), "files.example.com"), answerOK)
	oldConf := serverTLS(t, anHour(), "files.example.com")
	oldConf.MinVersion, oldConf.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	old, _ := answering(t, oldConf, answerOK)
	plain, _ := answering(t, nil, answerOK)
	talks := rawServer(t, nil, func(c net.Conn, _ *bufio.Reader) { io.WriteString(c, "220 mail.example ESMTP\r\n") })
	closes := rawServer(t, nil, func(net.Conn, *bufio.Reader) {})
	silent := rawServer(t, nil, func(_ net.Conn, br *bufio.Reader) { io.Copy(io.Discard, br) })
	system := tlsEndpoint(good)
	system.Roots = nil
	for name, tt := range map[string]struct {
		ep     Endpoint
		status int
		text   string
	}{
		"another name":      {tlsEndpoint(other), 502, "not valid for this host"},
		"unknown authority": {system, 502, "unknown authority"},
		"expired":           {tlsEndpoint(expired), 502, "expired"},
		"TLS 1.1":           {tlsEndpoint(old), 502, "version"},
		"speaks first":      {tlsEndpoint(talks), 502, "does not speak TLS"},
		"closes":            {tlsEndpoint(closes), 502, ""},
		"silent":            {tlsEndpoint(silent), 504, "no answer in time"},
		"plain":             {tlsEndpoint(plain), 504, ""}, // it waits for the end of a head
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, Config{ConnectTimeout: shortIf(tt.status == 504)})
			_, err := c.Do(t.Context(), &Request{Endpoint: tt.ep, Target: "/?" + secret})
			e := wantError(t, err, tt.status, KindTLS)
			if !strings.Contains(e.Error(), "files.example.com") || !strings.Contains(e.Error(), tt.text) {
				t.Errorf("the text should name the host and say %q: %v", tt.text, e)
			}
		})
	}
}

func TestTLSNames(t *testing.T) {
	t.Parallel()
	names := make(chan string, 1)
	protos := make(chan []string, 1)
	conf := serverTLS(t, anHour(), "files.example.com")
	conf.NextProtos = []string{"h2", "http/1.1"}
	conf.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- h.ServerName
		protos <- h.SupportedProtos
		return nil, nil
	}
	address, heads := answering(t, conf, answerOK)
	for host, line := range map[string]string{"Files.Example.COM.": "Host: files.example.com", "files.example.com:443": "Host: files.example.com:443"} {
		c := newClient(t, Config{})
		ep := tlsEndpoint(address)
		ep.Host = host
		get(t, c, &Request{Endpoint: ep, Target: "/"})
		if n := <-names; n != "files.example.com" {
			t.Errorf("%s: server name %q", host, n)
		}
		if p := <-protos; !slices.Equal(p, []string{"http/1.1"}) {
			t.Errorf("%s: protocols %q", host, p)
		}
		if head := <-heads; head[1] != line {
			t.Errorf("%s: got %q", host, head[1])
		}
	}
	ip, _ := answering(t, serverTLS(t, anHour(), "127.0.0.1"), answerOK)
	get(t, newClient(t, Config{}), &Request{Endpoint: Endpoint{Scheme: "https", Address: ip, Roots: authority().pool}, Target: "/"})
}
