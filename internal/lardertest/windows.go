package lardertest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// PieceSize is how much a Windows client asks for at once.
const PieceSize = 1 << 20

const windowsUserAgent = "Microsoft-Delivery-Optimization/10.1"

// WindowsClient is a model of Windows' Delivery Optimization service as it
// was recorded: two connections, each of which first asks for the first two
// bytes, then the pieces of 1 MiB, the second one first.
type WindowsClient struct {
	Addr        string      // of the node, host:port
	TLS         *tls.Config // nil: plain HTTP. NextProtos is left as it is
	Host        string      // the Host field; default Addr
	Origin      string      // goes into cacheHostOrigin; "": no such parameter
	Connections int         // default 2
	Head        bool        // ask with HEAD first
	PiecesHash  bool        // fetch <path>/pieceshash and check the pieces by it
}

// WindowsResult is what a download came to.
type WindowsResult struct {
	Total    int64 // bytes, from the probes; -1 when they gave none
	Bytes    int64 // that arrived
	SHA256   string
	Requests []WindowsRequest // in order of their answers
	BadHash  []int            // pieces that pieceshash contradicts
}

// WindowsRequest is one request with its answer.
type WindowsRequest struct {
	Conn         int // 0 is the first connection
	Method       string
	Target       string
	Range        string
	Status       int
	ContentRange string // by its exact name
	Length       int64  // Content-Length, by its exact name; -1 none
	Bytes        int64  // of the body that arrived
	First        time.Duration
	Fields       []Field
}

// Statuses counts the answers by status.
func (r *WindowsResult) Statuses() map[int]int {
	counts := map[int]int{}
	for _, req := range r.Requests {
		counts[req.Status]++
	}
	return counts
}

// piecesHash is the answer of <path>/pieceshash.
type piecesHash struct {
	MajorVersion, MinorVersion int
	HashOfHashes               string
	ContentLength              int64
	PieceSize                  int64
	Pieces                     []string // SHA-256, base64
}

// PiecesHash returns what a publisher puts at <path>/pieceshash for content of
// size bytes.
func PiecesHash(content io.ReaderAt, size int64) []byte {
	p := piecesHash{MajorVersion: 1, ContentLength: size, PieceSize: PieceSize}
	all := sha256.New()
	for at := int64(0); at < size; at += PieceSize {
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(content, at, min(PieceSize, size-at))); err != nil {
			panic(fmt.Sprintf("reading content that a test made: %v", err))
		}
		sum := h.Sum(nil)
		_, _ = all.Write(sum)
		p.Pieces = append(p.Pieces, base64.StdEncoding.EncodeToString(sum))
	}
	p.HashOfHashes = base64.StdEncoding.EncodeToString(all.Sum(nil))
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers
	}
	return text
}

// windowsRun is one download while it runs.
type windowsRun struct {
	c      *WindowsClient
	target string

	mu   sync.Mutex
	res  *WindowsResult // guarded by mu
	file []byte         // guarded by mu while it is made; pieces write apart
}

// windowsConn is one of its connections.
type windowsConn struct {
	id   int
	dial func() (net.Conn, error)
	r    *bufio.Reader

	mu   sync.Mutex
	conn net.Conn // changed under mu by the connection's user only; nil when there is none
	over bool     // guarded by mu; interrupted
}

// open connects if there is no connection.
func (c *windowsConn) open() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return nil
	}
	if c.over {
		return context.Canceled
	}
	conn, err := c.dial()
	if err != nil {
		return err
	}
	c.conn, c.r = conn, bufio.NewReaderSize(conn, 64<<10)
	return nil
}

func (c *windowsConn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// interrupt ends what the connection is doing.
func (c *windowsConn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.conn != nil {
		_ = c.conn.Close()
	}
}

// Download fetches target ("/path?query", sent byte for byte) into memory.
// The result is never nil; the error says what kept the file from being whole.
func (c *WindowsClient) Download(ctx context.Context, target string) (*WindowsResult, error) {
	w := &windowsRun{c: c, target: target, res: &WindowsResult{Total: -1}}
	n := c.Connections
	if n <= 0 {
		n = 2
	}
	conns := make([]*windowsConn, n)
	for i := range conns {
		conns[i] = &windowsConn{id: i, dial: func() (net.Conn, error) { return c.dial(ctx) }}
		defer func() { conns[i].close() }()
	}
	stop := context.AfterFunc(ctx, func() {
		for _, conn := range conns {
			conn.interrupt()
		}
	})
	defer stop()
	if c.Head {
		if _, _, err := w.ask(conns[0], "HEAD", target, "", nil); err != nil {
			return w.res, err
		}
	}
	if err := each(conns, w.probe); err != nil {
		return w.res, err
	}

	w.file = make([]byte, w.res.Total)
	todo := w.pieces()
	if err := each(conns, func(conn *windowsConn) error {
		for piece := range todo {
			if err := w.piece(conn, piece); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return w.res, err
	}
	sum := sha256.Sum256(w.file)
	w.res.SHA256 = hex.EncodeToString(sum[:])
	if c.PiecesHash {
		return w.res, w.checkHashes(conns[0])
	}
	return w.res, nil
}

// each runs f for all connections at once.
func each(conns []*windowsConn, f func(*windowsConn) error) error {
	errs := make([]error, len(conns))
	var wg sync.WaitGroup
	for i, conn := range conns {
		wg.Go(func() { errs[i] = f(conn) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// pieces hands out the piece numbers in the recorded order: 1, 0, 2, 3, …
func (w *windowsRun) pieces() <-chan int {
	n := int((w.res.Total + PieceSize - 1) / PieceSize)
	order := make(chan int, n)
	for i := range n {
		switch {
		case n > 1 && i == 0:
			order <- 1
		case n > 1 && i == 1:
			order <- 0
		default:
			order <- i
		}
	}
	close(order)
	return order
}

func (c *WindowsClient) dial(ctx context.Context) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", c.Addr)
	if err != nil || c.TLS == nil {
		return raw, err
	}
	conn := tls.Client(raw, c.TLS)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// probe asks for two bytes to learn the size.
func (w *windowsRun) probe(conn *windowsConn) error {
	req, body, err := w.ask(conn, "GET", w.target, "bytes=0-1", nil)
	if err != nil {
		return err
	}
	if req.Status != 206 || len(body) == 0 {
		return fmt.Errorf("probe: status %d with %d bytes, want 206", req.Status, len(body))
	}
	_, total, _ := strings.Cut(req.ContentRange, "/")
	n, err := strconv.ParseInt(total, 10, 64)
	if err != nil {
		return fmt.Errorf("probe: Content-Range %q has no total", req.ContentRange)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.res.Total >= 0 && w.res.Total != n {
		return fmt.Errorf("probe: two totals, %d and %d", w.res.Total, n)
	}
	w.res.Total = n
	return nil
}

func (w *windowsRun) piece(conn *windowsConn, i int) error {
	start := int64(i) * PieceSize
	end := min(start+PieceSize, int64(len(w.file)))
	req, body, err := w.ask(conn, "GET", w.target, fmt.Sprintf("bytes=%d-%d", start, end-1), w.file[start:end])
	if err != nil {
		return fmt.Errorf("piece %d: %w", i, err)
	}
	if due := fmt.Sprintf("bytes %d-%d/%d", start, end-1, len(w.file)); req.Status != 206 || req.ContentRange != due {
		return fmt.Errorf("piece %d: status %d, Content-Range %q; want 206, %q", i, req.Status, req.ContentRange, due)
	}
	if int64(len(body)) != end-start {
		return fmt.Errorf("piece %d: %d bytes instead of %d", i, len(body), end-start)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.res.Bytes += end - start
	return nil
}

func (w *windowsRun) checkHashes(conn *windowsConn) error {
	path, query, _ := strings.Cut(w.target, "?")
	target := path + "/pieceshash"
	if query != "" {
		target += "?" + query
	}
	req, body, err := w.ask(conn, "GET", target, "", nil)
	if err != nil {
		return fmt.Errorf("pieceshash: %w", err)
	}
	if req.Status != 200 {
		return fmt.Errorf("pieceshash: status %d, want 200", req.Status)
	}
	var p piecesHash
	if err := json.Unmarshal(body, &p); err != nil {
		return fmt.Errorf("pieceshash: %w", err)
	}
	if p.ContentLength != w.res.Total || p.PieceSize <= 0 || int64(len(p.Pieces)) != (p.ContentLength+p.PieceSize-1)/p.PieceSize {
		return fmt.Errorf("pieceshash: %d bytes in %d pieces, the file has %d", p.ContentLength, len(p.Pieces), w.res.Total)
	}
	for i, want := range p.Pieces {
		start := int64(i) * p.PieceSize
		sum := sha256.Sum256(w.file[start:min(start+p.PieceSize, p.ContentLength)])
		if base64.StdEncoding.EncodeToString(sum[:]) != want {
			w.res.BadHash = append(w.res.BadHash, i)
		}
	}
	return nil
}

// ask sends one request and reads its answer, into buf if that is large
// enough.
func (w *windowsRun) ask(conn *windowsConn, method, target, byteRange string, buf []byte) (WindowsRequest, []byte, error) {
	if w.c.Origin != "" {
		sep := "?"
		if strings.Contains(target, "?") {
			sep = "&"
		}
		target += sep + "cacheHostOrigin=" + w.c.Origin
	}
	req := WindowsRequest{Conn: conn.id, Method: method, Target: target, Range: byteRange, Length: -1}
	if err := conn.open(); err != nil {
		return req, nil, err
	}
	begin := time.Now()
	if _, err := io.WriteString(conn.conn, w.head(req)); err != nil {
		return req, nil, err
	}
	head, err := readHead(conn.r)
	for err == nil && head.Status < 200 {
		head, err = readHead(conn.r)
	}
	if err != nil {
		return req, nil, fmt.Errorf("reading the head: %w", err)
	}
	req.First = time.Since(begin)
	req.Status, req.Fields = head.Status, head.Fields
	req.ContentRange, _ = head.Get("Content-Range")
	if length, ok := head.Get("Content-Length"); ok {
		if req.Length, err = strconv.ParseInt(length, 10, 64); err != nil {
			return req, nil, fmt.Errorf("the Content-Length: %w", err)
		}
	}
	body, err := newBody(conn.r, head, method)
	if err != nil {
		return req, nil, err
	}
	got, err := readInto(body, buf)
	req.Bytes = int64(len(got))
	w.mu.Lock()
	w.res.Requests = append(w.res.Requests, req)
	w.mu.Unlock()
	if !body.reuse {
		conn.close() // ask opens another
	}
	return req, got, err
}

func (w *windowsRun) head(req WindowsRequest) string {
	host := w.c.Host
	if host == "" {
		host = w.c.Addr
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nConnection: Keep-Alive\r\nAccept: */*\r\n", req.Method, req.Target)
	if req.Range != "" {
		fmt.Fprintf(&b, "Range: %s\r\n", req.Range)
	}
	fmt.Fprintf(&b, "User-Agent: %s\r\nMS-CV: pQd4k8yYe0qN3v1S.1.%d.1\r\nHost: %s\r\n\r\n", windowsUserAgent, req.Conn+1, host)
	return b.String()
}

// readInto reads a whole body, what fits into buf without copying.
func readInto(r io.Reader, buf []byte) ([]byte, error) {
	var more []byte
	for n := 0; ; {
		if n == len(buf) {
			if more == nil {
				more = make([]byte, 32<<10)
			}
			m, err := r.Read(more)
			buf = append(buf[:n:n], more[:m]...)
			n += m
			if err != nil {
				return buf, unlessEOF(err)
			}
			continue
		}
		m, err := r.Read(buf[n:])
		n += m
		if err != nil {
			return buf[:n], unlessEOF(err)
		}
	}
}

func unlessEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
