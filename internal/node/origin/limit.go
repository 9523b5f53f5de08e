package origin

import "time"

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
