package bundle_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"larder/internal/pki/bundle"
)

// family issues certificates for a test. Each name has one key.
type family struct {
	t      *testing.T
	keys   map[string]*ecdsa.PrivateKey
	serial int64
}

func newFamily(t *testing.T) *family {
	return &family{t: t, keys: make(map[string]*ecdsa.PrivateKey)}
}

func (f *family) key(name string) *ecdsa.PrivateKey {
	f.t.Helper()
	if f.keys[name] == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			f.t.Fatal(err)
		}
		f.keys[name] = k
	}
	return f.keys[name]
}

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// issue makes a certificate for who by issuer: an authority's if who is in
// capital letters. from and until are days.
func (f *family) issue(who, issuer string, from, until int, more ...func(*x509.Certificate)) *x509.Certificate {
	f.t.Helper()
	f.serial++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(f.serial), Subject: pkix.Name{CommonName: who},
		NotBefore: noon.AddDate(0, 0, from), NotAfter: noon.AddDate(0, 0, until),
		IsCA: who == strings.ToUpper(who), BasicConstraintsValid: true,
	}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: issuer}}
	for _, change := range more {
		change(tmpl)
	}
	parent.SubjectKeyId = tmpl.AuthorityKeyId
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, f.key(who).Public(), f.key(issuer))
	if err != nil {
		f.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func TestChain(t *testing.T) {
	t.Parallel()
	f := newFamily(t)
	root, root2 := f.issue("ROOT", "ROOT", -100, 100), f.issue("ROOT2", "ROOT2", -100, 100)
	cross := f.issue("ROOT", "ROOT2", -100, 50)
	staleCross := f.issue("ROOT", "ROOT2", -100, -50)
	ca, caLonger := f.issue("CA", "ROOT", -10, 10), f.issue("CA", "ROOT", -10, 20)
	leaf, renewed := f.issue("leaf", "CA", 0, 5), f.issue("leaf", "CA", 1, 5)
	alone := f.issue("alone", "alone", 0, 5)
	stranger := f.issue("stranger", "CA", 0, 5)
	forged := newFamily(t).issue("CA", "ROOT", -10, 30) // the name, and another key
	noCA := f.issue("CA", "ROOT", -10, 40, func(c *x509.Certificate) { c.IsCA = false })
	plain := f.issue("CA", "ROOT", -10, 10, func(c *x509.Certificate) { c.BasicConstraintsValid = false; c.IsCA = false; c.SubjectKeyId = nil })
	otherID := f.issue("CA", "ROOT", -10, 60, func(c *x509.Certificate) { c.SubjectKeyId = []byte("another") })
	withID := f.issue("leaf", "CA", 0, 5, func(c *x509.Certificate) { c.AuthorityKeyId = ca.SubjectKeyId })
	loopA, loopB := f.issue("LOOPA", "LOOPB", -10, 10), f.issue("LOOPB", "LOOPA", -10, 10)
	looped := f.issue("leaf", "LOOPA", 0, 5)

	type certs = []*x509.Certificate
	tests := []struct {
		name              string
		in, chain, unused certs
		key               string
		leafs             certs // nil: not looked at
	}{
		{"in order", certs{leaf, ca, root}, certs{leaf, ca}, certs{root}, "leaf", certs{leaf}},
		{"in reverse, each twice", certs{root, ca, leaf, root, ca, leaf}, certs{leaf, ca}, certs{root}, "leaf", certs{leaf}},
		{"without the root", certs{ca, leaf}, certs{leaf, ca}, nil, "leaf", nil},
		{"without the authority", certs{root, leaf}, certs{leaf}, certs{root}, "leaf", nil},
		{"alone", certs{leaf}, certs{leaf}, nil, "leaf", certs{leaf}},
		{"self-signed", certs{alone}, certs{alone}, nil, "alone", certs{alone}},
		{"self-signed, with others", certs{root, ca, alone}, certs{alone}, certs{root, ca}, "alone", certs{alone}},
		{"others' certificates", certs{stranger, alone, leaf, ca}, certs{leaf, ca}, certs{stranger, alone}, "leaf", certs{stranger, alone, leaf}},
		{"the renewal", certs{leaf, renewed, ca}, certs{renewed, ca}, certs{leaf}, "leaf", certs{leaf, renewed}},
		{"the renewal first", certs{renewed, leaf, ca}, certs{renewed, ca}, certs{leaf}, "leaf", nil},
		{"the authority's renewal", certs{leaf, ca, caLonger, root}, certs{leaf, caLonger}, certs{ca, root}, "leaf", nil},
		{"cross-signed, both roots", certs{leaf, ca, root, cross, root2}, certs{leaf, ca, cross}, certs{root, root2}, "leaf", nil},
		{"cross-signed, the own root", certs{leaf, ca, root, cross}, certs{leaf, ca, cross}, certs{root}, "leaf", nil},
		{"cross-signed by what had ended", certs{leaf, ca, staleCross, root, root2}, certs{leaf, ca}, certs{staleCross, root, root2}, "leaf", nil},
		{"nothing but what had ended", certs{leaf, ca, staleCross}, certs{leaf, ca, staleCross}, nil, "leaf", nil},
		{"an authority of the same name", certs{leaf, forged, ca}, certs{leaf, ca}, certs{forged}, "leaf", nil},
		{"nobody but one of the same name", certs{leaf, forged}, certs{leaf}, certs{forged}, "leaf", nil},
		{"an issuer that is no authority", certs{leaf, noCA}, certs{leaf}, certs{noCA}, "leaf", nil},
		{"an issuer that says neither", certs{leaf, plain}, certs{leaf, plain}, nil, "leaf", certs{leaf}},
		{"key identifiers that differ", certs{withID, otherID, ca}, certs{withID, ca}, certs{otherID}, "leaf", nil},
		{"a circle", certs{looped, loopA, loopB}, certs{looped, loopA, loopB}, nil, "leaf", certs{looped}},
		{"an authority's own", certs{leaf, ca, root}, certs{ca}, certs{leaf, root}, "CA", nil},
		{"nothing but authorities", certs{ca, root}, certs{ca}, certs{root}, "CA", certs{ca}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := &bundle.Bundle{Certs: tt.in}
			in := slices.Clone(tt.in)
			leafs := b.Leafs()
			if tt.leafs != nil && !same(leafs, tt.leafs...) {
				t.Errorf("leafs %s; want %s", subjects(leafs), subjects(tt.leafs))
			}
			chain, unused, err := b.Chain(f.keys[tt.key].Public())
			if err != nil {
				t.Fatal(err)
			}
			if !same(chain, tt.chain...) || !same(unused, tt.unused...) {
				t.Errorf("chain %s, unused %s; want %s and %s", subjects(chain), subjects(unused), subjects(tt.chain), subjects(tt.unused))
			}
			if !slices.Equal(b.Certs, in) {
				t.Error("the bundle has changed")
			}
		})
	}
}

// TestNoLeaf: the message says what is there instead.
func TestNoLeaf(t *testing.T) {
	t.Parallel()
	f := newFamily(t)
	leaf := f.issue("leaf", "CA", 0, 5)
	sum := sha256.Sum256(leaf.Raw)
	short := hex.EncodeToString(sum[:4])
	const next = "; expected one with the public key (ECDSA P-256) that the request had; next: give the certificate that the CA issued for this request, or name the key that belongs to this one"
	tests := []struct {
		name string
		b    *bundle.Bundle
		key  crypto.PublicKey
		want string
	}{
		{"another's", &bundle.Bundle{Certs: []*x509.Certificate{leaf}}, f.key("other").Public(),
			"certificate: found no certificate for this key, but CN=leaf (ECDSA P-256, SHA-256 " + short + "…)" + next},
		{"empty", &bundle.Bundle{}, f.key("other").Public(), "certificate: found no certificate at all" + next},
		{"no key", &bundle.Bundle{Certs: []*x509.Certificate{leaf}}, nil,
			"certificate: found no certificate for this key, but CN=leaf (ECDSA P-256, SHA-256 " + short + "…)" + strings.Replace(next, "ECDSA P-256", "a kind unknown here", 1)},
	}
	for _, tt := range tests {
		_, _, err := tt.b.Chain(tt.key)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: got  %v\nwant %s", tt.name, err, tt.want)
		}
	}
	b := &bundle.Bundle{}
	for range 8 {
		b.Certs = append(b.Certs, f.issue("x", "CA", 0, 5))
	}
	if _, _, err := b.Chain(f.key("other").Public()); err == nil || !strings.Contains(err.Error(), "…), and 3 more; expected") {
		t.Error(err)
	}
	read, err := bundle.Parse("/tmp/new.crt", bundle.Encode(b.Certs), bundle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := read.Chain(f.key("other").Public()); err == nil || !strings.HasPrefix(err.Error(), "certificate (/tmp/new.crt): found no certificate for this key") {
		t.Error(err)
	}
}

// TestEncode: what Encode writes, this package and OpenSSL read, whatever the
// names are.
func TestEncode(t *testing.T) {
	t.Parallel()
	f := newFamily(t)
	var chain []*x509.Certificate
	for _, name := range []string{"leaf", "evil\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\r\n", "-----BEGIN CERTIFICATE-----", strings.Repeat("long", 50), "\u2028Zürich\u202e"} {
		chain = append(chain, f.issue(name, "CA", 0, 5))
	}
	chain = append(chain, f.issue("CA", "CA", 0, 5))
	text := bundle.Encode(chain)
	if first, _, _ := bytes.Cut(text, []byte("\n")); string(first) != "# subject: CN=leaf; issuer: CN=CA; not after: 2030-01-06 12:00:00 UTC" {
		t.Errorf("the first line is %q", first)
	}
	b, err := bundle.Parse("chain", text, bundle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !same(b.Certs, chain...) {
		t.Errorf("read back: %s", subjects(b.Certs))
	}
	p := &pki{t.TempDir()}
	p.write(t, "chain.pem", text)
	out := p.run(t, "crl2pkcs7", "-nocrl", "-certfile", "chain.pem", "-outform", "DER")
	if b, err = bundle.Parse("chain", out, bundle.Options{}); err != nil || !same(b.Certs, chain...) {
		t.Errorf("through OpenSSL: %v, %v", b, err)
	}
}
