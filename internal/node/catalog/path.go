package catalog

import (
	"net/url"
	"strings"
)

const upperHex = "0123456789ABCDEF"

// pathClass says what a byte of a path needs; see the constants below.
var pathClass = func() (t [256]byte) {
	for c := range 256 {
		switch b := byte(c); {
		case b <= ' ' || b == 0x7f || b == '\\' || b == '#' || b == '?':
			t[c] = pathBad
		case b == '%':
			t[c] = pathPercent
		case b == '/':
			t[c] = pathSlash
		case b >= 0x80 || strings.IndexByte("\"<>^`{|}", b) >= 0:
			t[c] = pathEncode
		case unreserved(b):
			t[c] = pathUnreserved
		}
	}
	return t
}()

const (
	pathAsIs       = iota // reserved by RFC 3986, stays as it came
	pathUnreserved        // stays, and its percent-encoding is undone
	pathSlash
	pathPercent
	pathEncode // not allowed in a URL: percent-encoded in the key
	pathBad    // never served
)

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// normalPath returns the form of a raw path that keys and patterns use: percent
// encodings of unreserved characters undone, the others with upper-case digits,
// characters that do not belong into a URL encoded (RFC 3986 section 6.2.2). For
// paths that are never served reason is not empty; it completes "the path …".
// Without anything to change it does not allocate.
func normalPath(raw string) (path, reason string) {
	if raw == "" || raw[0] != '/' {
		return "", "does not begin with a slash"
	}
	clean := true
	for i := 0; i < len(raw); i++ {
		switch pathClass[raw[i]] {
		case pathBad:
			return "", "holds a character that no path may hold"
		case pathPercent, pathEncode:
			clean = false
		}
	}
	path = raw
	if !clean {
		if path, reason = normalEncoding(raw); reason != "" {
			return "", reason
		}
	}
	if (!clean || strings.Contains(path, "/.")) && dotSegment(path) {
		return "", "holds a dot segment"
	}
	return path, ""
}

func normalEncoding(raw string) (path, reason string) {
	var b strings.Builder
	b.Grow(len(raw) + 8)
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch pathClass[c] {
		case pathPercent:
			if i+2 >= len(raw) || unhex(raw[i+1]) < 0 || unhex(raw[i+2]) < 0 {
				return "", "holds a broken percent-encoding"
			}
			c = byte(unhex(raw[i+1])<<4 | unhex(raw[i+2]))
			i += 2
			switch {
			case unreserved(c):
				b.WriteByte(c)
				continue
			case c < ' ' || c == 0x7f || c == '\\':
				return "", "holds a character that no path may hold"
			}
			fallthrough
		case pathEncode:
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), ""
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c - 'a' + 10)
	case 'A' <= c && c <= 'F':
		return int(c - 'A' + 10)
	}
	return -1
}

// dotSegment reports whether a normalised path has a segment that some server
// takes for "." or "..": %2F ends a segment as well, and ";" begins parameters.
func dotSegment(path string) bool {
	for i := 0; i < len(path); i++ {
		j := i
		switch {
		case path[i] == '/':
			j = i + 1
		case path[i] == '%' && strings.HasPrefix(path[i:], "%2F"):
			j = i + 3
		default:
			continue
		}
		if j >= len(path) || path[j] != '.' {
			continue
		}
		if j++; j < len(path) && path[j] == '.' {
			j++
		}
		if j == len(path) || path[j] == '/' || path[j] == ';' || strings.HasPrefix(path[j:], "%2F") || strings.HasPrefix(path[j:], "%3B") {
			return true
		}
	}
	return false
}

// goodQuery reports whether a raw query holds nothing that could end the request
// line it goes upstream in, or a line of a key.
func goodQuery(q string) bool {
	for i := 0; i < len(q); i++ {
		if q[i] <= ' ' || q[i] == 0x7f || q[i] == '#' {
			return false
		}
	}
	return true
}

// allowed returns the parameters of a raw query whose names are in allow, as
// they came and in their order. Names are compared decoded and without case,
// because the origin may read them so: what it acts upon must be in the key.
func allowed(q string, allow []string) string {
	if strings.IndexByte(q, ';') >= 0 {
		return q
	}
	var b strings.Builder
	for pair := range strings.SplitSeq(q, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if d, err := url.QueryUnescape(name); err == nil {
			name = d
		}
		for _, a := range allow {
			if strings.EqualFold(a, name) {
				if b.Len() > 0 {
					b.WriteByte('&')
				}
				b.WriteString(pair)
				break
			}
		}
	}
	return b.String()
}
