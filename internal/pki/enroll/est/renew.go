package est

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"time"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
)

// renewable says why the current certificate cannot be renewed with req, or
// "".
func (s *Signer) renewable(req *x509.CertificateRequest, current *signing.Current) string {
	leaf := current.Leaf()
	switch now := time.Now(); {
	case leaf == nil || current.Key == nil:
		return "there is no current certificate"
	case now.After(leaf.NotAfter):
		return "the current certificate has expired"
	case now.Before(leaf.NotBefore):
		return "the current certificate is not valid yet"
	case !keys.Servable(keys.PublicOf(leaf)):
		return "TLS here cannot use a key of this kind"
	case !sameNames(req, leaf):
		// Section 4.2.2 wants both as they were; other names are another
		// certificate.
		return "the request has other names"
	}
	return ""
}

func sameNames(req *x509.CertificateRequest, cert *x509.Certificate) bool {
	if !bytes.Equal(req.RawSubject, cert.RawSubject) {
		return false
	}
	var asked, had []byte
	oid := asn1.ObjectIdentifier{2, 5, 29, 17}
	for _, e := range req.Extensions {
		if e.Id.Equal(oid) {
			asked = e.Value
		}
	}
	for _, e := range cert.Extensions {
		if e.Id.Equal(oid) {
			had = e.Value
		}
	}
	return bytes.Equal(asked, had)
}

func tlsCertificate(c *signing.Current) *tls.Certificate {
	cert := &tls.Certificate{PrivateKey: c.Key}
	for _, one := range c.Chain {
		cert.Certificate = append(cert.Certificate, one.Raw)
	}
	return cert
}

// mayEnrolInstead reports whether credentials are worth a try after a renewal
// that did not work: if the CA said no, or if the connection broke, which is
// how TLS says no to a certificate, such as one for servers alone. A CA that
// is busy, or wants to think, is left to it.
func (s *Signer) mayEnrolInstead(ctx context.Context, err error) bool {
	if s.config.User == "" && s.config.ClientCert == nil || ctx.Err() != nil {
		return false
	}
	var broken *connectionError
	return signing.IsRefused(err) || errors.As(err, &broken)
}
