// Package enroll gets and renews a node's certificate without hands: which way
// is set down in the TLS directory, when is decided by the clock, and what came
// of it can always be asked for.
package enroll

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"larder/internal/pki/csr"
	"larder/internal/pki/enroll/acme"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/inventory"
	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
	"larder/internal/pki/tlsdir"
	"larder/internal/sys/disk"
	"larder/internal/sys/private"
)

// signer is one way of getting a request signed.
type signer interface {
	Sign(ctx context.Context, csrDER []byte, key crypto.Signer, current *signing.Current) ([]*x509.Certificate, error)
}

// Renewer gets certificates for one TLS directory. Its methods may be called by
// several at once; one renewal is made at a time, whichever process asks.
type Renewer struct {
	Dir *tlsdir.Dir
	// Standards are what an issued certificate must meet.
	Standards tlsdir.Standards
	// Solvers answer the challenges of ACME: http-01 and tls-alpn-01.
	Solvers map[string]acme.Solver
	// Seed tells nodes apart, for jitter.
	Seed string
	Log  *slog.Logger // nil discards

	names atomic.Pointer[[]string] // in place of Standards.ClientNames; SetClientNames

	mu     sync.Mutex
	last   State     // guarded by mu; of this process's last attempt: a full disk must not make it forget
	window time.Time // guarded by mu; when an authority was asked for its wish last
}

// SetClientNames replaces Standards.ClientNames from the next attempt on; none
// puts them back.
func (r *Renewer) SetClientNames(names []string) {
	if len(names) == 0 {
		r.names.Store(nil)
		return
	}
	r.names.Store(&names)
}

// base are the Standards as they are now.
func (r *Renewer) base() tlsdir.Standards {
	st := r.Standards
	if names := r.names.Load(); names != nil {
		st.ClientNames = *names
	}
	return st
}

// ErrBusy says that a renewal is under way already.
var ErrBusy = errors.New("a renewal is under way")

// ErrNotAutomatic says that no way of getting a certificate is set down.
var ErrNotAutomatic = errors.New("no automatic way is set up for this node's certificate")

// Unfinished is the State.LastError of an attempt that is under way, or that
// was cut off.
const Unfinished = "the attempt did not come to its end"

// Attempt gets a certificate now and puts it in use. What came of it is
// written down, whatever it is; only one that is called off leaves no trace.
func (r *Renewer) Attempt(ctx context.Context) (*tlsdir.Installed, error) {
	settings, err := r.settings()
	if err != nil {
		return nil, err
	}
	release, err := r.turn()
	if err != nil {
		return nil, err
	}
	defer release()
	before, err := r.state()
	if err != nil {
		r.log().WarnContext(ctx, "what was known of renewals is lost", "err", err)
	}
	print := fingerprint(r.Dir.Path())
	state := before
	if state.Settings != print {
		state = State{LastSuccess: before.LastSuccess} // other settings, another story
	}
	state.Method, state.Settings, state.LastAttempt = settings.Method(), print, time.Now()
	// Written before anybody is asked: whoever dies in the middle again and
	// again must not ask again and again.
	began := state
	began.Failures++
	began.LastError = Unfinished
	began.NextAttempt, began.Why = r.retry(began, nil)
	if err := r.remember(began); err != nil {
		return nil, err
	}
	done, err := r.attempt(ctx, settings, &state)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return nil, errors.Join(err, r.remember(before)) // that says nothing of the authority
	}
	if err == nil {
		err = r.dueAgain(&state, done)
	}
	if err != nil {
		state.Failures++
		state.LastError, state.Refused = err.Error(), signing.IsRefused(err)
		state.NextAttempt, state.Why = r.retry(state, err)
		note := inventory.Event{Time: time.Now(), What: "renewal failed", Name: settings.Name, By: "auto", Detail: err.Error()}
		return nil, errors.Join(err, r.remember(state), inventory.Audit(r.Dir.Path(), note))
	}
	return done, r.remember(state)
}

// dueAgain writes a success down, unless what was issued would have to be
// renewed at once: that would go round without end.
func (r *Renewer) dueAgain(state *State, done *tlsdir.Installed) error {
	now, e := time.Now(), done.Entry
	state.LastSuccess = now
	state.RenewFrom, state.RenewTo, state.AskAgain, state.For, state.Ready = time.Time{}, time.Time{}, time.Time{}, e.SHA256, ""
	fresh := *state
	fresh.LastError, fresh.Refused, fresh.Failures = "", false, 0
	in, err := r.input(fresh)
	if err != nil {
		return err
	}
	plan := decide(now, in)
	if !in.off && !plan.At.After(now) {
		return &signing.Refused{Problem: &problem.Problem{Field: "issued certificate", Found: "one that is due again at once: " + plan.Why, Expected: "one with the names and the life that were asked for",
			Next: "see what the authority changed; it is in use meanwhile"}}
	}
	*state = fresh
	state.NextAttempt, state.Why = plan.At, plan.Why
	return nil
}

// settings reads what is set down.
func (r *Renewer) settings() (*Settings, error) {
	s, err := Load(r.Dir.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotAutomatic
	}
	return s, err
}

// Automatic reports whether a way of getting a certificate is set down, good or
// not.
func (r *Renewer) Automatic() bool {
	_, err := os.Stat(settingsFile(r.Dir.Path()))
	return err == nil
}

// Check says what is wrong with settings that were not saved yet, as far as
// that can be known without asking anybody, and what to be warned of.
func (r *Renewer) Check(s *Settings) (warnings []string, err error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	request, err := s.Request.Request()
	if err != nil {
		return nil, err
	}
	if err := r.reachable(request); err != nil {
		return nil, err
	}
	made, closeSigner, err := r.signer(s)
	if err != nil {
		return nil, err
	}
	defer closeSigner()
	if w, ok := made.(interface{ Warnings() []string }); ok {
		warnings = w.Warnings()
	}
	return warnings, nil
}

// reachable refuses a request that clients would have no use for, before an
// authority is asked for it.
func (r *Renewer) reachable(request csr.Request) error {
	names := r.base().ClientNames
	if len(names) == 0 {
		return nil
	}
	like := &x509.Certificate{DNSNames: request.Names.DNS}
	for _, ip := range request.Names.IP {
		like.IPAddresses = append(like.IPAddresses, net.IP(ip.AsSlice()))
	}
	for _, name := range names {
		if like.VerifyHostname(name) == nil {
			return nil
		}
	}
	return signing.Refuse(&problem.Problem{Field: "request", Found: "none of the names that clients use", Expected: strings.Join(names, ", ") + ", or some of them",
		Next: "ask for them with --san-dns or --san-ip, or mend tls.client_names"})
}

// turn is held by the one who renews.
func (r *Renewer) turn() (release func(), err error) {
	name := r.path(".renewing")
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		if err := private.WriteFile(name, nil); err != nil {
			return nil, err
		}
	}
	held, err := disk.Lock(name)
	if errors.Is(err, disk.ErrLocked) {
		return nil, fmt.Errorf("%w: %w", ErrBusy, err)
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = held.Unlock() }, nil
}

// state is what is known of the attempts so far.
func (r *Renewer) state() (State, error) {
	s, err := LoadState(r.Dir.Path())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last.LastAttempt.After(s.LastAttempt) && r.last.Settings == fingerprint(r.Dir.Path()) {
		return r.last, nil
	}
	return s, err
}

func (r *Renewer) remember(s State) error {
	r.mu.Lock()
	r.last = s
	r.mu.Unlock()
	return s.save(r.Dir.Path())
}

func (r *Renewer) attempt(ctx context.Context, settings *Settings, state *State) (*tlsdir.Installed, error) {
	request, err := settings.Request.Request()
	if err != nil {
		return nil, err
	}
	if err := r.reachable(request); err != nil {
		return nil, err
	}
	if state.Ready != "" {
		// Issued by an earlier attempt: the authority need not be asked again.
		done, err := r.Dir.Activate(ctx, state.Ready)
		if err == nil || !errors.Is(err, tlsdir.ErrNotFound) && !errors.Is(err, tlsdir.ErrConflict) {
			return done, err
		}
		state.Ready = ""
	}
	s, closeSigner, err := r.signer(settings)
	if err != nil {
		return nil, err
	}
	defer closeSigner()
	current, currentKey := r.current()
	a, err := r.ask(settings, request, current, currentKey)
	if err != nil {
		return nil, err
	}
	chain, err := s.Sign(ctx, a.der, a.key, current)
	if err != nil {
		return nil, errors.Join(err, r.keep(settings, a, err))
	}
	if err := signing.CheckIssued(chain, a.der); err != nil {
		return nil, err
	}
	standards, err := r.standards(settings)
	if err != nil {
		return nil, err
	}
	vetted, err := standards.Vet(ctx, chain, a.key.Public(), current.Leaf())
	if err != nil {
		return nil, fmt.Errorf("the certificate that was issued cannot be used: %w", &signing.Refused{Problem: err})
	}
	for _, f := range vetted.Findings {
		r.log().DebugContext(ctx, "certificate issued", "check", f.Check, "severity", f.Severity, "finding", f.Problem.Error())
	}
	c := tlsdir.Candidate{Name: settings.Name, Chain: chain, Key: a.key, KeyFile: a.keyFile, Source: settings.Method()}
	done, err := r.Dir.Install(ctx, c, true)
	if err != nil {
		// It was issued, and may count against a limit: it is kept for the next
		// attempt, even if the node stops just now.
		if stored, serr := r.Dir.Install(context.WithoutCancel(ctx), c, false); serr == nil {
			state.Ready = stored.Entry.SHA256
			return nil, errors.Join(err, r.forget(settings))
		}
		return nil, err
	}
	return done, r.forget(settings)
}

// current is the certificate in use with its key, nil if there is none that
// could speak for this node.
func (r *Renewer) current() (*signing.Current, string) {
	chain, key, keyFile, err := r.Dir.Active()
	if err != nil {
		return nil, ""
	}
	return &signing.Current{Chain: chain, Key: key}, keyFile
}

// fits says whether a key is of the kind that is asked for.
func fits(key crypto.Signer, algorithm, size string) bool {
	if sizes := keys.Sizes(algorithm); size == "" && len(sizes) > 0 {
		size = sizes[0]
	}
	a, s := keys.AlgorithmOf(key.Public())
	return a == algorithm && s == size
}

// standards are r's with what the settings say of roots: where they name none,
// the authority is trusted because it was set up.
func (r *Renewer) standards(settings *Settings) (tlsdir.Standards, error) {
	st := r.base()
	if settings.Roots == "" {
		st.Roots, st.Given = nil, nil
		return st, nil
	}
	given, err := r.certificates("roots", settings.Roots)
	st = r.Dir.With(st)
	st.Given = append(st.Given[:len(st.Given):len(st.Given)], given...)
	return st, err
}

// Issuer is the certificate of the authority that signed the leaf of chain, from
// all that is known here; nil if it is not.
func (r *Renewer) Issuer(chain []*x509.Certificate) *x509.Certificate {
	st := r.Dir.With(r.base())
	if s, err := r.settings(); err == nil && s.Roots != "" {
		if given, err := r.certificates("roots", s.Roots); err == nil {
			st.Given = append(st.Given[:len(st.Given):len(st.Given)], given...)
		}
	}
	return st.Issuer(chain)
}

// retry is when to try again after a failure.
func (r *Renewer) retry(state State, err error) (time.Time, string) {
	now := time.Now()
	var life, left time.Duration
	if current, _ := r.current(); current != nil {
		leaf := current.Leaf()
		life, left = leaf.NotAfter.Sub(leaf.NotBefore), leaf.NotAfter.Sub(now)
	}
	hint, why := time.Duration(0), "after a failure"
	if at, ok := signing.NotBefore(err); ok {
		hint, why = at.Sub(now), "when the authority asked us to come again"
	}
	return now.Add(RetryAfter(state.Failures, life, left, min(hint, farthest), fmt.Sprint(r.Seed, state.Failures))), why
}

func (r *Renewer) log() *slog.Logger {
	if r.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return r.Log
}
