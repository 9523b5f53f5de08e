package acme_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"larder/internal/lardertest"
	"larder/internal/pki/enroll/acme"
	"larder/internal/pki/keys"
)

// A private CA of another maker: no terms of service, no ARI, chains of its
// own.
func TestStepCA(t *testing.T) {
	t.Parallel()
	program := lardertest.Tool(t, lardertest.StepCA)
	dir := t.TempDir()
	root, intermediate, key := authority(t)
	name := func(base string) string { return filepath.Join(dir, base) }
	for base, cert := range map[string]*x509.Certificate{"root.crt": root, "ca.crt": intermediate} {
		writeFile(t, name(base), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	keyPEM, err := keys.MarshalPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, name("ca.key"), keyPEM)
	address := freeAddress(t)
	config, err := json.Marshal(map[string]any{
		"root": name("root.crt"), "crt": name("ca.crt"), "key": name("ca.key"),
		"address": address, "dnsNames": []string{"127.0.0.1"}, "logger": map[string]string{"format": "text"},
		"db": map[string]string{"type": "badgerv2", "dataSource": name("db")},
		"authority": map[string]any{"provisioners": []map[string]any{
			{"type": "ACME", "name": "acme", "claims": map[string]string{"defaultTLSCertDuration": "24h"}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, name("ca.json"), config)
	f, z := newFront(t), newZone(t)
	roots := x509.NewCertPool()
	roots.AddCert(root)
	cmd := exec.Command(program, name("ca.json"), "--resolver", z.Address, "--insecure",
		"--acme-http-port", strconv.Itoa(f.HTTPPort), "--acme-tls-port", strconv.Itoa(f.TLSPort))
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "STEPPATH="+dir)
	if _, _, ok := start(t, cmd, address, roots); !ok {
		t.Fatal("step-ca ended")
	}
	cfg := acme.Config{DirectoryURL: "https://" + address + "/acme/acme/directory", Roots: roots, Ways: f.ways(acme.HTTP01)}
	cfg.AccountKeyFile = filepath.Join(t.TempDir(), "acme.key")
	s := newSigner(t, cfg)
	got := signed(t, s, "127.0.0.1")
	if _, err := got.Leaf().Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool(got.Chain[1:])}); err != nil {
		t.Error(err)
	}
	csr, second := request(t, "127.0.0.1")
	signedAgain(t, s, csr, second, got, "127.0.0.1")

	cfg.Ways = f.ways(acme.TLSALPN01)
	signed(t, newSigner(t, cfg), "127.0.0.1")
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}
