package vet

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest/golden"
	"larder/internal/pki/ed448"
	"larder/internal/pki/keys"
)

// row is one certificate with what it is held against. want is what must be
// found beside what the golden file has: "severity check", the worst first.
type row struct {
	name  string
	chain []*x509.Certificate
	o     Options
	want  []string
}

// TestFindings holds every finding against testdata/findings.txt, in which a
// person can read what an administrator is told.
func TestFindings(t *testing.T) {
	t.Parallel()
	rows := slices.Concat(rowsOfNames(t), rowsOfTimes(t), rowsOfUse(t), rowsOfKeys(t), rowsOfChains(t), rowsOfConstraints(t), rowsOfOpenSSL(t))
	var text strings.Builder
	checks := make(map[string]bool)
	for _, r := range rows {
		r.o.Now = now
		found := Check(r.chain, r.o)
		var got []string
		fmt.Fprintf(&text, "== %s\n", r.name)
		for _, f := range found {
			fmt.Fprintf(&text, "%s %s: %v\n", f.Severity, f.Check, f.Problem)
			got = append(got, f.Severity.String()+" "+f.Check)
			checks[f.Check] = true
		}
		if !slices.Equal(got, r.want) {
			t.Errorf("%s: got %q, want %q\n%v", r.name, got, r.want, errorsOf(found))
		}
		if again := Check(r.chain, r.o); fmt.Sprint(errorsOf(again)) != fmt.Sprint(errorsOf(found)) {
			t.Errorf("%s: the second look finds something else", r.name)
		}
	}
	golden.Check(t, "testdata/findings.txt", text.String())
	for _, c := range []string{CheckCA, CheckChain, CheckCritical, CheckEd448, CheckExtendedKeyUsage, CheckKey, CheckKeyKind, CheckKeySize, CheckKeyUsage, CheckLifetime,
		CheckNameConstraints, CheckNames, CheckPathLength, CheckRenewal, CheckRoot, CheckSelfSigned, CheckSignature, CheckUnused, CheckValidity, CheckWildcard} {
		if !checks[c] {
			t.Errorf("no row finds anything by the check %q", c)
		}
	}
}

func errorsOf(found []Finding) error {
	var all []error
	for _, f := range found {
		all = append(all, fmt.Errorf("%s %s: %w", f.Severity, f.Check, f.Problem))
	}
	return errors.Join(all...)
}

func chain(certs ...*made) []*x509.Certificate {
	var all []*x509.Certificate
	for _, c := range certs {
		all = append(all, c.Certificate)
	}
	return all
}

func pool(certs ...*made) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c.Certificate)
	}
	return p
}

func rowsOfNames(t *testing.T) []row {
	root := issue(t, nil, nil, "Root", ca)
	leaf := func(cn string, change func(*x509.Certificate)) []*x509.Certificate {
		return chain(issue(t, root, nil, cn, change))
	}
	o := func(names ...string) Options { return Options{Roots: pool(root), ClientNames: names} }
	many := make([]string, 40)
	for i := range many {
		many[i] = fmt.Sprintf("n%02d.example", i)
	}
	return []row{
		{"names: nothing to say", leaf("cache.example", with(dns("Cache.Example"), ips("10.0.0.5", "2001:db8::5"))), o("cache.example", "CACHE.example.", "10.0.0.5", "2001:DB8:0::5", "[2001:db8::5]", "::ffff:10.0.0.5"), nil},
		{"names: an internationalised name", leaf("x", dns("xn--bcher-kva.example")), o("Bücher.example"), nil},
		{"names: no names of clients are known", leaf("x", dns("cache.example")), o(), nil},
		{"names: the common name only", leaf("cache.example", nil), o("cache.example"), []string{"fatal names"}},
		{"names: the common name only, and no names of clients", leaf("cache.example", nil), o(), []string{"fatal names"}},
		{"names: none whatever", leaf("", nil), o("cache.example", "10.0.0.5"), []string{"fatal names"}},
		{"names: kinds that clients do not look at", leaf("cache.example", func(c *x509.Certificate) { c.EmailAddresses = []string{"a@example.com"} }), o("cache.example"), []string{"fatal names"}},
		{"names: others", leaf("cache.example", dns("other.example", "more.example")), o("cache.example", "10.0.0.5"), []string{"fatal names"}},
		{"names: one of two", leaf("x", dns("cache.example")), o("cache.example", "cache", "10.0.0.5"), []string{"warning names", "warning names"}},
		{"names: more than clients use", leaf("x", with(dns("cache.example", "old.example"), ips("10.0.0.9"))), o("cache.example"), []string{"note names"}},
		{"names: an address as a DNS name", leaf("x", dns("10.0.0.5")), o("10.0.0.5"), []string{"fatal names", "warning names"}},
		{"names: an address as a DNS name beside another", leaf("x", dns("cache.example", "10.0.0.5")), o("cache.example", "10.0.0.5"), []string{"warning names", "warning names"}},
		{"names: an address both ways", leaf("x", with(dns("10.0.0.5"), ips("10.0.0.5"))), o("10.0.0.5"), []string{"note names"}},
		{"names: a URL", leaf("x", dns("https://cache.example", "cache.example")), o("cache.example"), []string{"warning names"}},
		{"names: a port", leaf("x", dns("cache.example:443", "cache.example")), o("cache.example"), []string{"warning names"}},
		{"names: a dot at the end", leaf("x", dns("cache.example.")), o("cache.example"), []string{"fatal names", "warning names"}},
		{"names: a client name that is none", leaf("x", dns("cache.example")), o("cache.example", "https://cache.example", "*.example"), []string{"warning names", "warning names"}},
		{"names: of a hundred, a few are shown", leaf("x", dns(many...)), o("cache.example"), []string{"fatal names"}},
		{"names: what a terminal would obey", leaf("x", dns("cache\x1b[2J\nexample")), o("cache.example"), []string{"fatal names", "warning names"}},
		{"wildcard", leaf("x", dns("*.example.com")), o("cache.example.com"), []string{"note wildcard"}},
		{"wildcard: two labels deep", leaf("x", dns("*.example.com")), o("a.cache.example.com"), []string{"fatal names", "note wildcard"}},
		{"wildcard: the name above it", leaf("x", dns("*.example.com")), o("example.com"), []string{"fatal names", "note wildcard"}},
		{"wildcard: an underscore", leaf("x", dns("*.example.com")), o("a_b.example.com"), []string{"fatal names", "note wildcard"}},
		{"wildcard: half a label", leaf("x", dns("cache*.example.com")), o("cache1.example.com"), []string{"fatal names", "warning wildcard"}},
		{"wildcard: in the middle", leaf("x", dns("cache.*.example.com")), o("cache.a.example.com"), []string{"fatal names", "warning wildcard"}},
		{"wildcard: of a top level", leaf("x", dns("*.local")), o("cache.local"), []string{"fatal names", "warning wildcard"}},
	}
}

func rowsOfTimes(t *testing.T) []row {
	root := issue(t, nil, nil, "Root", ca)
	o := Options{Roots: pool(root)}
	good := func(change func(*x509.Certificate)) []*x509.Certificate {
		return chain(issue(t, root, nil, "cache.example", with(dns("cache.example"), change)))
	}
	// A chain whose intermediate or root has other times.
	other := func(from, to time.Time) row {
		mid := issue(t, root, nil, "Issuing CA", with(ca, times(from, to)))
		return row{chain: chain(issue(t, mid, nil, "cache.example", dns("cache.example")), mid), o: o}
	}
	midOld, midNew, midShort := other(now.AddDate(-2, 0, 0), now.Add(-26*time.Hour)), other(now.AddDate(0, 0, 40), now.AddDate(5, 0, 0)), other(now.AddDate(-1, 0, 0), now.AddDate(0, 1, 0))
	midOld.name, midOld.want = "validity: a CA in between is over", []string{"fatal validity"}
	midNew.name, midNew.want = "validity: a CA in between has not begun", []string{"fatal validity"}
	midShort.name, midShort.want = "validity: a CA that ends before what it issued", []string{"warning validity"}
	oldRoot := issue(t, nil, nil, "Old Root", with(ca, times(now.AddDate(-9, 0, 0), now.AddDate(0, 0, -1))))
	return []row{
		midOld, midNew, midShort,
		{"validity: over", good(times(now.AddDate(-1, 0, 0), now.Add(-3*day-time.Hour))), o, []string{"fatal validity"}},
		{"validity: over for a moment", good(times(now.AddDate(-1, 0, 0), now.Add(-time.Second))), o, []string{"fatal validity"}},
		{"validity: the last second", good(times(now.AddDate(-1, 0, 0), now)), o, nil},
		{"validity: begins in ten minutes: clocks", good(times(now.Add(10*time.Minute), now.AddDate(0, 6, 0))), o, []string{"fatal validity"}},
		{"validity: begins in five hours", good(times(now.Add(5*time.Hour), now.AddDate(0, 6, 0))), o, []string{"fatal validity"}},
		{"validity: begins in a month", good(times(now.AddDate(0, 1, 0), now.AddDate(0, 6, 0))), o, []string{"fatal validity"}},
		{"validity: the root is over", chain(issue(t, oldRoot, nil, "cache.example", dns("cache.example"))), Options{Roots: pool(oldRoot)}, []string{"fatal validity"}},
		{"validity: over, and the names are wrong: both are said", good(times(now.AddDate(-1, 0, 0), now.AddDate(0, 0, -1))), Options{Roots: pool(root), ClientNames: []string{"other.example"}}, []string{"fatal validity", "fatal names"}},
		{"lifetime: 398 days", good(times(now, now.Add(398*day-time.Second))), o, nil},
		{"lifetime: two years", good(times(now.AddDate(0, -1, 0), now.AddDate(0, 23, 0))), o, []string{"note lifetime"}},
	}
}

func rowsOfUse(t *testing.T) []row {
	root := issue(t, nil, nil, "Root", ca)
	rsa2048 := newKey(t, keys.RSA, "")
	o := Options{Roots: pool(root)}
	leaf := func(key crypto.Signer, change func(*x509.Certificate)) []*x509.Certificate {
		return chain(issue(t, root, key, "cache.example", with(dns("cache.example"), change)))
	}
	clientsCA := issue(t, root, nil, "CA for clients", with(ca, purposes(x509.ExtKeyUsageClientAuth)))
	serversCA := issue(t, root, nil, "CA for servers", with(ca, purposes(x509.ExtKeyUsageServerAuth)))
	critical := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true, Value: []byte{5, 0}}}
	}
	criticalCA := issue(t, root, nil, "Odd CA", with(ca, critical))
	return []row{
		{"key usage: everything unsaid", leaf(nil, with(usage(0), purposes())), o, nil},
		{"key usage: RSA without key encipherment", leaf(rsa2048, nil), o, []string{"note key-usage"}},
		{"key usage: RSA with both", leaf(rsa2048, usage(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment)), o, nil},
		{"key usage: RSA with key encipherment only", leaf(rsa2048, usage(x509.KeyUsageKeyEncipherment)), o, []string{"fatal key-usage"}},
		{"key usage: ECDSA with key agreement only", leaf(nil, usage(x509.KeyUsageKeyAgreement|x509.KeyUsageContentCommitment)), o, []string{"fatal key-usage"}},
		{"key usage: ECDSA with key encipherment", leaf(nil, usage(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment)), o, []string{"note key-usage"}},
		{"extended key usage: for clients", leaf(nil, purposes(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageIPSECUser)), o, []string{"fatal extended-key-usage"}},
		{"extended key usage: something of somebody's", leaf(nil, func(c *x509.Certificate) {
			c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 99999, 2}}
		}), o, []string{"fatal extended-key-usage"}},
		{"extended key usage: for both", leaf(nil, purposes(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)), o, nil},
		{"extended key usage: any", leaf(nil, purposes(x509.ExtKeyUsageAny)), o, []string{"warning extended-key-usage"}},
		{"extended key usage: the CA is for servers", chain(issue(t, serversCA, nil, "cache.example", dns("cache.example")), serversCA), o, nil},
		{"extended key usage: the CA is for clients", chain(issue(t, clientsCA, nil, "cache.example", dns("cache.example")), clientsCA), o, []string{"fatal extended-key-usage"}},
		{"a CA as leaf", chain(issue(t, root, nil, "Issuing CA", with(ca, dns("cache.example"), usage(x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign)))), o, []string{"fatal ca", "note lifetime"}},
		{"a CA as leaf, before what it issued", chain(serversCA, issue(t, serversCA, nil, "cache.example", dns("cache.example"))), o,
			[]string{"fatal ca", "fatal names", "fatal key-usage", "note lifetime", "note unused"}},
		{"critical extension", leaf(nil, critical), o, []string{"fatal critical-extension"}},
		{"critical extension of a CA", chain(issue(t, criticalCA, nil, "cache.example", dns("cache.example")), criticalCA), o, []string{"fatal critical-extension"}},
	}
}

func rowsOfKeys(t *testing.T) []row {
	root := issue(t, nil, nil, "Root", ca)
	o := Options{Roots: pool(root)}
	leaf := func(key crypto.Signer) *made {
		return issue(t, root, key, "cache.example", with(dns("cache.example"), usage(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment)))
	}
	sized := func(bits, e int) crypto.Signer {
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
		return publicOnly{&rsa.PublicKey{N: n.SetBit(n, 0, 1), E: e}}
	}
	mine, other := issue(t, root, nil, "cache.example", dns("cache.example")), p256(t)
	mid := issue(t, root, nil, "Issuing CA", ca)
	below := issue(t, mid, nil, "cache.example", dns("cache.example"))
	keyed := func(c *made, key crypto.PublicKey) Options { return Options{Roots: pool(root), Key: key} }
	old := issue(t, root, mine.key, "cache.example", with(dns("cache.example", "old.example", "*.example.com"), ips("10.0.0.5"), times(now.AddDate(0, -8, 0), now.AddDate(0, 7, 0))))
	edRoot := issue(t, nil, newKey(t, keys.Ed25519, ""), "Ed25519 Root", ca)
	rsa1024, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weakRoot := issue(t, nil, rsa1024, "Old Root", ca)
	weakMid := issue(t, root, rsa1024, "Old CA", ca)
	server := dns("cache.example")
	return []row{
		{"key: it matches", chain(mine), keyed(mine, mine.key.Public()), nil},
		{"key: another", chain(mine), keyed(mine, other.Public()), []string{"fatal key"}},
		{"key: of another kind", chain(mine), keyed(mine, newKey(t, keys.RSA, "").Public()), []string{"fatal key"}},
		{"key: of a kind that nobody knows", chain(mine), keyed(mine, "a key"), []string{"fatal key"}},
		{"key: the second certificate's", chain(mine, below, mid), keyed(mine, below.key.Public()), []string{"fatal key", "note unused"}},
		{"key size: RSA 1024", chain(leaf(sized(1024, 65537))), o, []string{"fatal key-size"}},
		{"key size: RSA 8192", chain(leaf(sized(8192, 65537))), o, []string{"note key-size"}},
		{"key size: RSA 9000", chain(leaf(sized(9000, 65537))), o, []string{"fatal key-size"}},
		{"key size: exponent 3", chain(leaf(sized(2048, 3))), o, []string{"warning key-size"}},
		{"key size: exponent 2", chain(leaf(sized(2048, 2))), o, []string{"fatal key-size"}},
		{"key size: a root with RSA 1024", chain(issue(t, weakRoot, nil, "cache.example", server)), Options{Roots: pool(weakRoot)}, []string{"warning key-size"}},
		{"key size: a CA with RSA 1024", chain(issue(t, weakMid, nil, "cache.example", server), weakMid), o, []string{"fatal key-size"}},
		{"key kind: P-521", chain(issue(t, root, weak(t, elliptic.P521()), "cache.example", server)), o, []string{"warning key-kind"}},
		{"key kind: P-224", chain(issue(t, root, weak(t, elliptic.P224()), "cache.example", server)), o, []string{"fatal key-kind"}},
		{"key kind: P-384", chain(issue(t, root, newKey(t, keys.EC, "secp384r1"), "cache.example", server)), o, nil},
		{"key kind: Ed25519", chain(issue(t, root, newKey(t, keys.Ed25519, ""), "cache.example", server)), o, []string{"warning key-kind"}},
		{"signature: Ed25519", chain(issue(t, edRoot, nil, "cache.example", server)), Options{Roots: pool(edRoot)}, []string{"warning signature"}},
		{"renewal: as it should be", chain(issue(t, root, old.key, "cache.example", with(dns("CACHE.example", "old.example", "*.example.com"), ips("10.0.0.5"), times(now, now.AddDate(0, 8, 0))))), Options{Roots: pool(root), Previous: old.Certificate}, []string{"note wildcard"}},
		{"renewal: the same again", chain(mine), Options{Roots: pool(root), Previous: mine.Certificate}, []string{"note renewal"}},
		{"renewal: another key, fewer names, an earlier end", chain(issue(t, root, nil, "cache.example", server)), Options{Roots: pool(root), Previous: old.Certificate}, []string{"warning renewal", "warning renewal", "warning renewal"}},
	}
}

// publicOnly lets a certificate be made for a key that nobody has.
type publicOnly struct{ crypto.PublicKey }

func (p publicOnly) Public() crypto.PublicKey { return p.PublicKey }

func (publicOnly) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("nobody has this key")
}

func rowsOfChains(t *testing.T) []row {
	root := issue(t, nil, nil, "Root", ca)
	mid := issue(t, root, nil, "Policy CA", ca)
	low := issue(t, mid, nil, "Issuing CA", with(ca, func(c *x509.Certificate) {
		c.IssuingCertificateURL = []string{"ldap:///CN=x", "http://pki.example/policy.crt"}
	}))
	server := dns("cache.example")
	leaf := issue(t, low, nil, "cache.example", server)
	self := issue(t, nil, nil, "cache.example", server)
	stranger := issue(t, nil, nil, "Another Root", ca)
	rekeyed := issue(t, root, nil, "Policy CA", with(ca, func(c *x509.Certificate) { c.SubjectKeyId = []byte{1, 2, 3, 4} }))
	noCA := issue(t, root, nil, "No CA", func(c *x509.Certificate) { c.BasicConstraintsValid, c.KeyUsage = true, 0 })
	noBC := issue(t, root, nil, "Says nothing", func(c *x509.Certificate) { c.KeyUsage = 0 })
	noSign := issue(t, root, nil, "May not sign", with(ca, usage(x509.KeyUsageCRLSign)))
	narrow := issue(t, root, nil, "Narrow CA", with(ca, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }))
	belowNarrow := issue(t, narrow, nil, "CA below", ca)
	roots := Options{Roots: pool(root)}
	given := Options{GivenRoots: chain(root)}
	plain := func(parent *made) *made { return issue(t, parent, nil, "cache.example", server) }
	policy := func(c *x509.Certificate) { // requireExplicitPolicy 0, and no policy
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 36}, Critical: true, Value: []byte{0x30, 0x03, 0x80, 0x01, 0x00}}}
	}
	strict := issue(t, root, nil, "Strict CA", with(ca, policy))
	var namesakes []*made
	key := p256(t)
	for i := range 120 {
		namesakes = append(namesakes, issue(t, root, key, "Issuing CA", with(ca, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(int64(i + 1)) })))
	}
	return []row{
		{"no certificate", nil, roots, []string{"fatal chain"}},
		{"chain: whole, root in the store", chain(leaf, low, mid), roots, nil},
		{"chain: whole, root given", chain(leaf, low, mid), given, nil},
		{"chain: whole, root given and another in the store", chain(leaf, low, mid), Options{Roots: pool(stranger), GivenRoots: chain(root)}, nil},
		{"chain: with its root", chain(leaf, low, mid, root), roots, nil},
		{"chain: a CA in between is trusted by itself", chain(leaf, low), Options{GivenRoots: chain(mid)}, nil},
		{"chain: whole, nothing to check against", chain(leaf, low, mid), Options{}, []string{"note root"}},
		{"chain: with a root, nothing to check against", chain(leaf, low, mid, root), Options{}, []string{"note root"}},
		{"chain: the leaf alone, nothing to check against", chain(leaf), Options{}, []string{"warning chain", "note root"}},
		{"chain: no CA in between", chain(leaf), roots, []string{"fatal chain"}},
		{"chain: a CA missing, and where it is", chain(leaf, low), roots, []string{"fatal chain"}},
		{"chain: a CA missing, and the leaf is over too", chain(issue(t, low, nil, "cache.example", with(server, times(now.AddDate(-1, 0, 0), now.AddDate(0, 0, -2)))), low), given, []string{"fatal validity", "fatal chain"}},
		{"chain: issuer and serial number instead of a key", chain(issue(t, low, nil, "cache.example", with(server, byIssuerAndSerial(t)))), roots, []string{"fatal chain"}},
		{"chain: another order", chain(leaf, mid, low), roots, []string{"warning chain"}},
		{"chain: things that do not belong", chain(leaf, low, mid, stranger, low), roots, []string{"note unused"}},
		{"chain: the CA was given another key", chain(leaf, low, rekeyed), roots, []string{"fatal chain", "note unused"}},
		{"chain: too many of one name", chain(append([]*made{leaf}, namesakes...)...), roots, []string{"fatal chain", "note unused"}},
		{"root: not trusted", chain(leaf, low, mid, root), Options{Roots: pool(stranger)}, []string{"fatal root"}},
		{"root: not the one given", chain(leaf, low, mid, root), Options{GivenRoots: chain(stranger)}, []string{"fatal root"}},
		{"root: over and over, and found all the same", chain(issue(t, root, nil, "cache.example", with(server, times(now.AddDate(-3, 0, 0), now.AddDate(-2, 0, 0))))), roots, []string{"fatal validity"}},
		{"self-signed", chain(self), roots, []string{"fatal self-signed"}},
		{"self-signed, and given", chain(self), Options{Roots: pool(root), GivenRoots: chain(self)}, []string{"warning self-signed"}},
		{"self-signed, and in the store", chain(self), Options{Roots: pool(self)}, []string{"warning self-signed"}},
		{"self-signed, nothing to check against", chain(self), Options{}, []string{"warning self-signed", "note root"}},
		{"issuer: not a CA", chain(plain(noCA), noCA), roots, []string{"fatal chain"}},
		{"issuer: does not say that it is a CA", chain(plain(noBC), noBC), roots, []string{"fatal chain"}},
		{"issuer: may not sign certificates", chain(plain(noSign), noSign), roots, []string{"fatal chain"}},
		{"path length", chain(plain(belowNarrow), belowNarrow, narrow), roots, []string{"fatal path-length"}},
		{"path length: kept", chain(plain(narrow), narrow), roots, nil},
		{"policies: what only crypto/x509 checks", chain(plain(strict), strict), roots, []string{"fatal chain"}},
	}
}

// byIssuerAndSerial gives an authority key identifier without a key identifier.
func byIssuerAndSerial(t *testing.T) func(*x509.Certificate) {
	value, err := asn1.Marshal(struct {
		Issuer []asn1.RawValue `asn1:"tag:1"`
		Serial *big.Int        `asn1:"tag:2"`
	}{[]asn1.RawValue{{Class: 2, Tag: 2, Bytes: []byte("x")}}, big.NewInt(0xABCDEF)})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oidAuthorityKeyID, Value: value})
	}
}

func rowsOfConstraints(t *testing.T) []row {
	root := issue(t, nil, nil, "Root", ca)
	roots := Options{Roots: pool(root)}
	network := func(s string) []*net.IPNet {
		_, n, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		return []*net.IPNet{n}
	}
	constrained := func(constrain, names func(*x509.Certificate)) []*x509.Certificate {
		mid := issue(t, root, nil, "Branch CA", with(ca, func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = true }, constrain))
		return chain(issue(t, mid, nil, "cache.example", names), mid)
	}
	permit := func(domains ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.PermittedDNSDomains = domains }
	}
	exclude := func(domains ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExcludedDNSDomains = domains }
	}
	constrainedRoot := issue(t, nil, nil, "Branch Root", with(ca, permit("branch.example")))
	return []row{
		{"constraints: kept", constrained(permit("branch.example", "example"), with(dns("cache.branch.example", "Branch.Example", "*.branch.example"), ips("10.0.0.5"))), roots, []string{"note wildcard"}},
		{"constraints: a name that is not permitted", constrained(permit("branch.example", ".other.example"), dns("cache.branch.example", "cache.hq.example", "other.example", "notbranch.example")), roots,
			[]string{"fatal name-constraints", "fatal name-constraints", "fatal name-constraints"}},
		{"constraints: a name that is excluded", constrained(exclude("hq.example"), dns("cache.hq.example")), roots, []string{"fatal name-constraints"}},
		{"constraints: a wildcard over what is excluded", constrained(exclude("secret.example.com"), dns("*.example.com")), roots, []string{"fatal name-constraints", "note wildcard"}},
		{"constraints: all names are excluded", constrained(exclude(""), dns("cache.example")), roots, []string{"fatal name-constraints"}},
		{"constraints: an address that is not permitted", constrained(func(c *x509.Certificate) { c.PermittedIPRanges = network("10.1.0.0/16") }, ips("10.2.0.5", "10.1.0.5", "2001:db8::5")), roots,
			[]string{"fatal name-constraints", "fatal name-constraints"}},
		{"constraints: an address that is excluded", constrained(func(c *x509.Certificate) { c.ExcludedIPRanges = network("2001:db8::/32") }, ips("2001:db8::5")), roots, []string{"fatal name-constraints"}},
		{"constraints: a common name that OpenSSL takes for a DNS name", constrained(exclude("cache.example"), ips("10.1.0.5")), roots, []string{"fatal name-constraints"}},
		{"constraints: of the root, which is in the store", chain(issue(t, constrainedRoot, nil, "cache.example", dns("cache.hq.example"))), Options{Roots: pool(constrainedRoot)}, []string{"fatal name-constraints"}},
		{"constraints: on URIs, which only crypto/x509 compares", constrained(func(c *x509.Certificate) { c.PermittedURIDomains = []string{"hq.example"} }, with(dns("cache.example"), func(c *x509.Certificate) {
			c.URIs = []*url.URL{{Scheme: "https", Host: "cache.example"}}
		})), roots, []string{"fatal name-constraints"}},
	}
}

// rowsOfOpenSSL are certificates that crypto/x509 does not make.
func rowsOfOpenSSL(t *testing.T) []row {
	w := newWorkshop(t)
	rsaRoot := w.make("rsa", work{cn: "RSA Root", key: rsaKey, extensions: forCA})
	ecRoot := w.make("ec", work{cn: "EC Root", key: ecKey, extensions: forCA})
	sha1Root := w.make("sha1root", work{cn: "SHA-1 Root", key: "@rsa", extensions: forCA, digest: "sha1"})
	pssRoot := w.make("pssroot", work{cn: "PSS Root", key: "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", extensions: forCA, options: []string{"-sigopt", "rsa_pss_saltlen:32"}})
	ed448Root := w.make("ed448", work{cn: "Ed448 Root", key: "-algorithm ED448", extensions: forCA, digest: "null"})
	by := func(name, signer, key, digest string, options ...string) *x509.Certificate {
		return w.make(name, work{cn: "cache.example", key: key, signer: signer, extensions: forServer, digest: digest, options: options})
	}
	given := func(roots ...*x509.Certificate) Options { return Options{GivenRoots: roots} }
	stored := func(root *x509.Certificate) Options {
		p := x509.NewCertPool()
		p.AddCert(root)
		return Options{Roots: p}
	}
	one := func(c ...*x509.Certificate) []*x509.Certificate { return c }

	sha1Leaf := by("sha1", "rsa", ecKey, "sha1")
	md2 := parse(t, bytes.ReplaceAll(by("md4", "rsa", ecKey, "sha1").Raw, []byte{0x86, 0xf7, 0x0d, 1, 1, 5}, []byte{0x86, 0xf7, 0x0d, 1, 1, 2}))
	unknown := parse(t, bytes.ReplaceAll(by("odd", "ec", ecKey, "sha256").Raw, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2}, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 9}))
	ed448Leaf := by("ed448leaf", "ec", "-algorithm ED448", "sha256")
	underEd448 := by("undered448", "ed448", ecKey, "null")
	ed448Mid := w.make("ed448mid", work{cn: "CA below Ed448", key: ecKey, signer: "ed448", digest: "null", extensions: forCA + "nameConstraints=critical,permitted;DNS:branch.example\n"})
	belowMid := by("belowmid", "ed448mid", ecKey, "sha256")
	ed448Mail := w.make("ed448mail", work{cn: "CA with mail", key: ecKey, signer: "ed448", digest: "null", extensions: forCA + "nameConstraints=critical,permitted;email:example.com\n"})
	withMail := w.make("withmail", work{cn: "cache.example", key: ecKey, signer: "ed448mail", extensions: strings.Replace(forServer, "DNS:", "email:a@example.com,DNS:", 1)})
	forged := parse(t, flipped(underEd448.Raw))

	dirCA := w.make("dir", work{cn: "Directory CA", key: ecKey, signer: "ec", extensions: forCA + "nameConstraints=critical,permitted;dirName:branch\n[branch]\nCN=Cache.Example\n"})
	dirGood := by("dirgood", "dir", ecKey, "sha256")
	dirBad := w.make("dirbad", work{cn: "elsewhere", key: ecKey, signer: "dir", extensions: forServer})
	otherCA := w.make("other", work{cn: "UPN CA", key: ecKey, signer: "ec", extensions: forCA + "nameConstraints=critical,excluded;otherName:1.3.6.1.4.1.311.20.2.3;UTF8:bad.example\n"})
	otherGood := by("othergood", "other", ecKey, "sha256")
	otherBad := w.make("otherbad", work{cn: "cache.example", key: ecKey, signer: "other", extensions: strings.Replace(forServer, "DNS:", "otherName:1.3.6.1.4.1.311.20.2.3;UTF8:a@bad.example,DNS:", 1)})

	return []row{
		{"signature: SHA-1, root given", one(sha1Leaf), given(rsaRoot), []string{"fatal signature"}},
		{"signature: SHA-1, root in the store", one(sha1Leaf), stored(rsaRoot), []string{"fatal signature", "fatal root"}},
		{"signature: ECDSA with SHA-1", one(by("ecsha1", "ec", ecKey, "sha1")), given(ecRoot), []string{"fatal signature"}},
		{"signature: MD5", one(by("md5", "rsa", ecKey, "md5")), given(rsaRoot), []string{"fatal signature"}},
		{"signature: MD2", one(md2), given(rsaRoot), []string{"fatal signature"}},
		{"signature: SHA-224", one(by("sha224", "ec", ecKey, "sha224")), given(ecRoot), []string{"fatal signature"}},
		{"signature: unknown", one(unknown), given(ecRoot), []string{"fatal signature"}},
		{"signature: RSA-PSS", one(by("pss", "rsa", ecKey, "sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32")), given(rsaRoot), []string{"warning signature"}},
		{"signature: a root's own SHA-1 is nobody's concern", one(by("undersha1", "sha1root", ecKey, "sha256")), given(sha1Root), nil},
		{"key kind: a key for RSA-PSS only", one(by("psskey", "ec", "@pssroot", "sha256")), given(ecRoot), []string{"fatal key-kind"}},
		{"key kind: a root with a key for RSA-PSS only", one(by("underpss", "pssroot", ecKey, "sha256", "-sigopt", "rsa_pss_saltlen:32")), given(pssRoot), []string{"fatal key-kind", "warning signature"}},
		{"key size: exponent 3 by openssl", one(by("e3", "ec", rsaKey+" -pkeyopt rsa_keygen_pubexp:3", "sha256")), given(ecRoot), []string{"warning key-size", "note key-usage"}},
		{"Ed448: the key", one(ed448Leaf), Options{GivenRoots: one(ecRoot), Key: keys.PublicOf(ed448Leaf)}, []string{"unservable ed448"}},
		{"Ed448: another key", one(ed448Leaf), Options{GivenRoots: one(ecRoot), Key: keys.PublicOf(ed448Root)}, []string{"fatal key", "unservable ed448"}},
		{"Ed448: the signature, root given", one(underEd448), given(ed448Root), []string{"unservable ed448"}},
		{"Ed448: the signature, root in the store", one(underEd448), stored(ed448Root), []string{"fatal root", "unservable ed448"}},
		{"Ed448: the signature is forged", one(forged), given(ed448Root), []string{"fatal chain", "unservable ed448"}},
		{"Ed448: above a CA, whose constraints hold", one(belowMid, ed448Mid), given(ed448Root), []string{"fatal name-constraints", "unservable ed448"}},
		{"Ed448: constraints that only crypto/x509 compares", one(withMail, ed448Mail), given(ed448Root), []string{"fatal name-constraints", "unservable ed448"}},
		{"Ed448: a root among the certificates", one(underEd448, ed448Root), given(ecRoot), []string{"fatal root", "unservable ed448"}},
		{"constraints: directory names, kept", one(dirGood, dirCA), given(ecRoot), []string{"warning name-constraints"}},
		{"constraints: directory names, not kept", one(dirBad, dirCA), given(ecRoot), []string{"fatal name-constraints", "warning name-constraints"}},
		{"constraints: other names, of which there are none", one(otherGood, otherCA), given(ecRoot), []string{"warning name-constraints"}},
		{"constraints: other names", one(otherBad, otherCA), given(ecRoot), []string{"fatal name-constraints"}},
	}
}

// flipped changes the last byte of a signature.
func flipped(der []byte) []byte {
	der = bytes.Clone(der)
	der[len(der)-2] ^= 1
	return der
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	root := w.make("root", work{cn: "Root", key: ecKey, extensions: forCA})
	leaf := w.make("leaf", work{cn: "cache.example", key: "-algorithm ED448", signer: "root", extensions: forServer})
	o := Options{Now: now, GivenRoots: []*x509.Certificate{root}, ClientNames: []string{"cache.example"}}
	found := Check([]*x509.Certificate{leaf}, o)
	if err := Fatal(found); err != nil {
		t.Errorf("an Ed448 certificate may not be kept: %v", err)
	}
	if err := Servable(found); err == nil || !strings.Contains(err.Error(), "Ed448") {
		t.Errorf("an Ed448 certificate may be served: %v", err)
	}
	if _, ok := ed448.ParseSPKI(leaf.RawSubjectPublicKeyInfo); !ok {
		t.Error("that was no Ed448 certificate")
	}
	o.ClientNames = []string{"other.example"}
	o.Now = now.AddDate(1, 0, 0)
	found = Check([]*x509.Certificate{leaf}, o)
	err := Fatal(found)
	if err == nil || strings.Count(err.Error(), "\n") != 3-1 {
		t.Errorf("want three lines, for the validity of leaf and root and for the names, got %v", err)
	}
	text, err := json.Marshal(found[0])
	if err != nil {
		t.Fatal(err)
	}
	var flat map[string]string
	if err := json.Unmarshal(text, &flat); err != nil {
		t.Fatal(err)
	}
	if flat["severity"] != "fatal" || flat["check"] != "validity" || flat["field"] == "" || flat["found"] == "" || flat["next"] == "" {
		t.Errorf("a finding as JSON: %s", text)
	}
	var s Severity
	if err := s.UnmarshalText([]byte("unservable")); err != nil || s != SeverityUnservable {
		t.Errorf("got %v, %v", s, err)
	}
	if err := s.UnmarshalText([]byte("bad")); err == nil {
		t.Error("a severity without meaning was read")
	}
}

// TestWords: what certificates hold is fit to be shown, however odd.
func TestWords(t *testing.T) {
	t.Parallel()
	nameless := issue(t, nil, nil, "", dns("cache.example")).Certificate
	tests := []struct{ got, want string }{
		{title(nameless), "cache.example"},
		{clean(strings.Repeat("ä", 121)), strings.Repeat("ä", 120) + "…"},
		{clean("a\u202eb\x00"), "a�b�"},
		{keyWords(bytes.Repeat([]byte{1}, 20)), " (key 0101010101010101010101010101010101010101)"},
		{keyWords(bytes.Repeat([]byte{1}, 21)), " (key 0101010101010101010101010101010101010101…)"},
		{keyWords(nil), ""},
		{kindOfName(8), "registered IDs"},
		{kindOfName(9), "names of the unknown kind 9"},
		{name{kindOther, nil}.String(), "one of the other names"},
		{name{kindIP, []byte{1}}.String(), "one of the IP addresses"},
		{span(90 * time.Minute), "1 hour"},
		{span(2 * time.Minute), "2 minutes"},
		{hostOf("bü..cher").name, ""},
		{hostOf("a b").name, ""},
		{hostOf("[fe80::1%eth0]").addr.String(), "fe80::1"},
	}
	for i, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%d: got %q, want %q", i, tt.got, tt.want)
		}
	}
}
