package vet

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"larder/internal/pki/ed448"
	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
)

// mostSignatures is how many signatures are verified for one chain, as in
// crypto/x509: a file may hold thousands of CAs of one name.
const mostSignatures = 100

// unrooted reports that nothing was given to trust.
func (v *vetting) unrooted() bool { return v.Roots == nil && len(v.GivenRoots) == 0 }

// isTop reports whether c is the end of the path.
func (v *vetting) isTop(c *x509.Certificate) bool { return c == v.path[len(v.path)-1] }

// build finds the path from the leaf upwards. crypto/x509 is the authority on
// whether it is good (v.verifyErr), and the path is its path; where it finds
// none, or cannot look because of Ed448, this walks by itself, so that there
// is something to say about each certificate.
func (v *vetting) build() {
	v.walk()
	v.byHand = slices.ContainsFunc(v.path, func(c *x509.Certificate) bool {
		return ed448.SignedWith(c.Raw) && !(v.isTop(c) && (v.anchored || v.signsItself(c)))
	})
	if v.byHand {
		return
	}
	var chains [][]*x509.Certificate
	chains, v.verifyErr = v.verify()
	if v.verifyErr == nil {
		v.path = chains[0]
		for i, c := range v.path {
			v.path[i] = v.original(c)
		}
		v.anchored = !v.unrooted()
	}
}

// verify asks crypto/x509. Extensions that this package understands and
// crypto/x509 does not are taken out of its way.
func (v *vetting) verify() ([][]*x509.Certificate, error) {
	intermediates, roots := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range v.chain[1:] {
		intermediates.AddCert(v.understood(c))
	}
	if v.Roots != nil {
		roots = v.Roots.Clone()
	}
	for _, c := range v.GivenRoots {
		roots.AddCert(v.understood(c))
	}
	if v.unrooted() {
		roots.AddCert(v.understood(v.path[len(v.path)-1]))
	}
	return v.understood(v.leaf()).Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: v.Now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// original returns the certificate that understood may have copied.
func (v *vetting) original(c *x509.Certificate) *x509.Certificate {
	for _, all := range [][]*x509.Certificate{v.chain, v.GivenRoots} {
		if i := slices.IndexFunc(all, func(o *x509.Certificate) bool { return same(o, c) }); i >= 0 {
			return all[i]
		}
	}
	return c
}

// walk goes from the leaf to its issuer and so on, as far as it gets.
func (v *vetting) walk() {
	v.path = []*x509.Certificate{v.leaf()}
	for {
		top := v.path[len(v.path)-1]
		if slices.ContainsFunc(v.GivenRoots, func(c *x509.Certificate) bool { return same(c, top) }) {
			v.anchored = true
			break
		}
		if v.signsItself(top) {
			break
		}
		if root := v.issuer(top, v.GivenRoots); root != nil {
			v.path, v.anchored = append(v.path, root), true
			break
		}
		parent := v.issuer(top, v.chain[1:])
		if parent == nil {
			break
		}
		v.path = append(v.path, parent)
	}
	if v.anchored || v.Roots == nil {
		return
	}
	for i, c := range v.path { // the system may know a CA that the file comes with too
		if root := v.systemRoot(c); root != nil {
			v.path, v.anchored = v.path[:i+1], true
			if !same(root, c) {
				v.path = append(v.path, v.original(root))
			}
			return
		}
	}
}

// issuer finds who issued c among candidates. One with the right name and the
// wrong key is remembered, for the message.
func (v *vetting) issuer(c *x509.Certificate, candidates []*x509.Certificate) *x509.Certificate {
	for _, parent := range candidates {
		if !bytes.Equal(parent.RawSubject, c.RawIssuer) || slices.ContainsFunc(v.path, func(p *x509.Certificate) bool { return same(p, parent) }) {
			continue
		}
		if v.issued(parent, c) {
			return parent
		}
		v.impostor = parent
	}
	return nil
}

// issued reports whether parent signed child. If that cannot be verified, it
// goes by the identifiers: another finding is fatal then anyway.
func (v *vetting) issued(parent, child *x509.Certificate) bool {
	if v.signatures++; v.signatures > mostSignatures {
		return false
	}
	err := ed448.CheckSignatureFrom(child, parent)
	if err == nil {
		return true
	}
	if v.verifiable(parent, child) {
		return false
	}
	return len(child.AuthorityKeyId) == 0 || len(parent.SubjectKeyId) == 0 || bytes.Equal(child.AuthorityKeyId, parent.SubjectKeyId)
}

// verifiable reports whether a signature of parent on child can be verified
// here at all.
func (v *vetting) verifiable(parent, child *x509.Certificate) bool {
	switch k := keys.PublicOf(parent).(type) {
	case ed448.PublicKey:
		return true
	case *rsa.PublicKey:
		if k.N.BitLen() < 1024 || k.N.BitLen() > 16384 || k.E < 3 || k.E%2 == 0 {
			return false
		}
	default:
		if keys.Kind(k) == "" {
			return false
		}
	}
	if ed448.SignedWith(child.Raw) {
		return true // and parent has another kind of key
	}
	switch child.SignatureAlgorithm {
	case x509.UnknownSignatureAlgorithm, x509.MD2WithRSA, x509.MD5WithRSA, x509.DSAWithSHA1, x509.DSAWithSHA256:
		return false
	}
	return true
}

// signsItself reports whether c is self-signed: the end of every path.
func (v *vetting) signsItself(c *x509.Certificate) bool { return selfIssued(c) && v.issued(c, c) }

// systemRoot finds the root in Roots that stands directly above c, or c
// itself there. A pool does not show what is in it, so crypto/x509 is asked
// about c as if nothing were wrong with c but its signature.
func (v *vetting) systemRoot(c *x509.Certificate) *x509.Certificate {
	probe := &x509.Certificate{
		Raw: c.Raw, RawTBSCertificate: c.RawTBSCertificate, RawSubject: c.RawSubject, RawIssuer: c.RawIssuer, RawSubjectPublicKeyInfo: c.RawSubjectPublicKeyInfo,
		Version: c.Version, SignatureAlgorithm: c.SignatureAlgorithm, Signature: c.Signature, PublicKeyAlgorithm: c.PublicKeyAlgorithm, PublicKey: c.PublicKey,
		AuthorityKeyId: c.AuthorityKeyId, SubjectKeyId: c.SubjectKeyId, NotAfter: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
	}
	for _, now := range []time.Time{v.Now, c.NotBefore, c.NotAfter} {
		chains, err := probe.Verify(x509.VerifyOptions{Roots: v.Roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err == nil {
			return chains[0][len(chains[0])-1]
		}
	}
	return nil
}

// trust says how the path ends.
func (v *vetting) trust() {
	top := v.path[len(v.path)-1]
	field := "issuer of " + v.who(top)
	switch {
	case v.anchored:
	case v.signatures > mostSignatures:
		v.say(SeverityFatal, CheckChain, "chain", fmt.Sprintf("more than %d CA certificates of one name to try", mostSignatures), "the few that belong to the certificate", "import the certificate with its own chain only")
	case len(v.path) == 1 && v.signsItself(top): // selfSigned says it
	case v.signsItself(top) && !v.unrooted():
		v.say(SeverityFatal, CheckRoot, field, "itself, a root that is not trusted here", "a root of this machine's store, or one given with --root",
			"if this is the organisation's CA, compare its thumbprint and give it with --root FILE; clients must have it too")
	case v.signsItself(top):
	case v.impostor != nil && bytes.Equal(v.impostor.RawSubject, top.RawIssuer) && (len(top.AuthorityKeyId) == 0 || bytes.Equal(v.impostor.SubjectKeyId, top.AuthorityKeyId)):
		v.say(SeverityFatal, CheckChain, field, title(v.impostor)+", whose signature it does not bear", "the signature of that CA's key", "copy the certificate again from the CA: it was damaged or altered, or comes from another CA of the same name")
	case v.impostor != nil && bytes.Equal(v.impostor.RawSubject, top.RawIssuer):
		v.say(SeverityFatal, CheckChain, field, fmt.Sprintf("a CA of that name, %s%s, whose key did not sign it", title(v.impostor), keyWords(v.impostor.SubjectKeyId)),
			"the one"+keyWords(top.AuthorityKeyId)+authorityWords(top), "get the CA's certificate of the time when this one was issued"+v.whereFrom(top))
	case v.unrooted() && len(v.path) > 1:
	case v.unrooted():
		v.say(SeverityWarning, CheckChain, field, "nothing: the certificates of the CAs are not here", clean(top.Issuer.String())+", and whoever issued that", "import the chain with the certificate, if the CA is not a root"+v.whereFrom(top))
	case !v.findable(top):
		v.say(SeverityFatal, CheckRoot, field, "a signature by which this machine's store cannot be searched", "a root given with --root", "give the CA's certificate with --root FILE")
	default:
		v.say(SeverityFatal, CheckChain, field, fmt.Sprintf("nothing: %s%s is neither among the certificates here nor among the trusted roots", clean(top.Issuer.String()), keyWords(top.AuthorityKeyId)),
			"every CA between the certificate and a trusted root"+authorityWords(top),
			"add that CA's certificate to the file"+v.whereFrom(top)+"; if it is the root of the organisation's CA, give it with --root FILE")
	}
	if v.unrooted() {
		v.say(SeverityNote, CheckRoot, "root of "+v.who(v.leaf()), "no roots to check against", "", "nothing; whether clients trust it is not known")
	}
}

// findable reports whether crypto/x509 could have found the issuer of c in
// Roots: it does not look for signatures that it does not know.
func (v *vetting) findable(c *x509.Certificate) bool {
	switch c.SignatureAlgorithm {
	case x509.UnknownSignatureAlgorithm, x509.MD2WithRSA, x509.MD5WithRSA, x509.DSAWithSHA1, x509.DSAWithSHA256, x509.SHA1WithRSA, x509.ECDSAWithSHA1:
		return v.Roots == nil
	}
	return true
}

// authorityWords adds the issuer's serial number, if c tells it (RFC 5280,
// section 4.2.1.1), which some CAs do in place of a key identifier.
func authorityWords(c *x509.Certificate) string {
	if serial := authoritySerial(c); serial != "" {
		return " (serial number " + serial + ")"
	}
	return ""
}

// whereFrom says where c's issuer can be fetched. It is not fetched here.
func (v *vetting) whereFrom(c *x509.Certificate) string {
	for _, url := range c.IssuingCertificateURL {
		if strings.HasPrefix(lower(url), "http") {
			return "; it is published at " + clean(url)
		}
	}
	return ""
}

// issuers checks that what stands above the leaf may issue (RFC 5280, section
// 6.1.4).
func (v *vetting) issuers() {
	for i, c := range v.path {
		if i == 0 {
			continue
		}
		root := v.anchored && v.isTop(c)
		switch {
		case c.BasicConstraintsValid && !c.IsCA:
			v.say(SeverityFatal, CheckChain, "basic constraints of "+v.who(c), "a certificate that is not a CA's, and issued "+title(v.path[i-1]), "a CA (cA TRUE)", "have the certificate issued by a CA")
		case !c.BasicConstraintsValid && (c.Version == 3 || !root):
			v.say(SeverityFatal, CheckChain, "basic constraints of "+v.who(c), fmt.Sprintf("none in a certificate of version %d that issued %s", c.Version, title(v.path[i-1])), "a CA (cA TRUE)", "have the certificate issued by a CA")
		}
		if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
			v.say(SeverityFatal, CheckChain, "key usage of "+v.who(c), usageWords(c.KeyUsage)+", and it issued "+title(v.path[i-1]), "certificate signing", "have the CA's certificate issued anew with it")
		}
		if below := i - 1; c.BasicConstraintsValid && c.MaxPathLen >= 0 && below > c.MaxPathLen {
			v.say(SeverityFatal, CheckPathLength, "path length of "+v.who(c), count(int64(below), "CA")+" below it", fmt.Sprintf("%d at most", c.MaxPathLen), "have the certificate issued by a CA further up, or this CA's certificate issued anew with a longer path")
		}
	}
}

// order looks at how the certificates were given.
func (v *vetting) order() {
	var places []int // of the path's, in the chain as it was given
	var unused []string
	for i, c := range v.chain {
		place := slices.IndexFunc(v.path, func(p *x509.Certificate) bool { return same(p, c) })
		switch {
		case place < 0 || slices.ContainsFunc(v.chain[:i], func(d *x509.Certificate) bool { return same(c, d) }):
			if t := title(c); !slices.Contains(unused, t) {
				unused = append(unused, t)
			}
		default:
			places = append(places, place)
		}
	}
	if !slices.IsSorted(places) {
		v.say(SeverityWarning, CheckChain, "chain", "the certificates in another order than they issued one another",
			"each followed by the one that issued it (RFC 5246, section 7.4.2)", "put them into that order; some clients cannot follow another one")
	}
	if len(unused) > 0 {
		v.say(SeverityNote, CheckUnused, "chain", "certificates that it does not need: "+list(unused), "", "nothing; leave them out, each handshake sends them")
	}
}

// rest is for what crypto/x509 refuses and nothing here explains.
func (v *vetting) rest() {
	if v.verifyErr == nil || slices.ContainsFunc(v.findings, func(f Finding) bool {
		return f.Severity == SeverityFatal && f.Check != CheckNames && f.Check != CheckKey && f.Check != CheckCA && f.Check != CheckKeyUsage
	}) {
		return
	}
	check, field, next := CheckChain, "chain of "+v.who(v.leaf()), "ask the CA, with this message"
	if invalid := (x509.CertificateInvalidError{}); errors.As(v.verifyErr, &invalid) && invalid.Reason == x509.CANotAuthorizedForThisName {
		check, field, next = CheckNameConstraints, "names of "+v.who(v.leaf()), "leave such names out of the request"
	}
	v.findings = append(v.findings, Finding{SeverityFatal, check, &problem.Problem{Field: field, Found: "a chain that cannot be verified", Expected: "one that leads to a trusted root", Next: next, Err: v.verifyErr}})
}
