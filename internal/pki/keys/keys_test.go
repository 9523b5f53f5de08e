package keys_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"larder/internal/pki/ed448"
	"larder/internal/pki/keys"
)

func openssl(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func read(t testing.TB, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// kinds are all kinds of keys that can be made, with what people and OpenSSL
// call them.
var kinds = []struct {
	algorithm, size, kind, text string
	servable                    bool
}{
	{keys.RSA, "2048", "RSA 2048", "Private-Key: (2048 bit, 2 primes)", true},
	{keys.RSA, "3072", "RSA 3072", "Private-Key: (3072 bit, 2 primes)", true},
	{keys.RSA, "4096", "RSA 4096", "Private-Key: (4096 bit, 2 primes)", true},
	{keys.EC, "prime256v1", "ECDSA P-256", "ASN1 OID: prime256v1", true},
	{keys.EC, "secp384r1", "ECDSA P-384", "ASN1 OID: secp384r1", true},
	{keys.Ed25519, "", "Ed25519", "ED25519 Private-Key", true},
	{keys.Ed448, "", "Ed448", "ED448 Private-Key", false},
}

// TestOpenSSLReadsOurs: every kind of key, and with it the same public key.
func TestOpenSSLReadsOurs(t *testing.T) {
	t.Parallel()
	for _, tt := range kinds {
		t.Run(tt.kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			key, err := keys.Generate(tt.algorithm, tt.size)
			if err != nil {
				t.Fatal(err)
			}
			if got := keys.Kind(key.Public()); got != tt.kind {
				t.Errorf("kind %q", got)
			}
			if algorithm, size := keys.AlgorithmOf(key.Public()); algorithm != tt.algorithm || size != tt.size {
				t.Errorf("algorithm and size %q %q", algorithm, size)
			}
			if got := keys.Servable(key.Public()); got != tt.servable {
				t.Errorf("servable: %v", got)
			}
			data, err := keys.MarshalPEM(key)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "key"), data, 0o600); err != nil {
				t.Fatal(err)
			}
			out := openssl(t, dir, "pkey", "-in", "key", "-check", "-noout", "-text")
			if !strings.Contains(out, "Key is valid") || !strings.Contains(out, tt.text) {
				t.Errorf("OpenSSL says:\n%s", out)
			}
			openssl(t, dir, "pkey", "-in", "key", "-pubout", "-outform", "DER", "-out", "public")
			if got, want := read(t, dir, "public"), spki(t, key.Public()); !bytes.Equal(got, want) {
				t.Errorf("OpenSSL's public key is %x; want %x", got, want)
			}
			again, err := keys.ParsePEM(data)
			if err != nil || !keys.Same(again.Public(), key.Public()) {
				t.Errorf("read again: %v", err)
			}
		})
	}
}

func spki(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	if k, ok := public.(ed448.PublicKey); ok {
		der, err := ed448.MarshalSPKI(k)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestWeReadOpenSSL: every kind of key in every form that is not encrypted.
func TestWeReadOpenSSL(t *testing.T) {
	t.Parallel()
	ec := func(curve string) []string {
		return []string{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:" + curve}
	}
	for _, tt := range []struct {
		kind string
		args []string
	}{
		{"RSA 2048", []string{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}},
		{"RSA 2048", []string{"genrsa", "-traditional", "2048"}},
		{"ECDSA P-256", ec("P-256")},
		{"ECDSA P-384", ec("P-384")},
		{"ECDSA P-521", ec("P-521")},
		{"ECDSA P-256", []string{"ecparam", "-name", "prime256v1", "-genkey"}}, // with EC PARAMETERS before it
		{"ECDSA P-384", []string{"ecparam", "-name", "secp384r1", "-genkey", "-noout"}},
		{"Ed25519", []string{"genpkey", "-algorithm", "ed25519"}},
		{"Ed448", []string{"genpkey", "-algorithm", "ed448"}},
	} {
		dir := t.TempDir()
		openssl(t, dir, slices.Insert(slices.Clone(tt.args), 1, "-out", "key")...)
		openssl(t, dir, "pkey", "-in", "key", "-pubout", "-outform", "DER", "-out", "public")
		openssl(t, dir, "pkcs8", "-topk8", "-nocrypt", "-in", "key", "-outform", "DER", "-out", "pkcs8")
		key, err := keys.ParsePEM(read(t, dir, "key"))
		if err != nil {
			t.Errorf("%v: %v", tt.args, err)
			continue
		}
		if got := keys.Kind(key.Public()); got != tt.kind {
			t.Errorf("%v: %q; want %q", tt.args, got, tt.kind)
		}
		if got, want := spki(t, key.Public()), read(t, dir, "public"); !bytes.Equal(got, want) {
			t.Errorf("%v: public key %x; want %x", tt.args, got, want)
		}
		if again, err := keys.ParsePKCS8(read(t, dir, "pkcs8")); err != nil || !keys.Same(again.Public(), key.Public()) {
			t.Errorf("%v: as PKCS#8: %v", tt.args, err)
		}
	}
}

// TestPublicOf: certificates and requests of kinds that crypto/x509 knows, and
// of Ed448.
func TestPublicOf(t *testing.T) {
	t.Parallel()
	for _, tt := range kinds {
		if tt.size == "3072" || tt.size == "4096" {
			continue // nothing new, and slow
		}
		dir := t.TempDir()
		key, err := keys.Generate(tt.algorithm, "")
		if err != nil {
			t.Fatal(err)
		}
		data, err := keys.MarshalPEM(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "key"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		openssl(t, dir, "req", "-x509", "-key", "key", "-subj", "/CN=x", "-outform", "DER", "-out", "crt")
		openssl(t, dir, "req", "-new", "-key", "key", "-subj", "/CN=x", "-outform", "DER", "-out", "csr")
		cert, err := x509.ParseCertificate(read(t, dir, "crt"))
		if err != nil {
			t.Fatal(err)
		}
		req, err := x509.ParseCertificateRequest(read(t, dir, "csr"))
		if err != nil {
			t.Fatal(err)
		}
		if !keys.Same(keys.PublicOf(cert), key.Public()) || !keys.Same(keys.PublicOfRequest(req), key.Public()) {
			t.Errorf("%s: not the key it was made with", tt.kind)
		}
	}
}

// TestServable agrees with what Go's TLS does.
func TestServable(t *testing.T) {
	t.Parallel()
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if algorithm, size := keys.AlgorithmOf(p521.Public()); algorithm != keys.EC || size != "P-521" {
		t.Errorf("P-521 is %q %q", algorithm, size)
	}
	if algorithm, size := keys.AlgorithmOf("no key"); algorithm != "" || size != "" {
		t.Errorf("something that is no key is %q %q", algorithm, size)
	}
	for _, key := range []crypto.Signer{p224, p521} {
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		chain := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
		hello := &tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13}, CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256},
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP521AndSHA512}}
		if can := hello.SupportsCertificate(&chain) == nil; keys.Servable(key.Public()) != can {
			t.Errorf("%s: Servable says %v, TLS %v", keys.Kind(key.Public()), !can, can)
		}
	}
	if keys.Servable(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 511), E: 65537}) {
		t.Error("an RSA key of 512 bits is called servable; crypto/rsa does not sign with it")
	}
	if keys.Servable("no key") || keys.Kind(nil) != "" {
		t.Error("something that is no key has a kind")
	}
}

// TestSame: keys of different kinds, and none.
func TestSame(t *testing.T) {
	t.Parallel()
	var publics []crypto.PublicKey
	for _, algorithm := range []string{keys.EC, keys.EC, keys.Ed25519, keys.Ed448, keys.Ed448} {
		key, err := keys.Generate(algorithm, "")
		if err != nil {
			t.Fatal(err)
		}
		publics = append(publics, key.Public())
	}
	publics = append(publics, nil)
	for i, a := range publics {
		for j, b := range publics {
			if got, want := keys.Same(a, b), i == j && a != nil; got != want {
				t.Errorf("%d and %d: %v", i, j, got)
			}
		}
	}
}

func TestGenerateKnowsItsWords(t *testing.T) {
	t.Parallel()
	for _, tt := range [][2]string{{"RSA", "1024"}, {"EC", "2048"}, {"ED448", "448"}, {"DSA", ""}, {"", ""}} {
		key, err := keys.Generate(tt[0], tt[1])
		if key != nil || err == nil || !strings.Contains(err.Error(), "no kind of key is called") {
			t.Errorf("%v: %v, %v", tt, key, err)
		}
	}
	for _, algorithm := range []string{keys.RSA, keys.EC} {
		key, err := keys.Generate(algorithm, "")
		if err != nil {
			t.Fatal(err)
		}
		if want := keys.Sizes(algorithm)[0]; algorithm == keys.RSA && keys.Kind(key.Public()) != "RSA "+want || algorithm == keys.EC && keys.Kind(key.Public()) != "ECDSA P-256" {
			t.Errorf("%s without a size is %s", algorithm, keys.Kind(key.Public()))
		}
	}
}

// TestBrokenFiles: each with its message, and never a key beside an error.
func TestBrokenFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openssl(t, dir, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key")
	openssl(t, dir, "pkcs8", "-topk8", "-in", "key", "-passout", "pass:secret", "-out", "encrypted")
	openssl(t, dir, "ec", "-in", "key", "-aes128", "-passout", "pass:secret", "-out", "encrypted-old")
	openssl(t, dir, "genpkey", "-algorithm", "X25519", "-out", "x25519")
	openssl(t, dir, "req", "-x509", "-key", "key", "-subj", "/CN=x", "-out", "crt")
	block := func(kind string) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("x")}) }
	good := read(t, dir, "key")
	for _, tt := range []struct {
		name string
		data []byte
		is   error
		want string
	}{
		{"empty", nil, keys.ErrNoKey, ""},
		{"words", []byte("hello"), keys.ErrNoKey, ""},
		{"a certificate", read(t, dir, "crt"), keys.ErrNoKey, ""},
		{"half a key", good[:len(good)/2], keys.ErrNoKey, ""},
		{"encrypted", read(t, dir, "encrypted"), keys.ErrEncrypted, ""},
		{"encrypted, old", read(t, dir, "encrypted-old"), keys.ErrEncrypted, ""},
		{"X25519", read(t, dir, "x25519"), nil, "a key that cannot sign"},
		{"OpenSSH", block("OPENSSH PRIVATE KEY"), nil, "a form that is not read here (OPENSSH PRIVATE KEY)"},
		{"DSA", block("DSA PRIVATE KEY"), nil, "a form that is not read here (DSA PRIVATE KEY)"},
		{"broken PKCS#8", block("PRIVATE KEY"), nil, "asn1"},
		{"broken PKCS#1", block("RSA PRIVATE KEY"), nil, "asn1"},
		{"broken SEC 1", block("EC PRIVATE KEY"), nil, "failed to parse EC private key"},
	} {
		key, err := keys.ParsePEM(tt.data)
		if key != nil || err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want %v %q", tt.name, key, err, tt.is, tt.want)
		}
	}
	if key, err := keys.ParsePEM(append(read(t, dir, "crt"), good...)); err != nil || keys.Kind(key.Public()) != "ECDSA P-256" {
		t.Errorf("a key after a certificate: %v", err)
	}
	if _, err := keys.MarshalPEM(noKey{}); err == nil {
		t.Error("a signer of an unknown kind is written")
	}
}

type noKey struct{ crypto.Signer }

func FuzzParsePEM(f *testing.F) {
	for _, algorithm := range []string{keys.EC, keys.Ed25519, keys.Ed448} {
		key, err := keys.Generate(algorithm, "")
		if err != nil {
			f.Fatal(err)
		}
		data, err := keys.MarshalPEM(key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		if ec, ok := key.(*ecdsa.PrivateKey); ok {
			der, err := x509.MarshalECPrivateKey(ec)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
		}
		if ed, ok := key.(ed25519.PrivateKey); ok {
			f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: x\n\n" + string(ed[:8]) + "\n-----END RSA PRIVATE KEY-----\n"))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := keys.ParsePEM(data)
		if (key == nil) != (err != nil) {
			t.Fatalf("a key: %v; error: %v", key != nil, err)
		}
		if err != nil {
			return
		}
		again, err := keys.MarshalPEM(key)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := keys.ParsePEM(again); err != nil || !keys.Same(same.Public(), key.Public()) {
			t.Fatalf("written and read again: %v", err)
		}
	})
}
