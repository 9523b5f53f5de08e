package san

import (
	"fmt"
	"net/mail"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/idna"

	"larder/internal/pki/problem"
)

// parseDNS reads a host name (RFC 1035, section 2.3.1; RFC 1123, section 2.1),
// perhaps with "*." before it, and returns it as certificates have it:
// lower-case ASCII.
func parseDNS(s string) (string, *problem.Problem) {
	p := &problem.Problem{Found: fmt.Sprintf("%q", s), Expected: "a DNS name such as cache.example.com"}
	switch {
	case strings.Contains(s, "://"):
		p.Next = "leave the host alone there; a URI goes to " + FlagURI
		return "", p
	case strings.Contains(s, "@"):
		p.Next = "an e-mail address goes to " + FlagEmail
		return "", p
	}
	if host, port, ok := cutPort(s); ok {
		p.Next = fmt.Sprintf("leave out the port (:%s): a certificate is for all ports of %s", port, host)
		return "", p
	}
	name, why := hostName(s, true)
	if isAddress(s) || isAddress(name) {
		p.Found, p.Next = "an IP address, "+p.Found, "use "+FlagIP+" for it"
		return "", p
	}
	if why != "" {
		p.Found += ", which " + why
		return "", p
	}
	return name, nil
}

// isAddress says whether somebody meant an address by s.
func isAddress(s string) bool {
	s = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	_, err := netip.ParseAddr(s)
	_, errPrefix := netip.ParsePrefix(s)
	return err == nil || errPrefix == nil
}

// cutPort cuts ":443" off a host, or an address that is not IPv6 without
// brackets.
func cutPort(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.Trim(s[i+1:], "0123456789") != "" || i+1 == len(s) {
		return "", "", false
	}
	host, port = s[:i], s[i+1:]
	if strings.Contains(host, ":") && !strings.HasSuffix(host, "]") {
		return "", "", false
	}
	return host, port, true
}

// hostName returns the ASCII form of a host name, or why it is none.
func hostName(s string, wildcard bool) (name, why string) {
	base := strings.TrimSuffix(s, ".")
	star := ""
	if rest, ok := strings.CutPrefix(base, "*."); ok && wildcard {
		base, star = rest, "*."
	}
	if !isASCII(base) {
		ascii, err := idna.Lookup.ToASCII(base)
		if err != nil {
			return "", "has characters that a domain name cannot have"
		}
		base = ascii
	}
	base = strings.ToLower(base)
	name = star + base
	if len(name) > 253 {
		return name, fmt.Sprintf("has %d characters (at most 253 are possible)", len(name))
	}
	labels := strings.Split(base, ".")
	for _, label := range labels {
		if why := labelWrong(label); why != "" {
			return name, why
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return name, "ends in a number, as addresses do"
	}
	return name, ""
}

// labelWrong says what is wrong with a part between two dots.
func labelWrong(label string) string {
	odd := strings.IndexFunc(label, func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-')
	})
	switch {
	case label == "":
		return "has nothing before a dot, or between two"
	case label == "*":
		return `has a "*" that does not stand before a name`
	case len(label) > 63:
		return fmt.Sprintf("has a part of %d characters (at most 63 are possible)", len(label))
	case strings.Contains(label, "*"):
		return `has a "*" that is not the whole part before the first dot`
	case odd >= 0:
		return fmt.Sprintf("has %q (only letters, digits, hyphens and dots are possible)", label[odd:odd+1])
	case label[0] == '-' || label[len(label)-1] == '-':
		return "has a part that begins or ends with a hyphen"
	}
	if strings.HasPrefix(label, "xn--") {
		if _, err := idna.Lookup.ToUnicode(label); err != nil {
			return fmt.Sprintf("has a part, %s, that is no internationalised name", label)
		}
	}
	return ""
}

// parseIP reads an address. One of IPv4 written as IPv6 becomes IPv4, which is
// what clients that connect to it compare with.
func parseIP(s string) (netip.Addr, *problem.Problem) {
	p := &problem.Problem{Found: fmt.Sprintf("%q", s), Expected: "an IPv4 or IPv6 address such as 10.0.0.5 or fd00::5"}
	ip, err := netip.ParseAddr(s)
	switch {
	case err == nil && ip.Zone() == "":
		return ip.Unmap(), nil
	case err == nil:
		p.Next = fmt.Sprintf("leave out the zone, %%%s: it means something on this machine only", ip.Zone())
		return netip.Addr{}, p
	}
	host, _, port := cutPort(s)
	prefix, errPrefix := netip.ParsePrefix(s)
	_, why := hostName(s, true)
	switch {
	case strings.Contains(s, "://"):
		p.Next = "leave the address alone there; a URI goes to " + FlagURI
	case errPrefix == nil:
		p.Next = fmt.Sprintf("name each address; %s is a network", prefix)
	case port && isAddress(host):
		p.Next = "leave out the port: a certificate is for all ports"
	case isAddress(s):
		p.Next = "leave out the brackets"
	case why == "" && strings.ContainsFunc(s, func(r rune) bool { return 'g' <= r|0x20 && r|0x20 <= 'z' }):
		p.Next = "a DNS name goes to " + FlagDNS
	}
	return netip.Addr{}, p
}

// parseURI reads an absolute URI (RFC 3986, section 4.3, as RFC 5280, section
// 4.2.1.6, requires it).
func parseURI(s string) (string, *problem.Problem) {
	p := &problem.Problem{Found: fmt.Sprintf("%q", s), Expected: "an absolute URI such as https://cache.example.com/"}
	if _, rest, ok := strings.Cut(s, "//"); ok {
		if end := strings.IndexAny(rest, "/?#"); end >= 0 {
			rest = rest[:end]
		}
		if strings.Contains(rest, "@") {
			p.Found = "a URI with a user or password in it" // not shown: it may be a secret
			p.Next = "leave out what is before the @: everybody can read a certificate"
			return "", p
		}
	}
	odd := strings.IndexFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-._~:/?#[]@!$&'()*+,;=%", r))
	})
	if odd >= 0 {
		p.Found += fmt.Sprintf(", which has %q", []rune(s[odd:])[0])
		p.Next = "write it with percent signs (%20 for a space) and its host in ASCII"
		return "", p
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		p.Err = err
		return "", p
	case u.Scheme == "":
		p.Found += ", which has no scheme"
		return "", p
	case strings.Trim(u.Opaque, "0123456789") == "" && u.Opaque != "":
		p.Found += ", which is a host with a port"
		return "", p
	case len(s) == len(u.Scheme)+1:
		p.Found += ", which has nothing after its scheme"
		return "", p
	case strings.HasPrefix(s[len(u.Scheme)+1:], "//") && u.Host == "" && u.Scheme != "file":
		p.Found += ", which has no host"
		return "", p
	}
	if host := u.Hostname(); host != "" && !isAddress(host) {
		if _, why := hostName(host, false); why != "" || strings.HasSuffix(host, ".") {
			if why == "" {
				why = "ends with a dot"
			}
			p.Found += ", whose host " + why
			return "", p
		}
	}
	return s, nil
}

// parseEmail reads a mailbox (RFC 5280, section 4.2.1.6: RFC 2821's, in ASCII).
func parseEmail(s string) (string, *problem.Problem) {
	p := &problem.Problem{Found: fmt.Sprintf("%q", s), Expected: "an e-mail address such as admin@example.com"}
	if !isASCII(s) {
		p.Found += ", which has characters beyond ASCII"
		p.Next = "write the domain in punycode (xn--…); there is no such form for what is before the @"
		return "", p
	}
	local, domain, ok := strings.Cut(s, "@")
	if a, err := mail.ParseAddress(s); !ok || err != nil || a.Name != "" || a.Address != s {
		return "", p
	}
	domain, why := hostName(domain, false)
	switch {
	case why != "":
		p.Found += ", whose domain " + why
		return "", p
	case len(local) > 64:
		p.Found += fmt.Sprintf(", which has %d characters before the @ (at most 64 are possible)", len(local))
		return "", p
	}
	return local + "@" + domain, nil
}
