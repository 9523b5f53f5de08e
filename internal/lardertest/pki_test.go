package lardertest

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestLeafIsTrustedForItsNames(t *testing.T) {
	t.Parallel()
	ca, other := NewCA(t), NewCA(t)
	leaf := ca.Leaf(t, "node.test", "*.wild.test", "127.0.0.1", "::1", "spiffe://larder/node/1").Cert
	for _, name := range []string{"node.test", "a.wild.test", "127.0.0.1", "::1"} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(leaf.URIs) != 1 || len(leaf.DNSNames) != 2 || len(leaf.IPAddresses) != 2 {
		t.Errorf("got %v %v %v", leaf.DNSNames, leaf.IPAddresses, leaf.URIs)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), DNSName: "other.test"}); err == nil {
		t.Error("good for a name that it does not have")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: other.Pool()}); err == nil {
		t.Error("trusted by another authority")
	}
	old := ca.LeafWith(t, LeafOptions{NotAfter: time.Now().Add(-time.Minute)}, "node.test").Cert
	if _, err := old.Verify(x509.VerifyOptions{Roots: ca.Pool()}); err == nil {
		t.Error("an expired one is good")
	}
}

func TestInstallReplacesTheActivePair(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), NewCA(t)
	for _, name := range []string{"a", "a", "b"} {
		pair := ca.Leaf(t, "node.test")
		pair.Install(t, dir, name)
		got, err := tls.LoadX509KeyPair(filepath.Join(dir, "certs", name+".crt"), filepath.Join(dir, "keys", name+".key"))
		if err != nil || !got.Leaf.Equal(pair.Cert) {
			t.Errorf("%s: another certificate, or none: %v", name, err)
		}
		active, err := os.ReadFile(filepath.Join(dir, "active.yaml"))
		if want := "certificate: certs/" + name + ".crt\nkey: keys/" + name + ".key\n"; err != nil || string(active) != want {
			t.Errorf("active.yaml is %q, %v", active, err)
		}
	}
}
