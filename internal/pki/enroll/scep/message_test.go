package scep

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	peer "github.com/smallstep/scep/x509util"

	"larder/internal/pki/keys"
)

func openssl(t testing.TB, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, stderr.String())
	}
	return out
}

// request448 makes what crypto/x509 cannot.
func request448(t testing.TB) ([]byte, crypto.Signer) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	openssl(t, "genpkey", "-algorithm", "ED448", "-out", file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.ParsePEM(text)
	if err != nil {
		t.Fatal(err)
	}
	return openssl(t, "req", "-new", "-key", file, "-subj", "/CN="+host, "-addext", "subjectAltName=DNS:"+host, "-outform", "DER"), key
}

func TestOpenSSLReadsOurMessages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	made := rsaKeys()
	ca := issue(t, caTemplate("CA"), nil, made[0].Public(), made[0])
	caKey, err := keys.MarshalPEM(made[0])
	if err != nil {
		t.Fatal(err)
	}
	caFile, keyFile := write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})), write("ca.key", caKey)
	csr, key := rsaRequest(t, host)
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	who, err := newIdentity(req, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, caps := range []string{"SCEPStandard", "AES\nSHA-512", ""} {
		data, err := message(pkcsReq, "0123abcd", []byte("0123456789abcdef"), []byte("content"), who, ca, parseCapabilities([]byte(caps)))
		if err != nil {
			t.Fatal(err)
		}
		file, sealed := write("message", data), filepath.Join(dir, "sealed")
		openssl(t, "cms", "-verify", "-noverify", "-inform", "DER", "-in", file, "-out", sealed, "-binary")
		if got := openssl(t, "cms", "-decrypt", "-inform", "DER", "-in", sealed, "-recip", caFile, "-inkey", keyFile, "-binary"); string(got) != "content" {
			t.Errorf("%q: openssl decrypts to %q", caps, got)
		}
		shown := string(openssl(t, "cms", "-cmsout", "-print", "-noout", "-inform", "DER", "-in", file))
		for _, want := range []string{"PRINTABLESTRING:0123abcd", "PRINTABLESTRING:19", "30 31 32 33 34 35 36 37-38 39 61 62 63"} {
			if !strings.Contains(shown, want) {
				t.Errorf("%q: openssl shows no %s", caps, want)
			}
		}
	}
	for _, size := range []int{1, 7, 8, 15, 16, 17} { // around the block sizes
		for _, kind := range []cipherKind{aesCBC(), tripleDES()} {
			content := bytes.Repeat([]byte{'x'}, size)
			data, err := seal(content, ca, kind)
			if err != nil {
				t.Fatal(err)
			}
			if got := openssl(t, "cms", "-decrypt", "-inform", "DER", "-in", write("sealed", data), "-recip", caFile, "-inkey", keyFile, "-binary"); !bytes.Equal(got, content) {
				t.Errorf("%s, %d bytes: openssl decrypts to %q", kind.name, size, got)
			}
		}
	}
}

func TestChallengeGoesIntoTheRequest(t *testing.T) {
	t.Parallel()
	type made struct {
		csr []byte
		key crypto.Signer
	}
	requests := map[string]made{}
	for _, algorithm := range []string{keys.RSA, keys.EC, keys.Ed25519} {
		csr, key := request(t, algorithm, host, "other.example.com")
		requests[algorithm] = made{csr, key}
	}
	csr, key := request448(t)
	requests[keys.Ed448] = made{csr, key}
	p384, err := keys.Generate(keys.EC, "secp384r1")
	if err != nil {
		t.Fatal(err)
	}
	requests["P-384"] = made{requestWith(t, p384, host), p384}
	for name, m := range requests {
		for _, challenge := range []string{word, "printable", "with_underscore@"} {
			got, err := withChallenge(m.csr, challenge, m.key)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if again, err := peer.ParseChallengePassword(got); err != nil || again != challenge {
				t.Errorf("%s: the challenge reads %q, %v", name, again, err)
			}
			before, err := x509.ParseCertificateRequest(m.csr)
			if err != nil {
				t.Fatal(err)
			}
			after, err := x509.ParseCertificateRequest(got)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(before.RawSubject, after.RawSubject) || !bytes.Equal(before.RawSubjectPublicKeyInfo, after.RawSubjectPublicKeyInfo) || len(after.Extensions) != len(before.Extensions) {
				t.Errorf("%s: more has changed", name)
			}
			for i, e := range before.Extensions {
				if f := after.Extensions[i]; !e.Id.Equal(f.Id) || e.Critical != f.Critical || !bytes.Equal(e.Value, f.Value) {
					t.Errorf("%s: extension %v has changed", name, e.Id)
				}
			}
			file := filepath.Join(t.TempDir(), "csr")
			if err := os.WriteFile(file, got, 0o600); err != nil {
				t.Fatal(err)
			}
			shown := string(openssl(t, "req", "-inform", "DER", "-in", file, "-verify", "-noout", "-text", "-nameopt", "utf8", "-reqopt", "ext_default"))
			if !strings.Contains(shown, "challengePassword") || !strings.Contains(shown, "DNS:"+host) {
				t.Errorf("%s: openssl shows no challenge, or not the names", name)
			}
			// Another one takes its place.
			if got, err = withChallenge(got, "the next", m.key); err != nil {
				t.Fatal(err)
			}
			if again, err := peer.ParseChallengePassword(got); err != nil || again != "the next" || bytes.Count(got, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07}) != 1 {
				t.Errorf("%s: the challenge reads %q, %v", name, again, err)
			}
		}
	}
}

func TestRequestsThatCannotBeMadeAnew(t *testing.T) {
	t.Parallel()
	csr, key := rsaRequest(t, host)
	_, err := withChallenge(csr[:len(csr)-1], "word", key)
	wantRefused(t, err, "no PKCS#10 request")
	_, err = withChallenge(slices.Concat(csr, []byte{0}), "word", key)
	wantRefused(t, err, "no PKCS#10 request")
	_, err = withChallenge(csr, "\xff", key)
	wantWords(t, err, "challenge password", "not UTF-8")
	pss, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{SignatureAlgorithm: x509.SHA256WithRSAPSS}, key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = withChallenge(pss, "word", key)
	wantRefused(t, err, "SHA256-RSAPSS", "PKCS #1")
}

func FuzzRequest(f *testing.F) {
	csr, key := request(f, keys.EC, host)
	f.Add(csr, "word")
	f.Fuzz(func(t *testing.T, data []byte, challenge string) {
		got, err := withChallenge(data, challenge, key)
		if err != nil {
			return
		}
		if again, err := peer.ParseChallengePassword(got); err != nil || again != challenge {
			t.Errorf("the challenge reads %q, %v; want %q", again, err, challenge)
		}
	})
}
