package vet

import (
	"fmt"
	"time"
)

// Level is how urgent it is that a certificate is renewed.
type Level int

// The levels, in their order: a certificate that is not renewed goes through
// all of them.
const (
	None Level = iota
	Notice
	Warning
	Urgent
	Critical
	Expired
)

var levelNames = [...]string{"none", "notice", "warning", "urgent", "critical", "expired"}

func (l Level) String() string {
	if l < 0 || int(l) >= len(levelNames) {
		return fmt.Sprintf("level %d", int(l))
	}
	return levelNames[l]
}

// MarshalText writes a level as its word.
func (l Level) MarshalText() ([]byte, error) { return marshalWord(levelNames[:], int(l), "level") }

// UnmarshalText reads a level from its word.
func (l *Level) UnmarshalText(text []byte) error {
	n, err := unmarshalWord(levelNames[:], text, "level")
	if err == nil {
		*l = Level(n)
	}
	return err
}

const day = 24 * time.Hour

// threshold is how much time is left when a level begins, for a certificate
// that lives that long.
//
// People are told at a third and at a sixth of the life, and 14, 7, 3 and 1
// days before the end, whichever is earlier. Those days are for certificates
// that live for months: one that is issued for a day or for a week would
// spend its whole life in alarm. So no number of days counts for more than a
// share of the life: 14 days for at most a half of it, 7 for a quarter, 3 for
// an eighth and 1 for a sixteenth. Each share is half of the one before, which
// keeps the levels in order for every life. A renewal at two thirds of the
// life is in time for the notice only if the life is 42 days or more; below
// that, the notice comes first, and it is a notice only.
func threshold(l Level, life time.Duration) time.Duration {
	life = max(0, life)
	switch l {
	case Notice:
		return max(life/3, min(14*day, life/2))
	case Warning:
		return max(life/6, min(7*day, life/4))
	case Urgent:
		return min(3*day, life/8)
	case Critical:
		return min(day, life/16)
	}
	return 0
}

// Left returns the level of a certificate at now.
func Left(notBefore, notAfter, now time.Time) Level {
	if now.After(notAfter) { // the last second is in: RFC 5280, section 4.1.2.5
		return Expired
	}
	life, left := notAfter.Sub(notBefore), notAfter.Sub(now)
	for l := Critical; l > None; l-- {
		if left <= threshold(l, life) {
			return l
		}
	}
	return None
}

// Next returns the level that comes after the present one, and when it begins.
// After Expired nothing comes: it is Expired and the zero time.
func Next(notBefore, notAfter, now time.Time) (Level, time.Time) {
	present := Left(notBefore, notAfter, now)
	life := notAfter.Sub(notBefore)
	for l := present + 1; l < Expired; l++ {
		// Levels of a very short life may begin together: the highest counts.
		if at := notAfter.Add(-threshold(l, life)); l == Critical || threshold(l, life) > threshold(l+1, life) {
			return l, at
		}
	}
	if present == Expired {
		return Expired, time.Time{}
	}
	return Expired, notAfter.Add(1)
}
