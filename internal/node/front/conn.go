package front

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// A phase is what a client sends.
type phase uint8

const (
	idle phase = iota // nothing: a request may come
	head
	body
)

// conn is a client's TCP connection. The engine reads from it and believes to
// write to it and to close it. While it holds, writes are gathered in memory
// and leave in one system call. While it drops, they go nowhere: that is how
// the engine's own head is put aside for ours.
type conn struct {
	net.Conn
	tcp    *net.TCPConn // nil when the listener is not TCP
	s      *Server
	door   *door // it came through
	scheme string
	from   netip.Addr // whom it counts for
	tls    *tlsConn   // nil when plain
	top    net.Conn   // tls or this

	busy    atomic.Bool // between a request's first byte and its answer's end
	aborted atomic.Bool // nobody waits for the request body any more

	// What is read. One goroutine at a time.
	phase   phase
	armed   bool      // the current head's deadline is set
	expired bool      // idle for parkAfter: the engine has let go
	eof     bool      // the client sends no more
	held1   bool      // ahead holds a byte
	ahead   [1]byte   // the byte that ended wait
	now     time.Time // about the current time, while idle
	readBy  time.Time // the read deadline in force

	// What is written. One goroutine at a time.
	writeBy  time.Time // the write deadline in force
	dropping bool
	unread   bool // there may be input that nobody will read
	cut      bool // the last answer is not whole
	reset    bool // and only a reset tells the client so

	// TLS answers a KeyUpdate from whatever goroutine reads, while another
	// writes; records must leave in the order in which they were made.
	gather  sync.Mutex
	held    []byte // what was written since hold; guarded by gather
	holding bool   // guarded by gather
}

// ending reports whether the connection is not to be kept.
func (c *conn) ending() bool { return c.s.closing.Load() || c.door.closed.Load() }

// changed is told by the engine what a connection does.
func changed(nc net.Conn, st fasthttp.ConnState) {
	c := raw(nc)
	switch st {
	case fasthttp.StateActive:
		c.busy.Store(true)
		if c.phase != head {
			c.phase, c.armed = head, false
		}
	case fasthttp.StateIdle:
		c.phase = idle
		c.busy.Store(false)
	}
}

// raw returns the conn below what the engine knows.
func raw(nc net.Conn) *conn {
	if t, ok := nc.(*tlsConn); ok {
		return t.raw
	}
	return nc.(*conn)
}

// handshake is the TLS handshake.
func (c *conn) handshake() error {
	now := time.Now()
	c.readBy = now.Add(c.s.cfg.HeadTimeout)
	c.writeBy = c.readBy
	c.Conn.SetDeadline(c.readBy)
	c.phase, c.armed = head, true
	err := c.tls.Conn.Handshake()
	c.armed = false // the request may have come with it
	return err
}

// wait waits at most d for the client's next byte.
func (c *conn) wait(d time.Duration) bool {
	now := time.Now()
	c.readBy = now.Add(d)
	c.Conn.SetReadDeadline(c.readBy)
	if c.ending() {
		return false
	}
	if n, _ := c.Conn.Read(c.ahead[:]); n == 0 {
		return false
	}
	c.held1 = true
	c.phase, c.armed = head, false
	return true
}

// Read gives the client as much time as what it sends may take.
func (c *conn) Read(p []byte) (int, error) {
	if c.held1 && len(p) > 0 {
		p[0] = c.ahead[0]
		c.held1 = false
		if len(p) == 1 {
			return 1, nil
		}
		// One byte is never enough for whoever asks.
		n, err := c.Read(p[1:])
		if err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil // met again
		}
		return n + 1, err
	}
	cfg := &c.s.cfg
	switch c.phase {
	case idle:
		after := c.s.parkAfter()
		if left := c.readBy.Sub(c.now); left < after-after/8 || left > after {
			c.readBy = c.now.Add(after)
			c.Conn.SetReadDeadline(c.readBy)
		}
		if c.ending() {
			return 0, io.EOF
		}
	case head:
		if !c.armed {
			c.armed = true
			c.readBy = time.Now().Add(cfg.HeadTimeout)
			c.Conn.SetReadDeadline(c.readBy)
		}
	case body:
		if now := time.Now(); c.readBy.Sub(now) < cfg.HeadTimeout-cfg.HeadTimeout/8 {
			c.readBy = now.Add(cfg.HeadTimeout)
			c.Conn.SetReadDeadline(c.readBy)
		}
		if c.aborted.Load() {
			return 0, os.ErrDeadlineExceeded
		}
	}
	n, err := c.Conn.Read(p)
	if c.phase == idle {
		if n > 0 {
			c.phase, c.armed = head, false
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			c.expired = true
		}
	}
	if err == io.EOF {
		c.eof = true
	}
	return n, err
}

// abort ends a Read of the request body, now and later.
func (c *conn) abort() {
	c.aborted.Store(true)
	c.Conn.SetReadDeadline(time.Unix(1, 0))
}

// extend gives the client PieceTimeout for what is written next.
func (c *conn) extend(now time.Time) {
	if d := c.s.cfg.PieceTimeout; c.writeBy.Sub(now) < d-d/8 {
		c.writeBy = now.Add(d)
		c.Conn.SetWriteDeadline(c.writeBy)
	}
}

func (c *conn) Write(p []byte) (int, error) {
	if c.tls == nil && c.dropping { // over TLS, see tlsConn
		return len(p), nil
	}
	c.gather.Lock()
	defer c.gather.Unlock()
	if c.holding {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// hold gathers writes into buf until release.
func (c *conn) hold(buf []byte) {
	c.gather.Lock()
	defer c.gather.Unlock()
	c.held, c.holding = buf[:0], true
}

// forget lets go of what is held, unwritten.
func (c *conn) forget() {
	c.gather.Lock()
	defer c.gather.Unlock()
	c.held, c.holding = nil, false
}

// release writes what was held and returns the memory for reuse.
func (c *conn) release() ([]byte, error) {
	c.gather.Lock()
	defer c.gather.Unlock()
	c.holding = false
	buf := c.held
	c.held = nil
	if len(buf) == 0 {
		return buf, nil
	}
	_, err := c.Conn.Write(buf)
	return buf, err
}

// Close is how the engine lets go; what becomes of the connection is decided by
// run.
func (c *conn) Close() error { return nil }

const (
	// lingerTime and lingerBytes bound how much of what nobody will read is
	// taken in before closing, so that the answer is not lost with it: a system
	// that closes with unread input sends a reset (RFC 9112 9.6).
	lingerTime  = 2 * time.Second
	lingerBytes = 4 << 20
)

// end says goodbye. The connection itself is closed by run.
func (c *conn) end() {
	if c.cut {
		if c.reset && c.tcp != nil {
			c.tcp.SetLinger(0)
		}
		return // no close_notify either, though few clients miss it
	}
	c.dropping = false
	c.forget()
	if c.tls != nil {
		c.tls.Conn.Close()
	}
	if !c.unread || c.tcp == nil || c.eof {
		return
	}
	c.busy.Store(false)
	if c.tcp.CloseWrite() != nil {
		return
	}
	c.tcp.SetReadDeadline(time.Now().Add(lingerTime))
	bp := smalls.Get().(*[]byte)
	defer smalls.Put(bp)
	for n := 0; n < lingerBytes; {
		k, err := c.tcp.Read(*bp)
		if err != nil {
			return
		}
		n += k
	}
}

// tlsConn is a client's TLS connection over a conn.
type tlsConn struct {
	*tls.Conn
	raw *conn
}

// Write is dropped before it is encrypted.
func (c *tlsConn) Write(p []byte) (int, error) {
	if c.raw.dropping {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// Close is conn.Close.
func (c *tlsConn) Close() error { return nil }

// remote returns the client's address.
func remote(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
