package tlsdir

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"larder/internal/pki/inventory"
)

// NoteRevoked writes down that the authority revoked a certificate. What is
// served does not change.
func (d *Dir) NoteRevoked(ctx context.Context, sha256, words string) error {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	now := time.Now()
	s, events, err := d.read(now)
	if err != nil {
		return err
	}
	e := s.inv.Find(sha256)
	if e == nil || e.Revoked == words {
		return nil
	}
	s.inv.Revoke(sha256, words)
	if err := s.inv.Save(d.path); err != nil {
		return err
	}
	return inventory.Audit(d.path, append(events, inventory.Event{Time: now, What: string(inventory.Revoked), Name: e.Name, SHA256: sha256, By: d.by, Detail: words})...)
}

// Revoked switches HTTPS off because the active certificate was revoked. It
// does nothing if another one is active.
func (d *Dir) Revoked(ctx context.Context, sha256, words string) (done *Installed, wasOn bool, err error) {
	return d.off(ctx, sha256, inventory.Revoked, words)
}

// Earlier returns the chain of the certificate that FallBack would go back to
// from the one with this SHA-256; nil if there is none.
func (d *Dir) Earlier(sha256 string) (chain []*x509.Certificate, earlier string, err error) {
	now := time.Now()
	s, _, err := d.read(now)
	if err != nil {
		return nil, "", err
	}
	e := s.inv.Previous(sha256, now)
	if e == nil {
		return nil, "", nil
	}
	chain, err = d.chainOf(e)
	return chain, e.SHA256, err
}

// FallBack goes back from a revoked certificate to an earlier one. If the first
// is not in use any more, or the second may not be served, it is ErrConflict
// and nothing is changed.
func (d *Dir) FallBack(ctx context.Context, from, to, words string) (*Installed, error) {
	return d.change(ctx, "rolled back", func(s *state, now time.Time) (*inventory.Entry, error) {
		bad, good := s.inv.Current(), s.inv.Find(to)
		if bad == nil || bad.SHA256 != from || good == nil {
			return nil, fmt.Errorf("the revoked certificate is not in use any more: %w", ErrConflict)
		}
		if err := mayServe(good, now); err != nil {
			return nil, err
		}
		bad.State, bad.Reason, bad.Detail, bad.Revoked, bad.Deactivated = inventory.Inactive, inventory.Revoked, words, words, &now
		// Before the switch: what was revoked must not come back after a kill.
		return good, s.inv.Save(d.path)
	})
}

// FellBack says, in the authority's words, that the certificate in use is
// served in the place of a newer one that was revoked; "" if it is not.
func (d *Dir) FellBack() (words string, err error) {
	s, _, err := d.read(time.Now())
	if err != nil {
		return "", err
	}
	current := s.inv.Current()
	if current == nil {
		return "", nil
	}
	for i := range s.inv.Entries {
		if e := &s.inv.Entries[i]; e.Revoked != "" && e.Added.After(current.Added) {
			words = e.Revoked
		}
	}
	return words, nil
}
