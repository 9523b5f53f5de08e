package lease

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/control/db"
	"larder/internal/lardertest/dbtest"
)

// quick makes leases that tests need not wait for.
func quick(d *db.DB) *Leases {
	l := New(d, nil)
	l.life = 300 * time.Millisecond
	return l
}

// Of several replicas one works, and when it leaves another one follows.
func TestOneWorksAtATime(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var working, most atomic.Int32
		began := make(chan int, 100)
		var wg sync.WaitGroup
		leave := make([]context.CancelFunc, 3)
		for i := range 3 {
			rctx, cancel := context.WithCancel(ctx)
			leave[i] = cancel
			l := quick(d)
			wg.Go(func() {
				l.While(rctx, "the work", func(ctx context.Context) error {
					n := working.Add(1)
					defer working.Add(-1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					began <- i
					<-ctx.Done()
					return nil
				})
			})
		}
		seen := map[int]bool{}
		for range 3 {
			select {
			case i := <-began:
				if seen[i] {
					t.Fatalf("replica %d began twice", i)
				}
				seen[i] = true
				leave[i]()
			case <-time.After(20 * time.Second):
				t.Fatal("nobody took the lease over")
			}
		}
		stop()
		wg.Wait()
		if most.Load() != 1 {
			t.Errorf("%d replicas worked at the same time", most.Load())
		}
	})
}

func TestWorkThatFailsIsBegunAgain(t *testing.T) {
	t.Parallel()
	d := dbtest.SQLite(t)
	ctx, stop := context.WithCancel(t.Context())
	n := 0
	l := quick(d)
	l.While(ctx, "w", func(ctx context.Context) error {
		if n++; n == 3 {
			stop()
		}
		return errors.New("no")
	})
	if n != 3 {
		t.Errorf("it was begun %d times, want 3", n)
	}
}

// A holder that died keeps the lease until it runs out, and no longer.
func TestALeaseRunsOut(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		dead, next := quick(d), quick(d)
		until, err := dead.take(t.Context(), "w")
		if err != nil || until.IsZero() {
			t.Fatalf("not taken: %v", err)
		}
		if got, err := next.take(t.Context(), "w"); err != nil || !got.IsZero() {
			t.Fatalf("taken by two: %v", err)
		}
		if got, err := dead.take(t.Context(), "w"); err != nil || got.IsZero() {
			t.Errorf("not prolonged: %v", err)
		}
		taken := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		over := make(chan error, 1)
		go func() {
			over <- next.While(ctx, "w", func(ctx context.Context) error { close(taken); <-ctx.Done(); return nil })
		}()
		select {
		case <-taken:
		case <-time.After(20 * time.Second):
			t.Error("the lease of the dead never ran out")
		}
		stop()
		<-over
	})
}
