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
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// OtherName is a name of a kind that somebody else defines (RFC 5280, section
// 4.2.1.6). Its text is as OpenSSL's configuration writes it:
// "1.3.6.1.4.1.311.20.2.3;UTF8:user@example". What is not text there is
// "OID;HEX:" with the value's DER.
type OtherName struct {
	Type  x509.OID
	Value []byte // DER of what is within the [0]
}

// upn is the user principal name of Windows, which "UPN:" stands for.
const upn = "1.3.6.1.4.1.311.20.2.3"

// stringKinds are the string types that a value can be written in, the usual
// word first.
var stringKinds = []struct {
	words []string
	tag   int
	takes func(string) bool
}{
	{[]string{"UTF8", "UTF8String"}, asn1.TagUTF8String, utf8.ValidString},
	{[]string{"IA5", "IA5STRING"}, asn1.TagIA5String, isASCII},
	{[]string{"PRINTABLE", "PRINTABLESTRING"}, asn1.TagPrintableString, isPrintableString},
}

func (o OtherName) marshal(b *cryptobyte.Builder) []byte {
	var inner cryptobyte.Builder
	inner.AddASN1(cbasn1.OBJECT_IDENTIFIER, func(i *cryptobyte.Builder) { i.AddBytes(oidBytes(b, o.Type)) })
	inner.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(i *cryptobyte.Builder) { i.AddBytes(o.Value) })
	if _, err := one(o.Value); err != nil {
		b.SetError(fmt.Errorf("the value of an other name (%s): %w", o.Type, err))
	}
	der, err := inner.Bytes()
	if err != nil {
		b.SetError(err)
	}
	return der
}

// readOtherName reads what is within the GeneralName's tag.
func readOtherName(der []byte) (o OtherName, err error) {
	var parts []asn1.RawValue
	for _, v := range elements(der, &err) {
		parts = append(parts, v)
	}
	switch {
	case err != nil:
		return o, err
	case len(parts) != 2 || parts[0].Class != asn1.ClassUniversal || parts[0].Tag != asn1.TagOID || parts[0].IsCompound ||
		parts[1].Class != asn1.ClassContextSpecific || parts[1].Tag != 0 || !parts[1].IsCompound:
		return o, errors.New("an other name without type and value")
	}
	if o.Type, err = readOID(parts[0].Bytes); err != nil {
		return o, err
	}
	if _, err := one(parts[1].Bytes); err != nil {
		return o, fmt.Errorf("the value of an other name: %w", err)
	}
	o.Value = bytes.Clone(parts[1].Bytes)
	return o, nil
}

// Equal says whether o and p are one name.
func (o OtherName) Equal(p OtherName) bool {
	return o.Type.Equal(p.Type) && bytes.Equal(o.Value, p.Value)
}

// String is the text that ParseOtherName reads.
func (o OtherName) String() string {
	if word, text, ok := o.text(); ok {
		return o.Type.String() + ";" + word + ":" + text
	}
	return o.Type.String() + ";HEX:" + hex.EncodeToString(o.Value)
}

// text is the value if it is a string that can be shown and read back as it
// is.
func (o OtherName) text() (word, text string, ok bool) {
	v, err := one(o.Value)
	if err != nil || v.Class != asn1.ClassUniversal || v.IsCompound || len(v.Bytes) == 0 {
		return "", "", false
	}
	text = string(v.Bytes)
	if strings.TrimSpace(text) != text || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", "", false
	}
	for _, k := range stringKinds {
		if k.tag == v.Tag && k.takes(text) {
			return k.words[0], text, true
		}
	}
	return "", "", false
}

// MarshalText writes o as String does.
func (o OtherName) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads what ParseOtherName reads.
func (o *OtherName) UnmarshalText(text []byte) (err error) {
	*o, err = ParseOtherName(string(text))
	return err
}

// ParseOtherName reads "OID;UTF8:text", "OID;IA5:text", "OID;PRINTABLE:text",
// "OID;HEX:DER of any value" and "UPN:user@domain".
func ParseOtherName(s string) (OtherName, error) {
	if text, ok := cutWord(s, "UPN"); ok {
		if !strings.Contains(text, "@") {
			return OtherName{}, errors.New("a user principal name without @")
		}
		s = upn + ";UTF8:" + text
	}
	typ, rest, ok := strings.Cut(s, ";")
	if !ok {
		return OtherName{}, errors.New("no semicolon after the type")
	}
	var o OtherName
	var err error
	if o.Type, err = parseOID(strings.TrimSpace(typ)); err != nil {
		return OtherName{}, err
	}
	if text, ok := cutWord(rest, "HEX"); ok {
		if o.Value, err = hex.DecodeString(text); err != nil {
			return OtherName{}, err
		}
		return o, wellFormed(o.Value)
	}
	for _, k := range stringKinds {
		for _, word := range k.words {
			text, ok := cutWord(rest, word)
			switch {
			case !ok:
				continue
			case text == "":
				return OtherName{}, errors.New("no text after the colon")
			case !k.takes(text):
				return OtherName{}, fmt.Errorf("the text has characters that %s has not", word)
			}
			o.Value, err = asn1.Marshal(asn1.RawValue{Tag: k.tag, Bytes: []byte(text)})
			return o, err
		}
	}
	kind, _, ok := strings.Cut(rest, ":")
	if !ok {
		return OtherName{}, errors.New("no kind of value, such as UTF8:, after the semicolon")
	}
	return OtherName{}, fmt.Errorf("%q is no kind of value", kind)
}

// cutWord cuts "word:" from the front, however it is capitalised.
func cutWord(s, word string) (rest string, ok bool) {
	got, rest, ok := strings.Cut(s, ":")
	if !ok || !strings.EqualFold(strings.TrimSpace(got), word) {
		return "", false
	}
	return rest, true
}

// wellFormed says what is wrong with DER that a person gave as one value.
// Others could not read the names beside it either.
func wellFormed(der []byte) error {
	v, err := one(der)
	if err == nil && v.Class == asn1.ClassUniversal && !v.IsCompound && !plausible(v.Tag, v.Bytes) {
		err = fmt.Errorf("a content that the type %d cannot have", v.Tag)
	}
	if err != nil {
		return fmt.Errorf("no DER of one value: %w", err)
	}
	return nil
}

// plausible checks the content of the primitive types that have rules for it
// (X.690, section 8).
func plausible(tag int, content []byte) bool {
	switch tag {
	case 0: // reserved
		return false
	case asn1.TagBoolean:
		return len(content) == 1 && (content[0] == 0 || content[0] == 0xff)
	case asn1.TagInteger, asn1.TagEnum:
		return len(content) == 1 || len(content) > 1 && !(content[0] == 0 && content[1] < 0x80) && !(content[0] == 0xff && content[1] >= 0x80)
	case asn1.TagBitString:
		return len(content) == 1 && content[0] == 0 || len(content) > 1 && content[0] < 8 && content[len(content)-1]&(1<<content[0]-1) == 0
	case asn1.TagNull:
		return len(content) == 0
	case asn1.TagOID:
		_, err := readOID(content)
		return err == nil
	case asn1.TagUTF8String:
		return utf8.Valid(content)
	case asn1.TagBMPString:
		return len(content)%2 == 0
	case tagUniversalString:
		return len(content)%4 == 0
	case asn1.TagSequence, asn1.TagSet:
		return false // always constructed
	}
	return true
}

const tagUniversalString = 28

// parseOID reads a dotted object identifier.
func parseOID(s string) (x509.OID, error) {
	if len(s) > longestOID {
		return x509.OID{}, fmt.Errorf("an object identifier of %d characters", len(s))
	}
	oid, err := x509.ParseOID(s)
	if err != nil || slices.Contains(strings.Split(s, "."), "") {
		return x509.OID{}, fmt.Errorf("%q is no object identifier such as 1.3.6.1.4.1.311.20.2.3", s)
	}
	return oid, nil
}

// isPrintableString says whether s fits a PrintableString (X.680, section 41.4).
func isPrintableString(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(" '()+,-./:=?", r))
	})
}

// Unknown is a name of a kind that is kept but not understood: x400Address or
// ediPartyName.
type Unknown struct{ der string } // the whole GeneralName

// String is "unknown[3]" with the number of the kind.
func (u Unknown) String() string {
	v, err := one([]byte(u.der))
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("unknown[%d]", v.Tag)
}

// DER is the whole GeneralName.
func (u Unknown) DER() []byte { return []byte(u.der) }

// Equal says whether u and v are one name.
func (u Unknown) Equal(v Unknown) bool { return u == v }

// MarshalText writes the DER as hexadecimal digits.
func (u Unknown) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, []byte(u.der)), nil }

// UnmarshalText reads what MarshalText writes.
func (u *Unknown) UnmarshalText(text []byte) error {
	der, err := hex.DecodeString(string(text))
	if err != nil {
		return err
	}
	var n Names
	if v, err := one(der); err != nil {
		return err
	} else if err := n.add(v); err != nil {
		return err
	}
	if len(n.Unknown) != 1 {
		return errors.New("a kind of name that has a field of its own")
	}
	*u = n.Unknown[0]
	return nil
}
