package vet

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"larder/internal/lardertest"
)

// drawn is one chain of TestAsOpenSSL, and what openssl is known to see in
// another way.
type drawn struct {
	chain  []*x509.Certificate
	root   *x509.Certificate // the trusted one
	client string

	noBC       bool // a CA without basic constraints that has keyCertSign
	anyPurpose bool // a certificate for any purpose
	lastSecond bool // a certificate in its last second
	excluded   []string
}

// TestAsOpenSSL: on what makes a chain, its times and its names good, this
// package and openssl are of one mind, but for the differences that excuse
// names.
func TestAsOpenSSL(t *testing.T) {
	t.Parallel()
	lardertest.Program(t, "openssl")
	dir := t.TempDir()
	var pool []crypto.Signer
	for range 5 {
		pool = append(pool, p256(t))
	}
	other := issue(t, nil, nil, "Other Root", ca)
	var good, bad, excused int
	rapid.Check(t, func(rt *rapid.T) {
		d := draw(rt, t, pool, other)
		found := Check(d.chain, Options{Now: now, GivenRoots: []*x509.Certificate{d.root}, ClientNames: []string{d.client}})
		ours := slices.ContainsFunc(found, func(f Finding) bool { return f.Severity == SeverityFatal })
		out, err := verifyByOpenSSL(t, dir, d)
		theirs := err != nil
		switch {
		case ours == theirs && ours:
			bad++
		case ours == theirs:
			good++
		case d.excuse(ours) != "":
			excused++
		default:
			rt.Fatalf("refused here %v, by openssl %v\nclient uses %s\nhere: %v\nopenssl: %s", ours, theirs, d.client, errorsOf(found), out)
		}
	})
	t.Logf("both accept %d, both refuse %d, differ as explained %d", good, bad, excused)
	if all := good + bad + excused; 20*good < all || 20*bad < all { // fewer with -short
		t.Errorf("both accept %d and both refuse %d: that proves little", good, bad)
	}
}

// excuse says why openssl may differ.
func (d drawn) excuse(refusedHere bool) string {
	leaf := d.chain[0]
	switch {
	case !refusedHere && d.anyPurpose:
		return "openssl does not take anyExtendedKeyUsage for server authentication; Go does, and others; here it is a warning"
	case !refusedHere && d.lastSecond:
		return "openssl takes the last second for over; by RFC 5280, section 4.1.2.5, and for Go it counts"
	case !refusedHere:
		return ""
	case len(leaf.DNSNames) == 0 && net.ParseIP(d.client) == nil:
		return "openssl falls back to the common name; Windows, browsers and Go do not, RFC 9525 forbids it"
	case d.noBC:
		return "openssl takes keyCertSign without basic constraints for a CA; RFC 5280, section 4.2.1.9, and Go do not"
	case slices.ContainsFunc(leaf.DNSNames, func(n string) bool { return strings.Contains(n, "*") && !strings.HasPrefix(n, "*.") }):
		return "openssl takes an asterisk within a label; RFC 9525, section 6.3, and others do not"
	case slices.ContainsFunc(leaf.DNSNames, func(n string) bool {
		parent, wild := strings.CutPrefix(n, "*.")
		return wild && slices.ContainsFunc(d.excluded, func(e string) bool { return strings.HasSuffix(e, "."+parent) })
	}):
		return "openssl does not see that a wildcard covers an excluded name; Go does"
	}
	return ""
}

func draw(rt *rapid.T, t *testing.T, keys []crypto.Signer, other *made) drawn {
	var d drawn
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(rt, name) }
	// Small numbers come up more often: what is rare has none.
	rarely := func(name string) bool { return rapid.IntRange(0, 15).Draw(rt, name) == 9 }
	span := func(c *x509.Certificate, name string) {
		switch rapid.IntRange(0, 39).Draw(rt, name) {
		case 11:
			c.NotBefore, c.NotAfter = now.AddDate(-1, 0, 0), now.Add(-time.Second)
		case 12:
			c.NotBefore, c.NotAfter = now.Add(time.Second), now.AddDate(1, 0, 0)
		case 13:
			c.NotBefore, c.NotAfter, d.lastSecond = now, now, true
		}
	}
	purpose := func(c *x509.Certificate, name string) {
		switch rapid.IntRange(0, 15).Draw(rt, name) {
		case 9:
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		case 10:
			c.ExtKeyUsage, d.anyPurpose = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, true
		case 11:
			c.ExtKeyUsage = nil
		case 12:
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		}
	}
	domains := []string{"example.com", ".example.com", "a.example.com", "cache.a.example.com", "example.org", "com", ""}
	networks := []string{"10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16", "2001:db8::/32", "0.0.0.0/0"}
	authority := func(name string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			ca(c)
			span(c, name+" span")
			purpose(c, name+" purpose")
			switch rapid.IntRange(0, 15).Draw(rt, name+" basic") {
			case 8:
				c.IsCA, c.MaxPathLen = false, 0
			case 9:
				c.BasicConstraintsValid, c.IsCA, c.MaxPathLen, d.noBC = false, false, 0, true
			case 10:
				c.KeyUsage = x509.KeyUsageCRLSign
			case 11, 12:
				c.MaxPathLen, c.MaxPathLenZero = 0, true
			case 13:
				c.MaxPathLen = 1
			case 14:
				c.KeyUsage = 0
			}
			if !c.IsCA {
				return // crypto/x509 does not write constraints then
			}
			c.PermittedDNSDomainsCritical = rapid.Bool().Draw(rt, name+" critical")
			if rarely(name + " permits names") {
				c.PermittedDNSDomains = rapid.SliceOfN(rapid.SampledFrom(domains), 1, 2).Draw(rt, name+" permitted")
			}
			if rarely(name + " excludes names") {
				c.ExcludedDNSDomains = rapid.SliceOfN(rapid.SampledFrom(domains), 1, 2).Draw(rt, name+" excluded")
				d.excluded = append(d.excluded, c.ExcludedDNSDomains...)
			}
			if rarely(name + " permits addresses") {
				c.PermittedIPRanges = []*net.IPNet{network(t, pick(name+" network", networks...))}
			}
			if rarely(name + " excludes addresses") {
				c.ExcludedIPRanges = []*net.IPNet{network(t, pick(name+" network out", networks...))}
			}
		}
	}
	root := issue(t, nil, keys[0], "Root", authority("root"))
	parent, all := root, []*made{}
	for i := range rapid.IntRange(0, 2).Draw(rt, "CAs in between") {
		parent = issue(t, parent, keys[i+1], fmt.Sprintf("CA %d", i), authority(fmt.Sprintf("CA %d", i)))
		all = append([]*made{parent}, all...)
	}
	names := []string{"cache.example.com", "cache.a.example.com", "*.example.com", "*.a.example.com", "Example.COM", "cache.example.org", "cach*.example.com"}
	addresses := []string{"10.1.2.3", "10.9.9.9", "192.168.1.1", "2001:db8::7"}
	leaf := issue(t, parent, keys[4], pick("common name", "A node", "cache.example.com"), func(c *x509.Certificate) {
		span(c, "leaf span")
		purpose(c, "leaf purpose")
		c.DNSNames = rapid.SliceOfN(rapid.SampledFrom(names), 0, 3).Draw(rt, "names")
		for _, a := range rapid.SliceOfN(rapid.SampledFrom(addresses), 0, 2).Draw(rt, "addresses") {
			c.IPAddresses = append(c.IPAddresses, net.ParseIP(a))
		}
	})
	d.client = rapid.OneOf(rapid.SampledFrom(names[:2]), rapid.SampledFrom(append([]string{"example.com", "b.cache.example.com"}, addresses...))).Draw(rt, "client")
	if held := append(slices.Clone(leaf.DNSNames), addressTexts(leaf.Certificate)...); len(held) > 0 && !rarely("client uses another name") {
		d.client = strings.Replace(rapid.SampledFrom(held).Draw(rt, "which"), "*", "x", 1)
	}
	d.chain, d.root = chain(append([]*made{leaf}, all...)...), root.Certificate
	if len(all) > 0 && rarely("a CA is missing") {
		gone := rapid.IntRange(1, len(all)).Draw(rt, "the missing one")
		d.chain = slices.Delete(d.chain, gone, gone+1)
	}
	if rarely("another root is trusted") {
		d.root = other.Certificate
	}
	if rarely("the signature is damaged") {
		d.chain[0] = parse(t, flipped(d.chain[0].Raw))
	}
	return d
}

func addressTexts(c *x509.Certificate) []string {
	var all []string
	for _, a := range c.IPAddresses {
		all = append(all, a.String())
	}
	return all
}

func network(t testing.TB, s string) *net.IPNet {
	t.Helper()
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func verifyByOpenSSL(t *testing.T, dir string, d drawn) (string, error) {
	write(t, dir, "leaf.pem", pemOf(d.chain[0]))
	write(t, dir, "others.pem", pemOf(d.chain[1:]...))
	write(t, dir, "root.pem", pemOf(d.root))
	args := []string{"verify", "-purpose", "sslserver", "-attime", fmt.Sprint(now.Unix()), "-no-CApath", "-no-CAstore", "-CAfile", "root.pem"}
	if len(d.chain) > 1 {
		args = append(args, "-untrusted", "others.pem")
	}
	if net.ParseIP(d.client) != nil {
		args = append(args, "-verify_ip", d.client)
	} else {
		args = append(args, "-verify_hostname", d.client)
	}
	cmd := exec.CommandContext(t.Context(), "openssl", append(args, "leaf.pem")...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestCoversNoMoreThanGo: what is covered here is covered for crypto/x509 too,
// which is laxer.
func TestCoversNoMoreThanGo(t *testing.T) {
	t.Parallel()
	key := p256(t)
	label := rapid.SampledFrom([]string{"a", "b", "*", "a*", "A", "a_b", "-a", "", "10", "0", "xn--a"})
	text := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(label, 1, 4).Draw(t, "labels"), ".")
	})
	covered := 0
	rapid.Check(t, func(rt *rapid.T) {
		tmpl := &x509.Certificate{SerialNumber: issue(t, nil, key, "x", nil).SerialNumber, DNSNames: rapid.SliceOfN(text, 1, 3).Draw(rt, "names")}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
		if err != nil {
			rt.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			rt.Skip(err)
		}
		name := rapid.OneOf(text, rapid.SampledFrom(c.DNSNames)).Draw(rt, "client")
		if Covers(c, name) {
			covered++
			if err := c.VerifyHostname(name); err != nil {
				rt.Fatalf("%q covers %q here: %v", c.DNSNames, name, err)
			}
		}
	})
	if covered == 0 {
		t.Error("nothing was covered")
	}
}

// FuzzCheck: whatever bytes crypto/x509 takes for certificates, there is a
// verdict, and a fatal one where crypto/x509 refuses the chain.
func FuzzCheck(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) // the same seeds in every process
	root := issue(f, nil, key, "Root", ca)
	mid := issue(f, root, key, "CA", with(ca, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example"} }))
	leaf := issue(f, mid, key, "cache.example", with(dns("cache.example", "*.b.example"), ips("10.0.0.5")))
	f.Add(leaf.Raw, mid.Raw, "cache.example")
	f.Add(mid.Raw, leaf.Raw, "10.0.0.5")
	f.Add(root.Raw, root.Raw, "")
	f.Fuzz(func(t *testing.T, a, b []byte, client string) {
		var all []*x509.Certificate
		for _, der := range [][]byte{a, b} {
			if c, err := x509.ParseCertificate(der); err == nil {
				all = append(all, c)
			}
		}
		found := Check(all, Options{Now: now, GivenRoots: []*x509.Certificate{root.Certificate}, ClientNames: []string{client}, Previous: leaf.Certificate, Key: leaf.key.Public()})
		for _, f := range found {
			if f.Check == "" || f.Field == "" || f.Found == "" || strings.ContainsAny(f.Error(), "\x1b\n\r") {
				t.Errorf("a poor finding: %q", f.Error())
			}
		}
		if len(all) == 0 {
			return
		}
		others := x509.NewCertPool()
		for _, c := range all[1:] {
			others.AddCert(c)
		}
		roots := x509.NewCertPool()
		roots.AddCert(root.Certificate)
		if _, err := all[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, CurrentTime: now}); err != nil && Servable(found) == nil && !slices.ContainsFunc(all, func(c *x509.Certificate) bool { return len(c.UnhandledCriticalExtensions) > 0 }) {
			t.Errorf("crypto/x509 refuses it (%v), and here it is good: %v", err, errorsOf(found))
		}
	})
}
