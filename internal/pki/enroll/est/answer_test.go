package est

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
)

func TestWrongAnswers(t *testing.T) {
	t.Parallel()
	c := &ca{hierarchy: newHierarchy(t), t: t}
	other, _ := request(t, keys.EC, "other.example.com")
	csr, key := request(t, keys.EC, host)
	asPEM := func(certs ...*x509.Certificate) string {
		var text []byte
		for _, one := range certs {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: one.Raw})...)
		}
		return string(text)
	}
	long := strings.Repeat("word ", 200)
	for _, test := range []struct {
		name    string
		status  int
		header  http.Header
		body    string
		refused bool
		words   []string
	}{
		{"another key", 200, nil, asPEM(c.leaf(t, parse(t, other), nil)), true, []string{"issued certificate: public key", "of somebody else (CN=other.example.com"}},
		{"a CA", 200, nil, asPEM(c.leaf(t, parse(t, csr), func(x *x509.Certificate) { x.IsCA, x.BasicConstraintsValid = true, true })), true, []string{"a CA certificate"}},
		{"nothing", 200, nil, "", false, []string{"EST simpleenroll", "an empty file"}},
		{"garbage", 200, nil, "\x00\x01\x02", false, []string{"EST simpleenroll"}},
		{"a web page", 200, http.Header{"Content-Type": {"text/html"}}, "<html><title>Sign in</title>", false, []string{"EST simpleenroll"}},
		{"too much", 200, nil, strings.Repeat("A", maxAnswer+1), false, []string{"more than 1 MiB"}},
		{"a request", 200, nil, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})), false, []string{"a certificate request"}},
		{"long words", 422, nil, long, true, []string{"422", "word word", "…"}},
		{"a page of an error", 500, http.Header{"Content-Type": {"text/html; charset=utf-8"}}, "<html><head><title>Out of\n order</title>" + long, false, []string{"500", "(Out of order)"}},
		{"a page without a title", 502, http.Header{"Content-Type": {"text/html"}}, "<p>", false, []string{"502", "(a web page)"}},
		{"a redirect", 302, http.Header{"Location": {"https://elsewhere.example/est"}}, "", true, []string{"302", "https://elsewhere.example/est", "use the address"}},
		{"a wrong address", 404, nil, "", true, []string{"404", "address and label"}},
		{"digest", 401, http.Header{"Www-Authenticate": {`Digest realm="x"`}}, "", true, []string{"Digest realm", "Basic"}},
		{"too often", 429, http.Header{"Retry-After": {"60"}}, "", false, []string{"429", "not before"}},
		{"an echo", 400, nil, "bad password " + password + " for " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)), true, []string{"bad password (secret) for (secret)"}},
		{"control characters", 403, nil, "\x1b[31mred\x07", true, []string{"[31mred"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			mux.HandleFunc("GET /.well-known/est/cacerts", func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(asPEM(c.root, c.issuing)))
			})
			mux.HandleFunc("POST /.well-known/est/simpleenroll", func(w http.ResponseWriter, _ *http.Request) {
				for k, v := range test.header {
					w.Header()[k] = v
				}
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
			})
			s := signer(t, Config{URL: listen(t, c.hierarchy, mux, nil), Roots: c.pool(), User: user, Password: password})
			_, err := s.Sign(t.Context(), csr, key, nil)
			wantWords(t, err, test.words...)
			if signing.IsRefused(err) != test.refused {
				t.Errorf("%v: refused %v, want %v", err, !test.refused, test.refused)
			}
			if strings.ContainsAny(err.Error(), "\x1b\x07") || len(err.Error()) > 1000 {
				t.Errorf("%q", err)
			}
		})
	}
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	c := newHierarchy(t)
	arrived := make(chan struct{})
	url := listen(t, c, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	}), nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the node stops")
	go func() {
		<-arrived
		cancel(why)
	}()
	csr, key := request(t, keys.EC, host)
	_, err := signer(t, Config{URL: url, Roots: c.pool()}).Sign(ctx, csr, key, nil)
	if !errors.Is(err, why) {
		t.Errorf("%v, want %v", err, why)
	}
}

func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	c := newHierarchy(t)
	csr, key := request(t, keys.EC, host)
	_, err := signer(t, Config{URL: "https://127.0.0.1:1", Roots: c.pool()}).Sign(t.Context(), csr, key, nil)
	wantWords(t, err, "no answer from https://127.0.0.1:1/.well-known/est", "see that the server is up")
	if signing.IsRefused(err) {
		t.Error("refused; it may pass")
	}
	_, err = signer(t, Config{URL: "https://127.0.0.1:1"}).Sign(t.Context(), []byte("no request"), key, nil)
	wantRefused(t, err, "certificate request")
}

func FuzzAnswer(f *testing.F) {
	// The same in every process that takes part in the fuzzing.
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	caKey := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize))
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: host}}, key)
	if err != nil {
		f.Fatal(err)
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		f.Fatal(err)
	}
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, NotBefore: from, NotAfter: from.AddDate(9, 0, 0),
	}
	ca := certificate(f, template, template, caKey.Public(), caKey)
	template = &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, NotBefore: from, NotAfter: from.AddDate(9, 0, 0)}
	leaf := certificate(f, template, ca, key.Public(), caKey)
	f.Add(leaf.Raw)
	f.Add([]byte(base64.StdEncoding.EncodeToString(leaf.Raw)))
	f.Add(openssl(f, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}), "crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin"))
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := parseCerts("EST simpleenroll", data)
		if err != nil {
			return
		}
		ordered, err := signing.Chain(certs, []*x509.Certificate{ca}, req)
		if err == nil && !keys.Same(ordered[0].PublicKey, key.Public()) {
			t.Error("a chain for another key")
		}
	})
}

func FuzzAttributes(f *testing.F) {
	f.Add([]byte("MCYGBysGAQEBARYGCSqGSIb3DQEJAQYFK4EEACIGCWCGSAFlAwQCAg==")) // RFC 7030, section 4.5.2
	f.Add([]byte{0x30, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		words, err := parseAttributes(data)
		if err != nil && len(words) > 0 {
			t.Errorf("%q and %v", words, err)
		}
	})
}

func TestAttributesOfTheStandard(t *testing.T) {
	t.Parallel()
	got, err := parseAttributes([]byte("MEEGCSqGSIb3DQEJBzASBgcqhkjOPQIBMQcGBSuBBAAiMBYGCSqGSIb3DQEJDjEJ\nBgcrBgEBAQEWBggqhkjOPQQDAw==\n"))
	if want := []string{"challengePassword", "EC=P-384", "extensionRequest=macAddress", "ECDSA with SHA-384"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	for text, want := range map[string]string{
		"!":            "no base64",
		"MAA=trailing": "no base64",
		"BAA=":         "no list of attributes",
		"MAIEAA==":     "neither an identifier nor an attribute",
	} {
		_, err := parseAttributes([]byte(text))
		wantWords(t, err, "EST csrattrs", want)
	}
}
