package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"larder/internal/strictyaml"
)

// Window is a part of the week with a limit of its own.
type Window struct {
	// Days the window begins on: mon-fri, sat,sun or daily.
	Days Days `yaml:"days"`

	// From and To are local times of day such as "08:00". A window whose To is
	// not after its From ends on the next day. "24:00" is the end of the day.
	From Clock `yaml:"from"`
	To   Clock `yaml:"to"`

	// Rate holds within the window. 0: no limit.
	Rate strictyaml.Rate `yaml:"rate"`
}

// Days is a set of days, by time.Weekday.
type Days [7]bool

var dayNames = [7]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// Expected says what belongs into a field of this type.
func (Days) Expected() string { return "days such as mon-fri, sat,sun or daily" }

// String writes the days from Monday on.
func (d Days) String() string {
	var names []string
	for i := range 7 {
		if day := (i + 1) % 7; d[day] {
			names = append(names, dayNames[day])
		}
	}
	return strings.Join(names, ",")
}

// MarshalText writes the days so that UnmarshalText reads the same.
func (d Days) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads days and ranges of days, with commas between them.
// fri-mon runs over the week's end.
func (d *Days) UnmarshalText(text []byte) error {
	var set Days
	for item := range strings.SplitSeq(strings.ToLower(string(text)), ",") {
		item = strings.TrimSpace(item)
		if item == "daily" {
			set = Days{true, true, true, true, true, true, true}
			continue
		}
		first, last, ranged := strings.Cut(item, "-")
		if !ranged {
			last = first
		}
		from, to := slices.Index(dayNames[:], strings.TrimSpace(first)), slices.Index(dayNames[:], strings.TrimSpace(last))
		if from < 0 || to < 0 {
			return fmt.Errorf("found %q, expected %s", clip(item), d.Expected())
		}
		for day := from; ; day = (day + 1) % 7 {
			set[day] = true
			if day == to {
				break
			}
		}
	}
	*d = set
	return nil
}

// Clock is a time of day, as the span since midnight.
type Clock time.Duration

// Expected says what belongs into a field of this type.
func (Clock) Expected() string { return `a time of day such as "08:00"` }

func (c Clock) String() string {
	m := time.Duration(c) / time.Minute
	return fmt.Sprintf("%02d:%02d", m/60, m%60)
}

// MarshalText writes the time so that UnmarshalText reads the same.
func (c Clock) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads HH:MM from 00:00 to 24:00.
func (c *Clock) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "24:00" {
		*c = Clock(24 * time.Hour)
		return nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return fmt.Errorf("found %q, expected %s", clip(s), c.Expected())
	}
	*c = Clock(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute)
	return nil
}

// validate reports what is wrong with the limit below the field path "field".
func (l *Limit) validate(field string, add addFunc) {
	validateRate(field+".rate", l.Rate, add)
	const day, week = 24 * 60, 7 * 24 * 60
	taken := make([]int, week) // by minute of the week: index of the window, from 1
	for i, w := range l.Schedule {
		at := fmt.Sprintf("%s.schedule[%d]", field, i)
		validateRate(at+".rate", w.Rate, add)
		if w.Days == (Days{}) {
			add(at+".days", "must be set; expected %s", w.Days.Expected())
		}
		from, to := int(time.Duration(w.From)/time.Minute), int(time.Duration(w.To)/time.Minute)
		if err := clocks(from, to); err != nil {
			add(at+".to", "%s", err)
			continue
		}
		if to < from {
			to += day
		}
		other, minute := 0, 0
		for weekday, on := range w.Days {
			for m := from; on && m < to; m++ {
				k := (weekday*day + m) % week
				if taken[k] != 0 && other == 0 {
					other, minute = taken[k], k
				}
				taken[k] = i + 1
			}
		}
		if other != 0 && other != i+1 {
			add(at, "overlaps schedule[%d] on %s at %s; split the days or the hours so that one limit holds at a time",
				other-1, dayNames[minute/day], Clock(time.Duration(minute%day)*time.Minute))
		}
	}
}

func clocks(from, to int) error {
	switch {
	case from < 0 || to < 0 || from >= 24*60 || to > 24*60:
		return errors.New("expected times from 00:00 to 24:00, the first before 24:00")
	case from == to:
		return errors.New(`the same as from: an empty window; for the whole day write from: "00:00" and to: "24:00"`)
	}
	return nil
}

// leastRate is what a client needs: it gives up on a server that sends less
// than 4 kB/s, and there is seldom only one.
const leastRate = strictyaml.Rate(8000)

func validateRate(field string, r strictyaml.Rate, add addFunc) {
	if r != 0 && r < leastRate {
		add(field, "found %s, expected at least %s, or 0 for no limit: clients give up on a slower cache", r, leastRate)
	}
}
