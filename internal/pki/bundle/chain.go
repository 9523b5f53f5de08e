package bundle

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"larder/internal/pki/ed448"
	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
)

const (
	// mostLinks is how long a chain may be, the leaf included. Clients give
	// up before.
	mostLinks = 10

	// mostSteps bounds the search for the best chain: authorities that all
	// signed one another have more chains than anybody can try.
	mostSteps = 10_000

	// mostSignatures is how many signatures are verified in one call. Chains
	// need a few; a file of certificates of one name can make it thousands.
	mostSignatures = 100

	// mostRSA is how many bits an RSA key may have, in which a signature is
	// verified: as in crypto/tls. Those beyond cost 35 ms and more.
	mostRSA = 8192
)

// Chain returns the certificate of a public key, then the one that issued it,
// and so on as far as the bundle goes. A root at its end is left out: clients
// have it, or do not trust it. unused is all that is not in chain, that root
// included.
//
// Of several certificates with the key, the one whose validity begins last is
// taken: it is the renewal. Of several issuers (cross-signing), the one whose
// chain leads furthest.
func (b *Bundle) Chain(leaf crypto.PublicKey) (chain, unused []*x509.Certificate, err error) {
	certs := distinct(b.Certs)
	var first *x509.Certificate
	for _, c := range certs {
		if keys.Same(keys.PublicOf(c), leaf) && (first == nil || newer(c, first)) {
			first = c
		}
	}
	if first == nil {
		return nil, nil, b.noLeaf(certs, leaf)
	}
	s := search{certs: certs, signed: make(map[signature]bool)}
	s.extend([]*x509.Certificate{first})
	if s.signatures > mostSignatures {
		return nil, nil, &problem.Problem{Field: or(b.field, "certificate"), Found: fmt.Sprintf("more than %d certificates of one name to try", mostSignatures),
			Expected: "the few that belong to the certificate", Next: "give the certificate with its own chain only"}
	}
	chain = s.best.chain
	for _, c := range certs {
		if !slices.Contains(chain, c) {
			unused = append(unused, c)
		}
	}
	return chain, unused, nil
}

func newer(a, b *x509.Certificate) bool {
	if c := a.NotBefore.Compare(b.NotBefore); c != 0 {
		return c > 0
	}
	return a.NotAfter.After(b.NotAfter)
}

// distinct leaves out what is there twice.
func distinct(certs []*x509.Certificate) []*x509.Certificate {
	var once []*x509.Certificate
	for _, c := range certs {
		if !slices.ContainsFunc(once, c.Equal) {
			once = append(once, c)
		}
	}
	return once
}

func (b *Bundle) noLeaf(certs []*x509.Certificate, leaf crypto.PublicKey) error {
	var there []string
	for i, c := range certs {
		if i == 5 {
			there = append(there, fmt.Sprintf("and %d more", len(certs)-i))
			break
		}
		there = append(there, fmt.Sprintf("%s (%s, SHA-256 %s…)", name(c.Subject), kind(keys.PublicOf(c)), short(c)))
	}
	found := "no certificate at all"
	if len(there) > 0 {
		found = "no certificate for this key, but " + strings.Join(there, ", ")
	}
	return &problem.Problem{Field: or(b.field, "certificate"), Found: found, Expected: "one with the public key (" + kind(leaf) + ") that the request had",
		Next: "give the certificate that the CA issued for this request, or name the key that belongs to this one"}
}

// search looks for the best chain.
type search struct {
	certs  []*x509.Certificate
	signed map[signature]bool // what issued found out; a signature costs
	steps  int
	best   found

	signatures int // asked for; beyond mostSignatures nothing is verified, and names decide
}

// signature is that of a certificate, by a key; an authority may have many
// certificates for one key.
type signature struct {
	child *x509.Certificate
	key   string // RawSubjectPublicKeyInfo
}

// found is one chain and what speaks for it.
type found struct {
	chain []*x509.Certificate // without the root
	stale int                 // links whose issuer had ended before they began
	until time.Time           // when the first of them ends
}

func (f found) betterThan(g found) bool {
	if f.stale != g.stale {
		return f.stale < g.stale
	}
	if len(f.chain) != len(g.chain) {
		return len(f.chain) > len(g.chain)
	}
	return f.until.After(g.until)
}

// extend tries all that may follow chain, and keeps the best that ends.
func (s *search) extend(chain []*x509.Certificate) {
	s.steps++
	last := chain[len(chain)-1]
	ended := true
	if len(chain) < mostLinks && s.steps < mostSteps && s.signatures <= mostSignatures && !s.issued(last, last) {
		for _, c := range s.certs {
			again := func(d *x509.Certificate) bool { // the same authority under another certificate
				return bytes.Equal(d.RawSubject, c.RawSubject) && bytes.Equal(d.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo)
			}
			if !slices.ContainsFunc(chain, again) && s.issued(last, c) {
				ended = false
				s.extend(append(chain[:len(chain):len(chain)], c))
			}
		}
	}
	if f := s.appraise(chain); ended && (s.best.chain == nil || f.betterThan(s.best)) {
		s.best = f
	}
}

func (s *search) appraise(chain []*x509.Certificate) found {
	f := found{chain: chain}
	for i, c := range chain[1:] {
		if c.NotAfter.Before(chain[i].NotBefore) {
			f.stale++
		}
		if i == 0 || c.NotAfter.Before(f.until) {
			f.until = c.NotAfter
		}
	}
	if last := chain[len(chain)-1]; len(chain) > 1 && s.issued(last, last) {
		f.chain = chain[:len(chain)-1]
	}
	return f
}

// issued says whether parent issued child: by name, by key identifiers where
// both have them, by being an authority, and by the signature (RFC 5280,
// 4.2.1.1 and 6.1.3). No key of RSA that is too long issues anything.
func (s *search) issued(child, parent *x509.Certificate) bool {
	if !bytes.Equal(child.RawIssuer, parent.RawSubject) ||
		len(child.AuthorityKeyId) > 0 && len(parent.SubjectKeyId) > 0 && !bytes.Equal(child.AuthorityKeyId, parent.SubjectKeyId) {
		return false
	}
	if child != parent && parent.BasicConstraintsValid && !parent.IsCA {
		return false
	}
	if key, ok := parent.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > mostRSA {
		return false
	}
	pair := signature{child, string(parent.RawSubjectPublicKeyInfo)}
	ok, known := s.signed[pair]
	if !known {
		if s.signatures++; s.signatures > mostSignatures {
			return true
		}
		ok = ed448.CheckSignatureFrom(child, parent) == nil
		s.signed[pair] = ok
	}
	return ok
}

// Leafs returns the certificates that can be a server's own: those of no
// authority, or if there are none, those that issued no other of the bundle:
// by their names, once too many signatures were looked at.
func (b *Bundle) Leafs() []*x509.Certificate {
	certs := distinct(b.Certs)
	s := search{signed: make(map[signature]bool)}
	issuer := func(parent *x509.Certificate) bool {
		return slices.ContainsFunc(certs, func(child *x509.Certificate) bool { return child != parent && s.issued(child, parent) })
	}
	leafs := slices.DeleteFunc(slices.Clone(certs), issuer)
	if ends := slices.DeleteFunc(slices.Clone(leafs), func(c *x509.Certificate) bool { return c.IsCA }); len(ends) > 0 {
		return ends
	}
	return leafs
}

// Encode writes certificates as PEM, a comment before each. Those who read
// PEM skip it (RFC 7468, section 5.2).
func Encode(chain []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range chain {
		fmt.Fprintf(&b, "# subject: %s; issuer: %s; not after: %s\n", name(c.Subject), name(c.Issuer), c.NotAfter.UTC().Format(time.DateTime+" MST"))
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}
