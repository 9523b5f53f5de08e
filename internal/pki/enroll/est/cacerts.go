package est

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"larder/internal/pki/bundle"
	"larder/internal/pki/enroll/inquiry"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
)

// CACerts asks what the CA's certificates are (RFC 7030, section 4.1), over a
// connection that is trusted.
func (s *Signer) CACerts(ctx context.Context) ([]*x509.Certificate, error) {
	roots, err := s.roots(ctx)
	if err != nil {
		return nil, err
	}
	return s.caCerts(ctx, roots)
}

func (s *Signer) caCerts(ctx context.Context, roots *x509.CertPool) ([]*x509.Certificate, error) {
	c := s.client(roots, s.config.ClientCert)
	defer c.CloseIdleConnections()
	return s.fetchCACerts(ctx, c)
}

// Attributes asks what the CA would have in requests (RFC 7030, section 4.5);
// none if it does not say. Requests are made by somebody else: this is to be
// shown, not obeyed.
func (s *Signer) Attributes(ctx context.Context) ([]string, error) {
	roots, err := s.roots(ctx)
	if err != nil {
		return nil, err
	}
	c := s.client(roots, s.config.ClientCert)
	defer c.CloseIdleConnections()
	wanted, err := s.attributes(ctx, c)
	if errors.Is(err, errNothing) {
		return nil, nil // 204 and 404 are how a CA says that it has no wishes
	}
	return wanted, err
}

// roots is what the server has to be vouched for by; nil for the system's.
func (s *Signer) roots(ctx context.Context) (*x509.CertPool, error) {
	if s.fingerprint == nil {
		return s.config.Roots, nil
	}
	s.mu.Lock()
	learned := s.learned
	s.mu.Unlock()
	if learned != nil {
		return learned, nil
	}
	// Section 4.1.1: whoever answers, nothing is told to it, no password, no
	// certificate, no request; and nothing is believed but what the
	// fingerprint vouches for.
	c := follow(inquiry.NewClient(&tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}))
	defer c.CloseIdleConnections()
	certs, err := s.fetchCACerts(ctx, c)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, cert := range certs {
		sum := sha256.Sum256(cert.Raw)
		if !bytes.Equal(sum[:], s.fingerprint) {
			found = append(found, fmt.Sprintf("%x (%s)", sum, inquiry.Clip(cert.Subject.String(), 80)))
			continue
		}
		pool := x509.NewCertPool()
		pool.AddCert(cert)
		s.mu.Lock()
		s.learned = pool
		s.mu.Unlock()
		return pool, nil
	}
	return nil, signing.Refuse(&problem.Problem{
		Field: "CA fingerprint", Found: strings.Join(found, ", ") + " at " + s.base, Expected: fmt.Sprintf("%x", s.fingerprint),
		Next: "ask the CA's administrator; if the fingerprint is right, somebody else answers for the CA",
	})
}

func (s *Signer) fetchCACerts(ctx context.Context, c *http.Client) ([]*x509.Certificate, error) {
	answer, err := s.get(ctx, c, "cacerts")
	var odd *wantsMore
	if errors.As(err, &odd) {
		return nil, signing.Refuse(odd.problem)
	}
	if err != nil {
		return nil, err
	}
	return parseCerts("EST cacerts", answer)
}

// parseCerts reads a certs-only PKCS#7, in base64 or not.
func parseCerts(field string, answer []byte) ([]*x509.Certificate, error) {
	b, err := bundle.Parse(field, answer, bundle.Options{})
	if err != nil {
		return nil, err
	}
	if len(b.Certs) == 0 {
		return nil, &problem.Problem{Field: field, Found: "an answer without a certificate", Expected: "at least one"}
	}
	return b.Certs, nil
}

func (s *Signer) attributes(ctx context.Context, c *http.Client) ([]string, error) {
	answer, err := s.get(ctx, c, "csrattrs")
	var odd *wantsMore
	if errors.As(err, &odd) {
		return nil, signing.Refuse(odd.problem)
	}
	if err != nil {
		return nil, err
	}
	return parseAttributes(answer)
}

// parseAttributes reads CsrAttrs (section 4.5.2): a sequence of identifiers
// and of attributes, in base64 or not.
func parseAttributes(answer []byte) ([]string, error) {
	der := answer
	if len(der) == 0 || der[0] != 0x30 {
		clean := strings.TrimRight(strings.Join(strings.Fields(string(answer)), ""), "=")
		var err error
		if der, err = base64.RawStdEncoding.DecodeString(clean); err != nil {
			return nil, &problem.Problem{Field: "EST csrattrs", Found: "an answer that is no base64", Err: err}
		}
	}
	if len(der) == 0 {
		return nil, nil
	}
	var list []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &list); err != nil || len(rest) > 0 {
		return nil, &problem.Problem{Field: "EST csrattrs", Found: "an answer that is no list of attributes", Err: err}
	}
	var words []string
	for _, item := range list {
		var oid asn1.ObjectIdentifier
		if _, err := asn1.Unmarshal(item.FullBytes, &oid); err == nil {
			words = append(words, name(oid))
			continue
		}
		var attribute struct {
			Type   asn1.ObjectIdentifier
			Values []asn1.RawValue `asn1:"set"`
		}
		if _, err := asn1.Unmarshal(item.FullBytes, &attribute); err != nil {
			return nil, &problem.Problem{Field: "EST csrattrs", Found: "neither an identifier nor an attribute", Err: err}
		}
		word := name(attribute.Type)
		var values []string
		for _, v := range attribute.Values {
			if _, err := asn1.Unmarshal(v.FullBytes, &oid); err == nil {
				values = append(values, name(oid))
			}
		}
		if len(values) > 0 {
			word += "=" + strings.Join(values, "+")
		}
		words = append(words, word)
	}
	return words, nil
}

// name is what people call an identifier, as far as requests have it.
func name(oid asn1.ObjectIdentifier) string {
	if n := names[oid.String()]; n != "" {
		return n
	}
	return oid.String()
}

var names = map[string]string{
	"1.2.840.113549.1.9.7":   "challengePassword",
	"1.2.840.113549.1.9.14":  "extensionRequest",
	"1.2.840.113549.1.1.1":   "RSA",
	"1.2.840.113549.1.1.11":  "SHA-256 with RSA",
	"1.2.840.10045.2.1":      "EC",
	"1.2.840.10045.3.1.7":    "P-256",
	"1.3.132.0.34":           "P-384",
	"1.3.132.0.35":           "P-521",
	"1.2.840.10045.4.3.2":    "ECDSA with SHA-256",
	"1.2.840.10045.4.3.3":    "ECDSA with SHA-384",
	"2.16.840.1.101.3.4.2.1": "SHA-256",
	"2.16.840.1.101.3.4.2.2": "SHA-384",
	"1.3.101.112":            "Ed25519",
	"1.3.101.113":            "Ed448",
	"2.5.29.17":              "subjectAltName",
	"2.5.29.15":              "keyUsage",
	"2.5.29.37":              "extKeyUsage",
	"1.3.6.1.1.1.1.22":       "macAddress",
}
