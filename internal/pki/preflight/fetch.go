package preflight

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// target is where a client would go.
type target struct {
	host string
	port string
	name *Name // nil: from Options.Connect
}

func (t target) String() string { return net.JoinHostPort(t.host, t.port) }

// sight is what somebody who connects sees.
type sight struct {
	cert   *x509.Certificate // of the other side itself
	remote netip.Addr        // where it was seen; a proxy's if through one
	state  tls.ConnectionState
}

// errProxy is for a proxy that does not let through.
var errProxy = errors.New("the proxy does not let it through")

// fetch connects as a client does, by the proxy if there is one, and returns
// the certificate that is shown, whatever it is. A nil config is a client's who
// goes to that target.
func fetch(ctx context.Context, resolver *net.Resolver, t target, proxy *url.URL, config *tls.Config) (sight, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	dialer := &net.Dialer{Resolver: resolver}
	var conn net.Conn
	var err error
	if proxy == nil {
		conn, err = dialer.DialContext(ctx, "tcp", t.String())
	} else {
		conn, err = throughProxy(ctx, dialer, proxy, t)
	}
	if err != nil {
		return sight{}, err
	}
	defer conn.Close()
	var s sight
	if a, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		s.remote = a.Addr().Unmap()
	}
	if config == nil { // any TLS will do to see it
		config = &tls.Config{MinVersion: tls.VersionTLS10, ServerName: strings.TrimSuffix(t.host, ".")}
	}
	config = config.Clone()
	// What is shown is what is asked for: whether to trust it comes later, and
	// what goes wrong after it was shown is no matter.
	config.InsecureSkipVerify = true
	config.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error {
		var err error
		s.cert, err = x509.ParseCertificate(raw[0])
		return err
	}
	client := tls.Client(conn, config)
	err = client.HandshakeContext(ctx)
	if s.cert == nil && err == nil {
		err = errors.New("no certificate was shown")
	}
	if err != nil && s.cert == nil {
		return s, fmt.Errorf("handshake: %w", err)
	}
	s.state = client.ConnectionState()
	return s, nil
}

// throughProxy opens a tunnel (RFC 9110 section 9.3.6).
func throughProxy(ctx context.Context, dialer *net.Dialer, proxy *url.URL, t target) (net.Conn, error) {
	number := proxy.Port()
	switch {
	case proxy.Scheme != "http" && proxy.Scheme != "https":
		return nil, fmt.Errorf("%w: it is one for %q, and only http and https can be tried here", errProxy, proxy.Scheme)
	case number == "" && proxy.Scheme == "https":
		number = "443"
	case number == "":
		number = "80"
	}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(proxy.Hostname(), number))
	if err != nil {
		return nil, fmt.Errorf("reaching the proxy: %w", err)
	}
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(fetchTime)
	}
	if err := conn.SetDeadline(end); err != nil {
		_ = conn.Close() // nothing more to say
		return nil, err
	}
	tunnel := conn
	if proxy.Scheme == "https" { // verified: it may get a password
		tunnel = tls.Client(conn, &tls.Config{ServerName: proxy.Hostname()})
	}
	if tunnel, err = connect(tunnel, proxy, t); err != nil {
		_ = conn.Close() // nothing more to say
		return nil, err
	}
	return tunnel, nil
}

func connect(conn net.Conn, proxy *url.URL, t target) (net.Conn, error) {
	request := "CONNECT " + t.String() + " HTTP/1.1\r\nHost: " + t.String() + "\r\n"
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)) + "\r\n"
	}
	if _, err := conn.Write([]byte(request + "\r\n")); err != nil {
		return nil, fmt.Errorf("asking the proxy: %w", err)
	}
	r := bufio.NewReader(conn)
	answer, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, fmt.Errorf("%w: no answer in HTTP: %w", errProxy, err)
	}
	// Not closed: for CONNECT the body is the tunnel.
	if answer.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%w: it answers %s", errProxy, answer.Status)
	}
	return &buffered{Conn: conn, r: r}, nil
}

// buffered is a connection of which something was read already.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func sha256Of(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func sha1Of(c *x509.Certificate) string {
	sum := sha1.Sum(c.Raw)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}
