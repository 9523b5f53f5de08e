package lardertest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// blockSize is how much of a body is written at once: the grain of the
// bandwidth limit.
const blockSize = 32 << 10

var blocks = sync.Pool{New: func() any { return new([blockSize]byte) }}

// maxRequestBody bounds what is remembered of a request's body, and maxHead
// what a head may be.
const (
	maxRequestBody = 1 << 20
	maxHead        = 256 << 10
)

// readRequest takes one request off the connection.
func (s *session) readRequest() (*Recorded, error) {
	head, err := readRawHead(s.r)
	if err != nil {
		return nil, err
	}
	r := &Recorded{At: time.Now(), Conn: s.id, TLS: s.conn != s.raw, SNI: s.sni, Head: head}
	line, rest, _ := strings.Cut(head, "\n")
	words := strings.Fields(line)
	if len(words) != 3 {
		return nil, fmt.Errorf("request line %q", line)
	}
	r.Method, r.Target = words[0], words[1]
	h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(rest))).ReadMIMEHeader()
	if err != nil {
		return nil, fmt.Errorf("request header: %w", err)
	}
	r.Header = http.Header(h)
	r.Host, r.Range = r.Header.Get("Host"), r.Header.Get("Range")
	r.Path, _, _ = strings.Cut(r.Target, "?")
	if u, err := url.Parse(r.Target); err == nil && u.IsAbs() {
		r.Path = u.EscapedPath() // as a proxy is asked
	}
	return r, s.readBody(r)
}

func (s *session) readBody(r *Recorded) error {
	var body io.Reader
	if strings.EqualFold(r.Header.Get("Transfer-Encoding"), "chunked") {
		body = httputil.NewChunkedReader(s.r)
	} else if n, err := strconv.ParseInt(r.Header.Get("Content-Length"), 10, 64); err == nil && n > 0 {
		body = io.LimitReader(s.r, n)
	} else {
		return nil
	}
	if strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		if _, err := io.WriteString(s.conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return err
		}
	}
	var kept bytes.Buffer
	if _, err := io.CopyN(&kept, body, maxRequestBody); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	r.Body = kept.Bytes()
	if _, err := io.Copy(io.Discard, body); err != nil {
		return err
	}
	if r.Header.Get("Transfer-Encoding") != "" { // the trailer section ends with an empty line
		for {
			line, err := s.r.ReadString('\n')
			if err != nil || strings.TrimRight(line, "\r\n") == "" {
				return err
			}
		}
	}
	return nil
}

// readRawHead reads up to and with the empty line.
func readRawHead(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return b.String(), err
		}
		if line == "\r\n" || line == "\n" {
			if b.Len() > len(line) {
				return b.String(), nil
			}
			b.Reset() // empty lines before a request line: RFC 9112 section 2.2
		}
		if b.Len() > maxHead {
			return "", errors.New("head too long")
		}
	}
}

// answer serves one request and reports whether the connection stays.
func (s *session) answer(r *Recorded) bool {
	b := s.o.record(r)
	if b.Before != nil {
		b.Before(*r)
	}
	switch {
	case b.Hang:
		s.untilPeerLeaves()
		return false
	case !s.pause(time.Duration(s.o.latency.Load()) + b.Delay):
		return false
	case b.Reset:
		if tcp, ok := s.raw.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // makes the close a reset
		}
		return false
	case b.Raw != nil:
		_, _ = s.conn.Write(b.Raw) // who does not read it has left
		return s.hangUp()
	}
	a := s.o.compose(r, b)
	s.o.note(r, func() { r.Status = a.status })
	if _, err := io.WriteString(s.conn, a.head()); err != nil {
		return false
	}
	if r.Method == http.MethodHead {
		return !a.closes
	}
	if !s.send(r, a) {
		return s.hangUp()
	}
	if a.closes {
		_ = s.conn.Close() // in order: with the TLS close alert
	}
	return !a.closes
}

// hangUp ends the sending side without a TLS close, as a lost connection
// does, and reports false.
func (s *session) hangUp() bool {
	if tcp, ok := s.raw.(*net.TCPConn); ok {
		_ = tcp.CloseWrite() // lets what was written arrive before the close
	}
	return false
}

// note changes a remembered request.
func (o *Origin) note(r *Recorded, change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

// pause waits, and reports false when the origin is closed meanwhile.
func (s *session) pause(d time.Duration) bool {
	if d <= 0 {
		return s.o.ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.o.ctx.Done():
		return false
	}
}

// untilPeerLeaves is silent until the other side, or Close, ends the
// connection.
func (s *session) untilPeerLeaves() { _, _ = io.Copy(io.Discard, s.r) }

// answered is an answer before it is sent.
type answered struct {
	b      Behaviour
	status int
	lines  []string // of the head, "Name: value"
	body   io.ReaderAt
	start  int64 // of what is sent of body
	length int64
	closes bool // the connection ends with it
}

func (a *answered) add(name, value string) { a.lines = append(a.lines, name+": "+value) }

// head returns the head as it goes out, interim answers before it.
func (a *answered) head() string {
	var w strings.Builder
	for _, code := range a.b.Interim {
		fmt.Fprintf(&w, "HTTP/1.1 %d %s\r\n\r\n", code, http.StatusText(code))
	}
	fmt.Fprintf(&w, "HTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status))
	for _, line := range a.lines {
		if name, value, ok := strings.Cut(line, ":"); ok && a.b.LowerCase {
			line = strings.ToLower(name) + ":" + value
		}
		w.WriteString(line + "\r\n")
	}
	w.WriteString("\r\n")
	return w.String()
}

// compose decides what is answered to r.
func (o *Origin) compose(r *Recorded, b Behaviour) *answered {
	o.mu.Lock()
	obj := o.objects[r.Path]
	o.mu.Unlock()

	a := &answered{b: b, closes: b.NoKeepAlive || strings.EqualFold(r.Header.Get("Connection"), "close")}
	if !b.NoDate {
		a.add("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	a.lines = append(a.lines, b.Header...)
	switch {
	case b.Status != 0 && b.Status != http.StatusOK && b.Status != http.StatusPartialContent:
		a.text(b.Status, fmt.Sprintf("the origin was told to answer %d\n", b.Status))
		if b.Location != "" {
			a.add("Location", b.Location)
		}
	case obj == nil:
		a.text(http.StatusNotFound, "the origin has nothing here\n")
	default:
		a.object(r, obj)
	}
	if a.closes {
		a.add("Connection", "close")
	}
	return a
}

func (a *answered) text(status int, text string) {
	a.status, a.body, a.length = status, strings.NewReader(text), int64(len(text))
	if status == http.StatusNoContent || status == http.StatusNotModified {
		a.length = 0
		return
	}
	a.add("Content-Type", "text/plain")
	a.add("Content-Length", strconv.FormatInt(a.length, 10))
}

func (a *answered) object(r *Recorded, obj *object) {
	b := a.b
	tag, modified := ETag(r.Path, obj.version, obj.size), obj.modified.Format(http.TimeFormat)
	switch b.Validators {
	case NoValidators:
		tag, modified = "", ""
	case WeakETag:
		tag, modified = "W/"+tag, ""
	case LastModified:
		tag = ""
	case StrongETag:
		modified = ""
	}
	if tag != "" {
		a.add("ETag", tag)
	}
	if modified != "" {
		a.add("Last-Modified", modified)
	}
	if status := precondition(r.Header, tag, modified); status != 0 {
		a.text(status, "precondition failed\n")
		return
	}

	a.add("Content-Type", "application/octet-stream")
	if b.Gzip {
		a.gzip(obj)
		return
	}
	a.status, a.body, a.length = http.StatusOK, obj.body, obj.size
	if !b.IgnoreRange {
		a.add("Accept-Ranges", "bytes")
		if start, end, verdict := resolveRange(r, obj.size, b.StrictRange, tag, modified); verdict == rangeGood {
			a.status, a.start, a.length = http.StatusPartialContent, start, end-start
			total := strconv.FormatInt(obj.size+b.TotalDelta, 10)
			if b.UnknownTotal {
				total = "*"
			}
			a.add("Content-Range", fmt.Sprintf("bytes %d-%d/%s", start+b.StartDelta, end-1+b.StartDelta, total))
		} else if verdict == rangeBeyond {
			a.add("Content-Range", fmt.Sprintf("bytes */%d", obj.size+b.TotalDelta))
			a.text(http.StatusRequestedRangeNotSatisfiable, "range not satisfiable\n")
			return
		}
	}
	a.frame()
}

// frame says how long the body is, or lies about it.
func (a *answered) frame() {
	switch {
	case a.b.Chunked:
		a.add("Transfer-Encoding", "chunked")
	case a.b.NoLength:
		a.closes = true
	default:
		a.add("Content-Length", strconv.FormatInt(a.length+a.b.LengthDelta, 10))
		a.closes = a.closes || a.b.LengthDelta != 0
	}
}

func (a *answered) gzip(obj *object) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := io.Copy(w, io.NewSectionReader(obj.body, 0, obj.size))
	if err := errors.Join(err, w.Close()); err != nil {
		panic(err) // memory to memory
	}
	a.status, a.body, a.length = http.StatusOK, bytes.NewReader(packed.Bytes()), int64(packed.Len())
	a.add("Content-Encoding", "gzip")
	a.frame()
}

// precondition evaluates the conditions of RFC 9110 section 13 that a cache
// sends, and returns 304, 412 or 0.
func precondition(h http.Header, tag, modified string) int {
	if want := h.Get("If-Match"); want != "" && want != "*" && !listed(want, tag) {
		return http.StatusPreconditionFailed
	}
	if want := h.Get("If-None-Match"); want != "" {
		if listed(weakly(want), weakly(tag)) {
			return http.StatusNotModified
		}
		return 0
	}
	if since, err := http.ParseTime(h.Get("If-Modified-Since")); err == nil && modified != "" {
		if at, err := http.ParseTime(modified); err == nil && !at.After(since) {
			return http.StatusNotModified
		}
	}
	return 0
}

func weakly(tags string) string { return strings.ReplaceAll(tags, "W/", "") }

func listed(list, tag string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if tag != "" && strings.TrimSpace(one) == tag {
			return true
		}
	}
	return false
}

type rangeVerdict int

const (
	rangeNone   rangeVerdict = iota // the whole is the answer
	rangeGood                       // [start, end) is
	rangeBeyond                     // 416 is
)

// resolveRange understands one range of bytes; several are answered with the
// whole, which RFC 9110 section 14.2 allows.
func resolveRange(r *Recorded, size int64, strict bool, tag, modified string) (start, end int64, v rangeVerdict) {
	if cond := r.Header.Get("If-Range"); cond != "" {
		if strings.HasPrefix(tag, "W/") || (cond != tag && cond != modified) {
			return 0, 0, rangeNone
		}
	}
	spec, ok := strings.CutPrefix(r.Range, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash || strings.Contains(spec, ",") {
		return 0, 0, rangeNone
	}
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	switch {
	case first == "" && err2 == nil: // the last so many
		start, end = max(0, size-to), size
	case err1 == nil && last == "":
		start, end = from, size
	case err1 == nil && err2 == nil && from <= to:
		start, end = from, to+1
		if strict && end > size {
			return 0, 0, rangeBeyond
		}
		end = min(end, size)
	default:
		return 0, 0, rangeNone
	}
	if start >= end {
		return 0, 0, rangeBeyond
	}
	return start, end, rangeGood
}

// send writes the body and reports whether all of it went.
func (s *session) send(r *Recorded, a *answered) bool {
	out := io.Writer(s.conn)
	var chunked io.WriteCloser
	if a.b.Chunked && a.status < 300 {
		chunked = httputil.NewChunkedWriter(s.conn)
		out = chunked
	}
	block := blocks.Get().(*[blockSize]byte)
	defer blocks.Put(block)
	grain := int64(blockSize)
	var pace *rate.Limiter
	if a.b.Pace > 0 {
		grain = min(grain, int64(max(1, a.b.Pace/20)))
		pace = rate.NewLimiter(rate.Limit(a.b.Pace), int(grain))
	}
	for at := int64(0); ; {
		if (a.b.Truncate || a.b.Stall) && at == min(a.b.After, a.length) {
			if a.b.Truncate {
				return false
			}
			if a.b.StallFor <= 0 {
				s.untilPeerLeaves()
				return false
			}
			if !s.pause(a.b.StallFor) {
				return false
			}
		}
		if at == a.length {
			break
		}
		n := min(grain, a.length-at)
		if (a.b.Truncate || a.b.Stall) && at < a.b.After {
			n = min(n, a.b.After-at)
		}
		if pace != nil && pace.WaitN(s.o.ctx, int(n)) != nil {
			return false
		}
		if !s.sendBlock(r, out, a, at, block[:n]) {
			return false
		}
		at += n
	}
	if chunked != nil {
		_ = chunked.Close()
		if _, err := io.WriteString(s.conn, "\r\n"); err != nil {
			return false
		}
	}
	return true
}

func (s *session) sendBlock(r *Recorded, out io.Writer, a *answered, at int64, p []byte) bool {
	if limit := s.o.limit.Load(); limit != nil {
		if limit.WaitN(s.o.ctx, len(p)) != nil {
			return false
		}
	}
	if _, err := a.body.ReadAt(p, a.start+at); err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	n, err := out.Write(p)
	s.o.note(r, func() {
		r.Sent += int64(n)
		s.o.sent[r.Path] += int64(n)
		s.o.sentAll += int64(n)
	})
	return err == nil
}
