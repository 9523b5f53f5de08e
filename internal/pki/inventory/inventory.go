// Package inventory remembers every certificate that a node ever had: which is
// active, why the others are not, since when, and until when their files are kept.
package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"larder/internal/sys/private"
)

// RetentionMonths is how long the files of an inactive certificate are kept
// after its deactivation (facts/connected-cache.md, 3.7: as the vendor does).
const RetentionMonths = 18

// State says whether HTTPS is served with a certificate.
type State string

const (
	Active   State = "active"
	Inactive State = "inactive"
)

// Reason says why a certificate is inactive.
type Reason string

const (
	Expired     Reason = "expired"
	Replaced    Reason = "replaced"     // by another one
	Revoked     Reason = "revoked"      // by its authority
	Disabled    Reason = "disabled"     // HTTPS was switched off
	NotServable Reason = "not servable" // the TLS stack cannot use it: Ed448
	Stored      Reason = "stored"       // imported without being switched to
)

// Entry is what is remembered of one certificate. Paths are relative to the
// TLS directory, with slashes, unless they lead out of it.
type Entry struct {
	Name      string    `json:"name"`
	SHA256    string    `json:"sha256"` // lower-case hexadecimal; entries are told apart by it
	SHA1      string    `json:"sha1"`   // as Windows shows it: upper-case hexadecimal
	Serial    string    `json:"serial"` // lower-case hexadecimal
	Subject   string    `json:"subject"`
	SANs      []string  `json:"sans"` // of all kinds, as san.Names.Texts writes them
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	KeyType   string    `json:"keyType"`
	Source    string    `json:"source"` // import, acme, est, scep, command or found

	File    string `json:"file,omitempty"`    // the chain; "" once it is removed
	KeyFile string `json:"keyFile,omitempty"` // its private key; "" once it is removed

	State       State      `json:"state"`
	Reason      Reason     `json:"reason,omitempty"`  // why inactive
	Detail      string     `json:"detail,omitempty"`  // the reason in a sentence, if there is more to say
	Revoked     string     `json:"revoked,omitempty"` // what its authority says of it, whatever its state; "" if nothing is known against it
	Added       time.Time  `json:"added"`
	Activated   *time.Time `json:"activated,omitempty"`   // the last time
	Deactivated *time.Time `json:"deactivated,omitempty"` // since when it is inactive
	Removed     *time.Time `json:"removed,omitempty"`     // when its files were removed
}

// Since is when the entry came into its state.
func (e *Entry) Since() time.Time {
	switch {
	case e.State == Active && e.Activated != nil:
		return *e.Activated
	case e.State == Inactive && e.Deactivated != nil:
		return *e.Deactivated
	}
	return e.Added
}

// Short is the beginning of the SHA-256 thumbprint, enough to tell the
// certificates of a node apart.
func (e *Entry) Short() string { return e.SHA256[:min(8, len(e.SHA256))] }

// Inventory is the certificates of a node, in the order in which they came.
// It belongs to whoever holds the lock of the TLS directory.
type Inventory struct {
	Format  int     `json:"format"`
	Entries []Entry `json:"certificates"`
}

const format = 1

func file(dir string) string { return filepath.Join(dir, "inventory.json") }

// Load reads the inventory of a TLS directory. There being none is an empty one.
func Load(dir string) (*Inventory, error) {
	data, err := os.ReadFile(file(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return &Inventory{Format: format}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the inventory: %w", err)
	}
	var inv Inventory
	if err := json.Unmarshal(data, &inv); err != nil {
		return nil, fmt.Errorf("%s is not the inventory that was written there: %w; put it back from a copy, or move it aside to begin a new one", file(dir), err)
	}
	if inv.Format > format {
		return nil, fmt.Errorf("%s has format %d; this version reads up to %d: use the newer version that wrote it", file(dir), inv.Format, format)
	}
	return &inv, nil
}

// Save writes the inventory.
func (inv *Inventory) Save(dir string) error {
	inv.Format = format
	data, err := json.MarshalIndent(inv, "", "  ")
	if err != nil {
		return err
	}
	if err := private.WriteFile(file(dir), append(data, '\n')); err != nil {
		return fmt.Errorf("writing the inventory: %w", err)
	}
	return nil
}

// Find returns the entry with this SHA-256, or nil. The pointer is good until
// the next Add.
func (inv *Inventory) Find(sha256 string) *Entry {
	for i := range inv.Entries {
		if inv.Entries[i].SHA256 == sha256 {
			return &inv.Entries[i]
		}
	}
	return nil
}

// Lookup returns the entries that a person may mean: by name, or by the
// beginning (8 digits or more) of either thumbprint, spaces and colons ignored.
func (inv *Inventory) Lookup(what string) (found []*Entry) {
	digits := strings.ToLower(strings.NewReplacer(" ", "", ":", "", "\u200e", "").Replace(what))
	for i := range inv.Entries {
		e := &inv.Entries[i]
		if e.Name == what || len(digits) >= 8 && (strings.HasPrefix(e.SHA256, digits) || strings.HasPrefix(strings.ToLower(e.SHA1), digits)) {
			found = append(found, e)
		}
	}
	return found
}

// Newest returns the one of Lookup's entries that a name for several means: the
// newest; nil if there is none.
func (inv *Inventory) Newest(what string) (newest *Entry) {
	for _, e := range inv.Lookup(what) {
		if newest == nil || e.NotBefore.After(newest.NotBefore) {
			newest = e
		}
	}
	return newest
}

// Current returns the active entry, or nil.
func (inv *Inventory) Current() *Entry {
	for i := range inv.Entries {
		if inv.Entries[i].State == Active {
			return &inv.Entries[i]
		}
	}
	return nil
}

// Add puts an entry in, inactive for this reason, or gives the one that is
// there for the same certificate the new files.
func (inv *Inventory) Add(e Entry, why Reason, now time.Time) *Entry {
	if old := inv.Find(e.SHA256); old != nil {
		old.Name, old.File, old.KeyFile, old.Source, old.Removed = e.Name, e.File, e.KeyFile, e.Source, nil
		if old.State == Inactive {
			old.Deactivated = &now // its files are kept from now on
			if old.Reason != Revoked {
				old.Reason, old.Detail = why, ""
			}
		}
		return old
	}
	e.Added, e.State, e.Reason, e.Deactivated = now, Inactive, why, &now
	inv.Entries = append(inv.Entries, e)
	return &inv.Entries[len(inv.Entries)-1]
}

// Activate makes an entry the active one; the one that was becomes inactive,
// because it was replaced.
func (inv *Inventory) Activate(sha256 string, now time.Time) error {
	next := inv.Find(sha256)
	if next == nil {
		return fmt.Errorf("no certificate with SHA-256 %s in the inventory", sha256)
	}
	if old := inv.Current(); old != nil && old != next {
		old.deactivate(Replaced, fmt.Sprintf("by %s (%s)", next.Name, next.Short()), now)
	}
	if next.State != Active {
		next.State, next.Reason, next.Detail, next.Activated, next.Deactivated = Active, "", "", &now, nil
	}
	return nil
}

// Deactivate makes the active entry inactive. There being none is no error.
func (inv *Inventory) Deactivate(why Reason, detail string, now time.Time) {
	if e := inv.Current(); e != nil {
		e.deactivate(why, detail, now)
	}
}

func (e *Entry) deactivate(why Reason, detail string, now time.Time) {
	e.State, e.Reason, e.Detail, e.Deactivated = Inactive, why, detail, &now
}

// Expire makes the active entry inactive if its time is over at now, from the
// moment it ended, and reports whether it did.
func (inv *Inventory) Expire(now time.Time) bool {
	e := inv.Current()
	if e == nil || !now.After(e.NotAfter) {
		return false
	}
	e.deactivate(Expired, "", e.NotAfter)
	return true
}

// Revoke notes that the authority revoked a certificate. One that is active
// stays so: what follows is for others to decide.
func (inv *Inventory) Revoke(sha256, words string) {
	if e := inv.Find(sha256); e != nil {
		e.Revoked = words
		if e.State == Inactive {
			e.Reason, e.Detail = Revoked, words
		}
	}
}

// Previous returns the entry to go back to: the one that was active last before
// the one with this SHA-256, still has its files, is valid at now and was not
// revoked.
func (inv *Inventory) Previous(sha256 string, now time.Time) *Entry {
	var best *Entry
	for i := range inv.Entries {
		e := &inv.Entries[i]
		if e.State == Active || e.SHA256 == sha256 || !e.usable(now) || e.Activated == nil {
			continue
		}
		if best == nil || e.Activated.After(*best.Activated) {
			best = e
		}
	}
	return best
}

func (e *Entry) usable(now time.Time) bool {
	return e.File != "" && e.KeyFile != "" && e.Revoked == "" && e.Reason != NotServable && !now.Before(e.NotBefore) && !now.After(e.NotAfter)
}

// Due returns the entries whose files are to be removed at now: inactive for
// more than RetentionMonths. keep is the chain file that is in use, which stays
// whatever the inventory says of it.
func (inv *Inventory) Due(now time.Time, keep string) (due []*Entry) {
	for i := range inv.Entries {
		e := &inv.Entries[i]
		if e.State == Inactive && e.Removed == nil && e.File != "" && e.File != keep && e.Deactivated != nil && e.Deactivated.AddDate(0, RetentionMonths, 0).Before(now) {
			due = append(due, e)
		}
	}
	return due
}

// FileShared reports whether another entry that still has its files lies in the
// file of e: one was put in the place of the other by hand.
func (inv *Inventory) FileShared(e *Entry) bool {
	return slices.ContainsFunc(inv.Entries, func(o Entry) bool { return o.SHA256 != e.SHA256 && o.File == e.File })
}

// KeyShared reports whether another entry that still has its files, or
// inUse, needs the key file of e.
func (inv *Inventory) KeyShared(e *Entry, inUse string) bool {
	return e.KeyFile == inUse || slices.ContainsFunc(inv.Entries, func(o Entry) bool {
		return o.SHA256 != e.SHA256 && o.KeyFile == e.KeyFile && o.File != ""
	})
}
