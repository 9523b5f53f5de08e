package crash_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"larder/internal/lardertest"
)

// An item is an object of the origin, with all versions it ever had.
type item struct {
	path string
	base int64 // bytes of version 1, and the least of any
	mu   sync.Mutex
	last int // guarded by mu: the newest version
}

// size returns how many bytes a version has.
func (it *item) size(version int) int64 {
	if it.fixed() {
		return it.base
	}
	return it.base + int64(version-1)%7*1013
}

// fixed reports whether the item never changes.
func (it *item) fixed() bool { return strings.HasPrefix(it.path, "/fixed/") }

func (it *item) newest() int {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.last
}

// named returns the version that has the entity tag, or 0.
func (it *item) named(tag string) int {
	for v := it.newest(); v > 0; v-- {
		if lardertest.ETag(it.path, v, it.size(v)) == tag {
			return v
		}
	}
	return 0
}

// A world is an origin and what is known of its content.
type world struct {
	origin *lardertest.Origin
	items  []*item
	bytes  int64 // of all items

	compared atomic.Int64 // bytes delivered and compared
	whole    atomic.Int64 // answers with content, up to their end
	cut      atomic.Int64 // answers with content that broke off
	refused  atomic.Int64 // answers from 500 up
}

// add puts an item at path.
func (w *world) add(path string, size int64) *item {
	it := &item{path: path, base: size, last: 1}
	w.items = append(w.items, it)
	w.bytes += size
	w.origin.Add(path, size)
	return it
}

// populate adds content of all sizes to 20 MiB, some of which changes.
func (w *world) populate() {
	edges := []int64{1, 2, 511, 4096, 65_537, 300_000, mib - 1, mib, mib + 1, 2 * mib, 3*mib + 77}
	for _, kind := range []string{"/ask/", "/soon/"} {
		for _, size := range edges {
			w.add(fmt.Sprintf("%s%d", kind, size), size)
		}
	}
	for i, size := range append(edges, edges...) {
		w.add(fmt.Sprintf("/fixed/%d-%d", i, size), size)
	}
	for i := range 10 {
		w.add(fmt.Sprintf("/fixed/mid-%d", i), int64(4+i)*mib-int64(i)*1237)
	}
	w.add("/fixed/large-1", 15*mib+1)
	w.add("/fixed/large-2", 20*mib)
}

// change makes the origin have a new version of an item that may change.
func (w *world) change(it *item) {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.last++
	w.origin.SetVersion(it.path, it.last, it.size(it.last))
}

// An ask is a request for an item or a part of it.
type ask struct {
	it     *item
	method string // default GET
	ranges string // the Range field; "": none
}

func (a ask) String() string { return fmt.Sprintf("%s %s %q", a.method, a.it.path, a.ranges) }

// anyAsk returns a random request.
func (w *world) anyAsk(r *rand.Rand) ask {
	it := w.items[r.IntN(len(w.items))]
	a := ask{it: it, method: http.MethodGet}
	switch n := r.IntN(20); {
	case n < 6:
	case n < 13:
		first := r.Int64N(it.base) / mib * mib
		a.ranges = fmt.Sprintf("bytes=%d-%d", first, first+mib-1)
	case n < 15:
		a.ranges = "bytes=0-1"
	case n < 17:
		a.ranges = fmt.Sprintf("bytes=-%d", 1+r.Int64N(it.base))
	case n < 18:
		a.ranges = fmt.Sprintf("bytes=%d-", r.Int64N(it.base))
	case n < 19:
		first := r.Int64N(it.base)
		a.ranges = fmt.Sprintf("bytes=%d-%d", first, first+r.Int64N(it.base-first))
	default:
		a.method = http.MethodHead
	}
	return a
}

// want returns which bytes of a representation of size bytes are asked for.
func (a ask) want(size int64) (from, to int64) {
	var first, last int64
	switch {
	case a.ranges == "":
		return 0, size
	case scan(a.ranges, "bytes=-%d", &last):
		return max(0, size-last), size
	case scan(a.ranges, "bytes=%d-%d", &first, &last):
		return first, min(last+1, size)
	case scan(a.ranges, "bytes=%d-", &first):
		return first, size
	}
	panic("no range: " + a.ranges)
}

func scan(text, format string, into ...any) bool {
	n, err := fmt.Sscanf(text, format, into...)
	return n == len(into) && err == nil
}

// A client asks one node and compares what it gets.
type client struct {
	w    *world
	addr string // host:port of the node
	http *http.Transport
}

func (w *world) client(n *lardertest.Node) *client {
	return &client{w: w, addr: n.HTTP, http: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 8}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// errWrong is an answer that must never be, whatever happened.
var errWrong = errors.New("wrong answer")

// errRefused is an answer from 500 up.
var errRefused = errors.New("refused")

var blocks = sync.Pool{New: func() any { return new([64 * kib]byte) }}

// do sends a request and compares every byte that comes back with the version
// that the answer's entity tag names, which it returns. Errors other than
// errWrong are answers that were refused or cut, as a node may that is killed.
func (c *client) do(ctx context.Context, a ask) (version int, err error) {
	req, err := http.NewRequestWithContext(ctx, a.method, "http://"+c.addr+a.it.path, nil)
	if err != nil {
		return 0, err
	}
	req.Host = host
	if a.ranges != "" {
		req.Header.Set("Range", a.ranges)
	}
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%v: %w: %s; its head: %d %v", a, errWrong, fmt.Sprintf(format, args...), resp.StatusCode, resp.Header)
	}
	if resp.StatusCode >= 500 {
		c.w.refused.Add(1)
		text, _ := io.ReadAll(io.LimitReader(resp.Body, kib))
		return 0, fmt.Errorf("%v: %w: %d %s", a, errRefused, resp.StatusCode, text)
	}
	version = a.it.named(resp.Header.Get("ETag"))
	if version == 0 {
		return 0, wrong("no version has this entity tag")
	}
	size := a.it.size(version)
	from, to := a.want(size)
	code, place := http.StatusOK, ""
	if a.ranges != "" {
		code, place = http.StatusPartialContent, fmt.Sprintf("bytes %d-%d/%d", from, to-1, size)
	}
	if got := resp.Header.Get("Content-Range"); resp.StatusCode != code || got != place {
		return 0, wrong("want %d and Content-Range %q", code, place)
	}
	if resp.ContentLength != to-from {
		return 0, wrong("Content-Length %d, want %d", resp.ContentLength, to-from)
	}
	if a.method == http.MethodHead {
		return version, nil
	}
	got, bad, err := compare(resp.Body, lardertest.Content(a.it.path, version, size), from)
	c.w.compared.Add(got)
	switch {
	case bad >= 0:
		return 0, wrong("byte %d differs from version %d", bad, version)
	case err != nil:
		c.w.cut.Add(1)
		return 0, fmt.Errorf("%v: cut after %d of %d bytes: %w", a, got, to-from, err)
	case got != to-from:
		return 0, wrong("%d bytes, want %d", got, to-from)
	}
	c.w.whole.Add(1)
	return version, nil
}

// again is do, a second time if need be: of what is fresh for a while the node
// may have a part whose rest the origin no longer has. That is found out when
// the head is gone, so the answer is cut; the next one must be whole.
func (c *client) again(ctx context.Context, a ask) (version int, err error) {
	version, err = c.do(ctx, a)
	if errors.Is(err, io.ErrUnexpectedEOF) && strings.HasPrefix(a.it.path, "/soon/") {
		return c.do(ctx, a)
	}
	return version, err
}

// compare reads all of body and returns how many bytes there were and which of
// them was the first that differs from content at off on, or -1.
func compare(body io.Reader, content interface {
	Wrong(p []byte, off int64) int64
}, off int64) (got, bad int64, err error) {
	block := blocks.Get().(*[64 * kib]byte)
	defer blocks.Put(block)
	for {
		n, err := body.Read(block[:])
		if content.Wrong(block[:n], off+got) > 0 {
			for i := range int64(n) {
				if content.Wrong(block[i:i+1], off+got+i) > 0 {
					return got, off + got + i, nil
				}
			}
		}
		got += int64(n)
		if err == io.EOF {
			return got, -1, nil
		}
		if err != nil {
			return got, -1, err
		}
	}
}

// wantAll fails the test unless the node serves every item, whole and as the
// origin has it now.
func (c *client) wantAll(t *testing.T) {
	t.Helper()
	for _, it := range c.w.items {
		c.wantItem(t, it)
	}
}

// wantItem fails the test unless the node serves the item whole. Of what it
// must ask the origin for, it must serve the newest version.
func (c *client) wantItem(t *testing.T, it *item) {
	t.Helper()
	version, err := c.again(t.Context(), ask{it: it, method: http.MethodGet})
	if err != nil {
		t.Errorf("%v", err)
	} else if newest := it.newest(); version != newest && strings.HasPrefix(it.path, "/ask/") {
		t.Errorf("%s: got version %d, which the node had to ask the origin about; want %d", it.path, version, newest)
	}
}
