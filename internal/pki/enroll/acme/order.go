package acme

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
)

// sign brings an order from its beginning, or from where the last one was
// left, to the chain (RFC 8555, section 7.4).
func (v *visit) sign(ctx context.Context, names []acme.Identifier, csrDER []byte, replaced *x509.Certificate) ([]*x509.Certificate, error) {
	sum := sha256.Sum256(csrDER)
	mark := hex.EncodeToString(sum[:])
	order, resumed, err := v.resume(ctx, mark)
	if err != nil {
		return nil, err
	}
	if !resumed {
		if order, err = v.proven(ctx, names, replaced); err != nil {
			return nil, err
		}
	}
	order, chain, err := v.finish(ctx, order, csrDER)
	v.notes.Order = nil
	if err != nil && (order.Status == acme.StatusProcessing || order.Status == acme.StatusValid) {
		v.notes.Order = &waiting{URL: order.Location, CSR: mark}
		if saveErr := v.saveNotes(); saveErr != nil {
			v.s.log.WarnContext(ctx, "an ACME order could not be written down; the next one begins anew", "err", saveErr)
		}
		return nil, err
	}
	if resumed { // the note is used up
		if saveErr := v.saveNotes(); saveErr != nil {
			v.s.log.WarnContext(ctx, "a finished ACME order could not be crossed out", "err", saveErr)
		}
	}
	return chain, err
}

// resume returns the order that was left waiting, if it is for the same
// request and still good.
func (v *visit) resume(ctx context.Context, mark string) (acme.Order, bool, error) {
	note := v.notes.Order
	if note == nil || note.CSR != mark {
		return acme.Order{}, false, nil
	}
	order, err := v.client.GetOrder(ctx, v.account, acme.Order{Location: note.URL})
	if p, ok := errors.AsType[acme.Problem](err); ok && p.Status < 500 && p.Status != http.StatusTooManyRequests {
		return acme.Order{}, false, nil // forgotten there
	}
	if err != nil {
		return acme.Order{}, false, v.explain(ctx, "asking for the order that waits", err)
	}
	switch order.Status {
	case acme.StatusProcessing, acme.StatusValid, acme.StatusReady:
		v.s.log.InfoContext(ctx, "ACME order picked up again", "order", order.Location, "status", order.Status)
		return order, true, nil
	}
	return acme.Order{}, false, nil
}

// proven returns a new order whose names are proven. A failed challenge ends
// an order, so every other way that is left for a name takes another order.
func (v *visit) proven(ctx context.Context, names []acme.Identifier, replaced *x509.Certificate) (acme.Order, error) {
	tried := make(attempts)
	registered := false
	for {
		order, err := v.newOrder(ctx, names, replaced)
		if accountGone(err) && !registered {
			v.s.log.WarnContext(ctx, "the CA does not know the ACME account any more", "account", v.account.Location)
			registered = true
			if err := v.register(ctx); err != nil {
				return order, err
			}
			continue
		}
		if err != nil {
			return order, v.explain(ctx, "ordering a certificate", err)
		}
		again, err := v.prove(ctx, order, tried)
		if err == nil {
			return order, nil
		}
		if !again {
			return order, err
		}
		v.s.log.WarnContext(ctx, "an ACME challenge failed; trying another kind", "err", err)
	}
}

// newOrder asks for names. That a certificate is replaced is said to CAs that
// plan renewals (RFC 9773, section 5); one that was not theirs, or replaced
// already, must not stand in the way.
func (v *visit) newOrder(ctx context.Context, names []acme.Identifier, replaced *x509.Certificate) (acme.Order, error) {
	order := acme.Order{Identifiers: names}
	if replaced != nil && v.dir.RenewalInfo != "" && len(replaced.AuthorityKeyId) > 0 {
		id, err := acme.ARIUniqueIdentifier(replaced)
		if err == nil {
			order.Replaces = id
		}
	}
	made, err := v.client.NewOrder(ctx, v.account, order)
	p, ok := errors.AsType[acme.Problem](err)
	if order.Replaces != "" && ok && !accountGone(err) && !limited(p) {
		v.s.log.InfoContext(ctx, "the CA does not take the order as a renewal; ordering anew", "detail", clean(p.Detail))
		order.Replaces = ""
		made, err = v.client.NewOrder(ctx, v.account, order)
	}
	return made, err
}

// finish has the order's certificate made and fetches it. The order it
// returns is as far as it came.
func (v *visit) finish(ctx context.Context, order acme.Order, csrDER []byte) (acme.Order, []*x509.Certificate, error) {
	ask := func() (err error) {
		order, err = v.client.GetOrder(ctx, v.account, acme.Order{Location: order.Location})
		return err
	}
	// Some CAs take a moment between the last authorization and "ready".
	if order.Status == acme.StatusPending {
		switch err := v.poll(ctx, func() (bool, error) { err := ask(); return order.Status != acme.StatusPending, err }); {
		case errors.Is(err, errPatience):
			return order, nil, v.later(&problem.Problem{
				Field: "ACME order " + order.Location, Found: "pending, with all its names proven", Expected: acme.StatusReady,
				Next: "look into the CA's log",
			})
		case err != nil:
			return order, nil, v.explain(ctx, "asking for the order", err)
		}
	}
	if order.Status == acme.StatusReady {
		location := order.Location
		finalized, err := v.client.FinalizeOrder(ctx, v.account, order, csrDER)
		if finalized.Location == "" {
			finalized.Location = location
		}
		order = finalized
		// An order that is still being worked on is an error to the library.
		p, refused := errors.AsType[acme.Problem](err)
		if refused && order.Status != acme.StatusInvalid {
			return order, nil, v.said("finalizing the order", p)
		}
		if err != nil && order.Status == acme.StatusReady {
			return order, nil, v.explain(ctx, "finalizing the order", err)
		}
	}
	if order.Status == acme.StatusProcessing {
		switch err := v.poll(ctx, func() (bool, error) { err := ask(); return order.Status != acme.StatusProcessing, err }); {
		case errors.Is(err, errPatience):
			return order, nil, v.later(&problem.Problem{
				Field: "ACME order " + order.Location, Found: "still processing: the CA has not made the certificate yet",
				Next: "nothing, if a person has to approve it there: the order is picked up again",
			})
		case err != nil:
			order.Status = acme.StatusProcessing // what it was when last seen
			return order, nil, v.explain(ctx, "waiting for the certificate", err)
		}
	}
	if order.Status != acme.StatusValid {
		if order.Error != nil {
			return order, nil, v.said("having the certificate made", *order.Error)
		}
		return order, nil, &problem.Problem{
			Field: "ACME order " + order.Location, Found: clean(order.Status), Expected: acme.StatusValid, Next: "look into the CA's log",
		}
	}
	chain, err := v.download(ctx, order)
	return order, chain, err
}

var errPatience = errors.New("patience is over")

// poll calls ask until it is done, at the pace the CA wants (Retry-After, RFC
// 8555, sections 7.4 and 7.5.1), or at a slowing one of its own. errPatience
// comes as soon as the next time to ask would be too late.
func (v *visit) poll(ctx context.Context, ask func() (done bool, err error)) error {
	end := time.Now().Add(v.s.cfg.Patience)
	for pause := 100 * time.Millisecond; ; pause = min(pause*3/2, 5*time.Second) {
		if done, err := ask(); done || err != nil {
			return err
		}
		next := time.Now().Add(pause)
		if v.wire.retryAfter.After(next) {
			next = v.wire.retryAfter
		}
		if next.After(end) {
			return errPatience
		}
		if err := sleep(ctx, time.Until(next)); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// download fetches the chains that the CA offers and chooses (RFC 8555,
// section 7.4.2).
func (v *visit) download(ctx context.Context, order acme.Order) ([]*x509.Certificate, error) {
	offered, err := v.client.GetCertificateChain(ctx, v.account, order.Certificate)
	if err != nil {
		return nil, v.explain(ctx, "fetching the certificate", err)
	}
	var chains [][]*x509.Certificate
	for _, c := range offered {
		chain, err := parseChain(c.ChainPEM)
		if err != nil {
			return nil, signing.Refuse(&problem.Problem{
				Field: "ACME certificate " + c.URL, Found: "what is no chain", Err: err, Expected: "certificates in PEM (RFC 8555, section 9.1)",
				Next: "look into the CA's log",
			})
		}
		chains = append(chains, chain)
	}
	chosen, ok := prefer(chains, v.s.cfg.PreferredChain)
	if !ok {
		v.s.log.WarnContext(ctx, "the CA does not offer the preferred chain; its first one is taken", "preferred", v.s.cfg.PreferredChain)
	}
	return chosen, nil
}

// parseChain reads a chain, the leaf first.
func parseChain(text []byte) (chain []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a block of type %.40q", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return chain, nil
}

// prefer chooses the chain that ends at, or is issued by, name; the first one,
// and false, if there is none such.
func prefer(chains [][]*x509.Certificate, name string) ([]*x509.Certificate, bool) {
	for _, chain := range chains {
		last := chain[len(chain)-1]
		if name == "" || last.Issuer.CommonName == name || last.Subject.CommonName == name {
			return chain, true
		}
	}
	if len(chains) == 0 {
		return nil, false
	}
	return chains[0], false
}
