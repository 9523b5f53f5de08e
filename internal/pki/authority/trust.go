package authority

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// PinRoot is the TLS configuration for the first contact with a control plane of
// which only the root's fingerprint is known. The chain that the server sends
// must lead to that root and hold it, be good now, be for servers, and be for
// the name that was asked for. Nothing else is trusted, the system's roots
// neither.
func PinRoot(fingerprint string) (*tls.Config, error) {
	want, err := ParseFingerprint(fingerprint)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// The library verifies against roots that are known beforehand; here the
		// root comes with the chain, and VerifyConnection does it all.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			roots, between := x509.NewCertPool(), x509.NewCertPool()
			found := false
			for _, c := range cs.PeerCertificates {
				if c.IsCA && sha256.Sum256(c.Raw) == want {
					roots.AddCert(c)
					found = true
				} else {
					between.AddCert(c)
				}
			}
			if !found {
				got := "no certificate"
				if n := len(cs.PeerCertificates); n > 0 {
					got = Fingerprint(cs.PeerCertificates[n-1])
				}
				return fmt.Errorf("the server is not the control plane of the command: found the root %s, expected %x; is something between that opens TLS?", got, want)
			}
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: cs.ServerName})
			return err
		},
	}, nil
}

// TrustRoots is the TLS configuration for later contacts: the server's chain
// must lead to one of the roots, in PEM.
func TrustRoots(rootsPEM string) (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(rootsPEM)) {
		return nil, errors.New("roots: found no certificate in PEM")
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, nil
}
