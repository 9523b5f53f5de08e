package scep

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
)

// exchange is one conversation with a CA.
type exchange struct {
	signer *Signer
	client *http.Client
	able   capabilities
	ca     *authority
}

// attempt is one way to ask.
type attempt struct {
	kind      messageType
	who       *identity
	challenge bool
	id        string // of the transaction
}

func (x *exchange) attempts(ctx context.Context, csrDER []byte, req *x509.CertificateRequest, key crypto.Signer, current *signing.Current) ([]*x509.Certificate, error) {
	var ways []attempt
	add := func(kind messageType, who *identity, challenge bool) {
		ways = append(ways, attempt{kind, who, challenge, transaction(req, current, kind, challenge)})
	}
	hasChallenge := x.signer.config.Challenge != ""
	if who, ok := renewable(current, x.able, x.ca); ok {
		add(renewalReq, who, false)
		if hasChallenge {
			// Both servers of the tests want it in renewals, too.
			add(renewalReq, who, true)
		}
	}
	if len(ways) == 0 || hasChallenge {
		who, err := newIdentity(req, key)
		if err != nil {
			return nil, err
		}
		add(pkcsReq, who, hasChallenge)
	}
	var err error
	for i, way := range ways {
		var certs []*x509.Certificate
		certs, err = x.ask(ctx, way, csrDER, req, key)
		if err == nil {
			return certs, nil
		}
		if !signing.IsRefused(err) || i == len(ways)-1 {
			break
		}
		x.signer.log.InfoContext(ctx, "the CA refused one way to ask, trying the next", "ca", x.signer.url.String(),
			"message", way.kind.name(), "challenge", way.challenge, "err", err)
	}
	return nil, nameKey(err, key)
}

// nameKey adds to a refusal what may well be its cause.
func nameKey(err error, key crypto.Signer) error {
	if _, ok := rsaKey(key); ok || !signing.IsRefused(err) {
		return err
	}
	return &signing.Refused{Problem: fmt.Errorf("%w; the request is for an %s key, and a server that knows RSA alone refuses it whatever reason it gives", err, keys.Kind(key.Public()))}
}

// ask sends a request and waits a little if somebody has to approve it.
func (x *exchange) ask(ctx context.Context, way attempt, csrDER []byte, req *x509.CertificateRequest, key crypto.Signer) ([]*x509.Certificate, error) {
	if way.challenge {
		var err error
		if csrDER, err = withChallenge(csrDER, string(x.signer.config.Challenge), key); err != nil {
			return nil, err
		}
	}
	id := way.id
	if who := x.signer.waiting(id); who != nil {
		// It was sent, and may be approved by now: sending it anew would give
		// the administrator a second one to look at.
		certs, err := x.poll(ctx, id, who, req)
		if !signing.IsRefused(err) {
			return certs, err
		}
	}
	reply, err := x.send(ctx, way.kind, id, way.who, csrDER)
	if err != nil {
		return nil, err
	}
	if reply.status != pending {
		return reply.certs, nil
	}
	x.signer.remember(id, way.who)
	return x.poll(ctx, id, way.who, req)
}

// poll asks for what waits for approval (RFC 8894, section 4.4), as long as
// the configuration says.
func (x *exchange) poll(ctx context.Context, id string, who *identity, req *x509.CertificateRequest) ([]*x509.Certificate, error) {
	content, err := asn1.Marshal(struct{ Issuer, Subject asn1.RawValue }{
		asn1.RawValue{FullBytes: x.ca.issuer.RawSubject}, asn1.RawValue{FullBytes: req.RawSubject},
	})
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(x.signer.config.PollFor)
	for {
		reply, err := x.send(ctx, certPoll, id, who, content)
		if signing.IsRefused(err) {
			x.signer.forget(id) // the next attempt is a new question
		}
		if err != nil {
			return nil, err
		}
		if reply.status != pending {
			x.signer.forget(id)
			return reply.certs, nil
		}
		if time.Now().Add(x.signer.config.PollEvery).After(until) {
			return nil, &signing.RetryAfterError{NotBefore: time.Now().Add(time.Hour), Err: &problem.Problem{
				Field: "SCEP request", Found: "that it waits for somebody's approval at " + x.signer.url.String(),
				Next: "approve it at the CA; the next attempt fetches the certificate",
			}}
		}
		pause := time.NewTimer(x.signer.config.PollEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

func (s *Signer) waiting(id string) *identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending[id]
}

func (s *Signer) remember(id string, who *identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending[id] = who
}

func (s *Signer) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, id)
}

// transaction names what is asked (RFC 8894, section 3.2.1.1) by the key, the
// certificate that is to be replaced and the way of asking: who asks again
// after a crash is known to ask for the same, and a renewal with the same key
// is not taken for the first enrolment.
func transaction(req *x509.CertificateRequest, current *signing.Current, kind messageType, challenge bool) string {
	h := sha256.New()
	h.Write(req.RawSubjectPublicKeyInfo)
	if leaf := current.Leaf(); leaf != nil {
		h.Write(leaf.Raw)
	}
	fmt.Fprint(h, kind, challenge)
	return hex.EncodeToString(h.Sum(nil))
}
