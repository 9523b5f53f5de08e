package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// maxAddrs bounds how many addresses of one name are tried.
const maxAddrs = 16

// attemptDelay is the head start of one address over the next (RFC 8305
// section 5).
const attemptDelay = 250 * time.Millisecond

// dial opens a connection to the origin, through the proxy if it is to be
// used, TLS included. All of it takes at most the connect timeout.
func (o *origin) dial(ctx context.Context) (net.Conn, error) {
	c := o.client
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()

	var (
		raw net.Conn
		err error
	)
	if o.route == direct {
		raw, err = c.connect(ctx, o.name, o.dest, o.named)
	} else {
		raw, err = c.dialProxy(ctx, o.via)
		if err == nil && o.route == tunnel {
			if err = o.via.openTunnel(ctx, raw, o.name, o.dest); err != nil {
				raw.Close()
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if o.scheme == "https" {
		t := tls.Client(raw, o.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, tlsError(o.name, err)
		}
		raw = t
	}
	c.metrics.opened.Inc()
	c.metrics.open.Inc()
	o.record.conns.Add(1)
	return &conn{Conn: raw, silence: c.cfg.SilenceTimeout, gone: func() {
		c.metrics.open.Dec()
		o.record.conns.Add(-1)
	}}, nil
}

// connect opens a TCP connection to dest, "host:port", on whichever of its
// addresses answers first. Texts name it host. The guard sees each address as
// it is dialled; named turns off all of it but the check for this node.
func (c *Client) connect(ctx context.Context, host, dest string, named bool) (net.Conn, error) {
	addrs, err := c.resolve(ctx, host, dest)
	if err != nil {
		return nil, err
	}
	d := c.dialer
	d.ControlContext = func(ctx context.Context, _, address string, _ syscall.RawConn) error {
		addr, err := netip.ParseAddrPort(address)
		if err != nil {
			return fail(http.StatusBadGateway, KindForbidden, err, "%s: address %s cannot be judged", host, printable(address))
		}
		if err := c.guard(host, addr, named); err != nil {
			return err
		}
		if c.beforeDial != nil {
			return c.beforeDial(ctx, addr)
		}
		return nil
	}
	conn, errs := race(ctx, addrs, func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", a.String())
	})
	if conn != nil {
		return conn, nil
	}
	return nil, worst(ctx, host, errs)
}

// worst picks from the errors of all addresses the one that says most: a
// server that was reached and failed says more than an address that was never
// to be dialled.
func worst(ctx context.Context, host string, errs []error) error {
	var forbidden *Error
	for _, err := range errs {
		e := dialError(host, err)
		if e.Kind != KindForbidden {
			if e.Status == http.StatusBadGateway && ctx.Err() != nil {
				continue // one of several; that time ran out is the news
			}
			return e
		}
		if forbidden == nil || e.Status == http.StatusLoopDetected {
			forbidden = e
		}
	}
	if forbidden != nil {
		return forbidden
	}
	return dialError(host, context.DeadlineExceeded)
}

// resolve returns the addresses of dest, "host:port", in the order in which
// they are to be tried: the resolver's, with the families taking turns.
func (c *Client) resolve(ctx context.Context, host, dest string) ([]netip.AddrPort, error) {
	name, portText, err := net.SplitHostPort(dest)
	if err != nil {
		return nil, fail(http.StatusBadGateway, KindProtocol, err, "address of %s is not host:port", host)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fail(http.StatusBadGateway, KindProtocol, err, "address of %s has no valid port", host)
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), uint16(port))}, nil
	}
	ips, err := c.cfg.Lookup(ctx, name)
	if err != nil {
		return nil, resolveError(ctx, name, err)
	}
	var first, second []netip.AddrPort
	seen := make(map[netip.Addr]bool)
	for _, ip := range ips {
		if ip = ip.Unmap(); !ip.IsValid() || seen[ip] {
			continue
		}
		seen[ip] = true
		if a := netip.AddrPortFrom(ip, uint16(port)); len(first) == 0 || first[0].Addr().Is4() == ip.Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	var addrs []netip.AddrPort
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			addrs = append(addrs, first[i])
		}
		if i < len(second) {
			addrs = append(addrs, second[i])
		}
	}
	if len(addrs) == 0 {
		return nil, fail(http.StatusBadGateway, KindResolve, nil, "resolving %s: no address", name)
	}
	return addrs[:min(len(addrs), maxAddrs)], nil
}

// resolveError tells a name that does not exist from a resolver that does not
// answer: the first is certain, the second may pass.
func resolveError(ctx context.Context, name string, err error) *Error {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fail(http.StatusBadGateway, KindResolve, err, "resolving %s: no such host", name)
	case ctx.Err() != nil, isTimeout(err):
		return fail(http.StatusGatewayTimeout, KindResolve, err, "resolving %s: no answer in time", name)
	case errors.As(err, &dns) && dns.IsTemporary:
		return fail(http.StatusGatewayTimeout, KindResolve, err, "resolving %s: %v", name, err)
	}
	return fail(http.StatusBadGateway, KindResolve, err, "resolving %s: %v", name, err)
}

// race dials the addresses one after the other, each with a head start, the
// next at once when one fails. It returns the first connection, or all errors,
// and leaves no attempt behind.
func race(ctx context.Context, addrs []netip.AddrPort, dial func(context.Context, netip.AddrPort) (net.Conn, error)) (net.Conn, []error) {
	type result struct {
		conn net.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(addrs))
	next, running := 0, 0
	start := func() {
		a := addrs[next]
		next++
		running++
		go func() {
			conn, err := dial(ctx, a)
			results <- result{conn, err}
		}()
	}
	start()
	delay := time.NewTimer(attemptDelay)
	defer delay.Stop()
	var errs []error
	for running > 0 {
		select {
		case r := <-results:
			running--
			if r.err == nil {
				cancel()
				for ; running > 0; running-- {
					if late := <-results; late.conn != nil {
						late.conn.Close()
					}
				}
				return r.conn, nil
			}
			errs = append(errs, r.err)
		case <-delay.C:
		}
		if next < len(addrs) && ctx.Err() == nil {
			start()
			delay.Reset(attemptDelay)
		}
	}
	return nil, errs
}
