package gate

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"larder/internal/control/roster"
)

// Lot is where connections wait while their nodes poll. A poll that is held in a
// handler costs two goroutines with their stacks and the server's buffers, some
// 45 KB; with ten thousand nodes that is most of what a control plane needs. So
// the connection is taken out of the server, waits here for little more than its
// TLS state, is answered when its time has come, and is given back to the server
// as if it had just been accepted.
type Lot struct {
	back chan net.Conn
	done chan struct{} // closed by Close

	mu     sync.Mutex
	parked map[*parked]struct{} // guarded by mu; nil after Close
}

// parked is a poll that is held.
type parked struct {
	conn  net.Conn
	node  string
	line  int64 // a poll of an enrolment that was succeeded is nobody's
	after int64
	timer *time.Timer
}

// ended says whether the identity that the poll came with is no longer good.
func (p *parked) ended(m roster.Member) bool { return m.Revoked || m.Line != p.line }

// NewLot makes an empty Lot.
func NewLot() *Lot {
	return &Lot{back: make(chan net.Conn), done: make(chan struct{}), parked: map[*parked]struct{}{}}
}

// Listener is inner, with the connections that come back.
func (l *Lot) Listener(inner net.Listener) net.Listener {
	x := &listener{Listener: inner, lot: l, fresh: make(chan accepted), closed: make(chan struct{})}
	go x.pump()
	return x
}

type accepted struct {
	conn net.Conn
	err  error
}

type listener struct {
	net.Listener
	lot    *Lot
	fresh  chan accepted
	once   sync.Once
	closed chan struct{}
}

// pump accepts until the listener is closed.
func (x *listener) pump() {
	for {
		c, err := x.Listener.Accept()
		select {
		case x.fresh <- accepted{c, err}:
		case <-x.closed:
			if err == nil {
				c.Close()
			}
			return
		}
	}
}

func (x *listener) Accept() (net.Conn, error) {
	select {
	case a := <-x.fresh:
		return a.conn, a.err
	case c := <-x.lot.back:
		return c, nil
	case <-x.closed:
		return nil, net.ErrClosed
	}
}

func (x *listener) Close() error {
	x.once.Do(func() { close(x.closed) })
	return x.Listener.Close()
}

// Close cuts all that wait, and those that would.
func (l *Lot) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.parked == nil {
		return
	}
	close(l.done)
	for p := range l.parked {
		p.timer.Stop()
		p.conn.Close()
	}
	l.parked = nil
}

// Len is how many wait.
func (l *Lot) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.parked)
}

// add parks a poll, false if the lot is closed. late is called if nothing
// happens in the time given.
func (l *Lot) add(p *parked, wait time.Duration, late func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.parked == nil {
		return false
	}
	l.parked[p] = struct{}{}
	p.timer = time.AfterFunc(wait, late)
	return true
}

// take takes a poll out, false if somebody else did.
func (l *Lot) take(p *parked) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.parked[p]; !ok {
		return false
	}
	delete(l.parked, p)
	p.timer.Stop()
	return true
}

func (l *Lot) all() []*parked {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*parked, 0, len(l.parked))
	for p := range l.parked {
		all = append(all, p)
	}
	return all
}

// answerTime is how long a node may take to take an answer.
const answerTime = 10 * time.Second

// answer sends what a poll waited for, and gives the connection back. body nil
// is 204.
func (l *Lot) answer(p *parked, body []byte) {
	head := "HTTP/1.1 204 No Content\r\n"
	if body != nil {
		head = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n", len(body))
	}
	head += "Date: " + time.Now().UTC().Format(http.TimeFormat) + "\r\nCache-Control: no-store\r\n\r\n"
	if p.conn.SetDeadline(time.Now().Add(answerTime)) != nil {
		p.conn.Close()
		return
	}
	if _, err := p.conn.Write(append([]byte(head), body...)); err != nil {
		p.conn.Close() // the node has left
		return
	}
	if p.conn.SetDeadline(time.Time{}) != nil {
		p.conn.Close()
		return
	}
	select {
	case l.back <- p.conn:
	case <-l.done:
		p.conn.Close()
	}
}

// park takes the connection of a poll out of the server, false if that cannot
// be: the caller then holds the poll itself.
func (g *Gate) park(w http.ResponseWriter, node string, line, after int64, wait time.Duration) bool {
	if g.o.Lot == nil || wait <= 0 {
		return false
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return false // HTTP/2, or a test's recorder
	}
	p := &parked{conn: conn, node: node, line: line, after: after}
	if rw.Reader.Buffered() > 0 || conn.SetDeadline(time.Time{}) != nil {
		// Whoever sends the next request before this answer gets it from nobody.
		conn.Close()
		return true
	}
	if !g.o.Lot.add(p, wait, func() {
		if g.o.Lot.take(p) {
			g.o.Lot.answer(p, nil)
		}
	}) {
		conn.Close()
		return true
	}
	g.look(context.Background(), p) // what changed in between
	return true
}

// look answers a poll if there is something to say.
func (g *Gate) look(ctx context.Context, p *parked) {
	m, ok := g.o.Roster.Now().Member(p.node)
	switch {
	case ok && !p.ended(m) && m.Desired <= p.after, !g.o.Lot.take(p):
		return
	case !ok || p.ended(m):
		p.conn.Close() // it asks anew, and is told why not
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	d, err := g.o.Roster.Document(ctx, p.node)
	var body []byte
	if err == nil {
		body, err = json.Marshal(d)
	}
	if err != nil {
		g.o.Log.ErrorContext(ctx, "document not read, the node asks again", "node", p.node, "err", err)
		p.conn.Close()
		return
	}
	g.o.Lot.answer(p, append(body, '\n'))
}

// Run answers polls that wait as documents change, until ctx ends.
func (g *Gate) Run(ctx context.Context) error {
	if g.o.Lot == nil {
		return nil
	}
	defer g.o.Lot.Close()
	slots := make(chan struct{}, 16) // documents read at the same time
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		changed := g.o.Roster.Changed()
		now := g.o.Roster.Now()
		for _, p := range g.o.Lot.all() {
			if m, ok := now.Member(p.node); ok && !p.ended(m) && m.Desired <= p.after {
				continue
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				g.look(ctx, p)
			})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
