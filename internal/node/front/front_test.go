package front

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serverTLS is one certificate for all tests.
var serverTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "front"}, DNSNames: []string{"front.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{
		Certificates:                []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:                  tls.VersionTLS12,
		DynamicRecordSizingDisabled: true,
	}
})

// start serves h on loopback until the test ends and returns the address.
func start(t testing.TB, cfg Config, tlsConfig *tls.Config) (*Server, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, ln, cfg, tlsConfig), ln.Addr().String()
}

func startOn(t testing.TB, ln net.Listener, cfg Config, tlsConfig *tls.Config) *Server {
	t.Helper()
	s := New(cfg)
	over := make(chan error, 1)
	go func() { over <- s.Serve(ln, tlsConfig) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		if err := <-over; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

// A client speaks bytes.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return dialed(t, nc)
}

func dialed(t testing.TB, nc net.Conn) *client {
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{nc, t, bufio.NewReader(nc)}
}

func dialTLS(t testing.TB, addr string, cfg *tls.Config) *client {
	t.Helper()
	if cfg == nil {
		cfg = &tls.Config{InsecureSkipVerify: true}
	}
	nc, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { nc.Close() })
	return &client{nc, t, bufio.NewReader(nc)}
}

func (c *client) say(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatalf("sending: %v", err)
	}
}

// answer reads one answer to a request with the given method.
func (c *client) answer(method string) (*http.Response, string, error) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

// want reads one whole answer and compares status and body.
func (c *client) want(method string, status int, text string) *http.Response {
	c.t.Helper()
	resp, got, err := c.answer(method)
	if err != nil {
		c.t.Fatalf("answer: %v (%q so far)", err, got)
	}
	if resp.StatusCode != status || got != text {
		c.t.Fatalf("got %d %q; want %d %q", resp.StatusCode, got, status, text)
	}
	return resp
}

// over expects the end of the connection, and nothing before it.
func (c *client) over() {
	c.t.Helper()
	if b, err := io.ReadAll(c.r); err != nil || len(b) > 0 {
		c.t.Fatalf("before the end of the connection: %q, %v; want nothing", b, err)
	}
}

// pieces is a Body made of what a test gives it.
type pieces struct {
	list   []Piece
	err    error  // after the last piece; nil means io.EOF
	before func() // called at each Next
	closed atomic.Int32
}

func (b *pieces) Next() (Piece, error) {
	if b.before != nil {
		b.before()
	}
	if len(b.list) == 0 {
		if b.err != nil {
			return Piece{}, b.err
		}
		return Piece{}, io.EOF
	}
	p := b.list[0]
	b.list = b.list[1:]
	return p, nil
}

func (b *pieces) Close() { b.closed.Add(1) }

func text(parts ...string) *pieces {
	b := &pieces{}
	for _, p := range parts {
		b.list = append(b.list, Piece{Bytes: []byte(p)})
	}
	return b
}

// file makes a file of n bytes, all different from their neighbours.
func file(t testing.TB, n int) (*os.File, []byte) {
	t.Helper()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8*13)
	}
	name := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, b
}

// echo answers with method and target, and says what became of it.
func echo(x *Exchange) {
	x.Text(200, x.Method()+" "+x.Target())
}

func TestPipelinedRequests(t *testing.T) {
	t.Parallel()
	_, addr := start(t, Config{Handler: echo}, nil)
	c := dial(t, addr)
	var b strings.Builder
	for i := range 50 {
		fmt.Fprintf(&b, "GET /%d HTTP/1.1\r\nHost: a.test\r\n\r\n", i)
	}
	c.say(b.String() + "GARBAGE\r\n\r\n")
	for i := range 50 {
		resp := c.want("GET", 200, fmt.Sprintf("GET /%d\n", i))
		if len(resp.Header) != 4 { // Content-Length, Content-Type, Date, X-Content-Type-Options
			t.Fatalf("fields of answer %d: %v", i, resp.Header)
		}
	}
	// The answer to what is no request comes after all the others, in the same form.
	resp := c.want("GET", 400, "The request is not proper HTTP/1.1.\n")
	if !resp.Close || resp.Header.Get("Date") == "" {
		t.Errorf("answer to garbage: %v; want Date and Connection: close", resp.Header)
	}
	c.over()
}

func TestHeadsOfAnswers(t *testing.T) {
	t.Parallel()
	_, addr := start(t, Config{Handler: func(x *Exchange) {
		switch x.Target() {
		case "/204":
			x.Send(204, 3, text("abc"))
		case "/304":
			x.Add("ETag", `"1"`)
			x.Head(304, 1000)
		case "/bare":
			x.Head(200, -1)
		case "/unknown":
			x.Send(200, -1, text("ab", "c"))
		case "/silent":
		case "/odd":
			x.Send(99, 3, text("abc"))
		case "/799":
			x.Send(799, 3, text("abc"))
		case "/text304":
			x.Text(304, "not to be seen")
		default:
			x.Add("Content-Length", "77")
			x.Add("Transfer-Encoding", "chunked")
			x.AddBytes("Connection", []byte("upgrade"))
			x.Add("Date", "Mon, 01 Jan 2024 00:00:00 GMT")
			x.Add("ETag", `"v1"`)
			x.Add("X-Split", "a\r\nSet-Cookie: b=c\x00d\x7fe\tf")
			x.Add("X-Na\r\nme", "v")
			x.Send(200, 3, text("abc"))
		}
	}}, nil)
	const (
		stored = "Date: Mon, 01 Jan 2024 00:00:00 GMT\r\nETag: \"v1\"\r\n" +
			"X-Split: a  Set-Cookie: b=c d e\tf\r\nX-Na  me: v\r\n"
		textual = "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nDate: *\r\n"
	)
	for _, tt := range []struct{ name, request, want string }{
		{"get", "GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + stored + "\r\nabc"},
		{"head", "HEAD / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + stored + "\r\n"},
		{"1.0", "GET / HTTP/1.0", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + stored + "Connection: close\r\n\r\nabc"},
		{"1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + stored + "Connection: keep-alive\r\n\r\nabc"},
		{"1.0 keep-alive and close", "GET / HTTP/1.0\r\nConnection: keep-alive, close", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + stored + "Connection: close\r\n\r\nabc"},
		{"close", "GET / HTTP/1.1\r\nConnection: close", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + stored + "Connection: close\r\n\r\nabc"},
		{"Close in a list", "GET / HTTP/1.1\r\nConnection: TE , Close", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + stored + "Connection: close\r\n\r\nabc"},
		{"close is not taken back", "GET / HTTP/1.1\r\nConnection: close\r\nConnection: TE", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + stored + "Connection: close\r\n\r\nabc"},
		{"204", "GET /204 HTTP/1.1", "HTTP/1.1 204 No Content\r\n\r\n"},
		{"304", "GET /304 HTTP/1.1", "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n"},
		{"304 with text", "GET /text304 HTTP/1.1", "HTTP/1.1 304 Not Modified\r\n" + textual + "\r\n"},
		{"head of nothing", "GET /bare HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"chunked", "GET /unknown HTTP/1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"},
		{"chunked, head", "HEAD /unknown HTTP/1.1", "HTTP/1.1 200 OK\r\n\r\n"},
		{"until the end", "GET /unknown HTTP/1.0\r\nConnection: keep-alive", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"},
		{"unknown status", "GET /799 HTTP/1.1", "HTTP/1.1 799 \r\nContent-Length: 3\r\n\r\nabc"},
		{"no answer", "GET /silent HTTP/1.1", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 25\r\n" + textual + "\r\nThe node did not answer.\n"},
		{"no status", "GET /odd HTTP/1.1", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 40\r\n" + textual + "\r\nThe node's answer has no proper status.\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, addr)
			c.say(tt.request + "\r\nHost: a.test\r\n\r\n")
			c.Conn.(*net.TCPConn).CloseWrite()
			got, err := io.ReadAll(c.r)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(tt.want, "Date: *") {
				got = dateField.ReplaceAll(got, []byte("Date: *\r\n"))
			}
			if string(got) != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

var dateField = regexp.MustCompile("Date: [^\r]*\r\n")
