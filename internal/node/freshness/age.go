package freshness

import (
	"net/http"
	"strings"
	"time"
)

// maxDelta is what every larger number of seconds is cut to (RFC 9111, 1.2.2).
// A few of them still add up inside a time.Duration.
const maxDelta = (1 << 31) * time.Second

const (
	heuristicShare = 10             // RFC 9111, 4.2.2: "a typical setting of this fraction might be 10%"
	heuristicMost  = 24 * time.Hour // a guess should not outlive the day
)

// age is current_age of RFC 9111, 4.2.3. It is never negative and at most a
// few times maxDelta.
func (s *Stored) age(now time.Time) time.Duration {
	// Date has no parts of a second; without cutting them here too, every
	// answer would be born up to a second old.
	read := s.says()
	apparent := clampAge(s.ResponseTime.Truncate(time.Second).Sub(read.date))
	delay := clampAge(s.ResponseTime.Sub(s.RequestTime))
	resident := clampAge(now.Sub(s.ResponseTime))
	return max(apparent, read.age+delay) + resident
}

// Age is how old the answer is now: what the Age field has to say (RFC 9111, 4 and
// 4.2.3). Whole seconds are sent.
func (s *Stored) Age(now time.Time) time.Duration { return s.age(now) }

// ParseAge is the value of an Age field by itself; zero if it makes no sense.
func ParseAge(value string) time.Duration {
	member, _, _ := strings.Cut(value, ",")
	d, _ := parseSeconds(trim(member))
	return d
}

func clampAge(d time.Duration) time.Duration { return min(max(d, 0), maxDelta) }

// date is date_value: what Date says or, if that is missing or not a date,
// when the answer came (RFC 9110, 6.6.1).
func (s *Stored) date() time.Time {
	if t, ok := ParseDate(first(s.Header, "Date"), s.ResponseTime); ok {
		return t
	}
	return s.ResponseTime
}

// ageField is age_value. Of a list the first member counts; what is not a
// number is as good as absent (RFC 9111, 5.1).
func ageField(h http.Header) time.Duration {
	return ParseAge(first(h, "Age"))
}

// basis is what a lifetime was concluded from.
type basis int

const (
	unknown   basis = iota
	heuristic       // Last-Modified
	explicit        // s-maxage, max-age or Expires, even if not valid
)

// lifetime is freshness_lifetime of RFC 9111, 4.2.1 for a shared cache.
// Explicit information that is not valid, or that contradicts itself, makes
// the answer stale: a zero lifetime.
func lifetime(s *Stored, d *responseDirectives) (time.Duration, basis) {
	switch {
	case d.malformed:
		return 0, explicit
	case d.sMaxAge.set:
		return d.sMaxAge.d, explicit
	case d.maxAge.set:
		return d.maxAge.d, explicit
	}
	if values := s.Header["Expires"]; len(values) > 0 && !d.targeted {
		// 5.3: what is not a date, "0" above all, is a date in the past.
		expires, ok := ParseDate(values[0], s.ResponseTime)
		for _, v := range values[1:] {
			ok = ok && v == values[0]
		}
		if !ok {
			return 0, explicit
		}
		return clampAge(expires.Sub(s.date())), explicit
	}
	if !heuristicStatus(s.Status) && !d.public {
		return 0, unknown
	}
	modified, ok := ParseDate(first(s.Header, "Last-Modified"), s.ResponseTime)
	if !ok {
		return 0, unknown
	}
	return min(clampAge(s.date().Sub(modified))/heuristicShare, heuristicMost), heuristic
}

// heuristicStatus says whether RFC 9110, 15.1 lets a cache guess how long an
// answer with this status stays fresh.
func heuristicStatus(status int) bool {
	switch status {
	case 200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// parseSeconds reads delta-seconds (RFC 9111, 1.2.2), cut to maxDelta.
func parseSeconds(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	var n time.Duration
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = min(n*10+time.Duration(c), maxDelta/time.Second)
	}
	return n * time.Second, true
}

// trim removes optional whitespace (RFC 9110, 5.6.3) from both ends.
func trim(s string) string { return strings.Trim(s, " \t") }
