package tlsdir

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"larder/internal/pki/bundle"
	"larder/internal/pki/keys"
	"larder/internal/pki/livecert"
	"larder/internal/pki/problem"
	"larder/internal/pki/revocation"
	"larder/internal/pki/vet"
)

// Standards are what a certificate is held against before it is used.
type Standards struct {
	// ClientNames are the host names and addresses that clients are told to
	// use; without any, names are not judged.
	ClientNames []string
	// Roots is the system's store; Given are roots that the administrator
	// named, and may end the chain too.
	Roots *x509.CertPool
	Given []*x509.Certificate
	// Revocation asks whether the certificate was revoked. nil: nobody asks.
	Revocation func(ctx context.Context, leaf, issuer *x509.Certificate) revocation.Answer
}

// Vetted says what came of holding a chain against the standards.
type Vetted struct {
	Findings   []vet.Finding      `json:"findings"`
	Revocation *revocation.Answer `json:"revocation,omitempty"`
}

// Vet holds a chain against the standards. The error is why it cannot be used,
// all reasons at once. previous is the certificate it follows, or nil.
func (st Standards) Vet(ctx context.Context, chain []*x509.Certificate, public crypto.PublicKey, previous *x509.Certificate) (Vetted, error) {
	v := Vetted{Findings: vet.Check(chain, vet.Options{
		Now: time.Now(), ClientNames: st.ClientNames, Roots: st.Roots, GivenRoots: st.Given, Key: public, Previous: previous,
	})}
	if err := vet.Fatal(v.Findings); err != nil {
		return v, err
	}
	if st.Revocation == nil {
		return v, nil
	}
	answer := revocation.Answer{Status: revocation.NotOffered}
	if c := chain[0]; len(c.OCSPServer)+len(c.CRLDistributionPoints) > 0 {
		answer = revocation.Answer{Problems: []string{"the certificate of the authority that signed it is not known here"}}
		if issuer := st.Issuer(chain); issuer != nil {
			answer = st.Revocation(ctx, c, issuer)
		}
	}
	v.Revocation = &answer
	if answer.Status == revocation.Revoked {
		return v, &problem.Problem{Field: "revocation", Found: RevokedText(answer), Expected: "a certificate that its authority stands by", Next: "have a new one signed; to have the same request signed again: larder tls renew"}
	}
	return v, nil
}

// RevokedText says by whom, when and why a certificate was revoked.
func RevokedText(a revocation.Answer) string {
	text := "revoked"
	if !a.RevokedAt.IsZero() {
		text += " on " + day(a.RevokedAt)
	}
	if a.Reason != "" {
		text += " (" + a.Reason + ")"
	}
	return text + ", says " + a.Source
}

// Issuer returns the certificate that signed the leaf of chain, from the chain
// itself, what was given, or the system's store; nil if it is in none.
func (st Standards) Issuer(chain []*x509.Certificate) *x509.Certificate {
	if len(chain) > 1 {
		return chain[1]
	}
	for _, c := range st.Given {
		if bytes.Equal(c.RawSubject, chain[0].RawIssuer) && chain[0].CheckSignatureFrom(c) == nil {
			return c
		}
	}
	if st.Roots == nil {
		return nil
	}
	ways, err := chain[0].Verify(x509.VerifyOptions{Roots: st.Roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil || len(ways[0]) < 2 {
		return nil
	}
	return ways[0][1]
}

// ImportOptions change how a file is imported.
type ImportOptions struct {
	Standards
	Password    string // of PKCS#12, or of an encrypted key
	HasPassword bool
	Name        string // what to call it; "": after the file
	StoreOnly   bool   // do not switch HTTPS to it
}

// Imported says what came of an import.
type Imported struct {
	Installed
	Vetted
	Format string   `json:"format"`           // of the file: PEM, DER, PKCS#7 or PKCS#12
	From   string   `json:"from"`             // the file
	Unused []string `json:"unused,omitempty"` // subjects of certificates in it that do not belong to the chain
}

// Find returns the file that an administrator means by what: a path, or a name
// in certs/ with or without its extension. ErrConflict: it could be both.
func (d *Dir) Find(what string) (string, error) {
	if filepath.Base(what) != what {
		return what, nil
	}
	for _, ext := range []string{"", ".crt", ".cer", ".pem", ".p7b", ".pfx", ".p12", ".der"} {
		name := d.file("certs", what+ext)
		there, err := os.Stat(name)
		if err != nil || there.IsDir() {
			continue
		}
		if here, err := os.Stat(what); err == nil && !os.SameFile(here, there) {
			return "", fmt.Errorf("%w: %w", ErrConflict, &problem.Problem{Field: "certificate", Found: what + " in this directory and as " + name, Expected: "one of them",
				Next: "name the one that is meant by its path, such as ./" + what})
		}
		return name, nil
	}
	if exists(what) {
		return what, nil
	}
	return d.file("certs", what), nil // where it was expected
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// Import reads a file in whatever form, finds the certificate for a key of
// this node in it, orders its chain, holds it against the standards, and makes
// it the one in use. On an error nothing is changed; ErrNotServable is the
// exception: such a certificate is stored.
func (d *Dir) Import(ctx context.Context, file string, o ImportOptions) (*Imported, error) {
	if o.Name != "" {
		if err := CheckName("--name", o.Name); err != nil {
			return nil, err
		}
	}
	b, err := bundle.ReadFile(file, bundle.Options{Password: o.Password, HasPassword: o.HasPassword})
	if err != nil {
		return nil, err
	}
	im := &Imported{Format: b.Format, From: file}
	key, keyName, err := d.keyFor(file, b)
	if err != nil {
		return nil, err
	}
	inFile := len(b.Certs)
	b.Certs = append(b.Certs, d.authorities()...) // a leaf that is renewed often comes alone
	known := b.Certs[inFile:]
	chain, unused, err := b.Chain(key.Public())
	if err != nil {
		return nil, err
	}
	for _, c := range unused {
		if slices.ContainsFunc(known, c.Equal) {
			continue
		}
		if !bytes.Equal(c.RawIssuer, c.RawSubject) { // a root is left out of every chain
			im.Unused = append(im.Unused, c.Subject.String())
		}
		// A root that came in the administrator's own file was given by them,
		// unless it is what vouches for itself.
		if c.IsCA && bytes.Equal(c.RawIssuer, c.RawSubject) && !c.Equal(chain[0]) {
			o.Given = append(slices.Clip(o.Given), c)
		}
	}
	given := o.Given
	o.Standards = d.With(o.Standards)
	im.Vetted, err = o.Vet(ctx, chain, key.Public(), d.previous())
	if err != nil {
		return im, err
	}
	c := Candidate{Name: o.Name, Chain: chain, Key: key, KeyFile: keyName, Source: SourceImport}
	if c.Name == "" {
		c.Name = nameFrom(file)
	}
	done, err := d.Install(ctx, c, !o.StoreOnly)
	if done != nil {
		im.Installed = *done
		err = errors.Join(err, d.remember(chain, given))
	}
	return im, err
}

// previous is the certificate that is in use now, or was when HTTPS was
// switched off; nil if there is none.
func (d *Dir) previous() *x509.Certificate {
	a, err := livecert.ReadActive(d.path)
	if err != nil || a.Certificate == "" {
		return nil
	}
	chain, err := readChain(livecert.Resolve(d.path, a.Certificate))
	if err != nil {
		return nil
	}
	return chain[0]
}

// authorities are the certificates above the one in use.
func (d *Dir) authorities() []*x509.Certificate {
	chain, _, _, err := d.Active()
	if err != nil {
		return nil
	}
	return chain[1:]
}

// keyFor finds the private key that belongs to a certificate of the bundle, in
// the bundle itself or in keys/. Of several the one of the newest certificate
// that is not an authority's is meant.
func (d *Dir) keyFor(file string, b *bundle.Bundle) (key crypto.Signer, name string, err error) {
	mine, err := d.keyFiles()
	if err != nil {
		return nil, "", err
	}
	type match struct {
		cert *x509.Certificate
		key  crypto.Signer
		name string
	}
	var best *match
	consider := func(k crypto.Signer, name string) {
		for _, c := range b.Certs {
			if !keys.Same(keys.PublicOf(c), k.Public()) {
				continue
			}
			better := best == nil || best.cert.IsCA && !c.IsCA || best.cert.IsCA == c.IsCA && c.NotBefore.After(best.cert.NotBefore) ||
				best.cert == c && best.name == ""
			if better {
				best = &match{c, k, name}
			}
		}
	}
	for _, k := range mine {
		switch {
		case k.err != nil:
		case k.pending:
			consider(k.key, "") // it gets a file of its own, because this one goes
		default:
			consider(k.key, k.name)
		}
	}
	for _, k := range b.Keys {
		// A key that the directory has already is not written a second time.
		if !slices.ContainsFunc(mine, func(m keyFile) bool { return m.err == nil && keys.Same(m.key.Public(), k.Public()) }) {
			consider(k, "")
		}
	}
	if best == nil {
		return nil, "", d.noKey(file, b, mine)
	}
	return best.key, best.name, nil
}

// noKey says why no key fits.
func (d *Dir) noKey(file string, b *bundle.Bundle, mine []keyFile) error {
	if len(b.Certs) > 0 && !slices.ContainsFunc(b.Certs, func(c *x509.Certificate) bool { return !c.IsCA }) {
		return &problem.Problem{Field: "certificate (" + file + ")", Found: "only the authority's own: " + subjects(b.Certs),
			Expected: "the certificate that was issued to this node", Next: "ask for the certificate of the request in " + d.file("certs")}
	}
	leafs := b.Leafs()
	if len(leafs) == 0 {
		leafs = b.Certs
	}
	p := &problem.Problem{Field: "key", Found: "none that belongs to " + subjects(leafs), Expected: "the private key that the certificate was requested with",
		Next: "import the certificate that was signed for a request of this node, or a PKCS#12 file that holds its key"}
	var have, broken []string
	for _, k := range mine {
		if k.err != nil {
			broken = append(broken, fmt.Sprintf("%s (%v)", k.name, k.err))
		} else {
			have = append(have, fmt.Sprintf("%s (%s)", k.name, k.kind))
		}
	}
	if len(have) > 0 {
		p.Expected += "; the keys here are " + strings.Join(have, ", ")
	} else {
		p.Expected += "; there is no key in " + d.file("keys")
		p.Next = "make a request on this node with larder tls csr and have that signed, or import a PKCS#12 file that holds the key"
	}
	if len(broken) > 0 {
		p.Err = errors.New("cannot be read: " + strings.Join(broken, ", "))
	}
	return p
}

func subjects(certs []*x509.Certificate) string {
	var all []string
	for i, c := range certs {
		if i == 3 {
			all = append(all, fmt.Sprintf("and %d more", len(certs)-i))
			break
		}
		all = append(all, fmt.Sprintf("%s (%s)", c.Subject, keys.Kind(keys.PublicOf(c))))
	}
	return strings.Join(all, ", ")
}
