// Package scep gets certificates signed by a CA that speaks the Simple
// Certificate Enrolment Protocol (RFC 8894), such as the Network Device
// Enrollment Service of AD CS.
package scep

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"larder/internal/pki/ed448"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
)

// Config says which CA and how to prove to it who asks.
type Config struct {
	// URL is the SCEP server, such as http://ca.example/certsrv/mscep/mscep.dll
	// or https://ca.example/scep/NAME. HTTP without TLS will do: messages are
	// signed and encrypted (RFC 8894, section 7.8), once it is certain whose
	// the CA's certificate is. So it takes a Fingerprint where there is a
	// Challenge.
	URL string
	// Challenge is the challenge password, by which the CA knows who asks for
	// a first certificate; "" if it wants none.
	Challenge signing.Secret
	// Fingerprint is the SHA-256 of the CA's certificate, from the CA's
	// administrator. RFC 8894, section 2.2, wants it checked; without it,
	// whoever can answer for the server gets the challenge password.
	Fingerprint string
	// CAIdentifier is for servers with more than one CA (RFC 8894, section
	// 4.2).
	CAIdentifier string

	// Roots vouch for the server of an https URL; nil for the system's.
	Roots *x509.CertPool

	// PollEvery and PollFor say how long to wait for somebody's approval
	// before the request is left to a later attempt; 0 is 10 s and 1 min.
	PollEvery, PollFor time.Duration

	Log *slog.Logger // nil discards
}

// Signer gets requests signed.
type Signer struct {
	url         *url.URL
	fingerprint []byte // nil: none
	config      Config
	log         *slog.Logger

	mu      sync.Mutex
	pending map[string]*identity // guarded by mu; who asked, by transaction, for requests that wait for approval
}

// New checks all of a configuration; it asks nobody.
func New(c Config) (*Signer, error) {
	s := &Signer{config: c, log: c.Log, pending: make(map[string]*identity)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.config.PollEvery <= 0 {
		s.config.PollEvery = 10 * time.Second
	}
	if s.config.PollFor <= 0 {
		s.config.PollFor = time.Minute
	}
	var errAddress, errFingerprint error
	s.url, errAddress = parseURL(c.URL)
	if c.Fingerprint != "" {
		s.fingerprint, errFingerprint = signing.ParseFingerprint(c.Fingerprint)
	}
	if err := errors.Join(errAddress, errFingerprint); err != nil {
		return nil, err
	}
	if s.url.Scheme == "http" && s.fingerprint == nil && c.Challenge != "" {
		return nil, &problem.Problem{
			Field: "SCEP challenge password", Found: "that it would go to whoever answers at " + s.url.String() + ", which is without TLS",
			Expected: "the SHA-256 of the CA's certificate, which tells the CA from others",
			Next:     "give --ca-fingerprint, as the CA's administrator says it, or use https",
		}
	}
	return s, nil
}

func parseURL(text string) (*url.URL, error) {
	wrong := func(found, expected string) error {
		return &problem.Problem{Field: "SCEP server", Found: found, Expected: expected}
	}
	const example = "an address such as http://ca.example/certsrv/mscep/mscep.dll"
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, wrong("nothing", example)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "":
		// Not err itself: it repeats the address, in which a password may be.
		return nil, wrong("what is no address", example)
	case u.User != nil:
		return nil, wrong("a user in the address of "+u.Host, "the address without it; SCEP knows a challenge password instead")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, wrong(fmt.Sprintf("%q without http:// or https://", text), example)
	case u.Hostname() == "":
		return nil, wrong("an address without a host", example)
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return nil, wrong("something after ? or # in the address", "the address up to there")
	}
	return u, nil
}

// String names the CA; it is for logs.
func (s *Signer) String() string { return "SCEP " + s.url.String() }

// Warnings are what somebody should know about the configuration.
func (s *Signer) Warnings() []string {
	if s.fingerprint != nil {
		return nil
	}
	if s.url.Scheme == "https" {
		return []string{"no fingerprint of the CA's certificate: whoever has a certificate for " + s.url.Hostname() + " can stand in for the CA and read the challenge password"}
	}
	// There is no challenge password here; see New.
	return []string{"no fingerprint of the CA's certificate, and no TLS: whoever is on the way to " + s.url.Hostname() + " can stand in for the CA"}
}

// Sign gets a request signed. With a current certificate of the same CA that
// is still valid, and if the CA knows renewal, it renews by that certificate
// (RFC 8894, section 2.3), as that section has it without the challenge
// password first; else, and where the CA will not have that, it enrols with
// the challenge password: a node that was switched off for longer than its
// certificate was valid comes back by itself.
//
// Messages to a node are encrypted with RSA, whatever kind its certificate is
// of. For an RSA key the request's own serves, as the standard has it; for
// every other kind a key is made that lives as long as the question. A server
// may decline that. These were tried: step-ca 0.30.2 takes requests for ECDSA
// and Ed25519 keys, scepserver 2.3.0 of MicroMDM for ECDSA. NDES knows RSA
// alone by its documentation and was not at hand. Neither of the two can check
// a request for an Ed448 key, nor can Windows: it is refused here.
//
// The chain begins with the certificate and is completed from what the CA
// says its certificates are, without the root.
func (s *Signer) Sign(ctx context.Context, csrDER []byte, key crypto.Signer, current *signing.Current) ([]*x509.Certificate, error) {
	req, err := signing.ParseRequest(csrDER)
	if err != nil {
		return nil, err
	}
	if !keys.Same(keys.PublicOfRequest(req), key.Public()) {
		return nil, signing.Refuse(&problem.Problem{
			Field: "certificate request", Found: "the public key of another pair", Expected: "that of the key given with it", Next: "make the request anew",
		})
	}
	if _, ok := key.Public().(ed448.PublicKey); ok {
		return nil, signing.Refuse(&problem.Problem{
			Field: "SCEP request", Found: "an Ed448 key", Expected: "RSA, which every server takes, or ECDSA, which some do",
			Next: "make a request with another key, or have this one signed in another way",
		})
	}
	c := s.client()
	defer c.CloseIdleConnections()
	able, err := s.capabilities(ctx, c)
	if err != nil {
		return nil, err
	}
	if able.legacy() {
		s.log.WarnContext(ctx, "the CA offers none but old algorithms", "ca", s.url.String(), "encryption", able.cipher().name, "digest", able.digest().name)
	}
	ca, err := s.authority(ctx, c)
	if err != nil {
		return nil, err
	}
	x := &exchange{signer: s, client: c, able: able, ca: ca}
	issued, err := x.attempts(ctx, csrDER, req, key, current)
	if err != nil {
		return nil, err
	}
	return signing.Chain(issued, ca.certs, req)
}

// renewable says whether the current certificate can speak for the node.
func renewable(current *signing.Current, able capabilities, ca *authority) (*identity, bool) {
	leaf := current.Leaf()
	if leaf == nil || !able["renewal"] {
		return nil, false
	}
	if now := time.Now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return nil, false
	}
	// A certificate of another CA, from before this one was set up, would
	// prove nothing here.
	ours := false
	for _, c := range ca.certs {
		ours = ours || bytes.Equal(c.RawSubject, leaf.RawIssuer)
	}
	key, ok := rsaKey(current.Key)
	if !ok || !ours || !keys.Same(leaf.PublicKey, current.Key.Public()) {
		return nil, false // the answer could not be read
	}
	return &identity{cert: leaf, key: key}, true
}
