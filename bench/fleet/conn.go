package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// dialer makes connections to the control plane at addr, host:port. from gives
// the address to come from: one address has ports for some 28,000.
type dialer struct {
	addr string
	from func() net.Addr
}

// conn is a connection of HTTP/1.1, kept alive. net/http's client would do, but
// it keeps about four times the memory and two more goroutines for each.
type conn struct {
	net.Conn
	host string // as in URLs
	r    *bufio.Reader
	stop func() bool // ends the watch of the context
}

// dial connects; ctx's end cuts the connection.
func (d dialer) dial(ctx context.Context, cfg *tls.Config) (*conn, error) {
	nd := net.Dialer{Timeout: 30 * time.Second, LocalAddr: d.from()}
	raw, err := nd.DialContext(ctx, "tcp", d.addr)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(raw, cfg)
	hctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := secure.HandshakeContext(hctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	return &conn{secure, d.addr, bufio.NewReaderSize(secure, 1024), context.AfterFunc(ctx, func() { raw.Close() })}, nil
}

func (c *conn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// answer is what the control plane said. close is true if it ends the connection.
type answer struct {
	status int
	body   []byte
	close  bool
}

// refusal is an answer that is no success.
type refusal struct {
	status int
	code   string
}

func (r *refusal) Error() string { return fmt.Sprintf("answered %d %s", r.status, r.code) }

// do sends a request with the head a node sends, and reads the answer. After an
// error the connection is of no more use.
func (c *conn) do(method, path string, body []byte, limit time.Duration) (answer, error) {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return answer{}, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Go-http-client/1.1\r\nAccept: application/json\r\n", method, path, c.host)
	if body != nil {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n", len(body))
	}
	b.WriteString("Accept-Encoding: gzip\r\n\r\n")
	if _, err := c.Write(append([]byte(b.String()), body...)); err != nil {
		return answer{}, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, close: resp.Close}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return a, err
}

// into reads the answer's JSON. Errors: *refusal.
func (a answer) into(v any) error {
	if a.status != http.StatusOK {
		var e struct{ Error struct{ Code string } }
		_ = json.Unmarshal(a.body, &e) // not ours: the status says enough
		return &refusal{a.status, e.Error.Code}
	}
	return json.Unmarshal(a.body, v)
}

var errHandshake = errors.New("TLS handshake")

// kind is an error in few words, the same for errors of one kind.
func kind(err error) string {
	var r *refusal
	var timeout net.Error
	prefix := ""
	if errors.Is(err, errHandshake) {
		prefix = "TLS handshake: "
	}
	switch {
	case errors.As(err, &r):
		return r.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return prefix + "refused"
	case errors.As(err, &timeout) && timeout.Timeout():
		return prefix + "took too long"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return prefix + "cut"
	}
	text := err.Error()
	return text[:min(len(text), 100)]
}
