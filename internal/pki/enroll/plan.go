package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"larder/internal/pki/enroll/acme"
	"larder/internal/pki/inventory"
)

// Plan says when the next attempt is due, and why then. Off is not empty where
// none will be made, and says why not.
type Plan struct {
	At  time.Time
	Why string
	Off string
}

// Plan decides from what lies in the directory, at now. It asks nobody.
func (r *Renewer) Plan(now time.Time) (Plan, State, error) {
	if _, err := r.settings(); errors.Is(err, ErrNotAutomatic) {
		return Plan{Off: "nothing is automatic"}, State{}, nil
	}
	state, err := r.state()
	if err != nil {
		state = State{} // then the next attempt is decided as if it were the first
	}
	in, err := r.input(state)
	if err != nil {
		return Plan{}, state, err
	}
	if in.off && (in.entry == nil || in.entry.Revoked == "") {
		return Plan{Off: "HTTPS is switched off; larder tls enable switches it on again"}, state, nil
	}
	return decide(now, in), state, nil
}

// input is all that decide looks at.
type input struct {
	settings *Settings
	changed  bool // the settings are others than at the last attempt
	state    State
	chain    []*x509.Certificate // of what is in use, or was; nil: nothing ever
	entry    *inventory.Entry    // what the inventory says of it
	off      bool                // HTTPS is switched off
	fellBack bool                // it is served in the place of one that was revoked
	seed     string
}

func (r *Renewer) input(state State) (input, error) {
	settings, err := r.settings()
	if err != nil {
		return input{}, err
	}
	in := input{settings: settings, changed: state.Settings != fingerprint(r.Dir.Path()), state: state, seed: r.Seed}
	if in.chain, in.entry, in.off, err = r.Dir.Standing(); err != nil {
		return in, err
	}
	words, err := r.Dir.FellBack()
	in.fellBack = words != ""
	return in, err
}

// farthest is how far ahead of the last attempt a failed one is repeated at the
// latest, whoever asked for more: clocks jump, and authorities err.
const farthest = 24 * time.Hour

// decide is pure.
func decide(now time.Time, in input) Plan {
	s := in.state
	switch {
	case s.LastAttempt.After(now.Add(time.Minute)):
		return Plan{At: now, Why: "the clock was ahead at the last attempt"}
	case in.changed && (s.Failures > 0 || !in.served()):
		return Plan{At: now, Why: "the settings are new"}
	case s.Failures > 0:
		return Plan{At: earlier(s.NextAttempt, s.LastAttempt.Add(farthest)), Why: s.Why}
	case len(in.chain) == 0:
		return Plan{At: now, Why: "there is no certificate yet"}
	case in.off, in.fellBack, in.entry != nil && in.entry.Revoked != "":
		return Plan{At: now, Why: "the certificate was revoked"}
	case !in.served():
		return Plan{At: now, Why: "the certificate in use lacks names of the settings"}
	}
	leaf := in.chain[0]
	if now.After(leaf.NotAfter) {
		return Plan{At: now, Why: "it has expired"}
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	at, why := RenewAt(leaf.NotBefore, leaf.NotAfter, in.seed+in.sha256()), "at two thirds of its life"
	if s.For == in.sha256() && s.RenewTo.After(s.RenewFrom) {
		// A point of the window that is ours (RFC 9773, section 4.2), but not so
		// late that there would be no time for a second try.
		window := s.RenewTo.Sub(s.RenewFrom)
		at, why = earlier(s.RenewFrom.Add(time.Duration(share(in.seed)*float64(window))), leaf.NotAfter.Add(-life/10)), "when the authority suggests"
	}
	if e := in.entry; e != nil && e.Activated != nil && e.Activated.After(s.LastSuccess) && at.Before(*e.Activated) {
		// Somebody went back to it although it was due: they get some time.
		at, why = later(leaf.NotAfter.Add(-life/6), e.Activated.Add(min(time.Hour, life/20))), "it was put in use again by hand"
	}
	return Plan{At: at, Why: why}
}

func (in input) sha256() string {
	if in.entry == nil {
		return ""
	}
	return in.entry.SHA256
}

// served says whether what is in use has all names that the settings ask for.
func (in input) served() bool {
	if len(in.chain) == 0 || in.off {
		return false
	}
	request, err := in.settings.Request.Request()
	if err != nil {
		return true // the mistake is shown where the settings are read
	}
	for _, host := range request.Names.Hosts() {
		if in.chain[0].VerifyHostname(hostPattern(host)) != nil {
			return false
		}
	}
	return true
}

// hostPattern is a name that a wildcard covers, for asking whether it does.
func hostPattern(host string) string {
	if len(host) > 2 && host[:2] == "*." {
		return "any" + host[1:]
	}
	return host
}

// windowPause is the least time between two questions for an authority's wish.
const windowPause = time.Minute

// AskWindow asks an ACME authority when it would like the certificate in use to
// be renewed (RFC 9773), if the last answer is too old. It does nothing for
// other ways.
func (r *Renewer) AskWindow(ctx context.Context, now time.Time) error {
	settings, err := r.settings()
	if errors.Is(err, ErrNotAutomatic) || err == nil && settings.ACME == nil {
		return nil
	}
	if err != nil {
		return err
	}
	chain, entry, off, err := r.Dir.Standing()
	if err != nil || off || entry == nil || len(chain) == 0 || entry.Source != MethodACME {
		return err
	}
	state, err := r.state()
	if err != nil || state.For == entry.SHA256 && now.Before(state.AskAgain) || !r.mayAsk(now) {
		return err
	}
	s, closeSigner, err := r.signer(settings)
	if err != nil {
		return err
	}
	defer closeSigner()
	client, ok := s.(*acme.Signer)
	if !ok {
		return nil
	}
	from, to, _, again, askErr := client.RenewalInfo(ctx, chain[0])
	if ctx.Err() != nil {
		return ctx.Err()
	}
	release, err := r.turn()
	if err != nil {
		return nil // whoever renews just now has the last word
	}
	defer release()
	if state, err = r.state(); err != nil {
		return err
	}
	state.For, state.RenewFrom, state.RenewTo = entry.SHA256, from, to
	if askErr != nil {
		state.RenewFrom, state.RenewTo = time.Time{}, time.Time{}
		again = now.Add(6 * time.Hour) // RFC 9773, section 4.3.2: at a pace of our own
		if errors.Is(askErr, acme.ErrNoRenewalInfo) {
			askErr = nil // this authority has no wishes
		}
	}
	state.AskAgain = later(again, now.Add(windowPause))
	return errors.Join(askErr, r.remember(state))
}

// mayAsk keeps questions apart whose answers could not be written down.
func (r *Renewer) mayAsk(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if pause := now.Sub(r.window); pause >= 0 && pause < windowPause {
		return false
	}
	r.window = now
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
