package revocation

import (
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"
)

// TestSHA1IsNotGood: what is signed with SHA-1 counts if it says revoked.
func TestSHA1IsNotGood(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	const serial, list, responder = 0x1001, "http://list.example/", "http://ocsp.example/"
	weakList := func(l *x509.RevocationList) { l.SignatureAlgorithm = x509.ECDSAWithSHA1 }
	weakAnswer := func(status int) func(*ocsp.Response) {
		return func(r *ocsp.Response) { r.Status, r.SignatureAlgorithm = status, x509.ECDSAWithSHA1 }
	}
	weakResponder := issue(t, ca, "Responder", func(c *x509.Certificate) {
		c.ExtKeyUsage, c.SignatureAlgorithm = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, x509.ECDSAWithSHA1
	})
	leaf := issue(t, ca, "cache.example", asking(serial, []string{responder}, []string{list})).Certificate
	for _, tt := range []struct {
		name, url string
		der       []byte
		want      Status
	}{
		{"a list without it", list, crl(t, ca, weakList, 7), Unknown},
		{"a list with it", list, crl(t, ca, weakList, serial), Revoked},
		{"good", responder, response(t, ca, nil, serial, weakAnswer(ocsp.Good)), Unknown},
		{"revoked", responder, response(t, ca, nil, serial, weakAnswer(ocsp.Revoked)), Revoked},
		{"a responder whose certificate is", responder, response(t, ca, weakResponder, serial, nil), Unknown},
	} {
		c := New(Options{Transport: answering{tt.url: tt.der}})
		a, err := c.CRL(t.Context(), leaf, ca.Certificate)
		if tt.url == responder {
			a, err = c.OCSP(t.Context(), leaf, ca.Certificate)
		}
		if tt.want == Unknown {
			unknownBecause(t, tt.name, a, err, "signed with SHA-1 (ECDSA-SHA1)", "SHA-256 or better")
		} else if err != nil || a.Status != tt.want || len(a.Problems) != 1 || !strings.Contains(a.Problems[0], "signed with SHA-1") {
			t.Errorf("%s: %+v, %v", tt.name, a, err)
		}
	}
}

// TestMD5IsNothing: not even revoked.
func TestMD5IsNothing(t *testing.T) {
	t.Parallel()
	o := newOpenSSL(t, newCA(t))
	o.run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-subj", "/CN=Issuing CA", "-days", "2", "-out", "ca.pem", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
	text, err := os.ReadFile(filepath.Join(o.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	o.index("R 1002 superseded")
	for digest, want := range map[string]Status{"sha256": Revoked, "md5": Unknown} {
		list := o.crl("-crldays", "1", "-md", digest)
		url := o.responder("ca", "-ndays", "1", "-rmd", digest, "-resp_no_certs")
		leaf := &x509.Certificate{SerialNumber: big.NewInt(0x1002), RawIssuer: ca.RawSubject, OCSPServer: []string{url}}
		if a, err := New(Options{}).OCSP(t.Context(), leaf, ca); a.Status != want || (err == nil) != (want == Revoked) {
			t.Errorf("OCSP with %s: %+v, %v", digest, a, err)
		}
		if _, p := readList("CRL x", list, ca, time.Now()); (p == nil) != (want == Revoked) {
			t.Errorf("CRL with %s: %v", digest, p)
		}
	}
}

// TestOldListsAreNotTakenAgain: a list that was replaced, put in the place of
// the new one, does not make anything good.
func TestOldListsAreNotTakenAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t)
		made := func(number, from int, revoked ...int64) []byte {
			begin := time.Now().Add(time.Duration(from) * time.Minute)
			return crl(t, ca, func(l *x509.RevocationList) {
				l.Number, l.ThisUpdate, l.NextUpdate = big.NewInt(int64(number)), begin, begin.Add(24*time.Hour)
			}, revoked...)
		}
		const url = "http://list.example/"
		leaf := issue(t, ca, "cache.example", asking(7, nil, []string{url})).Certificate
		web := answering{url: made(5, -10, 7)}
		c := New(Options{Transport: web})
		look := func(what string, want Status, problem string) {
			t.Helper()
			a, err := c.CRL(t.Context(), leaf, ca.Certificate)
			all := strings.Join(a.Problems, "\n")
			if a.Status != want || problem == "" && len(a.Problems) > 0 || !strings.Contains(all, problem) {
				t.Errorf("%s: %+v, %v; want %s and a word of %q", what, a, err, want, problem)
			}
		}
		old, renumbered := made(4, -10), made(6, -20)
		look("the first", Revoked, "")
		for what, der := range map[string][]byte{"a lower number": old, "an earlier time": renumbered} {
			time.Sleep(longestHeld + time.Second)
			web[url] = der
			look(what, Revoked, "an older list than before")
			look(what+", held", Revoked, "an older list than before")
		}
		// Nor after there was nothing for a while.
		delete(web, url)
		time.Sleep(longestHeld)
		look("nothing", Unknown, "no such host")
		time.Sleep(failedFor + time.Second)
		web[url] = old
		look("a lower number after nothing", Revoked, "an older list than before")
		// A newer one is taken, and so is one of a CA that began anew, once the
		// one at hand does not count any more.
		time.Sleep(failedFor + time.Second)
		web[url] = made(6, 0)
		look("a newer one", Good, "")
		time.Sleep(25 * time.Hour)
		web[url] = made(1, 0, 7)
		look("numbered anew", Revoked, "")
	})
}
