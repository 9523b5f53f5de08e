// Package words writes quantities the way the control plane says them to
// people: in states, alerts and pages.
package words

import (
	"fmt"
	"time"
)

// Moment is a time in UTC, to the minute.
func Moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// Span is a duration in the largest unit that says it with some precision;
// less than nothing is nothing.
func Span(d time.Duration) string {
	switch {
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", max(0, d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// Bytes is a number of bytes with three digits and an SI prefix.
func Bytes(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"kB", "MB", "GB", "TB", "PB", "EB"} {
		if f < 999.5 { // or 999,999 bytes would be 1e+03 kB
			break
		}
		f, unit = f/1000, u
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %s", f, unit)
}
