package bundle_test

import (
	"crypto"
	"crypto/x509"
	"os/exec"
	"strings"
	"testing"

	"github.com/smallstep/pkcs7"
	"software.sslmate.com/src/go-pkcs12"

	"larder/internal/pki/bundle"
	"larder/internal/pki/keys"
)

// TestGoPKCS12 reads what another implementation writes, PBMAC1 (RFC 9579)
// among it, which the OpenSSL of the tests cannot.
func TestGoPKCS12(t *testing.T) {
	t.Parallel()
	p := newPKI(t, "ECDSA P-256")
	leaf, cas := p.cert(t, "leaf.pem"), []*x509.Certificate{p.cert(t, "ca.pem"), p.cert(t, "root.pem")}
	key, err := keys.ParsePEM(p.read(t, "leaf.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		encoder  *pkcs12.Encoder
		password string
	}{
		"LegacyRC2":    {pkcs12.LegacyRC2, "pässword"},
		"LegacyDES":    {pkcs12.LegacyDES, "pässword"},
		"Modern2023":   {pkcs12.Modern2023, "pässword"},
		"Modern2026":   {pkcs12.Modern2026, "pässword"},
		"Passwordless": {pkcs12.Passwordless, ""},
		"empty":        {pkcs12.Modern2026, ""},
	} {
		data, err := tt.encoder.Encode(key, leaf, cas, tt.password)
		if err != nil {
			t.Fatal(err)
		}
		b, err := bundle.Parse(name, data, bundle.Options{Password: tt.password})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p.whole(t, b, 1)
		data, err = tt.encoder.EncodeTrustStore(cas, tt.password)
		if err != nil {
			t.Fatal(err)
		}
		if b, err = bundle.Parse(name, data, bundle.Options{Password: tt.password}); err != nil || !same(b.Certs, cas...) {
			t.Errorf("%s, trust store: %v, %v", name, b, err)
		}
	}
	if _, err := bundle.Parse("x", encode(t, pkcs12.Modern2026, key, leaf), bundle.Options{Password: "wrong"}); err == nil || !strings.Contains(err.Error(), "the password given does not open it") {
		t.Errorf("PBMAC1 with a wrong password: %v", err)
	}
}

func encode(t *testing.T, e *pkcs12.Encoder, key crypto.Signer, leaf *x509.Certificate) []byte {
	t.Helper()
	data, err := e.Encode(key, leaf, nil, "right")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSmallstepPKCS7 reads what EST and SCEP servers in Go answer with.
func TestSmallstepPKCS7(t *testing.T) {
	t.Parallel()
	p := newPKI(t, "Ed448")
	leaf := p.cert(t, "leaf.pem")
	data, err := pkcs7.DegenerateCertificate(leaf.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := bundle.Parse("x", data, bundle.Options{}); err != nil || b.Format != "PKCS#7" || !same(b.Certs, leaf) {
		t.Errorf("%v, %v", b, err)
	}
}

// TestKeytool reads what Java writes: two keys with their certificates in one
// PKCS#12 file.
func TestKeytool(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("keytool"); err != nil {
		t.Skip("no keytool here")
	}
	p := &pki{t.TempDir()}
	for _, name := range []string{"one", "two"} {
		p.tool(t, "keytool", "-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC", "-genkeypair", "-keystore", "both.p12", "-storetype", "PKCS12", "-storepass", "changeit", "-alias", name, "-keyalg", "EC", "-groupname", "secp256r1", "-dname", "CN="+name)
	}
	b, err := bundle.ReadFile(p.path("both.p12"), bundle.Options{Password: "changeit"})
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Keys) != 2 || len(b.Certs) != 2 {
		t.Fatalf("%d keys and %d certificates; want 2 of each", len(b.Keys), len(b.Certs))
	}
	for _, key := range b.Keys {
		if chain, unused, err := b.Chain(key.Public()); err != nil || len(chain) != 1 || len(unused) != 1 {
			t.Errorf("chain %s, unused %s, %v", subjects(chain), subjects(unused), err)
		}
	}
}

// TestSeveralKeys: a file may hold more than one key, and keys alone where a
// key is wanted.
func TestSeveralKeys(t *testing.T) {
	t.Parallel()
	p := newPKI(t, "Ed448")
	data := append(p.read(t, "leaf.key"), p.read(t, "ca.key")...)
	b, err := bundle.Parse("keys", data, bundle.Options{Key: true})
	if err != nil || len(b.Keys) != 2 {
		t.Fatalf("%v, %v", b, err)
	}
	p.run(t, "pkcs12", "-export", "-inkey", "leaf.key", "-nocerts", "-passout", "pass:right", "-out", "key.pfx")
	if b, err = bundle.ReadFile(p.path("key.pfx"), bundle.Options{Key: true, Password: "right"}); err != nil || len(b.Keys) != 1 || keys.Kind(b.Keys[0].Public()) != "Ed448" {
		t.Errorf("%v, %v", b, err)
	}
}
