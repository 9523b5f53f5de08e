package revocation

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"net/url"
	"sync"
	"time"

	"larder/internal/pki/problem"
)

const (
	// longestHeld bounds how long a list is used again. Lists count for days,
	// and a CA that revokes something publishes a new one before that: a check
	// a day must not look at yesterday's list.
	longestHeld = time.Hour

	// failedFor is how long a place that did not work is not asked again, so
	// that many who wait for it do not wait one after the other.
	failedFor = 30 * time.Second

	mostHeld      = 16
	mostHeldBytes = 2 * mostCRL
)

// shelf holds lists that were fetched.
type shelf struct {
	mu   sync.Mutex
	held map[string]*held // guarded by mu; by address and CA
}

// held is one place of the shelf. Who has its turn may fetch and change it;
// the others wait for that, or leave.
type held struct {
	turn chan struct{} // holds one token while somebody has the turn

	list   *list            // guarded by turn; the newest there was, also while failed is set
	failed *problem.Problem // guarded by turn; why there is no list
	noted  *problem.Problem // guarded by turn; what is to be said with the list
	until  time.Time        // guarded by turn; list or failed count until then

	used  time.Time // guarded by the shelf's mu
	bytes int       // guarded by the shelf's mu
}

type fetchFunc func(ctx context.Context, source string, u *url.URL, issuer *x509.Certificate) (*list, *problem.Problem)

// get returns the list of u that issuer signed, fetched now or a short while
// ago, or nil with what is wrong. With a list, a problem is but a remark.
//
// Lists come over HTTP, and an old one may count for days: whoever is on the way
// can put it in the place of the new one that revokes. One that is older than
// the one at hand is not taken as long as that counts. (After that it is: it
// counts longer, so the CA must have begun to number anew.)
func (s *shelf) get(ctx context.Context, source string, u *url.URL, issuer *x509.Certificate, fetch fetchFunc) (*list, *problem.Problem) {
	sum := sha256.Sum256(issuer.Raw)
	key := u.String() + "\x00" + string(sum[:])
	h := s.place(key)
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return nil, &problem.Problem{Field: source, Found: "no answer yet when the check was ended", Expected: "a list", Err: context.Cause(ctx)}
	}
	if now := time.Now(); now.Before(h.until) && (h.failed != nil || !now.After(h.list.head.NextUpdate)) {
		return h.answer()
	}
	l, p := fetch(ctx, source, u, issuer)
	now := time.Now()
	switch {
	case p == nil && h.list != nil && l.olderThan(h.list) && fresh(source, "a list", h.list.head.ThisUpdate, h.list.head.NextUpdate, now) == nil:
		h.failed, h.until = nil, now.Add(failedFor)
		h.noted = &problem.Problem{Field: source, Found: "an older list than before, of " + at(l.head.ThisUpdate), Expected: "the one of " + at(h.list.head.ThisUpdate) + ", which is used on, or a newer one",
			Next: "tell whoever runs the CA, if it stays so; somebody on the way may also have put an old list in its place"}
	case p == nil:
		h.list, h.failed, h.noted, h.until = l, nil, nil, now.Add(longestHeld)
		s.weigh(key, h, len(l.der))
	case ctx.Err() != nil: // it is not the place's fault
		return nil, p
	default:
		h.failed, h.until = p, now.Add(failedFor)
	}
	return h.answer()
}

// answer is what get returns. Who calls it has the turn.
func (h *held) answer() (*list, *problem.Problem) {
	if h.failed != nil {
		return nil, h.failed
	}
	return h.list, h.noted
}

// place returns the place for key.
func (s *shelf) place(key string) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[key]
	if h == nil {
		h = &held{turn: make(chan struct{}, 1)}
		s.held[key] = h
	}
	h.used = time.Now()
	s.shrink(h)
	return h
}

// weigh notes how much h holds.
func (s *shelf) weigh(key string, h *held, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.bytes = bytes
	if s.held[key] == h {
		s.shrink(h)
	}
}

// shrink drops what was not used for longest, but for keep, until the shelf is
// within its bounds. mu is held.
func (s *shelf) shrink(keep *held) {
	for {
		total := 0
		var oldest string
		for key, h := range s.held {
			total += h.bytes
			if h != keep && (oldest == "" || h.used.Before(s.held[oldest].used)) {
				oldest = key
			}
		}
		if oldest == "" || len(s.held) <= mostHeld && total <= mostHeldBytes {
			return
		}
		delete(s.held, oldest)
	}
}
