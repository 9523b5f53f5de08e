package est

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
)

const host = "cache.example.com"

// wantChain checks that a chain is a certificate for csr and the issuing CA.
func wantChain(t *testing.T, chain []*x509.Certificate, err error, csr []byte, issuing *x509.Certificate) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if len(chain) != 2 || !chain[1].Equal(issuing) {
		t.Fatalf("got %d certificates, want the leaf and the issuing CA without the root", len(chain))
	}
	if string(chain[0].RawSubjectPublicKeyInfo) != string(parse(t, csr).RawSubjectPublicKeyInfo) {
		t.Error("the leaf has another key than the request")
	}
}

// wantRefused checks that somebody has to act, and is told so in words.
func wantRefused(t *testing.T, err error, words ...string) {
	t.Helper()
	if !signing.IsRefused(err) {
		t.Errorf("%v; want it to be refused", err)
	}
	wantWords(t, err, words...)
}

func wantWords(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v; want %q in it", err, w)
		}
	}
	for _, secret := range []string{password, base64.StdEncoding.EncodeToString([]byte(user + ":" + password))} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%v: the password is in it", err)
		}
	}
}

func TestEnrolsWithPasswordForEveryKindOfKey(t *testing.T) {
	t.Parallel()
	c := &ca{hierarchy: newHierarchy(t), t: t}
	s := signer(t, Config{URL: serve(t, c), Roots: c.pool(), User: user, Password: password})
	for _, algorithm := range []string{keys.RSA, keys.EC, keys.Ed25519} {
		csr, key := request(t, algorithm, host, "other.example.com")
		chain, err := s.Sign(t.Context(), csr, key, nil)
		wantChain(t, chain, err, csr, c.issuing)
		if !slices.Equal(chain[0].DNSNames, []string{host, "other.example.com"}) {
			t.Errorf("%s: names %q", algorithm, chain[0].DNSNames)
		}
	}
	if got := c.seen(); got != "[enroll enroll enroll]" {
		t.Errorf("the CA saw %s", got)
	}
}

func TestLabelChoosesAmongCAs(t *testing.T) {
	t.Parallel()
	c := &ca{hierarchy: newHierarchy(t), t: t}
	url := serve(t, c)
	csr, key := request(t, keys.EC, host)
	s := signer(t, Config{URL: url, Label: "servers", Roots: c.pool(), User: user, Password: password})
	chain, err := s.Sign(t.Context(), csr, key, nil)
	wantChain(t, chain, err, csr, c.issuing)
	if got := c.seen(); got != "[enroll/servers]" {
		t.Errorf("the CA saw %s", got)
	}
	s = signer(t, Config{URL: url, Label: "unknown", Roots: c.pool(), User: user, Password: password})
	_, err = s.Sign(t.Context(), csr, key, nil)
	wantRefused(t, err, "EST cacerts", "404", "no such label", "label")
}

func TestRenewsByTheCurrentCertificate(t *testing.T) {
	t.Parallel()
	c := &ca{hierarchy: newHierarchy(t), t: t}
	s := signer(t, Config{URL: serve(t, c), Roots: c.pool()}) // no password
	for _, algorithm := range []string{keys.RSA, keys.EC, keys.Ed25519} {
		csr, key := request(t, algorithm, host)
		chain, err := s.Sign(t.Context(), csr, key, c.current(t, csr, key, nil))
		wantChain(t, chain, err, csr, c.issuing)
		// With another key, too: the old one proves who asks.
		rotated, newKey := request(t, algorithm, host)
		chain, err = s.Sign(t.Context(), rotated, newKey, c.current(t, csr, key, nil))
		wantChain(t, chain, err, rotated, c.issuing)
	}
	if got := c.seen(); got != "[reenroll reenroll reenroll reenroll reenroll reenroll]" {
		t.Errorf("the CA saw %s", got)
	}
}

func TestNodesComeBackWithCredentials(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		why    string
		log    string
		change func(*x509.Certificate)
		names  []string // of the request; the current certificate has host
	}{
		{"expired", "the current certificate has expired", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Minute)
		}, nil},
		{"not yet valid", "not valid yet", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, nil},
		// Go's server, as OpenSSL's, takes no such certificate from clients
		// and says so by breaking off.
		{"for servers alone", "renewal by the current certificate failed", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, nil},
		{"of other names", "the request has other names", nil, []string{host, "more.example.com"}},
	} {
		t.Run(test.why, func(t *testing.T) {
			t.Parallel()
			c := &ca{hierarchy: newHierarchy(t), t: t}
			var log strings.Builder
			s := signer(t, Config{URL: serve(t, c), Roots: c.pool(), User: user, Password: password, Log: slog.New(slog.NewTextHandler(&log, nil))})
			csr, key := request(t, keys.EC, host)
			current := c.current(t, csr, key, test.change)
			if test.names != nil {
				csr, key = request(t, keys.EC, test.names...)
			}
			chain, err := s.Sign(t.Context(), csr, key, current)
			wantChain(t, chain, err, csr, c.issuing)
			if got := c.seen(); got != "[enroll]" {
				t.Errorf("the CA saw %s", got)
			}
			if !strings.Contains(log.String(), test.log) || strings.Count(log.String(), "\n") != 1 {
				t.Errorf("log %s; want %q", log.String(), test.log)
			}
		})
	}
}

func TestWithoutCredentialsWhatTheRenewalSaidStands(t *testing.T) {
	t.Parallel()
	c := &ca{hierarchy: newHierarchy(t), t: t}
	c.answer = func(*x509.CertificateRequest) (*x509.Certificate, error) {
		return nil, status{code: 403, text: "revoked"}
	}
	url := serve(t, c)
	csr, key := request(t, keys.EC, host)
	current := c.current(t, csr, key, nil)
	_, err := signer(t, Config{URL: url, Roots: c.pool()}).Sign(t.Context(), csr, key, current)
	wantRefused(t, err, "EST simplereenroll", "403", "revoked", "may enrol for these names")
	if got := c.seen(); got != "[reenroll]" {
		t.Errorf("the CA saw %s", got)
	}
	// With a password it is tried once more, and it is that answer that counts.
	_, err = signer(t, Config{URL: url, Roots: c.pool(), User: user, Password: password}).Sign(t.Context(), csr, key, current)
	wantRefused(t, err, "EST simpleenroll", "403", "revoked")
}

func TestBusyCAIsNotAskedAnotherWay(t *testing.T) {
	t.Parallel()
	c := &ca{hierarchy: newHierarchy(t), t: t}
	c.answer = func(*x509.CertificateRequest) (*x509.Certificate, error) {
		return nil, status{code: 503, text: "closed for today", wait: 120}
	}
	s := signer(t, Config{URL: serve(t, c), Roots: c.pool(), User: user, Password: password})
	csr, key := request(t, keys.EC, host)
	_, err := s.Sign(t.Context(), csr, key, c.current(t, csr, key, nil))
	wantWords(t, err, "503", "closed for today")
	wantWait(t, err, 2*time.Minute)
	if got := c.seen(); got != "[reenroll]" || signing.IsRefused(err) {
		t.Errorf("the CA saw %s, and it was refused: %v", got, signing.IsRefused(err))
	}
}

func wantWait(t *testing.T, err error, d time.Duration) {
	t.Helper()
	at, ok := signing.NotBefore(err)
	if off := time.Until(at) - d; !ok || off > 0 || off < -30*time.Second {
		t.Errorf("%v: come again at %v (%v), want in %v", err, at, ok, d)
	}
}

func TestClientCertificateEnrols(t *testing.T) {
	t.Parallel()
	c := &ca{hierarchy: newHierarchy(t), t: t}
	bootstrap, bootKey := request(t, keys.EC, "bootstrap")
	cert := c.leaf(t, parse(t, bootstrap), nil)
	s := signer(t, Config{URL: serve(t, c), Roots: c.pool(), ClientCert: &tls.Certificate{Certificate: [][]byte{cert.Raw, c.issuing.Raw}, PrivateKey: bootKey}})
	csr, key := request(t, keys.EC, host)
	chain, err := s.Sign(t.Context(), csr, key, nil)
	wantChain(t, chain, err, csr, c.issuing)
	if got := c.seen(); got != "[enroll by certificate]" {
		t.Errorf("the CA saw %s", got)
	}
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	c := &ca{hierarchy: newHierarchy(t), t: t}
	url := serve(t, c)
	csr, key := request(t, keys.EC, host)
	_, err := signer(t, Config{URL: url, Roots: c.pool(), User: user, Password: "wrong" + password}).Sign(t.Context(), csr, key, nil)
	wantRefused(t, err, "EST simpleenroll", "401 Unauthorized", "authorization required", "user and password are right")
	s := signer(t, Config{URL: url, Roots: c.pool()})
	_, err = s.Sign(t.Context(), csr, key, nil)
	wantRefused(t, err, "401", "give the user and the password")
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0], "no user and no client certificate") {
		t.Errorf("warnings %q", w)
	}
}

func TestFingerprintStandsForTheRoot(t *testing.T) {
	t.Parallel()
	c := &ca{hierarchy: newHierarchy(t), t: t}
	url := serve(t, c)
	csr, key := request(t, keys.EC, host)
	for _, format := range []string{"%x", "%X", "% x"} {
		s := signer(t, Config{URL: url, Fingerprint: fmt.Sprintf(format, sha256.Sum256(c.root.Raw)), User: user, Password: password})
		for range 2 { // the second time it is known already
			chain, err := s.Sign(t.Context(), csr, key, nil)
			wantChain(t, chain, err, csr, c.issuing)
		}
	}
}

// An impostor has certificates of its own, and gets nothing told.
func TestImpostorIsToldNothing(t *testing.T) {
	t.Parallel()
	real, impostor := newHierarchy(t), &ca{hierarchy: newHierarchy(t), t: t}
	router := func(told *atomic.Bool) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" || len(r.TLS.PeerCertificates) > 0 || r.Method == http.MethodPost {
				told.Store(true)
			}
			var der []byte
			for _, c := range []*x509.Certificate{impostor.root, impostor.issuing} {
				der = append(der, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
			}
			_, _ = w.Write(der)
		})
	}
	csr, key := request(t, keys.EC, host)
	current := real.current(t, csr, key, nil)

	var told atomic.Bool
	url := listen(t, impostor.hierarchy, router(&told), nil)
	s := signer(t, Config{URL: url, Fingerprint: fmt.Sprintf("%x", sha256.Sum256(real.root.Raw)), User: user, Password: password})
	_, err := s.Sign(t.Context(), csr, key, current)
	wantRefused(t, err, "CA fingerprint", fmt.Sprintf("%x", sha256.Sum256(impostor.root.Raw)), fmt.Sprintf("expected %x", sha256.Sum256(real.root.Raw)), "somebody else answers")

	_, err = signer(t, Config{URL: url, Roots: real.pool(), User: user, Password: password}).Sign(t.Context(), csr, key, current)
	wantWords(t, err, "roots do not vouch for", "give the CA's certificate")
	if told.Load() {
		t.Error("the impostor was told something")
	}

	// One that adds the real CA's certificate, which it can have from
	// anywhere, still lacks one of that CA for its server.
	mux := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Method == http.MethodPost {
			told.Store(true)
		}
		for _, c := range []*x509.Certificate{impostor.root, impostor.issuing, real.root} {
			_, _ = w.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
		}
	})
	s = signer(t, Config{URL: listen(t, impostor.hierarchy, mux, nil), Fingerprint: fmt.Sprintf("%x", sha256.Sum256(real.root.Raw)), User: user, Password: password})
	_, err = s.Sign(t.Context(), csr, key, current)
	wantWords(t, err, "roots do not vouch for")
	if told.Load() {
		t.Error("the impostor was told something")
	}
}

func TestServerCertificateIsLookedAt(t *testing.T) {
	t.Parallel()
	pki := newHierarchy(t)
	csr, key := request(t, keys.EC, host)
	for words, change := range map[string]func(*x509.Certificate){
		"with another name": func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"est.example.com"} },
		"that is not valid": func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		},
	} {
		url := listen(t, pki, http.NotFoundHandler(), change)
		_, err := signer(t, Config{URL: url, Roots: pki.pool()}).Sign(t.Context(), csr, key, nil)
		wantWords(t, err, words, "EST cacerts")
		if signing.IsRefused(err) {
			t.Errorf("%v: refused; it may pass", err)
		}
	}
}

func TestApprovalTakesTime(t *testing.T) {
	t.Parallel()
	c := &ca{hierarchy: newHierarchy(t), t: t}
	wait := 600
	c.answer = func(csr *x509.CertificateRequest) (*x509.Certificate, error) {
		if wait > 0 {
			return nil, status{code: http.StatusAccepted, wait: wait, text: "ask the officer"}
		}
		return c.leaf(t, csr, nil), nil
	}
	s := signer(t, Config{URL: serve(t, c), Roots: c.pool(), User: user, Password: password})
	csr, key := request(t, keys.EC, host)
	_, err := s.Sign(t.Context(), csr, key, nil)
	wantWords(t, err, "waits for somebody's approval", "ask the officer", "approve it at the CA")
	wantWait(t, err, 10*time.Minute)
	wait = 0 // approved
	chain, err := s.Sign(t.Context(), csr, key, nil)
	wantChain(t, chain, err, csr, c.issuing)
}

func TestAttributesAreReported(t *testing.T) {
	t.Parallel()
	c := &ca{hierarchy: newHierarchy(t), t: t}
	c.answer = func(*x509.CertificateRequest) (*x509.Certificate, error) {
		return nil, status{code: 400, text: "I want P-384"}
	}
	s := signer(t, Config{URL: serve(t, c), Roots: c.pool(), User: user, Password: password})
	got, err := s.Attributes(t.Context())
	if want := []string{"challengePassword", "1.2.3.4", "EC=P-384"}; err != nil || !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("attributes %q, %v; want %q", got, err, want)
	}
	csr, key := request(t, keys.EC, host)
	_, err = s.Sign(t.Context(), csr, key, nil)
	wantRefused(t, err, "400 Bad Request", "I want P-384", "as the CA wants it", "EC=P-384")

	none := listen(t, c.hierarchy, http.NotFoundHandler(), nil)
	if got, err := signer(t, Config{URL: none, Roots: c.pool()}).Attributes(t.Context()); err != nil || got != nil {
		t.Errorf("a CA without attributes: %q, %v", got, err)
	}
}

func TestOpenSSLSignsEveryKind(t *testing.T) {
	t.Parallel()
	wraps := map[string]func([]byte) []byte{
		"DER": func(der []byte) []byte { return der },
		"PEM": func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: der}) },
		"lines of base64": func(der []byte) []byte {
			return []byte(strings.Join(slices.Collect(chunks(base64.StdEncoding.EncodeToString(der), 64)), "\r\n") + "\r\n")
		},
		"base64": func(der []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(der)) },
	}
	for form, wrap := range wraps {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			url, root := opensslCA(t, wrap)
			pool := x509.NewCertPool()
			pool.AddCert(root)
			s := signer(t, Config{URL: url, Roots: pool})
			csr, key := ed448Request(t)
			chain, err := s.Sign(t.Context(), csr, key, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(chain) != 2 || !keys.Same(keys.PublicOf(chain[0]), key.Public()) || chain[1].Subject.CommonName != "Issuing" {
				t.Errorf("chain of %d, the first for %s", len(chain), keys.Kind(keys.PublicOf(chain[0])))
			}
		})
	}
}

func chunks(s string, n int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for len(s) > n && yield(s[:n]) {
			s = s[n:]
		}
		yield(s)
	}
}

// ed448Request makes what crypto/x509 cannot.
func ed448Request(t testing.TB) ([]byte, crypto.Signer) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	openssl(t, nil, "genpkey", "-algorithm", "ED448", "-out", file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.ParsePEM(text)
	if err != nil {
		t.Fatal(err)
	}
	return openssl(t, nil, "req", "-new", "-key", file, "-subj", "/CN="+host, "-addext", "subjectAltName=DNS:"+host, "-outform", "DER"), key
}

func TestServerThatCannotCheckEd448SaysNo(t *testing.T) {
	t.Parallel()
	c := &ca{hierarchy: newHierarchy(t), t: t}
	s := signer(t, Config{URL: serve(t, c), Roots: c.pool(), User: user, Password: password})
	csr, key := ed448Request(t)
	_, err := s.Sign(t.Context(), csr, key, nil)
	wantRefused(t, err, "400", "PKCS10")
}
