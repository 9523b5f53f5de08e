package csr

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"larder/internal/pki/keys"
	"larder/internal/pki/san"
)

// Warnings are what may disappoint about a request that is otherwise in order,
// one sentence each. clientNames are the names and addresses by which clients
// reach the node; none means that they are not known.
func (r Request) Warnings(clientNames []string) []string {
	var all []string
	warn := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	used := make([]string, 0, len(clientNames))
	for _, name := range clientNames {
		if name = clientName(name); name != "" && !slices.Contains(used, name) {
			used = append(used, name)
		}
	}
	hosts := r.Names.Hosts()

	switch r.Algorithm {
	case keys.Ed25519:
		warn("%s %s: Windows clients cannot use such a key (Schannel has no Ed25519); they go past the node. Use EC or RSA if there are any", FlagAlgo, r.Algorithm)
	case keys.Ed448:
		warn("%s %s: neither Go's TLS, which this node serves with, nor Windows' clients can use such a key; HTTPS cannot be switched on with it alone. Use EC or RSA for serving", FlagAlgo, r.Algorithm)
	}
	if len(hosts) == 0 {
		warn("%s: there is no DNS name and no IP address among the alternative names; download clients look at nothing else, so none will use this certificate", san.FlagDNS)
	}
	for _, name := range r.Names.DNS {
		if strings.HasPrefix(name, "*.") {
			warn("%s %s: the vendor's (Microsoft Connected Cache) tools refuse wildcards, this node does not; name each host if the certificate has to work there too", san.FlagDNS, name)
		}
	}
	for _, ip := range r.Names.IP {
		if ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() {
			warn("%s %s: other machines cannot reach the node by this address", san.FlagIP, ip)
		}
	}
	if len(used) > 0 {
		for _, host := range hosts {
			if !slices.ContainsFunc(used, func(name string) bool { return covers(host, name) }) {
				warn("%s %s: no client is known to use this name; they use %s", flagFor(host), host, strings.Join(used, ", "))
			}
		}
		for _, name := range used {
			if !slices.ContainsFunc(hosts, func(host string) bool { return covers(host, name) }) {
				warn("%s: clients use %s, which the certificate would not name; they would go past the node", flagFor(name), name)
			}
		}
	}
	if n := r.Names.Len() - len(hosts); n > 0 && len(hosts) > 0 {
		var others []string
		for _, text := range r.Names.Texts() {
			if !strings.HasPrefix(text, "DNS:") && !strings.HasPrefix(text, "IP:") {
				others = append(others, text)
			}
		}
		warn("%s: download clients look at DNS names and IP addresses only; these do no harm, and no good to them", strings.Join(others, ", "))
	}
	if cn := clientName(r.CommonName); cn != "" && !slices.ContainsFunc(hosts, func(host string) bool { return covers(host, cn) }) {
		warn("%s %s: it is not among the alternative names, and clients do not look at the common name; give it with %s too if they use it", FlagCommonName, r.CommonName, flagFor(cn))
	}
	return all
}

// flagFor is the flag that a name or an address is given with.
func flagFor(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return san.FlagIP
	}
	return san.FlagDNS
}

// clientName is a name as it is compared: without port, brackets and final dot,
// in lower-case ASCII.
func clientName(s string) string {
	s = strings.TrimSpace(s)
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().String()
	}
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return ip.Unmap().String()
	}
	if host, port, ok := strings.Cut(s, ":"); ok && strings.Trim(port, "0123456789") == "" {
		s = host
	}
	if n, err := san.Parse(san.Texts{DNS: []string{s}}); err == nil && len(n.DNS) == 1 {
		return n.DNS[0] // in punycode
	}
	return strings.TrimSuffix(strings.ToLower(s), ".")
}

// covers says whether a certificate for host is one for name (RFC 9525, section
// 6.3): a wildcard stands for one label.
func covers(host, name string) bool {
	if base, ok := strings.CutPrefix(host, "*."); ok {
		if _, rest, cut := strings.Cut(name, "."); cut && strings.EqualFold(rest, base) {
			return true
		}
	}
	return strings.EqualFold(host, name) // a request that was read may have capitals
}
