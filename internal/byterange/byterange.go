// Package byterange is the one place where HTTP's inclusive byte positions become half-open ranges and back.
package byterange

import "strconv"

// Range is the bytes [Start, End) of a representation: half-open, as
// everywhere inside. Only this package speaks of last positions.
type Range struct{ Start, End int64 }

// Len is the number of bytes in r.
func (r Range) Len() int64 { return r.End - r.Start }

// ContentRange is the Content-Range field of a 206 (RFC 9110, 14.4) that
// carries r, which must not be empty, of a representation of size bytes; a
// negative size means unknown: "bytes 0-99/1000", "bytes 0-99/*".
func (r Range) ContentRange(size int64) string {
	var room [3*19 + len("bytes -/")]byte
	return string(r.AppendContentRange(room[:0], size))
}

// AppendContentRange appends what ContentRange returns.
func (r Range) AppendContentRange(dst []byte, size int64) []byte {
	dst = append(dst, "bytes "...)
	dst = strconv.AppendInt(dst, r.Start, 10)
	dst = append(dst, '-')
	dst = strconv.AppendInt(dst, r.End-1, 10) // the only -1
	dst = append(dst, '/')
	if size < 0 {
		return append(dst, '*')
	}
	return strconv.AppendInt(dst, size, 10)
}

// Unsatisfied is the Content-Range field of a 416 (RFC 9110, 15.5.17) for a
// representation of size bytes: "bytes */1000".
func Unsatisfied(size int64) string {
	return "bytes */" + strconv.FormatInt(size, 10)
}

// equalFold says whether s is lower, which must be lower-case ASCII letters.
func equalFold(s, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := range len(s) {
		if s[i]|0x20 != lower[i] {
			return false
		}
	}
	return true
}

// trim removes optional whitespace (RFC 9110, 5.6.3) from both ends.
func trim(s string) string {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}
