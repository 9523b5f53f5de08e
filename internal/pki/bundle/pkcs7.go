package bundle

import (
	"encoding/asn1"
)

// contentInfoDER is ContentInfo of RFC 5652, section 3.
type contentInfoDER struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"explicit,optional,tag:0"`
}

// signedData is SignedData (RFC 5652, section 5.1) as far as its certificates
// are concerned. A .p7b has nothing else.
type signedData struct {
	Version      int
	Digests      asn1.RawValue
	Content      asn1.RawValue
	Certificates asn1.RawValue `asn1:"optional,tag:0"`
	CRLs         asn1.RawValue `asn1:"optional,tag:1"`
	Signers      asn1.RawValue
}

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidEnvelopedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3}
	oidEncryptedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}
)

// pkcs7 reads the certificates of a SignedData. Its signatures, if it has
// any, are not looked at: what a certificate is worth, its own says.
func (r *reader) pkcs7(der []byte) error {
	const expected, next = "PKCS#7 with certificates (.p7b)", "have the certificates exported as .p7b or .cer"
	var info contentInfoDER
	if err := unmarshal(der, &info); err != nil {
		return r.because(err, "PKCS#7 that cannot be read", expected, copyAgain)
	}
	switch {
	case info.Type.Equal(oidSignedData):
	case info.Type.Equal(oidEnvelopedData), info.Type.Equal(oidEncryptedData):
		return r.problem("PKCS#7 with an encrypted message", expected, next)
	default:
		return r.problem("PKCS#7 of the kind "+line(info.Type.String(), "?"), expected, next)
	}
	r.b.Format = "PKCS#7"
	var signed signedData
	if err := unmarshal(info.Content.Bytes, &signed); err != nil {
		return r.because(err, "PKCS#7 that cannot be read", expected, copyAgain)
	}
	// CertificateChoices: all but the certificate have a context tag.
	choices, err := values(signed.Certificates.Bytes, mostBytes)
	if err != nil {
		return r.because(err, "PKCS#7 that cannot be read", expected, copyAgain)
	}
	n := 0
	for _, c := range choices {
		if c.Class != asn1.ClassUniversal || c.Tag != asn1.TagSequence {
			r.other("an attribute certificate")
			continue
		}
		n++
		if err := r.cert(c.FullBytes); err != nil {
			return err
		}
	}
	if len(signed.CRLs.Bytes) > 0 {
		r.other("a revocation list (CRL)")
	}
	if n == 0 {
		r.other("PKCS#7 without certificates")
	}
	return nil
}
