package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"larder/internal/httpsrv"
)

// Host is the name under which the demo publisher is asked for. The domain
// "test" never resolves (RFC 6761 section 6.2), so nobody else is meant.
const Host = "demo.larder.test"

// SumsPath is where the origin lists the SHA-256 of its files, in the form
// that "sha256sum --check" reads.
const SumsPath = "/files/SHA256SUMS"

// File is one file of the demo publisher.
type File struct {
	Path string // as in the URL
	Size int64  // bytes
}

// Content returns the bytes of the file.
func (f File) Content() Content { return NewContent(f.Path, f.Size) }

// Files returns what the demo publisher has, smallest first.
func Files() []File {
	return []File{
		{"/files/1KiB.bin", 1 << 10},
		{"/files/64KiB.bin", 64 << 10},
		{"/files/1MiB.bin", 1 << 20},
		{"/files/16MiB.bin", 16 << 20},
		{"/files/256MiB.bin", 256 << 20},
	}
}

// published is the Last-Modified of everything: the files never change.
var published = time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC)

// Origin is the web server of the demo publisher, an http.Handler. It answers
// GET and HEAD, with ranges, strong entity tags and Last-Modified.
type Origin struct {
	sums func() []byte // the listing; made once, it reads every file
	sent atomic.Int64
}

// NewOrigin returns the origin. It holds no resources until it is asked.
func NewOrigin() *Origin {
	return &Origin{sums: sync.OnceValue(sums)}
}

// BytesSent returns how many bytes of bodies left so far.
func (o *Origin) BytesSent() int64 { return o.sent.Load() }

// Ready waits until everything can be asked for: the listing takes a while.
func (o *Origin) Ready() { o.sums() }

// Run serves on ln until ctx ends, and closes ln.
func (o *Origin) Run(ctx context.Context, ln net.Listener) error {
	go o.sums() // ends by itself: on a slow machine it takes longer than who asks for the listing waits
	if err := httpsrv.Serve(ctx, ln, o, nil); err != nil {
		return fmt.Errorf("demo origin on %s: %w", ln.Addr(), err)
	}
	return nil
}

// ServeHTTP answers one request.
func (o *Origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the demo publisher only answers GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	switch r.URL.Path {
	case "/":
		o.text(w, r, "text/html; charset=utf-8", index())
		return
	case SumsPath:
		o.text(w, r, "text/plain; charset=utf-8", o.sums())
		return
	}
	for _, f := range Files() {
		if f.Path == r.URL.Path {
			c := f.Content()
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
			w.Header().Set("ETag", etag(c.seed, c.size))
			o.serve(w, r, c.Reader())
			return
		}
	}
	http.Error(w, "the demo publisher has no such file; / lists what it has", http.StatusNotFound)
}

// text answers with a page that is in memory.
func (o *Origin) text(w http.ResponseWriter, r *http.Request, kind string, page []byte) {
	sum := sha256.Sum256(page)
	w.Header().Set("Content-Type", kind)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
	o.serve(w, r, bytes.NewReader(page))
}

func (o *Origin) serve(w http.ResponseWriter, r *http.Request, body io.ReadSeeker) {
	http.ServeContent(w, r, "", published, &countedReader{ReadSeeker: body, n: &o.sent})
}

// etag is strong (RFC 9110 section 8.8.1): the same seed and size are the
// same bytes for ever.
func etag(seed uint64, size int64) string {
	return fmt.Sprintf(`"%016x-%x"`, seed, size)
}

// countedReader adds what is read from it to n.
type countedReader struct {
	io.ReadSeeker
	n *atomic.Int64
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.ReadSeeker.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func sums() []byte {
	var b bytes.Buffer
	for _, f := range Files() {
		h := sha256.New()
		_, _ = io.Copy(h, f.Content().Reader()) // neither side can fail
		fmt.Fprintf(&b, "%x  %s\n", h.Sum(nil), path.Base(f.Path))
	}
	return b.Bytes()
}

func index() []byte {
	var b bytes.Buffer
	b.WriteString(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Larder demo publisher</title>
<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}td,th{text-align:left;padding:.1rem 1rem .1rem 0}</style>
</head>
<body>
<h1>Larder demo publisher</h1>
<p>These files exist to be downloaded through a Larder node. Their bytes are
made up, the same every time, and never change.</p>
<table>
<tr><th scope="col">File</th><th scope="col">Size</th></tr>
`)
	for _, f := range Files() {
		p := html.EscapeString(f.Path)
		fmt.Fprintf(&b, "<tr><td><a href=\"%s\">%s</a></td><td>%s</td></tr>\n", p, p, bytesText(f.Size))
	}
	fmt.Fprintf(&b, "</table>\n<p>Their check sums are in <a href=\"%s\">%s</a>.</p>\n</body>\n</html>\n", SumsPath, SumsPath)
	return b.Bytes()
}

// Publisher returns the catalogue file of the demo publisher, whose origin
// listens at originAddr ("host:port"). The file names the address, which is
// what lets a node fetch from loopback.
func Publisher(originAddr string) []byte {
	return fmt.Appendf(nil, `# The demo publisher of "larder up --demo".
name: demo
content_type: demo
hosts: [%s]
schemes: [http, https]
freshness: immutable
query: drop
origin: {scheme: http, address: %q}
`, Host, originAddr)
}
