package scep

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"larder/internal/lardertest"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	host  = "cache.example.com"
	word  = "a challenge & a half, ü" // the challenge password
	notIt = "not the challenge"
)

// rsaKeys makes keys once: they take time.
var rsaKeys = sync.OnceValue(func() []*rsa.PrivateKey {
	made := make([]*rsa.PrivateKey, 5)
	var all sync.WaitGroup
	for i := range made {
		all.Go(func() {
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				panic(err)
			}
			made[i] = key
		})
	}
	all.Wait()
	return made
})

// issue makes a certificate; a nil parent is itself.
func issue(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(24*time.Hour)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
}

// request makes a request with a key of a kind.
func request(t testing.TB, algorithm string, names ...string) ([]byte, crypto.Signer) {
	t.Helper()
	key, err := keys.Generate(algorithm, "")
	if err != nil {
		t.Fatal(err)
	}
	return requestWith(t, key, names...), key
}

func requestWith(t testing.TB, key crypto.Signer, names ...string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: names[0], Organization: []string{"Example"}}, DNSNames: names,
		IPAddresses: []net.IP{net.IPv4(10, 0, 0, 5)},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func signer(t testing.TB, c Config) *Signer {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start runs a server that must be told its ports, until the test ends. Ports
// from the system may be gone when the server takes them, so there is more
// than one try. url is what to ask for capabilities.
func start(t testing.TB, program string, ports int, args func(ports []string) (args []string, url string)) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	for range 5 {
		var free []string
		var held []net.Listener
		for range ports {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, l)
			free = append(free, l.Addr().String())
		}
		for _, l := range held {
			_ = l.Close()
		}
		words, url := args(free)
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(context.Background())
		cmd := exec.CommandContext(ctx, program, words...)
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.Env = append(os.Environ(), "STEPPATH="+t.TempDir())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = cmd.Wait()
		}()
		up := false
		lardertest.Eventually(t, "the server answers or ends", func() bool {
			select {
			case <-ended:
				return true
			default:
			}
			resp, err := client.Get(url + "?operation=GetCACaps")
			if err != nil {
				return false
			}
			_ = resp.Body.Close()
			up = resp.StatusCode == http.StatusOK
			return up
		})
		stop := func() {
			cancel()
			<-ended
		}
		if up {
			t.Cleanup(stop)
			return url
		}
		stop()
		t.Logf("it ended: %s", out.String())
	}
	t.Fatal("the server does not start")
	return ""
}

// microMDM runs scepserver. Its CA is the returned certificate.
func microMDM(t testing.TB) (string, *x509.Certificate) {
	t.Helper()
	program := lardertest.Tool(t, lardertest.SCEPServer)
	depot := filepath.Join(t.TempDir(), "depot")
	if out, err := exec.CommandContext(t.Context(), program, "ca", "-init", "-depot", depot, "-keySize", "2048").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	url := start(t, program, 1, func(ports []string) ([]string, string) {
		return []string{"-depot", depot, "-http-addr", ports[0], "-challenge", word, "-allowrenew", "0", "-sign-server-attrs", "-debug"}, "http://" + ports[0] + "/scep"
	})
	return url, readCert(t, filepath.Join(depot, "ca.pem"))
}

func readCert(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// stepCA runs step-ca with an RSA intermediate and two SCEP provisioners:
// "plain" decrypts with the intermediate, "ra" with a certificate of its own,
// which step's tools make as one for TLS.
func stepCA(t testing.TB) (url string, intermediate, ra *x509.Certificate) {
	t.Helper()
	program := lardertest.Tool(t, lardertest.StepCA)
	made := rsaKeys()
	root := issue(t, caTemplate("Step Root"), nil, made[0].Public(), made[0])
	intermediate = issue(t, caTemplate("Step Intermediate"), root, made[1].Public(), made[0])
	ra = issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "SCEP decrypter"}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, intermediate, made[2].Public(), made[1])
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certPEM := func(c *x509.Certificate) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	keyPEM := func(key crypto.Signer) []byte {
		text, err := keys.MarshalPEM(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	provisioner := func(name string, more map[string]any) map[string]any {
		p := map[string]any{"type": "SCEP", "name": name, "challenge": word, "encryptionAlgorithmIdentifier": 2}
		for k, v := range more {
			p[k] = v
		}
		return p
	}
	config := map[string]any{
		"root": write("root.crt", certPEM(root)), "crt": write("int.crt", certPEM(intermediate)), "key": write("int.key", keyPEM(made[1])),
		"dnsNames": []string{"127.0.0.1"}, "logger": map[string]any{"format": "text"},
		"authority": map[string]any{"provisioners": []any{
			provisioner("plain", map[string]any{"includeRoot": true}),
			provisioner("ra", map[string]any{"decrypterCertificate": certPEM(ra), "decrypterKeyPEM": keyPEM(made[2])}),
		}},
	}
	url = start(t, program, 2, func(ports []string) ([]string, string) {
		config["address"], config["insecureAddress"] = ports[0], ports[1]
		text, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		return []string{write("ca.json", text)}, "http://" + ports[1] + "/scep/plain"
	})
	return strings.TrimSuffix(url, "/plain"), intermediate, ra
}

// wantCert checks a chain for a request.
func wantCert(t *testing.T, chain []*x509.Certificate, err error, csr []byte, length int) *signing.Current {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	if len(chain) != length {
		t.Errorf("a chain of %d, want %d", len(chain), length)
	}
	leaf := chain[0]
	if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, req.RawSubjectPublicKeyInfo) || !bytes.Equal(leaf.RawSubject, req.RawSubject) {
		t.Errorf("the certificate is for %s", leaf.Subject)
	}
	if fmt.Sprint(leaf.DNSNames, leaf.IPAddresses) != fmt.Sprint(req.DNSNames, req.IPAddresses) {
		t.Errorf("names %q %v, want %q %v", leaf.DNSNames, leaf.IPAddresses, req.DNSNames, req.IPAddresses)
	}
	return &signing.Current{Chain: chain}
}

func wantRefused(t *testing.T, err error, words ...string) {
	t.Helper()
	wantWords(t, err, words...)
	if !signing.IsRefused(err) {
		t.Errorf("%v; want it to be refused", err)
	}
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
	for _, secret := range []string{word, notIt} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%v: the challenge password is in it", err)
		}
	}
}

// rsaRequest spares a test the making of an RSA key.
func rsaRequest(t testing.TB, names ...string) ([]byte, crypto.Signer) {
	t.Helper()
	key := rsaKeys()[3]
	return requestWith(t, key, names...), key
}

// requestOf is request with an RSA key from the store.
func requestOf(t testing.TB, algorithm string, names ...string) ([]byte, crypto.Signer) {
	t.Helper()
	if algorithm == keys.RSA {
		return rsaRequest(t, names...)
	}
	return request(t, algorithm, names...)
}

func thumbprint(c *x509.Certificate) string { return fmt.Sprintf("%x", sha256.Sum256(c.Raw)) }
