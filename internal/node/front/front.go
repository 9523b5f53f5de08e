// Package front lets requests in and answers out: the HTTP/1.1 engine of the
// content ports, plain and TLS.
//
// It knows HTTP/1.1 and nothing of caching. A [Handler] gets an [Exchange] and
// answers through it; bodies are given as pieces of files or memory, so that
// plain answers leave by sendfile and TLS answers in large blocks.
package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
)

// Handler answers one request. It must not keep x after it returned, except in
// a Body that it gave to it.
type Handler func(x *Exchange)

// Config is what a Server is made of.
type Config struct {
	Handler Handler

	// HeadTimeout is how long a client may take for the TLS handshake, for a
	// request head from its first byte, and between two reads of a body;
	// default 20 s. IdleTimeout closes a connection that asks for nothing;
	// default 75 s. PieceTimeout is how long a client may take for one piece
	// (1 MiB at most) of an answer; default 60 s. Renewing a deadline costs, so
	// the last two may strike an eighth earlier.
	HeadTimeout, IdleTimeout, PieceTimeout time.Duration

	// MaxConns is how many connections there may be, and MaxConnsPerAddress how
	// many of them from one address (of IPv6: one network of 64 bits). Those above
	// are closed at once. 0: no bound.
	MaxConns, MaxConnsPerAddress int

	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Server serves content connections.
type Server struct {
	cfg    Config
	engine *fasthttp.Server
	m      *metrics

	closing atomic.Bool    // no answer keeps its connection any more
	large   atomic.Int64   // answers that have large blocks
	wg      sync.WaitGroup // the connections

	mu    sync.Mutex
	conns map[*conn]struct{} // guarded by mu
	from  map[netip.Addr]int // connections of each address; guarded by mu
	doors []*door            // guarded by mu
}

// A door is a listener with what became of it.
type door struct {
	ln     net.Listener
	closed atomic.Bool // no answer to who came through it keeps its connection
}

type metrics struct {
	conns     *prometheus.GaugeVec
	refused   prometheus.Counter
	turned    *prometheus.CounterVec
	handshake prometheus.Counter
	panics    prometheus.Counter
}

// http11 is what TLS connections agree on (RFC 7301).
const http11 = "http/1.1"

// maxHead is the largest request head, and room for an answer's.
const maxHead = 16 << 10

// New returns a Server; Serve lets connections in.
func New(cfg Config) *Server {
	if cfg.HeadTimeout == 0 {
		cfg.HeadTimeout = 20 * time.Second
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = 75 * time.Second
	}
	if cfg.PieceTimeout == 0 {
		cfg.PieceTimeout = 60 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	s := &Server{cfg: cfg, conns: map[*conn]struct{}{}, from: map[netip.Addr]int{}}
	s.m = &metrics{
		conns: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "larder_front_connections",
			Help: "Open connections of clients.",
		}, []string{"scheme"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_front_malformed_requests_total",
			Help: "Requests refused because they were not proper HTTP/1.1.",
		}),
		turned: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_front_turned_away_connections_total",
			Help: "Connections closed at once because there were too many, of all or of their address.",
		}, []string{"bound"}),
		handshake: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_front_failed_handshakes_total",
			Help: "TLS handshakes that did not come to an end.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_front_panics_total",
			Help: "Requests that ended in a fault of the program.",
		}),
	}
	cfg.Registerer.MustRegister(s.m.conns, s.m.refused, s.m.turned, s.m.handshake, s.m.panics)
	// Deadlines are the connections' business (conn.Read), not the engine's.
	s.engine = &fasthttp.Server{
		Handler:                      s.serve,
		ErrorHandler:                 s.malformed,
		ExpectHandler:                s.expect,
		ConnState:                    changed,
		Concurrency:                  1 << 30,
		ReadBufferSize:               maxHead,
		WriteBufferSize:              1 << 10, // only for what the engine says by itself
		NoDefaultServerHeader:        true,
		NoDefaultDate:                true,
		NoDefaultContentType:         true,
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true,
		SecureErrorLogMessage:        true,
		Logger:                       quiet{cfg.Log},
	}
	return s
}

// quiet receives what the engine logs.
type quiet struct{ log *slog.Logger }

func (q quiet) Printf(format string, args ...any) {
	q.log.Debug("engine", "event", format, "args", args)
}

// Serve lets connections of ln in until Shutdown or Retire, or until ln is
// closed. With tlsConfig they speak TLS.
func (s *Server) Serve(ln net.Listener, tlsConfig *tls.Config) error {
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		ln.Close()
		return fmt.Errorf("front: the server is shut down: %w", net.ErrClosed)
	}
	d := &door{ln: ln}
	s.doors = append(s.doors, d)
	s.mu.Unlock()
	if tlsConfig != nil {
		tlsConfig = tlsConfig.Clone()
		tlsConfig.NextProtos = []string{http11}
	}
	defer s.forget(d)
	pause := time.Duration(0)
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
			s.let(nc, d, tlsConfig)
		case errors.Is(err, net.ErrClosed) || s.closing.Load():
			return nil
		case !temporary(err):
			return err
		default:
			// Most likely out of file descriptors; they come back.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.cfg.Log.Warn("connections cannot be accepted", "err", err, "pause", pause)
			<-time.After(pause)
		}
	}
}

func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

func (s *Server) forget(d *door) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doors = slices.DeleteFunc(s.doors, func(o *door) bool { return o == d })
}

// Retire lets nobody in through ln any more, closes the connections that came
// through it and are idle, and lets the others end with the answer under way.
func (s *Server) Retire(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ln.Close() // Serve may not have begun with it
	for _, d := range s.doors {
		if d.ln == ln {
			s.shut(d)
		}
	}
}

// shut closes a door. s.mu is held.
func (s *Server) shut(d *door) {
	d.closed.Store(true)
	d.ln.Close()
	for c := range s.conns {
		if c.door == d && !c.busy.Load() {
			c.Conn.Close()
		}
	}
}

// let lets one connection in.
func (s *Server) let(nc net.Conn, d *door, tlsConfig *tls.Config) {
	c := &conn{Conn: nc, s: s, door: d, scheme: "http"}
	c.tcp, _ = nc.(*net.TCPConn)
	c.top = c
	if tlsConfig != nil {
		c.scheme = "https"
		c.tls = &tlsConn{Conn: tls.Server(c, tlsConfig), raw: c}
		c.top = c.tls
	}
	c.from = source(nc.RemoteAddr())
	s.mu.Lock()
	bound := s.boundLocked(c)
	if bound != "" || c.ending() {
		s.mu.Unlock()
		if bound != "" {
			s.m.turned.WithLabelValues(bound).Inc()
			s.cfg.Log.Debug("connection turned away", "remote", nc.RemoteAddr(), "bound", bound)
		}
		nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.from[c.from]++
	s.wg.Add(1)
	s.mu.Unlock()
	s.m.conns.WithLabelValues(c.scheme).Inc()
	go s.run(c)
}

// boundLocked says which bound a new connection is above, "" for none. s.mu is
// held.
func (s *Server) boundLocked(c *conn) string {
	switch {
	case s.cfg.MaxConns > 0 && len(s.conns) >= s.cfg.MaxConns:
		return "all"
	case s.cfg.MaxConnsPerAddress > 0 && s.from[c.from] >= s.cfg.MaxConnsPerAddress:
		return "address"
	}
	return ""
}

// source is whom a connection counts for: an address, or of IPv6 its network of
// 64 bits, as whoever has one address of it has them all.
func source(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := t.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// run serves one connection to its end. While it is idle, the engine's buffers
// are given back, and what waits is only this goroutine.
func (s *Server) run(c *conn) {
	defer s.wg.Done()
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		if s.from[c.from]--; s.from[c.from] == 0 {
			delete(s.from, c.from)
		}
		s.mu.Unlock()
		s.m.conns.WithLabelValues(c.scheme).Dec()
	}()
	defer c.Conn.Close()
	defer func() {
		if r := recover(); r != nil {
			s.panicked("connection", r)
		}
	}()
	if c.tls != nil {
		if err := c.handshake(); err != nil {
			s.m.handshake.Inc()
			s.cfg.Log.Debug("handshake failed", "remote", c.RemoteAddr(), "err", err)
			return
		}
		if p := c.tls.ConnectionState().NegotiatedProtocol; p != "" && p != http11 {
			return // the handshake was all: acme-tls/1 (RFC 8737, section 3)
		}
	} else if !c.wait(s.cfg.HeadTimeout) {
		return
	}
	for {
		c.expired = false
		if err := s.engine.ServeConn(c.top); err != nil {
			s.cfg.Log.Debug("connection ended", "remote", c.RemoteAddr(), "err", err)
		}
		if !c.expired {
			break
		}
		if !c.wait(s.cfg.IdleTimeout - s.parkAfter()) {
			break
		}
	}
	c.end()
}

// parkAfter is how long a connection may be idle before its buffers go.
func (s *Server) parkAfter() time.Duration { return min(4*time.Second, s.cfg.IdleTimeout/2) }

// panicked says that a request ended in a fault of the program.
func (s *Server) panicked(where string, r any) {
	s.m.panics.Inc()
	s.cfg.Log.Error("panic", "where", where, "panic", r, "stack", string(debug.Stack()))
}

// Shutdown lets no more connections in, closes those that are idle, waits for
// the answers under way until ctx ends, then cuts what is left.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.closing.Store(true)
	for _, d := range s.doors {
		s.shut(d)
	}
	for c := range s.conns { // of doors that closed by themselves
		if !c.busy.Load() {
			c.Conn.Close()
		}
	}
	s.mu.Unlock()
	over := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(over)
	}()
	select {
	case <-over:
		return
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.cfg.Log.InfoContext(ctx, "connections cut at shutdown", "connections", len(s.conns))
	for c := range s.conns {
		c.Conn.Close()
	}
	s.mu.Unlock()
	// A body that waits for something else notices later; it is not waited for.
	select {
	case <-over:
	case <-time.After(time.Second):
	}
}
