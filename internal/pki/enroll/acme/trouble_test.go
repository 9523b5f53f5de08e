package acme_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/httpsrv"
	"larder/internal/lardertest"
	"larder/internal/pki/enroll/acme"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
)

// relay stands between a signer and its CA and changes what is said.
type relay struct {
	URL string

	mu     sync.Mutex
	before func(w http.ResponseWriter, r *http.Request) bool // guarded by mu; true: answered
	after  func(path string, body []byte) []byte             // guarded by mu
	agents []string                                          // guarded by mu
}

func newRelay(t *testing.T, p *pebble) *relay {
	t.Helper()
	ln := listen(t)
	r := &relay{URL: "https://" + ln.Addr().String() + "/dir"}
	upstream := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.Root.Pool()}}
	proxy := &httputil.ReverseProxy{
		Transport: upstream,
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(&url.URL{Scheme: "https", Host: p.Address})
			pr.Out.Host = pr.In.Host // the CA's URLs lead here again
		},
		ModifyResponse: func(resp *http.Response) error {
			r.mu.Lock()
			after := r.after
			r.mu.Unlock()
			if after == nil {
				return nil
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			body = after(resp.Request.URL.Path, body)
			resp.Body = io.NopCloser(bytes.NewReader(body))
			resp.ContentLength = int64(len(body))
			resp.Header.Set("Content-Length", fmt.Sprint(len(body)))
			return nil
		},
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		before := r.before
		r.agents = append(r.agents, req.UserAgent())
		r.mu.Unlock()
		if before == nil || !before(w, req) {
			proxy.ServeHTTP(w, req)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		_ = httpsrv.Serve(ctx, tls.NewListener(ln, &tls.Config{
			Certificates: []tls.Certificate{p.Root.Leaf(t, "127.0.0.1").TLS},
		}), h, nil)
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		upstream.CloseIdleConnections()
	})
	return r
}

// change sets what is done from now on.
func (r *relay) change(before func(http.ResponseWriter, *http.Request) bool, after func(path string, body []byte) []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before, r.after = before, after
}

// answer is a before that answers requests to a path with a problem.
func answer(path string, status int, retryAfter, doc string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, path) || r.Method != http.MethodPost {
			return false
		}
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		if strings.HasPrefix(doc, "{") {
			w.Header().Set("Content-Type", "application/problem+json")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, doc)
		return true
	}
}

func trySign(t *testing.T, s *acme.Signer, names ...string) error {
	t.Helper()
	csr, key := request(t, names...)
	chain, err := s.Sign(t.Context(), csr, key, nil)
	if err == nil {
		t.Errorf("a certificate came: %v", chain)
	}
	return err
}

func passes(t *testing.T, err error, wants ...string) {
	t.Helper()
	if err == nil || signing.IsRefused(err) {
		t.Errorf("error is %v; want one that may pass by itself", err)
	}
	says(t, err, wants...)
}

// Whatever goes wrong with a challenge, the name, the kind, what the CA saw
// and what to do are said.
func TestFailedChallenges(t *testing.T) {
	t.Parallel()
	f, silent := newFront(t), new(acme.Memory)
	noOne := newPebble(t, pebbleOptions{})
	other := newPebble(t, pebbleOptions{httpPort: f.HTTPPort, tlsPort: f.TLSPort})
	signer := func(p *pebble, kind string, solver acme.Solver) *acme.Signer {
		return newSigner(t, acme.Config{DirectoryURL: p.URL, Roots: p.Root.Pool(), Ways: []acme.Way{{Challenge: kind, Solver: solver}}})
	}

	err := trySign(t, signer(noOne, acme.HTTP01, silent), "cache.example", "other.example")
	passes(t, err, "ACME challenge http-01 for cache.example", "ACME challenge http-01 for other.example",
		"connection refused (connection)", "let the CA reach TCP port 80 of cache.example")
	if silent.Pending() {
		t.Error("challenges are left behind")
	}

	// Somebody else answers there.
	refused(t, trySign(t, signer(other, acme.HTTP01, silent), "cache.example"),
		"returned 404 (unauthorized)", "http://cache.example/.well-known/acme-challenge/…", "with this node behind it and no other server or proxy")
	refused(t, trySign(t, signer(other, acme.TLSALPN01, silent), "cache.example"),
		"ACME challenge tls-alpn-01 for cache.example", "(unauthorized)", "let the CA reach TCP port 443 of cache.example")

	if sh := newHook(t, "#!/bin/sh\n"); sh != "" {
		passes(t, trySign(t, signer(other, acme.DNS01, &acme.DNSCommand{Command: sh}), "*.cache.example"),
			"ACME challenge dns-01 for *.cache.example", "No TXT records found", "a TXT record at _acme-challenge.cache.example")
	}
}

func TestCAWithoutTheChallenge(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort})
	r := newRelay(t, p)
	r.change(nil, func(path string, body []byte) []byte {
		return bytes.ReplaceAll(body, []byte(`"http-01"`), []byte(`"other-01"`))
	})
	s := newSigner(t, acme.Config{DirectoryURL: r.URL, Roots: p.Root.Pool(), Ways: f.ways(acme.HTTP01)})
	refused(t, trySign(t, s, "cache.example"), "ACME challenge for cache.example", "the CA offers", "other-01", "expected http-01")
}

func TestCADoesNotAnswer(t *testing.T) {
	t.Parallel()
	f, p := newFront(t), newPebble(t, pebbleOptions{})
	cfg := acme.Config{Roots: p.Root.Pool(), Ways: f.ways(acme.HTTP01)}
	try := func(directory string) error {
		cfg.DirectoryURL = directory
		return trySign(t, newSigner(t, cfg), "cache.example")
	}
	nowhere := freeAddress(t)
	passes(t, try("https://"+nowhere+"/dir"), "ACME server "+nowhere+": found no answer", "connection refused", "HTTPS_PROXY")
	refused(t, try("https://"+p.Address+"/nothing"), "ACME directory", "answers 404", "newNonce")
	refused(t, try(p.Manage+"/roots/0"), "ACME directory", "answers 200")

	cfg.Roots = lardertest.NewCA(t).Pool()
	refused(t, try(p.URL), "a certificate that nobody vouches for", "for a private CA, give its root certificate")
	cfg.Roots = p.Root.Pool()

	// A visit that is given up says why.
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the node ends")
	cancel(why)
	cfg.DirectoryURL = p.URL
	csr, key := request(t, "cache.example")
	if _, err := newSigner(t, cfg).Sign(ctx, csr, key, nil); !errors.Is(err, why) {
		t.Errorf("error is %v; want %v", err, why)
	}
}

// The server's own certificate is looked at as any other.
func TestCertificateOfTheCA(t *testing.T) {
	t.Parallel()
	root, f := lardertest.NewCA(t), newFront(t)
	try := func(pair lardertest.Pair) error {
		ln := listen(t)
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() {
			_ = httpsrv.Serve(ctx, tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{pair.TLS}}), http.NotFoundHandler(), nil)
		})
		defer running.Wait()
		defer cancel()
		return trySign(t, newSigner(t, acme.Config{
			DirectoryURL: "https://" + ln.Addr().String() + "/dir", Roots: root.Pool(), Ways: f.ways(acme.HTTP01),
		}), "cache.example")
	}
	refused(t, try(root.Leaf(t, "ca.example")), "a certificate for another name", "use the name in the directory's URL")
	passes(t, try(root.LeafWith(t, lardertest.LeafOptions{
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(-time.Minute),
	}, "127.0.0.1")), "a certificate that is not valid", "check this machine's clock")
}

func TestTermsAreAgreedToByPeople(t *testing.T) {
	t.Parallel()
	p, f := newPebble(t, pebbleOptions{}), newFront(t)
	s, err := acme.New(acme.Config{
		DirectoryURL: p.URL, Roots: p.Root.Pool(), Ways: f.ways(acme.HTTP01), AccountKeyFile: filepath.Join(t.TempDir(), "acme.key"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	refused(t, trySign(t, s, "cache.example"), "ACME terms of service: found terms that nobody has agreed to: data:text/plain,", "read them")
}

func TestWhatTheCASays(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort, config: map[string]any{"domainBlocklist": []string{"blocked.example"}}})
	r := newRelay(t, p)
	s := newSigner(t, acme.Config{DirectoryURL: r.URL, Roots: p.Root.Pool(), Ways: f.ways(acme.HTTP01)})
	signed(t, s, "cache.example")
	for _, agent := range r.agents {
		if !strings.HasPrefix(agent, "larder ") {
			t.Errorf("User-Agent is %q", agent)
		}
	}
	refused(t, trySign(t, s, "blocked.example"), "ordering a certificate", "blocked.example", "(rejectedIdentifier)", "ask the CA which names it signs")

	const urn = "urn:ietf:params:acme:error:"
	limit := `{"type":"` + urn + `rateLimited","detail":"too many certificates (5) already issued","status":429}`
	for _, c := range []struct {
		status     int
		retryAfter string
		doc        string
		atLeast    time.Duration // until the next try; 0: not said
		refused    bool
		want       string
	}{
		{429, "7200", limit, 2*time.Hour - time.Minute, false, "too many certificates (5) already issued (rateLimited)"},
		{429, time.Now().UTC().Add(3 * time.Hour).Format(http.TimeFormat), limit, 3*time.Hour - time.Minute, false, "tried again when the CA wants"},
		{429, "", limit, time.Hour - time.Minute, false, "order fewer certificates"},
		{429, "", "slow down", time.Hour - time.Minute, false, "found a rate limit"},
		{429, "soon", "slow down", time.Hour - time.Minute, false, "found a rate limit"},
		{503, "600", `{"type":"` + urn + `serverInternal","detail":"maintenance"}`, 10*time.Minute - time.Minute, false, "maintenance (serverInternal)"},
		{500, "", "<html>\x00oops", 0, false, "an answer that makes no sense (HTTP 500)"},
		{403, "", `{"type":"` + urn + `userActionRequired","detail":"new terms","instance":"https://ca.example/terms"}`, 0, true, "open https://ca.example/terms"},
		{403, "", `{"type":"` + urn + `caa","detail":"no"}`, 0, true, "CAA record"},
		{403, "", `{"type":"` + urn + `unauthorized","detail":"not yours"}`, 0, true, "whether this account may have these names"},
		{403, "", `{"type":"` + urn + `externalAccountRequired","detail":"who?"}`, 0, true, "key identifier and an HMAC key"},
		{400, "", `{"type":"` + urn + `malformed","detail":"what?"}`, 0, true, "look into the CA's log"},
		{400, "", `{"type":"https://ca.example/own","title":"our own trouble"}`, 0, true, "our own trouble (https://ca.example/own)"},
		{403, "", `{"type":"` + urn + `compound","detail":"several","subproblems":[
			{"type":"` + urn + `rejectedIdentifier","detail":"not signed here","identifier":{"type":"dns","value":"cache.example"}}]}`, 0, true,
			"several (compound); cache.example: not signed here (rejectedIdentifier)"},
		{400, "", `{"type":"` + urn + `compound","detail":"several","subproblems":[
			{"type":"` + urn + `dns","detail":"no answer","identifier":{"type":"dns","value":"cache.example"}}]}`, 0, false, "no answer (dns)"},
	} {
		r.change(answer("/order-plz", c.status, c.retryAfter, c.doc), nil)
		err := trySign(t, s, "cache.example")
		says(t, err, c.want)
		if signing.IsRefused(err) != c.refused {
			t.Errorf("refused is %v for %v", !c.refused, err)
		}
		at, ok := signing.NotBefore(err)
		if ok != (c.atLeast > 0) || ok && time.Until(at) < c.atLeast {
			t.Errorf("not before %v (%v) for %v", at, ok, err)
		}
	}
	r.change(nil, nil)
	signed(t, s, "cache.example")
}

// An order that the CA takes its time for is not ordered twice.
func TestOrderThatIsProcessed(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort})
	r := newRelay(t, p)
	cfg := acme.Config{
		DirectoryURL: r.URL, Roots: p.Root.Pool(), Ways: f.ways(acme.HTTP01),
		AccountKeyFile: filepath.Join(t.TempDir(), "acme.key"), Patience: time.Second,
	}
	csr, key := request(t, "cache.example")
	var orders atomic.Int32
	count := func(_ http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path == "/order-plz" {
			orders.Add(1)
		}
		return false
	}
	r.change(count, func(path string, body []byte) []byte {
		if !strings.HasPrefix(path, "/my-order/") && !strings.HasPrefix(path, "/finalize-order/") {
			return body
		}
		return bytes.ReplaceAll(body, []byte(`"status": "valid"`), []byte(`"status": "processing"`))
	})
	for range 2 {
		_, err := newSigner(t, cfg).Sign(t.Context(), csr, key, nil)
		passes(t, err, "still processing: the CA has not made the certificate yet", "the order is picked up again")
	}
	if n := orders.Load(); n != 1 {
		t.Errorf("%d orders; want 1", n)
	}
	// Another request is another matter.
	r.change(count, nil)
	signed(t, newSigner(t, cfg), "other.example")
	if n := orders.Load(); n != 2 {
		t.Errorf("%d orders; want 2", n)
	}
	// The CA has it, and the network loses it once.
	r.change(count, nil)
	r.change(answer("/certZ/", http.StatusBadGateway, "", "<html>"), nil)
	_, err := newSigner(t, cfg).Sign(t.Context(), csr, key, nil)
	passes(t, err, "HTTP 502")
	orders.Store(0)
	r.change(count, nil)
	signedAgain(t, newSigner(t, cfg), csr, key, nil, "cache.example")
	if n := orders.Load(); n != 0 {
		t.Errorf("%d orders; want the one there was", n)
	}
	// And what is finished is not picked up a second time.
	signedAgain(t, newSigner(t, cfg), csr, key, nil, "cache.example")
	if n := orders.Load(); n != 1 {
		t.Errorf("%d orders; want a new one", n)
	}
}

// What was proven stays so when another name fails.
func TestProvenNamesAreNotGivenUp(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort})
	r := newRelay(t, p)
	var given atomic.Int32
	r.change(func(_ http.ResponseWriter, req *http.Request) bool {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		var message struct{ Payload string }
		_ = json.Unmarshal(body, &message) // directories have no body
		payload, err := base64.RawURLEncoding.DecodeString(message.Payload)
		if err != nil {
			t.Error(err)
		}
		if bytes.Contains(payload, []byte("deactivated")) {
			given.Add(1)
		}
		return false
	}, nil)
	s := newSigner(t, acme.Config{DirectoryURL: r.URL, Roots: p.Root.Pool(), Ways: []acme.Way{{Challenge: acme.HTTP01, Solver: oneOnly{f, "cache.example"}}}})
	refused(t, trySign(t, s, "cache.example", "other.example"), "ACME challenge http-01 for other.example")
	if n := given.Load(); n != 0 {
		t.Errorf("%d authorizations were given up; want none, neither the valid one nor the one that failed", n)
	}
}

// oneOnly presents what is for one name.
type oneOnly struct {
	acme.Solver
	name string
}

func (o oneOnly) Present(ctx context.Context, c acme.Challenge) error {
	if c.Identifier != o.name {
		return nil
	}
	return o.Solver.Present(ctx, c)
}

// A CA that does not get round to looking.
func TestChallengeThatStaysPending(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{
		httpPort: f.HTTPPort, slow: true, env: []string{"PEBBLE_VA_SLEEPTIME=100000"},
		config: map[string]any{"retryAfter": map[string]int{"authz": 3600}},
	})
	s := newSigner(t, acme.Config{DirectoryURL: p.URL, Roots: p.Root.Pool(), Ways: f.ways(acme.HTTP01), Patience: time.Second})
	err := trySign(t, s, "cache.example")
	passes(t, err, "ACME challenge http-01 for cache.example: found no verdict of the CA within 1s")
	if at, ok := signing.NotBefore(err); !ok || time.Until(at) < 59*time.Minute {
		t.Errorf("not before %v (%v); want the hour that the CA asks for", at, ok)
	}
	if f.Pending() {
		t.Error("challenges are left behind")
	}
}

// What a CA names must be as safe as its directory.
func TestNoWayDownToPlainHTTP(t *testing.T) {
	t.Parallel()
	f, p := newFront(t), newPebble(t, pebbleOptions{})
	r := newRelay(t, p)
	r.change(nil, func(_ string, body []byte) []byte {
		return bytes.ReplaceAll(body, []byte("https://"), []byte("http://"))
	})
	s := newSigner(t, acme.Config{DirectoryURL: r.URL, Roots: p.Root.Pool(), Ways: f.ways(acme.HTTP01)})
	says(t, trySign(t, s, "cache.example"), "the CA names an address without TLS: http://")
}

func TestNoRenewalInfo(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort})
	r := newRelay(t, p)
	r.change(nil, func(path string, body []byte) []byte {
		if path != "/dir" {
			return body
		}
		var dir map[string]any
		if json.Unmarshal(body, &dir) != nil {
			return nil
		}
		delete(dir, "renewalInfo")
		body, _ = json.Marshal(dir)
		return body
	})
	s := newSigner(t, acme.Config{DirectoryURL: r.URL, Roots: p.Root.Pool(), Ways: f.ways(acme.HTTP01)})
	current := signed(t, s, "cache.example")
	csr, key := request(t, "cache.example")
	signedAgain(t, s, csr, key, current, "cache.example")
	if strings.Contains(p.out.String(), "is a replacement of") {
		t.Error("a CA that does not ask was told of the renewal")
	}
	if _, _, _, _, err := s.RenewalInfo(t.Context(), current.Leaf()); !errors.Is(err, acme.ErrNoRenewalInfo) {
		t.Errorf("error is %v", err)
	}
}

// crypto/x509 cannot check an Ed448 request, so this CA cannot either.
func TestEd448Request(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort})
	csr, key := ed448Request(t, "cache.example")
	_, err := signerFor(t, p, f, acme.HTTP01).Sign(t.Context(), csr, key, nil)
	refused(t, err, "Bad signature on CSR", "(badCSR)", "RSA 2048 and ECDSA P-256 keys are safe choices")
}

func ed448Request(t *testing.T, name string) ([]byte, crypto.Signer) {
	t.Helper()
	keyFile := filepath.Join(t.TempDir(), "key.pem")
	csr, err := exec.Command("openssl", "req", "-new", "-newkey", "ed448", "-nodes", "-keyout", keyFile,
		"-subj", "/CN="+name, "-addext", "subjectAltName=DNS:"+name, "-outform", "DER").Output()
	if err != nil {
		t.Fatalf("openssl: %v", err)
	}
	text, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.ParsePEM(text)
	if err != nil {
		t.Fatal(err)
	}
	return csr, key
}
