package byterange

import (
	"fmt"
	"math"
	"strings"
)

// ContentRange is what a Content-Range field says (RFC 9110, 14.4).
type ContentRange struct {
	Range     Range // the bytes enclosed; empty if not Satisfied
	Size      int64 // of the whole representation, bytes; -1: not told
	Satisfied bool  // false: "bytes */N", as in a 416
}

// ParseContentRange reads a Content-Range field of an upstream answer. It is
// strict, because bytes are going to be stored by it: the unit must be bytes,
// positions must fit 63 bits, lie in order and inside the size.
func ParseContentRange(v string) (ContentRange, error) {
	unit, rest, found := strings.Cut(trim(v), " ")
	if !found || !equalFold(unit, "bytes") {
		return ContentRange{}, contentRangeError(v, `it must start with "bytes "`)
	}
	span, total, found := strings.Cut(rest, "/")
	if !found {
		return ContentRange{}, contentRangeError(v, `it has no "/" before the size`)
	}
	c := ContentRange{Size: -1}
	if total != "*" {
		n, ok := exactPosition(total)
		if !ok {
			return ContentRange{}, contentRangeError(v, `the size must be a number below 2^63, or "*"`)
		}
		c.Size = n
	}
	if span == "*" {
		if c.Size < 0 {
			return ContentRange{}, contentRangeError(v, "an unsatisfied range must tell the size")
		}
		return c, nil
	}
	first, last, found := strings.Cut(span, "-")
	a, okA := exactPosition(first)
	b, okB := exactPosition(last)
	switch {
	case !found || !okA || !okB:
		return ContentRange{}, contentRangeError(v, `the range must be two numbers below 2^63-1, such as "0-99"`)
	case b < a:
		return ContentRange{}, contentRangeError(v, "the last position is before the first")
	case c.Size >= 0 && b >= c.Size:
		return ContentRange{}, contentRangeError(v, "the range goes beyond the size")
	}
	c.Range, c.Satisfied = Range{a, b + 1}, true
	return c, nil
}

// exactPosition reads 1*DIGIT that are a position whose successor is an int64.
func exactPosition(s string) (int64, bool) {
	n, ok := position(s)
	return n, ok && n < math.MaxInt64
}

func contentRangeError(v, problem string) error {
	const most = 80 // an upstream chooses the text; a log line need not hold all of it
	if len(v) > most {
		v = v[:most] + "…"
	}
	return fmt.Errorf("content-range %q: %s", v, problem)
}
