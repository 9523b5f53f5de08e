package front

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// An Exchange is one request and the answer to it.
type Exchange struct {
	s   *Server
	ctx *fasthttp.RequestCtx
	c   *conn

	// Start is when the request head had arrived.
	Start time.Time

	// Done is called once, when the answer has left or broke off.
	Done func(x *Exchange, out Outcome)

	method string
	http10 bool
	in     *requestBody // nil when the request has none
	close  bool         // this is the connection's last answer

	// The answer. fields are whole lines.
	status int
	fields []byte
	length int64 // of the body; -1: not known
	body   Body  // nil: text is the body
	text   string
	bare   bool // the answer has no body, whatever length says
	headed bool // the head has left, or a part of it
	out    Outcome
}

// Outcome is what became of an answer.
type Outcome struct {
	Status    int
	Bytes     int64         // of the body, as far as they were handed to the system
	FirstByte time.Duration // from Start to the head's leaving
	Duration  time.Duration // from Start to the end
	Err       error         // why the answer was cut or replaced; nil when it is complete
}

var errNotWritten = errors.New("front: the connection ended before the answer")

var exchanges = sync.Pool{New: func() any { return &Exchange{fields: make([]byte, 0, 1<<10)} }}

// newExchange returns the exchange for the engine's current request.
func (s *Server) newExchange(ctx *fasthttp.RequestCtx) *Exchange {
	x := exchanges.Get().(*Exchange)
	h := &ctx.Request.Header
	*x = Exchange{s: s, ctx: ctx, c: raw(ctx.Conn()), Start: ctx.Time(), fields: x.fields[:0], http10: !h.IsHTTP11()}
	switch m := h.Method(); string(m) {
	case http.MethodGet:
		x.method = http.MethodGet
	case http.MethodHead:
		x.method = http.MethodHead
	default:
		x.method = string(m)
	}
	x.out.Err = errNotWritten
	return x
}

// serve is the engine's handler.
func (s *Server) serve(ctx *fasthttp.RequestCtx) {
	x := s.newExchange(ctx)
	closes, e := strict(&ctx.Request.Header)
	x.close = closes || ctx.Request.Header.ConnectionClose()
	if e != nil {
		x.refuse(e)
		return
	}
	if n := int64(ctx.Request.Header.ContentLength()); ctx.Request.IsBodyStream() && n != 0 {
		n = max(n, -1)
		x.in = &requestBody{c: x.c, length: n, stream: ctx.RequestBodyStream(), left: n}
		x.c.phase = body
	}
	x.handle()
	switch {
	case x.status == 0:
		x.Text(http.StatusInternalServerError, "The node did not answer.")
	case x.status < 200 || x.status > 999:
		x.fault("The node's answer has no proper status.")
	}
	if x.in != nil && !x.in.settle() {
		// What is left of the request body must not be taken for the next request.
		x.close = true
		x.c.unread = true
	}
	if x.length < 0 && x.http10 && !x.bodiless() || x.c.ending() {
		x.close = true // for HTTP/1.0, the end of the connection is the end of the body
	}
	x.give()
}

// handle calls the handler; if that panics, this request ends and no other.
func (x *Exchange) handle() {
	defer func() {
		if r := recover(); r != nil {
			x.s.panicked("handler", r)
			x.fault("The node met a fault of its own.")
			x.close = true
		}
	}()
	x.s.cfg.Handler(x)
}

// fault replaces whatever the handler wanted to answer.
func (x *Exchange) fault(sentence string) {
	x.closeBody()
	x.fields = x.fields[:0]
	x.Text(http.StatusInternalServerError, sentence)
}

// refuse answers a request that no handler will see. What follows it on the
// connection cannot be trusted.
func (x *Exchange) refuse(e *headError) {
	x.s.m.refused.Inc()
	x.Text(e.status, e.text)
	x.close, x.c.unread = true, true
	x.give()
}

// give hands the answer to the engine, which is told of a GET answered with an
// empty body. Its head is dropped; stream writes ours and the body.
func (x *Exchange) give() {
	ctx := x.ctx
	if x.close {
		ctx.SetConnectionClose()
	}
	x.c.dropping = true
	ctx.Request.Header.SetMethod(http.MethodGet)
	ctx.Response.SetBodyStream((*stream)(x), 0)
}

// Method returns the request method.
func (x *Exchange) Method() string { return x.method }

// Target returns the request target as it was sent (RFC 9112 3.2).
func (x *Exchange) Target() string { return string(x.ctx.Request.Header.RequestURI()) }

// Host returns the Host field as it was sent.
func (x *Exchange) Host() string { return string(x.ctx.Request.Header.Host()) }

// TLS reports whether the client speaks TLS.
func (x *Exchange) TLS() bool { return x.c.tls != nil }

// HTTP10 reports whether the client speaks HTTP/1.0.
func (x *Exchange) HTTP10() bool { return x.http10 }

// Remote returns the client's address.
func (x *Exchange) Remote() netip.AddrPort { return remote(x.ctx.RemoteAddr()) }

// Get returns a request field's value, values of several fields joined by a
// comma, "" when there is none.
func (x *Exchange) Get(name string) string {
	h := &x.ctx.Request.Header
	v := h.Peek(name)
	if v == nil {
		return ""
	}
	if all := h.PeekAll(name); len(all) > 1 {
		s := string(all[0])
		for _, v := range all[1:] {
			s += ", " + string(v)
		}
		return s
	}
	return string(v)
}

// Fields calls f for every request field.
func (x *Exchange) Fields(f func(name, value string)) {
	for k, v := range x.ctx.Request.Header.All() {
		f(string(k), string(v))
	}
}

// Body returns the request body and its length, -1 when it is not known; nil
// when there is none. A body that breaks off ends with io.ErrUnexpectedEOF.
func (x *Exchange) Body() (io.Reader, int64) {
	if x.in == nil {
		return nil, 0
	}
	return x.in, x.in.length
}

// Add adds a field to the answer. The name must be in its canonical form.
// Content-Length, Transfer-Encoding and Connection are left out: they are the
// front's own.
func (x *Exchange) Add(name, value string) {
	if own(name) {
		return
	}
	x.fields = appendField(x.fields, name, value)
}

// AddBytes is Add for a value that is not kept.
func (x *Exchange) AddBytes(name string, value []byte) {
	if own(name) {
		return
	}
	x.fields = appendField(x.fields, name, value)
}

// own reports whether a field is the front's own.
func own(name string) bool {
	switch len(name) {
	case 10:
		return equalFold(name, "connection")
	case 14:
		return equalFold(name, "content-length")
	case 17:
		return equalFold(name, "transfer-encoding")
	}
	return false
}

// appendField appends a field line. Control characters would split the answer in
// two; they become spaces (RFC 9110 5.5).
func appendField[V string | []byte](b []byte, name string, value V) []byte {
	from := len(b)
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	line := b[from:]
	for i, c := range line {
		if controls[c] {
			line[i] = ' '
		}
	}
	return append(b, '\r', '\n')
}

// Interim sends an interim answer ahead of the one to come (RFC 9110, 15.2),
// such as 103. It may only be called while the handler runs, by one goroutine at
// a time. Clients of HTTP/1.0 know of none and get none; the same goes for 100
// and 101, which are between two neighbours.
func (x *Exchange) Interim(status int, h http.Header) {
	if x.http10 || status < http.StatusProcessing || status > 199 {
		return
	}
	b := append(make([]byte, 0, 512), "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(status)...)
	b = append(b, '\r', '\n')
	for name, values := range h {
		for _, v := range values {
			if !own(name) {
				b = appendField(b, name, v)
			}
		}
	}
	b = append(b, '\r', '\n')
	x.c.extend(time.Now())
	_, _ = x.c.top.Write(b) // who has left is noticed with the answer
}

// Close makes this the connection's last answer.
func (x *Exchange) Close() { x.close = true }

const textPlain = "text/plain; charset=utf-8"

// Text answers with one plain sentence.
func (x *Exchange) Text(status int, sentence string) {
	x.closeBody()
	x.Add("Content-Type", textPlain)
	x.Add("X-Content-Type-Options", "nosniff")
	x.Add("Date", HTTPDate())
	x.status, x.text, x.length, x.bare = status, sentence+"\n", int64(len(sentence)+1), false
}

// Head answers with a status and the fields added, without a body: a HEAD
// request, or a status that has none. length goes into Content-Length; -1
// leaves it out.
func (x *Exchange) Head(status int, length int64) {
	x.closeBody()
	x.status, x.length, x.text, x.bare = status, length, "", true
}

// Send answers with a body of length bytes, -1 when it is not known: then it
// is chunked, or ends with the connection for HTTP/1.0. Never more than length
// bytes are sent. Trouble after this cuts the connection, so that a part is
// never taken for the whole; if nothing was sent yet, it is a 502.
func (x *Exchange) Send(status int, length int64, b Body) {
	x.closeBody()
	x.status, x.length, x.text, x.bare, x.body = status, length, "", false, b
}

// bodiless reports whether the answer has no body: because it was asked for
// without, or because its status never has one (RFC 9112 6.3).
func (x *Exchange) bodiless() bool {
	return x.bare || x.method == http.MethodHead || neverBody(x.status)
}

func neverBody(status int) bool {
	return status == http.StatusNoContent || status == http.StatusNotModified
}

// appendHead appends the status line, the fields and the empty line to b.
func (x *Exchange) appendHead(b []byte) []byte {
	if x.status == http.StatusOK {
		b = append(b, "HTTP/1.1 200 OK\r\n"...)
	} else {
		b = append(b, "HTTP/1.1 "...)
		b = strconv.AppendInt(b, int64(x.status), 10)
		b = append(b, ' ')
		b = append(b, http.StatusText(x.status)...)
		b = append(b, '\r', '\n')
	}
	switch {
	case neverBody(x.status):
	case x.length >= 0:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, x.length, 10)
		b = append(b, '\r', '\n')
	case x.bodiless() && x.method != http.MethodHead:
		b = append(b, "Content-Length: 0\r\n"...) // else the client would wait for the end
	case x.bodiless() || x.http10:
	default:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	b = append(b, x.fields...)
	if x.close {
		b = append(b, "Connection: close\r\n"...)
	} else if x.http10 {
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return append(b, '\r', '\n')
}

// closeBody ends a body that was given to Send.
func (x *Exchange) closeBody() {
	b := x.body
	if b == nil {
		return
	}
	x.body = nil
	defer func() {
		if r := recover(); r != nil {
			x.s.panicked("body close", r)
		}
	}()
	b.Close()
}

// finish tells Done and recycles x.
func (x *Exchange) finish() {
	x.closeBody()
	if x.in != nil {
		x.in.end()
	}
	x.c.now = time.Now()
	x.out.Status = x.status
	x.out.Duration = x.c.now.Sub(x.Start)
	if x.out.Err == errNotWritten {
		x.c.cut = true
	}
	if x.Done != nil {
		x.done()
	}
	fields := x.fields[:0]
	if cap(fields) > 4*maxHead {
		fields = nil
	}
	*x = Exchange{fields: fields}
	exchanges.Put(x)
}

// done calls Done; if that panics, nothing is left that could be told.
func (x *Exchange) done() {
	defer func() {
		if r := recover(); r != nil {
			x.s.panicked("done", r)
		}
	}()
	x.Done(x, x.out)
}

// httpDate is the current time as a field value, made anew each second.
var httpDate atomic.Pointer[dated]

type dated struct {
	second int64
	text   string
}

// HTTPDate returns the current time as a Date field's value (RFC 9110 5.6.7).
func HTTPDate() string {
	now := time.Now()
	if d := httpDate.Load(); d != nil && d.second == now.Unix() {
		return d.text
	}
	d := &dated{now.Unix(), now.UTC().Format(http.TimeFormat)}
	httpDate.Store(d)
	return d.text
}
