package revocation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"larder/internal/pki/problem"
)

const (
	mostOCSP      = 1 << 20
	mostCRL       = 32 << 20
	mostRedirects = 3
	mostStaple    = 64 << 10 // every handshake sends it

	// longest bounds a fetch that is slow and not silent, such as a large list
	// over a thin line.
	longest = 2 * time.Minute
)

var errSilent = errors.New("no answer in time")

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > mostRedirects {
		return fmt.Errorf("more than %d redirects", mostRedirects)
	}
	if !fetchable(req.URL) {
		return fmt.Errorf("a redirect to %q", clean(req.URL.Scheme+":"))
	}
	return nil
}

func fetchable(u *url.URL) bool { return (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" }

// place reads an address out of a certificate.
func place(field, text string) (*url.URL, *problem.Problem) {
	u, err := url.Parse(text)
	if err == nil && fetchable(u) {
		return u, nil
	}
	p := &problem.Problem{Field: field, Found: clean(text), Expected: "an address that begins with http://", Next: "have the CA publish this over HTTP"}
	if err == nil && u.Scheme == "ldap" {
		p.Next = "have the CA publish this over HTTP too, which a machine outside the domain can reach; on AD CS: properties of the CA, Extensions, CRL Distribution Point"
	}
	return nil, p
}

// show writes an address without what might be a secret in it.
func show(u *url.URL) string { return clean(u.Redacted()) }

// fetch gets at most most bytes. A nil body: by GET.
func (c *Checker) fetch(ctx context.Context, field string, u *url.URL, body []byte, most int64) (data []byte, p *problem.Problem) {
	ctx, cancelAll := context.WithTimeoutCause(ctx, longest, errSilent)
	defer cancelAll()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(c.patience, func() { cancel(errSilent) })
	defer silence.Stop()

	began := time.Now()
	defer func() {
		c.log.DebugContext(ctx, "revocation asked", "url", show(u), "bytes", len(data), "took", time.Since(began), "ok", p == nil)
	}()
	method, reader := http.MethodGet, io.Reader(nil)
	if body != nil {
		method, reader = http.MethodPost, bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), reader)
	if err != nil {
		return nil, &problem.Problem{Field: field, Found: "an address that cannot be asked", Expected: "one that begins with http://", Err: err}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/ocsp-request")
		req.Header.Set("Accept", "application/ocsp-response")
	}
	res, err := c.client.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, field, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, &problem.Problem{Field: field, Found: "the HTTP status " + clean(res.Status), Expected: "200", Next: "tell whoever runs the CA, if it stays so"}
	}
	data, err = io.ReadAll(io.LimitReader(progress{res.Body, func() { silence.Reset(c.patience) }}, most+1))
	switch {
	case err != nil:
		return nil, c.unreachable(ctx, field, err)
	case int64(len(data)) > most:
		return nil, &problem.Problem{Field: field, Found: fmt.Sprintf("more than %d MiB", most>>20), Expected: "no more than that", Next: "tell whoever runs the CA; lists can be split by distribution points"}
	}
	return data, nil
}

// unreachable says why there is no answer.
func (c *Checker) unreachable(ctx context.Context, field string, err error) *problem.Problem {
	if outer := (*url.Error)(nil); errors.As(err, &outer) {
		err = outer.Err // the address is in field
	}
	p := &problem.Problem{Field: field, Found: "no answer", Expected: "an answer over HTTP", Next: "see whether this machine may reach that address, by its proxy if it needs one", Err: err}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errSilent):
		p.Found, p.Err = fmt.Sprintf("nothing but silence for %s", c.patience), nil
	case cause != nil:
		p.Found, p.Next, p.Err = "no answer yet when the check was ended", "", cause
	}
	return p
}

// progress calls its function for every read that brings something.
type progress struct {
	io.Reader
	moved func()
}

func (p progress) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if n > 0 {
		p.moved()
	}
	return n, err
}
