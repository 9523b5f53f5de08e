package vet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
	"larder/internal/pki/keys"
)

// now is when the certificates of these tests are looked at.
var now = time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)

// made is a certificate with its key.
type made struct {
	*x509.Certificate
	key crypto.Signer
}

func newKey(t testing.TB, algorithm, size string) crypto.Signer {
	t.Helper()
	key, err := keys.Generate(algorithm, size)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func p256(t testing.TB) crypto.Signer { t.Helper(); return newKey(t, keys.EC, "") }

// issue makes a certificate: a good one for a server, changed by change. A nil
// parent: signed by itself. A nil key: a new one.
func issue(t testing.TB, parent *made, key crypto.Signer, cn string, change func(*x509.Certificate)) *made {
	t.Helper()
	if key == nil {
		key = p256(t)
	}
	id := sha1.Sum([]byte(cn))
	tmpl := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(id[:8]),
		Subject:      pkix.Name{CommonName: cn},
		SubjectKeyId: id[:],
		NotBefore:    now.AddDate(0, -1, 0),
		NotAfter:     now.AddDate(0, 6, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(tmpl)
	}
	from, signer := tmpl, key
	if parent != nil {
		from, signer = parent.Certificate, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, from, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return &made{parse(t, der), key}
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ca makes a template a CA's.
func ca(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.MaxPathLen = true, true, -1
	c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil
	c.NotBefore, c.NotAfter = now.AddDate(-1, 0, 0), now.AddDate(5, 0, 0)
}

// with makes one change of several.
func with(changes ...func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, change := range changes {
			if change != nil {
				change(c)
			}
		}
	}
}

func dns(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, names...) }
}

func ips(addrs ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, a := range addrs {
			c.IPAddresses = append(c.IPAddresses, net.ParseIP(a))
		}
	}
}

func usage(u x509.KeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.KeyUsage = u }
}

func purposes(p ...x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = p }
}

func times(from, to time.Time) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to }
}

// openssl runs the openssl binary in dir.
func openssl(t testing.TB, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func write(t testing.TB, dir, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func pemOf(certs ...*x509.Certificate) []byte {
	var all []byte
	for _, c := range certs {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return all
}

// workshop is a directory in which openssl makes certificates that
// crypto/x509 cannot make.
type workshop struct {
	t   testing.TB
	dir string
	n   int
}

// work is what openssl is asked for.
type work struct {
	cn         string
	key        string   // arguments of genpkey, or "@" and whose key it is too
	signer     string   // name of the CA; "": by itself
	extensions string   // of the configuration
	digest     string   // "": the default
	options    []string // more arguments of ca
}

const (
	forServer = "subjectAltName=DNS:cache.example\nextendedKeyUsage=serverAuth\nkeyUsage=critical,digitalSignature\n"
	forCA     = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
	ecKey     = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"
	rsaKey    = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048"
)

func newWorkshop(t testing.TB) *workshop {
	t.Helper()
	lardertest.Program(t, "openssl")
	return &workshop{t: t, dir: t.TempDir()}
}

// make makes NAME.key and NAME.pem and returns the certificate.
func (w *workshop) make(name string, k work) *x509.Certificate {
	w.t.Helper()
	w.n++
	if from, ok := strings.CutPrefix(k.key, "@"); ok {
		key, err := os.ReadFile(filepath.Join(w.dir, from+".key"))
		if err != nil {
			w.t.Fatal(err)
		}
		write(w.t, w.dir, name+".key", key)
	} else {
		openssl(w.t, w.dir, append(append([]string{"genpkey"}, strings.Fields(k.key)...), "-out", name+".key")...)
	}
	openssl(w.t, w.dir, "req", "-new", "-config", os.DevNull, "-key", name+".key", "-subj", "/CN="+k.cn, "-out", name+".csr")
	conf := fmt.Sprintf("[ca]\ndefault_ca=d\n[d]\ndatabase=index%d.txt\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\npolicy=p\nemail_in_dn=no\nunique_subject=no\n[p]\ncommonName=optional\n[x]\n%s", w.n, k.extensions)
	write(w.t, w.dir, name+".cnf", []byte(conf))
	write(w.t, w.dir, fmt.Sprintf("index%d.txt", w.n), nil)
	args := []string{"ca", "-batch", "-notext", "-config", name + ".cnf", "-in", name + ".csr", "-out", name + ".pem", "-extensions", "x",
		"-startdate", "20260515120000Z", "-enddate", "20261215120000Z"}
	if k.signer == "" {
		args = append(args, "-selfsign", "-keyfile", name+".key")
	} else {
		args = append(args, "-cert", k.signer+".pem", "-keyfile", k.signer+".key")
	}
	if k.digest != "" {
		args = append(args, "-md", k.digest)
	}
	openssl(w.t, w.dir, append(args, k.options...)...)
	data, err := os.ReadFile(filepath.Join(w.dir, name+".pem"))
	if err != nil {
		w.t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		w.t.Fatalf("openssl wrote no certificate: %s", data)
	}
	return parse(w.t, block.Bytes)
}

// weak makes an ECDSA key on a curve that keys does not make.
func weak(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
