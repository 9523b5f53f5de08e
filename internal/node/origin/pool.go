package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"time"
)

// maxOrigins bounds how many origins' connections are kept.
const maxOrigins = 256

// endpointKey tells origins apart: what they share a connection for.
type endpointKey struct {
	scheme, host, dest string
	named              bool
	roots              *x509.CertPool
	via                *proxy
}

// origin is one upstream server with its connections.
type origin struct {
	place
	client *Client
	via    *proxy
	route  route
	record *hostRecord
	tls    *tls.Config // nil for http
	slots  chan struct{}

	// keep reuses connections. once does not: a request that may not be sent
	// twice must not meet a connection that the server is just closing.
	keep, once *http.Transport

	users int // guarded by Client.mu; an origin in use is not retired
}

// use returns the origin of an endpoint, to be given back with done.
func (c *Client) use(p place, roots *x509.CertPool) *origin {
	via := c.proxy.Load()
	k := endpointKey{p.scheme, p.host, p.dest, p.named, roots, via}
	c.mu.Lock()
	o, ok := c.origins.get(k)
	if !ok {
		o = c.newOrigin(p, via, roots, c.hostLocked(p.name))
		c.origins.put(k, o)
	} else if _, ok := c.hosts.get(p.name); !ok {
		c.hosts.put(p.name, o.record)
		c.hosts.trim(nil)
	}
	o.users++
	gone := c.trimLocked()
	c.mu.Unlock()
	for _, g := range gone {
		g.closeIdle()
	}
	return o
}

func (o *origin) done() {
	o.client.mu.Lock()
	o.users--
	gone := o.client.trimLocked()
	o.client.mu.Unlock()
	for _, g := range gone {
		g.closeIdle()
	}
}

func (c *Client) trimLocked() []*origin {
	return c.origins.trim(func(o *origin) bool { return o.users > 0 })
}

func (c *Client) newOrigin(p place, via *proxy, roots *x509.CertPool, record *hostRecord) *origin {
	if roots == nil && via.routeTo(p) == tunnel {
		roots = via.roots // a proxy that opens TLS signs for its origins
	}
	o := &origin{
		place:  p,
		client: c,
		via:    via,
		route:  via.routeTo(p),
		record: record,
		slots:  make(chan struct{}, c.cfg.ConnsPerOrigin),
	}
	if p.scheme == "https" {
		o.tls = &tls.Config{
			RootCAs:            roots,
			ServerName:         p.name,
			MinVersion:         tls.VersionTLS12,
			NextProtos:         []string{"http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(4),
		}
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return o.dial(ctx) }
	o.keep = &http.Transport{
		DialContext:            dial,
		DialTLSContext:         dial,
		DisableCompression:     true,
		MaxConnsPerHost:        c.cfg.ConnsPerOrigin,
		MaxIdleConnsPerHost:    c.cfg.ConnsPerOrigin,
		IdleConnTimeout:        idleTimeout,
		ResponseHeaderTimeout:  c.cfg.SilenceTimeout,
		MaxResponseHeaderBytes: maxHead,
		ReadBufferSize:         16 << 10,
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
	o.once = o.keep.Clone()
	o.once.DisableKeepAlives = true
	return o
}

func (o *origin) closeIdle() {
	o.keep.CloseIdleConnections()
	o.once.CloseIdleConnections()
}

// enter waits for a free connection, at most the silence timeout.
func (o *origin) enter(ctx context.Context) error {
	select {
	case o.slots <- struct{}{}:
		return nil
	default:
	}
	patience := time.NewTimer(o.client.cfg.SilenceTimeout)
	defer patience.Stop()
	select {
	case o.slots <- struct{}{}:
		return nil
	case <-patience.C:
		return fail(http.StatusServiceUnavailable, KindLimit, nil, "%s: all %d connections were busy for %v",
			o.name, cap(o.slots), o.client.cfg.SilenceTimeout)
	case <-ctx.Done():
		return o.client.leftOr(ctx, o.name)
	}
}

func (o *origin) leave() { <-o.slots }

// note keeps an error for the host's status, unless it was the caller's.
func (o *origin) note(err error) {
	var e *Error
	if errors.As(err, &e) && e.Kind != KindCanceled {
		o.record.failed(e.Error())
	}
}
