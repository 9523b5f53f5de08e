package lardertest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"larder/internal/demo"
)

// Origin is an upstream server on loopback, plain and TLS, that does to each
// path what a test asks for. It speaks HTTP/1.1 over bare connections, so that
// every kind of wrong answer is possible, and remembers each request as it
// came. Any host name is accepted; objects are found by path alone.
type Origin struct {
	Addr    string // host:port, plain
	TLSAddr string // host:port, TLS 1.2+, HTTP/1.1 only
	CA      *CA    // signed the certificate: see NewOrigin

	tls    *tls.Config
	ctx    context.Context // ends at Close; whatever waits looks at it
	cancel context.CancelFunc
	wg     sync.WaitGroup // listeners and connections

	latency atomic.Int64 // nanoseconds before each head
	limit   atomic.Pointer[rate.Limiter]

	mu        sync.Mutex
	closed    bool                  // guarded by mu
	deaf      bool                  // guarded by mu
	listeners []net.Listener        // guarded by mu
	conns     map[net.Conn]struct{} // guarded by mu; raw ones
	opened    int64                 // guarded by mu; connections so far
	objects   map[string]*object    // guarded by mu
	plans     map[string]*plan      // guarded by mu
	every     *plan                 // guarded by mu; for paths without a plan
	requests  []*Recorded           // guarded by mu, and what they point to
	asked     map[string]int        // guarded by mu; requests by path
	sent      map[string]int64      // guarded by mu; bytes of bodies by path
	sentAll   int64                 // guarded by mu
}

// Recorded is one request as it came.
type Recorded struct {
	At      time.Time
	Conn    int64 // which connection: 1 for the first accepted
	TLS     bool
	SNI     string
	Head    string // everything up to and with the empty line, verbatim
	Method  string
	Target  string // as in the request line
	Path    string // of the target, without the query
	Host    string
	Range   string // "" when absent
	Header  http.Header
	Body    []byte
	Status  int   // answered; 0: nothing was
	Sent    int64 // bytes of the body that left so far
	Ordinal int   // among the requests for this path: 1 for the first
}

// object is one version of what lies at a path.
type object struct {
	version  int
	size     int64
	body     io.ReaderAt
	modified time.Time
}

// NewOrigin starts an origin that ends with the test. Its certificate is for
// 127.0.0.1, localhost and names, signed by a CA of its own.
func NewOrigin(t testing.TB, names ...string) *Origin {
	t.Helper()
	o, err := StartOrigin(names...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o
}

// StartOrigin is NewOrigin without a test, for benchmarks that are programs:
// the caller closes it.
func StartOrigin(names ...string) (*Origin, error) {
	ca, err := makeCA()
	if err != nil {
		return nil, err
	}
	leaf, err := ca.leaf(LeafOptions{}, append([]string{"localhost", "127.0.0.1"}, names...))
	if err != nil {
		return nil, err
	}
	o := &Origin{
		Addr:    "127.0.0.1:0",
		TLSAddr: "127.0.0.1:0",
		CA:      ca,
		tls:     &tls.Config{Certificates: []tls.Certificate{leaf.TLS}, NextProtos: []string{"http/1.1"}},
		conns:   map[net.Conn]struct{}{},
		objects: map[string]*object{},
		plans:   map[string]*plan{},
		asked:   map[string]int{},
		sent:    map[string]int64{},
	}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	if err := o.listen(); err != nil {
		o.cancel()
		return nil, err
	}
	return o, nil
}

// Close ends all connections and waits for what served them.
func (o *Origin) Close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.cancel()
	o.Refuse()
	o.wg.Wait()
}

// Add puts an object of size bytes at path, version 1. Its bytes are those of
// Content(path, 1, size).
func (o *Origin) Add(path string, size int64) { o.SetVersion(path, 1, size) }

// SetVersion replaces the object at path: other bytes, other validators.
// Answers that are being sent stay with the version they began with.
func (o *Origin) SetVersion(path string, version int, size int64) {
	o.put(path, version, size, Content(path, version, size))
}

// AddBytes puts these bytes at path, as version 1.
func (o *Origin) AddBytes(path string, body []byte) {
	o.put(path, 1, int64(len(body)), bytes.NewReader(body))
}

func (o *Origin) put(path string, version int, size int64, body io.ReaderAt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.objects[path] = &object{
		version: version, size: size, body: body,
		modified: time.Date(2026, time.March, 1, version, 0, 0, 0, time.UTC),
	}
}

// Remove takes the object away: 404 from now on.
func (o *Origin) Remove(path string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.objects, path)
}

// Content returns the bytes of a version of the object at path.
func Content(path string, version int, size int64) demo.Content {
	return demo.NewContent(path+"@"+strconv.Itoa(version), size)
}

// ETag returns the entity tag of a version of the object at path, strong.
func ETag(path string, version int, size int64) string {
	return fmt.Sprintf(`"%s-v%d-%x"`, strings.Map(tagRune, path), version, size)
}

func tagRune(r rune) rune {
	if r <= ' ' || r == '"' || r > '~' {
		return '_'
	}
	return r
}

// Set says how requests for path are answered from now on: the first with the
// first behaviour, the next with the next, all further ones with the last.
// None at all: as a good server does.
func (o *Origin) Set(path string, steps ...Behaviour) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(steps) == 0 {
		delete(o.plans, path)
		return
	}
	o.plans[path] = &plan{steps: steps}
}

// SetEvery is Set for all paths that have no behaviour of their own.
func (o *Origin) SetEvery(steps ...Behaviour) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.every = nil
	if len(steps) > 0 {
		o.every = &plan{steps: steps}
	}
}

// SetRate bounds what all connections together send, in bytes per second of
// bodies; 0: no bound. Up to 50 ms of it may go out in one burst.
func (o *Origin) SetRate(bytesPerSecond int) {
	if bytesPerSecond <= 0 {
		o.limit.Store(nil)
		return
	}
	o.limit.Store(rate.NewLimiter(rate.Limit(bytesPerSecond), max(bytesPerSecond/20, 2*blockSize)))
}

// SetLatency is the wait before the head of every answer.
func (o *Origin) SetLatency(d time.Duration) { o.latency.Store(int64(d)) }

// SetDeaf makes connections be accepted and never be read, not even for a TLS
// handshake. It concerns connections made from now on.
func (o *Origin) SetDeaf(on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deaf = on
}

// Refuse closes the ports and all connections: who comes is refused.
func (o *Origin) Refuse() {
	o.mu.Lock()
	listeners := o.listeners
	o.listeners = nil
	for c := range o.conns {
		_ = c.Close() // it ends the goroutine that serves it
	}
	o.mu.Unlock()
	for _, ln := range listeners {
		_ = ln.Close()
	}
}

// Accept opens the ports again after Refuse, the same ones.
func (o *Origin) Accept(t testing.TB) {
	t.Helper()
	if err := o.listen(); err != nil {
		t.Fatalf("opening the ports of the origin again: %v", err)
	}
}

// Requests returns what came so far, in order of arrival.
func (o *Origin) Requests() []Recorded {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make([]Recorded, len(o.requests))
	for i, r := range o.requests {
		all[i] = *r
	}
	return all
}

// RequestsFor returns what came so far for one path.
func (o *Origin) RequestsFor(path string) []Recorded {
	var some []Recorded
	for _, r := range o.Requests() {
		if r.Path == path {
			some = append(some, r)
		}
	}
	return some
}

// BytesSent returns how many bytes of bodies left for requests of path, and
// for all requests when path is "".
func (o *Origin) BytesSent(path string) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if path == "" {
		return o.sentAll
	}
	return o.sent[path]
}

// Connections returns how many are open now.
func (o *Origin) Connections() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.conns)
}

// Reset forgets requests and counts. Objects and behaviours stay.
func (o *Origin) Reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requests, o.sentAll = nil, 0
	clear(o.asked)
	clear(o.sent)
}

// listen opens both ports, those of before if there were any.
func (o *Origin) listen() error {
	plain, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return err
	}
	secure, err := net.Listen("tcp", o.TLSAddr)
	if err != nil {
		_ = plain.Close()
		return err
	}
	o.Addr, o.TLSAddr = plain.Addr().String(), secure.Addr().String()
	o.mu.Lock()
	o.listeners = []net.Listener{plain, secure}
	o.mu.Unlock()
	o.wg.Go(func() { o.accept(plain, nil) })
	o.wg.Go(func() { o.accept(secure, o.tls) })
	return nil
}

func (o *Origin) accept(ln net.Listener, secure *tls.Config) {
	for {
		raw, err := ln.Accept()
		if err != nil {
			return // closed
		}
		o.mu.Lock()
		if o.closed || o.listeners == nil {
			o.mu.Unlock()
			_ = raw.Close()
			return
		}
		o.opened++
		s := &session{o: o, raw: raw, conn: raw, id: o.opened, deaf: o.deaf}
		o.conns[raw] = struct{}{}
		o.wg.Go(func() {
			defer o.forget(raw)
			s.serve(secure)
		})
		o.mu.Unlock()
	}
}

func (o *Origin) forget(raw net.Conn) {
	_ = raw.Close()
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.conns, raw)
}

// session is one connection.
type session struct {
	o    *Origin
	id   int64
	deaf bool
	raw  net.Conn
	conn net.Conn // raw, or TLS over it
	sni  string
	r    *bufio.Reader
}

func (s *session) serve(secure *tls.Config) {
	if s.deaf {
		<-s.o.ctx.Done()
		return
	}
	if secure != nil {
		c := tls.Server(s.raw, secure)
		if err := c.HandshakeContext(s.o.ctx); err != nil {
			return
		}
		s.conn, s.sni = c, c.ConnectionState().ServerName
	}
	s.r = bufio.NewReaderSize(s.conn, 64<<10)
	for {
		req, err := s.readRequest()
		if err != nil {
			return
		}
		if !s.answer(req) {
			return
		}
	}
}

// record adds a request to those remembered and says how to answer it.
func (o *Origin) record(r *Recorded) Behaviour {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked[r.Path]++
	r.Ordinal = o.asked[r.Path]
	o.requests = append(o.requests, r)
	if p := o.plans[r.Path]; p != nil {
		return p.next()
	}
	if o.every != nil {
		return o.every.next()
	}
	return Behaviour{}
}
