package front

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// next follows each request of the table in the same write: whoever gets the
// end of the first wrong takes this for something else.
const next = "GET /next HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"

// What is answered to requests that are no proper HTTP/1.1, byte for byte. A
// row with a status of 400 and more never reaches the handler, and its
// connection closes without an answer to what follows.
func TestWhatIsAnswered(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	_, addr := start(t, Config{Handler: func(x *Exchange) {
		calls.Add(1)
		if r, _ := x.Body(); r != nil && x.Target() == "/read" {
			b, err := io.ReadAll(r)
			x.Text(200, fmt.Sprintf("%s %s %q %v", x.Method(), x.Target(), b, err))
			return
		}
		x.Text(200, x.Method()+" "+x.Target()+" "+x.Host())
	}}, nil)
	const h = "Host: a.test\r\n"
	long := strings.Repeat("a", 17<<10)
	rows := []struct {
		name, in string
		answers  string // status and body of each answer, the refusals without body
	}{
		// Request line.
		{"proper", "GET /a HTTP/1.1\r\n" + h + "\r\n", "200 GET /a a.test"},
		{"empty lines before", "\r\n\r\nGET /a HTTP/1.1\r\n" + h + "\r\n", "200 GET /a a.test"},
		{"bare LF ends the request line (RFC 9112 2.2: may)", "GET /a HTTP/1.1\n" + h + "\r\n", "200 GET /a a.test"},
		{"lower-case method is another method", "get /a HTTP/1.1\r\n" + h + "\r\n", "200 get /a a.test"},
		{"method with a bad byte", "G(T /a HTTP/1.1\r\n" + h + "\r\n", "400"},
		{"no version", "GET /a\r\n" + h + "\r\n", "400"},
		{"HTTP/1.2", "GET /a HTTP/1.2\r\n" + h + "\r\n", "505"},
		{"HTTP/2.0 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"},
		{"HTTP/0.9 with headers", "GET /a HTTP/0.9\r\n" + h + "\r\n", "505"},
		{"http/1.1 in lower case", "GET /a http/1.1\r\n" + h + "\r\n", "400"},
		{"two spaces", "GET  /a HTTP/1.1\r\n" + h + "\r\n", "400"},
		{"space in the target", "GET /a b HTTP/1.1\r\n" + h + "\r\n", "400"},
		{"tab in the target", "GET /a\tb HTTP/1.1\r\n" + h + "\r\n", "400"},
		{"NUL in the target", "GET /a\x00 HTTP/1.1\r\n" + h + "\r\n", "400"},
		{"CR in the target", "GET /a\rb HTTP/1.1\r\n" + h + "\r\n", "400"},
		{"no slash", "GET a HTTP/1.1\r\n" + h + "\r\n", "400"},
		{"space before the method", " GET /a HTTP/1.1\r\n" + h + "\r\n", "400"},
		{"target of 17 KiB", "GET /" + long + " HTTP/1.1\r\n" + h + "\r\n", "431"},
		{"absolute form", "GET http://b.test/a HTTP/1.1\r\n" + h + "\r\n", "200 GET http://b.test/a a.test"},
		{"URL in the query", "GET /a?u=http://b.test/c HTTP/1.1\r\n" + h + "\r\n", "200 GET /a?u=http://b.test/c a.test"},
		{"asterisk", "OPTIONS * HTTP/1.1\r\n" + h + "\r\n", "200 OPTIONS * a.test"},
		{"authority", "CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n", "200 CONNECT b.test:443 b.test:443"},
		{"authority without CONNECT", "GET b.test:443 HTTP/1.1\r\n" + h + "\r\n", "400"},
		{"TLS on the plain port", "\x16\x03\x01\x00\x05hello\r\n\r\n", "400"},
		// Fields.
		{"head of 17 KiB", "GET /a HTTP/1.1\r\n" + h + "X: " + long + "\r\n\r\n", "431"},
		{"bare LF", "GET /a HTTP/1.1\r\n" + h + "X: y\nZ: z\r\n\r\n", "400"},
		{"bare LF ends the head", "GET /a HTTP/1.1\r\n" + h + "\n", "400"},
		{"bare CR", "GET /a HTTP/1.1\r\n" + h + "X: y\rZ: z\r\n\r\n", "400"},
		{"folded", "GET /a HTTP/1.1\r\n" + h + "X: y\r\n z\r\n\r\n", "400"},
		{"folded first", "GET /a HTTP/1.1\r\n " + h + "\r\n", "400"},
		{"space before the colon", "GET /a HTTP/1.1\r\n" + h + "X : y\r\n\r\n", "400"},
		{"space in a name", "GET /a HTTP/1.1\r\n" + h + "X Y: y\r\n\r\n", "400"},
		{"no name", "GET /a HTTP/1.1\r\n" + h + ": y\r\n\r\n", "400"},
		{"no colon", "GET /a HTTP/1.1\r\n" + h + "X\r\n\r\n", "400"},
		{"NUL in a value", "GET /a HTTP/1.1\r\n" + h + "X: a\x00b\r\n\r\n", "400"},
		{"control byte in a value", "GET /a HTTP/1.1\r\n" + h + "X: a\x01b\r\n\r\n", "400"},
		{"byte above ASCII in a name", "GET /a HTTP/1.1\r\n" + h + "X\xc3\xa4: a\r\n\r\n", "400"},
		{"bytes above ASCII in a value", "GET /a HTTP/1.1\r\n" + h + "X: \xc3\xa4\r\n\r\n", "200 GET /a a.test"},
		// Host.
		{"no Host", "GET /a HTTP/1.1\r\n\r\n", "400"},
		{"no Host, HTTP/1.0", "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200 GET /a "},
		{"empty Host", "GET /a HTTP/1.1\r\nHost:\r\n\r\n", "400"},
		{"two Hosts", "GET /a HTTP/1.1\r\n" + h + "Host: b.test\r\n\r\n", "400"},
		{"the same Host twice", "GET /a HTTP/1.1\r\n" + h + "hOST: a.test\r\n\r\n", "400"},
		{"user information", "GET /a HTTP/1.1\r\nHost: b.test@a.test\r\n\r\n", "400"},
		{"Host with a path", "GET /a HTTP/1.1\r\nHost: a.test/b\r\n\r\n", "400"},
		{"Host with a space", "GET /a HTTP/1.1\r\nHost: a.test b.test\r\n\r\n", "400"},
		{"Host list", "GET /a HTTP/1.1\r\nHost: a.test,b.test\r\n\r\n", "400"},
		{"Host with two ports", "GET /a HTTP/1.1\r\nHost: a.test:80:81\r\n\r\n", "400"},
		{"Host with a port", "GET /a HTTP/1.1\r\nHost: a.test:80\r\n\r\n", "200 GET /a a.test:80"},
		// Bodies.
		{"Content-Length and Transfer-Encoding", "POST /a HTTP/1.1\r\n" + h + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		{"the other way round", "POST /a HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "400"},
		{"both, and Expect", "POST /a HTTP/1.1\r\n" + h + "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "400"},
		{"two Content-Lengths", "POST /a HTTP/1.1\r\n" + h + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"},
		{"the same twice", "POST /a HTTP/1.1\r\n" + h + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", "400"},
		{"list of lengths", "POST /a HTTP/1.1\r\n" + h + "Content-Length: 2, 2\r\n\r\nab", "400"},
		{"negative length", "POST /a HTTP/1.1\r\n" + h + "Content-Length: -2\r\n\r\nab", "400"},
		{"length with a sign", "POST /a HTTP/1.1\r\n" + h + "Content-Length: +2\r\n\r\nab", "400"},
		{"hexadecimal length", "POST /a HTTP/1.1\r\n" + h + "Content-Length: 0x2\r\n\r\nab", "400"},
		{"empty length", "POST /a HTTP/1.1\r\n" + h + "Content-Length:\r\n\r\nab", "400"},
		{"length beyond 64 bits", "POST /a HTTP/1.1\r\n" + h + "Content-Length: 99999999999999999999\r\n\r\nab", "400"},
		{"gzip, chunked", "POST /a HTTP/1.1\r\n" + h + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400"},
		{"identity", "POST /a HTTP/1.1\r\n" + h + "Transfer-Encoding: identity\r\n\r\n", "501"},
		{"chunked twice", "POST /a HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		{"vertical tab before chunked", "POST /a HTTP/1.1\r\n" + h + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "400"},
		{"chunked in HTTP/1.0", "POST /a HTTP/1.0\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		{"body left unread", "POST /a HTTP/1.1\r\n" + h + "Content-Length: 44\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\nX: abc\n", "200 POST /a a.test"},
		{"body of GET", "GET /a HTTP/1.1\r\n" + h + "Content-Length: 3\r\n\r\nGET", "200 GET /a a.test"},
		{"body of GET, read", "GET /read HTTP/1.1\r\n" + h + "Content-Length: 3\r\n\r\nabc", `200 GET /read "abc" <nil>`},
		{"empty body", "POST /a HTTP/1.1\r\n" + h + "Content-Length: 0\r\n\r\n", "200 POST /a a.test"},
		{"no length is no body", "POST /a HTTP/1.1\r\n" + h + "\r\n", "200 POST /a a.test"},
		{"chunked, read", "POST /read HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX: y\r\n\r\n", `200 POST /read "abcde" <nil>`},
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, addr)
			c.say(tt.in + next)
			method, _, _ := strings.Cut(strings.TrimSpace(tt.in), " ")
			resp, body, err := c.answer(method)
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprint(resp.StatusCode)
			if resp.StatusCode < 400 {
				got += " " + strings.TrimSuffix(body, "\n")
			}
			if got != tt.answers {
				t.Errorf("answer %q; want %q", got, tt.answers)
			}
			if resp.StatusCode >= 400 {
				if !resp.Close {
					t.Error("refused, but without Connection: close")
				}
				c.over()
				return
			}
			c.want("GET", 200, "GET /next a.test\n")
			c.over()
		})
	}
	t.Cleanup(func() {
		want := int64(0)
		for _, tt := range rows {
			if strings.HasPrefix(tt.answers, "200") {
				want += 2
			}
		}
		if n := calls.Load(); n != want {
			t.Errorf("%d requests reached the handler; want %d", n, want)
		}
	})
}

// reference is how many requests another parser sees. Like the engine, it skips
// empty lines before a request (RFC 9112 2.2).
func reference(in []byte) (requests int) {
	r := bufio.NewReader(strings.NewReader(string(in)))
	for {
		for b, _ := r.Peek(1); len(b) > 0 && (b[0] == '\r' || b[0] == '\n'); b, _ = r.Peek(1) {
			r.Discard(1)
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			return requests
		}
		requests++
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return requests
		}
	}
}

// memoryListener lets in-memory connections in.
type memoryListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func newMemoryListener() *memoryListener {
	return &memoryListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error   { close(l.done); return nil }
func (l *memoryListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *memoryListener) dial() net.Conn {
	a, b := net.Pipe()
	l.conns <- b
	return a
}

// scripted is a connection that says what it has to say and takes everything.
type scripted struct {
	net.Conn
	in   *strings.Reader
	once sync.Once
	done chan struct{} // closed by Close
}

func (c *scripted) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *scripted) Write(p []byte) (int, error)      { return len(p), nil }
func (c *scripted) Close() error                     { c.once.Do(func() { close(c.done) }); return nil }
func (c *scripted) SetReadDeadline(time.Time) error  { return nil }
func (c *scripted) SetWriteDeadline(time.Time) error { return nil }
func (c *scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *scripted) LocalAddr() net.Addr              { return &net.TCPAddr{} }

// Whatever a connection says, nothing panics, no request has both lengths, and
// no more requests are seen than a reference parser sees.
func FuzzConnection(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcdeGET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.0\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\n\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		seen := 0
		s := New(Config{Handler: func(x *Exchange) {
			seen++
			if x.Get("Content-Length") != "" && x.Get("Transfer-Encoding") != "" {
				t.Errorf("a request with both lengths: %q", in)
			}
			if seen%2 == 0 {
				if r, _ := x.Body(); r != nil {
					io.Copy(io.Discard, r)
				}
			}
			x.Text(200, "seen")
		}})
		ln := newMemoryListener()
		defer startWith(s, ln)()
		c := &scripted{in: strings.NewReader(string(in)), done: make(chan struct{})}
		ln.conns <- c
		<-c.done
		if want := reference(in); seen > want {
			t.Errorf("the handler saw %d requests, the reference %d: %q", seen, want, in)
		}
		if n := counter(s.m.panics); n != 0 {
			t.Errorf("%v panics: %q", n, in)
		}
	})
}

// strict never panics, and what it lets pass another parser reads the same way.
func FuzzStrict(f *testing.F) {
	f.Add([]byte("Host: a\r\nX: y\r\n\r\n"))
	f.Add([]byte("Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"))
	f.Add([]byte("Host: a\r\nConnection: x, close\r\nX: \r\n y\r\n\n"))
	f.Fuzz(func(t *testing.T, fields []byte) {
		in := "GET / HTTP/1.1\r\n" + string(fields)
		var h fasthttp.RequestHeader
		if h.Read(bufio.NewReaderSize(strings.NewReader(in), maxHead)) != nil {
			return
		}
		closes, e := strict(&h)
		if e != nil {
			return
		}
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(in)))
		if err != nil {
			t.Fatalf("accepted, but the reference says %v: %q", err, in)
		}
		if req.Host != string(h.Host()) {
			t.Errorf("Host %q; the reference reads %q", h.Host(), req.Host)
		}
		if want := int64(max(h.ContentLength(), 0)); h.ContentLength() != -1 && req.ContentLength != want {
			t.Errorf("Content-Length %d; the reference reads %d", want, req.ContentLength)
		}
		if chunked := len(req.TransferEncoding) > 0; chunked != (h.ContentLength() == -1) {
			t.Errorf("chunked %t; the reference reads %t", h.ContentLength() == -1, chunked)
		}
		if req.Close && !closes {
			t.Errorf("the reference reads Connection: close: %q", in)
		}
	})
}
