package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"larder/internal/pki/enroll/inquiry"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
)

// limitPause is how long a rate limit is taken to last if the CA does not say.
const limitPause = time.Hour

// explain turns the library's error into words, and says what kind it is:
// refused, to be tried later, or something that may pass.
func (v *visit) explain(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ACME: %s: %w", doing, context.Cause(ctx))
	}
	if p, ok := errors.AsType[acme.Problem](err); ok {
		return v.said(doing, p)
	}
	return v.unreachable(doing, err)
}

// said is for what the CA says itself (RFC 8555, section 6.7).
func (v *visit) said(doing string, p acme.Problem) error {
	said := &problem.Problem{Field: "ACME: " + doing, Found: "the CA's answer: " + words(p), Next: v.advice(doing, p)}
	switch {
	case limited(p):
		at := v.wire.retryAfter
		if at.IsZero() {
			at = time.Now().Add(limitPause)
		}
		return &signing.RetryAfterError{NotBefore: at, Err: said}
	case transient(p):
		return v.later(said)
	}
	return &signing.Refused{Problem: said}
}

// later adds the CA's wish when to come again, if the last answer had one.
func (v *visit) later(err error) error {
	if v.wire.retryAfter.IsZero() {
		return err
	}
	return &signing.RetryAfterError{NotBefore: v.wire.retryAfter, Err: err}
}

func limited(p acme.Problem) bool {
	return kind(p) == "rateLimited" || p.Status == http.StatusTooManyRequests
}

// transient reports whether what the CA says may pass without anybody acting.
func transient(p acme.Problem) bool {
	switch kind(p) {
	case "serverInternal", "badNonce", "orderNotReady", "connection", "dns", "tls":
		return true
	case "compound":
		for _, sub := range p.Subproblems {
			if !transient(sub.Problem) {
				return false
			}
		}
		return len(p.Subproblems) > 0
	}
	return p.Status >= 500 || limited(p)
}

// kind is the last word of a problem's type.
func kind(p acme.Problem) string { return strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace) }

// words returns all that a problem says, those about single names included
// (RFC 8555, section 6.7.1).
func words(p acme.Problem) string {
	text := clean(p.Detail)
	if text == "" {
		text = clean(p.Title)
	}
	if k := clean(kind(p)); k != "" {
		text += " (" + k + ")"
	}
	for _, sub := range p.Subproblems {
		text += "; " + clean(sub.Identifier.Value) + ": " + words(sub.Problem)
	}
	return strings.TrimSpace(text)
}

// advice says what to do about a problem that is not about a challenge.
func (v *visit) advice(doing string, p acme.Problem) string {
	switch k := kind(p); k {
	case "rateLimited":
		return "nothing: it is tried again when the CA wants; if it happens often, order fewer certificates"
	case "userActionRequired":
		return "open " + clean(p.Instance) + " and do what it asks, such as agreeing to new terms"
	case "externalAccountRequired":
		return "ask the CA for a key identifier and an HMAC key"
	case "rejectedIdentifier", "unsupportedIdentifier":
		return "ask the CA which names it signs, or leave this one out of the request"
	case "caa":
		return "allow this CA in the name's CAA record"
	case "badCSR", "badPublicKey", "badSignatureAlgorithm":
		return "make a request that the CA takes; RSA 2048 and ECDSA P-256 keys are safe choices"
	case "invalidContact", "unsupportedContact":
		return "give a contact address that the CA takes"
	case "accountDoesNotExist":
		return "remove " + v.s.cfg.AccountKeyFile + " to open another account, or ask the CA"
	case "serverInternal":
		return "nothing: it is tried again; if it stays so, look into the CA's log"
	default:
		if doing == openingAccount && v.s.cfg.EAB != nil {
			return "compare the external account's key identifier and HMAC key with what the CA gave out; some keys can be used once only"
		}
		if transient(p) {
			return "nothing: it is tried again"
		}
		if k == "unauthorized" {
			return "ask the CA whether this account may have these names"
		}
		return "look into the CA's log"
	}
}

// failed is for a challenge that the CA was not content with: what it saw,
// and what to do.
func (v *visit) failed(p *proof) error {
	said := &problem.Problem{Field: p.field(), Found: "no reason given; the authorization is " + clean(p.authz.Status)}
	var saw acme.Problem
	for _, c := range p.authz.Challenges {
		if c.Error != nil && (saw.Type == "" || c.Type == p.way.Challenge) {
			saw = *c.Error
		}
	}
	if saw.Type != "" || saw.Detail != "" {
		said.Found = "what the CA saw: " + words(saw)
	}
	name := p.shown.Identifier
	switch k := kind(saw); {
	case k == "caa":
		said.Next = "allow this CA in the CAA record of " + name
	case p.way.Challenge == DNS01:
		said.Expected = "a TXT record at " + p.shown.DNSName + ", seen from where the CA stands"
		said.Next = "see that the command writes it into the zone that the CA asks, and give the name servers time to have it"
	case k == "dns":
		said.Expected = "an address of this node"
		said.Next = "see what " + name + " resolves to where the CA stands"
	case p.way.Challenge == HTTP01:
		said.Expected = "this node's answer at http://" + hostInURL(name) + "/.well-known/acme-challenge/…"
		said.Next = "let the CA reach TCP port 80 of " + name + " (DNS, firewall, NAT), with this node behind it and no other server or proxy; or choose another challenge"
	default:
		said.Expected = "this node's answer to a handshake for acme-tls/1"
		said.Next = "let the CA reach TCP port 443 of " + name + " (DNS, firewall, NAT), with nothing between that ends TLS; or choose another challenge"
	}
	if limited(saw) {
		return &signing.RetryAfterError{NotBefore: time.Now().Add(limitPause), Err: said}
	}
	// A record may only be slow to be seen.
	if transient(saw) || saw.Type == "" || p.way.Challenge == DNS01 && kind(saw) != "caa" {
		return said
	}
	return &signing.Refused{Problem: said}
}

func hostInURL(name string) string {
	if strings.Contains(name, ":") {
		return "[" + name + "]"
	}
	return name
}

// unreachable is for what came from no ACME server, or from none that makes
// sense.
func (v *visit) unreachable(doing string, err error) error {
	server := v.s.cfg.DirectoryURL
	if u, e := url.Parse(server); e == nil {
		server = u.Host
	}
	said := &problem.Problem{Field: "ACME server " + server, Err: errors.New(clean(doing + ": " + err.Error()))}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		said.Found = "a certificate that nobody vouches for"
		said.Expected = "a chain to a root of this system, or to one that was given"
		said.Next = "for a private CA, give its root certificate; else find out who intercepts TLS on the way"
		return &signing.Refused{Problem: said}
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		said.Found = "a certificate for another name"
		said.Next = "use the name in the directory's URL that the CA's certificate has"
		return &signing.Refused{Problem: said}
	}
	if _, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		said.Found = "a certificate that is not valid"
		said.Next = "check this machine's clock; else tell the people who run the CA"
		return said
	}
	switch v.wire.status {
	case 0:
		said.Found = "no answer"
		said.Next = "see that this machine reaches it (DNS, firewall, HTTPS_PROXY)"
	case http.StatusTooManyRequests:
		said.Found = "a rate limit"
		said.Next = "nothing: it is tried again later"
		if v.wire.retryAfter.IsZero() {
			return &signing.RetryAfterError{NotBefore: time.Now().Add(limitPause), Err: said}
		}
	default:
		said.Found = fmt.Sprintf("an answer that makes no sense (HTTP %d)", v.wire.status)
		said.Next = "nothing: it is tried again; if it stays so, see that the directory's URL is right and what stands between"
	}
	return v.later(said)
}

// clean makes a stranger's text fit for a line of a log.
func clean(text string) string { return inquiry.Clip(text, 600) }
