package revocation

import (
	"bytes"
	"context"
	"crypto"
	_ "crypto/sha1" // the hashes that crypto.Hash.New needs
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"

	"larder/internal/pki/ed448"
	"larder/internal/pki/problem"
)

// OCSP asks the responders that leaf names (RFC 6960). The error is not nil if
// and only if the status is Unknown, and says why.
func (c *Checker) OCSP(ctx context.Context, leaf, issuer *x509.Certificate) (Answer, error) {
	if len(leaf.OCSPServer) == 0 {
		return Answer{Status: NotOffered}, nil
	}
	if p := family("OCSP", leaf, issuer); p != nil {
		return unknown(ctx, "OCSP", p)
	}
	// SHA-1 names the issuer here and secures nothing; all responders know it
	// (RFC 5019, section 2.1.1).
	request, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return unknown(ctx, "OCSP", &problem.Problem{Field: "OCSP", Found: "a certificate that cannot be asked about", Expected: "a serial number and a CA's key", Err: err})
	}
	var problems []*problem.Problem
	asked := 0
	for _, text := range leaf.OCSPServer {
		u, p := place("OCSP "+clean(text), text)
		if p != nil {
			problems = append(problems, p)
			continue
		}
		if asked++; asked > mostPlaces || ctx.Err() != nil {
			break
		}
		source := "OCSP " + show(u)
		der, p := c.fetch(ctx, source, u, request, mostOCSP)
		var a Answer
		if p == nil {
			a, p = readOCSP(source, der, leaf, issuer, time.Now())
		}
		if p == nil {
			a.Problems = append(words(problems), a.Problems...)
			return a, nil
		}
		problems = append(problems, p)
	}
	return unknown(ctx, "OCSP", problems...)
}

// The parts of a response (RFC 6960, section 4.2.1) that x/crypto/ocsp does
// not show: whose certificate each answer is about.
type (
	certID struct {
		Hash       pkix.AlgorithmIdentifier
		IssuerName []byte
		IssuerKey  []byte
		Serial     *big.Int
	}
	responseEnvelope struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type     asn1.ObjectIdentifier
			Response []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	basicResponse struct {
		Data struct {
			Version   int `asn1:"optional,default:0,explicit,tag:0"`
			Responder asn1.RawValue
			Produced  time.Time `asn1:"generalized"`
			Responses []asn1.RawValue
			Rest      asn1.RawValue `asn1:"optional"`
		}
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
		Certs     asn1.RawValue `asn1:"optional"`
	}
)

// readOCSP judges the response der at now (RFC 6960, section 3.2).
func readOCSP(source string, der []byte, leaf, issuer *x509.Certificate, now time.Time) (Answer, *problem.Problem) {
	unusable := func(found, expected string, err error) (Answer, *problem.Problem) {
		return Answer{}, &problem.Problem{Field: source, Found: found, Expected: expected, Next: "tell whoever runs the CA, if it stays so", Err: err}
	}
	// Without an issuer, only the signature of a certificate that came along
	// is verified; authorized does the rest.
	res, err := ocsp.ParseResponseForCert(der, leaf, nil)
	if refused := (ocsp.ResponseError{}); errors.As(err, &refused) {
		switch refused.Status {
		case ocsp.Unauthorized:
			return unusable("that the responder may not or cannot answer for this certificate (unauthorized)", "an answer", nil)
		case ocsp.TryLater:
			return unusable("that it is busy (try later)", "an answer", nil)
		}
		return unusable("that it refuses ("+refused.Status.String()+")", "an answer", nil)
	}
	if err != nil {
		return unusable("an answer that cannot be used", "an OCSP response (RFC 6960) about this certificate", err)
	}
	if p := authorized(source, res, issuer, now); p != nil {
		return Answer{}, p
	}
	if !about(der, leaf, issuer) {
		return unusable("an answer about a certificate of another CA", "one about this certificate", nil)
	}
	if p := fresh(source, "an answer", res.ThisUpdate, res.NextUpdate, now); p != nil {
		return Answer{}, p
	}
	a := Answer{Source: source, NextUpdate: res.NextUpdate}
	algorithms := []x509.SignatureAlgorithm{res.SignatureAlgorithm}
	if signer := res.Certificate; signer != nil && !bytes.Equal(signer.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo) {
		algorithms = append(algorithms, signer.SignatureAlgorithm)
	}
	weak := weakSignature(source, "an answer", algorithms...)
	switch res.Status {
	case ocsp.Good:
		if weak != nil {
			return Answer{}, weak
		}
		a.Status = Good
		// Clients know no skew, and refuse a staple without an end.
		if !now.Before(res.ThisUpdate) && now.Before(res.NextUpdate) && len(der) <= mostStaple {
			a.Staple = der
		}
	case ocsp.Revoked:
		a.Status, a.RevokedAt, a.Reason = Revoked, res.RevokedAt, reason(res.RevocationReason)
		if weak != nil {
			a.Problems = words([]*problem.Problem{weak})
		}
	default:
		return unusable("that it does not know this certificate", "good or revoked", nil)
	}
	return a, nil
}

// authorized checks that the answer is signed by the CA, or by a responder
// that the CA itself gave a certificate for this purpose (RFC 6960, section
// 4.2.2.2). Whether that certificate was revoked is not asked: CAs mark them as
// not to be asked about (section 4.2.2.2.1), and give them short lives.
func authorized(source string, res *ocsp.Response, issuer *x509.Certificate, now time.Time) *problem.Problem {
	bad := func(found, expected string, err error) *problem.Problem {
		return &problem.Problem{Field: source, Found: found, Expected: expected, Next: "tell whoever runs the CA; somebody on the way may also have altered the answer", Err: err}
	}
	signer := res.Certificate
	_, isEd448 := ed448.ParseSPKI(issuer.RawSubjectPublicKeyInfo)
	switch {
	case signer == nil && isEd448:
		return &problem.Problem{Field: source, Found: "an answer signed with Ed448, which is not verified here", Expected: "one signed with RSA or ECDSA", Next: "have the CA answer by a responder with such a key"}
	case signer == nil:
		if err := res.CheckSignatureFrom(issuer); err != nil {
			return bad("an answer that the CA did not sign", "the signature of "+clean(issuer.Subject.String()), err)
		}
		return nil
	case bytes.Equal(signer.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo):
		return nil // the CA itself, whose key's signature was verified
	}
	who := "a responder, " + clean(signer.Subject.String()) + ", "
	if err := ed448.CheckSignatureFrom(signer, issuer); err != nil || !bytes.Equal(signer.RawIssuer, issuer.RawSubject) {
		return bad(who+"whose certificate this CA did not issue", "the CA, or a responder with a certificate of it", err)
	}
	if !slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
		return bad(who+"whose certificate is not for OCSP", "OCSP signing as its extended key usage (1.3.6.1.5.5.7.3.9)", nil)
	}
	if now.After(signer.NotAfter.Add(skew)) || now.Before(signer.NotBefore.Add(-skew)) {
		return bad(who+"whose certificate is valid from "+at(signer.NotBefore)+" to "+at(signer.NotAfter), "one that is valid now, "+at(now), nil)
	}
	return nil
}

// about reports whether the answer that x/crypto/ocsp takes, the first with
// this serial number, is about a certificate of issuer. Without that, a
// responder that works for two CAs with one key could be quoted about the
// other's certificate.
func about(der []byte, leaf, issuer *x509.Certificate) bool {
	var envelope responseEnvelope
	var basic basicResponse
	if _, err := asn1.Unmarshal(der, &envelope); err != nil {
		return false
	}
	if _, err := asn1.Unmarshal(envelope.Bytes.Response, &basic); err != nil {
		return false
	}
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &key); err != nil {
		return false
	}
	hashes := map[string]crypto.Hash{"1.3.14.3.2.26": crypto.SHA1, "2.16.840.1.101.3.4.2.1": crypto.SHA256, "2.16.840.1.101.3.4.2.2": crypto.SHA384, "2.16.840.1.101.3.4.2.3": crypto.SHA512}
	for _, r := range basic.Data.Responses {
		var id certID
		if _, err := asn1.Unmarshal(r.Bytes, &id); err != nil || id.Serial == nil {
			return false
		}
		if id.Serial.Cmp(leaf.SerialNumber) != 0 {
			continue
		}
		hash, ok := hashes[id.Hash.Algorithm.String()]
		if !ok {
			return false
		}
		sum := func(b []byte) []byte {
			h := hash.New()
			h.Write(b)
			return h.Sum(nil)
		}
		return bytes.Equal(id.IssuerName, sum(issuer.RawSubject)) && bytes.Equal(id.IssuerKey, sum(key.PublicKey.RightAlign()))
	}
	return false
}
