package est

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"larder/internal/pki/enroll/inquiry"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
)

const maxAnswer = 1 << 20 // bytes

// errNothing is that the address is none of the server's.
var errNothing = errors.New("there is nothing under this address")

// connectionError is that no answer came.
type connectionError struct{ problem *problem.Problem }

func (e *connectionError) Error() string { return e.problem.Error() }

func (e *connectionError) Unwrap() error { return e.problem }

// client speaks to a server that roots vouch for, with a certificate for
// itself or nil.
func (s *Signer) client(roots *x509.CertPool, cert *tls.Certificate) *http.Client {
	config := &tls.Config{
		RootCAs:    roots,
		MinVersion: tls.VersionTLS12,
		// Servers that want a certificate for some addresses only, as Apache
		// and IIS are set up, ask again in TLS 1.2.
		Renegotiation: tls.RenegotiateOnceAsClient,
	}
	if cert != nil {
		// Not Certificates: that would leave the choice to the list of CAs a
		// server names, in which the issuing one may be missing.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return follow(inquiry.NewClient(config))
}

// mostRedirects is how often a server may send us on.
const mostRedirects = 5

// follow lets a client go where its server sends it within its own origin, as
// RFC 7030, section 3.2.1, has it: what proves who asks, in a header or in TLS,
// goes to nobody else. What would make a GET of a POST (301, 302, 303) is left
// to judge.
func follow(c *http.Client) *http.Client {
	c.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		if len(via) > mostRedirects || !sameOrigin(next.URL, via[0].URL) || next.Method != via[0].Method {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return c
}

func sameOrigin(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		if p := u.Port(); p != "" || u.Scheme != "https" {
			return p
		}
		return "443"
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// get and post return an error for every status but 200.
func (s *Signer) get(ctx context.Context, c *http.Client, operation string) ([]byte, error) {
	return s.do(ctx, c, http.MethodGet, operation, nil, false)
}

func (s *Signer) post(ctx context.Context, c *http.Client, operation string, body []byte) ([]*x509.Certificate, error) {
	answer, err := s.do(ctx, c, http.MethodPost, operation, body, true)
	if err != nil {
		var refused *wantsMore
		if errors.As(err, &refused) {
			return nil, s.explain(ctx, c, refused)
		}
		return nil, err
	}
	return parseCerts("EST "+operation, answer)
}

// wantsMore is a refusal of the request as such, not of who asks.
type wantsMore struct{ problem *problem.Problem }

func (w *wantsMore) Error() string { return w.problem.Error() }

// explain turns a refusal into words, with what the CA would have requests
// look like, if it says so (section 4.5). That is all that is made of it.
func (s *Signer) explain(ctx context.Context, c *http.Client, w *wantsMore) error {
	p := *w.problem
	if wanted, err := s.attributes(ctx, c); err == nil && len(wanted) > 0 {
		p.Expected = "a request as the CA wants it, with: " + strings.Join(wanted, ", ")
	}
	return signing.Refuse(&p)
}

func (s *Signer) do(ctx context.Context, c *http.Client, method, operation string, body []byte, credentials bool) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.base+"/"+operation, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/pkcs10")
		req.Header.Set("Content-Transfer-Encoding", "base64") // gone with RFC 8951, and demanded by servers of before
	}
	if credentials && s.config.User != "" {
		req.SetBasicAuth(s.config.User, string(s.config.Password))
	}
	resp, answer, err := inquiry.Do(c, req, maxAnswer)
	switch {
	case errors.Is(err, inquiry.ErrTooLong):
		return nil, &problem.Problem{
			Field: "EST " + operation, Found: "an answer of more than 1 MiB from " + s.base, Expected: "certificates",
			Next: "see that the address is that of an EST server",
		}
	case err != nil:
		return nil, s.noAnswer(ctx, operation, err)
	case resp.StatusCode != http.StatusOK:
		return nil, s.judge(resp, operation, answer)
	}
	return answer, nil
}

// noAnswer makes words of what net/http says. ctx's own end stays visible.
func (s *Signer) noAnswer(ctx context.Context, operation string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("EST %s at %s: %w", operation, s.base, context.Cause(ctx))
	}
	p := &problem.Problem{
		Field: "EST " + operation, Found: "no answer from " + s.base, Err: err,
		Next: "see that the server is up and that this machine may reach it",
	}
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		p.Found = "a server at " + s.base + " that the roots do not vouch for"
		p.Next = "give the CA's certificate, or the SHA-256 of it"
	case errors.As(err, &host):
		p.Found = "a server certificate with another name at " + s.base
		p.Next = "use the name that the certificate has"
	case errors.As(err, &invalid):
		p.Found = "a server certificate at " + s.base + " that is not valid"
		p.Next = "look at the clock here, and at the server's certificate"
	}
	return &connectionError{p}
}

// judge makes an error of an answer that is not 200 (section 4.2.3).
func (s *Signer) judge(resp *http.Response, operation string, answer []byte) error {
	said := inquiry.Said(resp, answer, s.hide)
	p := &problem.Problem{Field: "EST " + operation, Found: resp.Status + said + " from " + s.base}
	wait := inquiry.RetryAfter(resp.Header.Get("Retry-After"), time.Now())
	later := func() error {
		if wait.IsZero() {
			return p
		}
		return &signing.RetryAfterError{NotBefore: wait, Err: p}
	}
	switch code := resp.StatusCode; {
	case code == http.StatusAccepted:
		p.Found = "that the request waits for somebody's approval" + said + " at " + s.base
		p.Next = "approve it at the CA; the next attempt fetches the certificate"
		if wait.IsZero() {
			wait = time.Now().Add(time.Hour)
		}
		return later()
	case code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500:
		p.Next = "look into the CA's log if this goes on"
		return later()
	case code == http.StatusUnauthorized:
		p.Next = "see that user and password are right and may enrol"
		if s.config.User == "" {
			p.Next = "give the user and the password that the CA's administrator set up"
		} else if a := resp.Header.Get("WWW-Authenticate"); a != "" && !strings.Contains(strings.ToLower(a), "basic") {
			p.Expected = "HTTP Basic authentication; the server offers " + inquiry.Clip(a, 60)
			p.Next = "let the server take Basic, which is inside TLS here, or use a client certificate"
		}
		return signing.Refuse(p)
	case code == http.StatusForbidden:
		p.Next = "see that this user or certificate may enrol for these names"
		return signing.Refuse(p)
	case code == http.StatusNotFound || code == http.StatusMethodNotAllowed || code == http.StatusNoContent || code == http.StatusNotImplemented:
		p.Expected = "an EST server"
		p.Err = errNothing
		p.Next = "see that address and label are right"
		return signing.Refuse(p)
	case code >= 300 && code < 400:
		p.Found = fmt.Sprintf("%s to %s from %s", resp.Status, inquiry.Clip(s.hide(resp.Header.Get("Location")), 200), s.base)
		if to, err := resp.Location(); err == nil && sameOrigin(to, resp.Request.URL) {
			p.Expected = "a redirect that keeps the request (307 or 308)"
			p.Next = "look into the server's setup if this goes on, or use the address that it leads to"
			return p
		}
		p.Next = "use the address that it leads to, if it is the CA's: nobody goes to another server unasked"
		return signing.Refuse(p)
	}
	p.Next = "make the request as the CA wants it"
	return &wantsMore{p}
}

// hide takes the password out, should a server repeat it.
func (s *Signer) hide(text string) string {
	if s.config.Password == "" {
		return text
	}
	basic := base64.StdEncoding.EncodeToString([]byte(s.config.User + ":" + string(s.config.Password)))
	return s.config.Password.Hide(signing.Secret(basic).Hide(text))
}
