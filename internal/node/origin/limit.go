package origin

import (
	"fmt"
	"strings"
	"time"
)

// Limit is a bandwidth limit with a weekly schedule. The zero value limits
// nothing.
type Limit struct {
	Rate    int64 // bytes per second outside all windows; 0 unlimited
	Windows []Window
}

// Window is a part of the week with a rate of its own.
type Window struct {
	Days [7]bool // by time.Weekday: the days on which the window begins
	// From and To are wall clock times since midnight. If To is not after
	// From, the window ends on the next day.
	From, To time.Duration
	Rate     int64 // bytes per second; 0 unlimited
}

const day = 24 * time.Hour

// At returns the rate at a moment, in bytes per second, 0 for unlimited. The
// first window that holds the moment decides; the moment's location is what
// the schedule's days and times mean.
func (l Limit) At(t time.Time) int64 {
	rate := l.Rate
	if len(l.Windows) > 0 {
		// The wall clock and not the time elapsed: on the days when clocks
		// are changed, 08:00 is still 08:00.
		clock := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute +
			time.Duration(t.Second())*time.Second + time.Duration(t.Nanosecond())
		for _, w := range l.Windows {
			if w.holds(t.Weekday(), clock) {
				rate = w.Rate
				break
			}
		}
	}
	return max(0, rate)
}

func (w Window) holds(today time.Weekday, clock time.Duration) bool {
	if w.From < w.To {
		return w.Days[today] && w.From <= clock && clock < w.To
	}
	yesterday := (today + 6) % 7
	return w.Days[today] && w.From <= clock || w.Days[yesterday] && clock < w.To
}

var dayNames = [7]string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

// ParseDays reads the days of a schedule: "mon-fri", "sat,sun", "fri-mon",
// "daily". Names may be written in full and in any case; empty is daily.
func ParseDays(text string) (days [7]bool, err error) {
	text = strings.ToLower(strings.TrimSpace(text))
	if text == "" || text == "daily" {
		return [7]bool{true, true, true, true, true, true, true}, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		a, b, isRange := strings.Cut(part, "-")
		from, ok := parseDay(a)
		if !ok {
			return [7]bool{}, dayError(a)
		}
		to := from
		if isRange {
			if to, ok = parseDay(b); !ok {
				return [7]bool{}, dayError(b)
			}
		}
		for d := from; ; d = (d + 1) % 7 {
			days[d] = true
			if d == to {
				break
			}
		}
	}
	return days, nil
}

func parseDay(s string) (int, bool) {
	s = strings.TrimSpace(s)
	for d, name := range dayNames {
		if s == name || s == name[:3] {
			return d, true
		}
	}
	return 0, false
}

func dayError(s string) error {
	return fmt.Errorf("day %s: expected mon, tue, wed, thu, fri, sat, sun, a range such as mon-fri, or daily", printable(strings.TrimSpace(s)))
}

// ParseClock reads a wall clock time, "00:00" to "24:00", as the time since
// midnight.
func ParseClock(text string) (time.Duration, error) {
	bad := fmt.Errorf("time %s: expected hours and minutes such as \"08:00\", at most \"24:00\"", printable(text))
	h, m, ok := strings.Cut(text, ":")
	if !ok || len(h) < 1 || len(h) > 2 || len(m) != 2 {
		return 0, bad
	}
	n := 0
	for _, r := range h + m {
		if r < '0' || r > '9' {
			return 0, bad
		}
		n = n*10 + int(r-'0')
	}
	t := time.Duration(n/100)*time.Hour + time.Duration(n%100)*time.Minute
	if n%100 > 59 || t > day {
		return 0, bad
	}
	return t, nil
}
