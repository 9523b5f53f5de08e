package strictyaml

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Bytes is an amount of data in bytes. Files write it as 500GB (10^9), 10GiB
// (2^30) or a plain number of bytes.
type Bytes int64

// Rate is a speed in bytes per second. Files write it in bits, 200MBit,
// 50Mbit/s or 50Mbps, or in bytes, 25MB/s; 0 means no limit where a limit is
// asked for.
type Rate int64

// Duration is a span of time. Files write it as 60s, 24h, 1h30m or, other than
// in Go, with days: 7d, 1d12h.
type Duration time.Duration

// Expected says what belongs into a field of this type.
func (Bytes) Expected() string { return "a size such as 500GB or 10GiB" }

// Expected says what belongs into a field of this type.
func (Rate) Expected() string { return "a rate such as 200Mbit/s or 25MB/s" }

// Expected says what belongs into a field of this type.
func (Duration) Expected() string { return "a span of time such as 60s, 24h or 7d" }

var prefixes = map[string]int64{
	"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15,
	"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40, "pi": 1 << 50,
}

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	number, unit := split(string(text))
	prefix, ok := strings.CutSuffix(strings.ToLower(unit), "b")
	factor, known := prefixes[prefix]
	switch {
	case number == "":
		return fmt.Errorf("%q is not a size; expected %s", clip(text), b.Expected())
	case ok && known, unit == "":
	case prefixes[strings.ToLower(unit)] > 1:
		return fmt.Errorf("%q has no clear unit; write %sB (powers of ten) or %siB (powers of two)", clip(text), clip(text), clip(text))
	default:
		return fmt.Errorf("%q has an unknown unit; expected %s", clip(text), b.Expected())
	}
	n, err := scale(number, factor, 1)
	if err != nil {
		return fmt.Errorf("%q %w", clip(text), err)
	}
	*b = Bytes(n)
	return nil
}

// UnmarshalText reads a rate.
func (r *Rate) UnmarshalText(text []byte) error {
	number, unit := split(string(text))
	if number == "" {
		return fmt.Errorf("%q is not a rate; expected %s", clip(text), r.Expected())
	}
	if unit == "" && strings.Trim(number, "0.") == "" {
		*r = 0
		return nil
	}
	lower := strings.ToLower(unit)
	perSecond := strings.HasSuffix(lower, "/s")
	lower = strings.TrimSuffix(lower, "/s")
	prefix, bits := strings.CutSuffix(lower, "bit")
	if !bits && strings.HasSuffix(unit, "bps") { // a capital B would be bytes: too easily confused
		prefix, bits = strings.TrimSuffix(lower, "bps"), true
	}
	divisor := int64(8)
	if !bits {
		if prefix, bits = strings.CutSuffix(lower, "b"); bits {
			divisor = 1
		}
	}
	factor, known := prefixes[prefix]
	switch {
	case !bits || !known:
		return fmt.Errorf("%q has an unknown unit; expected %s", clip(text), r.Expected())
	case divisor == 1 && !perSecond:
		return fmt.Errorf("%q is a size, not a rate; write %s/s for bytes or %s%sbit/s for bits", clip(text), clip(text), number, unit[:len(unit)-1])
	case divisor == 1 && strings.HasSuffix(unit, "b/s"):
		return fmt.Errorf("%q may mean bits or bytes; write B/s for bytes or bit/s for bits", clip(text))
	}
	n, err := scale(number, factor, divisor)
	if err != nil {
		return fmt.Errorf("%q %w", clip(text), err)
	}
	*r = Rate(n)
	return nil
}

// UnmarshalText reads a span of time.
func (d *Duration) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	bad := fmt.Errorf("%q is not a span of time; write it as 60s, 24h or 7d", clip(text))
	if s == "" || s[0] == '-' || s[0] == '+' {
		return bad
	}
	var total time.Duration
	if days, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 32)
		if err != nil {
			return bad
		}
		if n > uint64(math.MaxInt64/(24*time.Hour)) {
			return fmt.Errorf("%q is too long", clip(text))
		}
		total, s = time.Duration(n)*24*time.Hour, rest
	}
	if s != "" {
		rest, err := time.ParseDuration(s)
		if err != nil || rest < 0 || s[0] == '-' || s[0] == '+' {
			return bad
		}
		if total > math.MaxInt64-rest {
			return fmt.Errorf("%q is too long", clip(text))
		}
		total += rest
	}
	*d = Duration(total)
	return nil
}

// split parts "1.5 GB" into "1.5" and "GB". The number is "" when there is none.
func split(s string) (number, unit string) {
	s = strings.TrimSpace(s)
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.') {
		i++
	}
	if strings.Trim(s[:i], ".") == "" || strings.Count(s[:i], ".") > 1 || i > 30 {
		return "", ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}

// scale returns number*factor/divisor, rounded down.
func scale(number string, factor, divisor int64) (int64, error) {
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, fmt.Errorf("is not a number")
	}
	r.Mul(r, big.NewRat(factor, divisor))
	n := new(big.Int).Quo(r.Num(), r.Denom())
	if !n.IsInt64() {
		return 0, fmt.Errorf("is too large")
	}
	return n.Int64(), nil
}

func clip(text []byte) string {
	s := strings.TrimSpace(string(text))
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}

// String writes the size in the shortest way that loses nothing.
func (b Bytes) String() string {
	best := strconv.FormatInt(int64(b), 10)
	for prefix, factor := range prefixes {
		if b == 0 || int64(b)%factor != 0 || prefix == "" {
			continue
		}
		name := strings.ToUpper(prefix[:1]) + prefix[1:] + "B"
		if prefix == "k" {
			name = "kB"
		}
		// Of two equally short ways the one that sorts first, whatever the
		// order of the map.
		s := strconv.FormatInt(int64(b)/factor, 10) + name
		if len(s) < len(best) || (len(s) == len(best) && s < best) {
			best = s
		}
	}
	return best
}

// MarshalText writes the size so that UnmarshalText reads the same.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String writes the rate in bits where whole megabits or kilobits say it, else in bytes.
func (r Rate) String() string {
	n := int64(r)
	switch {
	case n == 0:
		return "0"
	case n%125_000_000 == 0:
		return strconv.FormatInt(n/125_000_000, 10) + "Gbit/s"
	case n%125_000 == 0:
		return strconv.FormatInt(n/125_000, 10) + "Mbit/s"
	case n%125 == 0:
		return strconv.FormatInt(n/125, 10) + "kbit/s"
	}
	return strconv.FormatInt(n, 10) + "B/s"
}

// MarshalText writes the rate so that UnmarshalText reads the same.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String writes the span with days, hours, minutes and seconds, leaving out
// what is zero: 7d, 1h30m, 1.5s.
func (d Duration) String() string {
	t := time.Duration(d)
	if t == 0 {
		return "0s"
	}
	s := ""
	if days := t / (24 * time.Hour); days > 0 {
		s, t = strconv.FormatInt(int64(days), 10)+"d", t%(24*time.Hour)
	}
	for _, u := range []struct {
		span time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}} {
		if n := t / u.span; n > 0 {
			s, t = s+strconv.FormatInt(int64(n), 10)+u.name, t%u.span
		}
	}
	if t != 0 {
		s += t.String()
	}
	return s
}

// MarshalText writes the span so that UnmarshalText reads the same.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
