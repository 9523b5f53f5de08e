package front

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// counting counts writes below TLS.
type counting struct {
	net.Listener
	writes, bytes atomic.Int64
}

func (l *counting) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{nc, l}, nil
}

type countedConn struct {
	net.Conn
	l *counting
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.l.writes.Add(1)
	c.l.bytes.Add(int64(len(p)))
	return c.Conn.Write(p)
}

// kept keeps what is written, in its order.
type kept struct {
	net.Conn
	b []byte
}

func (k *kept) Write(p []byte) (int, error) {
	k.b = append(k.b, p...)
	return len(p), nil
}

// TLS answers a KeyUpdate while another goroutine gathers an answer's records:
// neither loses what the other writes, whole or in part.
func TestRecordsOfTwoGoroutines(t *testing.T) {
	t.Parallel()
	k := &kept{}
	c := &conn{Conn: k, tls: &tlsConn{}}
	const rounds = 1000
	var wg sync.WaitGroup
	wg.Go(func() {
		for range rounds {
			c.Write([]byte("update"))
		}
	})
	var buf []byte
	for range rounds {
		c.hold(buf)
		c.Write([]byte("record"))
		c.Write([]byte("record"))
		var err error
		if buf, err = c.release(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	got := string(k.b)
	if u, r := strings.Count(got, "update"), strings.Count(got, "record"); u != rounds || r != 2*rounds || len(got) != 6*(u+r) {
		t.Errorf("%d updates and %d records in %d bytes", u, r, len(got))
	}
}

// The records of a block leave together: 1 MiB is 64 records and four or five
// writes, a small answer is one, and nothing of the engine's own head is
// encrypted.
func TestRecordsAreGathered(t *testing.T) {
	t.Parallel()
	f, content := file(t, 1<<20)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := &counting{Listener: inner}
	startOn(t, ln, Config{Handler: func(x *Exchange) {
		switch x.Target() {
		case "/small":
			x.Send(200, 4096, &pieces{list: []Piece{{File: f, Len: 4096}}})
		case "/large":
			x.Send(200, 1<<20, &pieces{list: []Piece{{File: f, Len: 1 << 20}}})
		default:
			x.Text(200, "warm")
		}
	}}, serverTLS())
	c := dialTLS(t, inner.Addr().String(), nil)
	c.say("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n") // the handshake's own writes are over
	c.want("GET", 200, "warm\n")
	for _, tt := range []struct {
		target       string
		size         int
		writes, over int64
	}{{"/small", 4096, 1, 200}, {"/large", 1 << 20, 5, 3000}} {
		w, n := ln.writes.Load(), ln.bytes.Load()
		c.say("GET " + tt.target + " HTTP/1.1\r\nHost: a.test\r\n\r\n")
		c.want("GET", 200, string(content[:tt.size]))
		w, n = ln.writes.Load()-w, ln.bytes.Load()-n
		if w > tt.writes || n > int64(tt.size)+tt.over {
			t.Errorf("%s: %d writes of %d bytes; want at most %d and %d", tt.target, w, n, tt.writes, int64(tt.size)+tt.over)
		}
	}
}

func TestNegotiation(t *testing.T) {
	t.Parallel()
	cfg := serverTLS().Clone()
	cfg.NextProtos = []string{"h2", "http/1.1"} // even if somebody asked for it
	_, addr := start(t, Config{Handler: echo}, cfg)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		sessions := tls.NewLRUClientSessionCache(4)
		for i := range 2 {
			c := dialTLS(t, addr, &tls.Config{InsecureSkipVerify: true, ServerName: "front.test", MaxVersion: version,
				ClientSessionCache: sessions, NextProtos: []string{"h2", "http/1.1"}})
			c.say("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
			c.want("GET", 200, "GET /\n")
			c.over() // with close_notify: otherwise this is an unexpected EOF
			st := c.Conn.(*tls.Conn).ConnectionState()
			if st.NegotiatedProtocol != "http/1.1" || st.Version != version {
				t.Errorf("negotiated %q, version %x", st.NegotiatedProtocol, st.Version)
			}
			if st.DidResume != (i == 1) {
				t.Errorf("version %x, connection %d: resumed %t", version, i, st.DidResume)
			}
		}
	}
	_, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err == nil || !strings.Contains(err.Error(), "no application protocol") {
		t.Errorf("a client of HTTP/2 only: %v; want a refusal", err)
	}
}

// A TLS answer that breaks off and has no length ends with a reset: not every
// client misses a close_notify.
func TestCutWithoutGoodbye(t *testing.T) {
	t.Parallel()
	_, addr := start(t, Config{Handler: func(x *Exchange) {
		b := text("part")
		b.err = errDisk
		x.Send(200, -1, b)
	}}, serverTLS())
	c := dialTLS(t, addr, nil)
	c.say("GET / HTTP/1.0\r\n\r\n")
	if b, err := io.ReadAll(c.r); err == nil {
		t.Errorf("got %q and a proper end", b)
	}
}

// A handshake has HeadTimeout; a TLS connection is served again after it was
// idle for longer than its buffers live.
func TestTLSAndTime(t *testing.T) {
	serve := func(t *testing.T, f func(s *Server, ln *memoryListener)) {
		synctest.Test(t, func(t *testing.T) {
			ln := newMemoryListener()
			s := New(Config{Handler: echo, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
			over := make(chan error, 1)
			go func() { over <- s.Serve(ln, serverTLS()) }()
			f(s, ln)
			s.Shutdown(t.Context())
			if err := <-over; err != nil {
				t.Error(err)
			}
		})
	}
	serverTLS() // made outside of any bubble
	serve(t, func(s *Server, ln *memoryListener) {
		c := ln.dial()
		io.WriteString(c, "\x16\x03\x01")
		after, _ := ended(c)
		within(t, "a handshake that does not come", after, 20*time.Second)
		synctest.Wait()
		if n := counter(s.m.handshake); n != 1 {
			t.Errorf("%v failed handshakes counted; want 1", n)
		}
	})
	serve(t, func(s *Server, ln *memoryListener) {
		inner := ln.dial()
		c := &client{tls.Client(inner, &tls.Config{InsecureSkipVerify: true}), t, nil}
		c.r = newReader(c.Conn)
		for _, pause := range []time.Duration{0, time.Second, 10 * time.Second, 70 * time.Second} {
			time.Sleep(pause) // the bubble's clock
			go io.WriteString(c, proper)
			c.want("GET", 200, "GET /\n")
		}
		inner.Close()
	})
}

// Keys of session tickets change by themselves: a ticket is good for days, not
// for as long as the process runs.
func TestTicketsAge(t *testing.T) {
	t.Parallel()
	var late atomic.Int64
	cfg := serverTLS().Clone()
	cfg.Time = func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
	_, addr := start(t, Config{Handler: func(x *Exchange) { x.Text(200, "ok") }}, cfg)
	client := &tls.Config{InsecureSkipVerify: true, ServerName: "front.test", ClientSessionCache: tls.NewLRUClientSessionCache(4), MaxVersion: tls.VersionTLS12}
	resumed := func() bool {
		t.Helper()
		c := dialTLS(t, addr, client)
		c.say("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
		c.want("GET", 200, "ok\n")
		return c.Conn.(*tls.Conn).ConnectionState().DidResume
	}
	if resumed() || !resumed() {
		t.Error("a session is not taken up again")
	}
	late.Store(int64(8 * 24 * time.Hour))
	if resumed() {
		t.Error("a ticket of eight days ago is taken")
	}
}
