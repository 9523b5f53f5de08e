package bundle_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"io"
	"math/big"
	"strings"
	"testing"

	"larder/internal/pki/bundle"
)

// TestManyOfOneName: signatures of a few are verified, and then it ends.
func TestManyOfOneName(t *testing.T) {
	t.Parallel()
	f := newFamily(t)
	leaf, below := f.issue("leaf", "CA", 0, 5), f.issue("BELOW", "CA", 0, 5)
	many := make([]*x509.Certificate, 0, 150)
	for range cap(many) {
		many = append(many, newFamily(t).issue("CA", "ROOT", -10, 10))
	}
	b := &bundle.Bundle{Certs: append(many[:100:100], leaf)}
	if chain, unused, err := b.Chain(f.key("leaf").Public()); err != nil || !same(chain, leaf) || len(unused) != 100 {
		t.Errorf("100 to try: %s, %v", subjects(chain), err)
	}
	b.Certs = append(many[:101:101], leaf)
	const want = "certificate: found more than 100 certificates of one name to try; expected the few that belong to the certificate; next: give the certificate with its own chain only"
	if _, _, err := b.Chain(f.key("leaf").Public()); err == nil || err.Error() != want {
		t.Errorf("101 to try: %v", err)
	}
	if leafs := b.Leafs(); !same(leafs, leaf) {
		t.Errorf("leafs %s", subjects(leafs))
	}
	// Names alone make issuers of those that are left.
	b.Certs = append(many[:150:150], below)
	if leafs := b.Leafs(); !same(leafs, append(many[:100:100], below)...) {
		t.Errorf("%d leafs, want the 100 that did not issue %s, and that", len(leafs), below.Subject)
	}
}

// longRSA is an RSA key of many primes: one of two would take minutes to find.
type longRSA struct{ n, d *big.Int }

func newLongRSA(t *testing.T, primes int) *longRSA {
	t.Helper()
	k := &longRSA{n: big.NewInt(1)}
	totient := big.NewInt(1)
	for range primes {
		p, err := rand.Prime(rand.Reader, 256)
		if err != nil {
			t.Fatal(err)
		}
		k.n.Mul(k.n, p)
		totient.Mul(totient, p.Sub(p, big.NewInt(1)))
	}
	if k.d = new(big.Int).ModInverse(big.NewInt(65537), totient); k.d == nil {
		return newLongRSA(t, primes) // 65537 divides it, once in 2000 times
	}
	return k
}

func (k *longRSA) Public() crypto.PublicKey { return &rsa.PublicKey{N: k.n, E: 65537} }

// Sign is RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, section 8.2.1).
func (k *longRSA) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	prefix, err := hex.DecodeString("3031300d060960864801650304020105000420")
	if err != nil {
		return nil, err
	}
	size := (k.n.BitLen() + 7) / 8
	padding := strings.Repeat("\xff", size-3-len(prefix)-len(digest))
	m := new(big.Int).SetBytes([]byte("\x00\x01" + padding + "\x00" + string(prefix) + string(digest)))
	return m.Exp(m, k.d, k.n).FillBytes(make([]byte, size)), nil
}

// TestLongKeysIssueNothing: an authority's key may be as long as crypto/tls
// takes it.
func TestLongKeysIssueNothing(t *testing.T) {
	t.Parallel()
	for primes, links := range map[int]int{31: 2, 34: 1} {
		f := newFamily(t)
		key := newLongRSA(t, primes)
		make := func(template, parent *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
			template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), noon, noon.AddDate(0, 0, 1)
			der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
			if err != nil {
				t.Fatal(err)
			}
			c, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		template := &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true}
		ca := make(template, &x509.Certificate{Subject: pkix.Name{CommonName: "ROOT"}}, key.Public())
		leaf := make(&x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}}, ca, f.key("leaf").Public())
		if err := ca.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature); err != nil {
			t.Fatal(err)
		}
		b := &bundle.Bundle{Certs: []*x509.Certificate{ca, leaf}}
		if chain, _, err := b.Chain(f.key("leaf").Public()); err != nil || len(chain) != links {
			t.Errorf("%d bits: %s, %v", key.n.BitLen(), subjects(chain), err)
		}
	}
}
