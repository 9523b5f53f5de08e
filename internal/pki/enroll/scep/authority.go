package scep

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/smallstep/pkcs7"

	"larder/internal/pki/bundle"
	"larder/internal/pki/ed448"
	"larder/internal/pki/enroll/inquiry"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
)

// capabilities are what GetCACaps listed (RFC 8894, section 3.5.2), in lower
// case.
type capabilities map[string]bool

func (s *Signer) capabilities(ctx context.Context, c *http.Client) (capabilities, error) {
	answer, err := s.do(ctx, c, "GetCACaps", s.config.CAIdentifier, nil)
	if e, ok := err.(*statusError); ok && (e.code == http.StatusNotFound || e.code == http.StatusBadRequest || e.code == http.StatusNotImplemented) {
		return capabilities{}, nil // a server from before there were any
	}
	if err != nil {
		return nil, err
	}
	return parseCapabilities(answer), nil
}

func parseCapabilities(answer []byte) capabilities {
	able := make(capabilities)
	for _, word := range strings.Fields(string(answer)) {
		if len(word) <= 40 && len(able) < 100 {
			able[strings.ToLower(word)] = true
		}
	}
	return able
}

// standard is RFC 8894's own: it promises AES, SHA-256 and POST.
func (c capabilities) standard() bool { return c["scepstandard"] }

func (c capabilities) post() bool { return c.standard() || c["postpkioperation"] }

func (c capabilities) cipher() cipherKind {
	if c.standard() || c["aes"] {
		return aesCBC()
	}
	return tripleDES()
}

func (c capabilities) digest() digestKind {
	switch {
	case c.standard() || c["sha-256"]:
		return digestKind{"SHA-256", pkcs7.OIDDigestAlgorithmSHA256}
	case c["sha-512"]:
		return digestKind{"SHA-512", pkcs7.OIDDigestAlgorithmSHA512}
	}
	return digestKind{"SHA-1", pkcs7.OIDDigestAlgorithmSHA1}
}

func (c capabilities) legacy() bool {
	return c.cipher().name == "3DES" || c.digest().name == "SHA-1"
}

// authority is what GetCACert gave.
type authority struct {
	certs     []*x509.Certificate // all of them
	signers   []*x509.Certificate // those whose word counts
	recipient *x509.Certificate   // messages are encrypted to it
	issuer    *x509.Certificate   // what certificates will be issued by, as far as can be told
}

func (s *Signer) authority(ctx context.Context, c *http.Client) (*authority, error) {
	answer, err := s.do(ctx, c, "GetCACert", s.config.CAIdentifier, nil)
	if err != nil {
		return nil, err
	}
	certs, err := parseCACerts(answer)
	if err != nil {
		return nil, err
	}
	return choose(certs, s.fingerprint, time.Now())
}

// parseCACerts reads one certificate, or a PKCS#7 with more (RFC 8894,
// section 4.2.1).
func parseCACerts(answer []byte) ([]*x509.Certificate, error) {
	b, err := bundle.Parse("SCEP GetCACert", answer, bundle.Options{})
	if err != nil {
		return nil, err
	}
	return b.Certs, nil
}

// choose finds out which certificate is for what (RFC 8894, section 4.2): the
// CA alone, or with registration authorities before it. NDES has one of these
// for signatures and one for encryption, told apart by key usage.
func choose(certs []*x509.Certificate, fingerprint []byte, now time.Time) (*authority, error) {
	ca := &authority{certs: certs, signers: certs}
	if fingerprint != nil {
		if ca.signers = vouched(certs, fingerprint, now); len(ca.signers) == 0 {
			return nil, signing.Refuse(&problem.Problem{
				Field: "CA fingerprint", Found: fingerprints(certs), Expected: fmt.Sprintf("%x", fingerprint),
				Next: "ask the CA's administrator; if the fingerprint is right, somebody else answers for the CA",
			})
		}
	}
	if ca.recipient = bestRecipient(certs); ca.recipient == nil {
		return nil, signing.Refuse(&problem.Problem{
			Field: "SCEP GetCACert", Found: "no certificate with an RSA key among " + fingerprints(certs), Expected: "one that messages can be encrypted to",
			Next: "give the SCEP server an RSA certificate of its own; or use ACME or EST",
		})
	}
	if !slices.Contains(ca.signers, ca.recipient) {
		return nil, signing.Refuse(&problem.Problem{
			Field: "SCEP GetCACert", Found: fingerprints([]*x509.Certificate{ca.recipient}) + " to encrypt to, which the CA's fingerprint does not stand for",
			Expected: "a registration authority of the CA's: valid now, and for requests by its extended key usage (1.3.6.1.4.1.311.20.2.1 or 1.3.6.1.5.5.7.3.28)",
			Next:     "ask the CA's administrator whose it is; if it is the SCEP server's, give its SHA-256 as the fingerprint",
		})
	}
	ca.issuer = ca.recipient
	for _, c := range certs {
		if !isCA(ca.recipient) && isCA(c) && bytes.Equal(c.RawSubject, ca.recipient.RawIssuer) {
			ca.issuer = c
		}
	}
	return ca, nil
}

// bestRecipient is the certificate that messages are to be encrypted to; nil
// if there is none of RSA.
func bestRecipient(certs []*x509.Certificate) (recipient *x509.Certificate) {
	best := 0
	for _, c := range certs {
		if _, ok := c.PublicKey.(*rsa.PublicKey); !ok {
			continue
		}
		worth := 1
		switch encrypts := c.KeyUsage&(x509.KeyUsageKeyEncipherment|x509.KeyUsageDataEncipherment) != 0; {
		case !isCA(c) && encrypts:
			worth = 5
		case !isCA(c) && c.KeyUsage == 0:
			worth = 4
		case isCA(c) && encrypts:
			worth = 3
		case isCA(c) && !issuesAnother(c, certs):
			worth = 2 // of a chain, the one that is nearest to us
		}
		if worth > best {
			best, recipient = worth, c
		}
	}
	return recipient
}

func isCA(c *x509.Certificate) bool { return c.BasicConstraintsValid && c.IsCA }

func issuesAnother(c *x509.Certificate, certs []*x509.Certificate) bool {
	for _, other := range certs {
		if other != c && bytes.Equal(other.RawIssuer, c.RawSubject) {
			return true
		}
	}
	return false
}

// vouched are the certificates that a fingerprint stands for: the one that
// has it, and of what that one issued, the CAs and the registration
// authorities that are valid now, and so on. What issued it stands for others,
// too, and does not count. Nor does any other certificate of the CA, unless the
// fingerprint is its own: the CA gives them to everybody, for TLS, for mail,
// for files, and with one of them everybody could read the challenge password
// and answer for the CA.
func vouched(certs []*x509.Certificate, fingerprint []byte, now time.Time) []*x509.Certificate {
	var trusted []*x509.Certificate
	for _, c := range certs {
		if sum := sha256.Sum256(c.Raw); bytes.Equal(sum[:], fingerprint) {
			trusted = append(trusted, c)
		}
	}
	for i := 0; i < len(trusted); i++ { // trusted grows on the way
		by := trusted[i]
		if !isCA(by) {
			continue
		}
		for _, c := range certs {
			if !slices.Contains(trusted, c) && speaksForCA(c, now) && bytes.Equal(c.RawIssuer, by.RawSubject) && ed448.CheckSignatureFrom(c, by) == nil {
				trusted = append(trusted, c)
			}
		}
	}
	return trusted
}

// speaksForCA says whether what a certificate says of itself lets it act for
// the CA that issued it: a CA below, or a registration authority. NDES' have
// the extended key usage Certificate Request Agent, which a CA gives to those
// who may ask in the name of others; the standard's word for it is id-kp-cmcRA
// (RFC 6402, section 2.10).
func speaksForCA(c *x509.Certificate, now time.Time) bool {
	if now.Before(c.NotBefore) || now.After(c.NotAfter) {
		return false
	}
	return isCA(c) || slices.ContainsFunc(c.UnknownExtKeyUsage, func(usage asn1.ObjectIdentifier) bool {
		return usage.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 1}) || usage.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 28})
	})
}

func fingerprints(certs []*x509.Certificate) string {
	var all []string
	for _, c := range certs {
		all = append(all, fmt.Sprintf("%x (%s)", sha256.Sum256(c.Raw), inquiry.Clip(c.Subject.String(), 80)))
	}
	return strings.Join(all, ", ")
}
