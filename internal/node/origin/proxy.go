package origin

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
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

// proxy is the proxy that origins are reached through. It does not change.
type proxy struct {
	url     *url.URL // nil: none, everything is reached directly
	roots   *x509.CertPool
	noProxy func(host string) bool
}

// SetProxy has origins reached through another proxy, as the fields of [Config]
// say; nil for none. Transfers under way end as they began.
func (c *Client) SetProxy(u *url.URL, roots *x509.CertPool, noProxy func(host string) bool) {
	if noProxy == nil {
		noProxy = func(string) bool { return false }
	}
	c.proxy.Store(&proxy{u, roots, noProxy})
	c.mu.Lock()
	var gone []*origin
	for _, o := range c.origins.values() {
		if o.users == 0 {
			gone = append(gone, o)
		}
	}
	c.mu.Unlock()
	for _, o := range gone {
		o.closeIdle() // they are not found any more and leave with time
	}
	if u == nil {
		c.log.Info("origins are reached directly")
	} else {
		c.log.Info("proxy set", "proxy", u.Host)
	}
}

// routeTo says how an origin is reached. A plain one whose address is not the
// host that it is asked for goes through a tunnel, because an absolute-form
// target cannot name both, and a proxy would put its own idea into Host.
func (via *proxy) routeTo(p place) route {
	if via.url == nil {
		return direct
	}
	host, _, err := net.SplitHostPort(p.dest)
	if err != nil {
		return direct
	}
	if ip, err := netip.ParseAddr(host); p.named && (err == nil && ip.Unmap().IsLoopback() || host == "localhost") {
		return direct // the proxy's loopback is not ours
	}
	if via.noProxy(p.dest) {
		return direct
	}
	if p.scheme == "http" && (!p.named || strings.EqualFold(host, p.name)) {
		return forward
	}
	return tunnel
}

// host names the proxy in texts: never with its password.
func (via *proxy) host() string { return via.url.Host }

// auth is the value of Proxy-Authorization, "" if the proxy has no
// userinfo (RFC 7617).
func (via *proxy) auth() string {
	u := via.url.User
	if u == nil {
		return ""
	}
	password, _ := u.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password))
}

// dialProxy opens a connection to the proxy.
func (c *Client) dialProxy(ctx context.Context, via *proxy) (net.Conn, error) {
	u := via.url
	port := u.Port()
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fail(http.StatusBadGateway, KindProxy, nil, "proxy %s: scheme %s is neither http nor https", via.host(), printable(u.Scheme))
	case port == "" && u.Scheme == "https":
		port = "443"
	case port == "":
		port = "80"
	}
	// The administrator named the proxy, so it may be anywhere but here.
	raw, err := c.connect(ctx, "proxy "+via.host(), net.JoinHostPort(u.Hostname(), port), true)
	if err != nil {
		return nil, asProxyError(err)
	}
	if u.Scheme == "http" {
		return raw, nil
	}
	t := tls.Client(raw, &tls.Config{
		RootCAs: via.roots, ServerName: u.Hostname(), MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	})
	if err := t.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, asProxyError(tlsError("proxy "+via.host(), err))
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
func (via *proxy) openTunnel(ctx context.Context, conn net.Conn, host, dest string) error {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return via.tunnelError(host, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	var b strings.Builder
	fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: larder\r\n", dest, dest)
	if a := via.auth(); a != "" {
		fmt.Fprintf(&b, "Proxy-Authorization: %s\r\n", a)
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return via.tunnelError(host, err)
	}
	br := bufio.NewReader(io.LimitReader(conn, maxHead))
	for {
		resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
		if err != nil {
			return via.tunnelError(host, err)
		}
		switch code := resp.StatusCode; {
		case code >= 100 && code < 200 && code != http.StatusSwitchingProtocols:
			continue
		case code >= 200 && code < 300:
			if br.Buffered() > 0 {
				// Nobody may speak before the client's part of TLS.
				return fail(http.StatusBadGateway, KindProxy, nil, "proxy %s sent more than an answer to CONNECT %s", via.host(), dest)
			}
			if !stop() {
				return via.tunnelError(host, context.DeadlineExceeded)
			}
			return conn.SetDeadline(time.Time{})
		default:
			return via.refusedByProxy(code, host)
		}
	}
}

func (via *proxy) tunnelError(host string, err error) *Error {
	if isTimeout(err) {
		return fail(http.StatusGatewayTimeout, KindProxy, err, "proxy %s: no answer in time for %s", via.host(), host)
	}
	return fail(http.StatusBadGateway, KindProxy, err, "proxy %s broke off on the way to %s", via.host(), host)
}

// refusedByProxy explains a proxy's own answer.
func (via *proxy) refusedByProxy(code int, host string) *Error {
	switch {
	case code == http.StatusProxyAuthRequired && via.url.User == nil:
		return fail(http.StatusBadGateway, KindProxy, nil, "proxy %s wants a user name and a password", via.host())
	case code == http.StatusProxyAuthRequired:
		return fail(http.StatusBadGateway, KindProxy, nil, "proxy %s does not accept the user name and password", via.host())
	case code == http.StatusGatewayTimeout:
		return fail(http.StatusGatewayTimeout, KindProxy, nil, "proxy %s got no answer from %s", via.host(), host)
	}
	return fail(http.StatusBadGateway, KindProxy, nil, "proxy %s answered %d for %s", via.host(), code, host)
}

// ProxyFor is the proxy that a host is reached through at this moment, nil for
// none.
func (c *Client) ProxyFor(host string) *url.URL {
	p := c.proxy.Load()
	if p.url == nil || p.noProxy(host) {
		return nil
	}
	return p.url
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
