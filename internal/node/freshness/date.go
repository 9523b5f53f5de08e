package freshness

import (
	"strings"
	"time"
)

var (
	weekdays = [...]string{"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
	months   = [...]string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
)

// ParseDate reads an HTTP-date in its three forms (RFC 9110, 5.6.7):
//
//	Sun, 06 Nov 1994 08:49:37 GMT    IMF-fixdate
//	Sunday, 06-Nov-94 08:49:37 GMT   RFC 850
//	Sun Nov  6 08:49:37 1994         asctime
//
// Letters are taken in any case and no zone but GMT is (RFC 9111, 4.2). A
// year of two digits is the latest one that is at most 50 years after now;
// nothing else depends on now. Whether the day of the week is right is not
// asked.
func ParseDate(v string, now time.Time) (time.Time, bool) {
	v = trim(v)
	switch {
	case len(v) == len("Sun, 06 Nov 1994 08:49:37 GMT") && v[3] == ',':
		if !weekday(v[:3], 3) || v[4] != ' ' || v[7] != ' ' || v[11] != ' ' || v[16] != ' ' || !zone(v[25:]) {
			return time.Time{}, false
		}
		return date(v[12:16], v[8:11], v[5:7], v[17:25])
	case len(v) == len("Sun Nov  6 08:49:37 1994") && v[3] == ' ':
		day := v[8:10]
		if day[0] == ' ' {
			day = day[1:]
		}
		if !weekday(v[:3], 3) || v[7] != ' ' || v[10] != ' ' || v[19] != ' ' {
			return time.Time{}, false
		}
		return date(v[20:], v[4:7], day, v[11:19])
	}
	name, v, ok := strings.Cut(v, ", ")
	if !ok || !weekday(name, 0) || len(v) != len("06-Nov-94 08:49:37 GMT") ||
		v[2] != '-' || v[6] != '-' || v[9] != ' ' || !zone(v[18:]) {
		return time.Time{}, false
	}
	year, ok := number(v[7:9])
	if !ok {
		return time.Time{}, false
	}
	latest := now.UTC().AddDate(50, 0, 0)
	year += latest.Year() / 100 * 100
	t, ok := dateOf(year, v[3:6], v[:2], v[10:18])
	if !ok || t.After(latest) { // not ok: February 29th of a year that has none
		return dateOf(year-100, v[3:6], v[:2], v[10:18])
	}
	return t, ok
}

// weekday says whether s names a day, by its first short letters or, if short
// is 0, in full.
func weekday(s string, short int) bool {
	for _, w := range weekdays {
		if short > 0 {
			w = w[:short]
		}
		if strings.EqualFold(s, w) {
			return true
		}
	}
	return false
}

func zone(s string) bool { return strings.EqualFold(s, " gmt") }

func date(year, month, day, clock string) (time.Time, bool) {
	y, ok := number(year)
	if !ok {
		return time.Time{}, false
	}
	return dateOf(y, month, day, clock)
}

// dateOf puts a date together; clock is "08:49:37".
func dateOf(year int, month, day, clock string) (time.Time, bool) {
	m := 0
	for m < len(months) && !strings.EqualFold(month, months[m]) {
		m++
	}
	d, okDay := number(day)
	hour, okHour := number(clock[0:2])
	minute, okMinute := number(clock[3:5])
	second, okSecond := number(clock[6:8])
	if m == len(months) || !okDay || !okHour || !okMinute || !okSecond || clock[2] != ':' || clock[5] != ':' ||
		d == 0 || hour > 23 || minute > 59 || second > 60 { // 60: a leap second
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(m+1), d, hour, minute, second, 0, time.UTC)
	if d > 28 && time.Date(year, time.Month(m+1), d, 0, 0, 0, 0, time.UTC).Day() != d {
		return time.Time{}, false // the month is shorter
	}
	return t, true
}

// number reads up to four digits.
func number(s string) (n int, ok bool) {
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int(c)
	}
	return n, s != ""
}
