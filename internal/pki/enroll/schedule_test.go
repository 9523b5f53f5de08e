package enroll

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var day0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestRenewedAtTwoThirdsOfLife(t *testing.T) {
	t.Parallel()
	tests := []struct{ life, least, most time.Duration }{
		{90 * 24 * time.Hour, 57 * 24 * time.Hour, 60 * 24 * time.Hour},
		{24 * time.Hour, 15*time.Hour + 12*time.Minute, 16 * time.Hour},
		{time.Minute, 38 * time.Second, 40 * time.Second},
	}
	for _, tt := range tests {
		var sum time.Duration
		for i := range 1000 {
			at := RenewAt(day0, day0.Add(tt.life), fmt.Sprint("node", i)).Sub(day0)
			if at < tt.least || at > tt.most {
				t.Fatalf("life %s: renewed after %s, want %s to %s", tt.life, at, tt.least, tt.most)
			}
			sum += at
		}
		// A thousand nodes are spread over the whole of it.
		if mean, middle := sum/1000, (tt.least+tt.most)/2; mean < middle-(tt.most-tt.least)/20 || mean > middle+(tt.most-tt.least)/20 {
			t.Errorf("life %s: on average after %s, want about %s", tt.life, mean, middle)
		}
	}
	if first, again := RenewAt(day0, day0.Add(time.Hour), "a"), RenewAt(day0, day0.Add(time.Hour), "a"); !first.Equal(again) {
		t.Error("the same seed gives two times")
	}
}

func TestPausesAfterFailures(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	tests := []struct {
		name             string
		failures         int
		life, left, hint time.Duration
		want             time.Duration // give or take a fifth
	}{
		{"the first", 1, year, year / 3, 0, time.Minute},
		{"the fifth", 5, year, year / 3, 0, 16 * time.Minute},
		{"the hundredth", 100, year, year / 3, 0, 4 * time.Hour},
		{"a day is left", 100, year, 24 * time.Hour, 0, 144 * time.Minute},
		{"an hour is left", 100, year, time.Hour, 0, 6 * time.Minute},
		{"expired", 100, year, -time.Hour, 0, time.Hour},
		{"no certificate yet", 100, 0, 0, 0, time.Hour},
		{"no certificate yet, the first", 1, 0, 0, 0, time.Minute},
		{"a life of five minutes", 1, 5 * time.Minute, 100 * time.Second, 0, 3 * time.Second},
		{"a life of five minutes, the tenth", 10, 5 * time.Minute, 100 * time.Second, 0, 10 * time.Second},
		{"the authority says tomorrow", 1, year, year / 3, 24 * time.Hour, 24 * time.Hour},
	}
	for _, tt := range tests {
		for i := range 50 {
			got := RetryAfter(tt.failures, tt.life, tt.left, tt.hint, fmt.Sprint(i))
			if got < tt.want*8/10 || got > tt.want*12/10 {
				t.Errorf("%s: %s, want about %s", tt.name, got, tt.want)
				break
			}
		}
	}
}

// Whatever the life: it never hammers, and it always gets several tries before
// the end.
func TestRetriesNeitherHammerNorGiveUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		life := time.Duration(rapid.Int64Range(int64(time.Minute), int64(3*365*24*time.Hour)).Draw(t, "life"))
		seed := rapid.StringMatching(`[a-z]{8}`).Draw(t, "seed")
		now := RenewAt(day0, day0.Add(life), seed)
		end, tries := day0.Add(life), 0
		for now.Before(end) {
			tries++
			pause := RetryAfter(tries, life, end.Sub(now), 0, fmt.Sprint(seed, tries))
			if pause < 800*time.Millisecond || pause > 5*time.Hour {
				t.Fatalf("a pause of %s", pause)
			}
			now = now.Add(pause)
			if tries > 100_000 {
				t.Fatal("it hammers")
			}
		}
		if tries < 5 {
			t.Fatalf("%d tries in a life of %s", tries, life)
		}
		if pause := RetryAfter(tries+1, life, -life, 0, seed); pause > 75*time.Minute {
			t.Fatalf("after its end a pause of %s", pause)
		}
	})
}
