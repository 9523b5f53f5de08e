package revocation

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"

	"larder/internal/pki/ed448"
)

// list is a CRL (RFC 5280, section 5.1). Its entries stay as they came:
// crypto/x509 would make ten times as much memory of them, and one serial
// number is looked up.
type list struct {
	der     []byte
	tbs     []byte
	entries cryptobyte.String    // the content of revokedCertificates
	head    *x509.RevocationList // all but the entries
}

var (
	errNoList    = errors.New("not a certificate revocation list")
	errNoEntries = errors.New("entries that cannot be read")
)

// parseList reads a CRL. crypto/x509 reads it without its entries, which are
// walked here.
func parseList(der []byte) (*list, error) {
	l := &list{der: der}
	var outer, tbsElement, tbs, algorithm, signature cryptobyte.String
	input := cryptobyte.String(der)
	if !input.ReadASN1(&outer, tags.SEQUENCE) || !input.Empty() ||
		!outer.ReadASN1Element(&tbsElement, tags.SEQUENCE) ||
		!outer.ReadASN1Element(&algorithm, tags.SEQUENCE) || !outer.ReadASN1Element(&signature, tags.BIT_STRING) || !outer.Empty() {
		return nil, errNoList
	}
	l.tbs = tbsElement
	if !tbsElement.ReadASN1(&tbs, tags.SEQUENCE) {
		return nil, errNoList
	}
	// TBSCertList: all but revokedCertificates goes into the head.
	var head []cryptobyte.String
	take := func(optional bool, allowed ...tags.Tag) bool {
		var element cryptobyte.String
		var tag tags.Tag
		if !slices.ContainsFunc(allowed, tbs.PeekASN1Tag) {
			return optional
		}
		ok := tbs.ReadAnyASN1Element(&element, &tag)
		head = append(head, element)
		return ok
	}
	if !take(true, tags.INTEGER) || // version
		!take(false, tags.SEQUENCE) || !take(false, tags.SEQUENCE) || // signature, issuer
		!take(false, tags.UTCTime, tags.GeneralizedTime) || !take(true, tags.UTCTime, tags.GeneralizedTime) ||
		tbs.PeekASN1Tag(tags.SEQUENCE) && !tbs.ReadASN1(&l.entries, tags.SEQUENCE) ||
		!take(true, tags.Tag(0).ContextSpecific().Constructed()) || !tbs.Empty() {
		return nil, errNoList
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, element := range head {
				b.AddBytes(element)
			}
		})
		b.AddBytes(algorithm)
		b.AddBytes(signature)
	})
	small, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	if l.head, err = x509.ParseRevocationList(small); err != nil {
		return nil, err
	}
	if _, err := l.find(nil); err != nil { // all entries can be read
		return nil, err
	}
	return l, nil
}

// signedBy checks that issuer may sign lists and signed this one (RFC 5280,
// section 6.3.3 (f) and (g)).
func (l *list) signedBy(issuer *x509.Certificate) error {
	if !bytes.Equal(l.head.RawIssuer, issuer.RawSubject) {
		return errors.New("it is the list of another CA, " + clean(l.head.Issuer.String()))
	}
	if issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return errors.New("this CA's certificate does not allow it to sign lists")
	}
	if key, ok := ed448.ParseSPKI(issuer.RawSubjectPublicKeyInfo); ok {
		return ed448.CheckSignature(key, l.der)
	}
	return issuer.CheckSignature(l.head.SignatureAlgorithm, l.tbs, l.head.Signature)
}

// olderThan says whether a list was made before another of the same place:
// each has a later time and a higher number than the one before (RFC 5280,
// section 5.2.3).
func (l *list) olderThan(m *list) bool {
	return l.head.ThisUpdate.Before(m.head.ThisUpdate) || l.head.Number != nil && m.head.Number != nil && l.head.Number.Cmp(m.head.Number) < 0
}

// entry is what a list says about one certificate.
type entry struct {
	at     time.Time
	reason int
}

var (
	oidReason         = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidInvalidityDate = asn1.ObjectIdentifier{2, 5, 29, 24}
)

// find looks a serial number up, given as the content of its DER; nil finds
// none, and looks whether entries can be read, but for their times. An entry that cannot be understood makes the whole list useless (RFC
// 5280, section 5.3).
func (l *list) find(serial []byte) (*entry, error) {
	var found *entry
	rest := l.entries
	for !rest.Empty() {
		var e, number cryptobyte.String
		if !rest.ReadASN1(&e, tags.SEQUENCE) || !e.ReadASN1(&number, tags.INTEGER) || len(number) == 0 {
			return nil, errNoEntries
		}
		match := serial != nil && bytes.Equal(minimal(number), serial)
		var when time.Time
		ok := false
		switch general := e.PeekASN1Tag(tags.GeneralizedTime); {
		case match && general:
			ok = e.ReadASN1GeneralizedTime(&when)
		case match:
			ok = e.ReadASN1UTCTime(&when)
		case general:
			ok = e.SkipASN1(tags.GeneralizedTime)
		default:
			ok = e.SkipASN1(tags.UTCTime)
		}
		if !ok {
			return nil, errNoEntries
		}
		code, err := entryReason(e)
		if err != nil {
			return nil, err
		}
		if match && found == nil {
			found = &entry{when, code}
		}
	}
	return found, nil
}

// minimal cuts superfluous zeros off an integer.
func minimal(number []byte) []byte {
	for len(number) > 1 && number[0] == 0 && number[1] < 0x80 {
		number = number[1:]
	}
	return number
}

// entryReason reads the extensions of an entry.
func entryReason(e cryptobyte.String) (int, error) {
	if e.Empty() {
		return 0, nil
	}
	var extensions cryptobyte.String
	if !e.ReadASN1(&extensions, tags.SEQUENCE) || !e.Empty() {
		return 0, errNoEntries
	}
	code := 0
	for !extensions.Empty() {
		var extension, oid, value cryptobyte.String
		critical := false
		if !extensions.ReadASN1(&extension, tags.SEQUENCE) || !extension.ReadASN1(&oid, tags.OBJECT_IDENTIFIER) ||
			extension.PeekASN1Tag(tags.BOOLEAN) && !extension.ReadASN1Boolean(&critical) ||
			!extension.ReadASN1(&value, tags.OCTET_STRING) || !extension.Empty() {
			return 0, errNoEntries
		}
		switch {
		case is(oid, oidReason):
			if !value.ReadASN1Enum(&code) {
				return 0, errNoEntries
			}
		case critical && !is(oid, oidInvalidityDate):
			return 0, errors.New("an entry with a critical extension that is not understood, such as those of indirect lists")
		}
	}
	return code, nil
}

// is compares the content of an object identifier below 2.5.29.
func is(content []byte, oid asn1.ObjectIdentifier) bool {
	return len(content) == 3 && content[0] == 2*40+5 && content[1] == 29 && int(content[2]) == oid[3]
}

// serialContent is the content of a serial number's DER.
func serialContent(c *x509.Certificate) []byte {
	der, err := asn1.Marshal(c.SerialNumber)
	if err != nil {
		return []byte{} // a serial number that crypto/x509 parsed can be written
	}
	var content cryptobyte.String
	input := cryptobyte.String(der)
	if !input.ReadASN1(&content, tags.INTEGER) {
		return []byte{}
	}
	return content
}

// scope is which certificates and which reasons a list is about (RFC 5280,
// section 5.2.5).
type scope struct {
	Point         point          `asn1:"optional,tag:0"`
	OnlyUsers     bool           `asn1:"optional,tag:1"`
	OnlyCAs       bool           `asn1:"optional,tag:2"`
	SomeReasons   asn1.BitString `asn1:"optional,tag:3"`
	Indirect      bool           `asn1:"optional,tag:4"`
	OnlyAttribute bool           `asn1:"optional,tag:5"`
}

// point is a DistributionPointName (RFC 5280, section 4.2.1.13).
type point struct {
	FullName     []asn1.RawValue `asn1:"optional,tag:0"`
	RelativeName asn1.RawValue   `asn1:"optional,tag:1"`
}

var (
	oidScope    = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDelta    = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidFreshest = asn1.ObjectIdentifier{2, 5, 29, 46}
	oidPoints   = asn1.ObjectIdentifier{2, 5, 29, 31}
)

func extensionOf(all []pkix.Extension, oid asn1.ObjectIdentifier) ([]byte, bool) {
	for _, e := range all {
		if e.Id.Equal(oid) {
			return e.Value, true
		}
	}
	return nil, false
}
