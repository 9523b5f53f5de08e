package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"larder/internal/fleet"
)

// node is one node of the fleet. It has the manners of internal/node/link: one
// connection, on which it delivers once a minute and holds a poll in between, and
// minutes that wait until they are acknowledged.
type node struct {
	f        *flock
	id       identity
	share    float64 // of the time over which nodes are spread: its turn
	instance string
	started  time.Time
	rand     *rand.Rand

	running int64 // number of the document it runs
	conn    *conn
	state   fleet.State
	pending []fleet.Minute
	due     []time.Time // of pending: when each should have been delivered

	// Read when that goroutine has ended.
	sent      sums // minutes that were in a delivery at least once
	taken     sums // those that were acknowledged
	seq       int64
	latencies []time.Duration // from when a report was due until it was acknowledged
	answered  int             // polls
}

// sums are minutes and the requests in them.
type sums struct{ minutes, requests int64 }

func (s *sums) add(o sums) { s.minutes += o.minutes; s.requests += o.requests }

// flock is what the nodes of a run share.
type flock struct {
	s     settings
	dial  dialer
	tls   *tls.Config
	first time.Time // when the first minute ends, at a whole one as nodes' clocks have it

	mu     sync.Mutex
	errors map[string]int // by kind; guarded by mu
}

// failed counts an error, unless the run is over.
func (f *flock) failed(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errors[what+": "+kind(err)]++
}

func newNode(f *flock, id identity, i int, share float64) *node {
	n := &node{f: f, id: id, share: share, instance: fmt.Sprintf("%016x", rand.Uint64()), started: time.Now(), rand: rand.New(rand.NewPCG(uint64(i), 0))}
	if !f.s.poll {
		n.running = 1
	}
	n.state = newState(i, n.started)
	return n
}

// come has the node start: it says how it is, and begins to poll. The nodes of a
// fleet come one after another, in the time until the first minute ends.
func (n *node) come(ctx context.Context, from time.Time) bool {
	if !sleepUntil(ctx, from.Add(time.Duration(n.share*float64(n.f.first.Sub(from))*.9))) {
		return false
	}
	if err := n.deliver(ctx); err != nil {
		n.f.failed(ctx, "first report", err)
	}
	n.perhapsHangUp()
	return true
}

// report delivers the minutes of the run, each when it is due or as soon after
// that as the control plane takes it, until all are taken or ctx ends. The
// connection stays.
func (n *node) report(ctx context.Context) {
	every := n.f.s.every
	turn := time.Duration(n.share * n.f.s.spread * float64(every))
	due := func(k int) time.Time { return n.f.first.Add(time.Duration(k)*every + turn) }
	// Not at the same moment of each minute: timers and networks are not that even.
	jitter := func() time.Duration { return time.Duration(n.rand.Float64() * float64(every) / 60) }
	failures := 0
	for next, at := 0, due(0).Add(jitter()); next < n.f.s.minutes || len(n.pending) > 0; {
		for next < n.f.s.minutes && !time.Now().Before(at) {
			m := n.minute(n.f.first.Add(time.Duration(next) * every))
			n.pending, n.due = append(n.pending, m), append(n.due, at)
			n.sent.add(sums{1, requests(&m)})
			next++
			at = due(next).Add(jitter())
		}
		if len(n.pending) == 0 {
			if !n.wait(ctx, at) {
				return
			}
			continue
		}
		if err := n.deliver(ctx); err != nil {
			n.f.failed(ctx, "report", err)
			failures++
			if !sleepUntil(ctx, time.Now().Add(pause(failures))) {
				return
			}
			continue
		}
		failures = 0
		n.perhapsHangUp()
	}
}

// pause is how long a node waits after so many failures in a row.
func pause(failures int) time.Duration {
	d := min(time.Second<<min(failures-1, 10), 2*time.Minute)
	return d + time.Duration(rand.Float64()*float64(d/5))
}

// deliver sends the node's state and the minutes that wait, and forgets those
// that are acknowledged.
func (n *node) deliver(ctx context.Context) error {
	now := time.Now()
	n.step(now)
	var body bytes.Buffer
	z := packers.Get().(*gzip.Writer)
	defer packers.Put(z)
	z.Reset(&body)
	d := &fleet.Delivery{Protocol: fleet.Protocol, Instance: n.instance, Sent: now.UTC(), State: n.state, Minutes: n.pending}
	if err := errors.Join(json.NewEncoder(z).Encode(d), z.Close()); err != nil {
		return err
	}
	a, err := n.ask(ctx, http.MethodPost, fleet.PathReports, body.Bytes(), time.Minute)
	if err != nil {
		return err
	}
	var got fleet.Accepted
	if err := a.into(&got); err != nil {
		return err
	}
	if got.Seq < n.seq {
		return errors.New("acknowledged less than was sent")
	}
	for i := range n.pending {
		n.taken.add(sums{1, requests(&n.pending[i])})
		n.latencies = append(n.latencies, time.Since(n.due[i]))
	}
	n.pending, n.due = n.pending[:0], n.due[:0]
	return nil
}

// packers are kept: each is close to a megabyte.
var packers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

// ask makes one request on the node's connection, which it makes if there is none.
func (n *node) ask(ctx context.Context, method, path string, body []byte, limit time.Duration) (a answer, err error) {
	if n.conn == nil {
		if n.conn, err = n.f.dial.dial(ctx, n.tlsConfig()); err != nil {
			return a, err
		}
	}
	a, err = n.conn.do(method, path, body, limit)
	if err != nil || a.close {
		n.hangUp()
	}
	return a, err
}

func (n *node) tlsConfig() *tls.Config {
	cfg := n.f.tls.Clone()
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &n.id.cert, nil }
	return cfg
}

func (n *node) hangUp() {
	if n.conn != nil {
		n.conn.Close()
		n.conn = nil
	}
}

// perhapsHangUp ends the connection that the share of -reconnect loses: routers
// forget those that are silent.
func (n *node) perhapsHangUp() {
	if n.rand.Float64() < n.f.s.reconnect {
		n.hangUp()
	}
}

// pollWait is how long the control plane is asked to hold a poll at most.
const pollWait = 50 * time.Second

// wait holds polls until at, false when ctx ends first.
func (n *node) wait(ctx context.Context, at time.Time) bool {
	if !n.f.s.poll {
		return sleepUntil(ctx, at)
	}
	for failures := 0; ; {
		left := time.Until(at)
		if left <= 0 || ctx.Err() != nil {
			return ctx.Err() == nil
		}
		if err := n.poll(ctx, min(left, pollWait)); err != nil {
			n.f.failed(ctx, "poll", err)
			failures++
			if end := time.Now().Add(pause(failures)); !sleepUntil(ctx, minTime(end, at)) {
				return false
			}
			continue
		}
		failures = 0
	}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// poll asks once for a document, and waits for it.
func (n *node) poll(ctx context.Context, wait time.Duration) error {
	a, err := n.ask(ctx, http.MethodGet, fmt.Sprintf("%s?wait=%.3f&after=%d", fleet.PathDesired, wait.Seconds(), n.running), nil, wait+30*time.Second)
	if err != nil {
		return err
	}
	n.answered++
	if a.status == http.StatusNoContent {
		return nil
	}
	var d fleet.Desired
	if err := a.into(&d); err != nil {
		return err
	}
	n.running = d.Number // it is applied in no time here
	return nil
}

// sleepUntil is false when ctx ends first.
func sleepUntil(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
