// Package revocation asks whether a certificate was revoked, by OCSP (RFC 6960) and by CRL (RFC 5280).
package revocation

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"larder/internal/pki/problem"
)

// Status is what could be learnt about a certificate.
type Status int

// Unknown is neither Good nor Revoked: nobody could be asked, or nobody gave
// an answer that can be trusted. It is the zero value for that reason.
const (
	Unknown    Status = iota
	Good              // somebody who must know says that it is not revoked
	Revoked           // it is
	NotOffered        // the certificate does not say where to ask
)

var statusNames = [...]string{"unknown", "good", "revoked", "not offered"}

func (s Status) String() string {
	if s < 0 || int(s) >= len(statusNames) {
		return fmt.Sprintf("status %d", int(s))
	}
	return statusNames[s]
}

// MarshalText writes a status as its word.
func (s Status) MarshalText() ([]byte, error) {
	if s < 0 || int(s) >= len(statusNames) {
		return nil, fmt.Errorf("no revocation status has the number %d", int(s))
	}
	return []byte(statusNames[s]), nil
}

// UnmarshalText reads a status from its word.
func (s *Status) UnmarshalText(text []byte) error {
	n := slices.Index(statusNames[:], string(text))
	if n < 0 {
		return fmt.Errorf("no revocation status is called %q", text)
	}
	*s = Status(n)
	return nil
}

// Answer is what was learnt.
type Answer struct {
	Status     Status    `json:"status"`
	RevokedAt  time.Time `json:"revokedAt,omitzero"`
	Reason     string    `json:"reason,omitempty"`    // RFC 5280, section 5.3.1, as words
	Source     string    `json:"source,omitempty"`    // "OCSP http://…" or "CRL http://…"
	NextUpdate time.Time `json:"nextUpdate,omitzero"` // the answer does not count after that
	Staple     []byte    `json:"-"`                   // the OCSP response, only if Good, fresh, and to end some day
	Problems   []string  `json:"problems,omitempty"`  // what did not work on the way, whatever Status is
}

const (
	// skew is how far the clocks of this machine and of the CA may differ.
	skew = 5 * time.Minute

	// mostPlaces is how many responders or lists of one certificate are asked.
	mostPlaces = 3
)

// Options of New. The zero value works.
type Options struct {
	Transport http.RoundTripper // nil: one of its own, with the environment's proxy
	Log       *slog.Logger      // says at debug level who was asked; nil: nobody
}

// Checker asks. It may be used by many at once. It keeps the lists that it
// fetched, so that many certificates of one CA cost one fetch, and nothing
// runs while nobody asks.
type Checker struct {
	client   *http.Client
	log      *slog.Logger
	patience time.Duration // without a byte
	shelf    shelf
}

// New makes a Checker.
func New(o Options) *Checker {
	if o.Transport == nil {
		// A fetch a day needs no connection kept for the next.
		o.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Checker{
		client:   &http.Client{Transport: o.Transport, CheckRedirect: checkRedirect},
		log:      o.Log,
		patience: 10 * time.Second,
		shelf:    shelf{held: make(map[string]*held)},
	}
}

// Check asks by OCSP, and by CRL unless it is revoked by then. Revoked by
// either wins; Good needs one of them; what only one of the two could not
// tell is in Problems.
func (c *Checker) Check(ctx context.Context, leaf, issuer *x509.Certificate) Answer {
	byOCSP, _ := c.OCSP(ctx, leaf, issuer) // the error is in Problems
	if byOCSP.Status == Revoked {
		return byOCSP
	}
	byCRL, _ := c.CRL(ctx, leaf, issuer)
	a := byOCSP
	switch {
	case byCRL.Status == Revoked, byOCSP.Status == NotOffered, byOCSP.Status == Unknown && byCRL.Status == Good:
		a = byCRL
	}
	a.Problems = slices.Concat(byOCSP.Problems, byCRL.Problems)
	return a
}

// unknown is the answer when there were only problems.
func unknown(ctx context.Context, field string, problems ...*problem.Problem) (Answer, error) {
	if len(problems) == 0 { // nothing to ask, or the check was ended before
		problems = append(problems, &problem.Problem{Field: field, Found: "nobody who was asked", Expected: "an answer", Err: context.Cause(ctx)})
	}
	var all []error
	for _, p := range problems {
		all = append(all, p)
	}
	return Answer{Problems: words(problems)}, errors.Join(all...)
}

func words(problems []*problem.Problem) []string {
	var all []string
	for _, p := range problems {
		all = append(all, p.Error())
	}
	return all
}

// family says what is wrong with asking about leaf in issuer's name.
func family(field string, leaf, issuer *x509.Certificate) *problem.Problem {
	if issuer == nil {
		return &problem.Problem{Field: field, Found: "no certificate of the CA", Expected: "that of " + clean(leaf.Issuer.String()), Next: "import the certificate with its chain"}
	}
	if !bytes.Equal(leaf.RawIssuer, issuer.RawSubject) {
		return &problem.Problem{Field: field, Found: "the certificate of another CA, " + clean(issuer.Subject.String()), Expected: "that of " + clean(leaf.Issuer.String()), Next: "import the certificate with its chain"}
	}
	return nil
}

// reason says a reason code (RFC 5280, section 5.3.1) in words.
func reason(code int) string {
	words := []string{"unspecified", "key compromise", "CA compromise", "affiliation changed", "superseded", "cessation of operation", "certificate hold", "", "removed from CRL", "privilege withdrawn", "AA compromise"}
	if code < 0 || code >= len(words) || words[code] == "" {
		return fmt.Sprintf("reason %d", code)
	}
	return words[code]
}

// fresh says what is wrong with an answer, called what, of thisUpdate that
// counts until nextUpdate, which may be zero.
func fresh(field, what string, thisUpdate, nextUpdate, now time.Time) *problem.Problem {
	const longest = 24 * time.Hour // for an answer that does not say
	p := &problem.Problem{Field: field, Expected: "one of now, " + at(now)}
	switch {
	case thisUpdate.After(now.Add(skew)):
		p.Found, p.Next = "one that begins on "+at(thisUpdate), "compare the clocks of this machine and of the CA"
	case !nextUpdate.IsZero() && now.After(nextUpdate.Add(skew)):
		p.Found, p.Next = "an old one, which counted until "+at(nextUpdate), "tell whoever runs the CA: it has not published anything new"
	case nextUpdate.IsZero() && now.After(thisUpdate.Add(longest)):
		p.Found, p.Next = "one of "+at(thisUpdate)+" that does not say until when it counts", "tell whoever runs the CA"
	default:
		return nil
	}
	p.Found = what + ": " + p.Found
	return p
}

// weakSignature says what is wrong with the algorithms by which an answer,
// called what, is signed. MD5 does not come here: crypto/x509 verifies none.
//
// SHA-1 it still verifies, and somebody who can have a CA sign what he chooses
// may turn that into a signature of something else. So nothing is good on such
// a word. Revoked counts nevertheless: CAs that are that old do revoke, and who
// forges it gains nothing but that a certificate is replaced, while not to
// believe it would leave a stolen key in use.
func weakSignature(field, what string, algorithms ...x509.SignatureAlgorithm) *problem.Problem {
	for _, a := range algorithms {
		if a == x509.SHA1WithRSA || a == x509.ECDSAWithSHA1 || a == x509.DSAWithSHA1 {
			return &problem.Problem{Field: field, Found: what + " signed with SHA-1 (" + a.String() + ")", Expected: "SHA-256 or better", Next: "have the CA sign with SHA-256; until then its word counts only if it says revoked"}
		}
	}
	return nil
}

func at(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// clean makes text from a certificate or from a server fit for a terminal.
func clean(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r > 0x7f {
			return '?'
		}
		return r
	}, s)
	if len(s) > most {
		s = s[:most] + "…"
	}
	return s
}
