package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"larder/internal/httpsrv"
	"larder/internal/pki/problem"
)

// wellKnown is where a CA looks for the answer to HTTP01 (RFC 8555, section
// 8.3).
const wellKnown = "/.well-known/acme-challenge/"

// HTTPListener is a Solver of HTTP01 for when no node runs: it serves Addr
// while a challenge is pending.
type HTTPListener struct {
	Addr string // ":80" where the CA comes directly

	door door
}

// Present opens the listener, if it is not open, and answers the challenge.
func (l *HTTPListener) Present(ctx context.Context, c Challenge) error {
	return l.door.present(ctx, c, HTTP01, l.Addr, func(ctx context.Context, ln net.Listener) {
		// An error here ends the listener, and the CA sees that as well.
		_ = httpsrv.Serve(ctx, ln, http.HandlerFunc(l.serve), nil)
	})
}

// CleanUp forgets the challenge, and closes the listener after the last.
func (l *HTTPListener) CleanUp(ctx context.Context, c Challenge) error {
	return l.door.cleanUp(ctx, c)
}

func (l *HTTPListener) serve(w http.ResponseWriter, r *http.Request) {
	token, found := strings.CutPrefix(r.URL.Path, wellKnown)
	answer, ok := l.door.memory.HTTP(token)
	if !found || !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, answer)
}

// ALPNListener is a Solver of TLSALPN01 for when no node runs: it answers
// handshakes at Addr while a challenge is pending.
type ALPNListener struct {
	Addr string // ":443" where the CA comes directly

	door door
}

// Present opens the listener, if it is not open, and answers the challenge.
func (l *ALPNListener) Present(ctx context.Context, c Challenge) error {
	return l.door.present(ctx, c, TLSALPN01, l.Addr, l.shake)
}

// CleanUp forgets the challenge, and closes the listener after the last.
func (l *ALPNListener) CleanUp(ctx context.Context, c Challenge) error {
	return l.door.cleanUp(ctx, c)
}

// handshakeTime bounds one handshake, handshakes how many go on at once.
const (
	handshakeTime = 10 * time.Second
	handshakes    = 64
)

// shake answers handshakes until ctx ends. Nothing is read after them (RFC
// 8737, section 3).
func (l *ALPNListener) shake(ctx context.Context, ln net.Listener) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			config, err := l.door.memory.ConfigForClient(hello)
			if config == nil && err == nil {
				err = errors.New("nothing but acme-tls/1 is spoken here")
			}
			return config, err
		},
	}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	room := make(chan struct{}, handshakes)
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() == nil && sleep(ctx, 50*time.Millisecond) == nil && !errors.Is(err, net.ErrClosed) {
				continue // such as too many open files
			}
			return
		}
		room <- struct{}{} // handshakes end by themselves
		running.Go(func() {
			defer func() { <-room }()
			shaking, cancel := context.WithTimeout(ctx, handshakeTime)
			defer cancel()
			c := tls.Server(conn, config)
			_ = c.HandshakeContext(shaking) // its failure is told to the other side
			_ = c.Close()
		})
	}
}

// door is a listener that is open while its memory holds a challenge.
type door struct {
	memory Memory

	mu    sync.Mutex
	close func() // guarded by mu; nil: closed
}

func (d *door) present(ctx context.Context, c Challenge, kind, addr string, serve func(context.Context, net.Listener)) error {
	if c.Type != kind {
		return fmt.Errorf("%s cannot be answered by a listener for %s", c, kind)
	}
	if err := d.memory.Present(ctx, c); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.close != nil {
		return nil
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return listenProblem(kind, addr, err)
	}
	life, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { serve(life, ln) })
	d.close = func() {
		cancel()
		running.Wait()
	}
	return nil
}

func (d *door) cleanUp(ctx context.Context, c Challenge) error {
	err := d.memory.CleanUp(ctx, c)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.close != nil && !d.memory.Pending() {
		d.close()
		d.close = nil
	}
	return err
}

func listenProblem(kind, addr string, err error) error {
	p := &problem.Problem{
		Field: "address " + addr + " for " + kind, Found: "no way to listen there", Err: err,
		Expected: "a free port for as long as the CA looks",
		Next:     "see what holds it; a node that runs answers the CA itself",
	}
	if errors.Is(err, syscall.EACCES) {
		p.Next = "run with the right to use low ports (CAP_NET_BIND_SERVICE on Linux)"
	}
	return p
}
