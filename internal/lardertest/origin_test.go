package lardertest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// answerOf sends one request over a connection of its own and returns the
// answer as it came.
func answerOf(t *testing.T, o *Origin, method, target string, header ...string) (*Head, []byte, error) {
	t.Helper()
	conn, err := net.Dial("tcp", o.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return roundTrip(t, conn, method, target, header...)
}

func roundTrip(t *testing.T, conn net.Conn, method, target string, header ...string) (*Head, []byte, error) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	req := method + " " + target + " HTTP/1.1\r\nHost: origin.test\r\n"
	for _, line := range header {
		req += line + "\r\n"
	}
	if _, err := io.WriteString(conn, req+"\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	head, err := readHead(r)
	for err == nil && head.Status < 200 {
		head, err = readHead(r)
	}
	if err != nil {
		return nil, nil, err
	}
	b, err := newBody(r, head, method)
	if err != nil {
		return head, nil, err
	}
	got, err := io.ReadAll(b)
	return head, got, err
}

func part(version int, start, end int64) []byte {
	p := make([]byte, end-start)
	Content(labPath, version, labSize).Fill(p, start)
	return p
}

func TestOriginAnswersAsToldTo(t *testing.T) {
	t.Parallel()
	tag := ETag(labPath, 1, labSize)
	whole := part(1, 0, labSize)
	for _, c := range []struct {
		name   string
		b      Behaviour
		method string
		header []string
		status int
		fields []string // that must be there, as they are; a leading "!" says: must not
		body   []byte
		err    error
	}{
		{name: "good", status: 200, fields: []string{"Content-Length: 1048576", "ETag: " + tag, "Last-Modified: Sun, 01 Mar 2026 01:00:00 GMT", "Accept-Ranges: bytes"}, body: whole},
		{name: "head", method: "HEAD", status: 200, fields: []string{"Content-Length: 1048576"}},
		{name: "range", header: []string{"Range: bytes=5-9"}, status: 206, fields: []string{"Content-Range: bytes 5-9/1048576", "Content-Length: 5"}, body: part(1, 5, 10)},
		{name: "open range", header: []string{"Range: bytes=1048570-"}, status: 206, body: part(1, 1048570, labSize)},
		{name: "suffix range", header: []string{"Range: bytes=-6"}, status: 206, body: part(1, 1048570, labSize)},
		{name: "range clamped", header: []string{"Range: bytes=1048570-2000000"}, status: 206, fields: []string{"Content-Range: bytes 1048570-1048575/1048576"}, body: part(1, 1048570, labSize)},
		{name: "range clamped by nobody", b: Behaviour{StrictRange: true}, header: []string{"Range: bytes=1048570-2000000"}, status: 416, fields: []string{"Content-Range: bytes */1048576"}},
		{name: "range past the end", header: []string{"Range: bytes=1048576-"}, status: 416},
		{name: "several ranges", header: []string{"Range: bytes=0-1,5-6"}, status: 200, body: whole},
		{name: "bad range", header: []string{"Range: bytes=9-5"}, status: 200, body: whole},
		{name: "ignored range", b: Behaviour{IgnoreRange: true}, header: []string{"Range: bytes=5-9"}, status: 200, fields: []string{"!Accept-Ranges", "!Content-Range"}, body: whole},
		{name: "If-Range that holds", header: []string{"Range: bytes=5-9", "If-Range: " + tag}, status: 206, body: part(1, 5, 10)},
		{name: "If-Range by date", header: []string{"Range: bytes=5-9", "If-Range: Sun, 01 Mar 2026 01:00:00 GMT"}, status: 206, body: part(1, 5, 10)},
		{name: "If-Range that does not", header: []string{"Range: bytes=5-9", `If-Range: "x"`}, status: 200, body: whole},
		{name: "If-Range with a weak tag", b: Behaviour{Validators: WeakETag}, header: []string{"Range: bytes=5-9", "If-Range: W/" + tag}, status: 200, body: whole},
		{name: "If-None-Match", header: []string{`If-None-Match: "x", W/` + tag}, status: 304},
		{name: "If-Modified-Since", header: []string{"If-Modified-Since: Sun, 01 Mar 2026 01:00:00 GMT"}, status: 304},
		{name: "If-Match", header: []string{`If-Match: "x"`}, status: 412},
		{name: "other start", b: Behaviour{StartDelta: 7}, header: []string{"Range: bytes=5-9"}, status: 206, fields: []string{"Content-Range: bytes 12-16/1048576"}, body: part(1, 5, 10)},
		{name: "other total", b: Behaviour{TotalDelta: -1}, header: []string{"Range: bytes=5-9"}, status: 206, fields: []string{"Content-Range: bytes 5-9/1048575"}, body: part(1, 5, 10)},
		{name: "unknown total", b: Behaviour{UnknownTotal: true}, header: []string{"Range: bytes=5-9"}, status: 206, fields: []string{"Content-Range: bytes 5-9/*"}, body: part(1, 5, 10)},
		{name: "no validators", b: Behaviour{Validators: NoValidators}, status: 200, fields: []string{"!ETag", "!Last-Modified"}, body: whole},
		{name: "weak tag", b: Behaviour{Validators: WeakETag}, status: 200, fields: []string{"ETag: W/" + tag, "!Last-Modified"}, body: whole},
		{name: "date only", b: Behaviour{Validators: LastModified}, status: 200, fields: []string{"!ETag"}, body: whole},
		{name: "tag only", b: Behaviour{Validators: StrongETag}, status: 200, fields: []string{"!Last-Modified"}, body: whole},
		{name: "no date", b: Behaviour{NoDate: true}, status: 200, fields: []string{"!Date"}, body: whole},
		{name: "truncated", b: Behaviour{Truncate: true, After: 1000}, status: 200, body: whole[:1000], err: io.ErrUnexpectedEOF},
		{name: "closed after the head", b: Behaviour{Truncate: true}, status: 200, err: io.ErrUnexpectedEOF},
		{name: "truncated chunks", b: Behaviour{Chunked: true, Truncate: true, After: 1000}, status: 200, body: whole[:1000], err: io.ErrUnexpectedEOF},
		{name: "stalled for a while", b: Behaviour{Stall: true, After: 1000, StallFor: time.Millisecond}, status: 200, body: whole},
		{name: "length too long", b: Behaviour{LengthDelta: 5}, status: 200, body: whole, err: io.ErrUnexpectedEOF},
		{name: "length too short", b: Behaviour{LengthDelta: -5}, status: 200, body: whole[:labSize-5]},
		{name: "chunked", b: Behaviour{Chunked: true}, status: 200, fields: []string{"Transfer-Encoding: chunked", "!Content-Length"}, body: whole},
		{name: "no length", b: Behaviour{NoLength: true}, status: 200, fields: []string{"!Content-Length", "!Transfer-Encoding", "Connection: close"}, body: whole},
		{name: "lower case", b: Behaviour{LowerCase: true}, status: 200, fields: []string{"content-length: 1048576", "!Content-Length"}, body: whole},
		{name: "more fields", b: Behaviour{Header: []string{"Set-Cookie: a=b", "vary: Cookie"}}, status: 200, fields: []string{"Set-Cookie: a=b", "vary: Cookie"}, body: whole},
		{name: "interim", b: Behaviour{Interim: []int{103}}, status: 200, body: whole},
		{name: "redirect", b: Behaviour{Status: 302, Location: "/b"}, status: 302, fields: []string{"Location: /b"}},
		{name: "unavailable", b: Behaviour{Status: 503}, status: 503, body: []byte("the origin was told to answer 503\n")},
		{name: "raw", b: Behaviour{Raw: []byte("HTTP/1.0 299 Odd\r\n\r\nx")}, status: 299, body: []byte("x")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := NewOrigin(t)
			o.Add(labPath, labSize)
			o.Set(labPath, c.b)
			if c.method == "" {
				c.method = "GET"
			}
			head, body, err := answerOf(t, o, c.method, labPath, c.header...)
			if !errors.Is(err, c.err) || head == nil || head.Status != c.status {
				t.Fatalf("got %+v, %v; want %d, %v", head, err, c.status, c.err)
			}
			if c.body != nil && !bytes.Equal(body, c.body) {
				t.Errorf("got %d bytes, want %d, or others", len(body), len(c.body))
			}
			if c.method == "HEAD" && len(body) != 0 {
				t.Errorf("a body of %d bytes to HEAD", len(body))
			}
			for _, f := range c.fields {
				name, value, _ := strings.Cut(f, ": ")
				name, not := strings.CutPrefix(name, "!")
				if got, ok := head.Get(name); ok == not || got != value {
					t.Errorf("%s: %q, %v; want %q", name, got, ok, f)
				}
			}
		})
	}
}

func TestOriginGzip(t *testing.T) {
	t.Parallel()
	o := NewOrigin(t)
	o.Add(labPath, labSize)
	o.Set(labPath, Behaviour{Gzip: true})
	head, body, err := answerOf(t, o, "GET", labPath, "Range: bytes=0-1")
	if err != nil || head.Status != 200 {
		t.Fatalf("%+v, %v", head, err)
	}
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, part(1, 0, labSize)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestOriginRecordsRequests(t *testing.T) {
	t.Parallel()
	o := NewOrigin(t)
	o.Add(labPath, labSize)
	for _, c := range []struct{ method, target, header string }{
		{"GET", labPath + "?a=%2f", "rAnGe:  bytes=0-9"},
		{"GET", "http://proxied.test" + labPath, "X-A: b"},
		{"POST", "/elsewhere", "Content-Length: 0"},
	} {
		if _, _, err := answerOf(t, o, c.method, c.target, c.header); err != nil {
			t.Fatal(err)
		}
	}
	// What was sent is counted when it has left: a client may be faster.
	Eventually(t, "all three answers to be counted", func() bool {
		return o.BytesSent(labPath) == labSize+10 && o.BytesSent("") > labSize+10
	})
	reqs := o.Requests()
	if len(reqs) != 3 {
		t.Fatalf("%d requests", len(reqs))
	}
	r := reqs[0]
	if want := "GET " + labPath + "?a=%2f HTTP/1.1\r\nHost: origin.test\r\nrAnGe:  bytes=0-9\r\n\r\n"; r.Head != want {
		t.Errorf("head %q, want %q", r.Head, want)
	}
	if r.Path != labPath || r.Range != "bytes=0-9" || r.Status != 206 || r.Sent != 10 || r.Ordinal != 1 || r.Host != "origin.test" {
		t.Errorf("got %+v", r)
	}
	if r := reqs[1]; r.Path != labPath || r.Ordinal != 2 || r.Sent != labSize {
		t.Errorf("got %+v", r)
	}
	if reqs[2].Status != 404 || len(o.RequestsFor(labPath)) != 2 {
		t.Errorf("status %d, %d requests for %s", reqs[2].Status, len(o.RequestsFor(labPath)), labPath)
	}
	if sent := o.BytesSent(labPath); sent != labSize+10 {
		t.Errorf("sent %d bytes for %s", sent, labPath)
	}
	o.Reset()
	if len(o.Requests()) != 0 || o.BytesSent("") != 0 || o.BytesSent(labPath) != 0 {
		t.Error("Reset left something")
	}
}

func TestOriginReadsBodies(t *testing.T) {
	t.Parallel()
	o := NewOrigin(t)
	conn, err := net.Dial("tcp", o.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, raw := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: x\r\n\r\n", "Content-Length: 0\r\n\r\n"} {
		if _, err := io.WriteString(conn, "POST /p HTTP/1.1\r\nHost: a\r\n"+raw); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		head, err := readHead(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := newBody(r, head, "POST")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, b); err != nil {
			t.Fatal(err)
		}
	}
	reqs := o.Requests()
	if len(reqs) != 3 || string(reqs[0].Body) != "hello" || string(reqs[1].Body) != "hello" || len(reqs[2].Body) != 0 || reqs[2].Conn != reqs[0].Conn {
		t.Errorf("got %+v", reqs)
	}
}

func TestOriginVersions(t *testing.T) {
	t.Parallel()
	o := NewOrigin(t)
	o.Add(labPath, labSize)
	var tags [2]string
	for i, version := range []int{1, 2} {
		if version == 2 {
			// From inside the very request that shall see it.
			o.Set(labPath, Behaviour{Before: func(Recorded) { o.SetVersion(labPath, 2, labSize) }})
		}
		head, body, err := answerOf(t, o, "GET", labPath)
		if err != nil || !bytes.Equal(body, part(version, 0, labSize)) {
			t.Errorf("version %d: other bytes, %v", version, err)
		}
		tags[i], _ = head.Get("ETag")
	}
	if tags[0] == tags[1] {
		t.Errorf("both versions have %s", tags[0])
	}
	o.Set(labPath)
	o.AddBytes("/text", []byte("hello"))
	if _, body, err := answerOf(t, o, "GET", "/text"); err != nil || string(body) != "hello" {
		t.Errorf("got %q, %v", body, err)
	}
	o.Remove(labPath)
	if head, _, err := answerOf(t, o, "GET", labPath); err != nil || head.Status != 404 {
		t.Errorf("got %+v, %v", head, err)
	}
}

func TestOriginFollowsTheScript(t *testing.T) {
	t.Parallel()
	o := NewOrigin(t)
	o.Add("/a", 1)
	o.Add("/b", 1)
	o.Set("/a", Behaviour{Status: 500}, Behaviour{}, Behaviour{Status: 404})
	o.SetEvery(Behaviour{Status: 403})
	var got []int
	for _, path := range []string{"/a", "/b", "/a", "/a", "/a"} {
		head, _, err := answerOf(t, o, "GET", path)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, head.Status)
	}
	if want := "[500 403 200 404 404]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestOriginOverTLS(t *testing.T) {
	t.Parallel()
	o := NewOrigin(t, "cdn.test")
	o.Add(labPath, labSize)
	dial := func() net.Conn {
		conn, err := tls.Dial("tcp", o.TLSAddr, &tls.Config{RootCAs: o.CA.Pool(), ServerName: "cdn.test", NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	if _, body, err := roundTrip(t, dial(), "GET", labPath); err != nil || !bytes.Equal(body, part(1, 0, labSize)) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if r := o.Requests()[0]; !r.TLS || r.SNI != "cdn.test" {
		t.Errorf("TLS %v, SNI %q", r.TLS, r.SNI)
	}

	// crypto/tls takes a lost connection for a closed one at the end of a
	// record, so that only the length tells that a body was cut.
	o.Set(labPath, Behaviour{NoLength: true}, Behaviour{Truncate: true, After: 1000})
	if _, body, err := roundTrip(t, dial(), "GET", labPath); err != nil || len(body) != labSize {
		t.Errorf("closed in order: %d bytes, %v", len(body), err)
	}
	if _, body, err := roundTrip(t, dial(), "GET", labPath); !errors.Is(err, io.ErrUnexpectedEOF) || len(body) != 1000 {
		t.Errorf("cut: %d bytes, %v", len(body), err)
	}
}

func TestOriginResets(t *testing.T) {
	t.Parallel()
	o := NewOrigin(t)
	o.SetEvery(Behaviour{Reset: true})
	if _, _, err := answerOf(t, o, "GET", "/"); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestOriginHangsUntilClosed(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]Behaviour{
		"hang": {Hang: true}, "stall": {Stall: true, After: 10}, "delay": {Delay: time.Hour}, "long stall": {Stall: true, StallFor: time.Hour}, "trickle": {Pace: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := NewOrigin(t)
			o.Add(labPath, labSize)
			answering := make(chan struct{})
			b.Before = func(Recorded) { close(answering) }
			o.Set(labPath, b)
			done := make(chan error, 1)
			go func() {
				_, _, err := answerOf(t, o, "GET", labPath)
				done <- err
			}()
			<-answering
			o.Close() // waits
			if err := <-done; err == nil {
				t.Error("the answer came whole")
			}
			if o.Connections() != 0 {
				t.Errorf("%d connections after Close", o.Connections())
			}
		})
	}
}

func TestOriginRefusesAndAccepts(t *testing.T) {
	t.Parallel()
	o := NewOrigin(t)
	o.Add("/a", 1)
	o.Refuse()
	if conn, err := net.Dial("tcp", o.Addr); err == nil {
		_ = conn.Close()
		t.Error("connected")
	}
	o.Accept(t)
	if head, _, err := answerOf(t, o, "GET", "/a"); err != nil || head.Status != 200 {
		t.Errorf("got %+v, %v", head, err)
	}
}

func TestOriginRateIsShared(t *testing.T) {
	t.Parallel()
	o := NewOrigin(t)
	o.Add("/a", 512<<10)
	const rate = 4 << 20
	o.SetRate(rate)
	begin := time.Now()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, body, err := answerOf(t, o, "GET", "/a"); err != nil || len(body) != 512<<10 {
				t.Errorf("%d bytes, %v", len(body), err)
			}
		})
	}
	wg.Wait()
	// 2 MiB at 4 MiB/s, less the first burst of 50 ms.
	if took := time.Since(begin); took < 430*time.Millisecond {
		t.Errorf("took %v", took)
	}
	o.SetRate(0)
	o.SetLatency(50 * time.Millisecond)
	begin = time.Now()
	if _, _, err := answerOf(t, o, "GET", "/a"); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("took %v in spite of the latency", took)
	}
}
