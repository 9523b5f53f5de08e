// Package est gets certificates signed by a CA that speaks Enrollment over
// Secure Transport (RFC 7030).
//
// AD CS does not speak EST by itself; gateways in front of it do, as do most
// CAs that are sold for devices.
package est

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
)

// Config says which CA and how to prove to it who asks.
type Config struct {
	// URL is the EST server: a bare host or host:port, https://HOST, or an
	// address with a path, which is taken as it is. Without a path it is
	// /.well-known/est (RFC 7030, section 3.2.2).
	URL string
	// Label is the "additional path segment" of the same section, for servers
	// with more than one CA; "" for none.
	Label string

	// Roots is the explicit trust anchor (RFC 7030, section 3.6.1). Without
	// it, and without a Fingerprint, the system's roots vouch for the server.
	Roots *x509.CertPool
	// Fingerprint is the SHA-256 of the CA's certificate, from the CA's
	// administrator. With it instead of Roots the CA's certificates are
	// fetched from a server not yet trusted, and the one that matches becomes
	// the only root (RFC 7030, section 4.1.1).
	Fingerprint string

	User     string // for HTTP Basic; Digest is not spoken
	Password signing.Secret
	// ClientCert proves who asks at a first enrolment (RFC 7030, section
	// 3.3.2); at renewals the current certificate does.
	ClientCert *tls.Certificate

	Log *slog.Logger // nil discards
}

// Signer gets requests signed.
type Signer struct {
	base        string // without a slash at its end
	fingerprint []byte // nil: none
	config      Config
	log         *slog.Logger

	mu      sync.Mutex
	learned *x509.CertPool // guarded by mu; what the fingerprint vouched for
}

// New checks all of a configuration; it asks nobody.
func New(c Config) (*Signer, error) {
	s := &Signer{config: c, log: c.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var problems []error
	base, err := normalise(c.URL, c.Label)
	if err != nil {
		problems = append(problems, err)
	}
	s.base = base
	if c.Fingerprint != "" {
		if s.fingerprint, err = signing.ParseFingerprint(c.Fingerprint); err != nil {
			problems = append(problems, err)
		}
		if c.Roots != nil {
			problems = append(problems, &problem.Problem{
				Field: "EST trust", Found: "roots and a fingerprint", Expected: "one of them",
				Next: "keep the roots if you have the CA's certificate, the fingerprint if you do not",
			})
		}
	}
	switch {
	case c.User == "" && c.Password != "":
		problems = append(problems, &problem.Problem{Field: "EST user", Found: "a password without a user", Expected: "both or neither"})
	case c.User != "" && c.Password == "":
		problems = append(problems, &problem.Problem{Field: "EST password", Found: "a user without a password", Expected: "both or neither"})
	case strings.Contains(c.User, ":"):
		problems = append(problems, &problem.Problem{Field: "EST user", Found: "a colon in the name", Expected: "a name without one (RFC 7617, section 2)"})
	}
	if c.ClientCert != nil && (len(c.ClientCert.Certificate) == 0 || c.ClientCert.PrivateKey == nil) {
		problems = append(problems, &problem.Problem{Field: "EST client certificate", Found: "a certificate or a key alone", Expected: "both"})
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return s, nil
}

// normalise makes the address that the operations are appended to.
func normalise(text, label string) (string, error) {
	wrong := func(found, expected string) error {
		return &problem.Problem{Field: "EST server", Found: found, Expected: expected}
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return "", wrong("nothing", "an address such as https://ca.example/.well-known/est")
	}
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		// Not err itself: it repeats the address, in which a password may be.
		return "", wrong("what is no address", "an address such as https://ca.example/.well-known/est")
	case u.User != nil:
		return "", wrong("a user in the address of "+u.Host, "the address without it; user and password have settings of their own")
	case u.Scheme != "https":
		return "", wrong(u.Scheme+"://"+u.Host, "https: EST needs TLS (RFC 7030, section 3.3)")
	case u.Hostname() == "":
		return "", wrong("an address without a host", "https://HOST")
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return "", wrong("something after ? or # in the address", "the address up to there")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	if u.Path == "" {
		u.Path = "/.well-known/est"
	}
	if label != "" {
		if label != url.PathEscape(label) || strings.ContainsAny(label, "/?#%") || strings.Trim(label, ".") == "" {
			return "", &problem.Problem{Field: "EST label", Found: fmt.Sprintf("%q", label), Expected: "one path segment of letters, digits, - and _"}
		}
		if operations[label] {
			return "", &problem.Problem{Field: "EST label", Found: fmt.Sprintf("%q", label), Expected: "not the name of an operation (RFC 7030, section 3.2.2)"}
		}
		u.Path += "/" + label
	}
	return u.String(), nil
}

var operations = map[string]bool{
	"cacerts": true, "simpleenroll": true, "simplereenroll": true, "fullcmc": true, "serverkeygen": true, "csrattrs": true,
}

// String names the CA; it is for logs.
func (s *Signer) String() string { return "EST " + s.base }

// Warnings are what somebody should know about the configuration.
func (s *Signer) Warnings() []string {
	if s.config.User == "" && s.config.ClientCert == nil {
		return []string{"no user and no client certificate for EST: a first certificate, and one after the current has expired, depend on the CA's asking for neither"}
	}
	return nil
}

// Sign gets a request signed. With a current certificate that is still valid
// and names the same as the request, it renews (RFC 7030, section 4.2.2) and
// proves who asks by that certificate; where the CA will not have that, and
// without such a certificate, it enrols with the credentials of the
// configuration: a node that was switched off for longer than its certificate
// was valid comes back by itself.
//
// The chain begins with the certificate and is completed from what the CA
// says its certificates are, without the root.
func (s *Signer) Sign(ctx context.Context, csrDER []byte, _ crypto.Signer, current *signing.Current) ([]*x509.Certificate, error) {
	req, err := signing.ParseRequest(csrDER)
	if err != nil {
		return nil, err
	}
	roots, err := s.roots(ctx)
	if err != nil {
		return nil, err
	}
	// First, as section 4.1 has it; and so that nothing can go wrong any more
	// once there is a certificate.
	cas, err := s.caCerts(ctx, roots)
	if err != nil {
		return nil, err
	}
	answer, err := s.enrol(ctx, roots, csrDER, req, current)
	if err != nil {
		return nil, err
	}
	return signing.Chain(answer, cas, req)
}

func (s *Signer) enrol(ctx context.Context, roots *x509.CertPool, csrDER []byte, req *x509.CertificateRequest, current *signing.Current) ([]*x509.Certificate, error) {
	body := []byte(base64.StdEncoding.EncodeToString(csrDER))
	why := s.renewable(req, current)
	if why == "" {
		c := s.client(roots, tlsCertificate(current))
		certs, err := s.post(ctx, c, "simplereenroll", body)
		c.CloseIdleConnections()
		if err == nil || !s.mayEnrolInstead(ctx, err) {
			return certs, err
		}
		s.log.WarnContext(ctx, "renewal by the current certificate failed, enrolling with credentials", "ca", s.base, "err", err)
	} else if current.Leaf() != nil {
		s.log.InfoContext(ctx, "enrolling, not renewing", "ca", s.base, "why", why)
	}
	c := s.client(roots, s.config.ClientCert)
	defer c.CloseIdleConnections()
	return s.post(ctx, c, "simpleenroll", body)
}
