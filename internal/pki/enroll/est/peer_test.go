package est

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	peer "github.com/globalsign/est"
	"go.uber.org/goleak"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hierarchy is a root with an issuing CA below it, both of ECDSA.
type hierarchy struct {
	root, issuing *x509.Certificate
	key           *ecdsa.PrivateKey // of issuing
}

func newHierarchy(t testing.TB) *hierarchy {
	t.Helper()
	make := func(name string, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: serial(t), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		if parent == nil {
			parent, by = template, key
		}
		return certificate(t, template, parent, key.Public(), by), key
	}
	root, rootKey := make("Root", nil, nil)
	issuing, key := make("Issuing", root, rootKey)
	return &hierarchy{root, issuing, key}
}

func (h *hierarchy) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(h.root)
	return pool
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func certificate(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf issues what a request asks for. change may alter it.
func (h *hierarchy) leaf(t testing.TB, csr *x509.CertificateRequest, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(t), RawSubject: csr.RawSubject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtraExtensions: csr.Extensions, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if change != nil {
		change(template)
	}
	return certificate(t, template, h.issuing, csr.PublicKey, h.key)
}

// request makes a request for names with a new key.
func request(t testing.TB, algorithm string, names ...string) ([]byte, crypto.Signer) {
	t.Helper()
	key, err := keys.Generate(algorithm, "")
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: names[0], Organization: []string{"Example"}}, DNSNames: names}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

func parse(t testing.TB, csr []byte) *x509.CertificateRequest {
	t.Helper()
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// ca is what stands behind the server of globalsign/est.
type ca struct {
	*hierarchy
	t testing.TB

	mu     sync.Mutex
	calls  []string // guarded by mu
	answer func(*x509.CertificateRequest) (*x509.Certificate, error)
}

func (c *ca) note(call string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, call)
}

func (c *ca) seen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprint(c.calls)
}

func (c *ca) CACerts(_ context.Context, label string, _ *http.Request) ([]*x509.Certificate, error) {
	if label == "unknown" {
		return nil, status{code: http.StatusNotFound, text: "no such label"}
	}
	return []*x509.Certificate{c.root, c.issuing}, nil
}

func (c *ca) CSRAttrs(context.Context, string, *http.Request) (peer.CSRAttrs, error) {
	return peer.CSRAttrs{
		OIDs:       []asn1.ObjectIdentifier{{1, 2, 840, 113549, 1, 9, 7}, {1, 2, 3, 4}},
		Attributes: []peer.Attribute{{Type: asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, Values: []any{asn1.ObjectIdentifier{1, 3, 132, 0, 34}}}},
	}, nil
}

func (c *ca) Enroll(_ context.Context, csr *x509.CertificateRequest, label string, r *http.Request) (*x509.Certificate, error) {
	call := "enroll"
	if label != "" {
		call += "/" + label
	}
	if len(r.TLS.PeerCertificates) > 0 {
		call += " by certificate"
	}
	c.note(call)
	if c.answer != nil {
		return c.answer(csr)
	}
	return c.leaf(c.t, csr, nil), nil
}

func (c *ca) Reenroll(_ context.Context, _ *x509.Certificate, csr *x509.CertificateRequest, _ string, _ *http.Request) (*x509.Certificate, error) {
	c.note("reenroll")
	if c.answer != nil {
		return c.answer(csr)
	}
	return c.leaf(c.t, csr, nil), nil
}

func (c *ca) ServerKeyGen(context.Context, *x509.CertificateRequest, string, *http.Request) (*x509.Certificate, []byte, error) {
	return nil, nil, errors.New("not asked for")
}

func (c *ca) TPMEnroll(context.Context, *x509.CertificateRequest, []*x509.Certificate, []byte, []byte, string, *http.Request) ([]byte, []byte, []byte, error) {
	return nil, nil, nil, errors.New("not asked for")
}

// status is an answer of the CA that is no certificate.
type status struct {
	code, wait int
	text       string
}

func (s status) StatusCode() int { return s.code }
func (s status) Error() string   { return s.text }
func (s status) RetryAfter() int { return s.wait }

const (
	user     = "node"
	password = "correct horse+battery/staple"
)

// serve starts the server of globalsign/est with a CA behind it. Its
// enrolments want the password, unless a certificate was shown.
func serve(t testing.TB, c *ca) string {
	t.Helper()
	router, err := peer.NewRouter(&peer.ServerConfig{CA: c, CheckBasicAuth: func(_ context.Context, r *http.Request, _, name, word string) error {
		if len(r.TLS.PeerCertificates) > 0 || name == user && word == password {
			return nil
		}
		return errors.New("no")
	}})
	if err != nil {
		t.Fatal(err)
	}
	return listen(t, c.hierarchy, router, nil)
}

// listen serves h with TLS, whose certificate change may alter.
func listen(t testing.TB, pki *hierarchy, h http.Handler, change func(*x509.Certificate)) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "EST server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	cert := certificate(t, template, pki.issuing, key.Public(), pki.key)
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw, pki.issuing.Raw}, PrivateKey: key}},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: pki.pool(),
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func signer(t testing.TB, c Config) *Signer {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// current is a certificate in use for csr, which may be changed.
func (h *hierarchy) current(t testing.TB, csr []byte, key crypto.Signer, change func(*x509.Certificate)) *signing.Current {
	t.Helper()
	return &signing.Current{Chain: []*x509.Certificate{h.leaf(t, parse(t, csr), change), h.issuing}, Key: key}
}

func openssl(t testing.TB, input []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	if input != nil {
		cmd.Stdin = bytes.NewReader(input)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, stderr.String())
	}
	return out
}

// opensslCA is an EST server that has nothing of Go's but HTTP: OpenSSL signs
// and wraps.
func opensslCA(t testing.TB, wrap func([]byte) []byte) (url string, root *x509.Certificate) {
	t.Helper()
	pki := newHierarchy(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	writePEM(t, path("issuing.crt"), "CERTIFICATE", pki.issuing.Raw)
	writePEM(t, path("root.crt"), "CERTIFICATE", pki.root.Raw)
	der, err := keys.MarshalPKCS8(pki.key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, path("issuing.key"), "PRIVATE KEY", der)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/est/cacerts", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(wrap(openssl(t, nil, "crl2pkcs7", "-nocrl", "-certfile", path("root.crt"), "-certfile", path("issuing.crt"), "-outform", "DER")))
	})
	mux.HandleFunc("POST /.well-known/est/simpleenroll", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		csr, err := base64.StdEncoding.DecodeString(string(body))
		if err != nil {
			t.Errorf("a request that is no base64: %v", err)
			return
		}
		cert := openssl(t, csr, "x509", "-req", "-inform", "DER", "-CA", path("issuing.crt"), "-CAkey", path("issuing.key"), "-days", "1", "-copy_extensions", "copyall")
		_, _ = w.Write(wrap(openssl(t, cert, "crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin", "-outform", "DER")))
	})
	return listen(t, pki, mux, nil), pki.root
}

func writePEM(t testing.TB, name, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
