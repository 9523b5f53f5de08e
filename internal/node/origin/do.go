package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Do sends a request and returns the answer's head as soon as it is there,
// whatever its status. Redirects are followed as r.Follow says. Every error is
// an [*Error]; one because ctx ended matches its cause.
func (c *Client) Do(ctx context.Context, r *Request) (*Response, error) {
	resp, err := c.do(ctx, r)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = fail(http.StatusBadGateway, KindProtocol, err, "request failed")
		}
		c.metrics.requests.WithLabelValues(e.Kind).Inc()
		return nil, e
	}
	c.metrics.requests.WithLabelValues(strconv.Itoa(resp.Status/100) + "xx").Inc()
	return resp, nil
}

// transfer is one call of Do and the body that it returned.
type transfer struct {
	client *Client
	ctx    context.Context // ends with the transfer, its caller's or the client
	cancel context.CancelCauseFunc
	unlink func() bool
	upload *upload // nil without a request body
	origin *origin // whose slot is held
	shares bool    // it joined the bucket

	ended sync.Once
}

func (c *Client) do(ctx context.Context, r *Request) (_ *Response, err error) {
	if c.ctx.Err() != nil {
		return nil, fail(http.StatusServiceUnavailable, KindCanceled, errClosed, "%v", errClosed)
	}
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	if !validToken(method) || method == http.MethodConnect {
		return nil, fail(http.StatusBadGateway, KindProtocol, nil, "method %s cannot be sent", printable(method))
	}
	t := &transfer{client: c}
	t.ctx, t.cancel = context.WithCancelCause(ctx)
	t.unlink = context.AfterFunc(c.ctx, func() { t.cancel(errClosed) })
	if r.Body != nil && r.ContentLength != 0 {
		t.upload = &upload{r: r.Body, ok: true}
	}
	defer func() {
		if err != nil {
			t.end()
			t.upload.forget()
		}
	}()

	header := c.requestHeader(r.Header)
	ep, target := r.Endpoint, r.Target
	var silence *time.Timer
	seen := make(map[location]bool)
	for hop := 0; ; hop++ {
		p, err := locate(ep)
		if err != nil {
			return nil, err
		}
		if err := checkTarget(method, target); err != nil {
			return nil, err
		}
		t.origin = c.use(p, ep.Roots)
		if err := t.origin.enter(t.ctx); err != nil {
			t.origin.note(err)
			t.origin.done()
			t.origin = nil
			return nil, err
		}
		if silence == nil && t.upload == nil {
			// One time for all hops. With a request body it begins when that
			// is sent, and the transport watches it.
			silence = time.AfterFunc(c.cfg.SilenceTimeout, func() { t.cancel(errSilent) })
			defer silence.Stop()
		}
		resp, err := t.send(method, target, header, r)
		if err != nil {
			t.origin.note(err)
			return nil, err
		}
		if resp.StatusCode >= 500 {
			t.origin.record.failed("answered " + strconv.Itoa(resp.StatusCode))
		} else {
			t.origin.record.ok()
		}
		if r.Follow == nil || t.upload != nil || !redirects(method, resp) {
			return t.response(resp, ep), nil
		}

		here := location{p.scheme, p.name, target}
		seen[here] = true
		to, next, err := c.follow(r, hop, here, resp.Header.Get("Location"))
		drain(resp.Body)
		t.origin.leave()
		t.origin.done()
		t.origin = nil
		if err != nil {
			return nil, err
		}
		if !strings.EqualFold(next.Host, ep.Host) {
			// What was meant for one host is not for another to know.
			header.Del("Authorization")
			header.Del("Cookie")
		}
		ep, target = next, to
		np, err := locate(ep)
		if err != nil {
			return nil, err
		}
		if seen[location{np.scheme, np.name, target}] {
			return nil, fail(http.StatusBadGateway, KindRedirect, nil, "%s redirects in a ring", p.name)
		}
		c.metrics.redirects.Inc()
		c.log.DebugContext(ctx, "following a redirect", "from", p.name, "to", np.name)
	}
}

// follow decides on one redirect.
func (c *Client) follow(r *Request, hop int, here location, text string) (target string, ep Endpoint, err error) {
	bad := func(format string, args ...any) (string, Endpoint, error) {
		return "", Endpoint{}, fail(http.StatusBadGateway, KindRedirect, nil, here.host+" redirects: "+format, args...)
	}
	if hop >= maxRedirects {
		return bad("more than %d in a row", maxRedirects)
	}
	to, err := resolveLocation(here, text)
	if err != nil {
		return bad("not followed: %v", err)
	}
	// Who asked in clear had no secrets to lose on any later hop.
	secret := r.Endpoint.Scheme == "https"
	if secret && to.scheme == "http" {
		return bad("not followed: from https to http at %s", to.host)
	}
	ep, target, ok := r.Follow(to.scheme, to.host, to.target)
	if !ok {
		return bad("not followed: %s is not a host that may be asked", to.host)
	}
	if secret && ep.Scheme == "http" && ep.Address == "" {
		return bad("not followed: from https to http at %s", to.host)
	}
	return target, ep, nil
}

// maxInterim is how many interim answers may come before the answer.
const maxInterim = 16

// checkTarget refuses what cannot be a request target. Anything else is sent
// as it is.
func checkTarget(method, target string) error {
	if method == http.MethodOptions && target == "*" {
		return nil
	}
	if !strings.HasPrefix(target, "/") {
		return fail(http.StatusBadGateway, KindProtocol, nil, "the request target does not begin with a slash")
	}
	// Bytes above ASCII are not allowed either (RFC 9112 section 3.2), but
	// clients send them, servers take them, and they cannot split a head.
	for i := range len(target) {
		if target[i] <= ' ' || target[i] == 0x7f {
			return fail(http.StatusBadGateway, KindProtocol, nil, "the request target has a space or control character")
		}
	}
	return nil
}

// send sends the request to t.origin and returns the answer's head, checked
// but not cleaned.
func (t *transfer) send(method, target string, header http.Header, r *Request) (*http.Response, error) {
	c, o := t.client, t.origin
	req := &http.Request{
		Method: method,
		URL:    &url.URL{Scheme: o.scheme, Host: o.host, Opaque: target},
		Host:   o.host,
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header.Clone(),
	}
	var (
		held *slashes
		used *conn // of the last try
	)
	if o.route == forward {
		if o.named {
			req.Host = o.dest
		}
		if target == "*" {
			target = ""
		}
		req.URL.Opaque = "http://" + req.Host + target
		if a := o.via.auth(); a != "" {
			req.Header.Set("Proxy-Authorization", a)
		}
	} else if trimmed := strings.TrimLeft(target, "/"); len(target)-len(trimmed) > 1 {
		req.URL.Opaque = "/" + trimmed
		held = &slashes{line: []byte(method + " /"), n: len(target) - len(trimmed) - 1}
	}
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		used = info.Conn.(*conn)
		used.slashes.Store(held)
	}}
	if r.Interim != nil {
		told := 0
		trace.Got1xxResponse = func(code int, h textproto.MIMEHeader) error {
			if told++; told <= maxInterim && code != http.StatusContinue && code != http.StatusSwitchingProtocols {
				fields := http.Header(h)
				cleanResponse(fields)
				r.Interim(code, fields)
			}
			if told > maxInterim {
				return fmt.Errorf("more than %d interim answers", maxInterim)
			}
			return nil
		}
	}
	ctx := httptrace.WithClientTrace(t.ctx, trace)
	transport := o.keep
	if t.upload != nil {
		req.Body, req.ContentLength = t.upload, r.ContentLength
	}
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		if t.upload != nil {
			transport = o.once
		}
	default:
		transport = o.once
	}

	start := time.Now()
	resp, err := transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		if t.ctx.Err() == nil && t.upload.failed() {
			return nil, fail(http.StatusServiceUnavailable, KindCanceled, err, "%s: the request's body broke off", o.name)
		}
		return nil, c.sendError(t.ctx, o.name, err)
	}
	c.metrics.head.Observe(time.Since(start).Seconds())
	switch code := resp.StatusCode; {
	case resp.ProtoMajor != 1, code < 200, code > 599:
		resp.Body.Close()
		used.Close() // without a body it would be used again
		return nil, fail(http.StatusBadGateway, KindProtocol, nil, "%s: answer with version %d.%d and status %d",
			o.name, resp.ProtoMajor, resp.ProtoMinor, code)
	case code == http.StatusProxyAuthRequired && o.route == forward:
		resp.Body.Close()
		return nil, o.via.refusedByProxy(code, o.name)
	}
	return resp, nil
}

// response hands the answer of the last hop over, and with it the transfer.
func (t *transfer) response(resp *http.Response, ep Endpoint) *Response {
	cleanResponse(resp.Header)
	r := &Response{
		Status:        resp.StatusCode,
		Header:        resp.Header,
		ContentLength: resp.ContentLength,
		Endpoint:      ep,
		trailer:       func() http.Header { return trailer(resp.Trailer) },
	}
	b := &body{
		transfer: t,
		src:      resp.Body,
		received: t.client.metrics.received.WithLabelValues(t.origin.scheme),
		host:     t.origin.record,
	}
	t.shares = true
	t.client.bucket.join()
	if resp.Body == http.NoBody {
		b.err = io.EOF
		t.end()
	}
	r.Body = b
	return r
}

// end gives everything back that the transfer holds. It may be called often.
func (t *transfer) end() {
	t.ended.Do(func() {
		t.unlink()
		t.cancel(context.Canceled)
		if t.origin != nil {
			t.origin.leave()
			t.origin.done()
		}
		if t.shares {
			t.client.bucket.leave()
		}
	})
}

// drain reads the rest of a small body that nobody wants, so that its
// connection can be used again; a larger or a slow one is cut.
func drain(body io.ReadCloser) {
	const small, patience = 4 << 10, 250 * time.Millisecond
	cut := time.AfterFunc(patience, func() { body.Close() })
	defer cut.Stop()
	io.CopyN(io.Discard, body, small)
	body.Close()
}
