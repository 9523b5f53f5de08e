// Package load asks a server for known bytes over few keep-alive connections, as cheaply as it can, and checks what comes back.
package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Target is a server under load.
type Target struct {
	Addr string      // host:port
	Host string      // what the Host field says
	TLS  *tls.Config // nil: plain HTTP
}

// Piece is one request and what its answer must hold.
type Piece struct {
	Request []byte
	Status  int
	Body    []byte
}

// Whole makes the request for all of a file.
func (t Target) Whole(path string, content []byte) Piece {
	return Piece{Request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, t.Host), Status: 200, Body: content}
}

// Range makes the request for the bytes [start, end) of a file.
func (t Target) Range(path string, content []byte, start, end int64) Piece {
	return Piece{
		Request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nRange: bytes=%d-%d\r\n\r\n", path, t.Host, start, end-1),
		Status:  206,
		Body:    content[start:end],
	}
}

// Ranges cuts a file into ranges of size bytes; the last may be shorter.
func (t Target) Ranges(path string, content []byte, size int64) []Piece {
	var pieces []Piece
	for start := int64(0); start < int64(len(content)); start += size {
		pieces = append(pieces, t.Range(path, content, start, min(start+size, int64(len(content)))))
	}
	return pieces
}

// answerTimeout bounds one request: a peer that fetches a whole file per range is slow, not dead.
const answerTimeout = 120 * time.Second

// conn is one keep-alive connection; it belongs to one goroutine.
type conn struct {
	net.Conn
	buf  []byte
	stop func() bool // ends the watch of the context
}

// dial connects; ctx's end cuts the connection. TLS must agree on 1.3 with
// AES-128-GCM, which this client asks for first: all servers do the same work.
func (t Target) dial(ctx context.Context) (*conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", t.Addr)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, buf: make([]byte, 256<<10)}
	if t.TLS != nil {
		secure := tls.Client(raw, t.TLS)
		if err := secure.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("%s: %w", t.Addr, err)
		}
		if s := secure.ConnectionState(); s.Version != tls.VersionTLS13 || s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
			raw.Close()
			return nil, fmt.Errorf("%s: agreed on %s, %s; expected TLS 1.3, TLS_AES_128_GCM_SHA256", t.Addr, tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite))
		}
		c.Conn = secure
	}
	c.stop = context.AfterFunc(ctx, func() { raw.Close() })
	return c, nil
}

func (c *conn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// timing is how long after the request's start the answer and its body began.
type timing struct{ head, body time.Duration }

// do sends one request and reads its whole answer. Status and length are always checked, the
// bytes when verify is set.
func (c *conn) do(p *Piece, verify bool) (t timing, err error) {
	start := time.Now()
	if err := c.SetDeadline(start.Add(answerTimeout)); err != nil {
		return t, err
	}
	if _, err := c.Write(p.Request); err != nil {
		return t, err
	}
	n, head := 0, -1
	for head < 0 {
		m, err := c.Read(c.buf[n:])
		if t.head == 0 {
			t.head = time.Since(start)
		}
		if n += m; err != nil {
			return t, fmt.Errorf("in the head: %w", err)
		}
		if head = bytes.Index(c.buf[:n], []byte("\r\n\r\n")); head < 0 && n > 16<<10 {
			return t, fmt.Errorf("head of more than %d bytes", n)
		}
	}
	if err := checkHead(c.buf[:head+2], p); err != nil {
		return t, err
	}
	got, rest := c.buf[head+4:n], p.Body
	for {
		if t.body == 0 && len(got) > 0 {
			t.body = time.Since(start)
		}
		if len(got) > len(rest) {
			return t, fmt.Errorf("%d bytes behind the answer", len(got)-len(rest))
		}
		if verify && !bytes.Equal(got, rest[:len(got)]) {
			return t, fmt.Errorf("wrong bytes between %d and %d of %d", len(p.Body)-len(rest), len(p.Body)-len(rest)+len(got), len(p.Body))
		}
		if rest = rest[len(got):]; len(rest) == 0 {
			return t, nil
		}
		m, err := c.Read(c.buf[:min(len(c.buf), len(rest))])
		if err != nil {
			return t, fmt.Errorf("%d bytes before the end: %w", len(rest), err)
		}
		got = c.buf[:m]
	}
}

// checkHead looks at the status and the length. A head without a length, such as a chunked one, is an error.
func checkHead(head []byte, p *Piece) error {
	line, fields, _ := bytes.Cut(head, []byte("\r\n"))
	if len(line) < 12 || string(line[9:12]) != strconv.Itoa(p.Status) {
		return fmt.Errorf("answer %q: expected %d", line, p.Status)
	}
	const name = "content-length:"
	for len(fields) > 0 {
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		if len(line) > len(name) && line[7] == '-' && bytes.EqualFold(line[:len(name)], []byte(name)) {
			value := string(bytes.TrimSpace(line[len(name):]))
			if n, err := strconv.Atoi(value); err != nil || n != len(p.Body) {
				return fmt.Errorf("Content-Length %q: expected %d", value, len(p.Body))
			}
			return nil
		}
	}
	return fmt.Errorf("answer without Content-Length: %q", head)
}
