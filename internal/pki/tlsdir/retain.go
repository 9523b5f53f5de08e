package tlsdir

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"larder/internal/pki/inventory"
	"larder/internal/pki/keys"
	"larder/internal/pki/livecert"
)

// Retain brings the inventory up to date at now and removes the files of
// certificates that have been inactive for inventory.RetentionMonths, each with
// a line in the audit file. The inventory keeps their entries. It returns those
// whose files were removed. With dryRun it only says which it would be.
func (d *Dir) Retain(ctx context.Context, now time.Time, dryRun bool) ([]inventory.Entry, error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, events, err := d.read(now)
	if err != nil {
		return nil, err
	}
	var removed []inventory.Entry
	var failed []error
	inUse := livecert.Active{}
	if s.hasActive && !s.active.Disabled {
		inUse = s.active
	}
	for _, e := range s.inv.Due(now, inUse.Certificate) {
		if dryRun {
			removed = append(removed, *e)
			continue
		}
		if err := d.removeFiles(s, e, inUse.Key); err != nil {
			failed = append(failed, err)
			continue
		}
		if s.active.Disabled && e.File == s.active.Certificate {
			if err := d.writeActive(livecert.Active{Disabled: true}); err != nil {
				failed = append(failed, err)
			}
		}
		events = append(events, inventory.Event{Time: now, What: "removed", Name: e.Name, SHA256: e.SHA256, By: d.by,
			Detail: fmt.Sprintf("%s, inactive (%s) since %s", e.Subject, e.Reason, day(e.Since()))})
		e.File, e.KeyFile, e.Removed = "", "", &now
		removed = append(removed, *e)
	}
	if dryRun {
		return removed, nil
	}
	return removed, errors.Join(append(failed, s.inv.Save(d.path), inventory.Audit(d.path, events...))...)
}

// removeFiles removes the chain of an entry, and its key, where nothing else
// needs them. What lies outside the directory is somebody else's, and root is
// not led there.
func (d *Dir) removeFiles(s *state, e *inventory.Entry, keyInUse string) error {
	var files []string
	if !s.inv.FileShared(e) {
		files = append(files, e.File)
	}
	if e.KeyFile != "" && !s.inv.KeyShared(e, keyInUse) && !d.hasRequest(e.KeyFile) {
		files = append(files, e.KeyFile)
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range files {
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			continue
		}
		if err := root.Remove(filepath.FromSlash(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// hasRequest says whether there is a request for a key, which could be signed
// again.
func (d *Dir) hasRequest(keyFile string) bool {
	base := filepath.Base(keyFile)
	_, err := os.Stat(d.file("certs", base[:len(base)-len(filepath.Ext(base))]+".csr"))
	return err == nil
}

// Inventory returns what is known of every certificate, brought up to date;
// written down where that is allowed.
func (d *Dir) Inventory(ctx context.Context) (*inventory.Inventory, error) {
	s, events, err := d.read(time.Now())
	if err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return s.inv, nil
	}
	// Something is to be noted: again, under the lock.
	unlock, err := d.lock(ctx)
	if errors.Is(err, fs.ErrPermission) {
		return s.inv, nil
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s, events, err = d.read(time.Now()); err != nil {
		return nil, err
	}
	return s.inv, errors.Join(s.inv.Save(d.path), inventory.Audit(d.path, events...))
}

// Active returns the chain and the key of the pair that is in use, or was when
// HTTPS was switched off; the key's file is relative where it lies in the
// directory.
func (d *Dir) Active() (chain []*x509.Certificate, key crypto.Signer, keyFile string, err error) {
	a, err := livecert.ReadActive(d.path)
	if err != nil {
		return nil, nil, "", err
	}
	if a.Certificate == "" {
		return nil, nil, "", fmt.Errorf("no certificate was in use: %w", ErrNotFound)
	}
	if chain, err = readChain(livecert.Resolve(d.path, a.Certificate)); err != nil {
		return nil, nil, "", err
	}
	text, err := os.ReadFile(livecert.Resolve(d.path, a.Key))
	if err != nil {
		return nil, nil, "", err
	}
	if key, err = keys.ParsePEM(text); err != nil {
		return nil, nil, "", fmt.Errorf("key (%s): %w", livecert.Resolve(d.path, a.Key), err)
	}
	return chain, key, a.Key, nil
}

// Standing returns the chain that is in use, or was when HTTPS was switched
// off, with what the inventory says of it. Both are nil if there never was one.
func (d *Dir) Standing() (chain []*x509.Certificate, e *inventory.Entry, off bool, err error) {
	s, _, err := d.read(time.Now())
	if err != nil {
		return nil, nil, false, err
	}
	if !s.hasActive || s.active.Certificate == "" {
		return nil, nil, s.hasActive && s.active.Disabled, nil
	}
	if chain, err = readChain(livecert.Resolve(d.path, s.active.Certificate)); err != nil {
		return nil, nil, s.active.Disabled, err
	}
	return chain, s.inv.Find(entry(chain[0]).SHA256), s.active.Disabled, nil
}
