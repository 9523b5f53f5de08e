package scep

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"testing"
	"time"

	"larder/internal/pki/enroll/signing"

	"github.com/smallstep/pkcs7"
)

func FuzzReply(f *testing.F) {
	made := rsaKeys()
	ca := issue(f, caTemplate("CA"), nil, made[0].Public(), made[0])
	who := somebody(f)
	nonce := []byte("0123456789abcdef")
	n := &ndes{t: f, cipher: aesCBC()}
	leaf := issue(f, &x509.Certificate{RawSubject: who.cert.RawSubject}, ca, who.cert.PublicKey, made[0])
	for _, d := range []decision{{status: success}, {status: pending}, {failure, "2", "no"}} {
		data, err := n.certRep(&answer{id: "id", kind: "3", status: string(d.status), nonce: nonce, cert: leaf, to: who.cert, by: ca, byKey: made[0]}, d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxAnswer {
			return
		}
		r, err := parseReply(data, "id", nonce, who, &authority{certs: []*x509.Certificate{ca}, signers: []*x509.Certificate{ca}})
		if err == nil && (r.status == success) != (len(r.certs) > 0) {
			t.Errorf("%+v", r)
		}
	})
}

// What the CA itself has signed can be anything, too.
func FuzzSignedReply(f *testing.F) {
	made := rsaKeys()
	ca := issue(f, caTemplate("CA"), nil, made[0].Public(), made[0])
	who := somebody(f)
	nonce := []byte("0123456789abcdef")
	n := &ndes{t: f}
	f.Add("id", "3", "0", "", "", []byte("no envelope"))
	f.Add("id", "3", "2", "1", "words", []byte(nil))
	f.Add("id", "3", "3", "", "", []byte(nil))
	f.Fuzz(func(t *testing.T, id, kind, result, info, text string, sealed []byte) {
		data, err := n.certRep(&answer{id: id, kind: kind, status: result, nonce: nonce, by: ca, byKey: made[0], sealed: sealed}, decision{failInfo: info, text: text})
		if err != nil {
			return // words that ASN.1 has no string for
		}
		r, err := parseReply(data, "id", nonce, who, &authority{certs: []*x509.Certificate{ca}, signers: []*x509.Certificate{ca}})
		if err == nil && (r.status != pending || result != "3") {
			t.Errorf("%+v", r)
		}
		if refused := signing.IsRefused(err); refused && result != "2" {
			t.Errorf("status %q is taken for a refusal: %v", result, err)
		}
	})
}

// A cipher text that was encrypted to us can be anything inside.
func FuzzEnvelope(f *testing.F) {
	who := somebody(f)
	f.Add([]byte("sixteen letters!"), []byte("0123456789abcdef"), true)
	f.Add([]byte("eight!!!"), []byte("01234567"), false)
	f.Add([]byte("no whole block"), []byte("01234567"), false)
	f.Fuzz(func(t *testing.T, text, iv []byte, isAES bool) {
		kind := tripleDES()
		if isAES {
			kind = aesCBC()
		}
		data, err := envelope(bytes.Repeat([]byte{7}, kind.size), iv, text, who.cert, kind)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := open(data, who); err == nil && len(got) > len(text) {
			t.Errorf("%d bytes out of %d", len(got), len(text))
		}
		_, _ = open(text, who)
	})
}

func somebody(t testing.TB) *identity {
	t.Helper()
	key := rsaKeys()[3]
	req, err := x509.ParseCertificateRequest(requestWith(t, key, host))
	if err != nil {
		t.Fatal(err)
	}
	who, err := newIdentity(req, key)
	if err != nil {
		t.Fatal(err)
	}
	return who
}

func FuzzCACerts(f *testing.F) {
	made := rsaKeys()
	ca := issue(f, caTemplate("CA"), nil, made[0].Public(), made[0])
	ra := issue(f, &x509.Certificate{Subject: pkix.Name{CommonName: "RA"}}, ca, made[1].Public(), made[0])
	f.Add(ca.Raw, "AES", true)
	f.Add(must(pkcs7.DegenerateCertificate(slices.Concat(ca.Raw, ra.Raw))), "SCEPStandard\r\nSHA-256", true)
	f.Add(must(pkcs7.DegenerateCertificate(slices.Concat(ca.Raw, ra.Raw))), "", false)
	f.Fuzz(func(t *testing.T, data []byte, caps string, first bool) {
		able := parseCapabilities([]byte(caps))
		if able.cipher().size == 0 || able.digest().oid == nil {
			t.Error("nothing to encrypt or to hash with")
		}
		certs, err := parseCACerts(data)
		if err != nil {
			return
		}
		var fingerprint []byte
		if first {
			sum := sha256.Sum256(certs[0].Raw)
			fingerprint = sum[:]
		}
		chosen, err := choose(certs, fingerprint, time.Now())
		if err != nil {
			return
		}
		if _, ok := chosen.recipient.PublicKey.(*rsa.PublicKey); !ok || !slices.Contains(chosen.signers, chosen.recipient) {
			t.Error("a recipient without an RSA key, or that nobody vouches for")
		}
	})
}
