package origin

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimitAt(t *testing.T) {
	t.Parallel()
	weekdays := [7]bool{false, true, true, true, true, true, false}
	saturday := [7]bool{time.Saturday: true}
	daily := [7]bool{true, true, true, true, true, true, true}
	l := Limit{Rate: 100, Windows: []Window{
		{Days: weekdays, From: 8 * time.Hour, To: 18 * time.Hour, Rate: 50},
		{Days: weekdays, From: 12 * time.Hour, To: 13 * time.Hour, Rate: 1}, // hidden by the first
		{Days: saturday, From: 22 * time.Hour, To: 6 * time.Hour, Rate: 0},
		{Days: saturday, From: 12 * time.Hour, To: 12 * time.Hour, Rate: 7},
	}}
	for text, want := range map[string]int64{
		"Mon 07:59:59": 100, "Mon 08:00:00": 50, "Mon 12:30:00": 50, "Mon 17:59:59": 50, "Mon 18:00:00": 100, "Fri 09:00:00": 50,
		"Sun 09:00:00": 7, "Sat 09:00:00": 100, "Sat 12:00:00": 7, "Sat 21:59:59": 7, "Sat 22:00:00": 0, "Sun 00:00:00": 0,
		"Sun 05:59:59": 0, "Sun 06:00:00": 7, "Sun 11:59:59": 7, "Sun 12:00:00": 100, "Sat 05:00:00": 100, "Mon 05:00:00": 100,
	} {
		name, clock, _ := strings.Cut(text, " ")
		d := strings.Index("sunmontuewedthufrisat", strings.ToLower(name)[:3]) / 3
		at, err := time.Parse(time.TimeOnly, clock)
		if err != nil {
			t.Fatal(err)
		}
		// 1 November 2026 is a Sunday.
		at = time.Date(2026, 11, 1+d, at.Hour(), at.Minute(), at.Second(), 0, time.UTC)
		if got := l.At(at); got != want {
			t.Errorf("%s: got %d, want %d", text, got, want)
		}
	}
	if got := (Limit{Rate: -1}).At(time.Now()); got != 0 {
		t.Errorf("a negative rate is %d", got)
	}
	// Clocks are changed: 08:00 is 08:00 on the wall.
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zone data")
	}
	l = Limit{Windows: []Window{{Days: daily, From: 8 * time.Hour, To: 9 * time.Hour, Rate: 5}}}
	for _, date := range []time.Time{time.Date(2026, 3, 29, 8, 30, 0, 0, berlin), time.Date(2026, 10, 25, 8, 30, 0, 0, berlin)} {
		if l.At(date) != 5 {
			t.Errorf("not within the window: %v", date)
		}
	}
}

// pull takes n bytes through the bucket in the slices that it asks for; returns
// the longest time without a byte.
func pull(ctx context.Context, b *bucket, n int) (longest time.Duration, err error) {
	for n > 0 {
		s := b.slice()
		if s == 0 {
			return longest, nil
		}
		s = min(s, n)
		start := time.Now()
		if err := b.take(ctx, s); err != nil {
			return longest, err
		}
		longest = max(longest, time.Since(start))
		n -= s
	}
	return longest, nil
}

func TestBucketRate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rate      int64
		transfers int
	}{{16 << 10, 1}, {16 << 10, 10}, {16 << 10, 64}, {25_000_000, 1}, {25_000_000, 64}, {1000, 4}, {1, 1}} {
		synctest.Test(t, func(t *testing.T) {
			const seconds = 10
			b := newBucket(Limit{Rate: tt.rate}, time.Now)
			each := int(tt.rate) * seconds / tt.transfers
			start := time.Now()
			type result struct{ longest, took time.Duration }
			results := make(chan result)
			for range tt.transfers {
				b.join()
			}
			for range tt.transfers {
				go func() {
					longest, err := pull(t.Context(), b, each)
					if err != nil {
						t.Error(err)
					}
					results <- result{longest, time.Since(start)}
				}()
			}
			for range tt.transfers {
				r := <-results
				if r.longest > 1100*time.Millisecond {
					t.Errorf("%d transfers at %d B/s: one had nothing for %v", tt.transfers, tt.rate, r.longest)
				}
				// Fair: all of them need all of the time.
				if s := r.took.Seconds(); s < seconds*0.85 || s > seconds*1.1 {
					t.Errorf("%d transfers at %d B/s: one took %v, want %d s", tt.transfers, tt.rate, r.took, seconds)
				}
			}
		})
	}
}

func TestBucketFollowsNewLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(Limit{Rate: 1000}, time.Now)
		done := make(chan time.Time)
		for range 3 {
			b.join()
			go func() { pull(t.Context(), b, 1_000_000); done <- time.Now() }()
		}
		time.Sleep(10 * time.Second)
		changed := time.Now()
		b.set(Limit{Rate: 0})
		for range 3 {
			if d := (<-done).Sub(changed); d > time.Second {
				t.Errorf("unlimited, and still %v", d)
			}
		}
		// What was read before a limit came is not paid for under it.
		b.set(Limit{Rate: 16 << 10})
		start := time.Now()
		if err := b.take(t.Context(), 1<<30); err != nil || time.Since(start) > time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestBucketFollowsTheSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		daily := [7]bool{true, true, true, true, true, true, true}
		midnight := time.Now().Truncate(day)
		now := func() time.Time { return midnight.Add(8*time.Hour + time.Since(midnight)%day).UTC() }
		// From a trickle to none at 08:00:05, then to a trickle at 08:00:06.
		limit := Limit{Rate: 10, Windows: []Window{{Days: daily, From: 8*time.Hour + 5*time.Second, To: 8*time.Hour + 6*time.Second, Rate: 0}}}
		b := newBucket(limit, now)
		start := time.Now()
		if _, err := pull(t.Context(), b, 1_000_000); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 5*time.Second || d > 6*time.Second {
			t.Errorf("the limit went after %v", d)
		}
		time.Sleep(2 * time.Second)
		if got := b.rate(); got != 10 {
			t.Errorf("rate is %d", got)
		}
	})
}

func TestBucketIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(Limit{Rate: 1}, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error)
		for range 3 { // one has the turn, two wait for it
			b.join()
			go func() { _, err := pull(ctx, b, 1000); errs <- err }()
		}
		synctest.Wait()
		start := time.Now()
		cancel()
		for range 3 {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
		if d := time.Since(start); d > 0 {
			t.Errorf("left after %v", d)
		}
		if len(b.turn) != 0 {
			t.Error("somebody still has the turn")
		}
	})
}
