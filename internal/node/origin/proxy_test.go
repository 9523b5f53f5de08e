package origin

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// testProxy is a proxy that tunnels CONNECT and forwards absolute-form
// requests to the addresses it was given.
type testProxy struct {
	url *url.URL

	mu    sync.Mutex
	heads [][]string // guarded by mu
}

func (p *testProxy) seen() [][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([][]string(nil), p.heads...)
}

func newProxy(t testing.TB, conf *tls.Config, to map[string]string) *testProxy {
	p := &testProxy{}
	address := rawServer(t, conf, func(client net.Conn, br *bufio.Reader) {
		head, err := readHead(br)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.heads = append(p.heads, head)
		p.mu.Unlock()
		method, rest, _ := strings.Cut(head[0], " ")
		target, _, _ := strings.Cut(rest, " ")
		u, _ := url.Parse(target)
		if method == "CONNECT" {
			u = &url.URL{Host: target}
		}
		address, ok := to[u.Host]
		if !ok {
			fmt.Fprintf(client, "HTTP/1.1 403 Forbidden by "+secret+"\r\nContent-Length: 0\r\n\r\n")
			return
		}
		server, err := net.Dial("tcp", address)
		if err != nil {
			fmt.Fprintf(client, "HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n")
			return
		}
		defer server.Close()
		if method == "CONNECT" {
			io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
		} else {
			fmt.Fprintf(server, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", method, u.RequestURI(), u.Host)
		}
		go func() {
			io.Copy(server, br)
			server.(*net.TCPConn).CloseWrite()
		}()
		io.Copy(client, server)
	})
	p.url = &url.URL{Scheme: "http", Host: address}
	if conf != nil {
		p.url.Scheme = "https"
	}
	return p
}

func hasLine(head []string, line string) bool {
	for _, l := range head {
		if l == line {
			return true
		}
	}
	return false
}

func TestThroughProxy(t *testing.T) {
	t.Parallel()
	const auth = "Proxy-Authorization: Basic dXNlcjpodW50ZXIyLVNFQ1JFVA=="
	plain, plainHeads := answering(t, nil, answerOK)
	secure, secureHeads := answering(t, serverTLS(t, anHour(), "files.example.com"), answerOK)
	to := map[string]string{
		"files.example.com": plain, "files.example.com:443": secure,
		"10.1.2.3:8443": secure, "10.1.2.3:8080": plain, "files.example.com:8080": plain,
	}
	for _, scheme := range []string{"http", "https"} {
		var conf *tls.Config
		if scheme == "https" {
			conf = serverTLS(t, anHour(), "127.0.0.1")
		}
		for _, tt := range []struct {
			name, line string
			ep         Endpoint
			heads      <-chan []string
		}{
			{"http", "GET http://files.example.com/f HTTP/1.1", Endpoint{Scheme: "http", Host: "files.example.com"}, plainHeads},
			{"https", "CONNECT files.example.com:443 HTTP/1.1", Endpoint{Scheme: "https", Host: "files.example.com", Roots: authority().pool}, secureHeads},
			{"https at an address", "CONNECT 10.1.2.3:8443 HTTP/1.1", Endpoint{Scheme: "https", Host: "files.example.com", Address: "10.1.2.3:8443", Roots: authority().pool}, secureHeads},
			{"http at an address", "CONNECT 10.1.2.3:8080 HTTP/1.1", Endpoint{Scheme: "http", Host: "files.example.com", Address: "10.1.2.3:8080"}, plainHeads},
			{"http at a port", "GET http://files.example.com:8080/f HTTP/1.1", Endpoint{Scheme: "http", Host: "files.example.com", Address: "files.example.com:8080"}, plainHeads},
		} {
			p := newProxy(t, conf, to)
			p.url.User = url.UserPassword("user", password)
			c := newClient(t, Config{Proxy: p.url, ProxyRoots: authority().pool})
			resp, body := get(t, c, &Request{Endpoint: tt.ep, Target: "/f"})
			if resp.Status != 200 || body != "ok" {
				t.Errorf("%s through %s: %d %q", tt.name, scheme, resp.Status, body)
			}
			head := p.seen()[0]
			if head[0] != tt.line || !hasLine(head, auth) {
				t.Errorf("%s through %s: the proxy was asked %q", tt.name, scheme, head)
			}
			for _, l := range <-tt.heads {
				if strings.HasPrefix(l, "Proxy-") {
					t.Errorf("%s through %s: the origin saw %q", tt.name, scheme, l)
				}
			}
		}
	}
}

// Behind a proxy that opens TLS origins are trusted by the proxy's root; without
// the proxy, and where a publisher names its own roots, they are not.
func TestProxiesThatOpenTLS(t *testing.T) {
	t.Parallel()
	// What the proxy shows for the origin is signed by its own root.
	secure, heads := answering(t, serverTLS(t, anHour(), "files.example.com"), answerOK)
	p := newProxy(t, nil, map[string]string{"files.example.com:443": secure})
	ep := Endpoint{Scheme: "https", Host: "files.example.com"}
	resp, body := get(t, newClient(t, Config{Proxy: p.url, ProxyRoots: authority().pool}), &Request{Endpoint: ep, Target: "/f"})
	if resp.Status != 200 || body != "ok" {
		t.Errorf("through the proxy: %d %q", resp.Status, body)
	}
	<-heads
	refused := func(name string, c *Client, ep Endpoint) {
		t.Helper()
		_, err := c.Do(t.Context(), &Request{Endpoint: ep, Target: "/f"})
		var e *Error
		if !errors.As(err, &e) || e.Kind != KindTLS {
			t.Errorf("%s: got %v, want an error of TLS", name, err)
		}
	}
	refused("without its root", newClient(t, Config{Proxy: p.url}), ep)
	refused("directly", newClient(t, Config{ProxyRoots: authority().pool, Proxy: p.url, NoProxy: func(string) bool { return true }}), Endpoint{Scheme: "https", Host: "files.example.com", Address: secure})
	refused("a publisher's own roots", newClient(t, Config{Proxy: p.url, ProxyRoots: authority().pool}), Endpoint{Scheme: "https", Host: "files.example.com", Roots: x509.NewCertPool()})
}

func TestProxyIsNotUsed(t *testing.T) {
	t.Parallel()
	address, _ := answering(t, nil, answerOK)
	p := newProxy(t, nil, nil)
	_, port, _ := net.SplitHostPort(address)
	for name, tt := range map[string]struct {
		address string
		noProxy func(string) bool
	}{
		"a loopback address": {address, nil},
		"localhost":          {"localhost:" + port, nil},
		"an exception":       {"intranet.example:" + port, func(h string) bool { return h == "intranet.example:"+port }},
	} {
		c := newClient(t, Config{Proxy: p.url, NoProxy: tt.noProxy, Lookup: lookup("127.0.0.1")})
		get(t, c, &Request{Endpoint: plainEndpoint(tt.address), Target: "/"})
		if heads := p.seen(); len(heads) > 0 {
			t.Errorf("%s: the proxy was asked %q", name, heads)
		}
	}
}

func TestProxyFailures(t *testing.T) {
	t.Parallel()
	answers := func(text string) *url.URL {
		address, _ := answering(t, nil, text)
		return &url.URL{Scheme: "http", Host: address, User: url.UserPassword("user", password)}
	}
	silent := &url.URL{Scheme: "http", Host: rawServer(t, nil, func(_ net.Conn, br *bufio.Reader) { io.Copy(io.Discard, br) })}
	secure, _ := answering(t, serverTLS(t, anHour(), "127.0.0.1"), answerOK)
	const denied = "HTTP/1.1 407 Proxy Authentication Required " + secret + "\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
	for _, tt := range []struct {
		name   string
		proxy  *url.URL
		schems string
		status int
	}{
		{"credentials refused", answers(denied), "http https", 502},
		{"forbidden", answers("HTTP/1.1 403 " + secret + "\r\nContent-Length: 0\r\n\r\n"), "https", 502},
		{"no answer behind it", answers("HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n"), "https", 504},
		{"speaks out of turn", answers("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), "https", 502},
		{"not a proxy", answers("SSH-2.0\r\n\r\n"), "https", 502},
		{"closes", answers(""), "https", 502},
		{"silent", silent, "https", 504},
		{"nobody there", &url.URL{Scheme: "http", Host: closedPort(t), User: url.UserPassword("user", password)}, "http https", 502},
		{"not trusted", &url.URL{Scheme: "https", Host: secure, User: url.UserPassword("user", password)}, "http https", 502},
		{"socks", &url.URL{Scheme: "socks5", Host: secure, User: url.UserPassword("user", password)}, "http https", 502},
	} {
		for scheme := range strings.FieldsSeq(tt.schems) {
			t.Run(tt.name+" "+scheme, func(t *testing.T) {
				t.Parallel()
				c := newClient(t, Config{Proxy: tt.proxy, ConnectTimeout: shortIf(tt.status == 504)})
				_, err := c.Do(t.Context(), &Request{Endpoint: Endpoint{Scheme: scheme, Host: "files.example.com"}, Target: "/?" + secret})
				e := wantError(t, err, tt.status, KindProxy)
				if !strings.Contains(e.Error(), tt.proxy.Host) {
					t.Errorf("%q does not name the proxy", e)
				}
			})
		}
	}
}

func TestProxyIsThisNode(t *testing.T) {
	t.Parallel()
	p := newProxy(t, nil, nil)
	c := newClient(t, Config{Proxy: p.url, Own: ownPort(p.url.Host)})
	_, err := c.Do(t.Context(), &Request{Endpoint: Endpoint{Scheme: "http", Host: "files.example.com"}, Target: "/"})
	wantError(t, err, 508, KindForbidden)
}

func TestProxyFromEnvironment(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		env             string
		proxy, err      string
		direct, through string
	}{
		{"", "", "", "", ""},
		{"HTTPS_PROXY=http://u:p@proxy:3128", "http://u:p@proxy:3128", "", "localhost 127.0.0.1:8080 [::1]:80", "a.example 10.1.2.3:80"},
		{"HTTP_PROXY=proxy:3128", "http://proxy:3128", "", "", "a.example"},
		{"https_proxy=https://secure:443 HTTP_PROXY=http://other", "https://secure:443", "", "", "a.example"},
		{"HTTPS_PROXY=http://proxy NO_PROXY=10.0.0.0/8,.corp.example,exact.example", "http://proxy", "",
			"10.1.2.3:8443 a.corp.example:443 exact.example", "11.1.2.3 corp.example.net"},
		{"HTTPS_PROXY=socks5://u:" + password + "@proxy", "", `HTTPS_PROXY: scheme "socks5"; expected http or https`, "", ""},
		{"https_proxy=http://u:" + password + "@pro%zxy", "", "https_proxy: not a URL; expected http://[user:password@]host:port", "", ""},
		{"HTTP_PROXY=http://", "", "HTTP_PROXY: no host; expected http://[user:password@]host:port", "", ""},
	} {
		env := make(map[string]string)
		for kv := range strings.FieldsSeq(tt.env) {
			k, v, _ := strings.Cut(kv, "=")
			env[k] = v
		}
		u, no, err := ProxyFromEnvironment(func(k string) string { return env[k] })
		if err != nil || tt.err != "" {
			if fmt.Sprint(err) != tt.err {
				t.Errorf("%s: got error %v, want %s", tt.env, err, tt.err)
			}
			continue
		}
		if got := fmt.Sprint(u); u != nil && got != tt.proxy || u == nil && tt.proxy != "" {
			t.Errorf("%s: got %s, want %s", tt.env, got, tt.proxy)
		}
		for h := range strings.FieldsSeq(tt.direct) {
			if !no(h) {
				t.Errorf("%s: %s goes through the proxy", tt.env, h)
			}
		}
		for h := range strings.FieldsSeq(tt.through) {
			if no(h) {
				t.Errorf("%s: %s does not go through the proxy", tt.env, h)
			}
		}
	}
}
