package origin

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// route is the way to an origin.
type route int

const (
	direct  route = iota
	forward       // the proxy gets absolute-form requests (RFC 9112 section 3.2.2)
	tunnel        // the proxy gets CONNECT (RFC 9110 section 9.3.6)
)

// routeTo says how an origin is reached. A plain one whose address is not the
// host that it is asked for goes through a tunnel, because an absolute-form
// target cannot name both, and a proxy would put its own idea into Host.
func (c *Client) routeTo(p place) route {
	if c.cfg.Proxy == nil {
		return direct
	}
	host, _, err := net.SplitHostPort(p.dest)
	if err != nil {
		return direct
	}
	if ip, err := netip.ParseAddr(host); p.named && (err == nil && ip.Unmap().IsLoopback() || host == "localhost") {
		return direct // the proxy's loopback is not ours
	}
	if c.cfg.NoProxy(p.dest) {
		return direct
	}
	if p.scheme == "http" && (!p.named || strings.EqualFold(host, p.name)) {
		return forward
	}
	return tunnel
}

// proxyHost names the proxy in texts: never with its password.
func (c *Client) proxyHost() string { return c.cfg.Proxy.Host }

// proxyAuth is the value of Proxy-Authorization, "" if the proxy has no
// userinfo (RFC 7617).
func (c *Client) proxyAuth() string {
	u := c.cfg.Proxy.User
	if u == nil {
		return ""
	}
	password, _ := u.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password))
}

// dialProxy opens a connection to the proxy.
func (c *Client) dialProxy(ctx context.Context) (net.Conn, error) {
	u := c.cfg.Proxy
	port := u.Port()
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fail(http.StatusBadGateway, KindProxy, nil, "proxy %s: scheme %s is neither http nor https", c.proxyHost(), printable(u.Scheme))
	case port == "" && u.Scheme == "https":
		port = "443"
	case port == "":
		port = "80"
	}
	// The administrator named the proxy, so it may be anywhere but here.
	raw, err := c.connect(ctx, "proxy "+c.proxyHost(), net.JoinHostPort(u.Hostname(), port), true)
	if err != nil {
		return nil, asProxyError(err)
	}
	if u.Scheme == "http" {
		return raw, nil
	}
	t := tls.Client(raw, &tls.Config{
		RootCAs: c.cfg.ProxyRoots, ServerName: u.Hostname(), MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	})
	if err := t.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, asProxyError(tlsError("proxy "+c.proxyHost(), err))
	}
	return t, nil
}

// asProxyError says that it was the proxy that could not be reached, unless
// the proxy is this node.
func asProxyError(err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Kind == KindForbidden {
		return err
	}
	return &Error{Status: e.Status, Kind: KindProxy, Err: e.Err}
}

// openTunnel asks the proxy on conn for a way to dest.
func (c *Client) openTunnel(ctx context.Context, conn net.Conn, host, dest string) error {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return c.tunnelError(host, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	var b strings.Builder
	fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: larder\r\n", dest, dest)
	if a := c.proxyAuth(); a != "" {
		fmt.Fprintf(&b, "Proxy-Authorization: %s\r\n", a)
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return c.tunnelError(host, err)
	}
	br := bufio.NewReader(io.LimitReader(conn, maxHead))
	for {
		resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
		if err != nil {
			return c.tunnelError(host, err)
		}
		switch code := resp.StatusCode; {
		case code >= 100 && code < 200 && code != http.StatusSwitchingProtocols:
			continue
		case code >= 200 && code < 300:
			if br.Buffered() > 0 {
				// Nobody may speak before the client's part of TLS.
				return fail(http.StatusBadGateway, KindProxy, nil, "proxy %s sent more than an answer to CONNECT %s", c.proxyHost(), dest)
			}
			if !stop() {
				return c.tunnelError(host, context.DeadlineExceeded)
			}
			return conn.SetDeadline(time.Time{})
		default:
			return c.refusedByProxy(code, host)
		}
	}
}

func (c *Client) tunnelError(host string, err error) *Error {
	if isTimeout(err) {
		return fail(http.StatusGatewayTimeout, KindProxy, err, "proxy %s: no answer in time for %s", c.proxyHost(), host)
	}
	return fail(http.StatusBadGateway, KindProxy, err, "proxy %s broke off on the way to %s", c.proxyHost(), host)
}

// refusedByProxy explains a proxy's own answer.
func (c *Client) refusedByProxy(code int, host string) *Error {
	switch {
	case code == http.StatusProxyAuthRequired && c.cfg.Proxy.User == nil:
		return fail(http.StatusBadGateway, KindProxy, nil, "proxy %s wants a user name and a password", c.proxyHost())
	case code == http.StatusProxyAuthRequired:
		return fail(http.StatusBadGateway, KindProxy, nil, "proxy %s does not accept the user name and password", c.proxyHost())
	case code == http.StatusGatewayTimeout:
		return fail(http.StatusGatewayTimeout, KindProxy, nil, "proxy %s got no answer from %s", c.proxyHost(), host)
	}
	return fail(http.StatusBadGateway, KindProxy, nil, "proxy %s answered %d for %s", c.proxyHost(), code, host)
}

// ProxyFromEnvironment reads HTTPS_PROXY, else HTTP_PROXY, and NO_PROXY, upper
// or lower case, with getenv. The result fits [Config]; a nil proxy means that
// none is set. Errors name the variable but not its value, which may hold a
// password.
func ProxyFromEnvironment(getenv func(string) string) (proxy *url.URL, noProxy func(host string) bool, err error) {
	first := func(names ...string) (name, value string) {
		for _, n := range names {
			if v := strings.TrimSpace(getenv(n)); v != "" {
				return n, v
			}
		}
		return "", ""
	}
	name, value := first("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
	if value == "" {
		return nil, nil, nil
	}
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("%s: not a URL; expected http://[user:password@]host:port", name)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, nil, fmt.Errorf("%s: scheme %q; expected http or https", name, u.Scheme)
	case u.Hostname() == "":
		return nil, nil, fmt.Errorf("%s: no host; expected http://[user:password@]host:port", name)
	}
	_, no := first("NO_PROXY", "no_proxy")
	decide := (&httpproxy.Config{HTTPSProxy: "http://proxy.invalid", NoProxy: no}).ProxyFunc()
	return u, func(host string) bool {
		via, err := decide(&url.URL{Scheme: "https", Host: host})
		return err == nil && via == nil
	}, nil
}
