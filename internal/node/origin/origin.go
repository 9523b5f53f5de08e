// Package origin asks publishers' upstream servers over HTTP/1.1, and only
// those servers that a catalogue may name.
//
// A [Client] sends a request target byte for byte as it was given, verifies
// TLS, follows redirects only where its caller allows, refuses to talk to
// private addresses unless an administrator named them, and shares one
// bandwidth limit among all transfers. Every failure is an [*Error] that says
// which answer a client of the node should get.
package origin

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of [Config].
const (
	DefaultConnectTimeout = 3 * time.Second
	DefaultSilenceTimeout = 10 * time.Second
	DefaultConnsPerOrigin = 64
)

// maxHead bounds the head of an answer, in bytes, interim answers included.
const maxHead = 64 << 10

// idleTimeout is how long a connection without a request is kept. Large
// delivery networks close theirs after one to five minutes.
const idleTimeout = 55 * time.Second

// Config says how a [Client] reaches its origins. The zero value works.
type Config struct {
	// Proxy is the HTTP proxy to go through, http:// or https://; its
	// userinfo becomes basic authentication. Nil: none.
	Proxy *url.URL
	// ProxyRoots verify an https:// proxy and, behind a proxy that opens TLS,
	// the origins that it shows in its own name. Nil: the system's roots.
	ProxyRoots *x509.CertPool
	// NoProxy says for which host, or "host:port", the proxy is not to be
	// used. Nil: none. Endpoints whose address is a loopback one never go
	// through the proxy, whatever it says.
	NoProxy func(host string) bool

	// ConnectTimeout bounds resolving, TCP, proxy and TLS together.
	// Default 3 s.
	ConnectTimeout time.Duration
	// SilenceTimeout bounds the wait for an answer's head, each wait for more
	// of its body, and the wait for a free connection. Default 10 s.
	SilenceTimeout time.Duration
	// ConnsPerOrigin is how many requests one origin is asked at a time.
	// Default 64.
	ConnsPerOrigin int
	// Limit is the bandwidth all transfers may use together.
	Limit Limit

	// NodeID is this node's name in Via: "larder-<NodeID>". Empty: random.
	NodeID string
	// Own says whether an address is one where this node itself listens.
	// Such an address is refused even if it was named. Nil: none.
	Own func(netip.AddrPort) bool
	// Lookup resolves a host name. Nil: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Now is the clock of the limit's schedule; its location is the local
	// time. Nil: time.Now.
	Now func() time.Time

	Log        *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: a private registry
}

// Client asks origins. It is safe for use by many goroutines.
type Client struct {
	cfg       Config
	log       *slog.Logger
	pseudonym string // "larder-<id>", as it stands in Via
	metrics   *metrics
	bucket    *bucket
	dialer    net.Dialer
	proxy     atomic.Pointer[proxy]

	ctx    context.Context // ends at Close; dials and transfers live under it
	cancel context.CancelFunc

	mu      sync.Mutex
	origins *recent[endpointKey, *origin] // guarded by mu
	hosts   *recent[string, *hostRecord]  // guarded by mu
	ranges  *recent[string, learntRanges] // guarded by mu

	// beforeDial is called with each address that passed the guard, just
	// before it is dialled. Only tests set it, to keep packets at home.
	beforeDial func(ctx context.Context, addr netip.AddrPort) error
}

// New returns a client that lives until Close.
func New(cfg Config) *Client {
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = DefaultConnectTimeout
	}
	if cfg.SilenceTimeout <= 0 {
		cfg.SilenceTimeout = DefaultSilenceTimeout
	}
	if cfg.ConnsPerOrigin <= 0 {
		cfg.ConnsPerOrigin = DefaultConnsPerOrigin
	}
	if cfg.Own == nil {
		cfg.Own = func(netip.AddrPort) bool { return false }
	}
	if cfg.NoProxy == nil {
		cfg.NoProxy = func(string) bool { return false }
	}
	if cfg.Lookup == nil {
		cfg.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	c := &Client{
		cfg:       cfg,
		log:       cfg.Log,
		pseudonym: pseudonym(cfg.NodeID),
		origins:   newRecent[endpointKey, *origin](maxOrigins),
		hosts:     newRecent[string, *hostRecord](maxHosts),
		ranges:    newRecent[string, learntRanges](maxRanges),
	}
	c.proxy.Store(&proxy{cfg.Proxy, cfg.ProxyRoots, cfg.NoProxy})
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.bucket = newBucket(cfg.Limit, cfg.Now)
	c.metrics = newMetrics(cfg.Registerer, c.bucket)
	c.dialer = net.Dialer{KeepAlive: 30 * time.Second}
	return c
}

// pseudonym makes the name that stands for this node in Via, a token as
// RFC 9110 section 7.6.3 wants it.
func pseudonym(id string) string {
	id = strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, id)
	if id == "" {
		var b [8]byte
		rand.Read(b[:]) // never fails
		id = hex.EncodeToString(b[:])
	}
	return "larder-" + id
}

// errClosed is why transfers end at Close.
var errClosed = errors.New("the origin client is closed")

// Close ends all transfers and closes all connections.
func (c *Client) Close() {
	c.cancel()
	c.mu.Lock()
	all := c.origins.values()
	c.mu.Unlock()
	for _, o := range all {
		o.closeIdle()
	}
}

// SetLimit replaces the bandwidth limit. Running transfers follow at once.
func (c *Client) SetLimit(l Limit) {
	c.bucket.set(l)
	c.log.Info("bandwidth limit set", "bytes_per_second", l.Rate, "windows", len(l.Windows))
}

// Endpoint is one upstream server.
type Endpoint struct {
	Scheme string // "http" or "https"
	// Host is sent as Host and, without its port, verified in TLS.
	Host string
	// Address is "host:port" to connect to in place of Host. An
	// administrator named it, so the guard against private addresses and
	// other ports is off. Empty: Host by DNS, default port.
	Address string
	Roots   *x509.CertPool // nil: the system's
}

// Request is one request to an endpoint.
type Request struct {
	Endpoint Endpoint
	Method   string // "" means GET
	// Target is the path and query exactly as they are to be sent.
	Target string
	// Header is sent without hop-by-hop and forwarding fields. Host and
	// Accept-Encoding are the client's own, a Via in it is continued.
	Header http.Header
	// Body is not read any more once Do returned an error or the response's
	// body was closed. ContentLength -1: not known.
	Body          io.Reader
	ContentLength int64
	// Follow says where a redirect of a GET or HEAD may lead: the endpoint
	// and the target to ask there. Nil: redirects are returned like any
	// other answer.
	Follow func(scheme, host, target string) (Endpoint, string, bool)
	// Interim is told of interim answers (102, 103 and the like), before Do
	// returns. Nil: nobody is.
	Interim func(status int, h http.Header)
}

// Response is the answer's head and its body to come.
type Response struct {
	Status        int // 200 to 599
	Header        http.Header
	ContentLength int64 // -1 unknown
	// Body is never nil and must be closed. Read to its end, the connection
	// is used again; closed before, it is cut. A body shorter than announced
	// ends with io.ErrUnexpectedEOF.
	Body     io.ReadCloser
	Endpoint Endpoint // who answered, after redirects

	trailer func() http.Header
}

// Trailer returns the fields that came after the body. It is empty before
// Body has returned io.EOF.
func (r *Response) Trailer() http.Header {
	if r.trailer == nil {
		return nil
	}
	return r.trailer()
}
