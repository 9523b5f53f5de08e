package livecert

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
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKinds: every kind of key and every way to write it.
func TestKinds(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		want string
		key  crypto.Signer
		pem  []byte // nil: PKCS#8
	}{
		{"RSA 2048", rsaKey, nil},
		{"RSA 2048", rsaKey, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))},
		{"ECDSA P-384", p384, nil},
		{"ECDSA P-384", p384, append(block("EC PARAMETERS", []byte{6, 5, 43, 129, 4, 0, 34}), block("EC PRIVATE KEY", sec1)...)},
		{"Ed25519", edKey, nil},
	}
	for i, tt := range tests {
		dir := t.TempDir()
		m := issue(t, nil, tt.key, nil)
		if tt.pem != nil {
			m.keyPEM = tt.pem
		}
		install(t, dir, m)
		c := open(t, dir)
		if s := c.Status(); s.KeyType != tt.want || s.Err != "" {
			t.Errorf("%d: %q, %q; want %s", i, s.KeyType, s.Err, tt.want)
			continue
		}
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if _, err := handshake(t, c.TLSConfig(nil), &tls.Config{InsecureSkipVerify: true, MaxVersion: version}); err != nil {
				t.Errorf("%d: %s: handshake: %v", i, tt.want, err)
			}
		}
	}
}

// TestBadPairs: what cannot be used is refused with a message that helps, and
// what was in use stays.
func TestBadPairs(t *testing.T) {
	t.Parallel()
	ca := issue(t, nil, nil, authority)
	good, other := issue(t, ca, nil, nil), issue(t, ca, nil, nil)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	odd := issue(t, ca, p224, nil)
	half := func(b []byte) []byte { return b[:len(b)/2] }
	const cert, key = "certs/node.crt", "keys/node.key"
	tests := []struct {
		name  string
		files map[string]string // content; "-" removes, "/" makes a directory
		want  []string          // words of the message
	}{
		{"another key", map[string]string{key: string(other.keyPEM)}, []string{"key (", "does not belong", "requested with", "active.yaml"}},
		{"no certificate file", map[string]string{cert: "-"}, []string{"certificate (", "no such file"}},
		{"no key file", map[string]string{key: "-"}, []string{"key (", "no such file"}},
		{"neither: both are said", map[string]string{cert: "-", key: "-"}, []string{"certificate (", "key ("}},
		{"empty", map[string]string{cert: ""}, []string{"an empty file"}},
		{"half written", map[string]string{cert: string(half(other.certPEM))}, []string{"1 certificates begun and 0 whole", "being written"}},
		{"half a chain", map[string]string{cert: string(good.certPEM) + string(half(ca.certPEM))}, []string{"2 certificates begun and 1 whole"}},
		{"half a key", map[string]string{key: string(half(other.keyPEM))}, []string{"a PEM block that does not end", "being written"}},
		{"DER", map[string]string{cert: string(other.cert.Raw)}, []string{"binary data", "larder tls import"}},
		{"words", map[string]string{cert: "hello\n"}, []string{"text that is not PEM"}},
		{"exchanged", map[string]string{cert: string(good.keyPEM), key: string(good.certPEM)}, []string{"another kind: PRIVATE KEY", "another kind: CERTIFICATE"}},
		{"PKCS#7", map[string]string{cert: string(block("PKCS7", []byte("x")))}, []string{"another kind: PKCS7", "larder tls import"}},
		{"broken inside", map[string]string{cert: string(block("CERTIFICATE", []byte("x")))}, []string{"no certificate as number 1"}},
		{"broken key inside", map[string]string{key: string(block("PRIVATE KEY", []byte("x")))}, []string{"cannot be read"}},
		{"encrypted key", map[string]string{key: string(block("ENCRYPTED PRIVATE KEY", []byte("x")))}, []string{"an encrypted private key", "without a password", "openssl pkey"}},
		{"encrypted key, old", map[string]string{key: "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"}, []string{"an encrypted private key"}},
		{"issuer first", map[string]string{cert: string(ca.certPEM) + string(good.certPEM)}, []string{"as number 2 of 2", "to be the first"}},
		{"a curve that TLS has not", map[string]string{cert: string(odd.certPEM), key: string(odd.keyPEM)}, []string{"ECDSA P-224", "another kind of key"}},
		{"a directory", map[string]string{cert: "/"}, []string{"it is a directory"}},
		{"too large", map[string]string{cert: strings.Repeat("x", mostBytes+1)}, []string{"larger than"}},
		{"active.yaml: a field unknown", map[string]string{"active.yaml": activeText + "chain: x\n"}, []string{"active.yaml:3", "chain"}},
		{"active.yaml: fields missing", map[string]string{"active.yaml": "{}\n"}, []string{"certificate: must be set", "key: must be set"}},
		{"active.yaml: leads out", map[string]string{"active.yaml": "certificate: ../../node.crt\nkey: keys/node.key\n"}, []string{"active.yaml:1", "below the tls directory"}},
		{"active.yaml: empty", map[string]string{"active.yaml": ""}, []string{"active.yaml"}},
		{"active.yaml: a directory", map[string]string{"active.yaml": "/"}, []string{"it is a directory"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			install(t, dir, good)
			c := open(t, dir)
			changed := c.Changed()
			spoil := func() {
				for name, content := range tt.files {
					name = filepath.Join(dir, name)
					if err := os.Remove(name); err != nil {
						t.Fatal(err)
					}
					switch content {
					case "-":
					case "/":
						if err := os.Mkdir(name, 0o700); err != nil {
							t.Fatal(err)
						}
					default:
						write(t, name, []byte(content))
					}
				}
			}
			spoil()
			err := c.Reload()
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q lacks %q", err, w)
				}
			}
			if s := c.Status(); s.Err != err.Error() || s.Subject != good.cert.Subject.String() {
				t.Errorf("status %+v, want the old pair and the error", s)
			}
			if !served(t, c).Equal(good.cert) {
				t.Error("the old certificate is not in use any more")
			}
			if err := c.Reload(); err == nil {
				t.Error("the second look finds nothing wrong")
			}
			if n := metric(t, c, "larder_livecert_reload_failures_total"); n != 1 {
				t.Errorf("%v failures counted for one content, want 1", n)
			}
			if _, again := Check(dir); again == nil || again.Error() != err.Error() {
				t.Errorf("Check: %v, want %v", again, err)
			}
			// At start there is no old one: not served, and no reason not to start.
			if fresh := open(t, dir); fresh.Has() || fresh.Status().Err != err.Error() {
				t.Errorf("opened: has %v, %q", fresh.Has(), fresh.Status().Err)
			}
			// As it was: all is well again, and nothing has changed for clients.
			for name := range tt.files {
				if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			install(t, dir, good)
			if err := c.Reload(); err != nil || c.Status().Err != "" {
				t.Errorf("restored: %v", err)
			}
			select {
			case <-changed:
				t.Error("a change was announced")
			default:
			}
		})
	}
}

// TestUnknownKind: a certificate whose key crypto/x509 does not know, here by
// an object identifier that is nobody's, as Ed448's is to it.
func TestUnknownKind(t *testing.T) {
	t.Parallel()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := issue(t, nil, key, nil)
	ed25519OID, ed448OID := []byte{6, 3, 43, 101, 112}, []byte{6, 3, 43, 101, 113}
	der := bytes.ReplaceAll(m.cert.Raw, ed25519OID, ed448OID)
	_, err = build("c.pem", block("CERTIFICATE", der), "k.pem", m.keyPEM)
	if err == nil || !strings.Contains(err.Error(), "unknown here") {
		t.Errorf("got %v, want that it is unknown", err)
	}
}

func FuzzBuild(f *testing.F) {
	m := issue(f, nil, nil, nil)
	f.Add(m.certPEM, m.keyPEM)
	f.Add(m.certPEM[:40], []byte("-----BEGIN PRIVATE KEY-----\n"))
	f.Add([]byte{0x30, 0x82}, []byte{})
	f.Add(block("CERTIFICATE", nil), block("EC PRIVATE KEY", []byte{0x30, 0}))
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		p, err := build("c", cert, "k", key)
		if err != nil {
			if p != nil || strings.Contains(err.Error(), "%!") {
				t.Fatalf("%v, %v", p, err)
			}
			return
		}
		// What is accepted can do what it is for.
		if _, err := handshake(t, (&tls.Config{Certificates: []tls.Certificate{*p.tls}}), &tls.Config{InsecureSkipVerify: true}); err != nil {
			t.Fatalf("accepted, but: %v", err)
		}
	})
}
