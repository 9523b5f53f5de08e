package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
)

func TestMain(m *testing.M) {
	// Most tests here wait for time to pass in other processes, so more of
	// them than there are processors run at once; -parallel still decides.
	at := "12"
	if lardertest.Race {
		at = "3" // there the processors are what is waited for
	}
	if err := flag.Set("test.parallel", at); err != nil {
		panic(err)
	}
	lardertest.Main(m)
}

// cdnHost is the publisher of a lab. Nothing resolves below "test".
const cdnHost = "cdn.test"

// labPublisher is the publisher file of a lab whose test does not care.
const labPublisher = `
name: cdn
hosts: [cdn.test, "*.cdn.test"]
freshness: immutable
origin: {scheme: http, address: "$ORIGIN"}
`

// hastyConfig is lardertest.DefaultNodeConfig with a short patience, so that
// tests of silence are short, too. An origin that is starved of processor time
// is silent as well, so it is for no other tests.
const hastyConfig = lardertest.DefaultNodeConfig + "\nupstream: {silence_timeout: 2s}\n"

// A lab is a node of the real binary between clients and an origin that does
// what a test asks for.
type lab struct {
	*lardertest.Node
	origin *lardertest.Origin
	ca     *lardertest.CA // of the node's certificate
}

type labOptions struct {
	yaml      string // default lardertest.DefaultNodeConfig
	publisher string // default labPublisher; $ORIGIN, $TLSORIGIN and $CA are replaced
	files     map[string]string
	dir       string
	binary    string
	plain     bool // no certificate
	origin    *lardertest.Origin
}

func newLab(t *testing.T, o labOptions) *lab {
	t.Helper()
	l := &lab{origin: o.origin}
	if l.origin == nil {
		l.origin = lardertest.NewOrigin(t, cdnHost, "*."+cdnHost)
	}
	if o.yaml == "" {
		o.yaml = lardertest.DefaultNodeConfig
	}
	if o.publisher == "" {
		o.publisher = labPublisher
	}
	if o.dir == "" {
		o.dir = t.TempDir()
	}
	if !o.plain {
		l.ca = lardertest.NewCA(t)
		l.ca.Leaf(t, "127.0.0.1", "::1", "node.test").Install(t, o.dir+"/tls", "node")
	}
	files := map[string]string{
		"catalog.d/lab.yaml": l.fill(o.publisher),
		"origin-ca.pem":      string(l.origin.CA.PEM),
	}
	for name, text := range o.files {
		files[name] = l.fill(text)
	}
	l.Node = lardertest.StartNode(t, lardertest.NodeConfig{YAML: o.yaml, Files: files, Dir: o.dir, Binary: o.binary})
	return l
}

// fill puts the origin's addresses into a publisher file.
func (l *lab) fill(text string) string {
	return strings.NewReplacer("$ORIGIN", l.origin.Addr, "$TLSORIGIN", l.origin.TLSAddr, "$CA", "$DIR/origin-ca.pem").Replace(text)
}

// addr returns where the node listens for a scheme, and how TLS is spoken there.
func (l *lab) addr(scheme string) (string, *tls.Config) {
	if scheme == "https" {
		return l.HTTPS, &tls.Config{RootCAs: l.ca.Pool(), ServerName: "127.0.0.1"}
	}
	return l.HTTP, nil
}

// A reply is an answer as it came.
type reply struct {
	status int
	head   string // verbatim, with the empty line
	header http.Header
	body   []byte
	err    error // the body is short: it was cut
	first  time.Duration
	whole  time.Duration
}

// A question is a request as a test writes it.
type question struct {
	addr    string
	tls     *tls.Config
	method  string   // default GET
	target  string   // the request target, byte for byte
	host    string   // default cdnHost
	fields  []string // "Name: value"
	patient time.Duration
}

// ask sends one request on a connection of its own. The test ends if no head
// comes back; a body that is cut is an err in the reply.
func ask(t testing.TB, q question) *reply {
	t.Helper()
	r, err := q.send(t.Context())
	if err != nil {
		t.Fatalf("%s %s: %v", q.method, q.target, err)
	}
	return r
}

func (q question) send(ctx context.Context) (*reply, error) {
	conn, err := q.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	r, rest, err := q.sendOn(conn)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rest.Close() }()
	begun := time.Now()
	r.body, r.err = io.ReadAll(rest)
	r.whole = r.first + time.Since(begun)
	return r, nil
}

func (q question) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", q.addr)
	if err != nil {
		return nil, err
	}
	patient := q.patient
	if patient == 0 {
		patient = 40 * time.Second
	}
	if err := conn.SetDeadline(time.Now().Add(patient)); err != nil {
		return nil, err
	}
	if q.tls == nil {
		return conn, nil
	}
	secure := tls.Client(conn, q.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

// sendOn sends the request and reads the head of its answer.
func (q question) sendOn(conn net.Conn) (*reply, io.ReadCloser, error) {
	method, host := q.method, q.host
	if method == "" {
		method = http.MethodGet
	}
	if host == "" {
		host = cdnHost
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, q.target, host)
	for _, f := range q.fields {
		b.WriteString(f + "\r\n")
	}
	b.WriteString("\r\n")
	begun := time.Now()
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return nil, nil, err
	}
	in := bufio.NewReaderSize(conn, 64<<10)
	r := &reply{}
	for !strings.HasSuffix(r.head, "\r\n\r\n") {
		line, err := in.ReadString('\n')
		r.head += line
		if err != nil {
			return nil, nil, fmt.Errorf("reading the head (%q so far): %w", r.head, err)
		}
	}
	r.first = time.Since(begun)
	resp, err := http.ReadResponse(bufio.NewReaderSize(io.MultiReader(strings.NewReader(r.head), in), 64<<10), &http.Request{Method: method})
	if err != nil {
		return nil, nil, fmt.Errorf("%q: %w", r.head, err)
	}
	r.status, r.header = resp.StatusCode, resp.Header
	return r, resp.Body, nil
}

// get asks the lab's node over HTTP for a path of cdnHost.
func (l *lab) get(t testing.TB, path string, fields ...string) *reply {
	t.Helper()
	return ask(t, question{addr: l.HTTP, target: path, fields: fields})
}

// want fails the test unless the reply is whole and has that status.
func (r *reply) want(t testing.TB, status int) {
	t.Helper()
	if r.status != status || r.err != nil {
		t.Fatalf("got %d, %d bytes, %v; want %d\n%s%.300s", r.status, len(r.body), r.err, status, r.head, r.body)
	}
}

// wantContent fails the test unless the reply is bytes [from, to) of a version
// of the content at path that is size bytes long.
func (r *reply) wantContent(t testing.TB, path string, version int, size, from, to int64) {
	t.Helper()
	status := http.StatusPartialContent
	if from == 0 && to == size && r.header.Get("Content-Range") == "" {
		status = http.StatusOK
	}
	r.want(t, status)
	wrong := lardertest.Content(path, version, size).Wrong(r.body, from)
	if int64(len(r.body)) != to-from || wrong != 0 {
		t.Fatalf("%s: got %d bytes, %d of them wrong; want %d", path, len(r.body), wrong, to-from)
	}
	if got, want := r.header.Get("Content-Length"), fmt.Sprint(to-from); got != want {
		t.Errorf("%s: Content-Length %q, want %s\n%s", path, got, want, r.head)
	}
	if status == http.StatusPartialContent {
		if got, want := r.header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/%d", from, to-1, size); got != want {
			t.Errorf("%s: Content-Range %q, want %q", path, got, want)
		}
	}
}

// wantSentence fails the test unless the body is one plain sentence.
func (r *reply) wantSentence(t testing.TB) {
	t.Helper()
	text := strings.TrimSpace(string(r.body))
	if text == "" || strings.Contains(text, "\n") || strings.Contains(text, "<") || !strings.HasSuffix(text, ".") ||
		!strings.HasPrefix(r.header.Get("Content-Type"), "text/plain") {
		t.Errorf("the body is not one plain sentence: %q (%s)", r.body, r.header.Get("Content-Type"))
	}
}

// wantQuick fails the test unless the head came within limit.
func (r *reply) wantQuick(t testing.TB, limit time.Duration) {
	t.Helper()
	if lardertest.Race {
		limit *= 3
	}
	if r.first > limit {
		t.Errorf("the answer began after %v, want at most %v", r.first, limit)
	}
}

// wantSent fails the test unless the origin sent between least and most bytes
// of bodies for path.
func (l *lab) wantSent(t testing.TB, path string, least, most int64) {
	t.Helper()
	// What was sent is counted when it has left: the node may be faster.
	lardertest.Eventually(t, "the origin to have counted", func() bool { return l.origin.BytesSent(path) >= least })
	if got := l.origin.BytesSent(path); got > most {
		t.Errorf("%s: the origin sent %d bytes, want %d to %d; it was asked for:\n%s", path, got, least, most, l.askedFor(path))
	}
}

// askedFor lists the requests the origin got for path.
func (l *lab) askedFor(path string) string {
	var b bytes.Buffer
	for _, r := range l.origin.RequestsFor(path) {
		fmt.Fprintf(&b, "  %s %s range %q: %d, %d bytes\n", r.Method, r.Target, r.Range, r.Status, r.Sent)
	}
	return b.String()
}

// needTime skips a test that moves hundreds of megabytes when tests are to be
// short, as under the race detector.
func needTime(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("moves hundreds of megabytes; not with -short")
	}
}

// needRoot skips a test of what only the superuser of Linux may do.
func needRoot(t *testing.T, what string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: " + what)
	}
}
