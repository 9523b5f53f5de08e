package tlsdir

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"larder/internal/pki/inventory"
	"larder/internal/pki/livecert"
	"larder/internal/pki/problem"
)

// Activate puts a certificate of the inventory in use, named by its name or the
// beginning of a thumbprint.
func (d *Dir) Activate(ctx context.Context, which string) (*Installed, error) {
	return d.change(ctx, "activated", func(s *state, now time.Time) (*inventory.Entry, error) { return pick(s, which) })
}

// pick returns the one entry that which means.
func pick(s *state, which string) (*inventory.Entry, error) {
	if e := s.inv.Newest(which); e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("%w: %w", ErrNotFound, &problem.Problem{Field: "certificate", Found: fmt.Sprintf("none that is called %q or has such a thumbprint", which),
		Expected: "a name, or at least 8 digits of a thumbprint", Next: "see larder tls list"})
}

// Enable switches HTTPS on again, with the certificate that was in use when it
// was switched off, or the one that which names. With no certificate at all it
// lets the first one that comes switch HTTPS on, and says so with ErrNotFound.
func (d *Dir) Enable(ctx context.Context, which string) (*Installed, error) {
	return d.change(ctx, "enabled", func(s *state, now time.Time) (*inventory.Entry, error) {
		if which != "" {
			return pick(s, which)
		}
		if s.hasActive && s.active.Certificate != "" {
			if e, err := d.entryOf(s.active); err == nil {
				if known := s.inv.Find(e.SHA256); known != nil {
					return known, nil
				}
				return s.inv.Add(e, inventory.Stored, now), nil
			}
		}
		if e := s.inv.Previous("", now); e != nil {
			return e, nil
		}
		if s.hasActive && s.active.Disabled && s.active.Certificate == "" {
			if err := os.Remove(d.file("active.yaml")); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		return nil, fmt.Errorf("%w: %w", ErrNotFound, &problem.Problem{Field: "certificate", Found: "none that HTTPS could be switched on with", Expected: "an imported certificate that is valid now",
			Next: "larder tls csr, have the request signed, then larder tls import"})
	})
}

// Rollback goes back to the certificate that was in use before the current one.
func (d *Dir) Rollback(ctx context.Context) (*Installed, error) {
	return d.change(ctx, "rolled back", func(s *state, now time.Time) (*inventory.Entry, error) {
		if e := s.inv.Previous(d.activeSHA256(s), now); e != nil {
			return e, nil
		}
		return nil, fmt.Errorf("%w: %w", ErrConflict, &problem.Problem{Field: "certificate", Found: "no earlier one that is valid now, has its files and was not revoked", Expected: "one to go back to",
			Next: "see larder tls list; import another one, or larder tls disable"})
	})
}

// activeSHA256 is that of the certificate which active.yaml names, switched off
// or not; "" if there is none.
func (d *Dir) activeSHA256(s *state) string {
	if !s.hasActive || s.active.Certificate == "" {
		return ""
	}
	e, err := d.entryOf(s.active)
	if err != nil {
		return ""
	}
	return e.SHA256
}

// change switches to the entry that choose returns.
func (d *Dir) change(ctx context.Context, what string, choose func(*state, time.Time) (*inventory.Entry, error)) (*Installed, error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	now := time.Now()
	s, events, err := d.read(now)
	if err != nil {
		return nil, err
	}
	e, err := choose(s, now)
	if err != nil {
		return nil, err
	}
	if err := mayServe(e, now); err != nil {
		return nil, err
	}
	chain, err := d.chainOf(e)
	if err != nil {
		return nil, err
	}
	return d.switchTo(ctx, s, e.SHA256, chain, what, events)
}

// chainOf reads the chain of an entry, if its file still holds that.
func (d *Dir) chainOf(e *inventory.Entry) ([]*x509.Certificate, error) {
	file := livecert.Resolve(d.path, e.File)
	chain, err := readChain(file)
	if err != nil {
		return nil, err
	}
	if got := entry(chain[0]); got.SHA256 != e.SHA256 {
		return nil, fmt.Errorf("%w: %w", ErrConflict, &problem.Problem{Field: "certificate " + e.Name + " (" + e.Short() + ")", Found: fmt.Sprintf("another one in its file, %s (%s)", file, got.Short()),
			Expected: "the certificate of the inventory", Next: "import it again"})
	}
	return chain, nil
}

// mayServe says why HTTPS must not be switched to an entry.
func mayServe(e *inventory.Entry, now time.Time) error {
	p := &problem.Problem{Field: "certificate " + e.Name + " (" + e.Short() + ")", Expected: "one that clients accept"}
	switch {
	case e.File == "" || e.KeyFile == "":
		p.Found, p.Next = "one whose files were removed", "import it again"
	case e.Revoked != "":
		p.Found, p.Next = "one that was "+e.Revoked, "have a new one signed: larder tls renew"
	case e.Reason == inventory.NotServable:
		p.Found, p.Next = "a key of the kind "+e.KeyType+", which neither Go's TLS nor Windows' clients can use", "request a certificate with --algo EC or RSA"
	case now.After(e.NotAfter):
		p.Found, p.Next = "one that ended on "+day(e.NotAfter), "renew it: larder tls renew"
	case now.Before(e.NotBefore):
		p.Found, p.Next = "one that begins on "+day(e.NotBefore), "wait, or set the clock of this machine"
	default:
		return nil
	}
	return fmt.Errorf("%w: %w", ErrConflict, p)
}

// Disable switches HTTPS off: the node closes its TLS listeners, HTTP goes on,
// nothing is deleted, and nothing but Enable or an import switches it on again.
// It reports whether HTTPS was on.
func (d *Dir) Disable(ctx context.Context) (done *Installed, wasOn bool, err error) {
	return d.off(ctx, "", inventory.Disabled, "")
}

// off switches HTTPS off. With a sha256 it does nothing if another certificate
// is active.
func (d *Dir) off(ctx context.Context, sha256 string, why inventory.Reason, words string) (*Installed, bool, error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	now := time.Now()
	s, events, err := d.read(now)
	if err != nil {
		return nil, false, err
	}
	current := d.activeSHA256(s)
	if sha256 != "" && current != sha256 {
		return &Installed{Note: "another certificate is in use"}, false, nil
	}
	wasOn := s.hasActive && !s.active.Disabled
	done := &Installed{Note: "HTTPS was off"}
	if s.hasActive && !wasOn && why == inventory.Disabled {
		d.audit(done, events)
		return done, false, nil
	}
	if e := s.inv.Find(current); e != nil {
		// Also one that had expired: the newer reason is the one that counts.
		e.State, e.Reason, e.Detail, e.Deactivated = inventory.Inactive, why, words, &now
		if why == inventory.Revoked {
			e.Revoked = words
		}
		done.Entry = *e
	}
	// The inventory first: what was revoked must not come back after a kill
	// between the two.
	if err := s.inv.Save(d.path); err != nil {
		return nil, wasOn, err
	}
	next := s.active
	next.Disabled = true
	if err := d.writeActive(next); err != nil {
		return nil, wasOn, err
	}
	events = append(events, inventory.Event{Time: now, What: string(why), Name: done.Entry.Name, SHA256: done.Entry.SHA256, By: d.by, Detail: words})
	if !wasOn {
		d.audit(done, events)
		return done, false, nil
	}
	switch err := d.ProveOff(ctx); {
	case errors.Is(err, ErrNotRunning):
		done.Note = "no node runs with this directory; it will serve HTTP only when it starts"
	case err != nil:
		d.audit(done, events)
		return done, true, fmt.Errorf("HTTPS is switched off in %s, but %w", d.path, err)
	default:
		done.Note, done.Proved = "", true
	}
	d.audit(done, events)
	return done, true, nil
}
