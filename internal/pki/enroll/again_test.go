package enroll

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/internal/pki/enroll/acme"
	"larder/internal/pki/inventory"
	"larder/internal/pki/tlsdir"
)

// An authority that leaves a name out: what it gives is put in use, and is not
// asked for again every few seconds.
func TestIssuedAndDueAgainIsAFailure(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.settings(t, func(s *Settings) { s.Request.SANDNS = append(s.Request.SANDNS, "other.example") })
	ext := filepath.Join(filepath.Dir(l.script), "ext")
	if err := os.WriteFile(ext, []byte("subjectAltName=DNS:cache.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.sign(t, "exec openssl x509 -req -CA %[1]s/ca.pem -CAkey %[1]s/ca.key -extfile %[1]s/ext -days 9")
	for n := 1; n <= 2; n++ {
		if _, err := l.Attempt(t.Context()); err == nil || !strings.Contains(err.Error(), "due again at once") || !strings.Contains(err.Error(), "lacks names") {
			t.Fatalf("got %v, want that it is due again", err)
		}
		s := l.state(t)
		if p := l.plan(t, time.Now()); s.Failures != n || !p.At.After(time.Now().Add(30*time.Second)) {
			t.Errorf("after %d: %+v, planned %+v", n, s, p)
		}
	}
	if _, e, _, err := l.Dir.Standing(); err != nil || e == nil || e.State != inventory.Active {
		t.Errorf("in use: %+v, %v", e, err)
	}
}

// A certificate that could not be put in use is not ordered a second time.
func TestIssuedIsKeptForTheNextAttempt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	first := l.mustAttempt(t)
	l.sign(t, "echo >> %[1]s/asked; exec openssl x509 -req -CA %[1]s/ca.pem -CAkey %[1]s/ca.key -copy_extensions copyall -days 9")
	// A node that runs without a listener for HTTPS: the switch cannot be proved.
	serving, err := l.Dir.Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := serving.Say(tlsdir.Where{HTTPS: []string{}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := l.Attempt(t.Context()); err == nil || !strings.Contains(err.Error(), "listen.https") {
			t.Fatalf("got %v, want a word on listen.https", err)
		}
	}
	s := l.state(t)
	if s.Ready == "" || s.Failures != 2 {
		t.Errorf("state: %+v, want what was issued", s)
	}
	if _, e, _, err := l.Dir.Standing(); err != nil || e.SHA256 != first.Entry.SHA256 {
		t.Errorf("in use: %+v, %v; want the first", e, err)
	}
	if err := serving.Close(); err != nil {
		t.Fatal(err)
	}
	done := l.mustAttempt(t)
	if done.Entry.SHA256 != s.Ready {
		t.Errorf("in use: %s, want what was issued, %s", done.Entry.SHA256, s.Ready)
	}
	if asked, err := os.ReadFile(filepath.Join(filepath.Dir(l.script), "asked")); err != nil || string(asked) != "\n" {
		t.Errorf("the authority was asked %d times, %v; want once", len(asked), err)
	}
	if s := l.state(t); s.Ready != "" || s.Failures != 0 {
		t.Errorf("state: %+v", s)
	}
}

func TestRevokedCertificateGetsAnotherKey(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.settings(t, func(s *Settings) { s.Key = KeyKeep })
	first := l.mustAttempt(t)
	if err := l.Dir.NoteRevoked(t.Context(), first.Entry.SHA256, "revoked (key compromise)"); err != nil {
		t.Fatal(err)
	}
	if p := l.plan(t, time.Now()); p.At.After(time.Now()) || p.Why != "the certificate was revoked" {
		t.Errorf("plan: %+v, want now", p)
	}
	if second := l.mustAttempt(t); second.Entry.KeyFile == first.Entry.KeyFile {
		t.Errorf("the same key: %+v", second.Entry)
	}
	if p := l.plan(t, time.Now()); !p.At.After(time.Now()) {
		t.Errorf("plan after that: %+v", p)
	}
}

// Names that clients do not use are not ordered at all.
func TestUselessNamesAreNotOrdered(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Standards.ClientNames = []string{"updates.example", "10.0.0.5"}
	l.sign(t, "echo >> %[1]s/asked; exit 1")
	if _, err := l.Attempt(t.Context()); err == nil || !strings.Contains(err.Error(), "updates.example") || !l.state(t).Refused {
		t.Errorf("got %v, want a refusal that names what clients use", err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(l.script), "asked")); !os.IsNotExist(err) {
		t.Errorf("the authority was asked: %v", err)
	}
	s, err := Load(l.Dir.Path())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Check(s); err == nil {
		t.Error("Check finds nothing")
	}
	l.Standards.ClientNames = append(l.Standards.ClientNames, "cache.example")
	if _, err := l.Check(s); err != nil {
		t.Errorf("with one of them: %v", err)
	}
}

func TestOtherSettingsBeginAnotherStory(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	good := "exec openssl x509 -req -CA %[1]s/ca.pem -CAkey %[1]s/ca.key -copy_extensions copyall -days 9"
	l.sign(t, "exit 1")
	for range 3 {
		if _, err := l.Attempt(t.Context()); err == nil {
			t.Fatal("no error")
		}
	}
	if p := l.plan(t, time.Now()); !p.At.After(time.Now()) {
		t.Errorf("plan: %+v", p)
	}
	l.settings(t, func(s *Settings) {
		s.Request.CommonName = "changed.example"
		s.Request.SANDNS = append(s.Request.SANDNS, "changed.example")
	})
	if p := l.plan(t, time.Now()); p.At.After(time.Now()) || p.Why != "the settings are new" {
		t.Errorf("with other settings: %+v, want now", p)
	}
	l.sign(t, "exit 1")
	if _, err := l.Attempt(t.Context()); err == nil || l.state(t).Failures != 1 {
		t.Errorf("failures: %+v, %v; want them counted anew", l.state(t), err)
	}
	l.sign(t, good)
	l.mustAttempt(t)
}

// decide, as a table: what the clock, the authority and people do.
func TestDecide(t *testing.T) {
	t.Parallel()
	now := day0.AddDate(0, 0, 100)
	leaf := &x509.Certificate{NotBefore: now.AddDate(0, 0, -30), NotAfter: now.AddDate(0, 0, 60), DNSNames: []string{"cache.example"}}
	settings := &Settings{Command: &Command{Run: "x"}, Request: words()}
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	const day = 24 * time.Hour
	base := func() input {
		return input{settings: settings, seed: "s", chain: []*x509.Certificate{leaf}, entry: &inventory.Entry{SHA256: "aa", Activated: ago(30 * day)},
			state: State{LastAttempt: now.Add(-30 * day), LastSuccess: now.Add(-29 * day), For: "aa"}}
	}
	tests := []struct {
		name        string
		change      func(*input)
		least, most time.Duration // from now
		why         string
	}{
		{"in the middle of its life", func(*input) {}, 26 * day, 30 * day, "two thirds"},
		{"expired", func(in *input) { in.chain = []*x509.Certificate{{NotAfter: now.Add(-day), DNSNames: leaf.DNSNames}} }, 0, 0, "expired"},
		{"none yet", func(in *input) { in.chain, in.entry = nil, nil }, 0, 0, "no certificate yet"},
		{"revoked", func(in *input) { in.entry.Revoked = "x" }, 0, 0, "revoked"},
		{"served in the place of one that was", func(in *input) { in.fellBack = true }, 0, 0, "revoked"},
		{"a name is missing", func(in *input) { in.chain = []*x509.Certificate{{NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}} }, 0, 0, "lacks names"},
		{"failed a moment ago", func(in *input) {
			in.state.Failures, in.state.LastAttempt, in.state.NextAttempt, in.state.Why = 1, now, now.Add(time.Minute), "after a failure"
		}, time.Minute, time.Minute, "after a failure"},
		{"failed while the clock was years ahead", func(in *input) {
			in.state.Failures, in.state.LastAttempt, in.state.NextAttempt = 1, now.AddDate(5, 0, 0), now.AddDate(5, 0, 1)
		}, 0, 0, "clock"},
		{"told to come again next year", func(in *input) {
			in.state.Failures, in.state.LastAttempt, in.state.NextAttempt = 1, now, now.AddDate(1, 0, 0)
		}, day, day, ""},
		{"failed, and the settings are others now", func(in *input) {
			in.changed, in.state.Failures, in.state.LastAttempt, in.state.NextAttempt = true, 3, now, now.Add(time.Hour)
		}, 0, 0, "settings"},
		{"a window of the authority", func(in *input) {
			in.state.RenewFrom, in.state.RenewTo = now.Add(10*day), now.Add(12*day)
		}, 10 * day, 12 * day, "authority suggests"},
		{"a window in the past", func(in *input) {
			in.state.RenewFrom, in.state.RenewTo = now.Add(-2*day), now.Add(-day)
		}, -2 * day, -day, "authority suggests"},
		{"a window after its end", func(in *input) {
			in.state.RenewFrom, in.state.RenewTo = now.AddDate(1, 0, 0), now.AddDate(1, 0, 1)
		}, 51 * day, 51 * day, "authority suggests"},
		{"a window that is none", func(in *input) {
			in.state.RenewFrom, in.state.RenewTo = now.Add(2*day), now.Add(day)
		}, 26 * day, 30 * day, "two thirds"},
		{"of another certificate", func(in *input) {
			in.state.For, in.state.RenewFrom, in.state.RenewTo = "bb", now, now.Add(day)
		}, 26 * day, 30 * day, "two thirds"},
		{"gone back to although it was due", func(in *input) {
			in.chain = []*x509.Certificate{{NotBefore: now.AddDate(0, 0, -70), NotAfter: now.AddDate(0, 0, 20), DNSNames: leaf.DNSNames}}
			in.entry.Activated, in.state.LastSuccess = ago(time.Minute), now.Add(-time.Hour)
		}, 5 * day, 5 * day, "by hand"},
		{"imported by hand in its youth", func(in *input) { in.entry.Activated = ago(time.Minute) }, 26 * day, 30 * day, "two thirds"},
	}
	for _, tt := range tests {
		in := base()
		tt.change(&in)
		p := decide(now, in)
		if got := p.At.Sub(now); got < tt.least || got > tt.most || !strings.Contains(p.Why, tt.why) || p.Off != "" {
			t.Errorf("%s: in %s (%s), want %s to %s (%s)", tt.name, got, p.Why, tt.least, tt.most, tt.why)
		}
	}
}

func TestRemoveTakesSecretsAlong(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	dir := l.Dir.Path()
	mine, theirs := filepath.Join(dir, "credentials", "scep-challenge"), filepath.Join(t.TempDir(), "challenge")
	for _, file := range []string{mine, theirs} {
		if err := os.WriteFile(file, []byte("hunter2"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for file, name := range map[string]string{mine: "credentials/scep-challenge", theirs: theirs} {
		s := &Settings{SCEP: &SCEP{URL: "http://ca.example/scep", ChallengeFile: name}, Request: words()}
		if err := s.Save(dir); err != nil {
			t.Fatal(err)
		}
		if err := Remove(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); (err == nil) != (file == theirs) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if l.Automatic() {
		t.Error("still automatic")
	}
}

func TestEd448IsNotAskedForWithoutHands(t *testing.T) {
	t.Parallel()
	w := words()
	w.Algorithm, w.KeySizeOrCurve = "ED448", ""
	s := &Settings{Command: &Command{Run: "x"}, Request: w}
	if err := s.Check(); err == nil || !strings.Contains(err.Error(), "ED448") {
		t.Errorf("got %v, want a word on ED448", err)
	}
}

func TestCheckFindsWhatNobodyNeedsToBeAskedFor(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Solvers = map[string]acme.Solver{acme.HTTP01: new(acme.Memory)}
	if _, err := l.Check(&Settings{ACME: &ACME{Directory: "http://ca.example/dir"}, Request: words()}); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("plain http: %v", err)
	}
	warnings, err := l.Check(&Settings{SCEP: &SCEP{URL: "http://ca.example/scep"}, Request: words()})
	if err != nil || len(warnings) == 0 || !strings.Contains(strings.Join(warnings, " "), "ingerprint") {
		t.Errorf("SCEP without a fingerprint: %q, %v; want a warning", warnings, err)
	}
}
