package link

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"larder/internal/fleet"
)

// Refusal is an answer of the control plane that is no success.
type Refusal struct {
	Status     int
	Code       string // "RegistrationKeyUsed"
	Message    string
	RetryAfter time.Duration // 0 if it did not say
}

func (r *Refusal) Error() string {
	if r.Message == "" {
		return fmt.Sprintf("the control plane answered %d %s", r.Status, http.StatusText(r.Status))
	}
	return "the control plane says: " + r.Message
}

// final is true for refusals that a retry does not change: a person must do
// something.
func final(err error) bool {
	var r *Refusal
	if !errors.As(err, &r) {
		return false
	}
	switch r.Code {
	case "IdentityRevoked", "IdentityTooOld", "IdentityCopied", "IdentityUnknown", "ProtocolTooOld":
		return true
	}
	return false
}

// CheckURL says what is wrong with the address of a control plane.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("control plane's address: found %q, expected https://host:port", text)
	}
	return nil
}

// client speaks to one control plane with one TLS configuration: directly, or
// through a proxy where that fails. The way that worked is the one tried first.
type client struct {
	base  string
	http  *http.Client
	proxy func(host string) *url.URL // nil, or nil for a host: there is none
	via   atomic.Bool                // through the proxy
}

// dialTimeout is short enough for both ways to be tried within a call's time.
const dialTimeout = 10 * time.Second

func newClient(base string, cfg *tls.Config, proxy func(host string) *url.URL) *client {
	cfg.ServerName = fleet.ServerName
	c := &client{base: strings.TrimRight(base, "/"), proxy: proxy}
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy: func(r *http.Request) (*url.URL, error) {
				if c.via.Load() {
					return c.proxyFor(r.URL), nil
				}
				return nil, nil
			},
			DialContext:     (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig: cfg, TLSHandshakeTimeout: 15 * time.Second, MaxIdleConnsPerHost: 1, IdleConnTimeout: 90 * time.Second,
		},
		// A control plane does not send its nodes elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

func (c *client) proxyFor(u *url.URL) *url.URL {
	if c.proxy == nil {
		return nil
	}
	return c.proxy(u.Hostname())
}

// do makes a request one way, then the other. All that nodes ask can be asked
// twice.
func (c *client) do(ctx context.Context, request func() (*http.Request, error)) (*http.Response, error) {
	req, err := request()
	if err != nil {
		return nil, err
	}
	via := c.via.Load()
	resp, err := c.http.Do(req)
	if err == nil || ctx.Err() != nil || c.proxyFor(req.URL) == nil {
		return resp, err
	}
	c.via.Store(!via)
	if req, err2 := request(); err2 == nil {
		if resp, err2 = c.http.Do(req); err2 == nil {
			return resp, nil
		}
		err = errors.Join(way(via, err), way(!via, err2))
	}
	c.via.Store(via)
	return nil, err
}

func way(via bool, err error) error {
	if via {
		return fmt.Errorf("through the proxy: %w", err)
	}
	return fmt.Errorf("directly: %w", err)
}

func (c *client) close() { c.http.CloseIdleConnections() }

// maxAnswer is the most that is read of an answer, in bytes.
const maxAnswer = 16 << 20

// call sends in as JSON, unless it is nil, and reads the answer into out. It is
// false for 204: nothing to say. Errors: *Refusal, and what kept it from coming
// about.
func (c *client) call(ctx context.Context, method, path string, in, out any) (bool, error) {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return false, err
		}
	}
	return c.send(ctx, method, path, body, "", out)
}

// deliver sends a delivery, which is packed: uplinks are thin, and the control
// plane keeps less for each connection.
func (c *client) deliver(ctx context.Context, d *fleet.Delivery, a *fleet.Accepted) error {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := errors.Join(json.NewEncoder(z).Encode(d), z.Close()); err != nil {
		return err
	}
	_, err := c.send(ctx, "POST", fleet.PathReports, b.Bytes(), "gzip", a)
	return err
}

func (c *client) send(ctx context.Context, method, path string, body []byte, encoding string, out any) (bool, error) {
	resp, err := c.do(ctx, func() (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", "application/json")
		if body != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		if encoding != "" {
			req.Header.Set("Content-Encoding", encoding)
		}
		return req, nil
	})
	if err != nil {
		return false, fmt.Errorf("asking the control plane: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return false, fmt.Errorf("reading the control plane's answer: %w", err)
	}
	switch {
	case resp.StatusCode == http.StatusNoContent:
		return false, nil
	case resp.StatusCode != http.StatusOK:
		return false, refusal(resp, b)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return false, fmt.Errorf("the control plane's answer is not the JSON expected: %w", err)
	}
	return true, nil
}

func refusal(resp *http.Response, body []byte) *Refusal {
	r := &Refusal{Status: resp.StatusCode}
	var e struct {
		Error struct{ Code, Message string }
	}
	if json.Unmarshal(body, &e) == nil {
		r.Code, r.Message = clip(e.Error.Code, 100), clip(e.Error.Message, 1000)
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		r.RetryAfter = min(time.Duration(s)*time.Second, time.Hour)
	}
	return r
}

func clip(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}
