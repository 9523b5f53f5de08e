package origin

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// maxSlice and minSlice bound what one transfer takes at a time, in
	// bytes. A slice is what a transfer may hold back from the others.
	maxSlice = 64 << 10
	minSlice = 256

	// lookAgain is how often a waiting transfer asks the schedule.
	lookAgain = 500 * time.Millisecond
)

// bucket shares one bandwidth limit among all transfers: each in its turn
// takes a slice. Slices are so small that every transfer has several turns a
// second, so that a slow transfer does not look like a dead one.
type bucket struct {
	now   func() time.Time // the schedule's clock
	limit atomic.Pointer[limitInForce]

	members atomic.Int64  // transfers that share: from join to leave
	turn    chan struct{} // holds the turn; Go wakes senders in their order

	// Owned by whoever has the turn.
	tokens float64 // bytes that may be taken now
	filled time.Time
}

type limitInForce struct {
	Limit
	replaced chan struct{} // closed when it is no longer in force
}

func newBucket(l Limit, now func() time.Time) *bucket {
	b := &bucket{now: now, turn: make(chan struct{}, 1), filled: time.Now()}
	b.limit.Store(&limitInForce{l, make(chan struct{})})
	return b
}

func (b *bucket) set(l Limit) {
	old := b.limit.Swap(&limitInForce{l, make(chan struct{})})
	close(old.replaced)
}

// rate returns the rate in force, in bytes per second, 0 for unlimited.
func (b *bucket) rate() int64 {
	l := b.limit.Load()
	if l.Rate == 0 && len(l.Windows) == 0 {
		return 0
	}
	return l.At(b.now())
}

// join counts a transfer among those that share the limit, until leave.
func (b *bucket) join()  { b.members.Add(1) }
func (b *bucket) leave() { b.members.Add(-1) }

// slice returns how many bytes a transfer may read before it calls take; 0:
// any number, and take need not be called.
func (b *bucket) slice() int { return b.sliceOf(b.rate()) }

func (b *bucket) sliceOf(rate int64) int {
	if rate == 0 {
		return 0
	}
	fair := rate / 4 / max(1, b.members.Load())
	return int(min(maxSlice, max(fair, min(minSlice, max(1, rate/4)))))
}

// take waits until n bytes, read already, are within the limit. Bytes above
// one slice of now are forgiven: they were read when slices were larger, and
// to pay for them would be a long silence.
func (b *bucket) take(ctx context.Context, n int) error {
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-b.turn }()
	var timer *time.Timer
	for {
		l := b.limit.Load()
		rate := l.At(b.now())
		if rate == 0 {
			return nil
		}
		need := float64(min(n, b.sliceOf(rate)))
		now := time.Now()
		// An idle bucket saves up an eighth of a second, no more.
		b.tokens = min(b.tokens+now.Sub(b.filled).Seconds()*float64(rate), max(float64(rate)/8, need))
		b.filled = now
		if b.tokens >= need {
			b.tokens -= need
			return nil
		}
		wait := min(time.Duration((need-b.tokens)/float64(rate)*float64(time.Second))+1, lookAgain)
		if timer == nil {
			timer = time.NewTimer(wait)
			defer timer.Stop()
		} else {
			timer.Reset(wait)
		}
		select {
		case <-timer.C:
		case <-l.replaced:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
