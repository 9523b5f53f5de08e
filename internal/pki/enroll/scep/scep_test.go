package scep

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
)

func TestAlgorithmsAreTheBestThatTheServerOffers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, caps     string
		cipher, digest string
		method         string
		legacy         bool
	}{
		{"the standard's", "SCEPStandard", "AES-128", "SHA-256", "POST", false},
		{"modern", capsModern, "AES-128", "SHA-256", "POST", false},
		{"NDES", capsNDES, "3DES", "SHA-256", "POST", true},
		{"SHA-512 alone", "AES\nSHA-512\n", "AES-128", "SHA-512", "GET", false},
		{"old", "DES3\nSHA-1\n", "3DES", "SHA-1", "GET", true},
		{"older than capabilities", "", "3DES", "SHA-1", "GET", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := newNDES(t)
			n.caps = test.caps
			if test.legacy {
				n.cipher = tripleDES()
			}
			var log strings.Builder
			s := signer(t, Config{URL: n.url, Challenge: word, Fingerprint: thumbprint(n.ca), Log: slog.New(slog.NewTextHandler(&log, nil))})
			csr, key := rsaRequest(t, host)
			chain, err := s.Sign(t.Context(), csr, key, nil)
			wantCert(t, chain, err, csr, 1)
			m := n.message(0)
			able := parseCapabilities([]byte(test.caps))
			if able.cipher().name != test.cipher || !m.cipher.Equal(able.cipher().oid) || able.digest().name != test.digest || !m.digest.Equal(able.digest().oid) || m.method != test.method {
				t.Errorf("%s with %s and %s; want %s, %s, %s", m.method, m.cipher, m.digest, test.method, test.cipher, test.digest)
			}
			if m.challenge != word {
				t.Errorf("the challenge arrived as %q", m.challenge)
			}
			if warned := strings.Contains(log.String(), "none but old algorithms"); warned != test.legacy {
				t.Errorf("warned %v: %s", warned, log.String())
			}
		})
	}
}

func TestRenewalIsSignedByTheCurrentCertificate(t *testing.T) {
	t.Parallel()
	n := newNDES(t)
	s := signer(t, Config{URL: n.url, Challenge: word, Fingerprint: thumbprint(n.ca)})
	csr, key := rsaRequest(t, host)
	chain, err := s.Sign(t.Context(), csr, key, nil)
	current := wantCert(t, chain, err, csr, 1)
	current.Key = key
	chain, err = s.Sign(t.Context(), csr, key, current)
	wantCert(t, chain, err, csr, 1)
	if got := n.seen(); got != "[19+challenge][17]" || !n.message(1).signer.Equal(current.Chain[0]) {
		t.Errorf("the server saw %s, the last signed by %s", got, n.message(1).signer.Issuer)
	}

	// A one-time challenge that was used up is no hindrance, and one that the
	// server wants is given.
	for _, accept := range []int{1, 2, 3} {
		n.decide = func(count int, _ *asked) decision {
			if count < 2+accept {
				return decision{status: failure, failInfo: "2"}
			}
			return decision{status: success}
		}
		n.keep(2)
		chain, err = s.Sign(t.Context(), csr, key, current)
		wantCert(t, chain, err, csr, 1)
		if want := "[19+challenge][17]" + strings.Join([]string{"[17]", "[17+challenge]", "[19+challenge]"}[:accept], ""); n.seen() != want {
			t.Errorf("the server saw %s, want %s", n.seen(), want)
		}
	}
}

func TestNodesComeBackWithTheChallenge(t *testing.T) {
	t.Parallel()
	n := newNDES(t)
	other := issue(t, caTemplate("Another CA"), nil, n.sigKey.Public(), n.sigKey)
	csr, key := rsaRequest(t, host)
	leaf := func(change func(*x509.Certificate), public crypto.PublicKey) *x509.Certificate {
		template := &x509.Certificate{Subject: pkix.Name{CommonName: host}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour)}
		parent, by := n.ca, n.caKey
		if change != nil {
			change(template)
		} else {
			parent, by = other, n.sigKey
		}
		return issue(t, template, parent, public, by)
	}
	same := func(*x509.Certificate) {}
	_, ecKey := request(t, keys.EC, host)
	for why, current := range map[string]*signing.Current{
		"nothing":           nil,
		"expired":           {Chain: []*x509.Certificate{leaf(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }, key.Public())}, Key: key},
		"not yet valid":     {Chain: []*x509.Certificate{leaf(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, key.Public())}, Key: key},
		"of another CA":     {Chain: []*x509.Certificate{leaf(nil, key.Public())}, Key: key},
		"of ECDSA":          {Chain: []*x509.Certificate{leaf(same, ecKey.Public())}, Key: ecKey},
		"with another key":  {Chain: []*x509.Certificate{leaf(same, n.encKey.Public())}, Key: key},
		"without its key":   {Chain: []*x509.Certificate{leaf(same, key.Public())}},
		"an empty chain":    {Key: key},
		"no renewals known": {Chain: []*x509.Certificate{leaf(same, key.Public())}, Key: key},
	} {
		n.keep(0)
		n.caps = capsModern
		if why == "no renewals known" {
			n.caps = "SCEPStandard"
		}
		chain, err := signer(t, Config{URL: n.url, Fingerprint: thumbprint(n.ca), Challenge: word}).Sign(t.Context(), csr, key, current)
		wantCert(t, chain, err, csr, 1)
		if got := n.seen(); got != "[19+challenge]" {
			t.Errorf("%s: the server saw %s", why, got)
		}
	}
}

func TestApproval(t *testing.T) {
	t.Parallel()
	n := newNDES(t)
	verdict, after := success, 3
	n.decide = func(count int, _ *asked) decision {
		if count <= after {
			return decision{status: pending}
		}
		return decision{status: verdict, failInfo: "2", text: "not one of ours"}
	}
	s := signer(t, Config{URL: n.url, Fingerprint: thumbprint(n.ca), Challenge: word, PollEvery: time.Millisecond, PollFor: time.Minute})
	for _, algorithm := range []string{keys.RSA, keys.EC} {
		n.keep(0)
		csr, key := rsaRequest(t, host)
		if algorithm == keys.EC {
			csr, key = request(t, algorithm, host)
		}
		chain, err := s.Sign(t.Context(), csr, key, nil)
		wantCert(t, chain, err, csr, 1)
		if got := n.seen(); got != "[19+challenge][20][20][20]" {
			t.Errorf("the server saw %s", got)
		}
	}

	// Not in time: later, and then the question is not put anew.
	n.keep(0)
	after = 1000
	csr, key := rsaRequest(t, host)
	s = signer(t, Config{URL: n.url, Fingerprint: thumbprint(n.ca), Challenge: word, PollEvery: time.Millisecond, PollFor: time.Microsecond})
	_, err := s.Sign(t.Context(), csr, key, nil)
	wantWords(t, err, "waits for somebody's approval", "approve it at the CA")
	if at, ok := signing.NotBefore(err); !ok || time.Until(at) < 59*time.Minute || signing.IsRefused(err) {
		t.Errorf("come again at %v, %v", at, ok)
	}
	after = 0
	chain, err := s.Sign(t.Context(), csr, key, nil)
	wantCert(t, chain, err, csr, 1)
	if got := n.seen(); got != "[19+challenge][20][20]" {
		t.Errorf("the server saw %s", got)
	}

	// Turned down: somebody has to act, and then it is a new question.
	n.keep(0)
	after, verdict = 1, failure
	_, err = s.Sign(t.Context(), csr, key, nil)
	wantRefused(t, err, "badRequest", "saying: not one of ours")
	n.keep(0)
	after, verdict = 0, success
	chain, err = s.Sign(t.Context(), csr, key, nil)
	wantCert(t, chain, err, csr, 1)
	if got := n.seen(); got != "[19+challenge]" {
		t.Errorf("the server saw %s", got)
	}
}

func TestWaitingForApprovalEndsWithItsContext(t *testing.T) {
	t.Parallel()
	n := newNDES(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the node stops")
	n.decide = func(count int, _ *asked) decision {
		if count == 2 {
			cancel(why)
		}
		return decision{status: pending}
	}
	csr, key := rsaRequest(t, host)
	_, err := signer(t, Config{URL: n.url, PollEvery: time.Hour, PollFor: 3 * time.Hour}).Sign(ctx, csr, key, nil)
	if !errors.Is(err, why) {
		t.Errorf("%v, want %v", err, why)
	}
}

func TestRefusalsInWords(t *testing.T) {
	t.Parallel()
	n := newNDES(t)
	csr, key := rsaRequest(t, host)
	s := signer(t, Config{URL: n.url, Fingerprint: thumbprint(n.ca), Challenge: word})
	for info, words := range map[string]string{
		"0": "badAlg", "1": "badMessageCheck", "2": "badRequest", "3": "badTime", "4": "badCertID", "77": `did not name ("77")`, "": "did not name",
	} {
		n.decide = func(int, *asked) decision { return decision{failure, info, "see\nline 2"} }
		_, err := s.Sign(t.Context(), csr, key, nil)
		wantRefused(t, err, "SCEP request", words, "saying: see line 2", "next:")
	}
}

func TestWrongReplies(t *testing.T) {
	t.Parallel()
	csr, key := rsaRequest(t, host)
	_, otherKey := request(t, keys.EC, host)
	for _, test := range []struct {
		name    string
		change  func(n *ndes, a *answer)
		refused bool
		words   string
	}{
		{"by somebody else", func(n *ndes, a *answer) {
			a.by, a.byKey = issue(n.t, caTemplate("Enterprise CA"), nil, n.encKey.Public(), n.encKey), n.encKey
		}, false, "a signature that is not the CA's"},
		{"by somebody with the CA's key alone", func(n *ndes, a *answer) { a.byKey = n.encKey }, false, "a signature that is not the CA's"},
		{"to another question", func(_ *ndes, a *answer) { a.nonce = []byte("sixteen letters!") }, false, "the answer to another question"},
		{"of another transaction", func(_ *ndes, a *answer) { a.id = "another" }, false, "the answer to another question"},
		{"of another kind", func(_ *ndes, a *answer) { a.kind = "19" }, false, `a message of type "19"`},
		{"of no status", func(_ *ndes, a *answer) { a.status = "7" }, false, `a status of "7"`},
		{"success with nothing", func(_ *ndes, a *answer) { a.cert = nil }, false, "a certificate that cannot be decrypted"},
		{"encrypted to another", func(n *ndes, a *answer) { a.to = n.enc }, false, "a certificate that cannot be decrypted"},
		{"not certificates", func(n *ndes, a *answer) {
			a.sealed = must(seal([]byte("hello"), a.to, aesCBC()))
		}, false, "SCEP answer"},
		{"for another key", func(n *ndes, a *answer) {
			a.cert = issue(n.t, &x509.Certificate{Subject: pkix.Name{CommonName: host}}, n.ca, otherKey.Public(), n.caKey)
		}, true, "issued certificate: public key"},
		{"a CA", func(n *ndes, a *answer) { a.cert = issue(n.t, caTemplate(host), n.ca, key.Public(), n.caKey) }, true, "a CA certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := newNDES(t)
			n.change = func(a *answer) { test.change(n, a) }
			_, err := signer(t, Config{URL: n.url, Fingerprint: thumbprint(n.ca), Challenge: word}).Sign(t.Context(), csr, key, nil)
			wantWords(t, err, test.words)
			if signing.IsRefused(err) != test.refused {
				t.Errorf("%v: refused %v", err, !test.refused)
			}
		})
	}
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

func TestAnswersThatAreNoneOfSCEP(t *testing.T) {
	t.Parallel()
	csr, key := rsaRequest(t, host)
	for _, test := range []struct {
		name    string
		status  int
		header  http.Header
		body    string
		refused bool
		words   []string
	}{
		{"garbage", 200, nil, "\x30\x80\x30\x80", false, []string{"SCEP answer", "no PKCS#7 message"}},
		{"nothing", 200, nil, "", false, []string{"SCEP answer", "no PKCS#7 message"}},
		{"too much", 200, nil, strings.Repeat("A", maxAnswer+1), false, []string{"more than 64 KiB"}},
		{"deep", 200, nil, strings.Repeat("\x30\x80", maxAnswer/2), false, []string{"no PKCS#7 message"}},
		{"an echo", 500, nil, "challenge " + word + " is wrong", false, []string{"500", "challenge (secret) is wrong"}},
		{"a page", 500, http.Header{"Content-Type": {"text/html"}}, "<title>Server Error</title>", false, []string{"(Server Error)"}},
		{"another page", 503, http.Header{"Content-Type": {"text/html"}, "Retry-After": {"90"}}, "<p>", false, []string{"503", "(a web page)", "not before"}},
		{"forbidden", 403, nil, "", true, []string{"403", "SCEP itself has no user"}},
		{"moved", 301, http.Header{"Location": {"https://ca.example/scep"}}, "", true, []string{"https://ca.example/scep", "use the address"}},
		{"gone", 410, nil, "", true, []string{"410", "the address is right"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := newNDES(t)
			n.body = func(w http.ResponseWriter) bool {
				for k, v := range test.header {
					w.Header()[k] = v
				}
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
				return true
			}
			_, err := signer(t, Config{URL: n.url, Fingerprint: thumbprint(n.ca), Challenge: word}).Sign(t.Context(), csr, key, nil)
			wantWords(t, err, test.words...)
			if signing.IsRefused(err) != test.refused {
				t.Errorf("%v: refused %v", err, !test.refused)
			}
		})
	}
	_, err := signer(t, Config{URL: "http://127.0.0.1:1/scep"}).Sign(t.Context(), csr, key, nil)
	wantWords(t, err, "SCEP GetCACaps: found no answer from http://127.0.0.1:1/scep", "see that the server is up")
	_, err = signer(t, Config{URL: "http://127.0.0.1:1/scep"}).Sign(t.Context(), []byte("none"), key, nil)
	wantRefused(t, err, "certificate request")
	_, err = signer(t, Config{URL: "http://127.0.0.1:1/scep"}).Sign(t.Context(), csr, rsaKeys()[0], nil)
	wantRefused(t, err, "the public key of another pair")
	ed, edKey := request448(t)
	_, err = signer(t, Config{URL: "http://127.0.0.1:1/scep"}).Sign(t.Context(), ed, edKey, nil)
	wantRefused(t, err, "SCEP request: found an Ed448 key")
}

func TestWhichCertificateIsForWhat(t *testing.T) {
	t.Parallel()
	n := newNDES(t)
	made := rsaKeys()
	_, ecKey := request(t, keys.EC, host)
	sub := issue(t, caTemplate("Sub"), n.ca, made[3].Public(), n.caKey)
	ecCA := issue(t, caTemplate("EC"), nil, ecKey.Public(), ecKey)
	plain := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "RA"}}, n.ca, made[3].Public(), n.caKey)
	forTLS := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "anybody"}, KeyUsage: x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, n.ca, made[3].Public(), n.caKey)
	agent := func(change func(*x509.Certificate)) *x509.Certificate {
		c := &x509.Certificate{Subject: pkix.Name{CommonName: "RA"}, KeyUsage: x509.KeyUsageKeyEncipherment, UnknownExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 28}}}
		change(c)
		return issue(t, c, n.ca, made[3].Public(), n.caKey)
	}
	now := time.Now()
	cmc := agent(func(c *x509.Certificate) { c.KeyUsage = 0 })
	over := agent(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-2*time.Hour), now.Add(-time.Hour) })
	early := agent(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(time.Hour), now.Add(2*time.Hour) })
	anyUsage := agent(func(c *x509.Certificate) {
		c.UnknownExtKeyUsage, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	})
	files := agent(func(c *x509.Certificate) {
		c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 311, 10, 3, 4}} // EFS
	})
	stranger := issue(t, caTemplate("Enterprise CA"), nil, made[3].Public(), made[3])
	strangerRA := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "RA"}, KeyUsage: x509.KeyUsageKeyEncipherment, UnknownExtKeyUsage: cmc.UnknownExtKeyUsage}, stranger, made[3].Public(), made[3])
	for _, test := range []struct {
		name      string
		certs     []*x509.Certificate
		by        *x509.Certificate // whose fingerprint
		recipient *x509.Certificate // nil: refused
		issuer    *x509.Certificate
		signers   int
		words     string
	}{
		{"the CA alone", []*x509.Certificate{n.ca}, n.ca, n.ca, n.ca, 1, ""},
		{"NDES", []*x509.Certificate{n.sig, n.ca, n.enc}, n.ca, n.enc, n.ca, 3, ""},
		{"NDES in another order", []*x509.Certificate{n.enc, n.sig, n.ca}, nil, n.enc, n.ca, 3, ""},
		{"NDES with somebody among them", []*x509.Certificate{n.sig, n.ca, n.enc, anyUsage}, n.ca, n.enc, n.ca, 3, ""},
		{"the RA's own fingerprint", []*x509.Certificate{n.enc, n.sig, n.ca}, n.enc, n.enc, n.ca, 1, ""},
		{"a chain", []*x509.Certificate{n.ca, sub}, n.ca, sub, sub, 2, ""},
		{"a chain by its lower end", []*x509.Certificate{n.ca, sub}, sub, sub, sub, 1, ""},
		{"an RA by the standard's usage, without key usage", []*x509.Certificate{n.ca, cmc}, n.ca, cmc, n.ca, 2, ""},
		{"an RA that has ended", []*x509.Certificate{n.ca, over}, n.ca, nil, nil, 0, "valid now"},
		{"an RA that has not begun", []*x509.Certificate{n.ca, early}, n.ca, nil, nil, 0, "valid now"},
		{"what has ended, by its own fingerprint", []*x509.Certificate{n.ca, over}, over, over, n.ca, 1, ""},
		{"somebody without usages", []*x509.Certificate{n.ca, plain}, n.ca, nil, nil, 0, "CN=RA"},
		{"somebody for every usage", []*x509.Certificate{n.ca, anyUsage}, n.ca, nil, nil, 0, "CN=RA"},
		{"somebody for encrypted files", []*x509.Certificate{n.ca, files}, n.ca, nil, nil, 0, "CN=RA"},
		{"an EC CA with an RSA RA", []*x509.Certificate{ecCA, plain}, nil, plain, plain, 2, ""},
		{"EC alone", []*x509.Certificate{ecCA}, nil, nil, nil, 0, "no certificate with an RSA key"},
		{"another fingerprint", []*x509.Certificate{n.ca}, sub, nil, nil, 0, "somebody else answers for the CA"},
		{"an RA that could be anybody", []*x509.Certificate{n.ca, forTLS}, n.ca, nil, nil, 0, "CN=anybody"},
		{"the same by its own fingerprint", []*x509.Certificate{n.ca, forTLS}, forTLS, forTLS, n.ca, 1, ""},
		{"an RA of another CA with the same name", []*x509.Certificate{n.ca, strangerRA}, n.ca, nil, nil, 0, "does not stand for"},
		{"an RA of the CA above", []*x509.Certificate{n.enc, n.ca, sub}, sub, nil, nil, 0, "does not stand for"},
	} {
		var fingerprint []byte
		if test.by != nil {
			sum := sha256.Sum256(test.by.Raw)
			fingerprint = sum[:]
		}
		ca, err := choose(test.certs, fingerprint, now)
		if test.recipient == nil {
			wantRefused(t, err, test.words)
			continue
		}
		if err != nil || ca.recipient != test.recipient || ca.issuer != test.issuer || len(ca.signers) != test.signers {
			t.Errorf("%s: %v, %+v", test.name, err, ca)
		}
	}
}
