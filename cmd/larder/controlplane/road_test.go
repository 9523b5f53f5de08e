package controlplane_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// road is what lies between some nodes and the control plane: a load balancer
// that passes TCP through to whichever replica answers, and that can be cut.
type road struct {
	ln net.Listener

	mu      sync.Mutex
	targets []string          // addresses of replicas; guarded by mu
	turn    int               // guarded by mu
	cut     bool              // guarded by mu
	conns   map[net.Conn]bool // guarded by mu
}

func newRoad(t *testing.T, targets ...string) *road {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &road{ln: ln, targets: targets, conns: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.carry(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		r.close()
		wg.Wait()
	})
	return r
}

func (r *road) url() string { return "https://" + r.ln.Addr().String() }

// lead makes new connections go to these replicas.
func (r *road) lead(targets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.targets = targets
}

// close cuts the road, and everything that is on it.
func (r *road) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	for c := range r.conns {
		c.Close()
	}
}

func (r *road) open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}

// keep notes a connection, false if the road is cut.
func (r *road) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		c.Close()
		return false
	}
	r.conns[c] = true
	return true
}

func (r *road) drop(c net.Conn) {
	c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}

// next are the replicas in the order in which they are tried.
func (r *road) next() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn++
	var all []string
	for i := range r.targets {
		all = append(all, r.targets[(r.turn+i)%len(r.targets)])
	}
	return all
}

func (r *road) carry(in net.Conn) {
	if !r.keep(in) {
		return
	}
	defer r.drop(in)
	for _, target := range r.next() {
		out, err := net.Dial("tcp", target)
		if err != nil {
			continue
		}
		if !r.keep(out) {
			return
		}
		defer r.drop(out)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(out, in) // ends when either side does
			out.Close()
		}()
		_, _ = io.Copy(in, out)
		in.Close()
		<-done
		return
	}
}
