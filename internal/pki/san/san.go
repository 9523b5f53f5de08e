// Package san encodes and reads subject alternative names of all kinds that
// requests and certificates have.
package san

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// OID names the extension (RFC 5280, section 4.2.1.6).
var OID = asn1.ObjectIdentifier{2, 5, 29, 17}

// Names are subject alternative names by kind. The order within a kind is
// kept, that between kinds is not. Every field writes itself as text, so that
// Names go through JSON and YAML and come back the same.
type Names struct {
	DNS       []string     `json:"dns,omitempty" yaml:"dns,omitempty"`
	IP        []netip.Addr `json:"ip,omitempty" yaml:"ip,omitempty"`
	URI       []string     `json:"uri,omitempty" yaml:"uri,omitempty"`
	Email     []string     `json:"email,omitempty" yaml:"email,omitempty"`
	RID       []x509.OID   `json:"rid,omitempty" yaml:"rid,omitempty"`
	DirName   []DirName    `json:"dirName,omitempty" yaml:"dirName,omitempty"`
	OtherName []OtherName  `json:"otherName,omitempty" yaml:"otherName,omitempty"`
	Unknown   []Unknown    `json:"unknown,omitempty" yaml:"unknown,omitempty"` // read and written, but not understood
}

// The choices of GeneralName (RFC 5280, section 4.2.1.6), as they are tagged.
const (
	tagOther = iota
	tagEmail
	tagDNS
	tagX400
	tagDirectory
	tagEDIParty
	tagURI
	tagIP
	tagRID
)

// longestOID bounds identifiers that are read: writing them as text costs the
// square of their length.
const longestOID = 256

// Len is how many names there are.
func (n Names) Len() int {
	return len(n.DNS) + len(n.IP) + len(n.URI) + len(n.Email) + len(n.RID) + len(n.DirName) + len(n.OtherName) + len(n.Unknown)
}

// Hosts are the DNS names and addresses: what download clients look at.
func (n Names) Hosts() []string {
	var hosts []string
	hosts = append(hosts, n.DNS...)
	for _, ip := range n.IP {
		hosts = append(hosts, ip.String())
	}
	return hosts
}

// Texts are all names for people, each with its kind: "DNS:cache.example",
// "IP:10.0.0.5", "URI:…", "email:…", "RID:1.2.3", "DirName:CN=x,O=y",
// "otherName:1.2.3;UTF8:x", "unknown[3]". What could pass for something else in
// a list or on a terminal is quoted.
func (n Names) Texts() []string {
	var texts []string
	for _, s := range n.DNS {
		texts = append(texts, "DNS:"+plain(s, `,"`))
	}
	for _, ip := range n.IP {
		texts = append(texts, "IP:"+ip.String())
	}
	for _, s := range n.URI {
		texts = append(texts, "URI:"+plain(s, `"`))
	}
	for _, s := range n.Email {
		texts = append(texts, "email:"+plain(s, `,"`))
	}
	for _, oid := range n.RID {
		texts = append(texts, "RID:"+oid.String())
	}
	for _, d := range n.DirName {
		texts = append(texts, "DirName:"+d.String())
	}
	for _, o := range n.OtherName {
		texts = append(texts, "otherName:"+o.String())
	}
	for _, u := range n.Unknown {
		texts = append(texts, u.String())
	}
	return texts
}

// plain quotes s if it has a space, one of special, or what does not print.
func plain(s, special string) string {
	odd := func(r rune) bool { return r > unicode.MaxASCII || r <= ' ' || r == 0x7f }
	if s == "" || strings.ContainsFunc(s, odd) || strings.ContainsAny(s, special) {
		return strconv.QuoteToASCII(s)
	}
	return s
}

// Marshal writes the names as GeneralNames in DER (RFC 5280, section
// 4.2.1.6).
func (n Names) Marshal() ([]byte, error) {
	if n.Len() == 0 {
		return nil, errors.New("no subject alternative names") // the sequence may not be empty
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		ia5 := func(tag uint8, texts []string) {
			for _, s := range texts {
				if !isASCII(s) {
					b.SetError(fmt.Errorf("the name %q has characters beyond ASCII", s))
				}
				choice(b, tag, false, []byte(s))
			}
		}
		ia5(tagDNS, n.DNS)
		for _, ip := range n.IP {
			if !ip.IsValid() || ip.Zone() != "" {
				b.SetError(fmt.Errorf("the address %s is none that a certificate can name", ip))
			}
			choice(b, tagIP, false, ip.AsSlice())
		}
		ia5(tagURI, n.URI)
		ia5(tagEmail, n.Email)
		for _, oid := range n.RID {
			choice(b, tagRID, false, oidBytes(b, oid))
		}
		for _, d := range n.DirName {
			choice(b, tagDirectory, true, d.DER()) // explicit: Name is itself a CHOICE
		}
		for _, o := range n.OtherName {
			choice(b, tagOther, true, o.marshal(b))
		}
		for _, u := range n.Unknown {
			b.AddBytes([]byte(u.der))
		}
	})
	return b.Bytes()
}

// choice adds one GeneralName.
func choice(b *cryptobyte.Builder, tag uint8, constructed bool, content []byte) {
	t := cbasn1.Tag(tag).ContextSpecific()
	if constructed {
		t = t.Constructed()
	}
	b.AddASN1(t, func(b *cryptobyte.Builder) { b.AddBytes(content) })
}

// oidBytes is the content of an OBJECT IDENTIFIER.
func oidBytes(b *cryptobyte.Builder, oid x509.OID) []byte {
	content, err := oid.MarshalBinary()
	if err == nil && len(content) == 0 {
		err = errors.New("an object identifier without numbers")
	}
	if err != nil {
		b.SetError(err)
	}
	return content
}

// Read reads GeneralNames in DER. It takes what others wrote as it is: names
// that Parse would refuse too.
func Read(generalNames []byte) (Names, error) {
	n, err := read(generalNames)
	if err != nil {
		return Names{}, fmt.Errorf("reading subject alternative names: %w", err)
	}
	return n, nil
}

func read(der []byte) (n Names, err error) {
	all, err := only(der, asn1.ClassUniversal, asn1.TagSequence, true)
	if err != nil {
		return Names{}, err
	}
	for i, v := range elements(all.Bytes, &err) {
		if e := n.add(v); e != nil {
			return Names{}, fmt.Errorf("name %d: %w", i+1, e)
		}
	}
	return n, err
}

// add takes one GeneralName.
func (n *Names) add(v asn1.RawValue) error {
	if v.Class != asn1.ClassContextSpecific || v.Tag > tagRID {
		return fmt.Errorf("a tag (class %d, number %d) that no kind of name has", v.Class, v.Tag)
	}
	constructed := v.Tag == tagOther || v.Tag == tagX400 || v.Tag == tagDirectory || v.Tag == tagEDIParty
	if v.IsCompound != constructed {
		return fmt.Errorf("kind %d in the wrong form", v.Tag)
	}
	switch v.Tag {
	case tagOther:
		o, err := readOtherName(v.Bytes)
		n.OtherName = append(n.OtherName, o)
		return err
	case tagEmail:
		n.Email = append(n.Email, string(v.Bytes))
	case tagDNS:
		n.DNS = append(n.DNS, string(v.Bytes))
	case tagDirectory:
		d, err := ReadDirName(v.Bytes)
		n.DirName = append(n.DirName, d)
		return err
	case tagURI:
		n.URI = append(n.URI, string(v.Bytes))
	case tagIP:
		ip, ok := netip.AddrFromSlice(v.Bytes)
		if !ok {
			return fmt.Errorf("an address of %d bytes", len(v.Bytes))
		}
		n.IP = append(n.IP, ip)
	case tagRID:
		oid, err := readOID(v.Bytes)
		n.RID = append(n.RID, oid)
		return err
	default: // x400Address and ediPartyName, which nobody ever used
		n.Unknown = append(n.Unknown, Unknown{string(v.FullBytes)})
	}
	return nil
}

// OfCertificate reads the names of a certificate; none if it has none.
func OfCertificate(c *x509.Certificate) (Names, error) { return ofExtensions(c.Extensions) }

// OfRequest reads the names that a request asks for; none if it has none.
func OfRequest(r *x509.CertificateRequest) (Names, error) { return ofExtensions(r.Extensions) }

func ofExtensions(extensions []pkix.Extension) (Names, error) {
	for _, e := range extensions {
		if e.Id.Equal(OID) {
			return Read(e.Value)
		}
	}
	return Names{}, nil
}

// only reads DER that is one element of the given kind and nothing else.
func only(der []byte, class, tag int, compound bool) (asn1.RawValue, error) {
	v, err := one(der)
	if err == nil && (v.Class != class || v.Tag != tag || v.IsCompound != compound) {
		err = fmt.Errorf("an element of the kind %d/%d instead of %d/%d", v.Class, v.Tag, class, tag)
	}
	return v, err
}

// one reads DER that is one element and nothing else.
func one(der []byte) (asn1.RawValue, error) {
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(der, &v)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes after the end", len(rest))
	}
	return v, err
}

// elements yields the elements of DER, and leaves the error that ended it
// early in *err.
func elements(der []byte, err *error) func(yield func(int, asn1.RawValue) bool) {
	return func(yield func(int, asn1.RawValue) bool) {
		for i := 0; len(der) > 0; i++ {
			var v asn1.RawValue
			if der, *err = asn1.Unmarshal(der, &v); *err != nil || !yield(i, v) {
				return
			}
		}
	}
}

func readOID(content []byte) (x509.OID, error) {
	var oid x509.OID
	if len(content) > longestOID {
		return oid, fmt.Errorf("an object identifier of %d bytes", len(content))
	}
	return oid, oid.UnmarshalBinary(content)
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}
