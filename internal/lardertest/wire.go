package lardertest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"strings"
)

// Field is one header line of an answer, the name as it came.
type Field struct{ Name, Value string }

// Head is the head of an answer as it came over the connection. net/http
// would tidy it up; the clients modelled here do not.
type Head struct {
	Proto  string // "HTTP/1.1"
	Status int
	Fields []Field
}

// Get returns the value of the last field whose name is exactly name, letter
// case included, and whether there is one.
func (h *Head) Get(name string) (string, bool) {
	value, ok := "", false
	for _, f := range h.Fields {
		if f.Name == name {
			value, ok = f.Value, true
		}
	}
	return value, ok
}

// fold is Get whatever the letter case: what HTTP says, and what frames the
// body for every client.
func (h *Head) fold(name string) string {
	value := ""
	for _, f := range h.Fields {
		if strings.EqualFold(f.Name, name) {
			value = f.Value
		}
	}
	return value
}

var errMalformed = errors.New("malformed answer")

// readHead reads the head of one answer, interim ones (1xx) included.
func readHead(r *bufio.Reader) (*Head, error) {
	raw, err := readRawHead(r)
	if err != nil {
		if errors.Is(err, io.EOF) && raw != "" {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(raw, "\r\n"), "\r\n")
	proto, rest, _ := strings.Cut(lines[0], " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || !strings.HasPrefix(proto, "HTTP/1.") {
		return nil, fmt.Errorf("%w: status line %q", errMalformed, lines[0])
	}
	h := &Head{Proto: proto, Status: status}
	for _, line := range lines[1:] {
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("%w: header line %q", errMalformed, line)
		}
		h.Fields = append(h.Fields, Field{name, strings.TrimSpace(value)})
	}
	return h, nil
}

// body is the body of an answer. Its Read ends with io.EOF only when the body
// is whole as far as its framing can tell.
type body struct {
	r       io.Reader
	left    int64 // with Content-Length; -1 otherwise
	chunked *bufio.Reader
	reuse   bool // the connection can take another request afterwards
}

// newBody finds out how the body is framed (RFC 9112 section 6.3).
func newBody(r *bufio.Reader, h *Head, method string) (*body, error) {
	reuse := !strings.EqualFold(h.fold("Connection"), "close") && h.Proto == "HTTP/1.1"
	length := h.fold("Content-Length")
	switch {
	case method == "HEAD" || h.Status == 204 || h.Status == 304 || h.Status < 200:
		return &body{r: r, left: 0, reuse: reuse}, nil
	case strings.EqualFold(h.fold("Transfer-Encoding"), "chunked"):
		return &body{r: httputil.NewChunkedReader(r), left: -1, chunked: r, reuse: reuse}, nil
	case length != "":
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%w: Content-Length %q", errMalformed, length)
		}
		return &body{r: r, left: n, reuse: reuse}, nil
	default:
		return &body{r: r, left: -1}, nil
	}
}

// Read reads as io.Reader says; io.ErrUnexpectedEOF: the body is short.
func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if b.left > 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := b.r.Read(p)
	if b.left > 0 {
		b.left -= int64(n)
		if errors.Is(err, io.EOF) && b.left > 0 {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	if errors.Is(err, io.EOF) && b.chunked != nil {
		err = b.trailers()
	}
	return n, err
}

// trailers skips what follows the last chunk.
func (b *body) trailers() error {
	r := b.chunked
	b.chunked = nil
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return io.ErrUnexpectedEOF
		}
		if strings.TrimRight(line, "\r\n") == "" {
			return io.EOF
		}
	}
}

// wireConn is a client's connection.
type wireConn struct {
	net.Conn
	proto string // by ALPN, "" when there was none
}
