package vet

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLevels(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	tests := []struct {
		name       string
		life, left time.Duration
		want       Level
	}{
		{"a year, fresh", 365 * day, 365 * day, None},
		{"a year, more than a third left", 365 * day, 122 * day, None},
		{"a year, a third left", 365 * day, 365 * day / 3, Notice},
		{"a year, a sixth left", 365 * day, 365 * day / 6, Warning},
		{"a year, 14 days left", 365 * day, 14 * day, Warning},
		{"a year, 3 days left", 365 * day, 3 * day, Urgent},
		{"a year, a day left", 365 * day, day, Critical},
		{"a year, in its last second", 365 * day, 0, Critical},
		{"a year, over", 365 * day, -1, Expired},
		{"90 days, renewed at two thirds: never noticed", 90 * day, 31 * day, None},
		{"90 days, a third left", 90 * day, 30 * day, Notice},
		{"36 days: 14 are more than a third", 36 * day, 13 * day, Notice},
		{"36 days: 7 are more than a sixth", 36 * day, 7 * day, Warning},
		{"36 days: 8 are not yet a warning", 36 * day, 8 * day, Notice},
		{"a week, fresh: 14 days left are more than it lives, and no alarm", 7 * day, 7 * day, None},
		{"a week, renewed at two thirds: no more than a notice", 7 * day, 7 * day / 3, Notice},
		{"a week, a quarter left", 7 * day, 42 * hour, Warning},
		{"a week, an eighth left", 7 * day, 21 * hour, Urgent},
		{"a week, a sixteenth left", 7 * day, 10 * hour, Critical},
		{"a day, fresh", day, day, None},
		{"a day, half left", day, 12 * hour, Notice},
		{"a day, an hour left", day, hour, Critical},
		{"not yet valid", 90 * day, 100 * day, None},
		{"ends before it begins", -day, 5 * day, None},
		{"8000 years", 1<<63 - 1, 1<<63 - 1, None},
	}
	for _, tt := range tests {
		end := now.Add(tt.left)
		if got := Left(end.Add(-tt.life), end, now); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestLevelsRise: whatever the life, levels come one after the other, and none
// of them takes all of it.
func TestLevelsRise(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		life := time.Duration(rapid.Int64Range(0, int64(100*365*day)).Draw(t, "life"))
		begin := now
		end := begin.Add(life)
		a := time.Duration(rapid.Int64Range(0, int64(life)+int64(day)).Draw(t, "a"))
		b := time.Duration(rapid.Int64Range(0, int64(life)+int64(day)).Draw(t, "b"))
		early, late := begin.Add(min(a, b)), begin.Add(max(a, b))
		if e, l := Left(begin, end, early), Left(begin, end, late); e > l {
			t.Fatalf("%s after %s and %s later", e, min(a, b), l)
		}
		for l := Notice; l < Critical; l++ {
			if threshold(l, life) < threshold(l+1, life) {
				t.Fatalf("%s begins after %s for a life of %s", l, l+1, life)
			}
		}
		if life > 1 && Left(begin, end, begin) != None {
			t.Fatalf("a life of %s begins with %s", life, Left(begin, end, begin))
		}
		level, at := Next(begin, end, early)
		present := Left(begin, end, early)
		if present == Expired {
			if level != Expired || !at.IsZero() {
				t.Fatalf("after the end comes %s at %s", level, at)
			}
			return
		}
		if level <= present || !at.After(early) {
			t.Fatalf("at %s after %s comes %s at %s", early, present, level, at)
		}
		if got := Left(begin, end, at); got != level {
			t.Fatalf("%s is announced for %s, and it is %s then", level, at, got)
		}
		if got := Left(begin, end, at.Add(-1)); got != present {
			t.Fatalf("just before %s it is %s, want still %s", level, got, present)
		}
	})
}

func TestLevelsAsWords(t *testing.T) {
	t.Parallel()
	all := []Level{None, Notice, Warning, Urgent, Critical, Expired}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	if want := `["none","notice","warning","urgent","critical","expired"]`; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
	var back []Level
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if back[i] != all[i] {
			t.Errorf("%s came back as %s", all[i], back[i])
		}
	}
	if err := json.Unmarshal([]byte(`"soon"`), new(Level)); err == nil || err.Error() != `no level is called "soon"` {
		t.Errorf("got %v", err)
	}
	if _, err := json.Marshal(Level(9)); err == nil {
		t.Error("a level without a word was written")
	}
	if s := Level(9).String() + ", " + Severity(-1).String(); s != "level 9, severity -1" {
		t.Errorf("got %s", s)
	}
}
