package acme

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
)

// attempts are the kinds of challenges that failed, by name.
type attempts map[acme.Identifier][]string

// proof is one authorization on its way (RFC 8555, section 7.5).
type proof struct {
	id     acme.Identifier // as ordered: a wildcard with its star
	authz  acme.Authorization
	way    Way
	from   acme.Challenge
	shown  Challenge
	others int // ways left if this one fails
}

// cleanUpTime bounds the taking away of what was shown: by a hook, if need be.
const cleanUpTime = 3 * time.Minute

// prove shows the CA that the order's names are ours. again says that each
// name that failed has another way left, which takes another order.
func (v *visit) prove(ctx context.Context, order acme.Order, tried attempts) (again bool, err error) {
	var proofs []*proof
	var open []acme.Authorization // that somebody has to close if this fails
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
		defer cancel()
		for _, p := range proofs {
			if e := p.way.Solver.CleanUp(last, p.shown); e != nil {
				v.s.log.WarnContext(ctx, "an ACME challenge could not be cleaned up", "challenge", p.shown.String(), "err", e)
			}
		}
		if err != nil {
			v.relinquish(last, open)
		}
	}()
	for _, url := range order.Authorizations {
		authz, err := v.client.GetAuthorization(ctx, v.account, url)
		if err != nil {
			return false, v.explain(ctx, "asking what is to be proven", err)
		}
		switch authz.Status {
		case acme.StatusValid:
			continue // proven for an earlier order
		case acme.StatusPending:
			open = append(open, authz)
		default:
			return false, &problem.Problem{
				Field: "ACME authorization for " + authz.IdentifierValue(), Found: clean(authz.Status), Expected: "pending or valid",
				Next: "nothing: another order gets another one",
			}
		}
		p, err := v.choose(authz, tried)
		if err != nil {
			return false, err
		}
		proofs = append(proofs, p) // before Present: half of it may be there
		if err := p.way.Solver.Present(ctx, p.shown); err != nil {
			return false, fmt.Errorf("presenting %s: %w", p.shown, err)
		}
	}
	for _, p := range proofs {
		if w, ok := p.way.Solver.(Waiter); ok {
			if err := w.Wait(ctx, p.shown); err != nil {
				return false, fmt.Errorf("waiting for %s: %w", p.shown, err)
			}
		}
	}
	for _, p := range proofs {
		if _, err := v.client.InitiateChallenge(ctx, v.account, p.from); err != nil {
			return false, v.explain(ctx, "answering "+p.shown.String(), err)
		}
	}
	return v.judged(ctx, proofs, tried)
}

// choose takes the first way that the CA offers, that suits the name and that
// has not failed yet.
func (v *visit) choose(authz acme.Authorization, tried attempts) (*proof, error) {
	p := &proof{id: acme.Identifier{Type: authz.Identifier.Type, Value: authz.IdentifierValue()}, authz: authz}
	var offered []string
	for _, c := range authz.Challenges {
		offered = append(offered, clean(c.Type))
	}
	var mine []string
	for _, way := range v.s.waysFor(p.id) {
		mine = append(mine, way.Challenge)
		i := slices.IndexFunc(authz.Challenges, func(c acme.Challenge) bool { return c.Type == way.Challenge })
		if i < 0 || slices.Contains(tried[p.id], way.Challenge) {
			continue
		}
		if p.way.Solver == nil {
			p.way, p.from = way, authz.Challenges[i]
		} else {
			p.others++
		}
	}
	if p.way.Solver == nil {
		return nil, signing.Refuse(&problem.Problem{
			Field:    "ACME challenge for " + p.id.Value,
			Found:    "the CA offers " + strings.Join(offered, ", "),
			Expected: strings.Join(mine, " or "),
			Next:     "set up one of those that the CA offers",
		})
	}
	var err error
	p.shown, err = challenge(p.from)
	return p, err
}

// judged waits for the CA's word on every proof, so that all that failed are
// named at once.
func (v *visit) judged(ctx context.Context, proofs []*proof, tried attempts) (again bool, err error) {
	var failures []error
	again = true
	for _, p := range proofs {
		err := v.poll(ctx, func() (bool, error) {
			authz, err := v.client.GetAuthorization(ctx, v.account, p.authz.Location)
			if err == nil {
				p.authz = authz
			}
			return authz.Status != acme.StatusPending, err
		})
		switch {
		case errors.Is(err, errPatience):
			again = false
			failures = append(failures, v.later(&problem.Problem{
				Field: p.field(), Found: fmt.Sprintf("no verdict of the CA within %s", v.s.cfg.Patience), Expected: acme.StatusValid,
				Next: "nothing, if the CA is only slow; else look into its log",
			}))
		case err != nil:
			return false, v.explain(ctx, "waiting for the verdict on "+p.shown.String(), err)
		case p.authz.Status != acme.StatusValid:
			tried[p.id] = append(tried[p.id], p.way.Challenge)
			again = again && p.others > 0
			failures = append(failures, v.failed(p))
		}
	}
	return again && len(failures) > 0, errors.Join(failures...)
}

func (p *proof) field() string { return "ACME challenge " + p.way.Challenge + " for " + p.id.Value }

// relinquish gives up authorizations that nobody will complete, of which CAs
// allow an account only so many (RFC 8555, section 7.5.2). What the CA found
// valid meanwhile stays: the next order need not prove it again.
func (v *visit) relinquish(ctx context.Context, open []acme.Authorization) {
	for _, authz := range open {
		if now, err := v.client.GetAuthorization(ctx, v.account, authz.Location); err == nil && now.Status != acme.StatusPending {
			continue
		}
		// One that has failed meanwhile is refused, which is as good.
		if _, err := v.client.DeactivateAuthorization(ctx, v.account, authz.Location); err != nil {
			v.s.log.DebugContext(ctx, "an ACME authorization could not be given up", "authorization", authz.Location, "err", err)
		}
	}
}
