package origin

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// The addresses of the IANA special-purpose registries (RFC 6890 and its
// updates) that no publisher's server has, besides those that carry another
// address inside.
var notPublic = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
	"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23", // protocol assignments; Teredo is looked at before
	"2001:db8::/32", "3fff::/20",
)

var (
	globalUnicast = netip.MustParsePrefix("2000::/3")
	nat64         = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixToFour     = netip.MustParsePrefix("2002::/16")    // RFC 3056
	teredo        = netip.MustParsePrefix("2001::/32")    // RFC 4380
)

func prefixes(texts ...string) []netip.Prefix {
	ps := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		ps[i] = netip.MustParsePrefix(t)
	}
	return ps
}

// public reports whether a is an address of the public Internet. Addresses
// that carry an IPv4 address inside are public if that one is.
func public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() || a.Zone() != "" {
		return false
	}
	if a.Is6() {
		b := a.As16()
		switch {
		case nat64.Contains(a):
			return public(netip.AddrFrom4([4]byte(b[12:16])))
		case sixToFour.Contains(a):
			return public(netip.AddrFrom4([4]byte(b[2:6])))
		case teredo.Contains(a): // server, and the client's address inverted
			return public(netip.AddrFrom4([4]byte(b[4:8]))) &&
				public(netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}))
		case !globalUnicast.Contains(a):
			return false
		case b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP, RFC 5214
			return public(netip.AddrFrom4([4]byte(b[12:16])))
		}
	}
	for _, p := range notPublic {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// guard refuses an address that is about to be dialled. It is asked with what
// the socket will really connect to, so it does not matter what DNS said
// before. Named addresses are only checked for this node itself.
func (c *Client) guard(host string, addr netip.AddrPort, named bool) error {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if c.cfg.Own(addr) {
		return fail(http.StatusLoopDetected, KindForbidden, nil, "%s is at %v, which is this node itself", host, addr)
	}
	if named {
		return nil
	}
	if !public(addr.Addr()) {
		return fail(http.StatusBadGateway, KindForbidden, nil, "%s resolves to %v, which is not a public address", host, addr.Addr())
	}
	if addr.Port() != 80 && addr.Port() != 443 {
		return fail(http.StatusBadGateway, KindForbidden, nil, "%s: port %d is neither 80 nor 443", host, addr.Port())
	}
	return nil
}

// place is an endpoint taken apart.
type place struct {
	scheme string
	host   string // for Host: as given, lower case, no final dot
	name   string // host without port and brackets: what TLS verifies
	dest   string // "host:port" to connect to
	named  bool   // dest is the administrator's word
}

// locate checks an endpoint's names before anything is resolved. Behind a
// proxy this is all that can be checked, because the proxy resolves.
func locate(ep Endpoint) (place, error) {
	p := place{scheme: ep.Scheme, host: strings.TrimSuffix(strings.ToLower(ep.Host), "."), named: ep.Address != ""}
	port := "80"
	switch ep.Scheme {
	case "http":
	case "https":
		port = "443"
	default:
		return place{}, fail(http.StatusBadGateway, KindProtocol, nil, "scheme %s is neither http nor https", printable(ep.Scheme))
	}
	if p.host == "" && p.named {
		p.host = strings.ToLower(ep.Address)
	}
	p.name = p.host
	if h, given, err := net.SplitHostPort(p.host); err == nil {
		p.name, port = h, given
	} else if strings.HasPrefix(p.host, "[") && strings.HasSuffix(p.host, "]") {
		p.name = p.host[1 : len(p.host)-1]
	}
	if strings.Contains(p.host, ":") && p.host == p.name {
		p.host = "[" + p.name + "]"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return place{}, fail(http.StatusBadGateway, KindProtocol, nil, "host %s has no valid port", printable(p.host))
	}
	_, notIP := netip.ParseAddr(p.name)
	if p.named {
		if notIP != nil && !validName(p.name) {
			return place{}, fail(http.StatusBadGateway, KindProtocol, nil, "%s is not a host name", printable(p.name))
		}
		if p.dest = ep.Address; !validAddress(p.dest) {
			return place{}, fail(http.StatusBadGateway, KindProtocol, nil, "address %s is not host:port", printable(p.dest))
		}
		return p, nil
	}
	switch {
	case notIP == nil || endsInNumber(p.name):
		return place{}, fail(http.StatusBadGateway, KindForbidden, nil, "%s is an address, not a host name", printable(p.name))
	case !validName(p.name):
		return place{}, fail(http.StatusBadGateway, KindProtocol, nil, "%s is not a host name", printable(p.name))
	case !strings.Contains(p.name, ".") || strings.HasSuffix(p.name, ".localhost"):
		return place{}, fail(http.StatusBadGateway, KindForbidden, nil, "%s is a local name", printable(p.name))
	case n != 80 && n != 443:
		return place{}, fail(http.StatusBadGateway, KindForbidden, nil, "%s: port %d is neither 80 nor 443", printable(p.name), n)
	}
	p.dest = net.JoinHostPort(p.name, strconv.FormatUint(n, 10))
	return p, nil
}

// validName reports whether s can be a host name: labels of letters, digits,
// hyphens and underscores. International names come as punycode.
func validName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			if b := label[i]; !(b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '_') {
				return false
			}
		}
	}
	return true
}

// endsInNumber reports whether resolvers may take s for an IPv4 address in
// one of its old spellings, such as 127.1 or 0x7f000001.
func endsInNumber(s string) bool {
	last := s[strings.LastIndexByte(s, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

// validAddress reports whether s is "host:port" with a name or an IP address.
func validAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return false
	}
	_, err = netip.ParseAddr(host)
	return err == nil || validName(host)
}

// printable quotes a text that may come from a stranger, shortened.
func printable(s string) string {
	if len(s) > 100 {
		s = s[:100]
	}
	return strconv.QuoteToASCII(s)
}
