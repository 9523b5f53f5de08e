// Package vet says whether a certificate will do for download clients, as pure functions.
package vet

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"larder/internal/pki/problem"
)

// Severity is what follows from a finding.
type Severity int

// The severities, in their order.
const (
	// SeverityNote is worth knowing and needs nothing to be done.
	SeverityNote Severity = iota
	// SeverityWarning: some clients, or clients some day, will have trouble.
	SeverityWarning
	// SeverityUnservable: the certificate is as it should be and may be kept,
	// but TLS cannot serve with it. That is Ed448's lot.
	SeverityUnservable
	// SeverityFatal: clients will refuse the certificate.
	SeverityFatal
)

var severityNames = [...]string{"note", "warning", "unservable", "fatal"}

func (s Severity) String() string {
	if s < 0 || int(s) >= len(severityNames) {
		return fmt.Sprintf("severity %d", int(s))
	}
	return severityNames[s]
}

// MarshalText writes a severity as its word.
func (s Severity) MarshalText() ([]byte, error) {
	return marshalWord(severityNames[:], int(s), "severity")
}

// UnmarshalText reads a severity from its word.
func (s *Severity) UnmarshalText(text []byte) error {
	n, err := unmarshalWord(severityNames[:], text, "severity")
	if err == nil {
		*s = Severity(n)
	}
	return err
}

func marshalWord(words []string, n int, what string) ([]byte, error) {
	if n < 0 || n >= len(words) {
		return nil, fmt.Errorf("no %s has the number %d", what, n)
	}
	return []byte(words[n]), nil
}

func unmarshalWord(words []string, text []byte, what string) (int, error) {
	n := slices.Index(words, string(text))
	if n < 0 {
		return 0, fmt.Errorf("no %s is called %q", what, text)
	}
	return n, nil
}

// What was checked. The words are stable: people's scripts know them.
const (
	CheckChain            = "chain"              // the way to the root: issuers, their order and what they may
	CheckRoot             = "root"               // whether the end of the chain is trusted
	CheckSelfSigned       = "self-signed"        // a certificate that vouches for itself
	CheckCA               = "ca"                 // a CA's certificate in the place of a server's
	CheckCritical         = "critical-extension" // demands that clients do not understand
	CheckEd448            = "ed448"              // good, and of no use for TLS
	CheckExtendedKeyUsage = "extended-key-usage" // for servers or not
	CheckKey              = "key"                // whether the private key at hand belongs to it
	CheckKeyKind          = "key-kind"           // kinds of keys that clients take
	CheckKeySize          = "key-size"           // sizes of keys that clients take
	CheckKeyUsage         = "key-usage"          // whether the key may sign
	CheckLifetime         = "lifetime"           // longer than public CAs may give
	CheckNameConstraints  = "name-constraints"   // names that the CA may not give
	CheckNames            = "names"              // whether clients find the name that they use
	CheckPathLength       = "path-length"        // more CAs one below the other than one of them allows
	CheckRenewal          = "renewal"            // what changed since the last one
	CheckSignature        = "signature"          // signatures, and algorithms that clients take
	CheckUnused           = "unused"             // certificates that do not belong to the chain
	CheckValidity         = "validity"           // from when to when
	CheckWildcard         = "wildcard"           // names with an asterisk
)

// Finding is one thing that was found.
type Finding struct {
	Severity Severity
	Check    string // one of the constants
	*problem.Problem
}

// MarshalJSON writes a finding flat, without the cause, whose words are in
// Found where they matter.
func (f Finding) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Severity Severity `json:"severity"`
		Check    string   `json:"check"`
		Field    string   `json:"field"`
		Found    string   `json:"found"`
		Expected string   `json:"expected,omitempty"`
		Next     string   `json:"next,omitempty"`
	}{f.Severity, f.Check, f.Field, f.Found, f.Expected, f.Next})
}

// Options is what a certificate is held against.
type Options struct {
	Now time.Time // must be set

	// ClientNames are the host names and addresses that clients use. Without
	// any, names are checked only for what no client can use.
	ClientNames []string

	// Roots are trusted; so are GivenRoots, which the administrator named.
	// The caller loads the system's store (x509.SystemCertPool): nil is not
	// that store. With neither, the end of the chain is not checked, and a
	// note says so.
	Roots      *x509.CertPool
	GivenRoots []*x509.Certificate

	Key      crypto.PublicKey  // of the private key at hand; nil: not checked
	Previous *x509.Certificate // the one in use until now; may be nil
}

// Check returns all findings on chain: the server's certificate, followed by
// those of the CAs that issued one another, root left out or not. The worst
// findings come first.
func Check(chain []*x509.Certificate, o Options) []Finding {
	v := &vetting{Options: o, chain: chain}
	if len(chain) == 0 {
		v.say(SeverityFatal, CheckChain, "certificate", "none", "a certificate for this node", "import the file that the CA sent")
		return v.findings
	}
	v.run()
	slices.SortStableFunc(v.findings, func(a, b Finding) int { return cmp.Compare(b.Severity, a.Severity) })
	return v.findings
}

// Fatal joins the problems for which clients will refuse the certificate; nil
// if there are none. What is merely unservable is not among them: such a
// certificate may be kept.
func Fatal(findings []Finding) error { return join(findings, SeverityFatal) }

// Servable joins the problems for which the certificate must not be put to
// use: the fatal ones and the unservable ones; nil if there are none.
func Servable(findings []Finding) error { return join(findings, SeverityUnservable) }

func join(findings []Finding, least Severity) error {
	var all []error
	for _, f := range findings {
		if f.Severity >= least {
			all = append(all, f.Problem)
		}
	}
	return errors.Join(all...)
}

// vetting is one check while it runs.
type vetting struct {
	Options
	chain    []*x509.Certificate
	findings []Finding

	path     []*x509.Certificate // from the leaf up as far as issuers are there, with the anchor if one was found
	anchored bool                // the last of path is trusted

	byHand     bool              // crypto/x509 cannot verify the path
	verifyErr  error             // what crypto/x509 says; nil also where it was not asked
	impostor   *x509.Certificate // has an issuer's name and not its key
	signatures int               // verified so far
}

func (v *vetting) run() {
	v.build()
	v.keyMatch()
	v.authority()
	v.selfSigned()
	v.validity()
	v.lifetime()
	v.names()
	v.keyUsage()
	v.extendedKeyUsage()
	v.algorithms()
	v.publicKeys()
	v.issuers()
	v.nameConstraints()
	v.criticalExtensions()
	v.trust()
	v.order()
	v.renewal()
	v.rest()
}

func (v *vetting) leaf() *x509.Certificate { return v.chain[0] }

func (v *vetting) say(s Severity, check, field, found, expected, next string) {
	v.findings = append(v.findings, Finding{s, check, &problem.Problem{Field: field, Found: found, Expected: expected, Next: next}})
}
