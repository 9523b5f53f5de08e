package revocation

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ocsp"

	"larder/internal/lardertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// made is a certificate with its key.
type made struct {
	*x509.Certificate
	key crypto.Signer
}

func issue(t testing.TB, parent *made, cn string, change func(*x509.Certificate)) *made {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(0x1001),
		Subject:      pkix.Name{CommonName: cn},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	if change != nil {
		change(tmpl)
	}
	from, signer := tmpl, crypto.Signer(key)
	if parent != nil {
		from, signer = parent.Certificate, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, from, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &made{c, key}
}

func newCA(t testing.TB) *made {
	t.Helper()
	return issue(t, nil, "Issuing CA", asCA)
}

func asCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid = true, true
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
}

func number(n int64) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.SerialNumber = big.NewInt(n) }
}

// asking makes certificates that name where to ask.
func asking(serial int64, responders, lists []string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.SerialNumber, c.OCSPServer, c.CRLDistributionPoints = big.NewInt(serial), responders, lists
	}
}

// server answers one path after the other, each as it is told, and counts.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	paths map[string]http.HandlerFunc // guarded by mu
	asked map[string]int              // guarded by mu
}

func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{paths: make(map[string]http.HandlerFunc), asked: make(map[string]int)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		h := s.paths[r.URL.Path]
		s.asked[r.URL.Path]++
		s.mu.Unlock()
		if h == nil {
			http.NotFound(w, r)
			return
		}
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) handle(path string, h http.HandlerFunc) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths[path] = h
	return s.URL + path
}

func (s *server) serve(path string, data []byte) string {
	return s.handle(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) })
}

func (s *server) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[path]
}

// response makes an OCSP response: good, of now, signed by ca; changed by
// change. A responder: signed by it, its certificate with it.
func response(t testing.TB, ca, responder *made, serial int64, change func(*ocsp.Response)) []byte {
	t.Helper()
	now := time.Now()
	tmpl := ocsp.Response{Status: ocsp.Good, SerialNumber: big.NewInt(serial), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
	signer := ca
	if responder != nil {
		signer, tmpl.Certificate = responder, responder.Certificate
	}
	if change != nil {
		change(&tmpl)
	}
	der, err := ocsp.CreateResponse(ca.Certificate, signer.Certificate, tmpl, signer.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// crl makes a list: of now, with some revoked numbers; changed by change.
func crl(t testing.TB, ca *made, change func(*x509.RevocationList), revoked ...int64) []byte {
	t.Helper()
	now := time.Now()
	tmpl := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
	for _, n := range revoked {
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: now.Add(-time.Hour), ReasonCode: 4})
	}
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, ca.Certificate, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// openssl is a CA's directory for the openssl binary.
type openssl struct {
	t   testing.TB
	dir string
}

func newOpenSSL(t testing.TB, ca *made) *openssl {
	t.Helper()
	lardertest.Program(t, "openssl")
	o := &openssl{t, t.TempDir()}
	o.keep("ca", ca)
	o.write("crlnumber", []byte("01\n"))
	o.write("ca.cnf", []byte("[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_md=sha256\nunique_subject=no\ncrl_extensions=x\n[x]\nauthorityKeyIdentifier=keyid\n"))
	return o
}

func (o *openssl) write(name string, data []byte) {
	o.t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), data, 0o600); err != nil {
		o.t.Fatal(err)
	}
}

func (o *openssl) keep(name string, c *made) {
	o.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		o.t.Fatal(err)
	}
	o.write(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	o.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}

// index writes the CA's book: lines of "V SERIAL" and "R SERIAL REASON".
func (o *openssl) index(lines ...string) {
	o.t.Helper()
	var b strings.Builder
	for _, l := range lines {
		f := append(strings.Fields(l), "")
		revoked := ""
		if f[0] == "R" {
			revoked = strings.TrimSuffix(revokedAt.Format("060102150405Z")+","+f[2], ",")
		}
		fmt.Fprintf(&b, "%s\t491231235959Z\t%s\t%s\tunknown\t/CN=%[3]s\n", f[0], revoked, f[1])
	}
	o.write("index.txt", []byte(b.String()))
}

var revokedAt = time.Date(2024, 2, 29, 1, 2, 3, 0, time.UTC)

func (o *openssl) run(args ...string) {
	o.t.Helper()
	cmd := exec.CommandContext(o.t.Context(), "openssl", args...)
	cmd.Dir = o.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		o.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// crl has openssl write a list of the index.
func (o *openssl) crl(args ...string) []byte {
	o.t.Helper()
	o.run(append([]string{"ca", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key", "-gencrl", "-out", "list.pem"}, args...)...)
	o.run("crl", "-in", "list.pem", "-outform", "DER", "-out", "list.der")
	data, err := os.ReadFile(filepath.Join(o.dir, "list.der"))
	if err != nil {
		o.t.Fatal(err)
	}
	return data
}

var acceptLine = regexp.MustCompile(`^ACCEPT .*:(\d+)`)

// responder starts openssl's OCSP responder and returns its address. signer
// names its certificate.
func (o *openssl) responder(signer string, args ...string) string {
	o.t.Helper()
	cmd := exec.Command("openssl", append([]string{"ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", signer + ".pem", "-rkey", signer + ".key", "-port", "0"}, args...)...)
	cmd.Dir = o.dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		o.t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	done := make(chan struct{})
	o.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
		if o.t.Failed() {
			o.t.Logf("openssl ocsp: %s", said.String())
		}
	})
	port := make(chan string, 1)
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := acceptLine.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case port <- m[1]:
				default:
				}
			}
		}
	}()
	select {
	case p := <-port:
		return "http://127.0.0.1:" + p
	case <-done:
		o.t.Fatalf("openssl ocsp ended: %s", said.String())
	case <-time.After(20 * time.Second):
		o.t.Fatal("openssl ocsp does not say where it listens")
	}
	return ""
}
