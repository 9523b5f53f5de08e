package tlsdir

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"larder/internal/pki/csr"
	"larder/internal/pki/inventory"
	"larder/internal/pki/keys"
	"larder/internal/pki/livecert"
)

// automatic is a candidate that was got without hands.
func (l *lab) automatic(t *testing.T) Candidate {
	t.Helper()
	p := l.ca.Leaf(t, "cache.example")
	key, err := keys.ParsePEM(p.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return Candidate{Name: "auto", Chain: []*certificate{p.Cert}, Key: key, Source: "command"}
}

func TestAuditThatCannotBeWrittenTakesNothingBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.mustImport(t, "first")
	audit := filepath.Join(l.path, filepath.FromSlash(inventory.AuditFile))
	if err := os.Remove(audit); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(audit, 0o700); err != nil {
		t.Fatal(err)
	}
	done, err := l.Import(t.Context(), l.drop(t, "second.pem", l.ca.Leaf(t, "cache.example")), l.options())
	if err != nil || !done.Active || !strings.Contains(done.Note, "the audit file was not written") {
		t.Fatalf("%+v, %v", done, err)
	}
	if s, err := livecert.Check(l.path); err != nil || s.SHA256 != done.Entry.SHA256 {
		t.Errorf("in use: %+v, %v", s, err)
	}
	if _, wasOn, err := l.Disable(t.Context()); err != nil || !wasOn {
		t.Errorf("disable: %v, %v", wasOn, err)
	}
}

func TestWhatIsGotWithoutHandsDoesNotSwitchOnWhatSomebodySwitchedOff(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.run(t)
	l.mustImport(t, "first")
	if _, _, err := l.Disable(t.Context()); err != nil {
		t.Fatal(err)
	}
	done, err := l.Install(t.Context(), l.automatic(t), true)
	if err != nil || done.Active || !strings.Contains(done.Note, "larder tls enable") || r.addr() != "" {
		t.Fatalf("%+v, %v; open at %q", done, err, r.addr())
	}
	on, err := l.Enable(t.Context(), "")
	if err != nil || on.Entry.SHA256 != done.Entry.SHA256 || !on.Proved {
		t.Errorf("switched on with %+v, %v; want the newest", on, err)
	}
	// What an administrator imports does switch it on.
	if _, _, err := l.Disable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if done := l.mustImport(t, "second"); !done.Active || !done.Proved {
		t.Errorf("import: %+v", done.Installed)
	}
}

func TestSwitchedOffBeforeThereIsACertificate(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if _, wasOn, err := l.Disable(t.Context()); err != nil || wasOn {
		t.Fatal(wasOn, err)
	}
	if done, err := l.Install(t.Context(), l.automatic(t), true); err != nil || done.Active {
		t.Errorf("%+v, %v", done, err)
	}
	if on, err := l.Enable(t.Context(), ""); err != nil || !on.Active {
		t.Errorf("%+v, %v", on, err)
	}
	fresh := newLab(t)
	if _, _, err := fresh.Disable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Enable(t.Context(), ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("with nothing to serve: %v", err)
	}
	if done, err := fresh.Install(t.Context(), fresh.automatic(t), true); err != nil || !done.Active {
		t.Errorf("after enable: %+v, %v; want it in use", done, err)
	}
}

func TestRevokedGoesBackToAnEarlierOne(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	first, second, third := l.mustImport(t, "first"), l.mustImport(t, "second"), l.mustImport(t, "third")
	_, earlier, err := l.Earlier(third.Entry.SHA256)
	if err != nil || earlier != second.Entry.SHA256 {
		t.Fatalf("earlier: %s, %v; want the second", earlier, err)
	}
	if err := l.NoteRevoked(t.Context(), earlier, "revoked on Sunday"); err != nil {
		t.Fatal(err)
	}
	if _, earlier, err = l.Earlier(third.Entry.SHA256); err != nil || earlier != first.Entry.SHA256 {
		t.Fatalf("with that revoked: %s, %v; want the first", earlier, err)
	}
	for _, to := range []string{second.Entry.SHA256, strings.Repeat("0", 64)} {
		if _, err := l.FallBack(t.Context(), third.Entry.SHA256, to, "x"); !errors.Is(err, ErrConflict) {
			t.Errorf("to %s: %v, want a conflict", to, err)
		}
	}
	if _, err := l.FallBack(t.Context(), second.Entry.SHA256, first.Entry.SHA256, "x"); !errors.Is(err, ErrConflict) {
		t.Errorf("from one that is not in use: %v", err)
	}
	done, err := l.FallBack(t.Context(), third.Entry.SHA256, first.Entry.SHA256, "revoked on Monday")
	if err != nil || done.Entry.SHA256 != first.Entry.SHA256 {
		t.Fatalf("%+v, %v; want the first", done, err)
	}
	inv, err := l.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sha := range []string{second.Entry.SHA256, third.Entry.SHA256} {
		if e := inv.Find(sha); e.Reason != inventory.Revoked || e.Revoked == "" {
			t.Errorf("%s: %+v, want revoked", e.Name, e)
		}
	}
	if _, err := l.Enable(t.Context(), "third"); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "revoked on Monday") {
		t.Errorf("enabled a revoked one: %v", err)
	}
	if _, err := l.Rollback(t.Context()); !errors.Is(err, ErrConflict) {
		t.Errorf("rolled back to a revoked one: %v", err)
	}
	if done, wasOn, err := l.Revoked(t.Context(), third.Entry.SHA256, "x"); err != nil || wasOn {
		t.Errorf("switched off for another certificate: %+v, %v, %v", done, wasOn, err)
	}
	if _, wasOn, err := l.Revoked(t.Context(), first.Entry.SHA256, "revoked on Tuesday"); err != nil || !wasOn {
		t.Errorf("not switched off: %v, %v", wasOn, err)
	}
	// Revoked is not switched off: a new one may switch it on.
	if done, err := l.Install(t.Context(), l.automatic(t), true); err != nil || !done.Active {
		t.Errorf("after a revocation: %+v, %v", done, err)
	}
}

// A kill between the inventory and active.yaml: what was revoked stays so.
func TestRevokedStaysRevokedAfterAKill(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	done := l.mustImport(t, "first")
	if _, _, err := l.Revoked(t.Context(), done.Entry.SHA256, "revoked on Monday"); err != nil {
		t.Fatal(err)
	}
	// As if active.yaml had not been written yet.
	if err := livecert.WriteActive(l.path, livecert.Active{Certificate: done.Entry.File, Key: done.Entry.KeyFile}); err != nil {
		t.Fatal(err)
	}
	inv, err := l.Inventory(t.Context())
	if err != nil || inv.Find(done.Entry.SHA256).Revoked == "" || inv.Current() != nil {
		t.Errorf("%+v, %v", inv, err)
	}
}

func TestFileThatHoldsAnotherCertificateNow(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	first, second := l.mustImport(t, "first"), l.mustImport(t, "second")
	text, err := os.ReadFile(filepath.Join(l.path, second.Entry.File))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.path, first.Entry.File), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Rollback(t.Context()); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), second.Entry.Short()) {
		t.Errorf("got %v, want a conflict that names what is there", err)
	}
}

func TestRollbackWhileOffGoesToAnEarlierOne(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	first := l.mustImport(t, "first")
	l.mustImport(t, "second")
	if _, _, err := l.Disable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if done, err := l.Rollback(t.Context()); err != nil || done.Entry.SHA256 != first.Entry.SHA256 {
		t.Errorf("%+v, %v; want the first", done, err)
	}
}

func TestSwitchedOffForEighteenMonthsIsRemoved(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	done := l.mustImport(t, "first")
	if _, _, err := l.Disable(t.Context()); err != nil {
		t.Fatal(err)
	}
	removed, err := l.Retain(t.Context(), time.Now().AddDate(0, 18, 1), false)
	if err != nil || len(removed) != 1 || removed[0].SHA256 != done.Entry.SHA256 {
		t.Fatalf("%+v, %v", removed, err)
	}
	if _, err := l.Inventory(t.Context()); err != nil {
		t.Error(err)
	}
	if a, err := livecert.ReadActive(l.path); err != nil || !a.Disabled || a.Certificate != "" {
		t.Errorf("active.yaml: %+v, %v; want switched off and naming nothing", a, err)
	}
}

// A key that waits for its answer goes when that comes; what an administrator
// imports for it gets a file of its own.
func TestImportForAWaitingKey(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := csr.Request{Algorithm: keys.EC, CommonName: "cache.example", Names: ecRequest().Names}
	key, err := r.Key()
	if err != nil {
		t.Fatal(err)
	}
	waiting := filepath.Join(l.path, "keys", "auto"+PendingSuffix)
	if err := l.writeKey(waiting, key); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "auto.csr")
	if err := l.writeRequest(file, ecRequest(), key); err != nil {
		t.Fatal(err)
	}
	cert := filepath.Join(t.TempDir(), "auto.crt")
	sign(t, l, file, cert)
	done, err := l.Import(t.Context(), cert, l.options())
	if err != nil || done.Entry.KeyFile == "keys/auto"+PendingSuffix {
		t.Fatalf("%+v, %v; want a key file of its own", done, err)
	}
	if err := os.Remove(waiting); err != nil {
		t.Fatal(err)
	}
	if s, err := livecert.Check(l.path); err != nil || s.SHA256 != done.Entry.SHA256 {
		t.Errorf("in use: %+v, %v", s, err)
	}
	if err := CheckName("--csr-name", "auto-pending"); err == nil {
		t.Error("a request may be called so")
	}
}

func TestLeafAloneFindsTheIntermediateFromBefore(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	mid := l.ca.Intermediate(t)
	p := mid.Leaf(t, "cache.example")
	whole := filepath.Join(t.TempDir(), "whole.pem")
	if err := os.WriteFile(whole, append(append(append([]byte{}, p.CertPEM...), mid.PEM...), p.KeyPEM...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Import(t.Context(), whole, l.options()); err != nil {
		t.Fatal(err)
	}
	done, err := l.Import(t.Context(), l.drop(t, "alone.pem", mid.Leaf(t, "cache.example")), ImportOptions{})
	if err != nil || len(l.chainOf(t)) != 2 || len(done.Unused) != 0 {
		t.Errorf("%+v, %v; %d certificates", done, err, len(l.chainOf(t)))
	}
}

// Root works in a directory that belongs to an account with fewer rights.
func TestLinksLeadNobodyOut(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("links need a right of their own there")
	}
	l := newLab(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	untouched := func(what string) {
		t.Helper()
		if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
			t.Errorf("%s: the file outside is %q, %v", what, text, err)
		}
	}
	done := l.mustImport(t, "first")
	// The inventory names a file outside.
	inv, err := inventory.Load(l.path)
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().AddDate(-3, 0, 0)
	outside := *inv.Find(done.Entry.SHA256)
	rel, err := filepath.Rel(l.path, victim)
	if err != nil {
		t.Fatal(err)
	}
	outside.SHA256, outside.State, outside.Reason, outside.Deactivated, outside.File, outside.KeyFile = strings.Repeat("0", 64), inventory.Inactive, inventory.Replaced, &long, filepath.ToSlash(rel), ""
	inv.Entries = append(inv.Entries, outside)
	if err := inv.Save(l.path); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Retain(t.Context(), time.Now(), false); err != nil {
		t.Fatal(err)
	}
	untouched("retention")
	// A lock, the audit file and a chain are links.
	for _, name := range []string{servingLock, filepath.FromSlash(inventory.AuditFile)} {
		file := filepath.Join(l.path, name)
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, file); err != nil {
			t.Fatal(err)
		}
	}
	_, _, _ = l.Running()
	untouched("asking for a node")
	if s, err := l.Serve(t.Context()); err == nil {
		t.Error("a lock was taken through a link")
		_ = s.Close()
	}
	if err := os.Remove(filepath.Join(l.path, servingLock)); err != nil {
		t.Fatal(err)
	}
	l.mustImport(t, "second")
	untouched("the audit file")
	c := l.automatic(t)
	e := entry(c.Chain[0])
	if err := os.Symlink(victim, filepath.Join(l.path, "certs", c.Name+"-"+e.Short()+".pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Install(t.Context(), c, true); err == nil || !strings.Contains(err.Error(), "no file") {
		t.Errorf("a chain that is a link: %v", err)
	}
	untouched("a chain")
}

func TestWhoOnlyLooksMakesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tls")
	if _, err := Look(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("it was made: %v", err)
	}
	l := newLab(t)
	l.mustImport(t, "first")
	before := l.files(t)
	d, err := Look(l.path)
	if err != nil {
		t.Fatal(err)
	}
	if inv, err := d.Inventory(t.Context()); err != nil || inv.Current() == nil {
		t.Errorf("%+v, %v", inv, err)
	}
	if diff := cmp.Diff(before, l.files(t)); diff != "" {
		t.Errorf("changed (-before +after):\n%s", diff)
	}
}

func TestStaleWordOfANodeIsNotBelieved(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s, err := l.Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Say(Where{Admin: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	if err := s.lock.Unlock(); err != nil { // killed
		t.Fatal(err)
	}
	next, err := l.Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = next.Close() }()
	if w, running, err := l.Running(); err != nil || !running || w.Admin != "" {
		t.Errorf("the next one: %+v, %v, %v; want nothing of the old one", w, running, err)
	}
}
