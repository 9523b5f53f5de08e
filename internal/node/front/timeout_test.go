package front

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// inBubble runs f with a server on in-memory connections and a clock of its own.
func inBubble(t *testing.T, h Handler, f func(t *testing.T, ln *memoryListener)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ln := newMemoryListener()
		defer startWith(New(Config{Handler: h}), ln)()
		f(t, ln)
	})
}

// ended returns when the server closes the connection, and what came before.
func ended(c net.Conn) (after time.Duration, said string) {
	from := time.Now()
	b, _ := io.ReadAll(c)
	return time.Since(from), string(b)
}

func within(t *testing.T, what string, got, most time.Duration) {
	t.Helper()
	if got > most || got < most-most/8-time.Second {
		t.Errorf("%s ended after %v; want %v or up to an eighth less", what, got, most)
	}
}

const proper = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"

func TestClientThatSaysNothing(t *testing.T) {
	inBubble(t, echo, func(t *testing.T, ln *memoryListener) {
		after, said := ended(ln.dial())
		within(t, "a silent connection", after, 20*time.Second)
		if said != "" {
			t.Errorf("said %q to a client that asked nothing", said)
		}
	})
}

// A head that arrives a byte at a time has HeadTimeout in all, on a new
// connection and on one that was idle.
func TestSlowHead(t *testing.T) {
	for _, name := range []string{"first", "after an answer", "after being idle for long", "behind another"} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, echo, func(t *testing.T, ln *memoryListener) {
				c := ln.dial()
				defer c.Close()
				r := bufio.NewReader(c)
				switch name {
				case "first":
				case "behind another":
					go io.WriteString(c, proper+"GET /")
					answered(t, r)
				default:
					io.WriteString(c, proper)
					answered(t, r)
					if name != "after an answer" {
						time.Sleep(30 * time.Second) // the bubble's clock
					}
				}
				from := time.Now()
				done := make(chan bool)
				defer func() { c.Close(); <-done }()
				go func() {
					defer close(done)
					for _, b := range []byte("GET /" + strings.Repeat("x", 100)) {
						if _, err := c.Write([]byte{b}); err != nil {
							return
						}
						time.Sleep(time.Second)
					}
				}()
				resp, err := http.ReadResponse(r, nil)
				if err != nil || resp.StatusCode != 408 || !resp.Close {
					t.Fatalf("answer %v, %v; want 408 and the end", resp, err)
				}
				within(t, "a slow head", time.Since(from), 20*time.Second)
			})
		})
	}
}

func answered(t *testing.T, r *bufio.Reader) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
		t.Fatalf("answer %d, %v", resp.StatusCode, err)
	}
}

// An idle connection lives for IdleTimeout after its last answer and serves
// requests until then.
func TestIdleConnection(t *testing.T) {
	inBubble(t, echo, func(t *testing.T, ln *memoryListener) {
		c := ln.dial()
		r := bufio.NewReader(c)
		for _, pause := range []time.Duration{0, time.Second, 3 * time.Second, 5 * time.Second, 60 * time.Second, 70 * time.Second} {
			time.Sleep(pause) // the bubble's clock
			if _, err := io.WriteString(c, proper); err != nil {
				t.Fatalf("after %v: %v", pause, err)
			}
			answered(t, r)
		}
		after, said := ended(c)
		within(t, "an idle connection", after, 75*time.Second)
		if said != "" {
			t.Errorf("an idle connection was told %q", said)
		}
	})
}

// A request body has HeadTimeout between two reads, not in all.
func TestSlowRequestBody(t *testing.T) {
	read := func(x *Exchange) {
		r, _ := x.Body()
		n, err := io.Copy(io.Discard, r)
		if err != nil {
			x.Text(400, "cut")
			return
		}
		if n != 20_000 {
			x.Text(500, "wrong length")
			return
		}
		x.Text(200, "all")
	}
	inBubble(t, read, func(t *testing.T, ln *memoryListener) {
		c := ln.dial()
		defer c.Close()
		io.WriteString(c, "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 20000\r\n\r\n"+strings.Repeat("x", 9_000))
		for range 11 {
			time.Sleep(15 * time.Second) // the bubble's clock
			if _, err := io.WriteString(c, strings.Repeat("x", 1000)); err != nil {
				t.Fatal(err)
			}
		}
		answered(t, bufio.NewReader(c))
	})
	inBubble(t, read, func(t *testing.T, ln *memoryListener) {
		c := ln.dial()
		defer c.Close()
		io.WriteString(c, "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 20000\r\n\r\n"+strings.Repeat("x", 9_000))
		from := time.Now()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 400 {
			t.Fatalf("answer %v, %v; want 400", resp, err)
		}
		within(t, "a stalled body", time.Since(from), 20*time.Second)
	})
}

// A reader has PieceTimeout for each MiB: one that takes all within it may be
// slow for as long as it likes, one that stalls is cut.
func TestSlowReader(t *testing.T) {
	content := strings.Repeat("x", 4<<20)
	var out chan Outcome
	h := func(x *Exchange) {
		x.Done = func(_ *Exchange, o Outcome) { out <- o }
		x.Send(200, int64(len(content)), text(content))
	}
	inBubble(t, h, func(t *testing.T, ln *memoryListener) {
		out = make(chan Outcome, 1)
		c := ln.dial()
		defer c.Close()
		io.WriteString(c, proper)
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 8 {
			time.Sleep(20 * time.Second) // the bubble's clock
			if _, err := io.CopyN(io.Discard, resp.Body, 512<<10); err != nil {
				t.Fatal(err)
			}
		}
		if o := <-out; o.Err != nil || o.Duration < 2*time.Minute {
			t.Errorf("outcome %v after %v", o.Err, o.Duration)
		}
	})
	inBubble(t, h, func(t *testing.T, ln *memoryListener) {
		c := ln.dial()
		defer c.Close()
		out = make(chan Outcome, 1)
		io.WriteString(c, proper)
		from := time.Now()
		if o := <-out; o.Err == nil {
			t.Error("a reader that does not read got everything")
		}
		within(t, "a stalled reader", time.Since(from), 60*time.Second)
	})
}

// slowPieces is a body of parts of one file that come one after the other.
type slowPieces struct {
	f     *os.File
	left  int
	pause time.Duration
}

func (b *slowPieces) Next() (Piece, error) {
	if b.left == 0 {
		return Piece{}, io.EOF
	}
	b.left--
	<-time.After(b.pause)
	return Piece{File: b.f, Len: 64 << 10}, nil
}

func (b *slowPieces) Close() {}

// What the node itself waits for, between pieces that are in files, is not the
// client's time.
func TestPiecesThatComeSlowly(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	const n, size = 30, 30 * 64 << 10
	// Three times PieceTimeout in all.
	_, addr := start(t, Config{PieceTimeout: 400 * time.Millisecond, Handler: func(x *Exchange) { x.Send(200, size, &slowPieces{f, n, 40 * time.Millisecond}) }}, nil)
	resp, err := http.Get("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.Copy(io.Discard, resp.Body); err != nil || got != size {
		t.Errorf("a client that takes everything at once got %d bytes of %d, %v", got, size, err)
	}
}

// What the engine says by itself has a deadline of its own, not one left from
// the answer before.
func TestContinueAfterALongPause(t *testing.T) {
	h := func(x *Exchange) {
		if r, _ := x.Body(); r != nil {
			io.Copy(io.Discard, r)
		}
		x.Text(200, "fine")
	}
	inBubble(t, h, func(t *testing.T, ln *memoryListener) {
		c := ln.dial()
		defer c.Close()
		r := bufio.NewReader(c)
		io.WriteString(c, proper)
		answered(t, r)
		time.Sleep(70 * time.Second) // longer than PieceTimeout
		go io.WriteString(c, "PUT / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
		if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		r.ReadString('\n')
		go io.WriteString(c, "x")
		answered(t, r)
	})
}
