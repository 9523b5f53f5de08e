package acme_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"larder/internal/pki/enroll/acme"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
)

func TestHTTP01(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	// Half of all nonces are refused: each such request is made again.
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort, env: []string{"PEBBLE_WFE_NONCEREJECT=50"}})
	s := signerFor(t, p, f, acme.HTTP01)
	signed(t, s, "cache.example", "CACHE.example", "other.example")
	if f.Pending() {
		t.Error("challenges are left behind")
	}
	if !strings.Contains(p.out.String(), "JWS has an invalid anti-replay nonce") {
		t.Log("no nonce was refused in this run")
	}
}

func TestTLSALPN01(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{tlsPort: f.TLSPort})
	signed(t, signerFor(t, p, f, acme.TLSALPN01), "cache.example", "other.example")
	if f.Pending() {
		t.Error("challenges are left behind")
	}
}

// Without a node, each listener is there while the CA looks and not longer.
func TestListeners(t *testing.T) {
	t.Parallel()
	web, secure := freeAddress(t), freeAddress(t)
	p := newPebble(t, pebbleOptions{httpPort: portOf(t, web), tlsPort: portOf(t, secure)})
	for kind, way := range map[string]struct {
		solver  acme.Solver
		address string
	}{
		acme.HTTP01:    {&acme.HTTPListener{Addr: web}, web},
		acme.TLSALPN01: {&acme.ALPNListener{Addr: secure}, secure},
	} {
		s := newSigner(t, acme.Config{DirectoryURL: p.URL, Roots: p.Root.Pool(), Ways: []acme.Way{{Challenge: kind, Solver: way.solver}}})
		for range 2 { // it opens again
			signed(t, s, "cache.example", "other.example")
			if conn, err := net.Dial("tcp", way.address); err == nil {
				_ = conn.Close()
				t.Errorf("%s: the listener is still open", kind)
			}
		}
	}
}

// hook writes TXT records as files of a zone: each value by itself, so that a
// name and its wildcard do not overwrite one another.
const hook = `#!/bin/sh
set -e
test "$LARDER_ACME_NAME" = "$3" && test "$LARDER_ACME_VALUE" = "$4"
test "$CERTBOT_VALIDATION" = "$4" && test "_acme-challenge.$CERTBOT_DOMAIN" = "$3"
test "$LARDER_ACME_DOMAIN" = "$CERTBOT_DOMAIN"
case $2 in
present) mkdir -p "$1/$3" && : > "$1/$3/$4" && echo "$3" >> "$1/log" ;;
cleanup) rm "$1/$3/$4" ;;
*) exit 64 ;;
esac
`

func newHook(t *testing.T, text string) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the hook is a shell script")
	}
	name := filepath.Join(t.TempDir(), "my hook.sh")
	writeFile(t, name, []byte(text))
	return `/bin/sh "` + name + `"`
}

func TestDNS01(t *testing.T) {
	t.Parallel()
	p := newPebble(t, pebbleOptions{})
	command := &acme.DNSCommand{
		Command: newHook(t, hook) + " " + p.Zone.Dir, Propagation: time.Minute, Resolver: p.Zone.Resolver(),
	}
	s := newSigner(t, acme.Config{DirectoryURL: p.URL, Roots: p.Root.Pool(), Ways: []acme.Way{{Challenge: acme.DNS01, Solver: command}}})
	signed(t, s, "*.cache.example", "cache.example", "other.example")
	log, err := os.ReadFile(filepath.Join(p.Zone.Dir, "log"))
	if err != nil || strings.Count(string(log), "_acme-challenge.cache.example\n") != 2 {
		t.Errorf("the hook was called for %q (%v); want two records for the wildcard and its name", log, err)
	}
	if left := p.Zone.TXT("_acme-challenge.cache.example"); len(left) > 0 {
		t.Errorf("records are left behind: %q", left)
	}
}

// RFC 8738.
func TestAddresses(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort, tlsPort: f.TLSPort})
	for _, kind := range []string{acme.HTTP01, acme.TLSALPN01} {
		signed(t, signerFor(t, p, f, kind), "127.0.0.1", "cache.example")
	}
}

const macKey = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"

func TestExternalAccount(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort, config: map[string]any{
		"externalAccountBindingRequired": true, "externalAccountMACKeys": map[string]string{"kid-1": macKey},
	}})
	cfg := acme.Config{DirectoryURL: p.URL, Roots: p.Root.Pool(), Ways: f.ways(acme.HTTP01)}
	cfg.EAB = &acme.EAB{KeyID: "kid-1", HMACKey: macKey + "=="}
	signed(t, newSigner(t, cfg), "cache.example")

	const wrong = "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH"
	for _, c := range []struct {
		eab  *acme.EAB
		want string
	}{
		{nil, "the CA wants accounts bound to one that exists"},
		{&acme.EAB{KeyID: "kid-1", HMACKey: wrong}, "compare the external account's key identifier and HMAC key"},
		{&acme.EAB{KeyID: "kid-2", HMACKey: macKey}, "compare the external account's key identifier and HMAC key"},
	} {
		cfg.EAB = c.eab
		csr, key := request(t, "cache.example")
		_, err := newSigner(t, cfg).Sign(t.Context(), csr, key, nil)
		refused(t, err, c.want)
		if err != nil && (strings.Contains(err.Error(), wrong) || strings.Contains(err.Error(), macKey)) {
			t.Errorf("the error tells the key: %v", err)
		}
	}
}

// account reads what is remembered beside the account's key.
func account(t *testing.T, keyFile string) (location string, contact []string) {
	t.Helper()
	data, err := os.ReadFile(keyFile + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var notes struct {
		Location string
		Contact  []string
	}
	if err := json.Unmarshal(data, &notes); err != nil {
		t.Fatal(err)
	}
	return notes.Location, notes.Contact
}

// A renewal, with the old key or a new one, is told to the CA as one; the
// account stays the same as long as its key does.
func TestRenewal(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort})
	cfg := acme.Config{
		DirectoryURL: p.URL, Roots: p.Root.Pool(), Ways: f.ways(acme.HTTP01),
		AccountKeyFile: filepath.Join(t.TempDir(), "acme.key"), Contact: []string{"admin@example.com"},
	}
	s := newSigner(t, cfg)
	first := signed(t, s, "cache.example")
	location, contact := account(t, cfg.AccountKeyFile)
	if len(contact) != 1 || contact[0] != "mailto:admin@example.com" {
		t.Errorf("contact is %q", contact)
	}
	if info, err := os.Stat(cfg.AccountKeyFile); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the account's key: %v, %v; want mode 0600", info, err)
	}

	start, end, explanation, retryAfter, err := s.RenewalInfo(t.Context(), first.Leaf())
	if err != nil || !start.Before(end) || end.After(first.Leaf().NotAfter) || explanation != "" || !retryAfter.After(time.Now()) {
		t.Errorf("RenewalInfo is %v to %v, %q, again at %v, %v", start, end, explanation, retryAfter, err)
	}

	same := signedAgain(t, s, requestFor(t, first.Key, "cache.example"), first.Key, first, "cache.example")
	if same.Leaf().SerialNumber.Cmp(first.Leaf().SerialNumber) == 0 {
		t.Error("the certificate is the old one")
	}
	if !strings.Contains(p.out.String(), "is a replacement of") {
		t.Error("the CA was not told that this is a renewal")
	}
	csr, key := request(t, "cache.example")
	signedAgain(t, s, csr, key, same, "cache.example")
	// What was replaced once cannot be again: the order goes without it.
	signedAgain(t, s, csr, key, first, "cache.example")

	// Another process, with another contact.
	cfg.Contact = []string{"mailto:second@example.com"}
	signed(t, newSigner(t, cfg), "cache.example")
	again, contact := account(t, cfg.AccountKeyFile)
	if again != location || len(contact) != 1 || contact[0] != "mailto:second@example.com" {
		t.Errorf("the account is %s with %q; want %s with the new contact", again, contact, location)
	}

	// Without notes, the account is found by its key.
	if err := os.Remove(cfg.AccountKeyFile + ".json"); err != nil {
		t.Fatal(err)
	}
	cfg.Contact = nil
	signed(t, newSigner(t, cfg), "cache.example")
	if again, _ := account(t, cfg.AccountKeyFile); again != location {
		t.Errorf("the account is %s; want %s", again, location)
	}

	// With the key lost, there is another account, and the renewal still goes.
	if err := os.Remove(cfg.AccountKeyFile); err != nil {
		t.Fatal(err)
	}
	signedAgain(t, newSigner(t, cfg), csr, key, same, "cache.example")
	if again, _ := account(t, cfg.AccountKeyFile); again == location {
		t.Errorf("the account is still %s", again)
	}
}

// A CA that lost its accounts, or was set up anew at the same place.
func TestForgottenAccount(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort})
	cfg := acme.Config{DirectoryURL: p.URL, Ways: f.ways(acme.HTTP01), AccountKeyFile: filepath.Join(t.TempDir(), "acme.key")}
	cfg.Roots = p.Root.Pool()
	current := signed(t, newSigner(t, cfg), "cache.example")
	p.stop()

	p = newPebble(t, pebbleOptions{httpPort: f.HTTPPort, address: p.Address})
	cfg.Roots = p.Root.Pool()
	csr, key := request(t, "cache.example")
	signedAgain(t, newSigner(t, cfg), csr, key, current, "cache.example")
}

// Two who sign at once do not open two accounts.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort})
	s := signerFor(t, p, f, acme.HTTP01)
	var running sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		csr, key := request(t, fmt.Sprintf("cache%d.example", i))
		running.Go(func() { _, errs[i] = s.Sign(t.Context(), csr, key, nil) })
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(p.out.String(), "accounts in memory"); n != 1 {
		t.Errorf("%d accounts were opened", n)
	}
}

// The first way fails for want of a server, the second is taken.
func TestSecondWay(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{tlsPort: f.TLSPort})
	signed(t, signerFor(t, p, f, acme.HTTP01, acme.TLSALPN01), "cache.example", "other.example")
}

func TestPreferredChain(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort, env: []string{"PEBBLE_ALTERNATE_ROOTS=2"}})
	root := pebbleRoot(t, p, 2)
	cfg := acme.Config{DirectoryURL: p.URL, Roots: p.Root.Pool(), Ways: f.ways(acme.HTTP01), PreferredChain: root.Subject.CommonName}
	got := signed(t, newSigner(t, cfg), "cache.example")
	if issuer := got.Chain[len(got.Chain)-1].Issuer.CommonName; issuer != root.Subject.CommonName {
		t.Errorf("the chain ends at %s; want %s", issuer, root.Subject.CommonName)
	}
	cfg.PreferredChain = "nobody"
	signed(t, newSigner(t, cfg), "cache.example")
}

func pebbleRoot(t *testing.T, p *pebble, n int) *x509.Certificate {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.Root.Pool()}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	resp, err := client.Get(fmt.Sprintf("%s/roots/%d", p.Manage, n))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("root %d is %q", n, text)
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// What the CA cannot sign is said, and what it can is not touched by it.
func TestKindsOfKeys(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := newPebble(t, pebbleOptions{httpPort: f.HTTPPort})
	s := signerFor(t, p, f, acme.HTTP01)
	for _, kind := range [][2]string{{keys.RSA, "2048"}, {keys.EC, "secp384r1"}} {
		key, err := keys.Generate(kind[0], kind[1])
		if err != nil {
			t.Fatal(err)
		}
		signedAgain(t, s, requestFor(t, key, "cache.example"), key, nil, "cache.example")
	}
	key, err := keys.Generate(keys.Ed25519, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Sign(t.Context(), requestFor(t, key, "cache.example"), key, nil)
	refused(t, err, "finalizing the order", "Ed25519 is not supported (badCSR)", "RSA 2048 and ECDSA P-256 keys are safe choices")
}

func refused(t *testing.T, err error, wants ...string) {
	t.Helper()
	if !signing.IsRefused(err) {
		t.Errorf("error is %v; want one that says somebody has to act", err)
	}
	says(t, err, wants...)
}

func says(t *testing.T, err error, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is\n\t%v\nwant it to say\n\t%s", err, want)
		}
	}
}
