package caretaker

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"larder/internal/lardertest"
	"larder/internal/pki/csr"
	"larder/internal/pki/enroll"
	"larder/internal/pki/livecert"
	"larder/internal/pki/revocation"
	"larder/internal/pki/tlsdir"
	"larder/internal/pki/vet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A lab is a caretaker with a TLS directory and an authority, whose program for
// signing is a script of OpenSSL's.
type lab struct {
	*Caretaker
	t   *testing.T
	dir *tlsdir.Dir
	ca  *lardertest.CA
	reg *prometheus.Registry
	log *logged

	script string
}

type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the authority is a shell script")
	}
	base := t.TempDir()
	l := &lab{t: t, ca: lardertest.NewCA(t), reg: prometheus.NewPedanticRegistry(), log: new(logged), script: filepath.Join(base, "sign")}
	for name, data := range map[string][]byte{"ca.pem": l.ca.PEM, "ca.key": l.ca.KeyPEM(t)} {
		if err := os.WriteFile(filepath.Join(base, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.sign(fmt.Sprintf("exec openssl x509 -req -CA %[1]s/ca.pem -CAkey %[1]s/ca.key -copy_extensions copyall -days 9", base))
	var err error
	if l.dir, err = tlsdir.Open(filepath.Join(base, "tls"), "node"); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cert, err := livecert.Open(l.dir.Path(), log)
	if err != nil {
		t.Fatal(err)
	}
	l.dir.Follow = func() { _ = cert.Reload() }
	st := tlsdir.Standards{Given: []*x509.Certificate{l.ca.Cert}}
	l.Caretaker = New(Options{
		Dir: l.dir, Cert: cert, Renewer: &enroll.Renewer{Dir: l.dir, Standards: st, Seed: "seed", Log: log}, Checker: revocation.New(revocation.Options{}),
		OnRevoked: FallBackToPrevious, Log: log, Registerer: l.reg,
	})
	return l
}

func (l *lab) sign(text string) {
	l.t.Helper()
	if err := os.WriteFile(l.script, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) automatic() {
	l.t.Helper()
	s := &enroll.Settings{Command: &enroll.Command{Run: "/bin/sh " + l.script},
		Request: csr.Words{Algorithm: "EC", CommonName: "cache.example", SANDNS: []string{"cache.example"}}}
	if err := s.Save(l.dir.Path()); err != nil {
		l.t.Fatal(err)
	}
}

// put makes a certificate with this life the one in use.
func (l *lab) put(from, to time.Time) {
	l.t.Helper()
	l.ca.LeafWith(l.t, lardertest.LeafOptions{NotBefore: from, NotAfter: to}, "cache.example").Install(l.t, l.dir.Path(), fmt.Sprintf("c%d", to.UnixNano()))
	if err := l.o.Cert.Reload(); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) metric(name string) float64 {
	l.t.Helper()
	families, err := l.reg.Gather()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	l.t.Fatalf("no metric %s", name)
	return 0
}

// run runs the caretaker until the test ends.
func (l *lab) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-over; err != nil {
			l.t.Error(err)
		}
	})
	l.t.Cleanup(stop)
	return stop
}

func TestFirstCertificateIsGotByItself(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.automatic()
	l.run()
	lardertest.Eventually(t, "a certificate", func() bool { return l.o.Cert.Has() })
	lardertest.Eventually(t, "the outcome", func() bool { s := l.Status(); return s.Auto != nil && !s.Auto.LastSuccess.IsZero() })
	s := l.Status()
	if !s.On || s.Level != vet.None || s.Auto.LastError != "" || !s.Auto.NextAttempt.After(time.Now()) || s.Revocation.Status != revocation.NotOffered && s.Revocation.Status != revocation.Unknown {
		t.Errorf("status: %+v, auto %+v", s, s.Auto)
	}
	if got := l.metric("larder_tls_renewals_total"); got != 1 {
		t.Errorf("%v renewals", got)
	}
	if got, want := l.metric("larder_tls_not_after_seconds"), float64(s.Certificate.NotAfter.Unix()); got != want {
		t.Errorf("not after: %v, want %v", got, want)
	}
	if got, want := l.metric("larder_tls_next_attempt_timestamp_seconds"), float64(s.Auto.NextAttempt.Unix()); got != want {
		t.Errorf("next attempt: %v, want %v", got, want)
	}
	if p := l.Problems(); len(p) != 0 {
		t.Errorf("problems: %q", p)
	}
}

// A machine that slept, or a node that was off, past the end of its certificate.
func TestExpiredCertificateIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.put(time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour))
	l.automatic()
	before := time.Now()
	l.run()
	lardertest.Eventually(t, "another certificate", func() bool { return l.o.Cert.Status().NotAfter.After(before) })
}

func TestFailureIsAProblemAndIsNotHammered(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.sign("echo asked >> " + l.script + ".log; echo 'no such template' >&2; exit 77")
	l.automatic()
	l.run()
	lardertest.Eventually(t, "the failure", func() bool { return len(l.Problems()) > 0 })
	for range 20 {
		l.Kick() // looking again is not asking again
	}
	if p := strings.Join(l.Problems(), "\n"); !strings.Contains(p, "no such template") {
		t.Errorf("problems: %s", p)
	}
	s := l.Status()
	if s.On || s.WhyOff != "there is no certificate" || s.Auto.Failures != 1 || !s.Auto.NextAttempt.After(time.Now().Add(30*time.Second)) {
		t.Errorf("status: %+v, auto: %+v", s, s.Auto)
	}
	if asked, err := os.ReadFile(l.script + ".log"); err != nil || strings.Count(string(asked), "asked") != 1 {
		t.Errorf("asked: %q, %v; want once", asked, err)
	}
	lardertest.Eventually(t, "the failure is counted", func() bool { return l.metric("larder_tls_renewal_failures_total") == 1 })
}

func TestRenewalThatIsUnderWayDoesNotOutliveTheNode(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.sign("touch " + l.script + ".begun; exec sleep 600")
	l.automatic()
	stop := l.run()
	lardertest.Eventually(t, "the authority is asked", func() bool {
		_, err := os.Stat(l.script + ".begun")
		return err == nil
	})
	if s := l.Status(); !s.Auto.Renewing {
		t.Errorf("auto: %+v, want that it is renewing", s.Auto)
	}
	if _, err := l.Renew(t.Context()); err == nil {
		t.Error("a second one beside it")
	}
	began := time.Now()
	stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v to stop", took)
	}
}

func TestWarningsGrowWithUrgency(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	now := time.Now()
	tests := []struct {
		name       string
		life, left time.Duration
		want       vet.Level
		words      string
	}{
		{"fresh", 90 * day, 80 * day, vet.None, ""},
		{"a third is left", 90 * day, 29 * day, vet.Notice, "28 days"},
		{"a sixth is left", 90 * day, 14 * day, vet.Warning, "13 days"},
		{"three days", 90 * day, 3*day - time.Hour, vet.Urgent, "2 days"},
		{"one day", 90 * day, day - time.Hour, vet.Critical, "22 hours"},
		{"over", 90 * day, -time.Hour, vet.Expired, "has expired on"},
		{"a short life, fresh", day, 20 * time.Hour, vet.None, ""},
	}
	for _, tt := range tests {
		l := newLab(t)
		l.put(now.Add(tt.left-tt.life), now.Add(tt.left))
		l.watchLevel(t.Context(), time.Now())
		l.watchLevel(t.Context(), time.Now())
		s := l.Status()
		if s.Level != tt.want || !strings.Contains(s.Warning, tt.words) || (tt.want == vet.None) != (s.Warning == "") {
			t.Errorf("%s: %v %q, want %v with %q", tt.name, s.Level, s.Warning, tt.want, tt.words)
		}
		if tt.want != vet.None && !strings.Contains(s.Warning, "larder tls renew") {
			t.Errorf("%s: no next step in %q", tt.name, s.Warning)
		}
		if got := l.metric("larder_tls_warning_state"); got != float64(tt.want) {
			t.Errorf("%s: the metric says %v", tt.name, got)
		}
		want := 1
		if tt.want == vet.None {
			want = 0
		}
		if got := strings.Count(l.log.String(), "comes to its end"); got != want {
			t.Errorf("%s: logged %d times, want %d", tt.name, got, want)
		}
	}
}

func TestNextQuestionAboutRevocation(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tests := []struct {
		name string
		a    revocation.Answer
		want time.Duration
	}{
		{"good for a week", revocation.Answer{Status: revocation.Good, NextUpdate: now.Add(7 * 24 * time.Hour)}, 24 * time.Hour},
		{"good for an hour", revocation.Answer{Status: revocation.Good, NextUpdate: now.Add(time.Hour)}, 30 * time.Minute},
		{"good for a moment", revocation.Answer{Status: revocation.Good, NextUpdate: now.Add(time.Second)}, time.Minute},
		{"good for good", revocation.Answer{Status: revocation.Good}, 24 * time.Hour},
		{"not known", revocation.Answer{}, 15 * time.Minute},
		{"not offered", revocation.Answer{Status: revocation.NotOffered}, 24 * time.Hour},
	}
	for _, tt := range tests {
		if got := nextAsk(now, tt.a).Sub(now); got != tt.want {
			t.Errorf("%s: after %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestFilesOfOldCertificatesGo(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for i := range 2 {
		file := filepath.Join(t.TempDir(), fmt.Sprintf("c%d.pem", i))
		p := l.ca.Leaf(t, "cache.example")
		if err := os.WriteFile(file, append(p.CertPEM, p.KeyPEM...), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := l.dir.Import(t.Context(), file, tlsdir.ImportOptions{Standards: l.o.Renewer.Standards}); err != nil {
			t.Fatal(err)
		}
	}
	l.retain(t.Context(), time.Now())
	l.retain(t.Context(), time.Now().AddDate(0, 18, 2))
	if !strings.Contains(l.log.String(), "certificate files removed") {
		t.Errorf("nothing was removed: %s", l.log)
	}
	inv, err := l.dir.Inventory(t.Context())
	if err != nil || len(inv.Entries) != 2 || inv.Entries[0].Removed == nil || inv.Entries[1].Removed != nil {
		t.Errorf("inventory: %+v, %v", inv, err)
	}
}
