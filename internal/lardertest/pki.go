package lardertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/internal/sys/durable"
)

// CA is a certificate authority that exists for one test.
type CA struct {
	Cert *x509.Certificate
	PEM  []byte // of Cert

	key *ecdsa.PrivateKey
}

// NewCA makes an authority with an ECDSA P-256 key, valid for a day.
func NewCA(t testing.TB) *CA {
	t.Helper()
	ca, err := makeCA()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func makeCA() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "Test authority"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil, key, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the authority just made: %w", err)
	}
	return &CA{Cert: cert, PEM: pemBlock("CERTIFICATE", der), key: key}, nil
}

// Pool returns a pool with nothing but the authority in it.
func (c *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.Cert)
	return pool
}

// Pair is a certificate with its key.
type Pair struct {
	Cert    *x509.Certificate
	CertPEM []byte // the leaf alone
	KeyPEM  []byte // PKCS#8
	TLS     tls.Certificate
}

// LeafOptions changes what a leaf certificate says. The zero value is a good
// server certificate.
type LeafOptions struct {
	NotBefore, NotAfter time.Time          // default: an hour ago, in a day
	Usage               []x509.ExtKeyUsage // default: server and client
}

// Leaf issues a certificate for names: host names, "*." names, IP addresses
// and URIs go where they belong. The first is also the common name.
func (c *CA) Leaf(t testing.TB, names ...string) Pair {
	t.Helper()
	return c.LeafWith(t, LeafOptions{}, names...)
}

// LeafWith is Leaf with options.
func (c *CA) LeafWith(t testing.TB, o LeafOptions, names ...string) Pair {
	t.Helper()
	p, err := c.leaf(o, names)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (c *CA) leaf(o LeafOptions, names []string) (Pair, error) {
	tmpl := &x509.Certificate{
		NotBefore:   o.NotBefore,
		NotAfter:    o.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: o.Usage,
	}
	if o.Usage == nil {
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	for i, name := range names {
		if i == 0 {
			tmpl.Subject.CommonName = name
		}
		if ip := net.ParseIP(name); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else if u, err := url.Parse(name); err == nil && strings.Contains(name, "://") {
			tmpl.URIs = append(tmpl.URIs, u)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, name)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("making a key: %w", err)
	}
	der, err := sign(tmpl, c.Cert, key, c.key)
	if err != nil {
		return Pair{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("writing a key: %w", err)
	}
	p := Pair{CertPEM: pemBlock("CERTIFICATE", der), KeyPEM: pemBlock("PRIVATE KEY", keyDER)}
	p.TLS, err = tls.X509KeyPair(p.CertPEM, p.KeyPEM)
	if err != nil {
		return Pair{}, fmt.Errorf("putting certificate and key together: %w", err)
	}
	p.Cert = p.TLS.Leaf
	return p, nil
}

// Install makes p the active pair of a node's TLS directory: certs/NAME.crt,
// keys/NAME.key and the file that names them, in this order and each replaced
// in one step, as a node that is running expects.
func (p Pair) Install(t testing.TB, dir, name string) {
	t.Helper()
	for _, sub := range []string{"certs", "keys"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	crt, key := "certs/"+name+".crt", "keys/"+name+".key"
	for _, file := range []struct {
		name string
		data []byte
	}{
		{crt, p.CertPEM},
		{key, p.KeyPEM},
		{"active.yaml", []byte("certificate: " + crt + "\nkey: " + key + "\n")},
	} {
		if err := durable.WriteFile(filepath.Join(dir, file.name), file.data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// sign completes tmpl and signs it. A nil parent: by itself.
func sign(tmpl, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	tmpl.SerialNumber = serial
	if tmpl.NotBefore.IsZero() {
		tmpl.NotBefore = time.Now().Add(-time.Hour)
	}
	if tmpl.NotAfter.IsZero() {
		tmpl.NotAfter = time.Now().Add(24 * time.Hour)
	}
	if parent == nil {
		parent = tmpl
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	return der, nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Intermediate makes an authority below c.
func (c *CA) Intermediate(t testing.TB) *CA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Test intermediate"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, c.Cert, key, c.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &CA{Cert: cert, PEM: pemBlock("CERTIFICATE", der), key: key}
}

// KeyPEM returns the authority's private key, PKCS#8, for programs that sign.
func (c *CA) KeyPEM(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		t.Fatal(err)
	}
	return pemBlock("PRIVATE KEY", der)
}
