// Package livecert keeps the certificate that running TLS shows to clients, and replaces it when its files change.
package livecert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Cert is the certificate and key in use, or that there are none. Connections
// read it without waiting; a reload builds the next pair, swaps it in and
// leaves the old one to the connections that have it. A pair that is not good
// is never swapped in.
type Cert struct {
	dir     string
	log     *slog.Logger
	metrics *metrics

	cur atomic.Pointer[state] // never nil after Open

	mu      sync.Mutex
	changed chan struct{} // guarded by mu; closed and replaced at every change of the pair

	reloading sync.Mutex // held by the one who reloads; may be held while mu is taken, never the other way round
	seen      [32]byte   // guarded by reloading; hash of what was tried last
	gone      bool       // guarded by reloading; the last look found no active.yaml
	ended     bool       // guarded by reloading; that the pair in use is not valid was logged
}

// state is an immutable snapshot.
type state struct {
	pair *pair // nil: no certificate
	err  string
}

// Status is what there is to know about the certificate in use. All but Err is
// empty when there is none.
type Status struct {
	File      string    `json:"file"` // where the pair was read from
	KeyFile   string    `json:"keyFile"`
	Subject   string    `json:"subject"` // RFC 2253, as in "CN=cache.example.com,O=Example"
	SANs      []string  `json:"sans"`    // DNS names, then addresses
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	SHA256    string    `json:"sha256"`  // of the certificate, lower-case hexadecimal
	SHA1      string    `json:"sha1"`    // as Windows shows it: upper-case hexadecimal
	KeyType   string    `json:"keyType"` // such as "ECDSA P-256", "RSA 2048", "Ed25519"
	Loaded    time.Time `json:"loaded"`
	Stapled   bool      `json:"stapled"` // an OCSP answer goes with it
	// Err is why what lies in the directory is not in use, or what is wrong
	// with what is: one or more lines for a person, "" if all is well.
	Err string `json:"error,omitempty"`
}

// Open reads the active pair of the TLS directory dir. The file active.yaml in
// it names the pair:
//
//	certificate: certs/node.crt    # PEM, the node's own certificate first
//	key: keys/node.key             # PEM, not encrypted
//	disabled: true                 # only where HTTPS is switched off
//
// Relative paths start at dir and stay below it; absolute ones may lead
// anywhere. No active.yaml means no certificate, which is no error, nor is a
// directory that does not exist yet. Neither is a pair that cannot be used:
// the node has HTTP to serve. Status says what is wrong, Check returns it.
//
// The error is for a dir that is something else than a directory. A nil log
// discards.
func Open(dir string, log *slog.Logger) (*Cert, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("tls directory: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("tls directory: found a file at %s, expected a directory", dir)
	}
	c := &Cert{dir: dir, log: log, metrics: newMetrics(), changed: make(chan struct{})}
	c.cur.Store(&state{})
	c.reload()
	return c, nil
}

// ErrNoneActive says that there is no certificate in use, or that HTTPS is
// switched off.
var ErrNoneActive = errors.New("no certificate is active")

// Check reads the active pair of dir as Open would and returns what it found
// or what is wrong with it. Nothing active is ErrNoneActive.
func Check(dir string) (Status, error) {
	l := look(dir)
	if l.absent || l.off {
		return Status{}, fmt.Errorf("%w in %s", ErrNoneActive, dir)
	}
	if l.err != nil {
		return Status{}, l.err
	}
	s := l.pair.status
	if s.Err = l.pair.validity(time.Now()); s.Err != "" {
		return s, errors.New(s.Err)
	}
	return s, nil
}

// Reload looks at the files now, as Run does by itself. The error is why what
// lies there is not in use; the old pair stays in use then. That active.yaml is
// gone is believed when it is seen a second time.
func (c *Cert) Reload() error {
	c.reload()
	if s := c.cur.Load(); s.err != "" {
		return errors.New(s.err)
	}
	return nil
}

// reload looks at the files and swaps the pair if they hold another good one.
// It is true if it wants to look again soon: active.yaml has just vanished,
// and a program that writes it as others do, remove first, then write, is not
// to switch HTTPS off for the time between.
func (c *Cert) reload() (again bool) {
	c.reloading.Lock()
	defer c.reloading.Unlock()
	l := look(c.dir)
	old := c.cur.Load()
	// A directory that is gone says nothing: a mount may be missing. An
	// active.yaml that is gone says that HTTPS is to be off.
	switch absent := l.absent && (l.err == nil || old.pair == nil); {
	case absent && old.pair != nil && !c.gone:
		c.gone = true
		return true
	case absent || l.off: // what says that it is off is believed at once
		c.gone, c.seen, c.ended = absent, l.hash, false
		if old.pair == nil {
			c.cur.Store(&state{})
			return false
		}
		c.swap(&state{})
		c.log.Warn("certificate switched off", "dir", c.dir)
		return false
	}
	c.gone = false
	if l.hash == c.seen {
		c.noticeEnd(old.pair)
		return false
	}
	c.seen = l.hash
	if l.err != nil {
		c.metrics.failures.Inc()
		c.log.Error("certificate not loaded", "dir", c.dir, "keeping", old.pair != nil, "err", l.err)
		c.cur.Store(&state{pair: old.pair, err: l.err.Error()})
		return false
	}
	for _, w := range l.pair.warnings {
		c.log.Warn("certificate loaded with a warning", "warning", w)
	}
	if old.pair != nil && old.pair.sameAs(l.pair) {
		l.pair.status.Loaded = old.pair.status.Loaded
		l.pair.staple(old.pair.tls.OCSPStaple)
		c.cur.Store(&state{pair: l.pair}) // nothing that TLS would show: a path, or back to what it was
		if old.err != "" {
			c.log.Info("certificate as before", "file", l.pair.status.File)
		}
		return false
	}
	c.ended = false
	c.swap(&state{pair: l.pair})
	s := &l.pair.status
	c.log.Info("certificate loaded", "file", s.File, "subject", s.Subject, "names", s.SANs, "not_after", s.NotAfter, "sha256", s.SHA256)
	c.noticeEnd(l.pair)
	return false
}

// noticeEnd logs, once, that the certificate in use is no longer valid, or not
// yet.
func (c *Cert) noticeEnd(p *pair) {
	if p == nil {
		return
	}
	problem := p.validity(time.Now())
	if problem != "" && !c.ended {
		c.log.Error("certificate in use is not valid", "problem", problem)
	}
	c.ended = problem != ""
}

// swap puts s in use and tells those who wait for a change.
func (c *Cert) swap(s *state) {
	c.cur.Store(s)
	c.metrics.show(s.pair)
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

// Has says whether there is a certificate to serve with.
func (c *Cert) Has() bool { return c.cur.Load().pair != nil }

// Chain is the certificate in use and those that go with it, leaf first; nil
// without one. It is not to be changed.
func (c *Cert) Chain() []*x509.Certificate {
	if p := c.cur.Load().pair; p != nil {
		return p.chain
	}
	return nil
}

// Staple sets the OCSP answer that goes with the certificate leaf from now on
// (RFC 6066, section 8); nil takes it away. It reports whether leaf is in use.
func (c *Cert) Staple(leaf *x509.Certificate, answer []byte) bool {
	c.reloading.Lock() // the one who swaps
	defer c.reloading.Unlock()
	old := c.cur.Load()
	if old.pair == nil || !old.pair.chain[0].Equal(leaf) {
		return false
	}
	next := *old.pair
	same := *old.pair.tls
	next.tls = &same
	next.staple(answer)
	c.cur.Store(&state{pair: &next, err: old.err})
	return true
}

// Changed is closed when another certificate comes into use, the first one
// comes or the last one goes. Ask for it before looking at Has or Status:
// each change closes the channel that was current until then.
func (c *Cert) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Status is the state of things now.
func (c *Cert) Status() Status {
	s := c.cur.Load()
	if s.pair == nil {
		return Status{Err: s.err}
	}
	status := s.pair.status
	status.Err = s.err
	if problem := s.pair.validity(time.Now()); problem != "" {
		if status.Err != "" {
			status.Err += "\n"
		}
		status.Err += problem
	}
	return status
}

// errNone is what a handshake gets when there is no certificate.
var errNone = errors.New("no certificate is active")

// GetCertificate is for tls.Config. The certificate in use is for every
// client, whatever name it sends or none: clients reach a cache by names and
// addresses of their own.
func (c *Cert) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if p := c.cur.Load().pair; p != nil {
		return p.tls, nil
	}
	return nil, errNone
}

// acmeTLS is the protocol by which a certificate authority looks whether a name
// leads here (RFC 8737, section 3).
const acmeTLS = "acme-tls/1"

// CipherSuites are those of TLS 1.2 that nothing is known against: forward
// secrecy and authenticated encryption (RFC 9325, section 4.2). TLS 1.3 has no
// others.
func CipherSuites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// TLSConfig is the configuration of a listener for download clients. It
// follows the certificate by itself and need never be changed. Handshakes of
// RFC 8737 for which challenge has a certificate get that one; nil: none has.
//
// Only HTTP/1.1 is offered; see docs/design.md. Cipher suites of TLS 1.2 are
// those with forward secrecy and authenticated encryption. Their order and
// the suites of TLS 1.3 cannot be set: crypto/tls prefers AES-128-GCM in both,
// and ChaCha20-Poly1305 with clients that have no AES in hardware. Session
// tickets are on, with keys that crypto/tls rotates daily.
func (c *Cert) TLSConfig(challenge func(serverName string) (*tls.Certificate, bool)) *tls.Config {
	return &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if challenge == nil || !slices.Contains(hello.SupportedProtos, acmeTLS) {
				return nil, nil
			}
			answer, ok := challenge(hello.ServerName)
			if !ok {
				return nil, nil
			}
			return &tls.Config{
				GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return answer, nil },
				MinVersion:     tls.VersionTLS12,
				NextProtos:     []string{acmeTLS},
			}, nil
		},
		GetCertificate:              c.GetCertificate, // and Certificates stays empty: it would win for clients without SNI
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  []string{"http/1.1"},
		CipherSuites:                CipherSuites(),
		DynamicRecordSizingDisabled: true, // bulk: full records from the first byte
	}
}

// Register adds the package's metrics to r.
func (c *Cert) Register(r prometheus.Registerer) error {
	return errors.Join(r.Register(c.metrics.loaded), r.Register(c.metrics.failures))
}

type metrics struct {
	loaded   prometheus.Gauge
	failures prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		loaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "larder_livecert_loaded_timestamp_seconds",
			Help: "When the certificate in use was loaded, seconds since 1970; 0 without one.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_livecert_reload_failures_total",
			Help: "Files of a certificate or key that could not be used, counted once for each content.",
		}),
	}
}

func (m *metrics) show(p *pair) {
	if p == nil {
		m.loaded.Set(0)
		return
	}
	m.loaded.Set(float64(p.status.Loaded.Unix()))
}

// names is the SANs that download clients look at.
func names(dns []string, ips []net.IP) []string {
	all := append([]string(nil), dns...)
	for _, ip := range ips {
		all = append(all, ip.String())
	}
	return all
}
