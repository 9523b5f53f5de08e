// Package tlsdir is the TLS directory of a node: its requests, keys and certificates, which of them is in use, and every change that is made to that.
package tlsdir

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"larder/internal/pki/inventory"
	"larder/internal/pki/keys"
	"larder/internal/pki/livecert"
	"larder/internal/pki/problem"
	"larder/internal/sys/disk"
	"larder/internal/sys/private"
)

// Dir is a TLS directory. Several processes may have one open, an
// administrator's command beside the node: each change is made under the
// directory's lock, and each leaves the directory whole.
type Dir struct {
	path     string
	by       string        // who makes changes, for the audit file
	patience time.Duration // for the node to show a change

	// Follow is called after each switch, by a node that would otherwise see
	// it a moment later. It must be set before the first use.
	Follow func()
}

// subdirs are what a TLS directory consists of besides its files:
//
//	certs/        requests (NAME.csr), what an administrator drops, and installed chains (NAME-xxxxxxxx.pem)
//	keys/         private keys, 0600
//	credentials/  what proves us to an authority, 0600
//	logs/         a log for each request and import, and audit.jsonl
var subdirs = []string{"certs", "keys", "credentials", "logs"}

// Open makes what is missing of the TLS directory at path. by is who will be
// named in the audit file; "" is the account of this process.
func Open(path, by string) (*Dir, error) {
	if by == "" {
		by = account()
	}
	for _, sub := range append([]string{"."}, subdirs...) {
		if err := private.MkdirAll(filepath.Join(path, sub)); err != nil {
			return nil, dirProblem(path, err)
		}
	}
	d := &Dir{path: path, by: by, patience: proofWait}
	if _, err := os.Stat(d.file(lockFile)); errors.Is(err, fs.ErrNotExist) {
		// So that it belongs to the directory's account, whoever comes first.
		if err := private.WriteFile(d.file(lockFile), nil); err != nil {
			return nil, dirProblem(path, err)
		}
	}
	return d, nil
}

// Look opens the TLS directory at path for asking, and makes nothing: whoever
// only looks need not be allowed to write. That there is none is fs.ErrNotExist.
func Look(path string) (*Dir, error) {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		err = errors.New("not a directory")
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, &problem.Problem{Field: "tls directory (" + path + ")", Found: "a place that this account may not look into", Expected: "the rights of the node's account", Err: err,
			Next: "run the command as the node's account or as an administrator"}
	}
	if err != nil {
		return nil, &problem.Problem{Field: "tls directory (" + path + ")", Found: "none", Expected: "the directory of a node's certificates", Err: err,
			Next: "name another place with --dir or --config; larder tls csr makes one"}
	}
	return At(path), nil
}

// At is the TLS directory at path, whether it is there or not: for asking what
// one that may not exist yet holds.
func At(path string) *Dir { return &Dir{path: path, by: account(), patience: proofWait} }

func dirProblem(path string, err error) error {
	p := &problem.Problem{Field: "tls directory (" + path + ")", Found: "a place where nothing can be made", Expected: "a directory that this account may write to", Err: err}
	switch {
	case errors.Is(err, fs.ErrPermission):
		p.Next = "run the command as the node's account or as an administrator, or name another place with --dir or --config"
	default:
		p.Next = "name another place with --dir or --config"
	}
	return p
}

func account() string {
	u, err := user.Current()
	if err != nil {
		return "unknown"
	}
	if sudo := os.Getenv("SUDO_USER"); sudo != "" && sudo != u.Username {
		return u.Username + " (sudo by " + sudo + ")"
	}
	return u.Username
}

// Path returns where the directory is.
func (d *Dir) Path() string { return d.path }

func (d *Dir) file(parts ...string) string {
	return filepath.Join(append([]string{d.path}, parts...)...)
}

const lockFile = ".lock"

// lockWait is how long a change waits for another process's to be over: an
// import proves itself for up to half a minute.
const lockWait = 45 * time.Second

// lock keeps other processes from changing the directory until it is unlocked.
func (d *Dir) lock(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		held, err := disk.Lock(d.file(lockFile))
		if err == nil {
			return func() { _ = held.Unlock() }, nil // the process's end would unlock it, too
		}
		if !errors.Is(err, disk.ErrLocked) {
			return nil, dirProblem(d.path, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: another process is changing %s: %w", ErrConflict, d.path, err)
		}
	}
}

// ErrNotFound is the cause when what was asked for is not there, ErrConflict
// when the state of things does not allow what was asked for.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("conflict")
)

// state is one reading of what is active, to be written back after a change or
// restored after a failure.
type state struct {
	active    livecert.Active
	hasActive bool
	activeRaw []byte
	inv       *inventory.Inventory
}

// read looks at active.yaml and the inventory and lets the inventory learn what
// it missed: a certificate put in place by hand, one that expired, a change
// that a kill interrupted. It reports what it noticed as events.
func (d *Dir) read(now time.Time) (*state, []inventory.Event, error) {
	s := &state{}
	var err error
	if s.inv, err = inventory.Load(d.path); err != nil {
		return nil, nil, err
	}
	if s.activeRaw, err = os.ReadFile(d.file("active.yaml")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("reading what is active: %w; run the command as the node's account or as an administrator", err)
	}
	s.active, err = livecert.ReadActive(d.path)
	s.hasActive = err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	return s, d.notice(s, now), nil
}

// notice brings the inventory of s up to date with active.yaml.
func (d *Dir) notice(s *state, now time.Time) (events []inventory.Event) {
	event := func(what string, e *inventory.Entry) {
		events = append(events, inventory.Event{Time: now, What: what, Name: e.Name, SHA256: e.SHA256, By: d.by, Detail: e.Detail})
	}
	if !s.hasActive || s.active.Disabled {
		if e := s.inv.Current(); e != nil {
			why, detail := inventory.Disabled, ""
			if e.Revoked != "" {
				why, detail = inventory.Revoked, e.Revoked
			}
			s.inv.Deactivate(why, detail, now)
			event(string(why), e)
		}
		return events
	}
	entry, err := d.entryOf(s.active)
	if err != nil {
		return nil // what cannot be read says nothing; the node says what is wrong with it
	}
	known := s.inv.Find(entry.SHA256)
	if known == nil {
		known = s.inv.Add(entry, inventory.Stored, now)
		event("found", known)
	}
	switch {
	case now.After(known.NotAfter):
		if s.inv.Expire(now) || known.Reason != inventory.Expired {
			known.State, known.Reason, known.Detail, known.Deactivated = inventory.Inactive, inventory.Expired, "", &known.NotAfter
			event("expired", known)
		}
	case known.State != inventory.Active && known.Reason != inventory.Revoked: // a kill may have come before it was switched off
		if s.inv.Activate(known.SHA256, now) == nil {
			event("activated", known)
		}
	}
	return events
}

// entryOf describes the pair that active.yaml names, for one that the inventory
// may not know.
func (d *Dir) entryOf(a livecert.Active) (inventory.Entry, error) {
	chain, err := readChain(livecert.Resolve(d.path, a.Certificate))
	if err != nil {
		return inventory.Entry{}, err
	}
	e := entry(chain[0])
	e.Name = strings.TrimSuffix(filepath.Base(a.Certificate), filepath.Ext(a.Certificate))
	e.Source, e.File, e.KeyFile = "found", a.Certificate, a.Key
	return e, nil
}

// PendingSuffix ends the names of files with the key of a request that waits
// for its answer. They go when it comes, so nothing else may rely on them.
const PendingSuffix = "-pending.key"

// keyFile is a private key of the directory.
type keyFile struct {
	name    string // relative
	pending bool   // of a request that an authority has not answered yet
	kind    string
	key     crypto.Signer
	err     error // why it cannot be used
}

// keyFiles reads the private keys of the directory.
func (d *Dir) keyFiles() ([]keyFile, error) {
	files, err := os.ReadDir(d.file("keys")) // in the order of their names
	if err != nil {
		return nil, dirProblem(d.path, err)
	}
	var found []keyFile
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".key" {
			continue
		}
		k := keyFile{name: "keys/" + f.Name(), pending: strings.HasSuffix(f.Name(), PendingSuffix)}
		data, err := os.ReadFile(d.file("keys", f.Name()))
		if err == nil {
			k.key, err = keys.ParsePEM(data)
		}
		if err == nil {
			k.kind = keys.Kind(k.key.Public())
		}
		k.err = err
		found = append(found, k)
	}
	return found, nil
}
