package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Stampede is many clients that want all the pieces at the same moment, each in an order of its own.
type Stampede struct {
	Target  Target
	Pieces  []Piece
	Clients int
	Conns   int // per client
	Seed    uint64
}

// StampedeFigures is how it went.
type StampedeFigures struct {
	Wall      time.Duration   // until the last client had everything
	FirstByte []time.Duration // until the first byte of every answer, sorted
	FirstBody []time.Duration // until the first byte of every answer's body, sorted
}

// Run checks every byte of every answer.
func (s Stampede) Run(ctx context.Context) (StampedeFigures, error) {
	group, ctx := errgroup.WithContext(ctx)
	var (
		f     StampedeFigures
		ready sync.WaitGroup
		begin = make(chan struct{})
		mu    sync.Mutex // guards f
	)
	ready.Add(s.Clients * s.Conns)
	for client := range s.Clients {
		order := rand.New(rand.NewPCG(s.Seed, uint64(client))).Perm(len(s.Pieces))
		next := make(chan int, len(order))
		for _, i := range order {
			next <- i
		}
		close(next)
		for range s.Conns {
			group.Go(func() error {
				connected := sync.OnceFunc(ready.Done)
				defer connected()
				c, err := s.Target.dial(ctx)
				if err != nil {
					return err
				}
				defer c.Close()
				connected()
				select {
				case <-begin:
				case <-ctx.Done():
					return ctx.Err()
				}
				var heads, bodies []time.Duration
				for i := range next {
					took, err := c.do(&s.Pieces[i], true)
					if err != nil {
						return fmt.Errorf("client %d, piece %d: %w", client, i, err)
					}
					heads, bodies = append(heads, took.head), append(bodies, took.body)
				}
				mu.Lock()
				defer mu.Unlock()
				f.FirstByte = append(f.FirstByte, heads...)
				f.FirstBody = append(f.FirstBody, bodies...)
				return nil
			})
		}
	}
	ready.Wait()
	start := time.Now()
	close(begin)
	if err := group.Wait(); err != nil {
		return StampedeFigures{}, err
	}
	f.Wall = time.Since(start)
	slices.Sort(f.FirstByte)
	slices.Sort(f.FirstBody)
	return f, nil
}
