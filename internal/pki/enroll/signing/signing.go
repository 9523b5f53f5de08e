// Package signing holds the words that the ways of getting a certificate
// signed share.
package signing

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"larder/internal/pki/bundle"
	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
)

// Current is the certificate in use, by which a node can prove to its CA that
// it renews what it has. Chain begins with the leaf.
type Current struct {
	Chain []*x509.Certificate
	Key   crypto.Signer
}

// Leaf is the certificate itself; nil where there is none.
func (c *Current) Leaf() *x509.Certificate {
	if c == nil || len(c.Chain) == 0 {
		return nil
	}
	return c.Chain[0]
}

// Refused says that the CA or the settings said no: trying again unchanged is
// useless until somebody acts. An error that is not Refused may pass by
// itself.
type Refused struct {
	Problem error // a *problem.Problem, or several of them joined
}

// Refuse returns a Refused with one problem or several; nil with none.
func Refuse(problems ...*problem.Problem) error {
	if len(problems) == 1 {
		return &Refused{Problem: problems[0]}
	}
	var all []error
	for _, p := range problems {
		all = append(all, p)
	}
	if joined := errors.Join(all...); joined != nil {
		return &Refused{Problem: joined}
	}
	return nil
}

func (r *Refused) Error() string { return r.Problem.Error() }

func (r *Refused) Unwrap() error { return r.Problem }

// IsRefused reports whether somebody has to act before another try.
func IsRefused(err error) bool {
	var r *Refused
	return errors.As(err, &r)
}

// RetryAfterError carries the CA's word on when to come again: a rate limit,
// or a certificate that waits for somebody's approval.
type RetryAfterError struct {
	NotBefore time.Time
	Err       error
}

func (r *RetryAfterError) Error() string {
	return fmt.Sprintf("%v; not before %s", r.Err, r.NotBefore.UTC().Format(time.RFC3339))
}

func (r *RetryAfterError) Unwrap() error { return r.Err }

// NotBefore returns when the CA wants to be asked again, if it said so.
func NotBefore(err error) (time.Time, bool) {
	var r *RetryAfterError
	if !errors.As(err, &r) || r.NotBefore.IsZero() {
		return time.Time{}, false
	}
	return r.NotBefore, true
}

// ParseRequest reads the request that is to be signed; if it cannot, the error
// is Refused.
func ParseRequest(csrDER []byte) (*x509.CertificateRequest, error) {
	req, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, Refuse(&problem.Problem{
			Field: "certificate request", Found: "what is no PKCS#10 request", Err: err, Next: "make the request anew",
		})
	}
	return req, nil
}

// Chain orders what a CA answered a request with: the request's certificate
// first, then its issuers as far as they are there or among the CA's own
// certificates, without the root. It says what CheckIssued says.
func Chain(answer, cas []*x509.Certificate, req *x509.CertificateRequest) ([]*x509.Certificate, error) {
	all := &bundle.Bundle{Certs: slices.Concat(answer, cas)}
	ordered, _, err := all.Chain(keys.PublicOfRequest(req))
	if err != nil {
		// What is in the answer is not for this request: say how.
		if err := CheckIssued(answer, req.Raw); err != nil {
			return nil, err
		}
		return nil, err
	}
	return ordered, CheckIssued(ordered, req.Raw)
}

// CheckIssued looks at what a CA answered a request with: the first
// certificate has the request's public key, whatever kind that is, and is not
// a CA. What else a certificate needs to serve is decided elsewhere. Its
// error is Refused: a CA that gives out the wrong certificate needs a person.
func CheckIssued(chain []*x509.Certificate, csrDER []byte) error {
	req, err := ParseRequest(csrDER)
	if err != nil {
		return err
	}
	if len(chain) == 0 {
		return Refuse(&problem.Problem{
			Field: "issued certificate", Found: "none", Expected: "a certificate for the request",
			Next: "look into the CA's log",
		})
	}
	leaf := chain[0]
	var problems []*problem.Problem
	if !keys.Same(keys.PublicOf(leaf), keys.PublicOfRequest(req)) &&
		!bytes.Equal(leaf.RawSubjectPublicKeyInfo, req.RawSubjectPublicKeyInfo) {
		problems = append(problems, &problem.Problem{
			Field:    "issued certificate: public key",
			Found:    kind(keys.PublicOf(leaf)) + " of somebody else (" + leaf.Subject.String() + ")",
			Expected: "the request's own " + kind(keys.PublicOfRequest(req)) + " key",
			Next:     "see that the CA answers with the certificate of this very request",
		})
	}
	if leaf.BasicConstraintsValid && leaf.IsCA {
		problems = append(problems, &problem.Problem{
			Field:    "issued certificate: basic constraints",
			Found:    "a CA certificate (" + leaf.Subject.String() + ")",
			Expected: "a server's certificate",
			Next:     "see that the CA uses a profile for servers and that the leaf comes first",
		})
	}
	return Refuse(problems...)
}

func kind(public crypto.PublicKey) string {
	if k := keys.Kind(public); k != "" {
		return k
	}
	return "unknown"
}
