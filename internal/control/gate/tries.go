package gate

import (
	"net/netip"
	"sync"
	"time"
)

// A registration shows two keys of 256 bits, so nobody guesses one. The bound
// keeps a machine that fails in a loop from costing more than its share. Those
// that succeed are not counted: behind a load balancer or a proxy, a whole fleet
// has one address.
const (
	triesAtOnce = 30              // failures of one address
	triesEvery  = 2 * time.Second // one more
	maxTries    = 4096            // addresses that are remembered
)

// tries bounds how often one address may fail.
type tries struct {
	mu sync.Mutex
	by map[netip.Addr]time.Time // when the address has all its tries again; guarded by mu
}

func newTries() *tries { return &tries{by: map[netip.Addr]time.Time{}} }

// wait is how long an address must wait before it may try; mostly 0.
func (t *tries) wait(remote string, now time.Time) time.Duration {
	addr, ok := source(remote)
	if !ok {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	full := t.by[addr]
	if full.Before(now) {
		return 0
	}
	return max(0, full.Add(triesEvery).Sub(now)-triesAtOnce*triesEvery)
}

// failed counts a failure.
func (t *tries) failed(remote string, now time.Time) {
	addr, ok := source(remote)
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.by) >= maxTries {
		for a, full := range t.by {
			if full.Before(now) {
				delete(t.by, a)
			}
		}
	}
	for a := range t.by { // all wait still: forgetting some is better than growing
		if len(t.by) < maxTries {
			break
		}
		delete(t.by, a)
	}
	full := t.by[addr]
	if full.Before(now) {
		full = now
	}
	t.by[addr] = full.Add(triesEvery)
}

// source is whom an address stands for; false for a Unix socket, or a test.
func source(remote string) (netip.Addr, bool) {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}, false
	}
	addr := ap.Addr().Unmap()
	if addr.Is6() {
		p, _ := addr.Prefix(64)
		addr = p.Addr()
	}
	return addr, true
}
