package san

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// DirName is a distinguished name, kept as the DER that it was read from.
type DirName struct{ der string } // an RDNSequence

// Attribute is one part of a distinguished name.
type Attribute struct {
	Type  string // "CN", or a dotted object identifier for one without a word
	Value string // "" if it is no text
}

// attributeKind says how an attribute is written (RFC 5280, appendix A.1;
// RFC 4519).
type attributeKind struct {
	word string
	oid  string
	tag  int // the string type it is written in
	most int // characters
}

// attributeKinds are the attributes that have a word.
var attributeKinds = []attributeKind{
	{"C", "2.5.4.6", asn1.TagPrintableString, 2},
	{"ST", "2.5.4.8", asn1.TagUTF8String, 128},
	{"L", "2.5.4.7", asn1.TagUTF8String, 128},
	{"O", "2.5.4.10", asn1.TagUTF8String, 64},
	{"OU", "2.5.4.11", asn1.TagUTF8String, 64},
	{"CN", "2.5.4.3", asn1.TagUTF8String, 64},
	{"DC", "0.9.2342.19200300.100.1.25", asn1.TagIA5String, 63},
	{"UID", "0.9.2342.19200300.100.1.1", asn1.TagUTF8String, 256},
	{"STREET", "2.5.4.9", asn1.TagUTF8String, 128},
	{"serialNumber", "2.5.4.5", asn1.TagPrintableString, 64},
	{"emailAddress", "1.2.840.113549.1.9.1", asn1.TagIA5String, 255},
}

// otherAttribute is how one without a word is written.
func otherAttribute(oid string) attributeKind {
	return attributeKind{oid, oid, asn1.TagUTF8String, 1024}
}

// attributeOf finds an attribute by word, however capitalised, or identifier.
func attributeOf(typ string) (attributeKind, error) {
	for _, k := range attributeKinds {
		if strings.EqualFold(k.word, typ) || k.oid == typ {
			return k, nil
		}
	}
	oid, err := parseOID(typ)
	if err != nil {
		var words []string
		for _, k := range attributeKinds {
			words = append(words, k.word)
		}
		return attributeKind{}, fmt.Errorf("%q is no attribute; there are %s and dotted object identifiers", typ, strings.Join(words, ", "))
	}
	for _, k := range attributeKinds {
		if k.oid == oid.String() {
			return k, nil
		}
	}
	return otherAttribute(oid.String()), nil
}

// encode writes a value, or says why it does not fit.
func (k attributeKind) encode(value string) ([]byte, error) {
	if k.word == "C" {
		value = strings.ToUpper(value)
	}
	switch {
	case value == "":
		return nil, fmt.Errorf("%s is empty", k.word)
	case !utf8.ValidString(value):
		return nil, fmt.Errorf("%s is no UTF-8", k.word)
	case strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }):
		return nil, fmt.Errorf("%s has a character that does not print", k.word)
	case k.word == "C" && !isCountry(value):
		return nil, fmt.Errorf("%s is %q, not two letters such as DE", k.word, value)
	case utf8.RuneCountInString(value) > k.most:
		return nil, fmt.Errorf("%s has %d characters; at most %d fit", k.word, utf8.RuneCountInString(value), k.most)
	case k.tag == asn1.TagPrintableString && !isPrintableString(value):
		return nil, fmt.Errorf("%s has a character beyond letters, digits and '()+,-./:=?", k.word)
	case k.tag == asn1.TagIA5String && !isASCII(value):
		return nil, fmt.Errorf("%s has a character beyond ASCII", k.word)
	}
	return asn1.Marshal(asn1.RawValue{Tag: k.tag, Bytes: []byte(value)})
}

func isCountry(s string) bool {
	return len(s) == 2 && !strings.ContainsFunc(s, func(r rune) bool { return r < 'A' || r > 'Z' })
}

// attribute is an AttributeTypeAndValue.
type attribute struct {
	oid   x509.OID
	value []byte // DER
}

// read reads the name into its parts: sets of attributes in their order.
func (d DirName) read() (rdns [][]attribute, err error) {
	name, err := only([]byte(d.der), asn1.ClassUniversal, asn1.TagSequence, true)
	if err != nil {
		return nil, err
	}
	for _, set := range elements(name.Bytes, &err) {
		if set.Class != asn1.ClassUniversal || set.Tag != asn1.TagSet || !set.IsCompound || len(set.Bytes) == 0 {
			return nil, errors.New("a part that is no set of attributes")
		}
		var rdn []attribute
		var inner error
		for _, pair := range elements(set.Bytes, &inner) {
			if pair.Class != asn1.ClassUniversal || pair.Tag != asn1.TagSequence || !pair.IsCompound {
				return nil, errors.New("a part that is no attribute")
			}
			var parts []asn1.RawValue
			var deep error
			for _, v := range elements(pair.Bytes, &deep) {
				parts = append(parts, v)
			}
			if deep != nil || len(parts) != 2 || parts[0].Class != asn1.ClassUniversal || parts[0].Tag != asn1.TagOID || parts[0].IsCompound {
				return nil, errors.New("an attribute without type and value")
			}
			oid, err := readOID(parts[0].Bytes)
			if err != nil {
				return nil, err
			}
			rdn = append(rdn, attribute{oid, parts[1].FullBytes})
		}
		if inner != nil {
			return nil, inner
		}
		rdns = append(rdns, rdn)
	}
	return rdns, err
}

// write puts the parts together. Attributes of one set are sorted, as DER has
// it (X.690, section 11.6).
func write(rdns [][]attribute) (DirName, error) {
	var sets []byte
	for _, rdn := range rdns {
		var pairs [][]byte
		for _, a := range rdn {
			content, err := a.oid.MarshalBinary()
			if err != nil {
				return DirName{}, err
			}
			oid, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagOID, Bytes: content})
			if err != nil {
				return DirName{}, err
			}
			pair, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(oid, a.value...)})
			if err != nil {
				return DirName{}, err
			}
			pairs = append(pairs, pair)
		}
		slices.SortFunc(pairs, bytes.Compare)
		set, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: bytes.Join(pairs, nil)})
		if err != nil {
			return DirName{}, err
		}
		sets = append(sets, set...)
	}
	der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: sets})
	return DirName{string(der)}, err
}

// ReadDirName reads a Name in DER.
func ReadDirName(der []byte) (DirName, error) {
	d := DirName{string(der)}
	if _, err := d.read(); err != nil {
		return DirName{}, fmt.Errorf("a directory name: %w", err)
	}
	return d, nil
}

// MakeDirName makes a name of attributes, in the order they have in DER: the
// country comes first.
func MakeDirName(attributes ...Attribute) (DirName, error) {
	var rdns [][]attribute
	for _, a := range attributes {
		made, err := makeAttribute(a.Type, a.Value)
		if err != nil {
			return DirName{}, err
		}
		rdns = append(rdns, []attribute{made})
	}
	return write(rdns)
}

func makeAttribute(typ, value string) (attribute, error) {
	kind, err := attributeOf(typ)
	if err != nil {
		return attribute{}, err
	}
	oid, err := parseOID(kind.oid)
	if err != nil {
		return attribute{}, err
	}
	der, err := kind.encode(value)
	return attribute{oid, der}, err
}

// DER is the name as a certificate has it.
func (d DirName) DER() []byte {
	if d.der == "" {
		return []byte{0x30, 0} // the zero value is the empty name
	}
	return []byte(d.der)
}

// Equal says whether d and e are written the same.
func (d DirName) Equal(e DirName) bool { return bytes.Equal(d.DER(), e.DER()) }

// Attributes are the parts of the name in the order of DER.
func (d DirName) Attributes() []Attribute {
	rdns, _ := DirName{string(d.DER())}.read() // it was read before
	var all []Attribute
	for _, rdn := range rdns {
		for _, a := range rdn {
			kind := kindOf(a.oid)
			text, _ := decodeString(a.value)
			all = append(all, Attribute{kind.word, text})
		}
	}
	return all
}

func kindOf(oid x509.OID) attributeKind {
	dotted := oid.String()
	for _, k := range attributeKinds {
		if k.oid == dotted {
			return k
		}
	}
	return otherAttribute(dotted)
}

// String is the name for people, as RFC 4514 writes it: the last part first.
func (d DirName) String() string {
	return d.format(func(k attributeKind, der []byte) string {
		if text, ok := decodeString(der); ok {
			return escapeValue(text)
		}
		return "#" + hex.EncodeToString(der)
	})
}

// MarshalText is String, except that a value in another string type than
// Parse would write it in is given in DER, so that it comes back the same.
func (d DirName) MarshalText() ([]byte, error) {
	return []byte(d.format(func(k attributeKind, der []byte) string {
		if text, ok := decodeString(der); ok {
			if same, err := k.encode(text); err == nil && bytes.Equal(same, der) {
				return escapeValue(text)
			}
		}
		return "#" + hex.EncodeToString(der)
	})), nil
}

// UnmarshalText reads what ParseDirName reads, and the empty name.
func (d *DirName) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*d = DirName{}
		return nil
	}
	*d, err = ParseDirName(string(text))
	return err
}

func (d DirName) format(value func(attributeKind, []byte) string) string {
	rdns, _ := DirName{string(d.DER())}.read() // it was read before
	var parts []string
	for _, rdn := range slices.Backward(rdns) {
		var pairs []string
		for _, a := range rdn {
			k := kindOf(a.oid)
			pairs = append(pairs, k.word+"="+value(k, a.value))
		}
		parts = append(parts, strings.Join(pairs, "+"))
	}
	return strings.Join(parts, ",")
}

// decodeString reads any of the string types that names are written in.
func decodeString(der []byte) (string, bool) {
	v, err := one(der)
	if err != nil || v.Class != asn1.ClassUniversal || v.IsCompound {
		return "", false
	}
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagNumericString, tagVisibleString:
		return string(v.Bytes), utf8.Valid(v.Bytes)
	case asn1.TagT61String: // Latin 1 in practice, as OpenSSL reads it too
		var b strings.Builder
		for _, c := range v.Bytes {
			b.WriteRune(rune(c))
		}
		return b.String(), true
	case asn1.TagBMPString:
		if len(v.Bytes)%2 != 0 {
			return "", false
		}
		var units []uint16
		for i := 0; i < len(v.Bytes); i += 2 {
			units = append(units, uint16(v.Bytes[i])<<8|uint16(v.Bytes[i+1]))
		}
		return string(utf16.Decode(units)), true
	}
	return "", false
}

const tagVisibleString = 26
