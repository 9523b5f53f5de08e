package acme

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// Challenge is what a CA wants to see before it believes that Identifier is
// ours.
type Challenge struct {
	Type             string // HTTP01, TLSALPN01 or DNS01
	Identifier       string // a name, of a wildcard without "*.", or an address
	Token            string
	KeyAuthorization string // what HTTP01 answers with

	DNSName  string // DNS01: "_acme-challenge.…"
	DNSValue string // DNS01: the text of the TXT record there

	Cert *tls.Certificate // TLSALPN01: what to show (RFC 8737, section 3)
}

func (c Challenge) String() string { return c.Type + " for " + c.Identifier }

// ServerName is what a CA asks for in the handshake of TLSALPN01: the name,
// or for an address its name in the reverse tree (RFC 8738, section 6).
func (c Challenge) ServerName() string {
	addr, err := netip.ParseAddr(c.Identifier)
	if err != nil {
		return strings.ToLower(c.Identifier)
	}
	var b strings.Builder
	if addr.Is4() {
		raw := addr.As4()
		for _, octet := range slices.Backward(raw[:]) {
			fmt.Fprintf(&b, "%d.", octet)
		}
		return b.String() + "in-addr.arpa"
	}
	raw := addr.As16()
	for _, octet := range slices.Backward(raw[:]) {
		fmt.Fprintf(&b, "%x.%x.", octet&0xf, octet>>4)
	}
	return b.String() + "ip6.arpa"
}

// Solver shows a CA what it wants to see. Present returns when it is there;
// CleanUp takes it away again, also if Present did not succeed.
type Solver interface {
	Present(ctx context.Context, c Challenge) error
	CleanUp(ctx context.Context, c Challenge) error
}

// Waiter is a Solver whose work takes time to be seen. All challenges of an
// order are presented before Wait is called for each.
type Waiter interface {
	Wait(ctx context.Context, c Challenge) error
}

// challenge returns the words of this package for those of the library.
func challenge(from acme.Challenge) (Challenge, error) {
	c := Challenge{
		Type: from.Type, Identifier: from.Identifier.Value, Token: from.Token, KeyAuthorization: from.KeyAuthorization,
	}
	switch c.Type {
	case DNS01:
		c.DNSName, c.DNSValue = from.DNS01TXTRecordName(), from.DNS01KeyAuthorization()
	case TLSALPN01:
		var err error
		if c.Cert, err = acmez.TLSALPN01ChallengeCert(from); err != nil {
			return c, fmt.Errorf("making a certificate for %s: %w", c, err)
		}
	}
	return c, nil
}

// Memory is a Solver for a process that serves port 80 or 443 itself: its
// servers ask Memory. The zero Memory is ready.
type Memory struct {
	mu      sync.Mutex
	http    map[string]string    // guarded by mu; key authorizations by token
	alpn    map[string]shownCert // guarded by mu; by server name
	changed chan struct{}        // guarded by mu; closed at the next change

	pending atomic.Int32 // how many challenges there are; read on the way of every request
}

type shownCert struct {
	token string
	cert  *tls.Certificate
}

// Present takes a challenge in.
func (m *Memory) Present(_ context.Context, c Challenge) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case c.Type == HTTP01:
		if m.http == nil {
			m.http = make(map[string]string)
		}
		m.http[c.Token] = c.KeyAuthorization
	case c.Type == TLSALPN01 && c.Cert != nil:
		if m.alpn == nil {
			m.alpn = make(map[string]shownCert)
		}
		m.alpn[c.ServerName()] = shownCert{c.Token, c.Cert}
	default:
		return fmt.Errorf("%s cannot be answered by a server of HTTP or TLS", c)
	}
	m.wake()
	return nil
}

// CleanUp forgets a challenge.
func (m *Memory) CleanUp(_ context.Context, c Challenge) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch c.Type {
	case HTTP01:
		delete(m.http, c.Token)
	case TLSALPN01:
		// A newer challenge for the name stays.
		if m.alpn[c.ServerName()].token == c.Token {
			delete(m.alpn, c.ServerName())
		}
	}
	m.wake()
	return nil
}

// wake is called with mu held.
func (m *Memory) wake() {
	m.pending.Store(int32(len(m.http) + len(m.alpn)))
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// HTTP returns what to answer at /.well-known/acme-challenge/TOKEN, as plain
// text and nothing else (RFC 8555, section 8.3).
func (m *Memory) HTTP(token string) (keyAuth string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keyAuth, ok = m.http[token]
	return keyAuth, ok
}

// ALPN returns the certificate for a handshake that asks for acme-tls/1.
func (m *Memory) ALPN(serverName string) (*tls.Certificate, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	shown, ok := m.alpn[strings.ToLower(strings.TrimSuffix(serverName, "."))]
	return shown.cert, ok
}

// ALPNProtocol is what a CA offers in the handshake of TLSALPN01 (RFC 8737,
// section 6.2).
const ALPNProtocol = acmez.ACMETLS1Protocol

// ConfigForClient is for a tls.Config's GetConfigForClient: a handshake that
// asks for acme-tls/1 gets the challenge's certificate and that protocol, or
// an error; every other one gets nil, which leaves the server's own settings
// in place. No request may be read from a connection that speaks acme-tls/1
// (RFC 8737, section 3).
func (m *Memory) ConfigForClient(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if !slices.Contains(hello.SupportedProtos, ALPNProtocol) {
		return nil, nil
	}
	cert, ok := m.ALPN(hello.ServerName)
	if !ok {
		return nil, fmt.Errorf("no ACME challenge for %q is pending", hello.ServerName)
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{ALPNProtocol},
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil },
	}, nil
}

// Pending reports whether a challenge waits for an answer.
func (m *Memory) Pending() bool { return m.pending.Load() > 0 }

// PendingALPN reports whether one waits for a handshake: time to open a
// listener for TLS, if there is none.
func (m *Memory) PendingALPN() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.alpn) > 0
}

// Changed returns a channel that is closed when a challenge comes or goes
// next. Take it before asking Pending, so that nothing is missed in between.
func (m *Memory) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}
