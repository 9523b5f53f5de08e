package tlsdir

import (
	"context"
	"crypto"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"larder/internal/pki/bundle"
	"larder/internal/pki/inventory"
	"larder/internal/pki/keys"
	"larder/internal/pki/livecert"
	"larder/internal/pki/problem"
	"larder/internal/pki/san"
	"larder/internal/sys/private"
)

// A Candidate is a chain with its key that is to be installed. It has been
// vetted: the key is the leaf's.
type Candidate struct {
	Name    string // what it is called; becomes part of file names
	Chain   []*x509.Certificate
	Key     crypto.Signer
	KeyFile string // relative path of the key if the directory has it; "" writes Key
	Source  string // SourceImport, acme, est, scep or command
}

// Installed says what came of an installation or another switch.
type Installed struct {
	Entry    inventory.Entry  `json:"certificate"`
	Replaced *inventory.Entry `json:"replaced,omitempty"` // what was active before
	Active   bool             `json:"active"`             // it was switched to
	Proved   bool             `json:"proved"`             // a handshake with the running node showed it
	Note     string           `json:"note,omitempty"`     // why not, or what else there is to know
}

// ErrNotServable is why a certificate is stored without being switched to.
var ErrNotServable = errors.New("the TLS stack cannot serve with this kind of key")

// Install puts a candidate into the directory and, with activate, in use. If a
// node runs it must show the new chain in a real handshake; if it does not, all
// is put back as it was and the error says why. A key that TLS cannot serve with
// is stored, and the error is ErrNotServable if it was to be activated. What is
// got without hands while HTTPS is switched off is what it will be switched on
// with.
func (d *Dir) Install(ctx context.Context, c Candidate, activate bool) (*Installed, error) {
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
	e := entry(c.Chain[0])
	e.Name, e.Source, e.KeyFile = c.Name, c.Source, c.KeyFile
	e.File = "certs/" + c.Name + "-" + e.Short() + ".pem"
	if old := s.inv.Find(e.SHA256); old != nil && old.File != "" && filepath.IsLocal(filepath.FromSlash(old.File)) {
		e.Name, e.File = old.Name, old.File // the same once more
	}
	var undo undo
	defer func() { undo.all() }()
	if e.KeyFile == "" {
		e.KeyFile = "keys/" + c.Name + "-" + e.Short() + ".key"
		if err := undo.write(d.file(e.KeyFile), func(file string) error { return d.writeKey(file, c.Key) }); err != nil {
			return nil, err
		}
	}
	if err := undo.write(d.file(e.File), func(file string) error { return private.WriteFile(file, bundle.Encode(c.Chain)) }); err != nil {
		return nil, fmt.Errorf("writing the chain: %w", err)
	}
	events = append(events, inventory.Event{Time: now, What: "imported", Name: e.Name, SHA256: e.SHA256, By: d.by, Detail: e.Subject + " from " + e.Source})

	reason := inventory.Stored
	servable := keys.Servable(keys.PublicOf(c.Chain[0]))
	off := c.Source != SourceImport && s.disabled()
	switch {
	case !servable:
		reason = inventory.NotServable
	case off && activate:
		reason = inventory.Disabled
	}
	added := s.inv.Add(e, reason, now)
	if servable && activate && !off {
		done, err := d.switchTo(ctx, s, e.SHA256, c.Chain, "activated", events)
		if err == nil || errors.Is(err, errNotRestored) {
			undo.keep() // active.yaml may name them
		}
		return done, err
	}
	if err := s.inv.Save(d.path); err != nil {
		return nil, err
	}
	undo.keep()
	done := &Installed{Entry: *added}
	if off && activate && servable {
		done.Note = "HTTPS is switched off; larder tls enable switches it on with this certificate"
		if err := d.writeActive(livecert.Active{Certificate: e.File, Key: e.KeyFile, Disabled: true}); err != nil {
			return nil, err
		}
	}
	d.audit(done, events)
	if activate && !servable {
		return done, ErrNotServable
	}
	return done, nil
}

// SourceImport is the Candidate.Source of what an administrator brings.
const SourceImport = "import"

// disabled reports whether somebody switched HTTPS off, rather than that its
// certificate was revoked.
func (s *state) disabled() bool {
	if !s.hasActive || !s.active.Disabled {
		return false
	}
	for i := range s.inv.Entries {
		if e := &s.inv.Entries[i]; e.File == s.active.Certificate && e.Reason == inventory.Revoked {
			return false
		}
	}
	return true
}

// audit writes events down. That it could not is told, and takes nothing back:
// what they say has happened.
func (d *Dir) audit(done *Installed, events []inventory.Event) {
	if err := inventory.Audit(d.path, events...); err != nil {
		if done.Note != "" {
			done.Note += "; "
		}
		done.Note += "the audit file was not written: " + err.Error()
	}
}

// undo takes back the files that were written, unless they are kept.
type undo struct{ files []written }

type written struct {
	name string
	old  []byte // nil: there was none
}

// write lets f write a file and remembers what was there before.
func (u *undo) write(name string, f func(string) error) error {
	var old []byte
	switch info, err := os.Lstat(name); {
	case err == nil && !info.Mode().IsRegular():
		return &problem.Problem{Field: name, Found: "something that is no file", Expected: "nothing, or a file that may be replaced", Next: "move it out of the way"}
	case err == nil:
		if old, err = os.ReadFile(name); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	u.files = append(u.files, written{name, old})
	return f(name)
}

func (u *undo) keep() { u.files = nil }

func (u *undo) all() {
	for _, w := range u.files {
		if w.old == nil {
			_ = os.Remove(w.name) // it is named by nothing; what is left is litter, not harm
		} else {
			_ = private.WriteFile(w.name, w.old)
		}
	}
}

// errNotRestored says that a failed change left active.yaml behind it.
var errNotRestored = errors.New("the old state was NOT restored")

// switchTo makes an entry of s the active one, on disk and, if one runs, in the
// node. On an error everything is as it was before, unless that is
// errNotRestored. The lock is held.
func (d *Dir) switchTo(ctx context.Context, s *state, sha256 string, chain []*x509.Certificate, what string, events []inventory.Event) (*Installed, error) {
	now := time.Now()
	replaced := ""
	if old := s.inv.Current(); old != nil && old.SHA256 != sha256 {
		replaced = old.SHA256
	}
	if err := s.inv.Activate(sha256, now); err != nil {
		return nil, err
	}
	e := s.inv.Find(sha256)
	done := &Installed{Entry: *e, Active: true}
	if old := s.inv.Find(replaced); old != nil {
		copied := *old
		done.Replaced = &copied
	}
	if err := d.writeActive(livecert.Active{Certificate: e.File, Key: e.KeyFile}); err != nil {
		return nil, d.putBack(ctx, s, err)
	}
	switch err := d.Prove(ctx, chain); {
	case errors.Is(err, ErrNotRunning):
		done.Note = "no node runs with this directory; it will serve with the certificate when it starts"
	case err != nil:
		return nil, d.putBack(ctx, s, fmt.Errorf("the running node was not seen with the new certificate, so the old state was restored: %w", err))
	default:
		done.Proved = true
	}
	if err := s.inv.Save(d.path); err != nil {
		return nil, d.putBack(ctx, s, err)
	}
	d.audit(done, append(events, inventory.Event{Time: now, What: what, Name: e.Name, SHA256: e.SHA256, By: d.by}))
	return done, nil
}

// writeActive writes active.yaml.
func (d *Dir) writeActive(a livecert.Active) error {
	if err := livecert.WriteActive(d.path, a); err != nil {
		return err
	}
	if d.Follow != nil {
		d.Follow()
	}
	return nil
}

// putBack restores active.yaml and waits until the node is as before.
func (d *Dir) putBack(ctx context.Context, s *state, why error) error {
	if err := d.restore(s); err != nil {
		return errors.Join(why, fmt.Errorf("%w: %w", errNotRestored, err))
	}
	if s.hasActive && !s.active.Disabled && ctx.Err() == nil {
		if chain, err := readChain(livecert.Resolve(d.path, s.active.Certificate)); err == nil {
			// What the node says of the old one was true before; the new error is the news.
			_ = d.Prove(ctx, chain)
		}
	}
	return why
}

// restore writes active.yaml as s found it.
func (d *Dir) restore(s *state) error {
	if d.Follow != nil {
		defer d.Follow()
	}
	if s.activeRaw == nil {
		err := os.Remove(d.file("active.yaml"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return private.WriteFile(d.file("active.yaml"), s.activeRaw)
}

// readChain reads the certificates of an installed chain.
func readChain(file string) ([]*x509.Certificate, error) {
	b, err := bundle.ReadFile(file, bundle.Options{})
	if err != nil {
		return nil, err
	}
	if len(b.Certs) == 0 {
		return nil, &problem.Problem{Field: "certificate (" + file + ")", Found: "no certificate", Expected: "an installed chain", Next: "import it again"}
	}
	return b.Certs, nil
}

// entry describes a certificate. Where it lies is left to the caller.
func entry(c *x509.Certificate) inventory.Entry {
	sum256, sum1 := sha256.Sum256(c.Raw), sha1.Sum(c.Raw)
	e := inventory.Entry{
		SHA256: hex.EncodeToString(sum256[:]), SHA1: strings.ToUpper(hex.EncodeToString(sum1[:])), Serial: c.SerialNumber.Text(16),
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), NotBefore: c.NotBefore, NotAfter: c.NotAfter, KeyType: keys.Kind(keys.PublicOf(c)),
	}
	if e.KeyType == "" {
		e.KeyType = "unknown"
	}
	names, err := san.OfCertificate(c)
	if err != nil {
		e.SANs = []string{"unreadable: " + err.Error()}
	} else {
		e.SANs = names.Texts()
	}
	return e
}

// nameFrom makes a name of a file's: its base without extensions that say what
// it is, and without characters that not every system takes.
func nameFrom(path string) string {
	base := filepath.Base(path)
	for ext := filepath.Ext(base); ext != "" && strings.Contains(" .crt .cer .pem .der .p7b .p7c .p7s .pfx .p12 .cert .chain .txt ", " "+strings.ToLower(ext)+" "); ext = filepath.Ext(base) {
		base = strings.TrimSuffix(base, ext)
	}
	base = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '_'
	}, base)
	base = strings.Trim(base, "._-")
	if base == "" {
		return "certificate"
	}
	return base[:min(60, len(base))]
}
