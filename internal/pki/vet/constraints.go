package vet

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

var (
	oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidSubjectAltName  = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidAuthorityKeyID  = asn1.ObjectIdentifier{2, 5, 29, 35}
)

// The kinds of general names, by their tags (RFC 5280, section 4.2.1.6).
const (
	kindOther     = 0
	kindEmail     = 1
	kindDNS       = 2
	kindDirectory = 4
	kindURI       = 6
	kindIP        = 7
)

func kindOfName(tag int) string {
	words := [...]string{"other names", "e-mail addresses", "DNS names", "X.400 addresses", "directory names", "EDI parties", "URIs", "IP addresses", "registered IDs"}
	if tag < 0 || tag >= len(words) {
		return fmt.Sprintf("names of the unknown kind %d", tag)
	}
	return words[tag]
}

// subtree is one constraint (RFC 5280, section 4.2.1.10).
type subtree struct {
	Base asn1.RawValue
	Min  int `asn1:"optional,tag:0"`
	Max  int `asn1:"optional,tag:1,default:-1"`
}

type constraints struct {
	Permitted []subtree `asn1:"optional,tag:0"`
	Excluded  []subtree `asn1:"optional,tag:1"`
}

func extension(c *x509.Certificate, oid asn1.ObjectIdentifier) ([]byte, bool) {
	for _, e := range c.Extensions {
		if e.Id.Equal(oid) {
			return e.Value, true
		}
	}
	return nil, false
}

// constraintsOf reads the name constraints of a CA; false if it has none. What
// crypto/x509 parsed cannot be malformed here in a way that matters; if it is
// all the same, nothing is taken for understood.
func constraintsOf(c *x509.Certificate) (constraints, bool) {
	var n constraints
	der, ok := extension(c, oidNameConstraints)
	if !ok {
		return n, false
	}
	rest, err := asn1.Unmarshal(der, &n)
	return n, err == nil && len(rest) == 0
}

// name is one name in a certificate that constraints are about.
type name struct {
	kind  int
	value []byte // as encoded in a GeneralName
}

func (n name) String() string {
	switch n.kind {
	case kindDNS, kindEmail, kindURI:
		return clean(string(n.value))
	case kindIP:
		if addr, ok := netip.AddrFromSlice(n.value); ok {
			return addr.String()
		}
	case kindDirectory:
		return clean(directory(n.value).String())
	}
	return "one of the " + kindOfName(n.kind)
}

func directory(der []byte) pkix.RDNSequence {
	var rdns pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &rdns); err != nil {
		return nil
	}
	return rdns
}

// namesOf returns what constraints apply to: the alternative names and, as a
// directory name, the subject (RFC 5280, section 6.1.3 (b)).
func namesOf(c *x509.Certificate) []name {
	var all []name
	if len(directory(c.RawSubject)) > 0 {
		all = append(all, name{kindDirectory, c.RawSubject})
	}
	der, _ := extension(c, oidSubjectAltName)
	var names []asn1.RawValue
	if _, err := asn1.Unmarshal(der, &names); err != nil {
		return all
	}
	for _, n := range names {
		value := n.Bytes
		all = append(all, name{n.Tag, value})
	}
	return all
}

// canCompare reports whether names of this kind can be held against
// constraints here.
func canCompare(kind int) bool { return kind == kindDNS || kind == kindIP || kind == kindDirectory }

// understood returns c without those critical extensions that this package
// checks itself: name constraints of kinds that crypto/x509 does not know,
// such as the directory names that AD CS likes, as long as no certificate of
// the chain has a name of a kind that nobody here knows.
func (v *vetting) understood(c *x509.Certificate) *x509.Certificate {
	if !slices.ContainsFunc(c.UnhandledCriticalExtensions, oidNameConstraints.Equal) || v.blindSpot(c) >= 0 {
		return c
	}
	d := *c
	d.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(c.UnhandledCriticalExtensions), oidNameConstraints.Equal)
	return &d
}

// blindSpot returns a kind of name that ca constrains, that the chain has, and
// that cannot be compared; -1 if there is none.
func (v *vetting) blindSpot(ca *x509.Certificate) int {
	n, ok := constraintsOf(ca)
	if !ok {
		return kindOther
	}
	for _, s := range slices.Concat(n.Permitted, n.Excluded) {
		kind := s.Base.Tag
		if canCompare(kind) || (kind == kindEmail || kind == kindURI) && !v.byHand { // those two crypto/x509 knows
			continue
		}
		for _, c := range v.chain {
			if slices.ContainsFunc(namesOf(c), func(n name) bool { return n.kind == kind }) {
				return kind
			}
		}
	}
	return -1
}

// nameConstraints holds the names of all certificates against the constraints
// of all CAs above them.
func (v *vetting) nameConstraints() {
	for i, ca := range v.path {
		if i == 0 {
			continue
		}
		n, ok := constraintsOf(ca)
		if !ok {
			continue
		}
		if kind := v.blindSpot(ca); kind >= 0 {
			v.say(SeverityFatal, CheckNameConstraints, "name constraints of "+v.who(ca), "constraints on "+kindOfName(kind)+", which the certificate has and nobody here can compare", "constraints on DNS names, addresses and directory names", "leave such names out of the request")
			continue
		}
		if slices.ContainsFunc(ca.UnhandledCriticalExtensions, oidNameConstraints.Equal) {
			v.say(SeverityWarning, CheckNameConstraints, "name constraints of "+v.who(ca), "constraints, marked critical, on kinds of names that programs written in Go do not know", "constraints on DNS names and addresses only", "nothing for Windows clients and those with OpenSSL; clients written in Go will refuse the certificate")
		}
		for j, c := range v.path[:i] {
			if j > 0 && selfIssued(c) {
				continue // RFC 5280, section 6.1.3 (b)
			}
			for _, nm := range namesOf(c) {
				v.constrain(ca, c, n, nm, nm.String())
			}
			// OpenSSL takes the common name for a DNS name here, if there is no
			// other.
			if cn := c.Subject.CommonName; j == 0 && len(c.DNSNames) == 0 && isName(cn) && strings.Contains(cn, ".") && !hostOf(cn).addr.IsValid() {
				v.constrain(ca, c, n, name{kindDNS, []byte(cn)}, clean(cn)+" (the common name)")
			}
		}
	}
}

func (v *vetting) constrain(ca, c *x509.Certificate, n constraints, nm name, text string) {
	if !canCompare(nm.kind) {
		return
	}
	var permitted []string
	inside := false
	for _, s := range n.Permitted {
		if s.Base.Tag == nm.kind {
			permitted = append(permitted, subtreeText(s))
			inside = inside || within(nm, s, false)
		}
	}
	const next = "request a certificate without it, or from a CA that may give it"
	field := "names of " + v.who(c)
	if len(permitted) > 0 && !inside {
		v.say(SeverityFatal, CheckNameConstraints, field, fmt.Sprintf("%s, which %s may not give", text, title(ca)), "of "+kindOfName(nm.kind)+", only those that its name constraints permit: "+list(permitted), next)
	}
	for _, s := range n.Excluded {
		if s.Base.Tag == nm.kind && within(nm, s, true) {
			v.say(SeverityFatal, CheckNameConstraints, field, fmt.Sprintf("%s, which %s may not give", text, title(ca)), "no names of what its name constraints exclude: "+subtreeText(s), next)
			return
		}
	}
}

// within reports whether nm lies in the subtree. For what is excluded, a
// wildcard lies in it already if one of its names does.
func within(nm name, s subtree, excluded bool) bool {
	base := s.Base.Bytes
	switch nm.kind {
	case kindDNS:
		return dnsWithin(lower(string(nm.value)), lower(string(base)), excluded)
	case kindIP:
		if len(base) != 2*len(nm.value) {
			return false
		}
		ip, mask := base[:len(base)/2], base[len(base)/2:]
		for i := range nm.value {
			if nm.value[i]&mask[i] != ip[i]&mask[i] {
				return false
			}
		}
		return true
	case kindDirectory:
		return directoryWithin(directory(nm.value), directory(base))
	}
	return false
}

func dnsWithin(n, base string, excluded bool) bool {
	if base == "" {
		return true
	}
	if strings.HasPrefix(base, ".") { // not in RFC 5280, and everywhere: at least one label more
		return strings.HasSuffix(n, base)
	}
	if n == base || strings.HasSuffix(n, "."+base) {
		return true
	}
	parent, wild := strings.CutPrefix(n, "*.")
	_, rest, _ := strings.Cut(base, ".")
	return excluded && wild && rest == parent
}

// directoryWithin reports whether n begins with all of base (RFC 5280, section
// 7.1), with strings compared without regard to case and repeated spaces.
func directoryWithin(n, base pkix.RDNSequence) bool {
	if len(n) < len(base) {
		return false
	}
	fold := func(a pkix.AttributeTypeAndValue) string {
		return a.Type.String() + "=" + strings.ToLower(strings.Join(strings.Fields(fmt.Sprint(a.Value)), " "))
	}
	for i, want := range base {
		if len(want) != len(n[i]) {
			return false
		}
		for _, a := range want {
			if !slices.ContainsFunc(n[i], func(b pkix.AttributeTypeAndValue) bool { return fold(a) == fold(b) }) {
				return false
			}
		}
	}
	return true
}

func subtreeText(s subtree) string {
	base := s.Base.Bytes
	if s.Base.Tag == kindIP {
		half := len(base) / 2
		addr, ok := netip.AddrFromSlice(base[:half])
		bits := 0
		for _, b := range base[half:] {
			for ; b&0x80 != 0; b <<= 1 {
				bits++
			}
		}
		if ok {
			return netip.PrefixFrom(addr, bits).String()
		}
	}
	if s.Base.Tag == kindDNS && len(base) == 0 {
		return "all"
	}
	return name{s.Base.Tag, base}.String()
}

// criticalExtensions names what clients must refuse because they do not know
// it (RFC 5280, section 4.2).
func (v *vetting) criticalExtensions() {
	for _, c := range v.path {
		for _, oid := range c.UnhandledCriticalExtensions {
			if oid.Equal(oidNameConstraints) || oid.Equal(oidSubjectAltName) {
				continue // nameConstraints and names say it
			}
			v.say(SeverityFatal, CheckCritical, "extensions of "+v.who(c), fmt.Sprintf("the critical extension %s, which clients do not know and so must refuse", oid), "critical extensions of RFC 5280 only", "have it issued again without it, or with it not marked critical")
		}
	}
}

// authoritySerial returns the serial number of c's issuer, if c tells it.
func authoritySerial(c *x509.Certificate) string {
	der, ok := extension(c, oidAuthorityKeyID)
	if !ok {
		return ""
	}
	var id struct {
		KeyID  []byte          `asn1:"optional,tag:0"`
		Issuer []asn1.RawValue `asn1:"optional,tag:1"`
		Serial asn1.RawValue   `asn1:"optional,tag:2"`
	}
	if rest, err := asn1.Unmarshal(der, &id); err != nil || len(rest) > 0 || len(id.Serial.Bytes) == 0 || len(id.Serial.Bytes) > 20 {
		return ""
	}
	return fmt.Sprintf("%X", bytes.TrimLeft(id.Serial.Bytes, "\x00"))
}
