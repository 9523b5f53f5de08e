package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"larder/internal/lardertest"
	"larder/internal/pki/inventory"
	"larder/internal/pki/keys"
	"larder/internal/pki/tlsdir"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A lab is a TLS directory whose certificates a script signs by way of OpenSSL.
type lab struct {
	*Renewer
	ca     *lardertest.CA
	script string // of the authority; tests change it
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the authority is a shell script")
	}
	dir := t.TempDir()
	d, err := tlsdir.Open(filepath.Join(dir, "tls"), "tester")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Renewer: &Renewer{Dir: d, Seed: "seed"}, ca: lardertest.NewCA(t), script: filepath.Join(dir, "sign")}
	for name, data := range map[string][]byte{"ca.pem": l.ca.PEM, "ca.key": l.ca.KeyPEM(t)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.sign(t, "exec openssl x509 -req -CA %[1]s/ca.pem -CAkey %[1]s/ca.key -copy_extensions copyall -days 9")
	l.settings(t, nil)
	return l
}

// sign makes text the authority's script; %[1]s in it is its directory.
func (l *lab) sign(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, "%") {
		text = fmt.Sprintf(text, filepath.Dir(l.script))
	}
	if err := os.WriteFile(l.script, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) settings(t *testing.T, change func(*Settings)) {
	t.Helper()
	s := &Settings{Command: &Command{Run: "/bin/sh " + l.script}, Request: words()}
	if change != nil {
		change(s)
	}
	if err := s.Save(l.Dir.Path()); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) mustAttempt(t *testing.T) *tlsdir.Installed {
	t.Helper()
	done, err := l.Attempt(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func (l *lab) state(t *testing.T) State {
	t.Helper()
	s, err := LoadState(l.Dir.Path())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (l *lab) plan(t *testing.T, now time.Time) Plan {
	t.Helper()
	p, _, err := l.Plan(now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestKeyIsRotatedOrKept(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	first, second := l.mustAttempt(t), l.mustAttempt(t)
	if !first.Active || !second.Active || first.Entry.KeyFile == second.Entry.KeyFile || second.Entry.Source != MethodCommand {
		t.Errorf("rotated: %+v, then %+v", first.Entry, second.Entry)
	}
	l.settings(t, func(s *Settings) { s.Key = KeyKeep })
	third := l.mustAttempt(t)
	if third.Entry.KeyFile != second.Entry.KeyFile || third.Entry.SHA256 == second.Entry.SHA256 {
		t.Errorf("kept: %+v after %+v", third.Entry, second.Entry)
	}
	// Another kind of key is asked for: the old one does not fit.
	l.settings(t, func(s *Settings) { s.Key, s.Request.Algorithm, s.Request.KeySizeOrCurve = KeyKeep, "RSA", "2048" })
	if fourth := l.mustAttempt(t); fourth.Entry.KeyType != "RSA 2048" || fourth.Entry.KeyFile == third.Entry.KeyFile {
		t.Errorf("another kind: %+v", fourth.Entry)
	}
}

func TestPlanFollowsTheLifeOfACertificate(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	now := time.Now()
	if p := l.plan(t, now); p.At.After(now) || p.Why != "the settings are new" {
		t.Errorf("at first: %+v", p)
	}
	done := l.mustAttempt(t)
	s := l.state(t)
	if s.Failures != 0 || s.LastError != "" || s.LastSuccess.IsZero() || s.Method != MethodCommand {
		t.Errorf("state: %+v", s)
	}
	p := l.plan(t, time.Now())
	life := done.Entry.NotAfter.Sub(done.Entry.NotBefore)
	if share := float64(p.At.Sub(done.Entry.NotBefore)) / float64(life); share < 0.63 || share > 0.67 || !p.At.Equal(s.NextAttempt) {
		t.Errorf("the next attempt is at %.2f of its life (%+v); the state says %s", share, p, s.NextAttempt)
	}
	if p := l.plan(t, done.Entry.NotAfter.Add(time.Hour)); p.Why != "it has expired" || p.At.After(done.Entry.NotAfter.Add(time.Hour)) {
		t.Errorf("after its end: %+v", p)
	}
	// Other names are wanted.
	l.settings(t, func(s *Settings) { s.Request.SANDNS = append(s.Request.SANDNS, "other.example") })
	if p := l.plan(t, time.Now()); p.At.After(time.Now()) {
		t.Errorf("with a new name: %+v, want now", p)
	}
	l.mustAttempt(t)
	if p := l.plan(t, time.Now()); !p.At.After(time.Now()) {
		t.Errorf("with all names: %+v, want later", p)
	}
	// Switched off by hand it stays off.
	if _, _, err := l.Dir.Disable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p := l.plan(t, time.Now().AddDate(1, 0, 0)); p.Off == "" {
		t.Errorf("switched off: %+v, want no attempt", p)
	}
	// Revoked, it is replaced at once.
	if _, err := l.Dir.Enable(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	_, e, _, err := l.Dir.Standing()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Dir.Revoked(t.Context(), e.SHA256, "revoked"); err != nil {
		t.Fatal(err)
	}
	if p := l.plan(t, time.Now()); p.Off != "" || p.At.After(time.Now()) {
		t.Errorf("revoked: %+v, want now", p)
	}
	if err := Remove(l.Dir.Path()); err != nil {
		t.Fatal(err)
	}
	if p := l.plan(t, time.Now()); p.Off == "" {
		t.Errorf("by hand: %+v", p)
	}
	if _, err := l.Attempt(t.Context()); !errors.Is(err, ErrNotAutomatic) {
		t.Errorf("attempt by hand: %v", err)
	}
}

func TestFailuresAreSeenAndTriedAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	good := l.mustAttempt(t)
	l.sign(t, "echo 'the HSM is asleep' >&2; exit 1")
	for n := 1; n <= 3; n++ {
		if _, err := l.Attempt(t.Context()); err == nil || !strings.Contains(err.Error(), "HSM is asleep") {
			t.Fatalf("got %v, want the words of the authority", err)
		}
		s := l.state(t)
		if s.Failures != n || !strings.Contains(s.LastError, "HSM is asleep") || s.Refused || !s.NextAttempt.After(time.Now()) {
			t.Errorf("after %d: %+v", n, s)
		}
		if p := l.plan(t, time.Now()); !p.At.Equal(s.NextAttempt) {
			t.Errorf("planned for %s, the state says %s", p.At, s.NextAttempt)
		}
	}
	chain, _, _, err := l.Dir.Standing()
	if err != nil || !chain[0].NotAfter.Equal(good.Entry.NotAfter) {
		t.Errorf("the good one is gone: %v", err)
	}
	l.sign(t, "echo 'no such profile' >&2; exit 77")
	if _, err := l.Attempt(t.Context()); err == nil || !l.state(t).Refused {
		t.Errorf("refused: %v, %+v", err, l.state(t))
	}
	audit, err := os.ReadFile(filepath.Join(l.Dir.Path(), filepath.FromSlash(inventory.AuditFile)))
	if err != nil || strings.Count(string(audit), `"event":"renewal failed"`) != 4 {
		t.Errorf("audit: %s, %v; want 4 failures", audit, err)
	}
	l.sign(t, "exec openssl x509 -req -CA %[1]s/ca.pem -CAkey %[1]s/ca.key -copy_extensions copyall -days 9")
	l.mustAttempt(t)
	if s := l.state(t); s.Failures != 0 || s.LastError != "" || s.Refused {
		t.Errorf("after it went well: %+v", s)
	}
}

func TestWhatCannotServeIsNotPutInUse(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Standards.ClientNames = []string{"cache.example"}
	good := l.mustAttempt(t)
	tests := []struct{ name, script, want string }{
		{"for other names", "exec openssl x509 -req -CA %[1]s/ca.pem -CAkey %[1]s/ca.key -days 9", "cannot be used"},
		{"expired", "exec openssl x509 -req -CA %[1]s/ca.pem -CAkey %[1]s/ca.key -copy_extensions copyall -days -1", "cannot be used"},
		{"of another key", "cat >/dev/null; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /dev/null -subj /CN=other -days 9", "key"},
		{"garbage", "echo hello", "hello"},
	}
	for _, tt := range tests {
		l.sign(t, tt.script)
		if _, err := l.Attempt(t.Context()); err == nil || tt.name != "garbage" && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		_, e, _, err := l.Dir.Standing()
		if err != nil || e.SHA256 != good.Entry.SHA256 || e.State != inventory.Active {
			t.Errorf("%s: in use is %+v, %v", tt.name, e, err)
		}
	}
	// The organisation's root is demanded, and the chain does not lead there.
	other := lardertest.NewCA(t)
	rootFile := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(rootFile, other.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	l.sign(t, "exec openssl x509 -req -CA %[1]s/ca.pem -CAkey %[1]s/ca.key -copy_extensions copyall -days 9")
	l.settings(t, func(s *Settings) { s.Roots = rootFile })
	l.Standards.Roots = x509.NewCertPool()
	if _, err := l.Attempt(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot be used") {
		t.Errorf("another root: %v", err)
	}
}

// An authority that wants a person to approve answers "later"; the key that it
// was asked with is the one that its certificate fits.
func TestKeyOfAWaitingRequestIsKept(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.sign(t, "cat >> %[1]s/asked; exit 75")
	for range 2 {
		if _, err := l.Attempt(t.Context()); err == nil {
			t.Fatal("no error")
		}
	}
	asked, err := os.ReadFile(filepath.Join(filepath.Dir(l.script), "asked"))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.SplitAfter(string(asked), "-----END CERTIFICATE REQUEST-----\n")
	if len(parts) != 3 || parts[0] != parts[1] {
		t.Fatalf("asked twice with different requests: %s", asked)
	}
	pending := filepath.Join(l.Dir.Path(), "keys", "auto-pending.key")
	text, err := os.ReadFile(pending)
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.ParsePEM(text)
	if err != nil {
		t.Fatal(err)
	}
	l.sign(t, "exec openssl x509 -req -CA %[1]s/ca.pem -CAkey %[1]s/ca.key -copy_extensions copyall -days 9")
	l.mustAttempt(t)
	chain, _, _, err := l.Dir.Active()
	if err != nil || !keys.Same(chain[0].PublicKey, key.Public()) {
		t.Errorf("the certificate is for another key: %v", err)
	}
	if _, err := os.Stat(pending); !os.IsNotExist(err) {
		t.Errorf("the waiting key is left: %v", err)
	}
}

func TestOneRenewalAtATime(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	gate := filepath.Join(filepath.Dir(l.script), "gate")
	l.sign(t, "cat > %[1]s/csr; touch %[1]s/begun; while [ ! -e %[1]s/gate ]; do sleep 0.05; done; exec openssl x509 -req -in %[1]s/csr -CA %[1]s/ca.pem -CAkey %[1]s/ca.key -copy_extensions copyall -days 9")
	first := make(chan error, 1)
	go func() {
		_, err := l.Attempt(t.Context())
		first <- err
	}()
	lardertest.Eventually(t, "the authority is asked", func() bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(l.script), "begun"))
		return err == nil
	})
	other := &Renewer{Dir: l.Dir, Seed: "other"}
	if _, err := other.Attempt(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("a second one beside it: %v, want that it is busy", err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestCalledOffIsNoFailureAndTimeOutIsOne(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	begun := filepath.Join(filepath.Dir(l.script), "begun")
	l.sign(t, "touch "+begun+"; exec sleep 60")
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() {
		_, err := l.Attempt(ctx)
		over <- err
	}()
	lardertest.Eventually(t, "the authority is asked", func() bool {
		_, err := os.Stat(begun)
		return err == nil
	})
	if s := l.state(t); s.LastError != Unfinished || !s.NextAttempt.After(time.Now()) {
		t.Errorf("while it is under way: %+v, want that a kill would not be followed by another try at once", s)
	}
	cancel()
	if err := <-over; err == nil {
		t.Fatal("no error")
	}
	if s := l.state(t); s.Failures != 0 || s.LastError != "" {
		t.Errorf("called off: %+v, want no failure", s)
	}
	late, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	if _, err := l.Attempt(late); err == nil {
		t.Fatal("no error")
	}
	if s := l.state(t); s.Failures != 1 || s.LastError == "" || !s.NextAttempt.After(time.Now()) {
		t.Errorf("timed out: %+v, want a failure", s)
	}
}

func TestSecretsAreRead(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	file := filepath.Join(l.Dir.Path(), "credentials", "x")
	if _, err := l.secret("scep.challenge_file", "credentials/x"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("not there: %v", err)
	}
	for _, tt := range []struct {
		text string
		mode os.FileMode
		want string
	}{{"hunter2\n", 0o600, ""}, {"hunter2", 0o644, "0644"}, {" \n", 0o600, "empty"}} {
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, tt.mode); err != nil {
			t.Fatal(err)
		}
		got, err := l.secret("scep.challenge_file", "credentials/x")
		if tt.want == "" && (err != nil || got != "hunter2") || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q with %04o: %q, %v; want %q", tt.text, tt.mode, got, err, tt.want)
		}
	}
}
