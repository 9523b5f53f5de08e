package revocation

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"larder/internal/pki/problem"
)

// TestOpenSSLResponder: what a real responder says is understood, signed by
// the CA itself or by one that it appointed.
func TestOpenSSLResponder(t *testing.T) {
	t.Parallel()
	root := issue(t, nil, "Root", asCA)
	ca := issue(t, root, "Issuing CA", asCA) // not self-signed: its own certificate in a response proves nothing
	o := newOpenSSL(t, ca)
	o.index("V 1001", "R 1002 keyCompromise", "R 1003 superseded", "R 1004 certificateHold", "R 1005", "V 00F0")
	appointed := issue(t, ca, "Responder", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} })
	o.keep("responder", appointed)
	other := newCA(t)
	tests := []struct {
		name, url string
	}{
		{"the CA, with its certificate", o.responder("ca", "-ndays", "1")},
		{"the CA, without", o.responder("ca", "-ndays", "1", "-resp_no_certs")},
		{"a responder that the CA appointed", o.responder("responder", "-nmin", "30", "-resp_key_id")},
	}
	for _, tt := range tests {
		for _, want := range []struct {
			serial int64
			status Status
			reason string
		}{
			{0x1001, Good, ""},
			{0xF0, Good, ""},
			{0x1002, Revoked, "key compromise"},
			{0x1003, Revoked, "superseded"},
			{0x1004, Revoked, "certificate hold"},
			{0x1005, Revoked, "unspecified"},
		} {
			leaf := issue(t, ca, "cache.example", asking(want.serial, []string{tt.url}, nil))
			a, err := New(Options{}).OCSP(t.Context(), leaf.Certificate, ca.Certificate)
			if err != nil || a.Status != want.status || a.Reason != want.reason || a.Source != "OCSP "+tt.url || len(a.Problems) > 0 {
				t.Errorf("%s, %x: got %+v, %v; want %s %s", tt.name, want.serial, a, err, want.status, want.reason)
				continue
			}
			if want.status == Revoked && (!a.RevokedAt.Equal(revokedAt) || a.Staple != nil) {
				t.Errorf("%s, %x: revoked at %s, with a staple %v", tt.name, want.serial, a.RevokedAt, a.Staple != nil)
			}
			if want.status == Good {
				stapleWorks(t, o, leaf, ca, a.Staple)
			}
			if left := time.Until(a.NextUpdate); left < 25*time.Minute || left > 25*time.Hour {
				t.Errorf("%s: the answer counts for %s", tt.name, left)
			}
		}
		leaf := issue(t, ca, "cache.example", asking(0x9999, []string{tt.url}, nil))
		a, err := New(Options{}).OCSP(t.Context(), leaf.Certificate, ca.Certificate)
		if err == nil || a.Status != Unknown || !strings.Contains(err.Error(), "does not know this certificate") {
			t.Errorf("%s: a number that is not in the book: %+v, %v", tt.name, a, err)
		}
		// The responder does not work for this CA.
		stranger := issue(t, other, "cache.example", asking(0x1001, []string{tt.url}, nil))
		if a, err := New(Options{}).OCSP(t.Context(), stranger.Certificate, other.Certificate); err == nil || a.Status != Unknown {
			t.Errorf("%s: of another CA: %+v, %v", tt.name, a, err)
		}
	}
	// Without an end, an answer of now counts, and is not for stapling.
	leaf := issue(t, ca, "cache.example", asking(0x1001, []string{o.responder("ca")}, nil))
	a, err := New(Options{}).OCSP(t.Context(), leaf.Certificate, ca.Certificate)
	if err != nil || a.Status != Good || a.Staple != nil || !a.NextUpdate.IsZero() {
		t.Errorf("an answer without an end: %+v, %v", a, err)
	}
	leaf = issue(t, ca, "cache.example", asking(0x1001, []string{o.responder("ca", "-ndays", "1", "-badsig")}, nil))
	if a, err := New(Options{}).OCSP(t.Context(), leaf.Certificate, ca.Certificate); err == nil || a.Status != Unknown {
		t.Errorf("a damaged signature: %+v, %v", a, err)
	}
}

// stapleWorks has openssl, as a TLS client, judge the staple.
func stapleWorks(t *testing.T, o *openssl, leaf, ca *made, staple []byte) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, ca.Raw}, PrivateKey: leaf.key, OCSPStaple: staple}}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(io.Discard, conn) // the handshake, and until the client leaves
	})
	cmd := exec.CommandContext(t.Context(), "openssl", "s_client", "-connect", l.Addr().String(), "-status", "-CAfile", "ca.pem", "-partial_chain", "-verify_return_error")
	cmd.Dir = o.dir
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "OCSP Response Status: successful") || !strings.Contains(string(out), "Cert Status: good") {
		t.Errorf("openssl s_client: %v\n%s", err, out)
	}
}

// TestResponses: what must not be taken for an answer, each with its words.
func TestResponses(t *testing.T) {
	t.Parallel()
	ca, other := newCA(t), newCA(t) // of one name
	now := time.Now()
	responder := func(parent *made, change func(*x509.Certificate)) *made {
		return issue(t, parent, "Responder", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
			if change != nil {
				change(c)
			}
		})
	}
	const serial = 0x1001
	// A responder with one key for two CAs of one name: its answer about the
	// other's certificate, with the certificate that this one gave it, which no
	// signature covers.
	quoted := response(t, other, responder(ca, nil), serial, nil)

	tests := []struct {
		name string
		der  []byte
		want []string // words of the problem; none: Good
	}{
		{"good", response(t, ca, nil, serial, nil), nil},
		{"good, by a responder", response(t, ca, responder(ca, nil), serial, nil), nil},
		{"begins in four minutes: clocks differ", response(t, ca, nil, serial, func(r *ocsp.Response) { r.ThisUpdate = now.Add(4 * time.Minute) }), nil},
		{"over for four minutes: clocks differ", response(t, ca, nil, serial, func(r *ocsp.Response) {
			r.ThisUpdate, r.NextUpdate = now.Add(-time.Hour), now.Add(-4*time.Minute)
		}), nil},
		{"issuer named by SHA-256", response(t, ca, nil, serial, func(r *ocsp.Response) { r.IssuerHash = crypto.SHA256 }), nil},
		{"begins in an hour", response(t, ca, nil, serial, func(r *ocsp.Response) { r.ThisUpdate = now.Add(time.Hour) }), []string{"an answer: one that begins on", "clocks"}},
		{"over", response(t, ca, nil, serial, func(r *ocsp.Response) {
			r.ThisUpdate, r.NextUpdate = now.Add(-time.Hour), now.Add(-6*time.Minute)
		}), []string{"an answer: an old one, which counted until", "not published anything new"}},
		{"without an end, of the day before yesterday", response(t, ca, nil, serial, func(r *ocsp.Response) {
			r.ThisUpdate, r.NextUpdate = now.Add(-48*time.Hour), time.Time{}
		}), []string{"does not say until when"}},
		{"revoked, and over", response(t, ca, nil, serial, func(r *ocsp.Response) {
			r.Status, r.ThisUpdate, r.NextUpdate = ocsp.Revoked, now.Add(-time.Hour), now.Add(-6*time.Minute)
		}), []string{"an old one"}},
		{"unknown", response(t, ca, nil, serial, func(r *ocsp.Response) { r.Status = ocsp.Unknown }), []string{"does not know this certificate"}},
		{"another number", response(t, ca, nil, 0x1002, nil), []string{"an answer that cannot be used", "no response matching"}},
		{"another CA of the same name", response(t, other, nil, serial, nil), []string{"an answer that the CA did not sign", "CN=Issuing CA"}},
		{"a responder of another CA of the same name", response(t, other, responder(other, nil), serial, nil), []string{"a responder, CN=Responder, whose certificate this CA did not issue"}},
		{"a certificate for something else", response(t, ca, responder(ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), serial, nil), []string{"whose certificate is not for OCSP", "1.3.6.1.5.5.7.3.9"}},
		{"a certificate for any purpose", response(t, ca, responder(ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), serial, nil), []string{"not for OCSP"}},
		{"a responder that is over", response(t, ca, responder(ca, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = now.Add(-48*time.Hour), now.Add(-24*time.Hour)
		}), serial, nil), []string{"whose certificate is valid from"}},
		{"a responder that works for two CAs, quoted about the other's", quoted, []string{"a certificate of another CA"}},
		{"unauthorized", ocsp.UnauthorizedErrorResponse, []string{"unauthorized"}},
		{"busy", ocsp.TryLaterErrorResponse, []string{"busy"}},
		{"refuses", ocsp.InternalErrorErrorResponse, []string{"refuses (internal error)"}},
		{"an error page", []byte("<html>Welcome to the hotel</html>"), []string{"cannot be used"}},
		{"nothing", nil, []string{"cannot be used"}},
		{"half", response(t, ca, nil, serial, nil)[:100], []string{"cannot be used"}},
	}
	s := newServer(t)
	c := New(Options{})
	for i, tt := range tests {
		url := s.serve("/"+string(rune('a'+i)), tt.der)
		leaf := issue(t, ca, "cache.example", asking(serial, []string{url}, nil))
		a, err := c.OCSP(t.Context(), leaf.Certificate, ca.Certificate)
		if tt.want == nil {
			if err != nil || a.Status != Good || len(a.Problems) > 0 {
				t.Errorf("%s: got %+v, %v; want good", tt.name, a, err)
			}
			if fresh := !strings.Contains(tt.name, "clocks"); fresh != bytes.Equal(a.Staple, tt.der) {
				t.Errorf("%s: stapled %v, want %v", tt.name, a.Staple != nil, fresh)
			}
			continue
		}
		unknownBecause(t, tt.name, a, err, append(tt.want, "OCSP "+url)...)
	}
}

// unknownBecause checks that nothing was learnt, and that the words say why.
func unknownBecause(t *testing.T, name string, a Answer, err error, words ...string) {
	t.Helper()
	p := (*problem.Problem)(nil)
	if a.Status != Unknown || a.Staple != nil || a.Source != "" || err == nil || !errors.As(err, &p) || len(a.Problems) == 0 {
		t.Errorf("%s: got %+v, %v; want that nothing was learnt", name, a, err)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) || !strings.Contains(strings.Join(a.Problems, "\n"), w) {
			t.Errorf("%s: %q lacks %q", name, err, w)
		}
	}
}

// TestPlaces: what can go wrong before there is an answer.
func TestPlaces(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	const serial = 0x1001
	good := response(t, ca, nil, serial, nil)
	s := newServer(t)
	goodURL := s.serve("/good", good)
	// The body is read first: only then does the server see that a client left.
	silent := s.handle("/silent", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	stalls := s.handle("/stalls", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(good[:10])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	huge := s.handle("/huge", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, zeros{}, mostOCSP+1) })
	elsewhere := s.handle("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, goodURL, http.StatusTemporaryRedirect)
	})
	loop := s.handle("/loop", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
	})
	toFile := s.handle("/file", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	asksRight := s.handle("/right", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		request, parseErr := ocsp.ParseRequest(body)
		if err != nil || parseErr != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/ocsp-request" || request.SerialNumber.Int64() != serial {
			t.Errorf("asked with %s %v %v %v", r.Method, r.Header, err, parseErr)
		}
		_, _ = w.Write(good)
	})
	gone := newServer(t)
	gone.Close()
	secret := strings.Replace(s.URL, "http://", "http://user:hunter2@", 1) + "/nothing"

	c := New(Options{})
	c.patience = 300 * time.Millisecond
	tests := []struct {
		name string
		urls []string
		want []string // of the problems; the status is Good if the first is "good"
	}{
		{"asked as RFC 6960 says", []string{asksRight}, []string{"good"}},
		{"silence", []string{silent}, []string{"nothing but silence for 300ms"}},
		{"stalls", []string{stalls}, []string{"nothing but silence for 300ms"}},
		{"more than it may be", []string{huge}, []string{"more than 1 MiB"}},
		{"not found", []string{s.URL + "/nothing"}, []string{"the HTTP status 404 Not Found"}},
		{"nobody there", []string{gone.URL}, []string{"no answer", "by its proxy"}},
		{"elsewhere", []string{elsewhere}, []string{"good"}},
		{"round and round", []string{loop}, []string{"more than 3 redirects"}},
		{"to a file", []string{toFile}, []string{`a redirect to "file:"`}},
		{"LDAP", []string{"ldap:///CN=CA,DC=example"}, []string{"ldap:///CN=CA,DC=example", "http://", "AD CS"}},
		{"no address", []string{"::what\x1b"}, []string{"::what?", "http://"}},
		{"a password is not told", []string{secret}, []string{"user:xxxxx@", "404"}},
		{"the second works", []string{s.URL + "/nothing", "ldap:///x", goodURL}, []string{"good", "404", "ldap:"}},
		{"no more than three are asked", []string{s.URL + "/n1", s.URL + "/n2", s.URL + "/n3", goodURL}, []string{"/n3"}},
	}
	for _, tt := range tests {
		leaf := issue(t, ca, "cache.example", asking(serial, tt.urls, nil))
		a, err := c.OCSP(t.Context(), leaf.Certificate, ca.Certificate)
		if strings.Contains(strings.Join(a.Problems, ""), "hunter2") {
			t.Errorf("%s: a password in %q", tt.name, a.Problems)
		}
		if tt.want[0] != "good" {
			unknownBecause(t, tt.name, a, err, tt.want...)
			continue
		}
		if err != nil || a.Status != Good || len(a.Problems) != len(tt.want)-1 {
			t.Errorf("%s: got %+v, %v", tt.name, a, err)
		}
		for i, w := range tt.want[1:] {
			if !strings.Contains(a.Problems[i], w) {
				t.Errorf("%s: %q lacks %q", tt.name, a.Problems[i], w)
			}
		}
	}

	leaf := issue(t, ca, "cache.example", asking(serial, []string{silent}, []string{silent}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a, err := c.OCSP(ctx, leaf.Certificate, ca.Certificate)
	unknownBecause(t, "ended before", a, err, "nobody who was asked", "context canceled")
	a, err = c.CRL(ctx, leaf.Certificate, ca.Certificate)
	unknownBecause(t, "ended before", a, err, "nobody who was asked", "context canceled")
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	a, err = c.OCSP(ctx, leaf.Certificate, ca.Certificate)
	unknownBecause(t, "ended while waiting", a, err, "no answer yet when the check was ended", "deadline")

	a, err = c.OCSP(t.Context(), leaf.Certificate, nil)
	unknownBecause(t, "no CA", a, err, "no certificate of the CA", "CN=Issuing CA")
	a, err = c.CRL(t.Context(), leaf.Certificate, issue(t, nil, "Somebody", asCA).Certificate)
	unknownBecause(t, "another CA", a, err, "the certificate of another CA, CN=Somebody", "CN=Issuing CA")
	if a, err := c.OCSP(t.Context(), ca.Certificate, ca.Certificate); err != nil || a.Status != NotOffered {
		t.Errorf("nobody is named: %+v, %v", a, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// FuzzOCSP: no bytes are taken for an answer that the CA did not give.
func FuzzOCSP(f *testing.F) {
	ca := newCA(f)
	leaf := issue(f, ca, "cache.example", number(0x1001)).Certificate
	responder := issue(f, ca, "Responder", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} })
	real := map[string]bool{}
	for _, der := range [][]byte{response(f, ca, nil, 0x1001, nil), response(f, ca, responder, 0x1001, nil), response(f, ca, nil, 0x1002, nil), ocsp.UnauthorizedErrorResponse} {
		f.Add(der)
		if res, err := ocsp.ParseResponse(der, nil); err == nil {
			real[string(res.TBSResponseData)] = true
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		a, p := readOCSP("OCSP x", der, leaf, ca.Certificate, time.Now())
		if p != nil {
			if a.Status != Unknown || p.Error() == "" {
				t.Errorf("%+v with %v", a, p)
			}
			return
		}
		res, err := ocsp.ParseResponse(der, nil)
		if err != nil || !real[string(res.TBSResponseData)] {
			t.Errorf("believed: %x", der)
		}
	})
}
