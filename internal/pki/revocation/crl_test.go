package revocation

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"larder/internal/pki/ed448"
	"larder/internal/pki/keys"
)

// TestOpenSSLLists: what openssl writes is understood.
func TestOpenSSLLists(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	o := newOpenSSL(t, ca)
	o.index("V 1001", "R 1002 keyCompromise", "R 1003 superseded", "R 1004 certificateHold", "R 1005", "R 00FF affiliationChanged", "R 123456789ABCDEF0123456789ABCDEF012345678 CACompromise")
	s := newServer(t)
	c := New(Options{})
	url := s.serve("/list", o.crl("-crldays", "1"))
	for _, want := range []struct {
		serial string
		status Status
		reason string
	}{
		{"1001", Good, ""},
		{"9999", Good, ""},
		{"1002", Revoked, "key compromise"},
		{"1003", Revoked, "superseded"},
		{"1004", Revoked, "certificate hold"},
		{"1005", Revoked, "unspecified"},
		{"FF", Revoked, "affiliation changed"},
		{"123456789ABCDEF0123456789ABCDEF012345678", Revoked, "CA compromise"},
	} {
		n, _ := new(big.Int).SetString(want.serial, 16)
		leaf := issue(t, ca, "cache.example", func(c *x509.Certificate) { c.SerialNumber, c.CRLDistributionPoints = n, []string{url} })
		a, err := c.CRL(t.Context(), leaf.Certificate, ca.Certificate)
		if err != nil || a.Status != want.status || a.Reason != want.reason || a.Source != "CRL "+url || len(a.Problems) > 0 {
			t.Errorf("%s: got %+v, %v; want %s %s", want.serial, a, err, want.status, want.reason)
		}
		if want.status == Revoked && !a.RevokedAt.Equal(revokedAt) {
			t.Errorf("%s: revoked at %s", want.serial, a.RevokedAt)
		}
		if left := time.Until(a.NextUpdate); left < 23*time.Hour || left > 25*time.Hour {
			t.Errorf("the list counts for %s", left)
		}
	}
	if n := s.count("/list"); n != 1 {
		t.Errorf("the list was fetched %d times for eight certificates", n)
	}

	o.index()
	empty := s.serve("/empty", o.crl("-crldays", "1"))
	over := s.serve("/over", o.crl("-crl_lastupdate", "20240101000000Z", "-crl_nextupdate", "20240201000000Z"))
	leaf := issue(t, ca, "cache.example", asking(0x1001, nil, []string{empty}))
	if a, err := c.CRL(t.Context(), leaf.Certificate, ca.Certificate); err != nil || a.Status != Good {
		t.Errorf("a list without entries: %+v, %v", a, err)
	}
	leaf = issue(t, ca, "cache.example", asking(0x1001, nil, []string{over}))
	a, err := c.CRL(t.Context(), leaf.Certificate, ca.Certificate)
	unknownBecause(t, "over", a, err, "a list: an old one, which counted until 2024-02-01", "one of now")
}

// TestEd448List: a CA with an Ed448 key is checked all the same.
func TestEd448List(t *testing.T) {
	t.Parallel()
	o := newOpenSSL(t, newCA(t))
	o.run("genpkey", "-algorithm", "ED448", "-out", "ca.key")
	o.run("req", "-x509", "-key", "ca.key", "-subj", "/CN=Ed448 CA", "-days", "2", "-out", "ca.pem", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
	o.write("ext.cnf", []byte("crlDistributionPoints=URI:http://list.example/\nauthorityInfoAccess=OCSP;URI:http://ocsp.example/\n"))
	o.run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "leaf.key", "-subj", "/CN=cache.example", "-out", "leaf.csr")
	o.run("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "0x1002", "-days", "1", "-extfile", "ext.cnf", "-out", "leaf.pem")
	read := func(name string) *x509.Certificate {
		data, err := os.ReadFile(filepath.Join(o.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(data)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	ca, leaf := read("ca.pem"), read("leaf.pem")
	if _, ok := keys.PublicOf(ca).(ed448.PublicKey); !ok {
		t.Fatal("no Ed448 CA")
	}
	o.index("R 1002 superseded")
	list := o.crl("-crldays", "1", "-md", "null")
	answers := map[string][]byte{"http://list.example/": list}
	c := New(Options{Transport: answering(answers)})
	a, err := c.CRL(t.Context(), leaf, ca)
	if err != nil || a.Status != Revoked || a.Reason != "superseded" {
		t.Errorf("got %+v, %v", a, err)
	}
	list = append([]byte(nil), list...)
	list[len(list)-1] ^= 1
	c = New(Options{Transport: answering(map[string][]byte{"http://list.example/": list})})
	a, err = c.CRL(t.Context(), leaf, ca)
	unknownBecause(t, "damaged", a, err, "did not sign")

	url := o.responder("ca", "-ndays", "1", "-resp_no_certs")
	req, err := http.NewRequest(http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	c = New(Options{Transport: redirecting{to: req.URL.Host, next: New(Options{}).client.Transport}})
	a, err = c.OCSP(t.Context(), leaf, ca)
	unknownBecause(t, "OCSP", a, err, "Ed448")
}

// answering is an internet in which every address gives some bytes.
type answering map[string][]byte

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	data, ok := a[r.URL.String()]
	if !ok {
		return nil, fmt.Errorf("no such host: %s", r.URL)
	}
	return &http.Response{StatusCode: 200, Status: "200 OK", Body: io.NopCloser(strings.NewReader(string(data))), Request: r}, nil
}

// redirecting sends everything to one address.
type redirecting struct {
	to   string
	next http.RoundTripper
}

func (d redirecting) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host = d.to
	return d.next.RoundTrip(r)
}

func ext(oid asn1.ObjectIdentifier, critical bool, value []byte) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: oid, Critical: critical, Value: value})
	}
}

// scopeOf writes an issuing distribution point: its flags by tag, and the
// address of the part.
func scopeOf(t *testing.T, url string, flags map[int][]byte) func(*x509.RevocationList) {
	t.Helper()
	tagged := func(tag int, constructed bool, content []byte) []byte {
		der, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: constructed, Bytes: content})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	var content []byte
	if url != "" {
		content = tagged(0, true, tagged(0, true, tagged(6, false, []byte(url))))
	}
	for tag := 1; tag <= 5; tag++ {
		if f, ok := flags[tag]; ok {
			content = append(content, tagged(tag, false, f)...)
		}
	}
	der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
	if err != nil {
		t.Fatal(err)
	}
	return ext(oidScope, true, der)
}

// TestLists: what must not be taken for a list of this certificate, each with
// its words.
func TestLists(t *testing.T) {
	t.Parallel()
	ca, other := newCA(t), newCA(t)
	mayNot := issue(t, nil, "Issuing CA", asCA)
	now := time.Now()
	yes := []byte{0xff}
	const serial = 0x1001
	own := "http://list.example/own"
	entryExt := func(id asn1.ObjectIdentifier, critical bool) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(7), RevocationTime: now, ExtraExtensions: []pkix.Extension{{Id: id, Critical: critical, Value: []byte{5, 0}}}}}
		}
	}
	tests := []struct {
		name string
		der  []byte
		want []string // words of the problem; first "good" or "revoked" if it is that
	}{
		{"good", crl(t, ca, nil, 7, 8), []string{"good"}},
		{"revoked", crl(t, ca, nil, 7, serial, 8), []string{"revoked"}},
		{"over for four minutes: clocks differ", crl(t, ca, func(l *x509.RevocationList) {
			l.NextUpdate = now.Add(-4 * time.Minute)
			l.ThisUpdate = now.Add(-time.Hour)
		}), []string{"good"}},
		{"over", crl(t, ca, func(l *x509.RevocationList) {
			l.NextUpdate = now.Add(-6 * time.Minute)
			l.ThisUpdate = now.Add(-time.Hour)
		}, serial), []string{"a list: an old one, which counted until", "not published anything new"}},
		{"begins tomorrow", crl(t, ca, func(l *x509.RevocationList) {
			l.ThisUpdate = now.Add(24 * time.Hour)
			l.NextUpdate = now.Add(48 * time.Hour)
		}), []string{"a list: one that begins on", "clocks"}},
		{"another CA of the same name", crl(t, other, nil, serial), []string{"a list that the CA did not sign", "CN=Issuing CA"}},
		{"another CA", crl(t, issue(t, nil, "Somebody", asCA), nil), []string{"the list of another CA, CN=Somebody"}},
		{"for users: it is one", crl(t, ca, scopeOf(t, "", map[int][]byte{1: yes})), []string{"good"}},
		{"for CAs", crl(t, ca, scopeOf(t, "", map[int][]byte{2: yes})), []string{"other kinds of certificates"}},
		{"for attribute certificates", crl(t, ca, scopeOf(t, "", map[int][]byte{5: yes})), []string{"other kinds of certificates"}},
		{"for some reasons", crl(t, ca, scopeOf(t, "", map[int][]byte{3: {5, 0x60}})), []string{"a list for some reasons of revocation only"}},
		{"for some reasons, and there", crl(t, ca, scopeOf(t, "", map[int][]byte{3: {5, 0x60}}), serial), []string{"revoked"}},
		{"indirect", crl(t, ca, scopeOf(t, "", map[int][]byte{4: yes})), []string{"an indirect list"}},
		{"its part", crl(t, ca, scopeOf(t, own, nil)), []string{"good"}},
		{"another part, put in its place", crl(t, ca, scopeOf(t, "http://list.example/other", nil)), []string{"a part of the CA's list that is for other certificates"}},
		{"a scope that cannot be read", crl(t, ca, ext(oidScope, true, []byte{0x30, 0x01})), []string{"does not say clearly"}},
		{"delta", crl(t, ca, ext(oidDelta, true, []byte{2, 1, 1})), []string{"a delta list"}},
		{"there are delta lists", crl(t, ca, ext(oidFreshest, false, []byte{0x30, 0})), []string{"good", "delta lists (freshest CRL)"}},
		{"a critical extension", crl(t, ca, ext(asn1.ObjectIdentifier{1, 2, 3, 4}, true, []byte{5, 0})), []string{"the critical extension 1.2.3.4"}},
		{"an entry with a critical extension", crl(t, ca, entryExt(asn1.ObjectIdentifier{2, 5, 29, 29}, true)), []string{"an entry with a critical extension"}},
		{"an entry with an extension", crl(t, ca, entryExt(asn1.ObjectIdentifier{2, 5, 29, 23}, false)), []string{"good"}},
		{"PEM", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl(t, ca, nil)}), []string{"a list in PEM", "DER"}},
		{"an error page", []byte("<html>Welcome to the hotel</html>"), []string{"cannot be used as a list"}},
		{"nothing", nil, []string{"cannot be used as a list"}},
		{"half", crl(t, ca, nil, 1, 2, 3)[:80], []string{"cannot be used as a list"}},
		{"a certificate", ca.Raw, []string{"cannot be used as a list"}},
	}
	leaf := issue(t, ca, "cache.example", asking(serial, nil, []string{own}))
	for _, tt := range tests {
		c := New(Options{Transport: answering{own: tt.der}})
		a, err := c.CRL(t.Context(), leaf.Certificate, ca.Certificate)
		want, found := map[string]Status{"good": Good, "revoked": Revoked}[tt.want[0]]
		if !found {
			unknownBecause(t, tt.name, a, err, append(tt.want, "CRL "+own)...)
			continue
		}
		if err != nil || a.Status != want || len(a.Problems) != len(tt.want)-1 {
			t.Errorf("%s: got %+v, %v", tt.name, a, err)
		}
		for _, w := range tt.want[1:] {
			if !strings.Contains(a.Problems[0], w) {
				t.Errorf("%s: %q lacks %q", tt.name, a.Problems, w)
			}
		}
	}
	// A CA whose certificate does not let it sign lists. Its key does.
	der := crl(t, mayNot, nil)
	mayNot.KeyUsage = x509.KeyUsageCertSign
	mayNot.Certificate.Raw = append([]byte(nil), mayNot.Raw...)
	leaf = issue(t, mayNot, "cache.example", asking(serial, nil, []string{own}))
	a, err := New(Options{Transport: answering{own: der}}).CRL(t.Context(), leaf.Certificate, mayNot.Certificate)
	unknownBecause(t, "may not sign", a, err, "does not allow it to sign lists")

	// For the certificate of a CA, lists of CAs' certificates are the right ones.
	below := issue(t, ca, "CA below", func(c *x509.Certificate) { asCA(c); asking(serial, nil, []string{own})(c) })
	for _, tt := range []struct {
		flag int
		want Status
	}{{2, Good}, {1, Unknown}} {
		c := New(Options{Transport: answering{own: crl(t, ca, scopeOf(t, "", map[int][]byte{tt.flag: yes}))}})
		if a, _ := c.CRL(t.Context(), below.Certificate, ca.Certificate); a.Status != tt.want {
			t.Errorf("a CA's certificate and the flag %d: %+v", tt.flag, a)
		}
	}
}

// TestDistributionPoints: what certificates say about where lists are.
func TestDistributionPoints(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	const serial = 0x1001
	own := "http://list.example/own"
	o := newOpenSSL(t, ca)
	points := func(section string) *x509.Certificate {
		name := fmt.Sprintf("p%x", time.Now().UnixNano())
		o.write(name+".cnf", []byte("crlDistributionPoints="+section))
		o.run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name+".key", "-subj", "/CN=cache.example", "-out", name+".csr")
		o.run("x509", "-req", "-in", name+".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "0x1001", "-days", "1", "-extfile", name+".cnf", "-out", name+".pem")
		data, err := os.ReadFile(filepath.Join(o.dir, name+".pem"))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(data)
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	adcs := "ldap:///CN=Issuing%20CA,CN=CDP,DC=example?certificateRevocationList?base"
	freshest := issue(t, ca, "cache.example", func(c *x509.Certificate) {
		asking(serial, nil, []string{own})(c)
		c.ExtraExtensions = []pkix.Extension{{Id: oidFreshest, Value: []byte{0x30, 0}}}
	})
	empty := issue(t, ca, "cache.example", func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: oidPoints, Value: []byte{0x30, 0}}}
	})
	tests := []struct {
		name string
		leaf *x509.Certificate
		want []string
	}{
		{"one", issue(t, ca, "cache.example", asking(serial, nil, []string{own})).Certificate, []string{"good"}},
		{"LDAP only, as AD CS has it", issue(t, ca, "cache.example", asking(serial, nil, []string{adcs})).Certificate, []string{"ldap:///CN=Issuing%20CA", "AD CS", "an address that begins with http://"}},
		{"LDAP first", issue(t, ca, "cache.example", asking(serial, nil, []string{adcs, own})).Certificate, []string{"good", "ldap:///"}},
		{"a second that works", issue(t, ca, "cache.example", asking(serial, nil, []string{"http://gone.example/", own})).Certificate, []string{"good", "no such host"}},
		{"LDAP and HTTP in one point", points("s\n[s]\nfullname=URI:" + strings.ReplaceAll(adcs, ",", "%2C") + ",URI:" + own + "\n"), []string{"good", "ldap:///"}},
		{"an indirect list", points("s\n[s]\nfullname=URI:" + own + "\nCRLissuer=dirName:i\n[i]\nCN=Somebody\n"), []string{"another than the CA signs"}},
		{"a name in a directory", points("s\n[s]\nfullname=dirName:r\n[r]\nCN=list\n"), []string{"a distribution point without an address"}},
		{"some reasons", points("s\n[s]\nfullname=URI:" + own + "\nreasons=keyCompromise\n"), []string{"a list for some reasons of revocation only"}},
		{"delta lists", freshest.Certificate, []string{"good", "delta lists"}},
		{"none in the extension", empty.Certificate, []string{"nobody who was asked"}},
	}
	for _, tt := range tests {
		c := New(Options{Transport: answering{own: crl(t, ca, nil)}})
		a, err := c.CRL(t.Context(), tt.leaf, ca.Certificate)
		if tt.want[0] != "good" {
			unknownBecause(t, tt.name, a, err, tt.want...)
			continue
		}
		if err != nil || a.Status != Good || len(a.Problems) != len(tt.want)-1 || len(tt.want) > 1 && !strings.Contains(a.Problems[0], tt.want[1]) {
			t.Errorf("%s: got %+v, %v", tt.name, a, err)
		}
	}
	broken := *freshest.Certificate
	broken.Extensions = []pkix.Extension{{Id: oidPoints, Value: []byte{0x30, 0x80}}}
	a, err := New(Options{}).CRL(t.Context(), &broken, ca.Certificate)
	unknownBecause(t, "unreadable", a, err, "distribution points that cannot be read")
}

// TestHugeList: a list that is larger than lists may be is not read.
func TestHugeList(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	s := newServer(t)
	huge := s.handle("/huge", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, zeros{}, mostCRL+1) })
	leaf := issue(t, ca, "cache.example", asking(7, nil, []string{huge}))
	a, err := New(Options{}).CRL(t.Context(), leaf.Certificate, ca.Certificate)
	unknownBecause(t, "huge", a, err, "more than 32 MiB")
}

// TestLongListIsCheap: entries cost no memory but their bytes. Not parallel:
// allocations are counted for the whole process.
func TestLongListIsCheap(t *testing.T) {
	ca := newCA(t)
	const n = 100_000
	der := crl(t, ca, func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = make([]x509.RevocationListEntry, n)
		for i := range l.RevokedCertificateEntries {
			l.RevokedCertificateEntries[i] = x509.RevocationListEntry{SerialNumber: big.NewInt(int64(i) + 1), RevocationTime: revokedAt, ReasonCode: 1}
		}
	})
	last := &x509.Certificate{SerialNumber: big.NewInt(n)}
	allocations := testing.AllocsPerRun(2, func() {
		l, err := parseList(der)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := l.find(serialContent(last)); err != nil || e == nil {
			t.Fatalf("%v, %v", e, err)
		}
	})
	if allocations > 1000 {
		t.Errorf("%v allocations for %d entries", allocations, n)
	}
}

// TestReadsAsGo: a list is read as crypto/x509 reads it, which keeps all
// entries.
func TestReadsAsGo(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	rapid.Check(t, func(rt *rapid.T) {
		serials := rapid.SliceOfDistinct(rapid.Int64Range(1, 1<<62), rapid.ID).Draw(rt, "serials")
		late := rapid.Bool().Draw(rt, "after 2049")
		der := crl(t, ca, func(l *x509.RevocationList) {
			for i, n := range serials {
				when := time.Now().UTC().Truncate(time.Second).Add(time.Duration(-i) * time.Hour)
				if late {
					when = when.AddDate(30, 0, 0)
				}
				l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: when, ReasonCode: i % 11})
			}
		})
		want, err := x509.ParseRevocationList(der)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := parseList(der)
		if err != nil {
			rt.Fatal(err)
		}
		if err := got.signedBy(ca.Certificate); err != nil {
			rt.Fatal(err)
		}
		if !got.head.NextUpdate.Equal(want.NextUpdate) || got.head.Number.Cmp(want.Number) != 0 || string(got.tbs) != string(want.RawTBSRevocationList) {
			rt.Fatal("another head")
		}
		for _, w := range want.RevokedCertificateEntries {
			e, err := got.find(serialContent(&x509.Certificate{SerialNumber: w.SerialNumber}))
			if err != nil || e == nil || !e.at.Equal(w.RevocationTime) || e.reason != w.ReasonCode {
				rt.Fatalf("%x: got %+v, %v; want %+v", w.SerialNumber, e, err, w)
			}
		}
		for range 3 {
			n := rapid.Int64Range(1, 1<<62).Draw(rt, "another")
			e, err := got.find(serialContent(&x509.Certificate{SerialNumber: big.NewInt(n)}))
			if err != nil || (e != nil) != contains(want, n) {
				rt.Fatalf("%x: got %+v, %v", n, e, err)
			}
		}
	})
}

func contains(l *x509.RevocationList, n int64) bool {
	for _, e := range l.RevokedCertificateEntries {
		if e.SerialNumber.Int64() == n {
			return true
		}
	}
	return false
}

// FuzzList: what is read here is read by crypto/x509 too, with the same
// entries, and nothing is believed that the CA did not sign.
func FuzzList(f *testing.F) {
	ca := newCA(f)
	real := map[string]bool{}
	for _, der := range [][]byte{crl(f, ca, nil), crl(f, ca, nil, 1, 0x1001, 1<<40), crl(f, ca, ext(oidScope, true, []byte{0x30, 0}))} {
		f.Add(der)
		l, err := x509.ParseRevocationList(der)
		if err != nil {
			f.Fatal(err)
		}
		real[string(l.RawTBSRevocationList)] = true
	}
	leaf := issue(f, ca, "cache.example", number(0x1001)).Certificate
	f.Fuzz(func(t *testing.T, der []byte) {
		l, err := parseList(der)
		if err != nil {
			return
		}
		if l.signedBy(ca.Certificate) == nil && !real[string(l.tbs)] {
			t.Errorf("believed: %x", der)
		}
		e, err := l.find(serialContent(leaf))
		if err != nil {
			return // its time is none
		}
		_, _ = inScope("CRL x", l, distribution{}, leaf)
		whole, err := x509.ParseRevocationList(der)
		if err == nil && (e != nil) != contains(whole, 0x1001) {
			t.Errorf("found %+v; crypto/x509 has %v", e, whole.RevokedCertificateEntries)
		}
	})
}
