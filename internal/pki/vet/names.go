package vet

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"
)

// host is a name that clients use, in the form in which they look for it.
type host struct {
	text string     // as it was given
	addr netip.Addr // valid for addresses
	name string     // for names: in lower case, without the last dot, in ASCII; "" if nobody can ask for it
}

func hostOf(text string) host {
	h := host{text: text}
	bare := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	if addr, err := netip.ParseAddr(bare); err == nil {
		h.addr = addr.WithZone("").Unmap()
		return h
	}
	name := strings.TrimSuffix(text, ".")
	if strings.IndexFunc(name, func(r rune) bool { return r > 127 }) >= 0 {
		ascii, err := idna.Lookup.ToASCII(name)
		if err != nil {
			return h
		}
		name = ascii
	}
	if name = lower(name); isName(name) {
		h.name = name
	}
	return h
}

// lower leaves all but ASCII alone: DNS folds nothing else.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

// isName reports whether s can be a host name. Underscores are against the
// rules and in use.
func isName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || label[0] == '-' || len(label) > 63 || strings.IndexFunc(label, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
		}) >= 0 {
			return false
		}
	}
	return true
}

// Covers reports whether clients that use name, a host name or an address,
// find it in cert (RFC 9525, section 6). Where clients differ, it takes the
// strict ones: a wildcard is a whole label, the first, stands for exactly one
// without an underscore, and has two labels or more after it; the common name
// counts for nothing.
func Covers(cert *x509.Certificate, name string) bool { return covers(cert, hostOf(name)) }

func covers(cert *x509.Certificate, h host) bool {
	if h.addr.IsValid() {
		return slices.ContainsFunc(addresses(cert), func(a netip.Addr) bool { return a == h.addr })
	}
	return slices.ContainsFunc(cert.DNSNames, func(pattern string) bool { return matches(pattern, h.name) })
}

func matches(pattern, name string) bool {
	if name == "" {
		return false
	}
	pattern = lower(pattern)
	parent, wild := strings.CutPrefix(pattern, "*.")
	if !wild {
		return pattern == name
	}
	first, rest, _ := strings.Cut(name, ".")
	return rest == parent && isWildcard(pattern) && !strings.Contains(first, "_")
}

// isWildcard reports whether pattern is a wildcard that all clients know.
func isWildcard(pattern string) bool {
	parent, wild := strings.CutPrefix(pattern, "*.")
	return wild && isName(parent) && strings.Contains(parent, ".") && !strings.Contains(parent, "_")
}

// addresses returns the addresses of cert's subject alternative names.
func addresses(cert *x509.Certificate) []netip.Addr {
	var all []netip.Addr
	for _, ip := range cert.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			all = append(all, addr.Unmap())
		}
	}
	return all
}

// hostTexts returns the names of cert that clients look at.
func hostTexts(cert *x509.Certificate) []string {
	all := slices.Clone(cert.DNSNames)
	for _, addr := range addresses(cert) {
		all = append(all, addr.String())
	}
	return all
}

// names holds the subject alternative names against what clients use.
func (v *vetting) names() {
	leaf := v.leaf()
	field := "names of " + v.who(leaf)
	if len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 {
		v.noNames(field)
		return
	}
	v.uselessNames(field)
	v.wildcards(field)

	var hosts, missing []host
	var wanted []string
	for _, text := range v.ClientNames {
		h := hostOf(text)
		if h.name == "" && !h.addr.IsValid() {
			v.say(SeverityWarning, CheckNames, "client name", fmt.Sprintf("%q", clean(text)), "a host name or an address, as clients use it", "correct the names that clients use")
			continue
		}
		hosts, wanted = append(hosts, h), append(wanted, text)
		if !covers(leaf, h) {
			missing = append(missing, h)
		}
	}
	if len(hosts) == 0 {
		return
	}
	if len(missing) == len(hosts) {
		found := list(hostTexts(leaf)) + ", and none of the names that clients use"
		for _, h := range missing {
			if why := v.nearMiss(h); why != "" {
				found += "; " + why
			}
		}
		v.say(SeverityFatal, CheckNames, field, found, "subject alternative names for "+list(wanted), requestAgain(missing))
	} else {
		for _, h := range missing {
			found := fmt.Sprintf("no name for %q, which clients use", clean(h.text))
			if why := v.nearMiss(h); why != "" {
				found += "; " + why
			}
			v.say(SeverityWarning, CheckNames, field, found, "it among the subject alternative names", requestAgain([]host{h})+"; until then clients that use this name go past the node")
		}
	}
	var unused []string
	for _, pattern := range leaf.DNSNames {
		useful := isWildcard(pattern) || isName(pattern) && !hostOf(pattern).addr.IsValid() // of others, uselessNames speaks
		if useful && !slices.ContainsFunc(hosts, func(h host) bool { return matches(pattern, h.name) }) {
			unused = append(unused, pattern)
		}
	}
	for _, addr := range addresses(leaf) {
		if !slices.ContainsFunc(hosts, func(h host) bool { return h.addr == addr }) {
			unused = append(unused, addr.String())
		}
	}
	if len(unused) > 0 && len(missing) < len(hosts) {
		v.say(SeverityNote, CheckNames, field, "names that no client is known to use: "+list(unused), "", "nothing, if they are meant for later; otherwise leave them out of the next request")
	}
}

// requestAgain is the next step for names that are missing.
func requestAgain(missing []host) string {
	var dns, ips []string
	for _, h := range missing {
		if h.addr.IsValid() {
			ips = append(ips, h.addr.String())
		} else {
			dns = append(dns, h.name)
		}
	}
	next := "request a certificate with"
	if len(dns) > 0 {
		next += " --san-dns " + clean(strings.Join(dns, ","))
	}
	if len(ips) > 0 {
		next += " --san-ip " + strings.Join(ips, ",")
	}
	return next
}

// nearMiss says what in the certificate looks as if it covered h.
func (v *vetting) nearMiss(h host) string {
	leaf := v.leaf()
	if h.addr.IsValid() {
		if slices.ContainsFunc(leaf.DNSNames, func(n string) bool { return hostOf(n).addr == h.addr }) {
			return fmt.Sprintf("%s is there as a DNS name, and clients look for addresses among the IP addresses only", h.addr)
		}
		return ""
	}
	for _, pattern := range leaf.DNSNames {
		parent, wild := strings.CutPrefix(lower(pattern), "*.")
		if !wild || !strings.HasSuffix(h.name, "."+parent) && h.name != parent {
			continue
		}
		if !isWildcard(lower(pattern)) || strings.Count(h.name, ".") == strings.Count(pattern, ".") {
			return fmt.Sprintf("%s is a wildcard that not all clients take for it", clean(pattern))
		}
		return fmt.Sprintf("%s stands for exactly one label before %s", clean(pattern), clean(parent))
	}
	if leaf.Subject.CommonName != "" && lower(leaf.Subject.CommonName) == h.name {
		return h.name + " is the common name (CN), which clients do not look at"
	}
	return ""
}

// noNames is for a certificate in which clients find no name whatever.
func (v *vetting) noNames(field string) {
	leaf := v.leaf()
	found := "no subject alternative name"
	switch {
	case len(leaf.URIs)+len(leaf.EmailAddresses) > 0:
		found = "neither a DNS name nor an address among the subject alternative names"
	case leaf.Subject.CommonName != "":
		found = fmt.Sprintf("%q as the common name (CN) only, and no subject alternative name", clean(leaf.Subject.CommonName))
	}
	hosts := make([]host, 0, len(v.ClientNames))
	for _, text := range v.ClientNames {
		if h := hostOf(text); h.name != "" || h.addr.IsValid() {
			hosts = append(hosts, h)
		}
	}
	next := "request a certificate with --san-dns or --san-ip"
	if len(hosts) > 0 {
		next = requestAgain(hosts)
	}
	v.say(SeverityFatal, CheckNames, field, found, "the names that clients use as subject alternative names; they do not look at the common name",
		next+", and make sure that the CA's template takes the names from the request")
}

// uselessNames are names that no client can find, whatever it is called.
func (v *vetting) uselessNames(field string) {
	leaf := v.leaf()
	for _, n := range leaf.DNSNames {
		addr := hostOf(n).addr
		switch {
		case addr.IsValid() && slices.Contains(addresses(leaf), addr):
			v.say(SeverityNote, CheckNames, field, fmt.Sprintf("the address %s as a DNS name too", addr), "it among the IP addresses, where it also is", "nothing; leave the DNS name out of the next request")
		case addr.IsValid():
			v.say(SeverityWarning, CheckNames, field, fmt.Sprintf("the address %s written as a DNS name", addr), "it as an IP address (iPAddress): clients look for addresses nowhere else", requestAgain([]host{{addr: addr}}))
		case strings.Contains(n, "*"):
			// wildcards says what there is to say.
		case strings.Contains(n, "://"):
			v.say(SeverityWarning, CheckNames, field, fmt.Sprintf("the URL %q as a DNS name", clean(n)), "a bare host name", "request it with the host name alone")
		case strings.HasSuffix(n, ".") && isName(strings.TrimSuffix(n, ".")):
			v.say(SeverityWarning, CheckNames, field, fmt.Sprintf("the DNS name %q with a dot at its end, where no client finds it", clean(n)), "the same without that dot", "request it without the dot")
		case !isName(n):
			v.say(SeverityWarning, CheckNames, field, fmt.Sprintf("the DNS name %q, which cannot be a host name", clean(n)), "letters, digits and hyphens between dots, without a port", "request it as clients use it")
		}
	}
}

// wildcards says what names with an asterisk are worth.
func (v *vetting) wildcards(field string) {
	var good []string
	for _, n := range v.leaf().DNSNames {
		switch {
		case !strings.Contains(n, "*"):
		case isWildcard(n):
			good = append(good, n)
		default:
			v.say(SeverityWarning, CheckWildcard, field, fmt.Sprintf("the wildcard %q, which some clients refuse", clean(n)),
				"the asterisk alone as the first label, and two labels or more after it", "request the names one by one")
		}
	}
	if len(good) > 0 {
		v.say(SeverityNote, CheckWildcard, field, "a wildcard: "+list(good), "",
			"nothing here; Microsoft Connected Cache refuses wildcards, and whoever gets hold of one node's key can pass for all that the name stands for")
	}
}
