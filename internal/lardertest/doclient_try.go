package lardertest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// curlCode is the code of a failure that libcurl numbers n.
func curlCode(n uint32) ErrorCode { return 0xC0D00000 | ErrorCode(n) }

// The numbers of libcurl's failures that the model tells apart.
const (
	curlWeirdReply   = 8
	curlTLSConnect   = 35
	curlTooManyHops  = 47
	curlEmptyReply   = 52
	curlReceiveError = 56
)

// statusCode is the code the agent gives to an HTTP status; NoError for those
// it takes for success.
func statusCode(status int) ErrorCode {
	switch status {
	case 200, 201, 202, 203, 204, 206:
		return NoError
	case 300, 500, 503:
		return ErrStatusServer
	case 301, 302, 303:
		return 0x80190003
	case 404, 410:
		return ErrStatusNotFound
	case 305, 502, 504:
		return ErrStatusGateway
	case 400, 405, 409, 411, 412, 414, 415:
		return 0x80190190
	case 401:
		return 0x80190191
	case 403:
		return ErrStatusForbidden
	case 406:
		return 0x80190196
	case 407:
		return 0x80190197
	case 408:
		return 0x80190198
	case 413:
		return 0x8019019D
	case 501, 505:
		return 0x801901F5
	default:
		return ErrStatusUnexpected
	}
}

// failure is why a try failed, in both languages.
type failure struct {
	code  ErrorCode
	fatal bool // the agent gives up, whatever its policy
	err   error
	took  time.Duration // the client's time-out that this is; 0: none
}

func (f *failure) Error() string { return f.code.String() + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// try makes one request, redirects included, and appends what comes to the
// file. Fatal: the agent gives up.
func (d *download) try(ctx context.Context, target string) (Attempt, bool) {
	a := Attempt{To: "cdn", At: d.c.now().Sub(d.start), URL: target}
	connect := cdnConnectTime
	if d.onCache {
		a.To, connect = "cache", cacheConnectTime
	}
	if d.res.Bytes > 0 {
		a.Range = fmt.Sprintf("bytes=%d-%d", d.res.Bytes, d.res.BytesTotal-1)
	}
	u, err := parseURL(target)
	for hop := 0; err == nil; hop++ {
		if hop > maxRedirects {
			err = &failure{code: curlCode(curlTooManyHops), err: errors.New("too many redirects")}
			break
		}
		var location string
		location, err = d.hop(ctx, &a, u, connect)
		if err != nil || location == "" {
			break
		}
		u, err = resolveLocation(u, location)
		if err == nil {
			a.Redirects = append(a.Redirects, u.String())
		}
	}
	if err == nil {
		a.Err = statusCode(a.Status)
		return a, false
	}
	a.Cause = err
	var f *failure
	if errors.As(err, &f) {
		if d.c.Wait != nil {
			d.c.Skip(f.took)
		}
		a.Err = f.code
		return a, f.fatal
	}
	a.Err = ErrInvalidURL
	return a, true
}

// hop makes one request and returns where it is redirected to, "" when this
// is the answer. Its errors are failures.
func (d *download) hop(ctx context.Context, a *Attempt, u httpURL, connect time.Duration) (string, error) {
	for {
		conn, reused, err := d.c.connection(ctx, u, connect)
		if err != nil {
			return "", err
		}
		if len(a.Redirects) == 0 {
			a.Reused = reused
		}
		location, err := d.exchange(ctx, a, u, conn)
		if reused && errors.Is(err, errNoAnswer) {
			continue // the server closed it while it was idle; libcurl makes a new one
		}
		return location, err
	}
}

// errNoAnswer is in the failure when a connection ended before any byte.
var errNoAnswer = errors.New("the connection ended without an answer")

func (d *download) exchange(ctx context.Context, a *Attempt, u httpURL, conn *wireConn) (string, error) {
	keep := false
	defer func() {
		if keep {
			d.c.putIdle(u, conn)
		} else {
			_ = conn.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if conn.proto == "h2" {
		return d.exchangeHTTP2(ctx, a, u, conn)
	}
	slow := d.c.watch(conn)
	var req strings.Builder
	fmt.Fprintf(&req, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\nAccept: */*\r\n", u.target(), u.authority(), liteUserAgent)
	if a.Range != "" {
		fmt.Fprintf(&req, "Range: %s\r\n", a.Range)
	}
	req.WriteString("\r\n")
	if _, err := io.WriteString(conn, req.String()); err != nil {
		return "", &failure{code: curlCode(curlEmptyReply), err: errors.Join(errNoAnswer, err)}
	}

	r := bufio.NewReaderSize(slow, 64<<10)
	head, err := d.heads(a, r)
	if err != nil {
		return "", err
	}
	body, err := newBody(r, head, http.MethodGet)
	if err != nil {
		return "", &failure{code: curlCode(curlWeirdReply), err: err}
	}
	if location := redirect(head); location != "" {
		if _, err := io.Copy(io.Discard, body); err != nil {
			return "", receiving(err)
		}
		keep = body.reuse && r.Buffered() == 0
		return location, nil
	}
	if statusCode(head.Status) != NoError {
		return "", nil // libcurl is told not to read the body, and closes
	}
	if err := d.take(a, body); err != nil {
		return "", err
	}
	keep = body.reuse && r.Buffered() == 0
	return "", nil
}

// heads reads the head of the answer. Interim answers leave their fields
// behind, as in libcurl's callback.
func (d *download) heads(a *Attempt, r *bufio.Reader) (*Head, error) {
	for {
		head, err := readHead(r)
		switch {
		case errors.Is(err, io.EOF) || isReset(err):
			return nil, &failure{code: curlCode(curlEmptyReply), err: errors.Join(errNoAnswer, err)}
		case errors.Is(err, errMalformed):
			return nil, &failure{code: curlCode(curlWeirdReply), err: err}
		case err != nil:
			return nil, receiving(err)
		}
		a.Proto, a.Status = head.Proto, head.Status
		a.Fields = append(a.Fields, head.Fields...)
		if head.Status >= 200 {
			return head, nil
		}
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "read" && !op.Timeout()
}

func redirect(h *Head) string {
	switch h.Status {
	case 301, 302, 303, 307, 308:
		return h.fold("Location")
	}
	return ""
}

// take appends the body to the file. What it learns from the head it learns
// as late as the agent does: with the first byte, or at the end.
func (d *download) take(a *Attempt, body io.Reader) error {
	buf := make([]byte, 64<<10)
	told := false
	for {
		n, err := body.Read(buf)
		if !told && (n > 0 || errors.Is(err, io.EOF)) {
			told = true
			if err := d.headersAvailable(a); err != nil {
				return err
			}
		}
		if _, werr := d.file.Write(buf[:n]); werr != nil {
			return &failure{code: ErrUnhandled, fatal: true, err: werr}
		}
		d.res.Bytes += int64(n)
		a.Bytes += int64(n)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return receiving(err)
		}
	}
}

// headersAvailable takes the total from the head, by names in their exact
// letter case.
func (d *download) headersAvailable(a *Attempt) error {
	all := Head{Fields: a.Fields}
	d.res.Corrupted = d.res.Corrupted || a.Status == http.StatusOK && a.Range != ""
	length, ok := all.Get("Content-Length")
	if a.Status == http.StatusPartialContent {
		length, ok = all.Get("Content-Range")
		if !ok {
			return &failure{code: ErrNotSet, fatal: true, err: errors.New("no Content-Range in a 206")}
		}
		if _, length, ok = strings.Cut(length, "/"); !ok {
			return &failure{code: ErrNotSet, fatal: true, err: errors.New("no total in Content-Range")}
		}
	}
	d.res.BytesTotal = 0
	if !ok {
		return nil
	}
	n, err := strconv.ParseInt(length, 10, 64)
	if err != nil {
		return &failure{code: ErrUnhandled, fatal: true, err: err}
	}
	d.res.BytesTotal = n
	return nil
}

// exchangeHTTP2 is what libcurl does when the server chose HTTP/2: the names
// of fields arrive in lower case (RFC 9113 section 8.2).
func (d *download) exchangeHTTP2(ctx context.Context, a *Attempt, u httpURL, conn *wireConn) (string, error) {
	tr := &http.Transport{
		ForceAttemptHTTP2:  true,
		DisableCompression: true,
		DialTLSContext:     func(context.Context, string, string) (net.Conn, error) { return conn.Conn, nil },
	}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithCancelCause(ctx)
	limit := lowSpeedTime / d.c.hurry()
	silence := time.AfterFunc(limit, func() { cancel(os.ErrDeadlineExceeded) })
	defer cancel(nil)
	defer silence.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", &failure{code: ErrInvalidURL, fatal: true, err: err}
	}
	req.Header.Set("User-Agent", liteUserAgent)
	if a.Range != "" {
		req.Header.Set("Range", a.Range)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return "", receiving(errors.Join(err, context.Cause(ctx)))
	}
	defer func() { _ = resp.Body.Close() }()
	head := &Head{Proto: resp.Proto, Status: resp.StatusCode}
	for name, values := range resp.Header {
		for _, value := range values {
			head.Fields = append(head.Fields, Field{strings.ToLower(name), value})
		}
	}
	a.Proto, a.Status = head.Proto, head.Status
	a.Fields = append(a.Fields, head.Fields...)
	if location := redirect(head); location != "" {
		return location, nil
	}
	if statusCode(head.Status) != NoError {
		return "", nil
	}
	return "", d.take(a, readerFunc(func(p []byte) (int, error) {
		n, err := resp.Body.Read(p)
		silence.Reset(limit)
		if err != nil && context.Cause(ctx) != nil {
			err = context.Cause(ctx)
		}
		return n, err
	}))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// receiving says what it means that reading an answer failed.
func receiving(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &failure{code: ErrTimeout, err: err, took: lowSpeedTime}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &failure{code: ErrShortBody, err: err}
	default:
		return &failure{code: curlCode(curlReceiveError), err: err}
	}
}

// connection returns an idle connection to u or makes one.
func (c *DOClient) connection(ctx context.Context, u httpURL, limit time.Duration) (*wireConn, bool, error) {
	key := u.scheme + "://" + u.address()
	c.mu.Lock()
	if conns := c.idle[key]; len(conns) > 0 {
		conn := conns[len(conns)-1]
		c.idle[key] = slices.Delete(conns, len(conns)-1, len(conns))
		c.mu.Unlock()
		return conn, true, nil
	}
	c.mu.Unlock()

	address := u.address()
	if to, ok := c.Connect[address]; ok {
		if to == "" {
			return nil, false, &failure{code: ErrNameNotResolved, err: errUnresolved}
		}
		address = to
	}
	ctx, cancel := context.WithTimeout(ctx, limit/c.hurry())
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	var dns *net.DNSError
	switch {
	case err == nil:
	case errors.As(err, &dns):
		return nil, false, &failure{code: ErrNameNotResolved, err: err}
	case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded):
		return nil, false, &failure{code: ErrTimeout, err: err, took: limit}
	default:
		return nil, false, &failure{code: ErrCannotConnect, err: err}
	}
	if u.scheme != "https" {
		return &wireConn{Conn: raw}, false, nil
	}

	conn := tls.Client(raw, &tls.Config{
		ServerName: strings.Trim(u.host, "[]"),
		RootCAs:    c.Roots,
		NextProtos: []string{"h2", "http/1.1"},
		MinVersion: tls.VersionTLS12,
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		var untrusted *tls.CertificateVerificationError
		switch {
		case errors.As(err, &untrusted):
			return nil, false, &failure{code: ErrUntrusted, err: err}
		case ctx.Err() != nil:
			return nil, false, &failure{code: ErrTimeout, err: err, took: limit}
		default:
			return nil, false, &failure{code: curlCode(curlTLSConnect), err: err}
		}
	}
	return &wireConn{conn, conn.ConnectionState().NegotiatedProtocol}, false, nil
}

func (c *DOClient) putIdle(u httpURL, conn *wireConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle == nil {
		c.idle = map[string][]*wireConn{}
	}
	key := u.scheme + "://" + u.address()
	c.idle[key] = append(c.idle[key], conn)
}

// speedWatch is the low-speed rule of the agent: less than 4000 bytes a
// second for 20 s end a request.
type speedWatch struct {
	conn  net.Conn
	limit time.Duration // real
	span  time.Duration // real; one second for the client
	good  time.Time     // when it was last fast enough

	since time.Time // of this span
	bytes int64     // in it
}

func (c *DOClient) watch(conn *wireConn) *speedWatch {
	now := time.Now()
	return &speedWatch{
		conn: conn, limit: lowSpeedTime / c.hurry(), span: time.Second / c.hurry(), good: now, since: now,
	}
}

// Read reads from the connection; os.ErrDeadlineExceeded: too slow.
func (s *speedWatch) Read(p []byte) (int, error) {
	if time.Since(s.good) >= s.limit {
		return 0, fmt.Errorf("less than %d bytes/s for %v: %w", lowSpeedBytes, lowSpeedTime, os.ErrDeadlineExceeded)
	}
	if err := s.conn.SetReadDeadline(s.good.Add(s.limit)); err != nil {
		return 0, err
	}
	n, err := s.conn.Read(p)
	s.bytes += int64(n)
	now := time.Now()
	if gone := now.Sub(s.since); gone >= s.span {
		if float64(s.bytes)*float64(s.span) >= lowSpeedBytes*float64(gone) {
			s.good = now
		}
		s.since, s.bytes = now, 0
	}
	return n, err
}
