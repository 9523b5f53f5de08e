package livecert

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// material is a certificate with its key, and what the files hold of it.
type material struct {
	cert            *x509.Certificate
	key             crypto.Signer
	certPEM, keyPEM []byte
}

var serial atomic.Int64

// issue makes a certificate for 127.0.0.1 and cache.example.com; by is its
// issuer, nil for itself. change may alter the template.
func issue(t testing.TB, by *material, key crypto.Signer, change func(*x509.Certificate)) *material {
	t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	n := serial.Add(1)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: fmt.Sprintf("number %d", n)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		DNSNames: []string{"cache.example.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &material{cert: cert, key: key, certPEM: block("CERTIFICATE", der), keyPEM: block("PRIVATE KEY", pkcs8)}
}

func authority(c *x509.Certificate) {
	c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace puts a file in place in one step.
func replace(t testing.TB, name string, data []byte) {
	t.Helper()
	write(t, name+".new", data)
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

const activeText = "certificate: certs/node.crt\nkey: keys/node.key\n"

// install writes m into dir and makes it the active pair.
func install(t testing.TB, dir string, m *material) {
	t.Helper()
	write(t, filepath.Join(dir, "certs", "node.crt"), m.certPEM)
	write(t, filepath.Join(dir, "keys", "node.key"), m.keyPEM)
	write(t, filepath.Join(dir, "active.yaml"), []byte(activeText))
}

func open(t testing.TB, dir string) *Cert {
	t.Helper()
	c, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// served is the certificate that c gives to a handshake.
func served(t testing.TB, c *Cert) *x509.Certificate {
	t.Helper()
	cert, err := c.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf
}

func contains(s string, words ...string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

func countLines(text, word string) (n int) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			n++
		}
	}
	return n
}

func TestNoCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Join(dir, "not", "there")} {
		c := open(t, d)
		if err := c.Reload(); err != nil || c.Has() || c.Status().Err != "" {
			t.Errorf("%s: %v, has %v, status %+v; want nothing and no error", d, err, c.Has(), c.Status())
		}
		if cert, err := c.GetCertificate(&tls.ClientHelloInfo{}); err == nil {
			t.Errorf("%s: GetCertificate gave %v", d, cert)
		}
		if _, err := Check(d); !errors.Is(err, ErrNoneActive) {
			t.Errorf("%s: Check: %v, want ErrNoneActive", d, err)
		}
	}
	file := filepath.Join(dir, "file")
	write(t, file, nil)
	if _, err := Open(file, nil); err == nil || !strings.Contains(err.Error(), "expected a directory") {
		t.Errorf("a file for a directory: %v", err)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := issue(t, nil, nil, authority)
	m := issue(t, ca, nil, nil)
	install(t, dir, m)
	c := open(t, dir)
	s := c.Status()
	if !c.Has() || s.Err != "" {
		t.Fatalf("has %v, %q", c.Has(), s.Err)
	}
	checks := map[string]bool{
		"file":    s.File == filepath.Join(dir, "certs", "node.crt") && s.KeyFile == filepath.Join(dir, "keys", "node.key"),
		"subject": s.Subject == m.cert.Subject.String() && s.Issuer == ca.cert.Subject.String(),
		"names":   strings.Join(s.SANs, " ") == "cache.example.com 127.0.0.1",
		"times":   s.NotBefore.Equal(m.cert.NotBefore) && s.NotAfter.Equal(m.cert.NotAfter) && time.Since(s.Loaded) < time.Minute,
		"prints":  len(s.SHA256) == 64 && s.SHA256 == strings.ToLower(s.SHA256) && len(s.SHA1) == 40 && s.SHA1 == strings.ToUpper(s.SHA1),
		"kind":    s.KeyType == "ECDSA P-256",
	}
	for what, ok := range checks {
		if !ok {
			t.Errorf("%s: %+v", what, s)
		}
	}
	checked, err := Check(dir)
	checked.Loaded = s.Loaded
	if err != nil || fmt.Sprint(checked) != fmt.Sprint(s) {
		t.Errorf("Check: %+v, %v; want %+v", checked, err, s)
	}
}

func TestAbsolutePaths(t *testing.T) {
	t.Parallel()
	dir, elsewhere := t.TempDir(), t.TempDir()
	m := issue(t, nil, nil, nil)
	write(t, filepath.Join(elsewhere, "a.crt"), m.certPEM)
	write(t, filepath.Join(elsewhere, "a.key"), m.keyPEM)
	text := fmt.Sprintf("certificate: '%s'\nkey: '%s'\n", filepath.Join(elsewhere, "a.crt"), filepath.Join(elsewhere, "a.key"))
	write(t, filepath.Join(dir, "active.yaml"), []byte(text))
	c := open(t, dir)
	if s := c.Status(); s.Err != "" || s.File != filepath.Join(elsewhere, "a.crt") {
		t.Errorf("%+v", s)
	}
}

// logged opens dir with a log and returns it with what was logged.
// A text is written by one goroutine while another reads it.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (x *text) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(p)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}

func logged(t *testing.T, dir string) (*Cert, *text) {
	t.Helper()
	var log text
	c, err := Open(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return c, &log
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	ca, stranger := issue(t, nil, nil, authority), issue(t, nil, nil, authority)
	plain := issue(t, ca, nil, nil)
	tests := []struct {
		name   string
		m      *material
		append []byte
		mode   fs.FileMode
		want   string // "" for none
	}{
		{"all well", plain, ca.certPEM, 0o600, ""},
		{"the group may read", plain, nil, 0o640, ""},
		{"the group may write", plain, nil, 0o660, "chmod 600"},
		{"everybody may read", plain, nil, 0o644, "found permissions 0644"},
		{"a chain with a gap", plain, stranger.certPEM, 0o600, "did not issue the one before it"},
		{"no names", issue(t, ca, nil, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }), nil, 0o600, "common name"},
	}
	for _, tt := range tests {
		if runtime.GOOS == "windows" && tt.mode&0o177 != 0 {
			continue
		}
		dir := t.TempDir()
		install(t, dir, &material{certPEM: append(bytes.Clone(tt.m.certPEM), tt.append...), keyPEM: tt.m.keyPEM})
		if err := os.Chmod(filepath.Join(dir, "keys", "node.key"), tt.mode); err != nil {
			t.Fatal(err)
		}
		c, log := logged(t, dir)
		if !c.Has() || c.Status().Err != "" {
			t.Errorf("%s: not used: %s", tt.name, c.Status().Err)
		}
		text := log.String()
		if warned := strings.Contains(text, "level=WARN"); warned != (tt.want != "") || !strings.Contains(text, tt.want) {
			t.Errorf("%s: logged %s; want %q", tt.name, text, tt.want)
		}
		if strings.Contains(text, "PRIVATE") {
			t.Errorf("%s: the key was logged: %s", tt.name, text)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, dir)
	r := prometheus.NewPedanticRegistry()
	if err := c.Register(r); err != nil {
		t.Fatal(err)
	}
	if err := c.Register(r); err == nil {
		t.Error("registered twice without an error")
	}
	check := func(loaded, failures float64) {
		t.Helper()
		if got := metric(t, c, "larder_livecert_loaded_timestamp_seconds"); got < loaded-60 || got > loaded+60 {
			t.Errorf("loaded: %v, want about %v", got, loaded)
		}
		if got := metric(t, c, "larder_livecert_reload_failures_total"); got != failures {
			t.Errorf("failures: %v, want %v", got, failures)
		}
	}
	check(0, 0)
	m := issue(t, nil, nil, nil)
	install(t, dir, m)
	if err := c.Reload(); err != nil {
		t.Fatal(err)
	}
	check(float64(time.Now().Unix()), 0)
	write(t, filepath.Join(dir, "keys", "node.key"), []byte("x"))
	if err := c.Reload(); err == nil {
		t.Error("no error")
	}
	check(float64(time.Now().Unix()), 1)
}

// metric is the value of a metric of c.
func metric(t testing.TB, c *Cert, name string) float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := c.Register(r); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestSwitchedOffByTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := issue(t, nil, nil, nil)
	install(t, dir, m)
	c := open(t, dir)
	a, err := ReadActive(dir)
	if err != nil {
		t.Fatal(err)
	}
	changed := c.Changed()
	a.Disabled = true
	if err := WriteActive(dir, a); err != nil {
		t.Fatal(err)
	}
	if err := c.Reload(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	if c.Has() || c.Status().Err != "" || c.Chain() != nil {
		t.Errorf("still on, or a problem: %+v", c.Status())
	}
	if _, err := Check(dir); !errors.Is(err, ErrNoneActive) {
		t.Errorf("check: %v, want that nothing is active", err)
	}
	a.Disabled = false
	if err := WriteActive(dir, a); err != nil {
		t.Fatal(err)
	}
	if err := c.Reload(); err != nil || !c.Has() || len(c.Chain()) != 1 {
		t.Errorf("not on again: %v", err)
	}
}

func TestStapleGoesWithItsCertificateOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m, other := issue(t, nil, nil, nil), issue(t, nil, nil, nil)
	install(t, dir, m)
	c := open(t, dir)
	if c.Staple(other.cert, []byte("answer")) {
		t.Error("stapled to a certificate that is not in use")
	}
	if !c.Staple(m.cert, []byte("answer")) || !c.Status().Stapled {
		t.Error("not stapled")
	}
	state, err := handshake(t, c.TLSConfig(nil), &tls.Config{InsecureSkipVerify: true})
	if err != nil || string(state.OCSPResponse) != "answer" {
		t.Errorf("clients get %q, %v; want the answer", state.OCSPResponse, err)
	}
	install(t, dir, other)
	if err := c.Reload(); err != nil {
		t.Fatal(err)
	}
	if state, err = handshake(t, c.TLSConfig(nil), &tls.Config{InsecureSkipVerify: true}); err != nil || len(state.OCSPResponse) > 0 {
		t.Errorf("the next certificate goes with %q, %v; want nothing", state.OCSPResponse, err)
	}
}

func TestACMEHandshakeGetsTheChallenge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m, proof := issue(t, nil, nil, nil), issue(t, nil, nil, nil)
	install(t, dir, m)
	c := open(t, dir)
	config := c.TLSConfig(func(name string) (*tls.Certificate, bool) {
		return &tls.Certificate{Certificate: [][]byte{proof.cert.Raw}, PrivateKey: proof.key}, name == "cache.example.com"
	})
	tests := []struct {
		name, server string
		protos       []string
		want         *x509.Certificate
		proto        string
	}{
		{"the authority", "cache.example.com", []string{"acme-tls/1"}, proof.cert, "acme-tls/1"},
		{"a client", "cache.example.com", []string{"http/1.1"}, m.cert, "http/1.1"},
	}
	for _, tt := range tests {
		state, err := handshake(t, config, &tls.Config{InsecureSkipVerify: true, ServerName: tt.server, NextProtos: tt.protos})
		if err != nil || !state.PeerCertificates[0].Equal(tt.want) || state.NegotiatedProtocol != tt.proto {
			t.Errorf("%s: %v, %q", tt.name, err, state.NegotiatedProtocol)
		}
	}
	if _, err := handshake(t, config, &tls.Config{InsecureSkipVerify: true, ServerName: "other.example", NextProtos: []string{"acme-tls/1"}}); err == nil {
		t.Error("a challenge that is not pending was answered")
	}
}
