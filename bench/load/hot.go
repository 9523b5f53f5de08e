package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Hot asks for random pieces over a fixed number of connections, each of which
// sends its next request when the answer is in.
type Hot struct {
	Target   Target
	Pieces   []Piece
	Conns    int
	Duration time.Duration
	Begin    func() error // called when all connections have had their first answers, before the time that counts
}

// HotFigures is what a run did in the time that counts.
type HotFigures struct {
	Requests int64         // answered, those that were under way when the time was up included
	InTime   int64         // answered within the time that counts
	Bytes    int64         // of the bodies of Requests
	Longest  time.Duration // one answer took
}

// Run returns when the last answer is in. The bytes of the first answers are checked, of
// the others only status and length: checking costs the processor that the server needs.
func (h Hot) Run(ctx context.Context) (HotFigures, error) {
	group, ctx := errgroup.WithContext(ctx)
	var warm sync.WaitGroup
	warm.Add(h.Conns)
	begin := make(chan struct{})
	var stop time.Time // set before begin is closed
	done := make([]HotFigures, h.Conns)
	for i := range h.Conns {
		group.Go(func() error {
			warmed := sync.OnceFunc(warm.Done)
			defer warmed()
			c, err := h.Target.dial(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range 4 {
				if _, err := c.do(&h.Pieces[r.IntN(len(h.Pieces))], true); err != nil {
					return fmt.Errorf("connection %d: %w", i, err)
				}
			}
			warmed()
			select {
			case <-begin:
			case <-ctx.Done():
				return ctx.Err()
			}
			var f HotFigures
			for now := time.Now(); now.Before(stop); {
				p := &h.Pieces[r.IntN(len(h.Pieces))]
				if _, err := c.do(p, false); err != nil {
					return fmt.Errorf("connection %d, request %d: %w", i, f.Requests, err)
				}
				f.Requests++
				f.Bytes += int64(len(p.Body))
				then := now
				now = time.Now()
				f.Longest = max(f.Longest, now.Sub(then))
				if now.Before(stop) {
					f.InTime++
				}
			}
			done[i] = f
			return nil
		})
	}
	warm.Wait()
	var beginErr error
	if h.Begin != nil {
		beginErr = h.Begin()
	}
	stop = time.Now()
	if beginErr == nil {
		stop = stop.Add(h.Duration)
	}
	close(begin)
	if err := group.Wait(); err != nil {
		return HotFigures{}, err
	}
	var f HotFigures
	for _, d := range done {
		f.Requests += d.Requests
		f.InTime += d.InTime
		f.Bytes += d.Bytes
		f.Longest = max(f.Longest, d.Longest)
	}
	return f, beginErr
}

// Fetch asks for the pieces one after the other and checks every byte: it makes a cache warm.
func Fetch(ctx context.Context, t Target, pieces []Piece) error {
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range pieces {
		if _, err := c.do(&pieces[i], true); err != nil {
			return fmt.Errorf("piece %d: %w", i, err)
		}
	}
	return nil
}
