package gate

import (
	"net/netip"
	"sync"
	"time"
)

// A registration shows two keys of 256 bits, so nobody guesses one. The bound
// keeps a machine that tries in a loop from costing more than its share.
const (
	triesAtOnce = 30              // of one address
	triesEvery  = 2 * time.Second // one more
	maxTries    = 4096            // addresses that are remembered
)

// tries bounds what one address may try.
type tries struct {
	mu sync.Mutex
	by map[netip.Addr]time.Time // when the address has all its tries again; guarded by mu
}

func newTries() *tries { return &tries{by: map[netip.Addr]time.Time{}} }

// next takes one try and returns 0, or returns how long to wait for one.
func (t *tries) next(remote string, now time.Time) time.Duration {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return 0 // a Unix socket, or a test
	}
	addr := ap.Addr().Unmap()
	if addr.Is6() {
		p, _ := addr.Prefix(64)
		addr = p.Addr()
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
	full := t.by[addr]
	if full.Before(now) {
		full = now
	}
	if wait := full.Add(triesEvery).Sub(now) - triesAtOnce*triesEvery; wait > 0 {
		return wait
	}
	t.by[addr] = full.Add(triesEvery)
	return 0
}
