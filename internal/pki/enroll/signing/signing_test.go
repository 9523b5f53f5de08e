package signing_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
)

func TestKindsOfErrors(t *testing.T) {
	t.Parallel()
	if err := signing.Refuse(); err != nil {
		t.Errorf("Refuse of nothing is %v", err)
	}
	one, two := &problem.Problem{Field: "one", Found: "x"}, &problem.Problem{Field: "two", Found: "y"}
	err := signing.Refuse(one)
	if !signing.IsRefused(err) || err.Error() != "one: found x" || !errors.Is(err, error(one)) {
		t.Errorf("Refuse of one is %v", err)
	}
	err = signing.Refuse(one, two)
	if !signing.IsRefused(err) || err.Error() != "one: found x\ntwo: found y" || !errors.Is(err, error(two)) {
		t.Errorf("Refuse of two is %v", err)
	}
	if signing.IsRefused(one) || signing.IsRefused(nil) {
		t.Error("what is not refused is")
	}

	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	err = errors.Join(&signing.RetryAfterError{NotBefore: at, Err: one})
	if got, ok := signing.NotBefore(err); !ok || !got.Equal(at) || !errors.Is(err, error(one)) {
		t.Errorf("NotBefore is %v, %v", got, ok)
	}
	if want := "one: found x; not before 2026-01-02T02:04:05Z"; err.Error() != want {
		t.Errorf("the error is %q; want %q", err, want)
	}
	for _, err := range []error{nil, one, &signing.RetryAfterError{Err: one}} {
		if at, ok := signing.NotBefore(err); ok {
			t.Errorf("NotBefore of %v is %v", err, at)
		}
	}
}

func TestCurrent(t *testing.T) {
	t.Parallel()
	var none *signing.Current
	if none.Leaf() != nil || new(signing.Current).Leaf() != nil {
		t.Error("there is a leaf where there is no certificate")
	}
	cert := new(x509.Certificate)
	if (&signing.Current{Chain: []*x509.Certificate{cert}}).Leaf() != cert {
		t.Error("the leaf is not the first of the chain")
	}
}

// issued makes a certificate for a key, signed by a key of its own.
func issued(t *testing.T, public crypto.PublicKey, isCA bool) *x509.Certificate {
	t.Helper()
	signer := generate(t, keys.EC)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cache.example"},
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: isCA,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der)
}

func parse(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func generate(t *testing.T, algorithm string) crypto.Signer {
	t.Helper()
	key, err := keys.Generate(algorithm, "")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func request(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCheckIssued(t *testing.T) {
	t.Parallel()
	key, other := generate(t, keys.EC), generate(t, keys.Ed25519)
	csr := request(t, key)
	good := issued(t, key.Public(), false)
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		csr   []byte
		wants []string // empty: nothing is wrong
	}{
		"good":            {[]*x509.Certificate{good, issued(t, other.Public(), true)}, csr, nil},
		"another key":     {[]*x509.Certificate{issued(t, other.Public(), false), good}, csr, []string{"public key: found Ed25519 of somebody else (CN=cache.example); expected the request's own ECDSA P-256 key"}},
		"a CA":            {[]*x509.Certificate{issued(t, key.Public(), true)}, csr, []string{"basic constraints: found a CA certificate (CN=cache.example)"}},
		"a CA of its own": {[]*x509.Certificate{issued(t, other.Public(), true)}, csr, []string{"public key", "basic constraints"}},
		"nothing":         {nil, csr, []string{"issued certificate: found none"}},
		"no request":      {[]*x509.Certificate{good}, []byte("junk"), []string{"certificate request: found what is no PKCS#10 request"}},
	} {
		checks(t, name, signing.CheckIssued(c.chain, c.csr), c.wants...)
	}
}

func checks(t *testing.T, name string, err error, wants ...string) {
	t.Helper()
	if len(wants) == 0 {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	if !signing.IsRefused(err) {
		t.Errorf("%s: error is %v; want one that says somebody has to act", name, err)
	}
	for _, want := range wants {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is\n\t%v\nwant it to say\n\t%s", name, err, want)
		}
	}
}

// Keys that crypto/x509 has no type for are compared all the same: Ed448, and
// X448 as one that nobody here knows.
func TestCheckIssuedWithOpenSSL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	var csrs [][]byte
	var certs []*x509.Certificate
	for _, name := range []string{"one", "two"} {
		csrs = append(csrs, run("req", "-new", "-newkey", "ed448", "-nodes", "-keyout", name+".key", "-subj", "/CN="+name, "-outform", "DER"))
		certs = append(certs, parse(t, run("req", "-x509", "-key", name+".key", "-subj", "/CN="+name, "-addext", "basicConstraints=critical,CA:FALSE", "-outform", "DER")))
	}
	checks(t, "own", signing.CheckIssued(certs[:1], csrs[0]))
	checks(t, "other", signing.CheckIssued(certs[:1], csrs[1]), "found Ed448 of somebody else (CN=one); expected the request's own Ed448 key")

	// A certificate for a key that cannot sign, against a request it cannot
	// have come from.
	if err := os.WriteFile(filepath.Join(dir, "one.csr"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csrs[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	run("genpkey", "-algorithm", "X448", "-out", "x448.key")
	run("pkey", "-in", "x448.key", "-pubout", "-out", "x448.pub")
	foreign := parse(t, run("x509", "-req", "-in", "one.csr", "-signkey", "one.key", "-force_pubkey", "x448.pub", "-outform", "DER"))
	checks(t, "unknown", signing.CheckIssued([]*x509.Certificate{foreign}, csrs[0]), "found unknown of somebody else")
}
