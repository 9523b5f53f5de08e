package tlsdir

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"larder/internal/pki/problem"
)

// ErrNotRunning says that no node serves from the directory, so that there is
// nobody to shake hands with.
var ErrNotRunning = errors.New("no node runs with this tls directory")

const (
	// proofWait is how long a node may take to show another certificate. It
	// looks at its files within a second of a change.
	proofWait = 20 * time.Second
	// proofEvery is the pause between two looks.
	proofEvery = 50 * time.Millisecond
)

// every calls ask until it is satisfied, fails, or ctx ends.
func every(ctx context.Context, ask func() (satisfied bool, err error)) error {
	tick := time.NewTicker(proofEvery)
	defer tick.Stop()
	for {
		satisfied, err := ask()
		if satisfied || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Prove waits until the running node shows chain to whoever connects, and
// nothing else: by a real handshake with each of its TLS listeners, over the
// network, as a client makes it. Every listener must show the whole chain in
// its order; the certificate must be valid now. It is ErrNotRunning if no node
// runs.
func (d *Dir) Prove(ctx context.Context, chain []*x509.Certificate) error {
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	last, seen := errors.New("the node does not say where it is reached"), false
	err := every(ctx, func() (bool, error) {
		w, running, err := d.Running()
		switch {
		case err != nil:
			return false, err
		case !running:
			return false, ErrNotRunning
		case w.PID != 0 && len(w.Configured) == 0:
			return false, &problem.Problem{Field: "listen.https", Found: "a running node without a listener for HTTPS",
				Expected: `an address such as ":443"`, Next: "set listen.https in the node's configuration and start it again"}
		case len(w.HTTPS) == 0:
			last = errors.New("the node has not opened its TLS listeners")
			return false, nil
		}
		for _, addr := range w.HTTPS {
			err := shows(ctx, dialable(addr), chain)
			var t interface{ Timeout() bool }
			if err != nil && (!seen || !errors.As(err, &t) || !t.Timeout()) {
				last, seen = err, true // what was seen says more than that our patience ended meanwhile
			}
			if err != nil {
				return false, nil
			}
		}
		return true, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return &timeoutError{fmt.Errorf("within %s: %w", d.patience, last)}
	}
	return err
}

// timeoutError is an error that is a time-out without saying so in every
// sentence.
type timeoutError struct{ err error }

func (e *timeoutError) Error() string   { return e.err.Error() }
func (e *timeoutError) Unwrap() []error { return []error{e.err, context.DeadlineExceeded} }

// shows says whether what answers at addr shows chain.
func shows(ctx context.Context, addr string, chain []*x509.Certificate) error {
	shown, err := fetchChain(ctx, addr)
	if err != nil {
		return fmt.Errorf("handshake with %s: %w", addr, err)
	}
	for i := range max(len(shown), len(chain)) {
		switch {
		case i >= len(shown):
			return fmt.Errorf("%s shows %d certificates, expected %d; %s is missing", addr, len(shown), len(chain), chain[i].Subject)
		case i >= len(chain):
			return fmt.Errorf("%s shows %s besides", addr, shown[i].Subject)
		case !shown[i].Equal(chain[i]):
			return fmt.Errorf("%s shows %s (serial number %x) as certificate %d, expected %s (%x)",
				addr, shown[i].Subject, shown[i].SerialNumber, i+1, chain[i].Subject, chain[i].SerialNumber)
		}
	}
	if now := time.Now(); now.After(chain[0].NotAfter) || now.Before(chain[0].NotBefore) {
		return fmt.Errorf("%s shows a certificate that is not valid now, from %s to %s", addr, day(chain[0].NotBefore), day(chain[0].NotAfter))
	}
	return nil
}

// fetchChain is what a client gets at addr. Trust is not the question here:
// the certificates are compared byte for byte.
func fetchChain(ctx context.Context, addr string) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: host, NextProtos: []string{"http/1.1"}}}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates, nil
}

// ProveOff waits until the running node has closed its TLS listeners.
func (d *Dir) ProveOff(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	var open []string
	err := every(ctx, func() (bool, error) {
		w, running, err := d.Running()
		switch {
		case err != nil:
			return false, err
		case !running:
			return false, ErrNotRunning
		}
		open = w.HTTPS
		return w.PID != 0 && len(w.HTTPS) == 0, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return &timeoutError{fmt.Errorf("the node still listens on %v after %s", open, d.patience)}
	}
	return err
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
