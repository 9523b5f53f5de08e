package front

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// ends counts how often Done and Close were called for one answer.
type ends struct {
	done atomic.Int32
	out  chan Outcome
}

func watch(x *Exchange, e *ends) {
	x.Done = func(_ *Exchange, out Outcome) {
		e.done.Add(1)
		e.out <- out
	}
}

var errDisk = errors.New("disk gone")

// What a client gets of an answer that does not go as promised: never a part
// that looks whole, never more than was promised; and Done and Close are called
// once, whatever happens.
func TestTrouble(t *testing.T) {
	t.Parallel()
	f, content := file(t, 300_000)
	const cut, whole, fault, gateway = "cut", "whole", "500", "502"
	for _, tt := range []struct {
		name    string
		request string
		length  int64
		body    func() *pieces
		want    string
		err     error
		bytes   int64
	}{
		{"body errs in the middle", "GET / HTTP/1.1", 10, func() *pieces { b := text("abc"); b.err = errDisk; return b }, cut, errDisk, 3},
		{"body ends early", "GET / HTTP/1.1", 10, func() *pieces { return text("abc") }, cut, io.ErrUnexpectedEOF, 3},
		{"chunked body errs", "GET / HTTP/1.1", -1, func() *pieces { b := text("abc"); b.err = errDisk; return b }, cut, errDisk, 3},
		{"body until the end errs", "GET / HTTP/1.0", -1, func() *pieces { b := text("abc"); b.err = errDisk; return b }, cut, errDisk, 3},
		{"body longer than promised", "GET / HTTP/1.1", 4, func() *pieces { return text("abc", "def") }, whole, errTooLong, 4},
		{"file longer than promised", "GET / HTTP/1.1", 100_000, func() *pieces {
			return &pieces{list: []Piece{{File: f, Len: 300_000}}}
		}, whole, errTooLong, 100_000},
		{"file ends early", "GET / HTTP/1.1", 400_000, func() *pieces {
			return &pieces{list: []Piece{{File: f, Len: 400_000}}}
		}, cut, io.ErrUnexpectedEOF, -1},
		{"error before anything", "GET / HTTP/1.1", 10, func() *pieces { return &pieces{err: errDisk} }, gateway, errDisk, 0},
		{"end before anything", "GET / HTTP/1.1", 10, func() *pieces { return &pieces{} }, gateway, io.ErrUnexpectedEOF, 0},
		{"panic before anything", "GET / HTTP/1.1", 10, func() *pieces { return &pieces{before: func() { panic("body") }} }, gateway, errPanic, 0},
		{"panic in the middle", "GET / HTTP/1.1", 10, func() *pieces {
			n := 0
			b := text("abc", "def")
			b.before = func() {
				if n++; n == 2 {
					panic("body")
				}
			}
			return b
		}, cut, errPanic, 3},
		{"all is well", "GET / HTTP/1.1", 6, func() *pieces { return text("abc", "", "def") }, whole, nil, 6},
		{"an empty body", "GET / HTTP/1.1", 0, func() *pieces { return text() }, whole, nil, 0},
		{"HEAD asks for no piece", "HEAD / HTTP/1.1", 6, func() *pieces { return &pieces{before: func() { panic("asked") }} }, whole, nil, 0},
	} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(tt.name+" "+scheme, func(t *testing.T) {
				t.Parallel()
				b, e := tt.body(), &ends{out: make(chan Outcome, 2)}
				h := func(x *Exchange) {
					watch(x, e)
					x.Add("ETag", `"1"`)
					x.Send(200, tt.length, b)
				}
				var c *client
				if scheme == "https" {
					_, addr := start(t, Config{Handler: h}, serverTLS())
					c = dialTLS(t, addr, nil)
				} else {
					_, addr := start(t, Config{Handler: h}, nil)
					c = dial(t, addr)
				}
				c.say(tt.request + "\r\nHost: a.test\r\n\r\n")
				method, _, _ := strings.Cut(tt.request, " ")
				resp, got, err := c.answer(method)
				out := <-e.out
				if !errors.Is(out.Err, tt.err) || tt.bytes >= 0 && tt.want != gateway && out.Bytes != tt.bytes {
					t.Errorf("outcome %d bytes, %v; want %d, %v", out.Bytes, out.Err, tt.bytes, tt.err)
				}
				switch tt.want {
				case cut:
					if resp != nil && err == nil {
						t.Errorf("the answer looks whole: %d %q", resp.StatusCode, got)
					}
				case whole:
					if err != nil || resp.StatusCode != 200 || tt.request[0] == 'G' && int64(len(got)) != tt.length {
						t.Errorf("answer of %d bytes, %v; want %d", len(got), err, tt.length)
					}
					if tt.length == 100_000 && got != string(content[:100_000]) {
						t.Error("the answer is not the file's beginning")
					}
				case gateway:
					if err != nil || resp.StatusCode != 502 || resp.Header.Get("ETag") != "" || out.Status != 502 {
						t.Errorf("answer %v, %v; want a 502 without the content's fields", resp, err)
					}
				}
				if tt.err != nil && tt.want != gateway {
					if rest, _ := io.ReadAll(c.r); len(rest) > 0 {
						t.Errorf("after the answer: %q; want the end of the connection", rest)
					}
				}
				if b.closed.Load() != 1 || e.done.Load() != 1 {
					t.Errorf("Close was called %d times, Done %d times; want once each", b.closed.Load(), e.done.Load())
				}
			})
		}
	}
}

// A handler that panics costs its own request, whatever it had done before.
func TestHandlerPanics(t *testing.T) {
	t.Parallel()
	b, e := text("abc"), &ends{out: make(chan Outcome, 2)}
	s, addr := start(t, Config{Handler: func(x *Exchange) {
		switch x.Target() {
		case "/handler":
			watch(x, e)
			x.Add("ETag", `"1"`)
			x.Send(200, 3, b)
			panic("handler")
		case "/done":
			x.Done = func(*Exchange, Outcome) { panic("done") }
		}
		x.Text(200, "fine")
	}}, nil)
	c := dial(t, addr)
	c.say("GET /handler HTTP/1.1\r\nHost: a.test\r\n\r\n")
	if resp := c.want("GET", 500, "The node met a fault of its own.\n"); resp.Header.Get("ETag") != "" {
		t.Error("the panicking handler's fields were sent")
	}
	c.over()
	if out := <-e.out; out.Status != 500 || b.closed.Load() != 1 || e.done.Load() != 1 {
		t.Errorf("status %d, Close %d times, Done %d times; want 500 and once each", out.Status, b.closed.Load(), e.done.Load())
	}
	c = dial(t, addr)
	c.say(strings.Repeat("GET /done HTTP/1.1\r\nHost: a.test\r\n\r\n", 3))
	for range 3 {
		c.want("GET", 200, "fine\n")
	}
	c.say("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	c.want("GET", 200, "fine\n")
	c.over()
	if n := counter(s.m.panics); n != 4 {
		t.Errorf("%v panics counted; want 4", n)
	}
}

// A client that leaves in the middle ends its answer, and nothing else.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			f, _ := file(t, 1<<20)
			e := &ends{out: make(chan Outcome, 2)}
			b := &pieces{}
			for range 64 {
				b.list = append(b.list, Piece{File: f, Len: 1 << 20})
			}
			h := func(x *Exchange) {
				watch(x, e)
				x.Send(200, 64<<20, b)
			}
			var c *client
			if scheme == "https" {
				_, addr := start(t, Config{Handler: h}, serverTLS())
				c = dialTLS(t, addr, nil)
			} else {
				_, addr := start(t, Config{Handler: h}, nil)
				c = dial(t, addr)
			}
			c.say("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
			if _, err := io.CopyN(io.Discard, c.r, 100_000); err != nil {
				t.Fatal(err)
			}
			c.Close()
			if out := <-e.out; out.Err == nil || out.Bytes >= 64<<20 {
				t.Errorf("outcome %d bytes, %v; want an error", out.Bytes, out.Err)
			}
			if b.closed.Load() != 1 {
				t.Errorf("Close was called %d times", b.closed.Load())
			}
		})
	}
}

// Content comes out as it lies in the file, whatever way it takes.
func TestContent(t *testing.T) {
	t.Parallel()
	const size = 3<<20 + 17
	f, content := file(t, size)
	h := func(x *Exchange) {
		b := &pieces{}
		length := int64(size)
		switch x.Target() {
		case "/memory":
			b.list = []Piece{{Bytes: content}}
		case "/small":
			for off := int64(0); off < size; off += 30_000 {
				b.list = append(b.list, Piece{File: f, Off: off, Len: min(30_000, size-off)})
			}
		case "/mixed":
			b.list = []Piece{{Bytes: content[:100]}, {File: f, Off: 100, Len: size - 200}, {Bytes: content[size-100:]}}
		case "/unknown":
			b.list = []Piece{{Bytes: content[:600_000]}, {File: f, Off: 600_000, Len: size - 600_000}}
			length = -1
		case "/fields":
			for range 200 {
				x.Add("X-Long", strings.Repeat("v", 1000))
			}
			b.list = []Piece{{File: f, Len: 1000}, {File: f, Off: 1000, Len: size - 1000}}
		default:
			b.list = []Piece{{File: f, Len: size}}
		}
		x.Send(200, length, b)
	}
	_, plain := start(t, Config{Handler: h}, nil)
	_, secure := start(t, Config{Handler: h}, serverTLS())
	for _, scheme := range []string{"http", "https"} {
		for _, target := range []string{"/", "/memory", "/small", "/mixed", "/unknown", "/fields"} {
			t.Run(scheme+target, func(t *testing.T) {
				t.Parallel()
				c := &client{}
				if scheme == "https" {
					c = dialTLS(t, secure, nil)
				} else {
					c = dial(t, plain)
				}
				for range 2 {
					c.say("GET " + target + " HTTP/1.1\r\nHost: a.test\r\n\r\n")
					_, got, err := c.answer("GET")
					if err != nil || got != string(content) {
						t.Fatalf("%d bytes, %v; want the %d of the file", len(got), err, size)
					}
				}
			})
		}
	}
}

// A request body belongs to its request: read, unread, broken off, or read in
// the background by somebody who does not stop with the answer.
func TestRequestBodies(t *testing.T) {
	t.Parallel()
	background := make(chan error, 1)
	// No test of this kind ends by a deadline.
	_, addr := start(t, Config{HeadTimeout: time.Hour, Handler: func(x *Exchange) {
		r, n := x.Body()
		switch x.Target() {
		case "/read":
			got, err := io.ReadAll(r)
			if err != nil {
				x.Text(400, err.Error())
				return
			}
			if n >= 0 && n != int64(len(got)) {
				t.Errorf("body of %d bytes; length was %d", len(got), n)
			}
			x.Text(200, x.Method()+" "+string(got[:min(len(got), 10)]))
		case "/background":
			waits := make(chan bool)
			go func() {
				_, err := io.CopyN(io.Discard, r, 50_000)
				close(waits)
				if err == nil {
					_, err = io.Copy(io.Discard, r)
				}
				background <- err
			}()
			<-waits // from here on it waits for bytes that do not come
			x.Text(200, "early")
		default:
			x.Text(200, "unread")
		}
	}}, nil)
	const h = " HTTP/1.1\r\nHost: a.test\r\n"
	large := strings.Repeat("0123456789", 1<<20)

	t.Run("large, read", func(t *testing.T) {
		c := dial(t, addr)
		for range 2 {
			c.say("PUT /read" + h + "Content-Length: 10485760\r\n\r\n")
			c.say(large)
			c.want("PUT", 200, "PUT 0123456789\n")
		}
	})
	t.Run("large, unread: the answer arrives and the connection ends", func(t *testing.T) {
		c := dial(t, addr)
		c.say("PUT /" + h + "Content-Length: 1048576\r\n\r\n" + large[:1<<20])
		if resp := c.want("PUT", 200, "unread\n"); !resp.Close {
			t.Error("no Connection: close")
		}
		c.over()
	})
	t.Run("chunked, unread", func(t *testing.T) {
		c := dial(t, addr)
		c.say("PUT /" + h + "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\nGET /x" + h + "\r\n")
		c.want("PUT", 200, "unread\n")
		c.over()
	})
	t.Run("continue", func(t *testing.T) {
		c := dial(t, addr)
		c.say("PUT /read" + h + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
		if line, err := c.r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("got %q, %v; want 100 Continue", line, err)
		}
		c.r.ReadString('\n')
		c.say("abc")
		c.want("PUT", 200, "PUT abc\n")
	})
	t.Run("HTTP/1.0 knows no continue", func(t *testing.T) {
		c := dial(t, addr)
		c.say("PUT /read HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc")
		c.want("PUT", 200, "PUT abc\n")
		c.over()
	})
	for name, in := range map[string]string{
		"length":            "Content-Length: 20000\r\n\r\n" + large[:10000],
		"chunk":             "Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
		"between chunks":    "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
		"in the last chunk": "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0",
	} {
		t.Run("broken off, "+name, func(t *testing.T) {
			c := dial(t, addr)
			c.say("PUT /read" + h + in)
			c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			if resp, got, err := c.answer("PUT"); err == nil && resp.StatusCode == 200 {
				t.Errorf("taken for whole: %q", got)
			}
		})
	}
	t.Run("in the background", func(t *testing.T) {
		c := dial(t, addr)
		c.say("PUT /background" + h + "Content-Length: 100000\r\n\r\n" + large[:50_000])
		c.want("PUT", 200, "early\n")
		if err := <-background; err == nil {
			t.Error("the reader in the background was not told")
		}
		c.over()
	})
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	asked, proceed := make(chan bool), make(chan bool)
	s, addr := start(t, Config{Handler: func(x *Exchange) {
		if x.Target() == "/slow" {
			asked <- true
			<-proceed
		}
		x.Text(200, "fine")
	}}, nil)
	idle, fresh, slow := dial(t, addr), dial(t, addr), dial(t, addr)
	idle.say("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	idle.want("GET", 200, "fine\n")
	slow.say("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n")
	<-asked
	over := make(chan bool)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s.Shutdown(ctx)
		close(over)
	}()
	idle.over()
	fresh.over()
	select {
	case <-over:
		t.Fatal("Shutdown did not wait for the answer under way")
	default:
	}
	close(proceed)
	if resp := slow.want("GET", 200, "fine\n"); !resp.Close {
		t.Error("the last answer does not say Connection: close")
	}
	slow.over()
	<-over
	if _, err := http.Get("http://" + addr); err == nil {
		t.Error("a connection was let in after Shutdown")
	}
}

func TestRetiredListenerLetsAnswersFinishAndOthersGoOn(t *testing.T) {
	t.Parallel()
	asked, proceed := make(chan bool), make(chan bool)
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := startOn(t, first, Config{Handler: func(x *Exchange) {
		if x.Target() == "/slow" {
			asked <- true
			<-proceed
		}
		x.Text(200, "fine")
	}}, nil)
	second, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- s.Serve(second, nil) }()
	idle, slow, other := dial(t, first.Addr().String()), dial(t, first.Addr().String()), dial(t, second.Addr().String())
	for _, c := range []*client{idle, other} {
		c.say("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
		c.want("GET", 200, "fine\n")
	}
	slow.say("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n")
	<-asked
	s.Retire(first)
	idle.over()
	close(proceed)
	if resp := slow.want("GET", 200, "fine\n"); !resp.Close {
		t.Error("the last answer does not say Connection: close")
	}
	slow.over()
	other.say("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	if resp := other.want("GET", 200, "fine\n"); resp.Close {
		t.Error("a connection of the other listener is ended, too")
	}
	if conn, err := net.Dial("tcp", first.Addr().String()); err == nil {
		conn.Close()
		t.Error("a connection was let in through the retired listener")
	}
	s.Retire(second)
	if err := <-over; err != nil {
		t.Errorf("Serve of the retired listener: %v", err)
	}
}
