package csr_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"larder/internal/lardertest"
	"larder/internal/pki/csr"
	"larder/internal/pki/ed448"
	"larder/internal/pki/keys"
	"larder/internal/pki/san"
)

func openssl(t fataler, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// fataler is a *testing.T or a *rapid.T.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func write(t fataler, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatalf("%v", err)
	}
}

func read(t fataler, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return data
}

// all asks for every kind of name.
var all = csr.Words{
	Algorithm: "RSA", CommonName: "cache.example", Country: "DE", State: "Bavaria", Org: "Example & Söhne",
	SANDNS: []string{"cache.example,*.cache.example"}, SANIP: []string{"10.0.0.5,fd00::5"}, SANURI: []string{"https://cache.example/"},
	SANEmail: []string{"admin@example.com"}, SANRID: []string{"1.2.3.4"}, SANDirName: []string{"/C=DE/O=Example/CN=node"},
	SANOtherName: []string{"1.3.6.1.4.1.311.20.2.3;UTF8:user@example,1.2.3.4;IA5:abc"},
}

// kinds are all kinds of keys, with what OpenSSL shows of request and
// signature, and of key usage.
var kinds = []struct{ algorithm, size, public, signature, usage string }{
	{keys.RSA, "2048", "Public-Key: (2048 bit)", "sha256WithRSAEncryption", "Digital Signature, Key Encipherment"},
	{keys.RSA, "3072", "Public-Key: (3072 bit)", "sha256WithRSAEncryption", "Digital Signature, Key Encipherment"},
	{keys.RSA, "4096", "Public-Key: (4096 bit)", "sha256WithRSAEncryption", "Digital Signature, Key Encipherment"},
	{keys.EC, "prime256v1", "ASN1 OID: prime256v1", "ecdsa-with-SHA256", "Digital Signature"},
	{keys.EC, "secp384r1", "ASN1 OID: secp384r1", "ecdsa-with-SHA384", "Digital Signature"},
	{keys.Ed25519, "", "ED25519 Public-Key:", "ED25519", "Digital Signature"},
	{keys.Ed448, "", "ED448 Public-Key:", "ED448", "Digital Signature"},
}

// TestOpenSSLReadsAndSigns: a request with all names, for every kind of key: OpenSSL
// verifies and shows it, we read back what was asked for, and what a CA made of
// it has the same names.
func TestOpenSSLReadsAndSigns(t *testing.T) {
	t.Parallel()
	ca := t.TempDir()
	openssl(t, ca, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key")
	openssl(t, ca, "req", "-x509", "-key", "key", "-subj", "/CN=ca", "-out", "crt")
	for _, tt := range kinds {
		t.Run(strings.TrimSpace(tt.algorithm+" "+tt.size), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			words := all
			words.Algorithm, words.KeySizeOrCurve = tt.algorithm, tt.size
			r, err := words.Request()
			if err != nil {
				t.Fatal(err)
			}
			key, err := r.Key()
			if err != nil {
				t.Fatal(err)
			}
			der, err := r.Create(key)
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, "req", csr.MarshalPEM(der))
			text := openssl(t, dir, "req", "-in", "req", "-noout", "-text", "-verify", "-nameopt", "utf8,sep_comma_plus_space")
			for _, want := range []string{
				"self-signature verify OK\n",
				"Version: 1 (0x0)",
				"Subject: C=DE, ST=Bavaria, O=Example & Söhne, CN=cache.example\n",
				tt.public, "Signature Algorithm: " + tt.signature + "\n",
				"X509v3 Key Usage: critical\n", " " + tt.usage + "\n",
				"X509v3 Extended Key Usage: \n", "TLS Web Server Authentication\n",
				"X509v3 Subject Alternative Name: \n",
				"DNS:cache.example, DNS:*.cache.example, IP Address:10.0.0.5, IP Address:FD00:0:0:0:0:0:0:5, URI:https://cache.example/, " +
					"email:admin@example.com, Registered ID:1.2.3.4, DirName:/C=DE/O=Example/CN=node, othername: UPN::user@example, othername: 1.2.3.4::abc\n",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("OpenSSL does not show %q:\n%s", want, text)
				}
			}
			for _, data := range [][]byte{der, csr.MarshalPEM(der)} {
				req, err := csr.Parse(data)
				if err != nil {
					t.Fatal(err)
				}
				if again, err := csr.RequestOf(req); err != nil || !reflect.DeepEqual(again, r) {
					t.Errorf("read back: %v\n%+v\nwant\n%+v", err, again, r)
				}
				if !keys.Same(keys.PublicOfRequest(req), key.Public()) {
					t.Error("the public key does not come back")
				}
			}
			openssl(t, dir, "x509", "-req", "-in", "req", "-CA", filepath.Join(ca, "crt"), "-CAkey", filepath.Join(ca, "key"), "-copy_extensions", "copyall", "-out", "crt")
			block, _ := pem.Decode(read(t, dir, "crt"))
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := san.OfCertificate(cert); err != nil || !reflect.DeepEqual(n, r.Names) {
				t.Errorf("the certificate names %+v, %v; want %+v", n, err, r.Names)
			}
			if len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
				t.Errorf("the certificate is for %v", cert.ExtKeyUsage)
			}
			if !keys.Same(keys.PublicOf(cert), key.Public()) {
				t.Error("the certificate is for another key")
			}
		})
	}
}

// TestAsOpenSSLWrites: subject and public key byte for byte, and with it the
// order of the subject.
func TestAsOpenSSLWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, tt := range []struct {
		words csr.Words
		subj  string
	}{
		{csr.Words{CommonName: "cache.example", Country: "de", State: "Bayern", Org: "Bücher, Inc."}, "/C=DE/ST=Bayern/O=Bücher, Inc./CN=cache.example"},
		{csr.Words{CommonName: "Cache 7", Org: "a"}, "/O=a/CN=Cache 7"},
		{csr.Words{CommonName: "x"}, "/CN=x"},
	} {
		tt.words.Algorithm, tt.words.SANDNS = "EC", []string{"x"}
		r, err := tt.words.Request()
		if err != nil {
			t.Fatal(err)
		}
		key, err := r.Key()
		if err != nil {
			t.Fatal(err)
		}
		pemKey, err := keys.MarshalPEM(key)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, "key", pemKey)
		openssl(t, dir, "req", "-new", "-utf8", "-key", "key", "-subj", tt.subj, "-out", "req")
		theirs, err := csr.Parse(read(t, dir, "req"))
		if err != nil {
			t.Fatal(err)
		}
		der, err := r.Create(key)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := csr.Parse(der)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours.RawSubject, theirs.RawSubject) || !bytes.Equal(ours.RawSubjectPublicKeyInfo, theirs.RawSubjectPublicKeyInfo) {
			t.Errorf("%s:\n%x\n%x; OpenSSL writes\n%x\n%x", tt.subj, ours.RawSubject, ours.RawSubjectPublicKeyInfo, theirs.RawSubject, theirs.RawSubjectPublicKeyInfo)
		}
	}
}

// TestWeReadOpenSSL: requests of every kind of key in every form, with all
// kinds of names.
func TestWeReadOpenSSL(t *testing.T) {
	t.Parallel()
	want, err := all.Request()
	if err != nil {
		t.Fatal(err)
	}
	const config = `
[req]
distinguished_name=dn
req_extensions=ext
prompt=no
utf8=yes
[dn]
C=DE
ST=Bavaria
O=Example & Söhne
CN=cache.example
[ext]
subjectAltName=DNS:cache.example,DNS:*.cache.example,IP:10.0.0.5,IP:fd00::5,URI:https://cache.example/,email:admin@example.com,RID:1.2.3.4,dirName:dir,otherName:1.3.6.1.4.1.311.20.2.3;UTF8:user@example,otherName:1.2.3.4;IA5STRING:abc
[dir]
C=DE
O=Example
CN=node
`
	for _, tt := range []struct {
		algorithm, size string
		key, req        []string
	}{
		{keys.RSA, "2048", []string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}, nil},
		{keys.RSA, "2048", []string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}, []string{"-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest", "-sha384"}},
		{keys.RSA, "2048", []string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}, []string{"-sha512"}},
		{keys.EC, "prime256v1", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"}, []string{"-newhdr"}},
		{keys.EC, "secp384r1", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"}, []string{"-text"}},
		{keys.EC, "P-521", []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"}, nil},
		{keys.Ed25519, "", []string{"-algorithm", "ed25519"}, []string{"-outform", "DER"}},
		{keys.Ed448, "", []string{"-algorithm", "ed448"}, []string{"-outform", "DER"}},
		{keys.Ed448, "", []string{"-algorithm", "ed448"}, nil},
	} {
		t.Run(strings.Join(append([]string{tt.algorithm, tt.size}, tt.req...), " "), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, "config", []byte(config))
			openssl(t, dir, append([]string{"genpkey", "-out", "key"}, tt.key...)...)
			openssl(t, dir, append([]string{"req", "-new", "-config", "config", "-key", "key", "-out", "req"}, tt.req...)...)
			req, err := csr.Parse(read(t, dir, "req"))
			if err != nil {
				t.Fatal(err)
			}
			want := want
			want.Algorithm, want.Size = tt.algorithm, tt.size
			if got, err := csr.RequestOf(req); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%v\n%+v\nwant\n%+v", err, got, want)
			}
		})
	}
}

// TestCreateWantsTheKeyThatWasNamed: nobody gets a certificate for a key of
// another kind than asked for.
func TestCreateWantsTheKeyThatWasNamed(t *testing.T) {
	t.Parallel()
	ec, err := keys.Generate(keys.EC, "secp384r1")
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	names := san.Names{DNS: []string{"x"}}
	for _, tt := range []struct {
		algorithm, size string
		key             crypto.Signer
		want            string
	}{
		{keys.EC, "secp384r1", ec, ""},
		{keys.EC, "", ec, ""},
		{keys.EC, "prime256v1", ec, "key: found a key of the kind ECDSA P-384; expected EC prime256v1"},
		{keys.RSA, "", ec, "key: found a key of the kind ECDSA P-384; expected RSA"},
		{keys.RSA, "", &broken{Signer: ec, public: "no key"}, "key: found a key of the kind ; expected RSA"},
		{keys.EC, "", p521, ""},
		{keys.EC, "", &broken{Signer: ec, public: ec.Public(), err: io.ErrUnexpectedEOF}, "signing the request: unexpected EOF"},
		{keys.EC, "", &broken{Signer: ec, public: ec.Public(), sig: []byte("x")}, "reading the request just made: request: found a signature that does not verify"},
		{"DSA", "", ec, `--algo: found "DSA"`},
	} {
		der, err := csr.Request{Algorithm: tt.algorithm, Size: tt.size, CommonName: "x", Names: names}.Create(tt.key)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || der != nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s %s with %T: %v; want %q", tt.algorithm, tt.size, tt.key, err, tt.want)
		}
	}
}

// broken is a signer that says, fails or signs something else.
type broken struct {
	crypto.Signer
	public crypto.PublicKey
	sig    []byte
	err    error
}

func (b *broken) Public() crypto.PublicKey { return b.public }

func (b *broken) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return b.sig, b.err }

// TestBrokenRequests: each with its message.
func TestBrokenRequests(t *testing.T) {
	t.Parallel()
	good := make(map[string][]byte)
	for _, algorithm := range []string{keys.EC, keys.Ed448} {
		r := csr.Request{Algorithm: algorithm, CommonName: "x", Names: san.Names{DNS: []string{"x"}}}
		key, err := r.Key()
		if err != nil {
			t.Fatal(err)
		}
		if good[algorithm], err = r.Create(key); err != nil {
			t.Fatal(err)
		}
	}
	spoil := func(der []byte, at int) []byte {
		der = slices.Clone(der)
		der[(at+len(der))%len(der)] ^= 1
		return der
	}
	ec, e4 := good[keys.EC], good[keys.Ed448]
	// An Ed448 signature below the key of another kind.
	mixed := bytes.Replace(ec, []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02}, []byte{0x06, 0x03, 0x2b, 0x65, 0x71, 0x04, 0x03, 0x55, 0x04, 0x03}, 1)
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "request: found nothing; expected a certificate request, PKCS#10 in PEM or DER"},
		{"words", []byte("hello"), "found neither PEM nor DER"},
		{"half a block", csr.MarshalPEM(ec)[:200], "found a PEM block that does not end; expected a certificate request, PKCS#10 in PEM or DER; next: copy it again"},
		{"another kind", lardertest.NewCA(t).PEM, "found PEM of another kind: CERTIFICATE"},
		{"two", append(csr.MarshalPEM(ec), csr.MarshalPEM(e4)...), "found more than one request; expected one"},
		{"a certificate in DER", lardertest.NewCA(t).Cert.Raw, "found data that is no certificate request"},
		{"cut off", ec[:len(ec)-1], "found data that is no certificate request"},
		{"something after it", append(slices.Clone(ec), 0), "found data that is no certificate request"},
		{"broken in PEM", csr.MarshalPEM(ec[:20]), "found data that is no certificate request"},
		{"another signature", spoil(ec, -1), "found a signature that does not verify"},
		{"another name", bytes.Replace(ec, []byte("\x82\x01x"), []byte("\x82\x01y"), 1), "found a signature that does not verify"},
		{"another signature, Ed448", spoil(e4, -5), "found a signature that does not verify (the Ed448 signature does not match)"},
		{"another name, Ed448", bytes.Replace(e4, []byte("\x82\x01x"), []byte("\x82\x01y"), 1), "found a signature that does not verify (the Ed448 signature does not match)"},
		{"an unknown signature", mixed, "found a signature that does not verify"},
	} {
		req, err := csr.Parse(tt.data)
		if err == nil || req != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
	req, err := csr.Parse(append([]byte("Certificate Request:\n  Data:\n"), csr.MarshalPEM(ec)...))
	if err != nil {
		t.Fatalf("text before the request: %v", err)
	}
	// RequestOf says what it has no words for.
	key, err := ed448.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	spki, err := ed448.MarshalSPKI(key.Public().(ed448.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	req.PublicKey, req.RawSubjectPublicKeyInfo = nil, spki
	if r, err := csr.RequestOf(req); err != nil || r.Algorithm != keys.Ed448 {
		t.Errorf("%+v, %v", r, err)
	}
	req.RawSubjectPublicKeyInfo = spki[:20]
	subject, err := san.ParseDirName("/OU=Unit/CN=a/CN=b/O=x")
	if err != nil {
		t.Fatal(err)
	}
	req.RawSubject = subject.DER()
	for i := range req.Extensions {
		if req.Extensions[i].Id.Equal(san.OID) {
			req.Extensions[i].Value = []byte{0x30, 1}
		}
	}
	r, err := csr.RequestOf(req)
	if r.CommonName != "a" || r.Organization != "x" {
		t.Errorf("what could be read is lost: %+v", r)
	}
	for _, want := range []string{"--algo: found a kind of key that is unknown here; expected RSA, EC, ED25519, ED448", "subject: found OU=Unit; expected each of C, ST, O and CN at most once",
		"subject: found CN=b; expected", "reading subject alternative names"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	req.RawSubject = []byte{0}
	if _, err := csr.RequestOf(req); err == nil || !strings.Contains(err.Error(), "a directory name") {
		t.Errorf("a broken subject: %v", err)
	}
}

// sanLine finds what OpenSSL shows of names.
var sanLine = regexp.MustCompile(`X509v3 Subject Alternative Name: \n +(.*)\n`)

// opensslNames writes names as OpenSSL shows them.
func opensslNames(n san.Names) string {
	var texts []string
	for _, text := range n.Texts() {
		kind, rest, _ := strings.Cut(text, ":")
		switch kind {
		case "IP":
			ip := n.IP[0]
			n.IP = n.IP[1:]
			if rest = ip.String(); ip.Is6() {
				b := ip.As16()
				var groups []string
				for i := 0; i < 16; i += 2 {
					groups = append(groups, fmt.Sprintf("%X", uint16(b[i])<<8|uint16(b[i+1])))
				}
				rest = strings.Join(groups, ":")
			}
			text = "IP Address:" + rest
		case "RID":
			text = "Registered ID:" + rest
		case "otherName":
			oid, value, _ := strings.Cut(rest, ";")
			word, value, _ := strings.Cut(value, ":")
			if word == "HEX" {
				value = "<unsupported>"
			}
			text = "othername: " + oid + "::" + value
		case "DirName":
			d := n.DirName[0]
			n.DirName = n.DirName[1:]
			text = "DirName:"
			for _, a := range d.Attributes() {
				text += "/" + a.Type + "="
				for _, c := range []byte(a.Value) {
					if c < 0x80 {
						text += string(rune(c))
					} else {
						text += fmt.Sprintf(`\x%02X`, c)
					}
				}
			}
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}
