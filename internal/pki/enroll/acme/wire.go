package acme

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"

	"larder/internal/pki/enroll/inquiry"
)

// maxAnswer bounds what a CA may answer with: a chain is some 10 KiB.
const maxAnswer = 1 << 20

func newTransport(cfg Config) *http.Transport {
	return &http.Transport{
		Proxy:                 cfg.Proxy,
		TLSClientConfig:       &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   cfg.Timeout,
		ResponseHeaderTimeout: cfg.Timeout,
		IdleConnTimeout:       time.Minute,
		ForceAttemptHTTP2:     true,
	}
}

// wire carries the requests of one visit, which come one after the other, and
// keeps of the last answer what the client library does not pass on.
type wire struct {
	next http.RoundTripper

	status     int       // 0: no answer
	retryAfter time.Time // zero: not said
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.status, w.retryAfter = 0, time.Time{}
	if r.URL.Scheme != "https" {
		return nil, fmt.Errorf("the CA names an address without TLS: %s", r.URL.Redacted())
	}
	resp, err := w.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	w.status = resp.StatusCode
	w.retryAfter = inquiry.RetryAfter(resp.Header.Get("Retry-After"), time.Now())
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}
