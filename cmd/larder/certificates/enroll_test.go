package certificates_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	peer "github.com/globalsign/est"

	"larder/internal/lardertest"
	"larder/internal/pki/caretaker"
	"larder/internal/pki/inventory"
)

// signAsAuthority is the argument by which this test's own binary becomes the
// command of --sign-command: what signs with lives that OpenSSL's x509 has no
// words for. (By an argument: such a command does not get the environment.)
const signAsAuthority = "sign-as-authority"

// authorityMain is main of that command. The file "life" of the authority's
// directory says how long certificates live; "sealed" has it fail.
func authorityMain(dir string, in io.Reader, out io.Writer) int {
	failed := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if _, err := os.Stat(filepath.Join(dir, "sealed")); err == nil {
		return failed(errors.New("the vault is sealed"))
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return failed(err)
	}
	life := 720 * time.Hour
	if said, err := os.ReadFile(filepath.Join(dir, "life")); err == nil {
		if life, err = time.ParseDuration(strings.TrimSpace(string(said))); err != nil {
			return failed(err)
		}
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return failed(errors.New("no request"))
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return failed(err)
	}
	der, ca, err := issue(dir, req.PublicKey, &x509.Certificate{RawSubject: req.RawSubject, DNSNames: req.DNSNames, IPAddresses: req.IPAddresses}, life)
	if err != nil {
		return failed(err)
	}
	for _, der := range [][]byte{der, ca.Raw} {
		if err := pem.Encode(out, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return failed(err)
		}
	}
	return 0
}

// issue signs template with the intermediate of the authority in dir, for
// servers and clients.
func issue(dir string, public crypto.PublicKey, template *x509.Certificate, life time.Duration) (der []byte, ca *x509.Certificate, err error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		return nil, nil, err
	}
	template.NotBefore = time.Now().Truncate(time.Second)
	template.NotAfter = template.NotBefore.Add(life)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err = x509.CreateCertificate(rand.Reader, template, pair.Leaf, public, pair.PrivateKey)
	return der, pair.Leaf, err
}

// ownSigner is the command line of authorityMain for the authority p.
func (p *pki) ownSigner(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("'%s' %s '%s'", self, signAsAuthority, p.dir)
}

// auto calls "larder tls auto" for the names that tests use.
func (s *site) auto(t testing.TB, args ...string) run {
	t.Helper()
	return larder(t, append([]string{"tls", "auto", "--dir", s.tls, "--san-dns", "localhost", "--san-ip", "127.0.0.1"}, args...)...)
}

func (s *site) autoState(t testing.TB) *caretaker.Auto {
	t.Helper()
	return decode[struct{ Auto *caretaker.Auto }](t, must(t, "tls", "auto", "--dir", s.tls, "-o", "json")).Auto
}

// served waits until HTTPS is open and returns what is shown there, to whoever
// does not verify.
func (s *site) served(t testing.TB) *x509.Certificate {
	t.Helper()
	lardertest.Eventually(t, "HTTPS", func() bool { return s.Refresh() && s.HTTPS != "" })
	state, err := s.handshake(t, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	return state.PeerCertificates[0]
}

// secretOnlyIn fails the test if a secret is anywhere but in one file of
// credentials/, which only its owner may read: in no other file of the node, in
// nothing it said, in nothing that was printed.
func (s *site) secretOnlyIn(t *testing.T, secret, name string, printed ...run) {
	t.Helper()
	where := filepath.Join(s.tls, "credentials", name)
	words := []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(estUser + ":" + secret)), fmt.Sprintf("%x", secret)}
	has := func(text string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	found := false
	err := filepath.WalkDir(s.Dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		switch text := read(t, file); {
		case file == where:
			info, err := d.Info()
			found = err == nil && strings.TrimSpace(text) == secret && (info.Mode().Perm() == 0o600 || runtime.GOOS == "windows")
			if !found {
				t.Errorf("%s: %v, %v; want the secret, 0600", file, info, err)
			}
		case has(text):
			t.Errorf("the secret is in %s:\n%s", file, text)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if !found {
		t.Errorf("the secret is not in %s", where)
	}
	for _, r := range printed {
		if has(r.String()) {
			t.Errorf("the secret was printed: %s", r)
		}
	}
	if has(s.Output()) {
		t.Errorf("the node said the secret:\n%s", s.Output())
	}
}

func secretFile(t testing.TB, secret string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// scepCA starts the SCEP server of MicroMDM with a challenge password.
func scepCA(t *testing.T, challenge string) (url string, ca *x509.Certificate) {
	t.Helper()
	program := lardertest.Tool(t, lardertest.SCEPServer)
	depot := filepath.Join(t.TempDir(), "depot")
	if out, err := exec.CommandContext(t.Context(), program, "ca", "-init", "-depot", depot, "-keySize", "2048").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port(t))
	url = "http://" + address + "/scep"
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	startDaemon(t, exec.Command(program, "-depot", depot, "-http-addr", address, "-challenge", challenge, "-allowrenew", "0", "-sign-server-attrs"), func() bool {
		resp, err := client.Get(url + "?operation=GetCACaps")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
	return url, parse(t, read(t, filepath.Join(depot, "ca.pem")))
}

func TestSCEP(t *testing.T) {
	t.Parallel()
	const challenge, wrong = "Larder4ever-and-a-day", "Larder4never-and-a-day"
	url, ca := scepCA(t, challenge)
	s := &site{Node: lardertest.StartNode(t, lardertest.NodeConfig{})}
	s.tls = filepath.Join(s.Dir, "tls")
	way := []string{"--scep", url, "--ca-fingerprint", fmt.Sprintf("%X", sha256.Sum256(ca.Raw)), "--challenge-file"}

	refused := s.auto(t, append(way, secretFile(t, wrong))...)
	if refused.exit != 1 || !strings.Contains(refused.stderr, "the settings are kept") || !strings.Contains(refused.stderr, "badRequest") || !strings.Contains(refused.stderr, "challenge password is right") {
		t.Errorf("a wrong challenge: %s", refused)
	}
	if s.Refresh(); s.HTTPS != "" {
		t.Error("HTTPS is on")
	}
	if a := s.autoState(t); a == nil || a.Failures < 1 || !a.Refused || !a.LastSuccess.IsZero() || a.LastError == "" {
		t.Errorf("the state after a refusal: %+v", a)
	}
	s.secretOnlyIn(t, wrong, "scep-challenge", refused)

	first := s.auto(t, append(way, secretFile(t, challenge))...)
	if first.exit != 0 || !strings.Contains(first.stdout, "by scep, next attempt on") || !strings.Contains(first.stdout, "went well") {
		t.Fatalf("the right challenge: %s", first)
	}
	was := s.served(t)
	if err := was.CheckSignatureFrom(ca); err != nil || was.VerifyHostname("localhost") != nil || was.VerifyHostname("127.0.0.1") != nil {
		t.Errorf("%s, %v, for %v %v", was.Subject, err, was.DNSNames, was.IPAddresses)
	}
	renewed := must(t, "tls", "renew", "--dir", s.tls)
	now := s.served(t)
	if !strings.Contains(renewed.stdout, "showed it") || now.Equal(was) || string(now.RawSubjectPublicKeyInfo) == string(was.RawSubjectPublicKeyInfo) {
		t.Errorf("renew: %s; want another certificate with another key", renewed)
	}

	// With a wrong one again, what is in use stays.
	before := must(t, "tls", "list", "--dir", s.tls, "-o", "csv")
	again := s.auto(t, append(way, secretFile(t, wrong))...)
	if again.exit != 1 || !strings.Contains(again.stderr, "challenge password is right") {
		t.Errorf("a wrong challenge for a renewal: %s", again)
	}
	if after := must(t, "tls", "list", "--dir", s.tls, "-o", "csv"); after.stdout != before.stdout || !s.served(t).Equal(now) {
		t.Errorf("a failed renewal changed something: %s", after)
	}
	s.secretOnlyIn(t, wrong, "scep-challenge", first, renewed, again, must(t, "tls", "show", "--dir", s.tls), must(t, "node", "status", "--admin", s.Admin, "-o", "json"))
	if text := read(t, filepath.Join(s.tls, "auto.yaml")); !strings.Contains(text, "challenge_file: credentials/scep-challenge") || strings.Contains(text, challenge) {
		t.Errorf("auto.yaml:\n%s", text)
	}
}

// An estCA is what stands behind the EST server of GlobalSign: the authority
// of the test.
type estCA struct {
	*pki
	mu    sync.Mutex
	calls []string // guarded by mu
}

const estUser = "node"

func (c *estCA) seen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.calls, " ")
}

func (c *estCA) leaf(call string, req *x509.CertificateRequest) (*x509.Certificate, error) {
	c.mu.Lock()
	c.calls = append(c.calls, call)
	c.mu.Unlock()
	der, _, err := issue(c.dir, req.PublicKey, &x509.Certificate{RawSubject: req.RawSubject, DNSNames: req.DNSNames, IPAddresses: req.IPAddresses}, time.Hour)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (c *estCA) CACerts(context.Context, string, *http.Request) (certs []*x509.Certificate, err error) {
	for _, name := range []string{"root.pem", "ca.pem"} {
		text, err := os.ReadFile(c.path(name))
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(text)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

func (c *estCA) CSRAttrs(context.Context, string, *http.Request) (peer.CSRAttrs, error) {
	return peer.CSRAttrs{OIDs: []asn1.ObjectIdentifier{{1, 2, 840, 113549, 1, 9, 7}}}, nil
}

func (c *estCA) Enroll(_ context.Context, req *x509.CertificateRequest, _ string, _ *http.Request) (*x509.Certificate, error) {
	return c.leaf("enroll", req)
}

func (c *estCA) Reenroll(_ context.Context, _ *x509.Certificate, req *x509.CertificateRequest, _ string, _ *http.Request) (*x509.Certificate, error) {
	return c.leaf("reenroll", req)
}

func (c *estCA) ServerKeyGen(context.Context, *x509.CertificateRequest, string, *http.Request) (*x509.Certificate, []byte, error) {
	return nil, nil, errors.New("not asked for")
}

func (c *estCA) TPMEnroll(context.Context, *x509.CertificateRequest, []*x509.Certificate, []byte, []byte, string, *http.Request) (blob, secret, cred []byte, err error) {
	return nil, nil, nil, errors.New("not asked for")
}

// serve starts the EST server. It wants the password, or a certificate of the
// authority.
func (c *estCA) serve(t *testing.T, password string) string {
	t.Helper()
	router, err := peer.NewRouter(&peer.ServerConfig{CA: c, CheckBasicAuth: func(_ context.Context, r *http.Request, _, name, word string) error {
		if len(r.TLS.PeerCertificates) > 0 || name == estUser && word == password {
			return nil
		}
		return errors.New("no")
	}})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, ca, err := issue(c.dir, key.Public(), &x509.Certificate{Subject: pkix.Name{CommonName: "EST server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read(t, c.path("root.pem"))))
	server := httptest.NewUnstartedServer(router)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der, ca.Raw}, PrivateKey: key}}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func TestEST(t *testing.T) {
	t.Parallel()
	const password, wrong = "correct horse+battery/staple", "correct horse+battery/stable"
	s := newSite(t, "")
	c := &estCA{pki: s.pki}
	way := []string{"--est", c.serve(t, password), "--ca", s.path("root.pem"), "--root", s.path("root.pem"), "--user", estUser, "--password-file"}

	refused := s.auto(t, append(way, secretFile(t, wrong))...)
	if refused.exit != 1 || !strings.Contains(refused.stderr, "EST simpleenroll") || !strings.Contains(refused.stderr, "401") || !strings.Contains(refused.stderr, "the settings are kept") {
		t.Errorf("a wrong password: %s", refused)
	}
	if s.Refresh(); s.HTTPS != "" || c.seen() != "" {
		t.Errorf("HTTPS at %q, the authority saw %q; want neither", s.HTTPS, c.seen())
	}
	s.secretOnlyIn(t, wrong, "est-password", refused)

	first := s.auto(t, append(way, secretFile(t, password))...)
	if first.exit != 0 || !strings.Contains(first.stdout, "by est, next attempt on") {
		t.Fatalf("the right password: %s", first)
	}
	s.served(t)
	was := s.shown(t)
	// Now the certificate proves who asks, and goes on being served meanwhile.
	renewed := must(t, "tls", "renew", "--dir", s.tls)
	if now := s.shown(t); !strings.Contains(renewed.stdout, "showed it") || now.Equal(was) {
		t.Errorf("renew: %s", renewed)
	}
	if got := c.seen(); got != "enroll reenroll" {
		t.Errorf("the authority saw %q, want one enrolment and one by the certificate", got)
	}
	// A wrong password is not even noticed while the certificate is good.
	now := s.shown(t)
	if again := s.auto(t, append(way, secretFile(t, wrong))...); again.exit != 0 || s.shown(t).Equal(now) {
		t.Errorf("with a certificate the password is not needed: %s", again)
	}
	s.secretOnlyIn(t, wrong, "est-password", first, renewed, must(t, "tls", "show", "--dir", s.tls, "-o", "json"))
}

// stepCA starts smallstep's authority with s's intermediate. It looks for
// proofs at the port.
func stepCA(t *testing.T, p *pki, httpPort int) (directory string) {
	t.Helper()
	program := lardertest.Tool(t, lardertest.StepCA)
	address := fmt.Sprintf("127.0.0.1:%d", port(t))
	text, err := json.Marshal(map[string]any{
		"root": p.path("root.pem"), "crt": p.path("ca.pem"), "key": p.path("ca.key"), "address": address, "dnsNames": []string{"127.0.0.1"},
		"logger": map[string]string{"format": "text"}, "db": map[string]string{"type": "badgerv2", "dataSource": p.path("db")},
		"authority": map[string]any{"provisioners": []map[string]any{{"type": "ACME", "name": "acme", "claims": map[string]string{"defaultTLSCertDuration": "24h"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, p.write(t, "ca.json", string(text)), "--insecure", "--acme-http-port", fmt.Sprint(httpPort))
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "STEPPATH="+p.dir)
	roots := (&site{pki: p}).roots(t)
	startDaemon(t, cmd, func() bool {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots})
		return err == nil && conn.Close() == nil
	})
	return "https://" + address + "/acme/acme/directory"
}

// A private authority of another maker, whose certificates must lead to a root
// that the administrator named.
func TestACMEOfAPrivateAuthority(t *testing.T) {
	t.Parallel()
	plain, secure := port(t), port(t)
	s := newSite(t, fixedPorts(plain, secure))
	directory := stepCA(t, s.pki, plain)
	other := newPKI(t)
	way := []string{"tls", "auto", "--dir", s.tls, "--acme", directory, "--ca", s.path("root.pem"), "--san-ip", "127.0.0.1", "--root"}
	wrong := larder(t, append(way, other.path("root.pem"))...)
	if wrong.exit != 1 || !strings.Contains(wrong.stderr, "the certificate that was issued cannot be used") || !strings.Contains(wrong.stderr, "Example") {
		t.Errorf("with the root of somebody else: %s", wrong)
	}
	if s.Refresh(); s.HTTPS != "" {
		t.Error("HTTPS is on")
	}
	if missing := larder(t, append(way, s.path("nowhere.pem"))...); missing.exit != 3 || !strings.Contains(missing.stderr, "--root") {
		t.Errorf("with a root that is not there: %s", missing)
	}
	must(t, append(way, s.path("root.pem"))...)
	s.served(t)
	handshake := func() *x509.Certificate {
		t.Helper()
		state, err := s.handshake(t, &tls.Config{RootCAs: s.roots(t), ServerName: "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0]
	}
	was := handshake()
	must(t, "tls", "renew", "--dir", s.tls)
	if now := handshake(); now.Equal(was) || now.Issuer.CommonName != "Example Issuing CA" {
		t.Errorf("not renewed: %s of %s", now.SerialNumber, now.Issuer)
	}
}

// A command that fails is tried again by the node itself, and what it said can
// be read everywhere meanwhile.
func TestSignCommandThatIsMended(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	sealed := s.write(t, "sealed", "")
	first := s.auto(t, "--sign-command", s.ownSigner(t), "--root", s.path("root.pem"))
	if first.exit != 1 || !strings.Contains(first.stderr, "the vault is sealed") || !strings.Contains(first.stderr, "exit code 1") || !strings.Contains(first.stderr, "the settings are kept") {
		t.Errorf("the first: %s", first)
	}
	if a := s.autoState(t); a == nil || a.Failures != 1 || a.Refused || !a.NextAttempt.After(time.Now()) || !strings.Contains(a.LastError, "the vault is sealed") {
		t.Errorf("the state: %+v", a)
	}
	if err := os.Remove(sealed); err != nil {
		t.Fatal(err)
	}
	// A minute from now at the latest by itself; at once for whoever asks.
	s.write(t, "life", "60s")
	must(t, "tls", "renew", "--dir", s.tls)
	s.served(t)
	was := s.shown(t)

	s.write(t, "sealed", "")
	if r := larder(t, "tls", "renew", "--dir", s.tls); r.exit != 1 || !strings.Contains(r.stderr, "the vault is sealed") {
		t.Errorf("renew: %s", r)
	}
	if !s.shown(t).Equal(was) {
		t.Error("another certificate is served after a failure")
	}
	if r := must(t, "tls", "show", "--dir", s.tls); !strings.Contains(r.stdout, "the vault is sealed") {
		t.Errorf("%s; want what the command said", r)
	}
	// The node hears of another process's failure by its files.
	lardertest.Eventually(t, "the node says what the command said", func() bool {
		return strings.Contains(must(t, "node", "status", "--admin", s.Admin).stdout, "the vault is sealed")
	})
	if !strings.Contains(read(t, filepath.Join(s.tls, inventory.AuditFile)), `"event":"renewal failed"`) {
		t.Error("no line of the audit file says it")
	}
	s.write(t, "life", "24h")
	if err := os.Remove(sealed); err != nil {
		t.Fatal(err)
	}
	lardertest.Eventually(t, "the node renews by itself", func() bool { return !s.shown(t).Equal(was) })
	if a := s.autoState(t); a == nil || a.Failures != 0 || a.LastError != "" || !a.NextAttempt.After(time.Now().Add(12*time.Hour)) {
		t.Errorf("the state after it: %+v", a)
	}
}

func TestKeyIsKeptWhereAsked(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	for i, key := range []string{"keep", "rotate"} {
		if r := s.auto(t, "--sign-command", s.ownSigner(t), "--root", s.path("root.pem"), "--key", key); r.exit != 0 {
			t.Fatalf("%s: %s", key, r)
		}
		s.served(t)
		was := s.shown(t)
		must(t, "tls", "renew", "--dir", s.tls)
		now := s.shown(t)
		if same := string(now.RawSubjectPublicKeyInfo) == string(was.RawSubjectPublicKeyInfo); now.Equal(was) || same != (key == "keep") {
			t.Errorf("--key %s: another certificate %v, the same key %v", key, !now.Equal(was), same)
		}
		files, err := filepath.Glob(filepath.Join(s.tls, "keys", "*"))
		if want := 1 + 2*i; err != nil || len(files) != want {
			t.Errorf("--key %s: %d files of keys, want %d: %v, %v", key, len(files), want, files, err)
		}
	}
	// By hand again: what is in use stays, and its request is put out again.
	now := s.shown(t)
	if off := must(t, "tls", "auto", "--dir", s.tls, "--off"); !strings.Contains(off.stderr, "renewed by hand from now on") || !strings.Contains(off.stdout, "by hand") {
		t.Errorf("off: %s", off)
	}
	if again := must(t, "tls", "renew", "--dir", s.tls); !strings.Contains(again.stdout, "the same as before") || !s.shown(t).Equal(now) {
		t.Errorf("renew by hand: %s", again)
	}
	if show := must(t, "tls", "show", "--dir", s.tls); !strings.Contains(show.stdout, "Renewal") || !strings.Contains(show.stdout, "by hand") {
		t.Errorf("show: %s", show)
	}
}

// A node that slept past the end of its certificate comes back without
// anybody.
func TestExpiredNodeComesBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	life := "3s"
	if lardertest.Race { // issuing alone may take seconds
		life = "12s"
	}
	s.write(t, "life", life)
	if r := s.auto(t, "--sign-command", s.ownSigner(t), "--root", s.path("root.pem")); r.exit != 0 {
		t.Fatal(r)
	}
	s.served(t)
	s.Kill()
	all := decode[[]inventory.Entry](t, must(t, "tls", "list", "--dir", s.tls, "-o", "json"))
	end := all[len(all)-1].NotAfter
	lardertest.Eventually(t, "the certificate ends", func() bool { return time.Now().After(end.Add(time.Second)) })
	if show := must(t, "tls", "show", "--dir", s.tls); !strings.Contains(show.stdout, "expired") || !strings.Contains(show.stdout, "no days left") {
		t.Errorf("show of an expired one: %s", show)
	}
	s.write(t, "life", "24h")
	s.Node = lardertest.StartNode(t, lardertest.NodeConfig{Dir: s.Dir})
	lardertest.Eventually(t, "a client that verifies is served", func() bool {
		if !s.Refresh() || s.HTTPS == "" {
			return false
		}
		_, err := s.handshake(t, &tls.Config{RootCAs: s.roots(t), ServerName: "localhost"})
		return err == nil
	})
	if left := time.Until(s.shown(t).NotAfter); left < 20*time.Hour {
		t.Errorf("%v left", left)
	}
	if list := must(t, "tls", "list", "--dir", s.tls); !strings.Contains(list.stdout, "expired") || !strings.Contains(list.stdout, "active") {
		t.Errorf("list: %s", list)
	}
	if status := must(t, "node", "status", "--admin", s.Admin, "-o", "json"); strings.Contains(status.stdout, "expired") {
		t.Errorf("status: %s", status)
	}
}

// Lives of seconds: the node renews again and again, and no client ever sees a
// certificate that is over.
func TestShortLivesAreRenewedInTime(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	s.write(t, "life", "20s")
	if r := s.auto(t, "--sign-command", s.ownSigner(t), "--root", s.path("root.pem")); r.exit != 0 {
		t.Fatal(r)
	}
	s.served(t)
	renewals := 2
	if testing.Short() {
		renewals = 1
	}
	was := s.shown(t)
	for i := range renewals {
		lardertest.Eventually(t, fmt.Sprintf("renewal %d", i+1), func() bool {
			now := s.shown(t) // the handshake verifies, the time too
			if now.Equal(was) {
				return false
			}
			if early := was.NotAfter.Sub(now.NotBefore); early > 9*time.Second {
				t.Errorf("renewed %v before the end of a life of 20s; want at two thirds of it", early)
			}
			was = now
			return true
		})
	}
	lardertest.Eventually(t, "the metric counts them", func() bool { return s.Metric("larder_tls_renewals_total") == float64(1+renewals) })
	if got := s.Metric("larder_tls_renewal_failures_total"); got != 0 {
		t.Errorf("%v failures", got)
	}
}
