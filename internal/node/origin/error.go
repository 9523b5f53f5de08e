package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// Kinds of [Error]: at which stage a request failed.
const (
	KindResolve   = "resolve"   // the name has no usable address
	KindRefused   = "refused"   // nobody listens there
	KindConnect   = "connect"   // no connection, or it broke
	KindTLS       = "tls"       // no TLS, or a certificate that is not trusted
	KindTimeout   = "timeout"   // connected, then silence
	KindForbidden = "forbidden" // an address this node must not talk to
	KindRedirect  = "redirect"  // a redirect that is not followed
	KindProxy     = "proxy"     // the proxy refused, or is not there
	KindProtocol  = "protocol"  // not HTTP/1.1, or a request that cannot be sent
	KindLimit     = "limit"     // too many requests to this origin at once
	KindCanceled  = "canceled"  // the caller left, or the client was closed
)

var kinds = []string{KindResolve, KindRefused, KindConnect, KindTLS, KindTimeout, KindForbidden,
	KindRedirect, KindProxy, KindProtocol, KindLimit, KindCanceled}

// Error is why there is no answer, or no more of one. Its text names the host
// but neither path, query nor a proxy's password, so it may be logged.
type Error struct {
	Status int    // what to answer: 502, 503, 504 or 508
	Kind   string // one of the Kind constants
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// fault keeps a cause for errors.Is and errors.As without printing it: what
// net/http says may quote the peer, and a peer may quote a request's secrets.
type fault struct {
	text  string
	cause error
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.cause }

// fail makes an Error whose text is exactly the one given.
func fail(status int, kind string, cause error, format string, args ...any) *Error {
	return &Error{Status: status, Kind: kind, Err: &fault{fmt.Sprintf(format, args...), cause}}
}

// errSilent is the cancellation cause of a transfer that brought nothing for
// the silence timeout.
var errSilent = errors.New("silent for too long")

// leftOr returns the error for a transfer whose context has ended: by
// silence, at Close, by its caller or its caller's deadline. Nil: it has not.
func (c *Client) leftOr(ctx context.Context, host string) *Error {
	if ctx.Err() == nil {
		return nil
	}
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errSilent):
		return fail(http.StatusGatewayTimeout, KindTimeout, errSilent, "%s sent nothing for %v", host, c.cfg.SilenceTimeout)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fail(http.StatusGatewayTimeout, KindTimeout, errors.Join(cause, ctx.Err()), "%s: no time left", host)
	}
	return fail(http.StatusServiceUnavailable, KindCanceled, errors.Join(cause, ctx.Err()), "%s: request canceled", host)
}

// sendError explains an error of http.Transport.RoundTrip.
func (c *Client) sendError(ctx context.Context, host string, err error) *Error {
	if e := c.leftOr(ctx, host); e != nil {
		return e
	}
	var e *Error
	if errors.As(err, &e) { // of the dial functions
		return e
	}
	switch {
	case isTimeout(err):
		return fail(http.StatusGatewayTimeout, KindTimeout, err, "%s sent nothing for %v", host, c.cfg.SilenceTimeout)
	case isBroken(err):
		return fail(http.StatusBadGateway, KindConnect, err, "%s closed the connection without an answer", host)
	case strings.Contains(err.Error(), "response headers exceeded"):
		return fail(http.StatusBadGateway, KindProtocol, err, "%s: the head of the answer is larger than %d bytes", host, maxHead)
	}
	return fail(http.StatusBadGateway, KindProtocol, err, "%s: the exchange is not valid HTTP/1.1", host)
}

// dialError explains why one address could not be connected to.
func dialError(host string, err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e): // of the guard
		return e
	case isTimeout(err):
		return fail(http.StatusGatewayTimeout, KindConnect, err, "connecting to %s: no answer in time", host)
	case isRefused(err):
		return fail(http.StatusBadGateway, KindRefused, err, "connecting to %s: %v", host, err)
	}
	return fail(http.StatusBadGateway, KindConnect, err, "connecting to %s: %v", host, err)
}

// tlsError explains a failed handshake in the words an administrator needs.
func tlsError(host string, err error) *Error {
	var (
		verify    *tls.CertificateVerificationError
		name      x509.HostnameError
		unknown   x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		plaintext tls.RecordHeaderError
		alert     tls.AlertError
	)
	bad := func(format string, args ...any) *Error {
		return fail(http.StatusBadGateway, KindTLS, err, "TLS with "+host+": "+format, args...)
	}
	switch {
	case isTimeout(err):
		return fail(http.StatusGatewayTimeout, KindTLS, err, "TLS with %s: no answer in time", host)
	case errors.As(err, &name):
		return bad("the certificate is not valid for this host: %v", name)
	case errors.As(err, &unknown):
		return bad("the certificate is signed by an unknown authority (an inspecting proxy, or a root that is missing in the publisher's ca): %v", unknown)
	case errors.As(err, &invalid):
		return bad("the certificate is not valid: %v", invalid)
	case errors.As(err, &verify):
		return bad("the certificate cannot be verified: %v", verify.Err)
	case errors.As(err, &plaintext):
		return bad("the server does not speak TLS on this port")
	case errors.As(err, &alert):
		return bad("the server refused the handshake: %v", alert)
	case errors.Is(err, io.EOF):
		return bad("the server closed the connection")
	}
	return bad("%v", err)
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

func isRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, platformRefused)
}

func isBroken(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, &op) || strings.Contains(err.Error(), "server closed idle connection")
}
