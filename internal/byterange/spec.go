package byterange

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// MaxSpecs is how many ranges of one request are worth answering after
// Resolve has merged them. Whoever asks for more gets a 416: RFC 9110, 14.2
// lets a server refuse "many small ranges", which only serve to make it work.
const MaxSpecs = 64

// partHead is about what one more part of a multipart/byteranges answer costs
// in delimiter and header fields, in bytes. Ranges with a smaller gap between
// them are cheaper to send as one (RFC 9110, 15.3.7.2).
const partHead = 80

// Spec is one range as it was asked for, before the size of the
// representation is known. Positions are inclusive as on the wire; those
// beyond 2^63-1 are cut to it, which no size can tell from the truth.
//
//	{First: 5, Last: 9}    bytes=5-9
//	{First: 5, Last: -1}   bytes=5-    to the end
//	{First: -1, Last: 5}   bytes=-5    the last five bytes
type Spec struct{ First, Last int64 }

// Parse reads a Range field (RFC 9110, 14.1.1 and 14.2). It is not ok if the
// unit is not bytes or if any part of the field breaks the syntax: then the
// field is to be ignored as a whole, as if it had not been sent.
//
// The unit is taken in any case, and empty list elements are skipped (RFC
// 9110, 5.6.1.2). Whether a range lies inside the representation is not asked
// here. A single range whose slice does not outlive the caller costs no
// allocation.
func Parse(header string) (specs []Spec, ok bool) {
	return ParseInto(make([]Spec, 0, 1), header)
}

// ParseInto is Parse with the caller's memory: what dst held is overwritten,
// and it is grown if it is too small.
func ParseInto(dst []Spec, header string) ([]Spec, bool) {
	dst = dst[:0]
	unit, set, found := strings.Cut(trim(header), "=")
	if !found || !equalFold(unit, "bytes") {
		return dst, false
	}
	for more := true; more; {
		var element string
		element, set, more = strings.Cut(set, ",")
		if element = trim(element); element == "" {
			continue
		}
		s, ok := parseSpec(element)
		if !ok {
			return dst[:0], false
		}
		dst = append(dst, s)
	}
	return dst, len(dst) > 0
}

// parseSpec reads an int-range or a suffix-range (RFC 9110, 14.1.2).
func parseSpec(s string) (Spec, bool) {
	first, last, found := strings.Cut(s, "-")
	if !found {
		return Spec{}, false
	}
	if first == "" {
		n, ok := position(last)
		return Spec{First: -1, Last: n}, ok
	}
	a, ok := position(first)
	if !ok {
		return Spec{}, false
	}
	if last == "" {
		return Spec{First: a, Last: -1}, true
	}
	b, ok := position(last)
	if !ok || b < a || (a == math.MaxInt64 && longerNumber(first, last)) {
		return Spec{}, false
	}
	return Spec{First: a, Last: b}, true
}

// position reads 1*DIGIT, cut to the largest int64.
func position(s string) (n int64, ok bool) {
	if s == "" {
		return 0, false
	}
	for i := range len(s) {
		d := s[i] - '0'
		if d > 9 {
			return 0, false
		}
		if n > (math.MaxInt64-int64(d))/10 {
			n = math.MaxInt64
			continue // the rest must still be digits
		}
		n = n*10 + int64(d)
	}
	return n, true
}

// longerNumber says whether the digits a mean more than the digits b. It
// decides where both were cut to the largest int64 and no longer compare.
func longerNumber(a, b string) bool {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) > len(b)
	}
	return a > b
}

// Resolve is the bytes that s means in a representation of size bytes: the
// end is clamped, a suffix longer than the representation is all of it. It is
// false if s is not satisfiable (RFC 9110, 14.1.2), if the size is unknown
// (negative), and for every range of an empty representation: RFC 9110 calls
// a suffix of nothing satisfiable, but no Content-Range can express it.
func (s Spec) Resolve(size int64) (Range, bool) {
	switch {
	case size <= 0:
		return Range{}, false
	case s.First < 0:
		if s.Last <= 0 {
			return Range{}, false
		}
		return Range{size - min(s.Last, size), size}, true
	case s.First >= size:
		return Range{}, false
	case s.Last < 0 || s.Last >= size:
		return Range{s.First, size}, true
	default:
		return Range{s.First, s.Last + 1}, true
	}
}

// Resolve is the satisfiable ones of specs as bytes of a representation of
// size bytes; none if none is. Ranges that overlap, touch or lie less than 80
// bytes apart become one, which stands where the first of them stood; the
// order is kept otherwise. So the ranges are disjoint and never add up to
// more than size: a request cannot make an answer larger than the whole.
func Resolve(specs []Spec, size int64) []Range {
	return ResolveInto(make([]Range, 0, 1), specs, size)
}

// ResolveInto is Resolve with the caller's memory: what dst held is
// overwritten, and it is grown if it is too small.
func ResolveInto(dst []Range, specs []Spec, size int64) []Range {
	dst = dst[:0]
	for _, s := range specs {
		if r, ok := s.Resolve(size); ok {
			dst = append(dst, r)
		}
	}
	if len(dst) < 2 {
		return dst
	}
	return merge(dst)
}

// merge joins the ranges that are near each other, in place and in
// O(n log n): n is chosen by the client.
func merge(ranges []Range) []Range {
	type placed struct {
		Range
		place int // of the first of those that were joined
	}
	all := make([]placed, len(ranges))
	for i, r := range ranges {
		all[i] = placed{r, i}
	}
	slices.SortFunc(all, func(a, b placed) int { return cmp.Compare(a.Start, b.Start) })
	joined := all[:1]
	for _, p := range all[1:] {
		last := &joined[len(joined)-1]
		if p.Start-last.End >= partHead { // cannot overflow: both are in [0, size]
			joined = append(joined, p)
			continue
		}
		last.End = max(last.End, p.End)
		last.place = min(last.place, p.place)
	}
	slices.SortFunc(joined, func(a, b placed) int { return cmp.Compare(a.place, b.place) })
	ranges = ranges[:0]
	for _, p := range joined {
		ranges = append(ranges, p.Range)
	}
	return ranges
}
