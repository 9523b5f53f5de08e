package authority_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"larder/internal/lardertest"
	"larder/internal/pki/authority"
)

const node = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"

func create(t testing.TB) *authority.CA {
	t.Helper()
	ca, err := authority.Create("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func request(t testing.TB, key crypto.Signer, tmpl *x509.CertificateRequest) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func issue(t testing.TB, a *authority.Authority, now time.Time) *authority.Issued {
	t.Helper()
	i, err := a.IssueNode(request(t, ecKey(t), &x509.CertificateRequest{}), node, 3, now)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// Whatever a request asks for, the certificate is a node's and nothing else.
func TestRequestsDecideNothingButTheKey(t *testing.T) {
	t.Parallel()
	a := authority.New(create(t))
	greedy := &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "control.example", Organization: []string{"Evil"}}, DNSNames: []string{"control.example"}, IPAddresses: []net.IP{net.ParseIP("10.0.0.1")},
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}, {Id: []int{2, 5, 29, 37}, Value: []byte{0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1}}},
	}
	now := time.Now()
	i, err := a.IssueNode(request(t, ecKey(t), greedy), node, 3, now)
	if err != nil {
		t.Fatal(err)
	}
	c := i.Chain[0]
	if c.IsCA || len(c.DNSNames)+len(c.IPAddresses) != 0 || c.Subject.CommonName != node || len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || c.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("got %+v", c)
	}
	if life := c.NotAfter.Sub(now).Round(time.Hour); life != authority.NodeLife {
		t.Errorf("it is good for %s, want %s", life, authority.NodeLife)
	}
	claim, err := a.Verify(i.Chain, now)
	if err != nil || claim.Node != node || claim.Line != 3 || claim.Serial != i.Serial || claim.SPKI != i.SPKI || claim.Expired {
		t.Errorf("got %+v, %v", claim, err)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	a := authority.New(create(t))
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := request(t, ecKey(t), &x509.CertificateRequest{})
	block, _ := pem.Decode([]byte(good))
	block.Bytes[len(block.Bytes)-1] ^= 1
	for name, tt := range map[string]struct{ csr, want string }{
		"nothing":       {"", "PEM"},
		"a certificate": {strings.ReplaceAll(good, "CERTIFICATE REQUEST", "CERTIFICATE"), "CERTIFICATE REQUEST"},
		"two":           {good + good, "more than one"},
		"long":          {good + strings.Repeat(" ", 20<<10), "16384"},
		"another's key": {string(pem.EncodeToMemory(block)), "signature"},
		"RSA 1024":      {request(t, small, &x509.CertificateRequest{}), "1024 bits"},
		"P-521":         {request(t, p521, &x509.CertificateRequest{}), "P-521"},
	} {
		if _, err := a.IssueNode(tt.csr, node, 1, time.Now()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, tt.want)
		}
	}
	if _, err := a.IssueNode(request(t, ed, &x509.CertificateRequest{}), node, 1, time.Now()); err != nil {
		t.Errorf("Ed25519: %v", err)
	}
	if _, err := a.IssueNode(good, "room-1", 1, time.Now()); err == nil {
		t.Error("a node that is no GUID was taken")
	}
}

func TestWhatIdentitiesAreWorth(t *testing.T) {
	t.Parallel()
	ca, next := create(t), create(t)
	a, other := authority.New(ca), authority.New(create(t))
	now := time.Now()
	i := issue(t, a, now)
	server, err := a.IssueServer(ecKey(t).Public(), []string{"control.example"}, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		a     *authority.Authority
		chain []*x509.Certificate
		at    time.Time
		want  error
	}{
		"no certificate":        {a, nil, now, authority.ErrNotOurs},
		"another authority's":   {other, i.Chain, now, authority.ErrNotOurs},
		"a server's":            {a, server.Chain, now, authority.ErrNotANode},
		"the root itself":       {a, []*x509.Certificate{ca.Certificate()}, now, authority.ErrNotANode},
		"of a clock far behind": {a, i.Chain, now.Add(-48 * time.Hour), authority.ErrNotOurs},
		"a root that has ended": {a, i.Chain, now.Add(authority.RootLife + time.Hour), authority.ErrNotOurs},
	} {
		if c, err := tt.a.Verify(tt.chain, tt.at); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %+v, %v, want %v", name, c, err, tt.want)
		}
	}
	late, err := a.Verify(i.Chain, now.Add(100*24*time.Hour))
	if err != nil || !late.Expired || authority.MayRenew(late, now.Add(100*24*time.Hour)) != nil {
		t.Errorf("after 100 days: %+v, %v", late, err)
	}
	if err := authority.MayRenew(late, now.Add(300*24*time.Hour)); !errors.Is(err, authority.ErrTooOld) {
		t.Errorf("after 300 days: got %v, want ErrTooOld", err)
	}
	// A new root signs while the old one is trusted, and no longer.
	a.Replace(next, ca.Certificate())
	if _, err := a.Verify(i.Chain, now); err != nil {
		t.Errorf("of the root before: %v", err)
	}
	if _, err := a.Verify(issue(t, a, now).Chain, now); err != nil {
		t.Errorf("of the new root: %v", err)
	}
	a.Replace(next)
	if _, err := a.Verify(i.Chain, now); !errors.Is(err, authority.ErrNotOurs) {
		t.Errorf("of a root that was retired: got %v", err)
	}
}

func TestOpenSSLAgrees(t *testing.T) {
	t.Parallel()
	openssl := lardertest.Program(t, "openssl")
	ca := create(t)
	i := issue(t, authority.New(ca), time.Now())
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	root, leaf := write("root.pem", authority.New(ca).RootsPEM()), write("leaf.pem", i.PEM())
	if out, err := exec.CommandContext(t.Context(), openssl, "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", root, leaf).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), openssl, "verify", "-purpose", "sslserver", "-CAfile", root, leaf).CombinedOutput(); err == nil {
		t.Errorf("a node's identity is good for a server:\n%s", out)
	}
}

// shake makes a TLS connection between the two and returns what each says.
func shake(t *testing.T, server, client *tls.Config, name string) (asServer, asClient error) {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		done <- c.(*tls.Conn).HandshakeContext(t.Context())
	}()
	cfg := client.Clone()
	cfg.ServerName = name
	c, err := tls.Dial("tcp", ln.Addr().String(), cfg)
	if err == nil {
		c.Close()
	}
	return <-done, err
}

func TestPinsAndRoots(t *testing.T) {
	t.Parallel()
	ca := create(t)
	a := authority.New(ca)
	s := authority.NewServer(a, func() []string { return []string{"control.example", "127.0.0.1"} }, 0)
	server := &tls.Config{GetCertificate: s.GetCertificate}
	pin := func(fingerprint string) *tls.Config {
		t.Helper()
		c, err := authority.PinRoot(fingerprint)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	roots, err := authority.TrustRoots(a.RootsPEM())
	if err != nil {
		t.Fatal(err)
	}
	good := authority.Fingerprint(ca.Certificate())
	for name, tt := range map[string]struct {
		client *tls.Config
		host   string
		ok     bool
	}{
		"pinned":               {pin(good), "control.example", true},
		"pinned, by address":   {pin(strings.ToUpper(strings.TrimPrefix(good, "sha256:"))), "127.0.0.1", true},
		"pinned, another name": {pin(good), "evil.example", false},
		"another pin":          {pin(authority.Fingerprint(create(t).Certificate())), "control.example", false},
		"the leaf's pin":       {pin(leafPin(t, s)), "control.example", false},
		"by roots":             {roots, "control.example", true},
		"by roots, no name":    {roots, "evil.example", false},
	} {
		if _, err := shake(t, server, tt.client, tt.host); (err == nil) != tt.ok {
			t.Errorf("%s: got %v, want ok %v", name, err, tt.ok)
		}
	}
	if _, err := authority.PinRoot("sha256:12"); err == nil {
		t.Error("half a fingerprint was taken")
	}
	if _, err := authority.TrustRoots("nothing"); err == nil {
		t.Error("no roots were taken")
	}
	// Who stands between has a root of their own, and sends ours along.
	evil := create(t)
	key := ecKey(t)
	fake, err := authority.New(evil).IssueServer(key.Public(), []string{"control.example"}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	between := fake.TLSCertificate(key, evil.Certificate())
	between.Certificate = append(between.Certificate, ca.Certificate().Raw)
	if _, err := shake(t, &tls.Config{Certificates: []tls.Certificate{*between}}, pin(good), "control.example"); err == nil {
		t.Error("a chain that holds the pinned root, and does not lead to it, was taken")
	}
}

func leafPin(t *testing.T, s *authority.Server) string {
	c, err := s.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return authority.Fingerprint(c.Leaf)
}

func TestAServersCertificateStaysFresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := authority.New(create(t))
		names := []string{"a.example"}
		s := authority.NewServer(a, func() []string { return names }, 0)
		get := func() *x509.Certificate {
			t.Helper()
			c, err := s.GetCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			return c.Leaf
		}
		first := get()
		if get() != first {
			t.Error("each handshake makes a certificate")
		}
		time.Sleep(authority.ServerLife * 7 / 10)
		second := get()
		if second == first {
			t.Error("after two thirds of its life it is still the first")
		}
		time.Sleep(2 * authority.ServerLife) // the machine slept
		if c := get(); !time.Now().Before(c.NotAfter) {
			t.Errorf("it ended at %s, and it is %s", c.NotAfter, time.Now())
		}
		names = []string{"b.example"}
		if c := get(); c.VerifyHostname("b.example") != nil {
			t.Error("it does not know the new name")
		}
		next := create(t)
		a.Replace(next)
		if c := get(); c.CheckSignatureFrom(next.Certificate()) != nil {
			t.Error("the new root has not signed it")
		}
	})
}

func TestRootsComeBackFromTheirParts(t *testing.T) {
	t.Parallel()
	ca, other := create(t), create(t)
	key, err := ca.Key()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := authority.Load(ca.Certificate().Raw, key); err != nil || !got.Certificate().Equal(ca.Certificate()) {
		t.Errorf("got %v", err)
	}
	if _, err := authority.Load(other.Certificate().Raw, key); err == nil {
		t.Error("another root's key was taken")
	}
	leaf := issue(t, authority.New(ca), time.Now())
	if _, err := authority.Load(leaf.Chain[0].Raw, key); err == nil {
		t.Error("a leaf was taken for a root")
	}
}

func FuzzParseFingerprint(f *testing.F) {
	f.Add("sha256:" + strings.Repeat("ab", 32))
	f.Add(strings.Repeat("AB:", 31) + "AB")
	f.Fuzz(func(t *testing.T, s string) {
		sum, err := authority.ParseFingerprint(s)
		if err != nil && sum != [32]byte{} {
			t.Errorf("%q: an error and %x", s, sum)
		}
	})
}

func FuzzIssueNode(f *testing.F) {
	f.Add(request(f, ecKey(f), &x509.CertificateRequest{}))
	a := authority.New(create(f))
	f.Fuzz(func(t *testing.T, csr string) {
		i, err := a.IssueNode(csr, node, 1, time.Now())
		if err != nil {
			return
		}
		if c, err := a.Verify(i.Chain, time.Now()); err != nil || c.Node != node {
			t.Errorf("what was signed is not good: %v", err)
		}
	})
}
