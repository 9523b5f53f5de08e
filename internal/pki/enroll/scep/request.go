package scep

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"larder/internal/pki/ed448"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
)

// The shapes of a PKCS#10 request (RFC 2986, section 4), with everything kept
// as it came.
type (
	pkcs10 struct {
		Info      pkcs10Info
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	pkcs10Info struct {
		Version    int
		Subject    asn1.RawValue
		PublicKey  asn1.RawValue
		Attributes []asn1.RawValue `asn1:"tag:0,set"`
	}
	attributeType struct {
		Type   asn1.ObjectIdentifier
		Values asn1.RawValue
	}
	challengeAttribute struct {
		Type   asn1.ObjectIdentifier
		Values []string `asn1:"set"`
	}
)

var oidChallengePassword = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}

// withChallenge makes a request anew with a challenge password among its
// attributes (RFC 2985, section 5.4.1), where SCEP wants it and crypto/x509
// cannot put it. All else stays byte for byte, but for the order of the
// attributes, which DER sorts.
func withChallenge(csrDER []byte, password string, key crypto.Signer) ([]byte, error) {
	broken := func(err error) error {
		return signing.Refuse(&problem.Problem{
			Field: "certificate request", Found: "what is no PKCS#10 request", Err: err, Next: "make the request anew",
		})
	}
	var req pkcs10
	if rest, err := asn1.Unmarshal(csrDER, &req); err != nil || len(rest) > 0 {
		return nil, broken(err)
	}
	challenge, err := asn1.Marshal(challengeAttribute{oidChallengePassword, []string{password}})
	if err != nil {
		return nil, &problem.Problem{Field: "challenge password", Found: "characters that are not UTF-8", Expected: "text"}
	}
	attributes := []asn1.RawValue{{FullBytes: challenge}}
	for _, a := range req.Info.Attributes {
		var t attributeType
		if _, err := asn1.Unmarshal(a.FullBytes, &t); err != nil {
			return nil, broken(err)
		}
		if !t.Type.Equal(oidChallengePassword) {
			attributes = append(attributes, a)
		}
	}
	slices.SortFunc(attributes, func(a, b asn1.RawValue) int { return bytes.Compare(a.FullBytes, b.FullBytes) })
	req.Info.Attributes = attributes

	info, err := asn1.Marshal(req.Info)
	if err != nil {
		return nil, err
	}
	signature, err := sign(info, csrDER, key)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		Info      asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: info}, req.Algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
}

// sign signs as the request at hand was signed.
func sign(info, csrDER []byte, key crypto.Signer) ([]byte, error) {
	parsed, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, err
	}
	var hash crypto.Hash
	switch parsed.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.ECDSAWithSHA256:
		hash = crypto.SHA256
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384:
		hash = crypto.SHA384
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512:
		hash = crypto.SHA512
	case x509.PureEd25519:
	default:
		if !ed448.SignedWith(csrDER) {
			return nil, signing.Refuse(&problem.Problem{
				Field: "certificate request: signature", Found: parsed.SignatureAlgorithm.String(),
				Expected: "RSA (PKCS #1), ECDSA or EdDSA with SHA-2", Next: "make the request anew",
			})
		}
	}
	digest := info
	if hash != 0 {
		h := hash.New()
		h.Write(info)
		digest = h.Sum(nil)
	}
	signature, err := key.Sign(rand.Reader, digest, hash)
	if err != nil {
		return nil, fmt.Errorf("signing the request: %w", err)
	}
	return signature, nil
}
