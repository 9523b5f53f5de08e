package scep

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"larder/internal/pki/enroll/inquiry"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
)

const (
	// maxAnswer bounds what is read, in bytes. Answers have a few thousand.
	// The library's reader of BER takes time by the square of it, and whoever
	// is on the way can send anything.
	maxAnswer = 64 << 10
	// maxQuery is how long a message in an address may be; servers and what
	// stands before them cut longer ones off.
	maxQuery = 16 << 10
)

func (s *Signer) client() *http.Client {
	return inquiry.NewClient(&tls.Config{RootCAs: s.config.Roots, MinVersion: tls.VersionTLS12})
}

// do asks one question (RFC 8894, section 4.1): body in a POST, or value as
// the message of a GET.
func (s *Signer) do(ctx context.Context, c *http.Client, operation, value string, body []byte) ([]byte, error) {
	u := *s.url
	query := url.Values{"operation": {operation}}
	if value != "" {
		query.Set("message", value)
	}
	u.RawQuery = query.Encode()
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-pki-message")
	}
	resp, answer, err := inquiry.Do(c, req, maxAnswer)
	switch {
	case errors.Is(err, inquiry.ErrTooLong):
		return nil, &problem.Problem{
			Field: "SCEP " + operation, Found: "an answer of more than 64 KiB from " + s.url.String(), Expected: "a SCEP server's",
			Next: "see that the address is right",
		}
	case err != nil:
		return nil, s.noAnswer(ctx, operation, err)
	case resp.StatusCode != http.StatusOK:
		return nil, s.judge(resp, operation, answer)
	}
	return answer, nil
}

// noAnswer makes words of what net/http says, without the address, which has
// the whole message in it. ctx's own end stays visible.
func (s *Signer) noAnswer(ctx context.Context, operation string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("SCEP %s at %s: %w", operation, s.url, context.Cause(ctx))
	}
	if u, ok := err.(*url.Error); ok {
		err = u.Err
	}
	return &problem.Problem{
		Field: "SCEP " + operation, Found: "no answer from " + s.url.String(), Err: err,
		Next: "see that the server is up and that this machine may reach it",
	}
}

// statusError is an answer that is none of SCEP's.
type statusError struct {
	code    int
	problem error
}

func (e *statusError) Error() string { return e.problem.Error() }

func (e *statusError) Unwrap() error { return e.problem }

func (s *Signer) judge(resp *http.Response, operation string, answer []byte) error {
	p := &problem.Problem{
		Field: "SCEP " + operation, Found: resp.Status + inquiry.Said(resp, answer, s.config.Challenge.Hide) + " from " + s.url.String(),
		Next: "look into the CA's log if this goes on",
	}
	var err error = p
	switch code := resp.StatusCode; {
	case code >= 300 && code < 400:
		p.Found = fmt.Sprintf("%s to %s from %s", resp.Status, inquiry.Clip(resp.Header.Get("Location"), 200), s.url)
		p.Next = "use the address that it leads to"
		err = signing.Refuse(p)
	case code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500:
		if at := inquiry.RetryAfter(resp.Header.Get("Retry-After"), time.Now()); !at.IsZero() {
			err = &signing.RetryAfterError{NotBefore: at, Err: p}
		}
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		p.Next = "see that the server lets this machine ask: SCEP itself has no user"
		err = signing.Refuse(p)
	default:
		p.Expected = "a SCEP server"
		p.Next = "see that the address is right"
		err = signing.Refuse(p)
	}
	return &statusError{resp.StatusCode, err}
}

// send asks one question in a pkiMessage.
func (x *exchange) send(ctx context.Context, kind messageType, id string, who *identity, content []byte) (*reply, error) {
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails
	data, err := message(kind, id, nonce, content, who, x.ca.recipient, x.able)
	if err != nil {
		return nil, err
	}
	value, body := "", data
	if !x.able.post() {
		value, body = base64.StdEncoding.EncodeToString(data), nil
		if len(value) > maxQuery {
			return nil, signing.Refuse(&problem.Problem{
				Field: "SCEP server", Found: "no word of POSTPKIOperation, and a message too long for an address", Next: "use a shorter key, or a server that takes POST",
			})
		}
	}
	answer, err := x.signer.do(ctx, x.client, "PKIOperation", value, body)
	if err != nil {
		return nil, err
	}
	return parseReply(answer, id, nonce, who, x.ca)
}
