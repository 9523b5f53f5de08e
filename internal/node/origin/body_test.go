package origin

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestShortBody(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nshort",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nshort\r\n",
		"chunk":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\na\r\nshort",
	} {
		for _, conf := range []*tls.Config{nil, serverTLS(t, anHour(), "files.example.com")} {
			address, _ := answering(t, conf, answer)
			ep := plainEndpoint(address)
			if conf != nil {
				ep = tlsEndpoint(address)
			}
			c := newClient(t, Config{})
			resp, err := c.Do(t.Context(), &Request{Endpoint: ep, Target: "/"})
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			if string(b) != "short" || err != io.ErrUnexpectedEOF {
				t.Errorf("%s: got %q, %v", name, b, err)
			}
			if _, err := resp.Body.Read(make([]byte, 1)); err != io.ErrUnexpectedEOF {
				t.Errorf("%s: then %v", name, err)
			}
			resp.Body.Close()
			if n := metric(t, c, "larder_origin_broken_bodies_total"); n != 1 {
				t.Errorf("%s: %v broken bodies counted", name, n)
			}
			if n := metric(t, c, "larder_origin_received_bytes_total", "scheme", ep.Scheme); n != 5 {
				t.Errorf("%s: %v bytes counted", name, n)
			}
			if h := c.Hosts()[0]; h.OK != 1 || h.Failures != 1 || h.LastErr == "" || h.LastErrAt.IsZero() || h.LastOKAt.IsZero() {
				t.Errorf("%s: %+v", name, h)
			}
		}
	}
}

func TestBodyThatIsNotChunks(t *testing.T) {
	t.Parallel()
	address, _ := answering(t, nil, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"+secret+"\r\n")
	c := newClient(t, Config{})
	resp, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Target: "/"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(resp.Body)
	wantError(t, err, 502, KindProtocol)
	resp.Body.Close()
}

func TestBodyUntilClose(t *testing.T) {
	t.Parallel()
	address, _ := answering(t, nil, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole")
	c := newClient(t, Config{})
	resp, body := get(t, c, &Request{Endpoint: plainEndpoint(address), Target: "/"})
	if resp.ContentLength != -1 || body != "whole" {
		t.Errorf("length %d, body %q", resp.ContentLength, body)
	}
}

func TestAnswersWithoutBody(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		method, answer string
		status         int
		length         int64
	}{
		"HEAD":       {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n", 200, 12345},
		"HEAD, none": {"HEAD", "HTTP/1.1 200 OK\r\n\r\n", 200, -1},
		"304":        {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 12345\r\n\r\n", 304, 0},
		"204":        {"DELETE", "HTTP/1.1 204 No Content\r\n\r\n", 204, 0},
		"empty":      {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, 0},
	} {
		address := rawServer(t, nil, func(conn net.Conn, br *bufio.Reader) {
			for _, err := readHead(br); err == nil; _, err = readHead(br) {
				io.WriteString(conn, tt.answer)
			}
		})
		c := newClient(t, Config{ConnsPerOrigin: 1})
		for range 3 { // nothing is held while the body is not closed
			resp, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Method: tt.method, Target: "/"})
			if err != nil {
				t.Fatal(err)
			}
			if resp.Status != tt.status || resp.ContentLength != tt.length {
				t.Errorf("%s: got %d, length %d", name, resp.Status, resp.ContentLength)
			}
			defer resp.Body.Close()
			if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("%s: read %d, %v", name, n, err)
			}
		}
	}
}

// endless answers with a body that never ends, and tells when the connection
// was closed.
func endless(t *testing.T, first string) (address string, closed <-chan struct{}) {
	ch := make(chan struct{})
	return rawServer(t, nil, func(conn net.Conn, br *bufio.Reader) {
		if _, err := readHead(br); err != nil {
			return
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n%s", first)
		br.ReadByte()
		close(ch)
	}), ch
}

func wantClosed(t *testing.T, closed <-chan struct{}) {
	t.Helper()
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		t.Error("the connection was not closed")
	}
}

func TestBodyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	address, closed := endless(t, "begin")
	c := newClient(t, Config{})
	reason := errors.New("the reader left")
	ctx, cancel := context.WithCancelCause(t.Context())
	resp, err := c.Do(ctx, &Request{Endpoint: plainEndpoint(address), Target: "/"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() { _, err := resp.Body.Read(make([]byte, 1)); got <- err }()
	cancel(reason)
	err = <-got
	if wantError(t, err, 503, KindCanceled); !errors.Is(err, reason) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	wantClosed(t, closed)
	if h := c.Hosts()[0]; h.Failures != 0 {
		t.Errorf("the host is blamed for a reader who left: %+v", h)
	}
	resp.Body.Close()
}

func TestDoEndsWithItsContext(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	address := rawServer(t, nil, func(_ net.Conn, br *bufio.Reader) { readHead(br); close(asked); br.ReadByte() })
	c := newClient(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	_, err := c.Do(ctx, &Request{Endpoint: plainEndpoint(address), Target: "/"})
	if wantError(t, err, 503, KindCanceled); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	_, err = c.Do(ctx, &Request{Endpoint: plainEndpoint(address), Target: "/"})
	if wantError(t, err, 504, KindTimeout); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestClosedEarly(t *testing.T) {
	t.Parallel()
	address, closed := endless(t, "begin")
	c := newClient(t, Config{})
	resp, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Target: "/"})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	wantClosed(t, closed)
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("reading on: %v", err)
	}
	eventually(t, "no connection", func() bool { return c.Hosts()[0].Conns == 0 })
}

func TestSilenceWithinABody(t *testing.T) {
	t.Parallel()
	address, closed := endless(t, "begin")
	c := newClient(t, Config{SilenceTimeout: 200 * time.Millisecond})
	resp, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Target: "/?" + secret})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	wantError(t, err, 504, KindTimeout)
	if string(b) != "begin" {
		t.Errorf("got %q", b)
	}
	wantClosed(t, closed)
}

// A slow reader is not a silent origin.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	whole := strings.Repeat("x", 1<<20)
	address, _ := answering(t, nil, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(whole), whole))
	c := newClient(t, Config{SilenceTimeout: 50 * time.Millisecond})
	resp, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Target: "/"})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-time.After(150 * time.Millisecond)
	if b, err := io.ReadAll(resp.Body); len(b) != len(whole) || err != nil {
		t.Errorf("got %d bytes, %v", len(b), err)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	address, closed := endless(t, "begin")
	idle, _ := answering(t, nil, answerOK)
	c := newClient(t, Config{})
	get(t, c, &Request{Endpoint: plainEndpoint(idle), Target: "/"})
	resp, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Target: "/"})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	wantClosed(t, closed)
	_, err = io.ReadAll(resp.Body)
	wantError(t, err, 503, KindCanceled)
	resp.Body.Close()
	_, err = c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Target: "/"})
	wantError(t, err, 503, KindCanceled)
	eventually(t, "no connection is open", func() bool { return metric(t, c, "larder_origin_open_connections") == 0 })
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	t.Parallel()
	for _, conf := range []*tls.Config{nil, serverTLS(t, anHour(), "files.example.com")} {
		address, _ := answering(t, conf, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 100000))
		ep := plainEndpoint(address)
		if conf != nil {
			ep = tlsEndpoint(address)
		}
		c := newClient(t, Config{})
		for i := range 10 {
			resp, err := c.Do(t.Context(), &Request{Endpoint: ep, Target: "/"})
			if err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 { // as many bytes as announced, the end not asked for
				if _, err := io.ReadFull(resp.Body, make([]byte, 100000)); err != nil {
					t.Fatal(err)
				}
			} else if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		if n := metric(t, c, "larder_origin_opened_connections_total"); n != 1 {
			t.Errorf("%v connections for ten requests", n)
		}
		if n := metric(t, c, "larder_origin_received_bytes_total"); n != 1e6 {
			t.Errorf("%v bytes counted", n)
		}
		if n := metric(t, c, "larder_origin_requests_total", "outcome", "2xx"); n != 10 {
			t.Errorf("%v requests counted", n)
		}
		if n := metric(t, c, "larder_origin_head_seconds"); n != 10 {
			t.Errorf("%v heads timed", n)
		}
	}
}

// A server that closes idle connections makes no request fail: a GET is sent
// again, a POST gets a connection of its own.
func TestStaleConnections(t *testing.T) {
	t.Parallel()
	address := rawServer(t, nil, func(conn net.Conn, br *bufio.Reader) {
		head, err := readHead(br)
		if err != nil {
			return
		}
		if strings.HasPrefix(head[0], "POST") {
			io.CopyN(io.Discard, br, 4)
		}
		io.WriteString(conn, answerOK)
		br.Peek(1) // closes when the next request comes
	})
	c := newClient(t, Config{})
	for range 20 {
		get(t, c, &Request{Endpoint: plainEndpoint(address), Target: "//x"})
		get(t, c, &Request{Endpoint: plainEndpoint(address), Method: "POST", Target: "/", Body: strings.NewReader("body"), ContentLength: 4})
	}
}

func TestUpload(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	address := rawServer(t, nil, func(conn net.Conn, br *bufio.Reader) {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		b, _ := io.ReadAll(req.Body)
		got <- fmt.Sprintf("%d %s", req.ContentLength, b)
		io.WriteString(conn, answerOK)
	})
	c := newClient(t, Config{})
	for length, want := range map[int64]string{5: "5 hello", -1: "-1 hello", 0: "0 "} {
		get(t, c, &Request{Endpoint: plainEndpoint(address), Method: "PUT", Target: "/", Body: strings.NewReader("hello"), ContentLength: length})
		if g := <-got; g != want {
			t.Errorf("the server got %q, want %q", g, want)
		}
	}
	_, err := c.Do(t.Context(), &Request{
		Endpoint: plainEndpoint(address), Method: "PUT", Target: "/", ContentLength: 10,
		Body: io.MultiReader(strings.NewReader("half"), brokenReader{}),
	})
	wantError(t, err, 503, KindCanceled)
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the client left") }

// The request's body belongs to the caller again when the response is closed,
// even if the origin answered without reading it.
func TestUploadIsForgotten(t *testing.T) {
	t.Parallel()
	address, _ := answering(t, nil, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
	c := newClient(t, Config{})
	big := &countingReader{}
	resp, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Method: "PUT", Target: "/", Body: big, ContentLength: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	n := big.n // the race detector sees a read that is still under way
	eventually(t, "the connection is closed", func() bool { return metric(t, c, "larder_origin_open_connections") == 0 })
	if resp.Status != 413 || big.n != n {
		t.Errorf("got %d; read %d bytes after Close", resp.Status, big.n-n)
	}
}

type countingReader struct{ n int }

func (r *countingReader) Read(p []byte) (int, error) { r.n += len(p); return len(p), nil }

// An origin that stops reading does not hold an upload for ever.
func TestUploadNobodyReads(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	address := rawServer(t, nil, func(net.Conn, *bufio.Reader) { <-over })
	t.Cleanup(func() { close(over) })
	c := newClient(t, Config{SilenceTimeout: 200 * time.Millisecond})
	_, err := c.Do(t.Context(), &Request{
		Endpoint: plainEndpoint(address), Method: "PUT", Target: "/",
		Body: bytes.NewReader(make([]byte, 64<<20)), ContentLength: 64 << 20,
	})
	wantError(t, err, 504, KindTimeout)
}

func TestLimitedBody(t *testing.T) {
	t.Parallel()
	const size = 200_000
	address, _ := answering(t, nil, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size)))
	c := newClient(t, Config{Limit: Limit{Rate: 400_000}})
	start := time.Now()
	get(t, c, &Request{Endpoint: plainEndpoint(address), Target: "/"})
	if d := time.Since(start); d < 300*time.Millisecond || d > 3*time.Second {
		t.Errorf("200 kB at 400 kB/s took %v", d)
	}
	if n := metric(t, c, "larder_origin_limit_wait_seconds_total"); n < 0.2 {
		t.Errorf("%v s of waiting counted", n)
	}

	c.SetLimit(Limit{Rate: 1000})
	if n := metric(t, c, "larder_origin_limit_bytes_per_second"); n != 1000 {
		t.Errorf("limit is %v", n)
	}
	resp, err := c.Do(t.Context(), &Request{Endpoint: plainEndpoint(address), Target: "/"})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { _, err := io.Copy(io.Discard, resp.Body); done <- err }()
	c.SetLimit(Limit{})
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * time.Second):
		t.Error("a running transfer did not notice the new limit")
	}
}
