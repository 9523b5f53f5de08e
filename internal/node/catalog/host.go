package catalog

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// hostKind says what a normalised host is.
type hostKind int

const (
	badHost hostKind = iota
	nameHost
	ipHost
)

// normalHost brings a host into the form the catalogue compares: lower case,
// punycode, no trailing dot, no brackets. It does not allocate for a host that
// is in that form.
func normalHost(s string) (string, hostKind) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		case 'A' <= c && c <= 'Z':
			s = lowerASCII(s)
		case c == ':' || c == '[':
			return normalIPv6(s)
		case c >= 0x80:
			a, err := idna.Lookup.ToASCII(s)
			if err != nil || !utf8.ValidString(s) {
				return "", badHost
			}
			for j := 0; j < len(a); j++ {
				if a[j] >= 0x80 || a[j] == ':' || a[j] == '[' {
					return "", badHost
				}
			}
			return normalHost(a)
		default:
			return "", badHost
		}
	}
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return "", badHost
	}
	start := 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if i == start || i-start > 63 {
				return "", badHost
			}
			start = i + 1
		}
	}
	// A name that ends in a number is an IPv4 address to somebody (127.1,
	// 0x7f.1), so it is one in full or nothing.
	if last := s[strings.LastIndexByte(s, '.')+1:]; endsInNumber(last) {
		if a, err := netip.ParseAddr(s); err != nil || !a.Is4() {
			return "", badHost
		}
		return s, ipHost
	}
	return s, nameHost
}

func normalIPv6(s string) (string, hostKind) {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() || a.Zone() != "" {
		return "", badHost
	}
	// ::ffff:10.0.0.1 is 10.0.0.1 by another name.
	return a.Unmap().String(), ipHost
}

// endsInNumber reports whether some resolver takes the label for a number.
func endsInNumber(label string) bool {
	digits := strings.TrimPrefix(label, "0x")
	hex := len(digits) < len(label)
	for i := 0; i < len(digits); i++ {
		c := digits[i]
		if !('0' <= c && c <= '9' || hex && 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

// hostPattern checks and normalises a host of a publisher file: a name, "*." and
// a name, or an IP address. problem says what is wrong with it.
func hostPattern(s string) (host string, suffix bool, kind hostKind, problem string) {
	name, suffix := strings.CutPrefix(s, "*.")
	switch {
	case s == "":
		return "", false, badHost, "is empty; write a host name"
	case s == "*" || name == "":
		return "", false, badHost, "names every host; that would be an open proxy. Use default: true with origin.address"
	case strings.Contains(s, "://"):
		return "", false, badHost, "is a URL; write the host name alone"
	case strings.Contains(name, "*"):
		return "", false, badHost, "has a * in the name; it may only stand for the whole beginning, as in *.example.com"
	case strings.Contains(s, "/"):
		return "", false, badHost, "has a path; write the host name alone, and paths under paths"
	}
	host, kind = normalHost(name)
	switch {
	case kind == badHost && strings.Count(name, ":") == 1:
		return "", false, badHost, "has a port; write the host name alone (a port of the origin goes into origin.address)"
	case kind == badHost:
		return "", false, badHost, "is not a host name"
	case kind == ipHost && suffix:
		return "", false, badHost, "is an IP address; a *. goes before names only"
	}
	return host, suffix, kind, ""
}
