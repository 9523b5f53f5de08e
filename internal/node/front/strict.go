package front

import (
	"bytes"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

// A headError says what is wrong with a request head.
type headError struct {
	status int
	text   string
}

func (e *headError) Error() string { return e.text }

func bad(text string) *headError { return &headError{400, text} }

// strict refuses what the engine lets pass but others read differently: a
// request that two parsers understand in two ways is how smuggling and
// poisoning begin (RFC 9112 sections 2.2, 3.2, 5.1, 5.2, 6.1). closes says that
// the client wants no further answer on its connection.
func strict(h *fasthttp.RequestHeader) (closes bool, e *headError) {
	http10 := bytes.Equal(h.Protocol(), protocol10)
	if !http10 && !bytes.Equal(h.Protocol(), protocol11) {
		return true, &headError{505, "This server speaks HTTP/1.1 and HTTP/1.0."}
	}
	hosts, lengths, codings := 0, 0, 0
	raw := h.RawHeaders()
	for len(raw) > 0 {
		k := bytes.IndexByte(raw, '\n')
		if k < 1 || raw[k-1] != '\r' {
			return true, bad("A line of the request head ends without CR LF.")
		}
		line := raw[:k-1]
		raw = raw[k+1:]
		if len(line) == 0 {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			return true, bad("Folded header fields are obsolete and not accepted.")
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			return true, bad("A header field has no name.")
		}
		name, value := line[:colon], line[colon+1:]
		for _, b := range name {
			if !tokenByte[b] {
				return true, bad("A header field's name holds a character that is not allowed.")
			}
		}
		for _, b := range value {
			if controls[b] {
				return true, bad("A header field's value holds a control character.")
			}
		}
		switch len(name) {
		case 4:
			if equalFold(name, "host") {
				hosts++
				if !plainHost(trim(value)) {
					return true, bad("The Host field is not a host name with an optional port.")
				}
			}
		case 10:
			if equalFold(name, "connection") && wantsClose(value) {
				closes = true
			}
		case 14:
			if equalFold(name, "content-length") {
				lengths++
				if !digits(trim(value)) {
					return true, bad("Content-Length is not a number.")
				}
			}
		case 17:
			if equalFold(name, "transfer-encoding") {
				codings++
				if !equalFold(trim(value), "chunked") {
					return true, &headError{501, "The only transfer coding accepted is chunked."}
				}
			}
		}
	}
	switch {
	case hosts > 1:
		return true, bad("There is more than one Host field.")
	case hosts == 0 && !http10:
		return true, bad("The Host field is missing.")
	case lengths > 1:
		return true, bad("There is more than one Content-Length.")
	case codings > 1:
		return true, bad("There is more than one Transfer-Encoding.")
	case lengths > 0 && codings > 0:
		return true, bad("Content-Length and Transfer-Encoding exclude one another.")
	case codings > 0 && http10:
		return true, bad("HTTP/1.0 has no Transfer-Encoding.")
	}
	return closes, nil
}

// wantsClose reports whether a Connection field holds the option close: in any
// case and any place of the list, which the engine does not see.
func wantsClose(v []byte) bool {
	for len(v) > 0 {
		option, rest, _ := bytes.Cut(v, []byte{','})
		if equalFold(trim(option), "close") {
			return true
		}
		v = rest
	}
	return false
}

// trim cuts spaces and tabs off both ends; no other byte is white space here.
func trim(b []byte) []byte { return bytes.Trim(b, " \t") }

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

var (
	protocol11 = []byte("HTTP/1.1")
	protocol10 = []byte("HTTP/1.0")
)

// tokenByte says which bytes a field name may hold (RFC 9110 5.6.2).
var tokenByte = func() (t [256]bool) {
	for _, b := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[b] = true
	}
	return t
}()

// controls says which bytes no field may hold (RFC 9110 5.5).
var controls = func() (t [256]bool) {
	for b := range 0x20 {
		t[b] = b != '\t'
	}
	t[0x7f] = true
	return t
}()

// plainHost reports whether v is uri-host [":" port] without user information
// or anything that a URL parser would take for a delimiter (RFC 9112 3.2).
func plainHost(v []byte) bool {
	for _, b := range v {
		switch {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9':
		case b == '.', b == '-', b == '_', b == ':', b == '[', b == ']', b == '%', b == '~':
		default:
			return false
		}
	}
	return true
}

// equalFold compares without the case of ASCII letters.
func equalFold[T string | []byte](b T, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range len(b) {
		x := b[i]
		if x >= 'A' && x <= 'Z' {
			x += 'a' - 'A'
		}
		if x != lower[i] {
			return false
		}
	}
	return true
}

// expect is asked before the engine says 100 Continue.
func (s *Server) expect(ctx *fasthttp.RequestCtx) int {
	c := raw(ctx.Conn())
	if _, e := strict(&ctx.Request.Header); e != nil {
		s.newExchange(ctx).refuse(e)
		return e.status
	}
	if ctx.Request.Header.IsHTTP11() {
		c.extend(time.Now())
	} else {
		c.dropping = true // HTTP/1.0 knows no 100 (RFC 9110 15.2)
	}
	return fasthttp.StatusContinue
}

// malformed answers what the engine could not parse.
func (s *Server) malformed(ctx *fasthttp.RequestCtx, err error) {
	c := raw(ctx.Conn())
	if _, ok := err.(fasthttp.ErrNothingRead); ok || broken(err) {
		c.dropping, c.unread = true, false // nothing was asked, or nobody is there
		return
	}
	e := bad("The request is not proper HTTP/1.1.")
	var small *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &small):
		e = &headError{431, "The request head is larger than 16 KiB."}
	case errors.Is(err, os.ErrDeadlineExceeded):
		e = &headError{408, "The request did not arrive in time."}
	}
	x := s.newExchange(ctx)
	x.Start, x.http10 = time.Now(), false // the head may be half read
	x.refuse(e)
}

// broken reports whether the connection itself ended.
func broken(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET)
}
