package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"larder/internal/node/config"
	"larder/internal/node/front"
	"larder/internal/pki/bundle"
	"larder/internal/pki/caretaker"
	"larder/internal/pki/enroll"
	"larder/internal/pki/enroll/acme"
	"larder/internal/pki/revocation"
	"larder/internal/pki/tlsdir"
	"larder/internal/sys/ports"
)

// https is the node's TLS listeners, which are open while there is something to
// show, and what looks after the certificate.
type https struct {
	n          *Node
	challenges *acme.Memory
	care       *caretaker.Caretaker // nil: the TLS directory cannot be written to
	renewer    *enroll.Renewer      // likewise
	dir        *tlsdir.Dir          // likewise
	serving    *tlsdir.Serving      // likewise

	mu        sync.Mutex
	listeners []net.Listener // guarded by mu
	said      bool           // guarded by mu; that there is no certificate was logged
	closed    error          // guarded by mu; why the listeners are not open although they are wanted
}

// openHTTPS prepares what n needs for HTTPS. A TLS directory that only others
// can write to, such as a mounted secret, is served from and not looked after.
func openHTTPS(ctx context.Context, n *Node) *https {
	h := &https{n: n, challenges: new(acme.Memory)}
	if len(n.cfg.Listen.HTTPS) == 0 {
		// Commands that find the directory are told that it is not served from.
		if dir, err := tlsdir.Look(n.cfg.TLS.Dir); err == nil {
			h.serving, _ = dir.Serve(ctx) // one that may not write there tells nobody
		}
		return h
	}
	dir, err := tlsdir.Open(n.cfg.TLS.Dir, "node")
	if err != nil {
		n.log.WarnContext(ctx, "tls directory not looked after: it cannot be written to", "dir", n.cfg.TLS.Dir, "err", err)
		return h
	}
	dir.Follow = func() { _ = n.cert.Reload() } // its status says what is wrong
	if h.serving, err = dir.Serve(ctx); err != nil {
		n.log.WarnContext(ctx, "tls directory not looked after", "dir", n.cfg.TLS.Dir, "err", err)
		return h
	}
	checker := revocation.New(revocation.Options{Log: n.log})
	standards, err := Standards(n.cfg)
	if err != nil {
		// Certificates in use are served all the same; "larder node check" fails.
		n.log.ErrorContext(ctx, "roots of the configuration not read", "err", err)
	}
	standards.Revocation = checker.Check
	h.dir = dir
	h.renewer = &enroll.Renewer{
		Dir: dir, Standards: standards, Seed: n.id, Log: n.log,
		Solvers: map[string]acme.Solver{acme.HTTP01: h.challenges, acme.TLSALPN01: openSolver{h.challenges, h}},
	}
	h.care = caretaker.New(caretaker.Options{
		Dir: dir, Cert: n.cert, Checker: checker, OnRevoked: caretaker.Fallback(n.cfg.TLS.OnRevoked), Log: n.log, Registerer: n.reg,
		Renewer: h.renewer,
	})
	return h
}

// openSolver shows tls-alpn-01 challenges: one is there when the TLS listeners
// are open, which they are not while there is no certificate. An authority that
// is told earlier finds a closed port.
type openSolver struct {
	*acme.Memory
	h *https
}

// openPatience is how long Present waits for the listeners. If somebody else has
// the port they never open, and the authority's answer says the rest.
const openPatience = 5 * time.Second

// Present is for acme.Solver.
func (o openSolver) Present(ctx context.Context, c acme.Challenge) error {
	if err := o.Memory.Present(ctx, c); err != nil {
		return err
	}
	patience := time.NewTimer(openPatience)
	defer patience.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		o.h.mu.Lock()
		open, trouble := len(o.h.listeners) > 0, o.h.closed
		o.h.mu.Unlock()
		if open || trouble != nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-patience.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Standards are what the configuration asks of a serving certificate, without
// the question whether it was revoked.
func Standards(cfg *config.Config) (tlsdir.Standards, error) {
	st := tlsdir.Standards{ClientNames: cfg.TLS.ClientNames}
	var err error
	if st.Roots, err = x509.SystemCertPool(); err != nil {
		return st, fmt.Errorf("reading the system's root certificates: %w", err)
	}
	if cfg.TLS.Roots != "" {
		b, err := bundle.ReadFile(cfg.TLS.Roots, bundle.Options{})
		if err != nil {
			return st, fmt.Errorf("tls.roots: %w", err)
		}
		st.Given = b.Certs
	}
	return st, nil
}

// close lets go of the TLS directory.
func (h *https) close() {
	if h.serving == nil {
		return
	}
	if err := h.serving.Close(); err != nil {
		h.n.log.Warn("tls directory not let go", "err", err)
	}
	h.serving = nil
}

// wanted reports whether there is anything to show: a certificate, or a proof
// for an authority.
func (h *https) wanted() bool { return h.n.cert.Has() || h.challenges.PendingALPN() }

// follow opens the TLS listeners if they are wanted and closed, and closes them
// if they are open and not wanted.
func (h *https) follow(ctx context.Context, spawn func(string, func() error)) error {
	n := h.n
	if len(n.cfg.Listen.HTTPS) == 0 || ctx.Err() != nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = nil
	switch open := len(h.listeners) > 0; {
	case open == h.wanted():
		if !open && !h.said {
			n.log.InfoContext(ctx, "no certificate: HTTP only", "dir", n.cfg.TLS.Dir)
			h.said = true
		}
		return nil
	case open:
		for _, ln := range h.listeners {
			n.front.Retire(ln)
		}
		h.listeners = nil
		n.setHTTPS(nil)
		n.log.WarnContext(ctx, "HTTPS closed: HTTP only", "dir", n.cfg.TLS.Dir)
		return nil
	}
	var opened []net.Listener
	for i, addr := range n.cfg.Listen.HTTPS {
		ln, err := ports.Listen(addr)
		if err != nil {
			for _, l := range opened {
				l.Close()
			}
			h.closed = fmt.Errorf("listen.https[%d]: %w", i, err)
			return h.closed
		}
		opened = append(opened, ln)
	}
	h.listeners = opened
	n.setHTTPS(opened)
	for _, ln := range opened {
		spawn("https", func() error { return ignoreClosed(n.front.Serve(ln, n.cert.TLSConfig(h.challenges.ALPN))) })
	}
	return nil
}

// tryAgain is how soon ports are tried again that somebody else held.
const tryAgain = 5 * time.Second

// watch follows the certificate and the authority's questions until ctx ends.
func (h *https) watch(ctx context.Context, spawn func(string, func() error)) {
	tick := time.NewTicker(tryAgain)
	defer tick.Stop()
	for {
		certificate, challenge := h.n.cert.Changed(), h.challenges.Changed()
		before, wasClosed := len(h.n.Addresses().HTTPS), h.whyClosed()
		if err := h.follow(ctx, spawn); err != nil && (wasClosed == nil || err.Error() != wasClosed.Error()) {
			h.n.log.ErrorContext(ctx, "HTTPS not opened, trying again", "err", err)
		}
		if len(h.n.Addresses().HTTPS) != before {
			if err := h.n.writeAddresses(); err != nil {
				h.n.log.ErrorContext(ctx, "addresses not written", "err", err)
			}
		}
		var again <-chan time.Time
		if h.whyClosed() != nil {
			again = tick.C
		}
		select {
		case <-certificate:
		case <-challenge:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// whyClosed is why HTTPS is not served although there is a certificate.
func (h *https) whyClosed() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// status is what there is to know about HTTPS; nil if nobody looks after it.
func (h *https) status() *caretaker.Status {
	if h.care == nil {
		return nil
	}
	s := h.care.Status()
	if err := h.whyClosed(); err != nil {
		s.On, s.WhyOff = false, err.Error()
	}
	return &s
}

// setHTTPS notes where TLS is spoken.
func (n *Node) setHTTPS(listeners []net.Listener) {
	addrs := []string{}
	for _, ln := range listeners {
		addrs = append(addrs, ln.Addr().String())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs.HTTPS = addrs
}

// say tells commands that only know the TLS directory where the node is.
func (h *https) say(a Addresses) {
	if h.serving == nil {
		return
	}
	err := h.serving.Say(tlsdir.Where{HTTPS: a.HTTPS, Configured: h.n.cfg.Listen.HTTPS, Admin: a.Admin, Version: h.n.version})
	if err != nil {
		h.n.log.Warn("tls directory not told where the node is", "err", err)
	}
}

// acmeChallenge is where an authority looks for a proof (RFC 8555, section 8.3).
const acmeChallenge = "/.well-known/acme-challenge/"

// answerChallenge answers an authority that looks whether a name leads here. It
// is false for everybody else, so that such paths of publishers are served.
func (h *https) answerChallenge(x *front.Exchange) bool {
	token, ok := strings.CutPrefix(x.Target(), acmeChallenge)
	if !ok || x.TLS() {
		return false
	}
	answer, ok := h.challenges.HTTP(token)
	if !ok {
		return false
	}
	x.Text(http.StatusOK, answer)
	return true
}

// problemsOfHTTPS says what needs attention about the certificate.
func (n *Node) problemsOfHTTPS() []string {
	var ps []string
	// What the caretaker says of one that has expired goes further.
	if c := n.cert.Status(); c.Err != "" && (n.https.care == nil || !n.cert.Has() || time.Now().Before(c.NotAfter)) {
		ps = append(ps, "certificate: "+c.Err)
	}
	if n.https.care != nil {
		ps = append(ps, n.https.care.Problems()...)
	}
	if err := n.https.whyClosed(); err != nil {
		ps = append(ps, "HTTPS is not served: "+err.Error())
	}
	return ps
}

var errNotLookedAfter = errors.New("this node only serves from its TLS directory: it has no listen.https, or cannot write there")
