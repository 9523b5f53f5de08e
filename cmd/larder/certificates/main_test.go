package certificates_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == signAsAuthority {
		os.Exit(authorityMain(os.Args[2], os.Stdin, os.Stdout))
	}
	lardertest.Main(m)
}

// run is one call of larder.
type run struct {
	stdout, stderr string
	exit           int
}

func (r run) String() string {
	return fmt.Sprintf("exit code %d\nstdout:\n%s\nstderr:\n%s", r.exit, r.stdout, r.stderr)
}

// larder calls the binary.
func larder(t testing.TB, args ...string) run { return larderIn(t, "", args...) }

// larderIn calls it in a directory.
func larderIn(t testing.TB, dir string, args ...string) run {
	t.Helper()
	return call(t, dir, lardertest.Binary(t), args...)
}

func call(t testing.TB, dir, binary string, args ...string) run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatalf("larder %s: %v", strings.Join(args, " "), err)
	}
	return run{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must calls larder and fails the test unless it says that all went well.
func must(t testing.TB, args ...string) run {
	t.Helper()
	r := larder(t, args...)
	if r.exit != 0 {
		t.Fatalf("larder %s: %s", strings.Join(args, " "), r)
	}
	return r
}

// openssl calls OpenSSL and returns what it wrote to stdout.
func openssl(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("openssl %s: %v\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// A pki is an authority of OpenSSL with a root and one intermediate.
type pki struct {
	dir string
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

// newPKI makes the authority; its keys are of the given kind, in OpenSSL's words.
func newPKI(t testing.TB, newkey ...string) *pki {
	t.Helper()
	if len(newkey) == 0 {
		newkey = []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"}
	}
	p := &pki{dir: t.TempDir()}
	args := append([]string{"req", "-x509", "-nodes", "-keyout", p.path("root.key"), "-out", p.path("root.pem"), "-subj", "/O=Example/CN=Example Root", "-days", "100",
		"-addext", "keyUsage=critical,keyCertSign,cRLSign"}, newkey...)
	openssl(t, "", args...)
	args = append([]string{"req", "-new", "-nodes", "-keyout", p.path("ca.key"), "-out", p.path("ca.csr"), "-subj", "/O=Example/CN=Example Issuing CA"}, newkey...)
	openssl(t, "", args...)
	p.write(t, "ca.ext", "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
	openssl(t, "", "x509", "-req", "-in", p.path("ca.csr"), "-CA", p.path("root.pem"), "-CAkey", p.path("root.key"), "-days", "90", "-extfile", p.path("ca.ext"), "-out", p.path("ca.pem"))
	return p
}

func (p *pki) write(t testing.TB, name, text string) string {
	t.Helper()
	if err := os.WriteFile(p.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p.path(name)
}

func read(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// sign signs a request with the intermediate and returns the certificate as
// PEM. extra are further arguments; "-days 30" unless they say otherwise.
func (p *pki) sign(t testing.TB, csr string, extra ...string) string {
	t.Helper()
	args := []string{"x509", "-req", "-in", csr, "-CA", p.path("ca.pem"), "-CAkey", p.path("ca.key"), "-copy_extensions", "copyall"}
	if !strings.Contains(strings.Join(extra, " "), "-days") {
		args = append(args, "-days", "30")
	}
	return openssl(t, "", append(args, extra...)...)
}

// chain is a certificate with the intermediate's.
func (p *pki) chain(t testing.TB, cert string) string { return cert + read(t, p.path("ca.pem")) }

// signer is a command for "larder tls auto --sign-command".
func (p *pki) signer(t testing.TB, days int) string {
	t.Helper()
	script := p.write(t, "sign.sh", fmt.Sprintf(`set -e
openssl x509 -req -CA %[1]s/ca.pem -CAkey %[1]s/ca.key -copy_extensions copyall -days %[2]d
cat %[1]s/ca.pem
`, p.dir, days))
	return "/bin/sh " + script
}

// A site is a node of the real binary with an authority.
type site struct {
	*lardertest.Node
	*pki
	tls string // its TLS directory
}

// newSite starts a node without a certificate. yaml is its configuration; ""
// is lardertest's.
func newSite(t *testing.T, yaml string) *site {
	t.Helper()
	s := &site{pki: newPKI(t)}
	s.Node = lardertest.StartNode(t, lardertest.NodeConfig{YAML: yaml})
	s.tls = filepath.Join(s.Dir, "tls")
	return s
}

func (s *site) config() string { return filepath.Join(s.Dir, "node.yaml") }

// request makes a request and returns its file.
func (s *site) request(t testing.TB, name string) string {
	t.Helper()
	must(t, "tls", "csr", "--dir", s.tls, "--algo", "EC", "--csr-name", name, "--subject-common-name", "localhost", "--san-dns", "localhost", "--san-ip", "127.0.0.1")
	return filepath.Join(s.tls, "certs", name+".csr")
}

// drop writes a file into certs/ as an administrator does.
func (s *site) drop(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.tls, "certs", name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// first puts a first certificate in use.
func (s *site) first(t testing.TB) {
	t.Helper()
	csr := s.request(t, "node")
	s.drop(t, "node.crt", s.chain(t, s.sign(t, csr)))
	must(t, "tls", "import", "node", "--dir", s.tls, "--root", s.path("root.pem"))
	s.Refresh()
}

func (s *site) roots(t testing.TB) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(read(t, s.path("root.pem")))) {
		t.Fatal("no root")
	}
	return pool
}

// shown is what a client that verifies gets at the node.
func (s *site) shown(t testing.TB) *x509.Certificate {
	t.Helper()
	state, err := s.handshake(t, &tls.Config{RootCAs: s.roots(t), ServerName: "localhost"})
	if err != nil {
		t.Fatalf("handshake: %v", err)
	}
	return state.PeerCertificates[0]
}

func (s *site) handshake(t testing.TB, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", s.HTTPS)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState(), nil
}

// first certificate of PEM text.
func parse(t testing.TB, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no PEM: %q", text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// decode reads what a command printed as JSON.
func decode[T any](t testing.TB, r run) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		t.Fatalf("%v in %s", err, r)
	}
	return v
}

// port asks the system for a port that is free, for a program that takes
// numbers only.
func port(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().(*net.TCPAddr).Port
}
