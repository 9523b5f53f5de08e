// Package caretaker looks after the certificate of a node while it runs: has it
// renewed in time, asks whether it was revoked, staples what the authority
// answers, warns as its end comes near, and retires what is no longer needed.
package caretaker

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/pki/enroll"
	"larder/internal/pki/livecert"
	"larder/internal/pki/revocation"
	"larder/internal/pki/tlsdir"
	"larder/internal/pki/vet"
)

// Fallback says what HTTPS is served with after the certificate was revoked.
type Fallback string

const (
	// FallBackToPrevious serves with the one before, if that is still good;
	// else HTTPS is switched off.
	FallBackToPrevious Fallback = "previous"
	// FallBackToHTTP switches HTTPS off: clients go to the CDN at once.
	FallBackToHTTP Fallback = "off"
	// KeepServing only raises the alert.
	KeepServing Fallback = "keep"
)

// Options are what a Caretaker is made of. All but Log and Registerer must be
// set.
type Options struct {
	Dir       *tlsdir.Dir
	Cert      *livecert.Cert
	Renewer   *enroll.Renewer
	Checker   *revocation.Checker
	OnRevoked Fallback

	Log        *slog.Logger // nil discards
	Registerer prometheus.Registerer
}

// The paces of what is done again and again. Every decision compares the wall
// clock with a date, so a machine that slept acts within a tick of its waking.
const (
	tickEvery       = 5 * time.Second
	revocationEvery = 24 * time.Hour
	revocationRetry = 15 * time.Minute // after an answer that said nothing
	retainEvery     = 24 * time.Hour
	attemptTime     = 15 * time.Minute
)

// Caretaker is one node's. Run does the work; the other methods ask.
type Caretaker struct {
	o   Options
	log *slog.Logger
	m   *metrics

	mu         sync.Mutex
	kick       chan struct{}     // guarded by mu; closed and replaced when somebody wants a look at once
	level      vet.Level         // guarded by mu; what was logged last
	levelOf    string            // guarded by mu; SHA-256 of the certificate it was about
	revocation revocation.Answer // guarded by mu
	askedOf    string            // guarded by mu; SHA-256 of the certificate that revocation is about
	askedAt    time.Time         // guarded by mu
	nextAsk    time.Time         // guarded by mu
	retained   time.Time         // guarded by mu; when retention was looked at last
	renewing   bool              // guarded by mu
}

// New makes a Caretaker.
func New(o Options) *Caretaker {
	c := &Caretaker{o: o, log: o.Log, kick: make(chan struct{})}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.m = newMetrics(c)
	if o.Registerer != nil {
		o.Registerer.MustRegister(c.m)
	}
	return c
}

// Kick has the caretaker look at everything at once, and ask again whether the
// certificate was revoked: after somebody changed something, or wants to know.
func (c *Caretaker) Kick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextAsk = time.Time{}
	close(c.kick)
	c.kick = make(chan struct{})
}

func (c *Caretaker) kicked() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kick
}

// Run looks after the certificate until ctx ends, and returns nil then. What
// waits for others, an authority or a responder, keeps nothing else waiting.
func (c *Caretaker) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, look := range []func(context.Context, time.Time){c.watchLevel, c.retain, c.askRevocation, c.askWindow, c.renewIfDue} {
		wg.Go(func() { c.every(ctx, look) })
	}
	wg.Wait()
	return nil
}

// every looks at each tick, each change of the certificate and each kick.
func (c *Caretaker) every(ctx context.Context, look func(context.Context, time.Time)) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		changed, kicked := c.o.Cert.Changed(), c.kicked()
		look(ctx, time.Now())
		select {
		case <-tick.C:
		case <-changed:
		case <-kicked:
		case <-ctx.Done():
			return
		}
	}
}

// renewIfDue gets a new certificate if it is time for that.
func (c *Caretaker) renewIfDue(ctx context.Context, now time.Time) {
	if !c.due(ctx, now) || !c.begin() {
		return
	}
	defer c.end()
	if _, err := c.attempt(ctx); err != nil && !errors.Is(err, enroll.ErrBusy) && ctx.Err() == nil {
		c.log.ErrorContext(ctx, "certificate not renewed", "err", err)
	}
}

// askWindow asks an ACME authority when it would like to renew.
func (c *Caretaker) askWindow(ctx context.Context, now time.Time) {
	if err := c.o.Renewer.AskWindow(ctx, now); err != nil && ctx.Err() == nil {
		c.log.DebugContext(ctx, "no renewal window from the authority", "err", err)
	}
}

func (c *Caretaker) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.renewing {
		return false
	}
	c.renewing = true
	return true
}

func (c *Caretaker) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewing = false
}

// due reports whether a renewal is.
func (c *Caretaker) due(ctx context.Context, now time.Time) bool {
	plan, _, err := c.o.Renewer.Plan(now)
	if err != nil {
		c.log.DebugContext(ctx, "no plan for renewals", "err", err) // shown in the status
		return false
	}
	if plan.Off != "" {
		return false
	}
	return !now.Before(plan.At)
}

// Renew gets a new certificate now, whether or not it is time.
func (c *Caretaker) Renew(ctx context.Context) (*tlsdir.Installed, error) {
	if !c.begin() {
		return nil, enroll.ErrBusy
	}
	defer c.end()
	return c.attempt(ctx)
}

func (c *Caretaker) attempt(ctx context.Context) (*tlsdir.Installed, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	done, err := c.o.Renewer.Attempt(ctx)
	if err != nil {
		if !errors.Is(err, enroll.ErrBusy) && !errors.Is(err, enroll.ErrNotAutomatic) {
			c.m.failures.Inc()
		}
		return nil, err
	}
	c.m.renewals.Inc()
	c.log.InfoContext(ctx, "certificate renewed", "name", done.Entry.Name, "sha256", done.Entry.SHA256, "not_after", done.Entry.NotAfter, "source", done.Entry.Source)
	return done, nil
}

// watchLevel logs when the certificate in use comes nearer to its end.
func (c *Caretaker) watchLevel(ctx context.Context, now time.Time) {
	chain := c.o.Cert.Chain()
	if chain == nil {
		return
	}
	s := c.o.Cert.Status()
	level := vet.Left(s.NotBefore, s.NotAfter, now)
	c.mu.Lock()
	said := c.level >= level && c.levelOf == s.SHA256
	c.level, c.levelOf = level, s.SHA256
	c.mu.Unlock()
	if said || level == vet.None {
		return
	}
	severity := slog.LevelWarn
	if level >= vet.Urgent {
		severity = slog.LevelError
	}
	c.log.Log(ctx, severity, "certificate comes to its end", "level", level.String(), "subject", s.Subject, "not_after", s.NotAfter, "left", left(s.NotAfter.Sub(now)))
}

// retain removes what has been inactive for long enough, once a day.
func (c *Caretaker) retain(ctx context.Context, now time.Time) {
	c.mu.Lock()
	due := now.Sub(c.retained) >= retainEvery || now.Before(c.retained)
	if due {
		c.retained = now
	}
	c.mu.Unlock()
	if !due {
		return
	}
	removed, err := c.o.Dir.Retain(ctx, now, false)
	if err != nil {
		c.log.WarnContext(ctx, "inventory of certificates not brought up to date", "err", err)
	}
	for _, e := range removed {
		c.log.InfoContext(ctx, "certificate files removed", "name", e.Name, "sha256", e.SHA256, "reason", string(e.Reason), "since", e.Since())
	}
}

// askRevocation asks whether the certificate in use was revoked: daily, and
// sooner where an answer to staple runs out.
func (c *Caretaker) askRevocation(ctx context.Context, now time.Time) {
	chain := c.o.Cert.Chain()
	if chain == nil {
		return
	}
	sha256 := c.o.Cert.Status().SHA256
	c.mu.Lock()
	due := c.askedOf != sha256 || !now.Before(c.nextAsk) || now.Before(c.askedAt)
	c.mu.Unlock()
	if !due {
		return
	}
	answer := c.askNow(ctx, chain)
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	same := c.askedOf == sha256
	had := c.revocation
	c.askedOf, c.askedAt, c.revocation = sha256, now, answer
	c.nextAsk = nextAsk(now, answer)
	c.mu.Unlock()
	switch {
	case answer.Status == revocation.Revoked:
		if err := c.fallBack(ctx, chain, sha256, answer); err != nil && ctx.Err() == nil {
			c.log.ErrorContext(ctx, "revoked certificate still in use", "err", err)
			c.mu.Lock()
			c.nextAsk = now.Add(time.Minute)
			c.mu.Unlock()
		}
	case len(answer.Staple) > 0:
		c.o.Cert.Staple(chain[0], answer.Staple)
	case same && len(had.Staple) > 0 && now.Before(had.NextUpdate):
		// The one that is there still counts; the next answer may be better.
		c.mu.Lock()
		c.revocation.Staple, c.revocation.NextUpdate = had.Staple, had.NextUpdate
		c.mu.Unlock()
	default:
		c.o.Cert.Staple(chain[0], nil)
	}
}

// askNow asks whether the leaf of chain was revoked.
func (c *Caretaker) askNow(ctx context.Context, chain []*x509.Certificate) revocation.Answer {
	leaf := chain[0]
	if len(leaf.OCSPServer)+len(leaf.CRLDistributionPoints) == 0 {
		return revocation.Answer{Status: revocation.NotOffered}
	}
	issuer := c.o.Renewer.Issuer(chain)
	if issuer == nil {
		return revocation.Answer{Problems: []string{"the certificate of the authority that signed it is not known here"}}
	}
	return c.o.Checker.Check(ctx, leaf, issuer)
}

// nextAsk is pure: a day after an answer, or half-way to its end if that comes
// sooner.
func nextAsk(now time.Time, a revocation.Answer) time.Time {
	pause := revocationEvery
	if a.Status == revocation.Unknown {
		pause = revocationRetry
	}
	if !a.NextUpdate.IsZero() {
		pause = min(pause, max(a.NextUpdate.Sub(now)/2, time.Minute))
	}
	return now.Add(pause)
}

// fallBack acts on a revocation, as configured. The error is why the revoked
// certificate is still in use although it should not be.
func (c *Caretaker) fallBack(ctx context.Context, chain []*x509.Certificate, sha256 string, answer revocation.Answer) error {
	words := tlsdir.RevokedText(answer)
	_, known, _, err := c.o.Dir.Standing()
	if err == nil && known != nil && known.Revoked == "" {
		c.m.revoked.Inc()
		c.log.ErrorContext(ctx, "certificate in use was revoked", "subject", chain[0].Subject.String(), "sha256", sha256, "detail", words, "fallback", string(c.o.OnRevoked))
	}
	// Written down first: automatic renewal acts on that, whatever is served.
	if err := c.o.Dir.NoteRevoked(ctx, sha256, words); err != nil {
		return err
	}
	if c.o.OnRevoked == KeepServing {
		return nil
	}
	if c.o.OnRevoked == FallBackToPrevious {
		done, err := c.goBack(ctx, sha256, words)
		if err != nil {
			return err
		}
		if done != nil {
			c.log.WarnContext(ctx, "serving with an earlier certificate", "name", done.Entry.Name, "sha256", done.Entry.SHA256)
			return nil
		}
	}
	if _, _, err := c.o.Dir.Revoked(ctx, sha256, words); err != nil {
		return err
	}
	c.log.ErrorContext(ctx, "HTTPS switched off: the certificate was revoked", "sha256", sha256)
	return nil
}

// goBack puts the newest earlier certificate in use that was not revoked, too.
// Nil without an error: there is none.
func (c *Caretaker) goBack(ctx context.Context, sha256, words string) (*tlsdir.Installed, error) {
	for ctx.Err() == nil {
		chain, earlier, err := c.o.Dir.Earlier(sha256)
		if err != nil || earlier == "" {
			return nil, nil // one that cannot be read is none
		}
		if a := c.askNow(ctx, chain); a.Status == revocation.Revoked {
			if err := c.o.Dir.NoteRevoked(ctx, earlier, tlsdir.RevokedText(a)); err != nil {
				return nil, err
			}
			continue
		}
		done, err := c.o.Dir.FallBack(ctx, sha256, earlier, words)
		if errors.Is(err, tlsdir.ErrConflict) {
			return nil, nil
		}
		return done, err
	}
	return nil, ctx.Err()
}

// left is how a span reads for people.
func left(d time.Duration) string {
	switch {
	case d < 0:
		return "over"
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	}
	return fmt.Sprintf("%d seconds", int(d.Seconds()))
}
