package fill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"larder/internal/byterange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = ChunkSize

// bytesOf returns the bytes of a generation; no two agree for long.
func bytesOf(generation string, size int64) []byte {
	var seed [32]byte
	copy(seed[:], generation)
	b := make([]byte, size)
	rand.NewChaCha8(seed).Read(b)
	return b
}

// A trouble is what happens to one answer.
type trouble struct {
	delay    time.Duration // before the head
	mute     bool          // no head at all
	err      error         // instead of an answer
	status   int           // another status, without content
	cut      int64         // the body ends after so many bytes; 0: not
	stall    int64         // the body falls silent after so many bytes; 0: not
	mutter   bool          // the body falls silent at once
	ignore   bool          // 200 to a ranged request
	shift    int64         // the 206 begins so many bytes later than asked
	unsized  bool          // no length
	panicked bool
}

// An upstream is a Source whose troubles are the test's.
type upstream struct {
	mu       sync.Mutex
	body     []byte // now
	strong   string // now
	noRanges bool   // it ignores Range
	learned  bool
	strict   bool                            // 416 where it should clamp
	trouble  func(n int, a *Ask) trouble     // of the nth request from 0; nil: none
	gate     func(n int, at int64)           // called before the bytes at at are given; nil: free
	asks     []Ask                           //
	begun    []any                           // the resources of Begin
	asked    int64                           // bytes of all ranges asked
	read     int64                           // bytes taken from bodies
	open     int                             // bodies not closed
	begin    func(rep *Reply) (*disk, error) // nil: make a disk
	memory   time.Duration                   // Remember
	disks    []*disk                         // made, the last is current
	renewed  int                             //
	stored   bool                            // somebody else was faster
	full     bool                            // disks refuse
}

func newUpstream(size int64) *upstream {
	return &upstream{body: bytesOf("one", size), strong: "one", memory: 2 * time.Second}
}

// change makes the content another one.
func (u *upstream) change(strong string, size int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.body, u.strong = bytesOf(strong, size), strong
}

func (u *upstream) requests() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.asks)
}

// requested returns the requests so far, made the disks, asking and got how many
// bytes were asked for and read: fetches may still be under way.
func (u *upstream) requested() []Ask {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.asks)
}

func (u *upstream) made() []*disk {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.disks)
}

func (u *upstream) asking() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.asked
}

func (u *upstream) got() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.read
}

// taken returns how many bytes were read, and how many bodies are open.
func (u *upstream) taken() (read int64, open int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.read, u.open
}

func (u *upstream) Fetch(ctx context.Context, a *Ask) (*Reply, error) {
	u.mu.Lock()
	n := len(u.asks)
	u.asks = append(u.asks, *a)
	var tr trouble
	if u.trouble != nil {
		tr = u.trouble(n, a)
	}
	u.mu.Unlock()
	if tr.panicked {
		panic("told to")
	}
	if tr.mute {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if tr.delay > 0 {
		select {
		case <-time.After(tr.delay):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if tr.err != nil {
		return nil, tr.err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	size := int64(len(u.body))
	rep := &Reply{Status: 200, Size: size, Strong: u.strong}
	r := byterange.Range{End: size}
	switch {
	case tr.status != 0:
		rep.Status, rep.Size, r = tr.status, -1, byterange.Range{}
	case a.Revalidate && u.strong == "one":
		rep.Status, r = 304, byterange.Range{}
	case !a.Ranged || u.noRanges || tr.ignore || a.IfRange != "" && a.IfRange != u.strong:
	case a.Range.Start >= size || u.strict && a.Range.End > size:
		rep.Status, r = 416, byterange.Range{}
	default:
		rep.Status = 206
		r = byterange.Range{Start: min(a.Range.Start+tr.shift, size-1), End: min(a.Range.End, size)}
		if r.End <= r.Start {
			r.End = r.Start + 1
		}
		rep.Range = r
	}
	if tr.unsized && rep.Status == 200 {
		rep.Size = -1
	}
	u.asked += r.Len()
	u.open++
	b := &flow{u: u, n: n, tr: tr, of: u.body, data: u.body[r.Start:r.End], at: r.Start, done: make(chan struct{})}
	rep.Body = b
	return rep, nil
}

func (u *upstream) NoRanges(any) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.learned
}

func (u *upstream) LearnNoRanges(any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.learned = true
}

func (u *upstream) Begin(resource any, rep *Reply) (Object, error) {
	u.mu.Lock()
	u.begun = append(u.begun, resource)
	u.mu.Unlock()
	if rep.Status != 200 && rep.Status != 206 {
		return nil, &StatusError{Status: rep.Status}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.begin != nil {
		d, err := u.begin(rep)
		if err != nil {
			return nil, err
		}
		u.disks = append(u.disks, d)
		return d, nil
	}
	d := &disk{u: u, generation: uint64(len(u.disks) + 1), of: rep.Strong, size: rep.Size, refs: 1, full: u.full, chunks: map[int64][]byte{}}
	u.disks = append(u.disks, d)
	return d, nil
}

func (u *upstream) Renew(any, *Reply) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.renewed++
	return nil
}

func (u *upstream) Stored(any) bool { return u.stored }

// A string is somebody's with credentials, a number somebody's without.
func (u *upstream) Own(resource any) (who string, own bool) {
	switch r := resource.(type) {
	case string:
		return r, true
	case int:
		return "", true
	}
	return "", false
}

func (u *upstream) Shared(any, *Reply) bool { return true }

func (u *upstream) Route(any) string { return "" }

func (u *upstream) Remember(_ any, err error) time.Duration {
	if errors.Is(err, context.Canceled) {
		return 0
	}
	return u.memory
}

// current returns the stored object of the key, as a store's Get would.
func (u *upstream) current() *disk {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.disks) == 0 {
		return nil
	}
	d := u.disks[len(u.disks)-1]
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.doomed {
		return nil
	}
	d.refs++
	return d
}

// A flow is the body of one answer.
type flow struct {
	u    *upstream
	n    int
	tr   trouble
	of   []byte // the whole generation
	data []byte
	at   int64
	read int64

	once sync.Once
	done chan struct{}
}

func (b *flow) Read(p []byte) (int, error) {
	select {
	case <-b.done:
		return 0, io.EOF // the worst that a closed body can say
	default:
	}
	if b.tr.mutter || b.tr.stall > 0 && b.read >= b.tr.stall {
		<-b.done
		return 0, io.EOF
	}
	if b.tr.cut > 0 && b.read >= b.tr.cut {
		return 0, io.ErrUnexpectedEOF
	}
	if len(b.data) == 0 {
		return 0, io.EOF
	}
	if b.u.gate != nil {
		b.u.gate(b.n, b.at)
	}
	n := min(len(p), len(b.data), 32<<10)
	for _, limit := range []int64{b.tr.cut, b.tr.stall} {
		if limit > 0 {
			n = int(min(int64(n), limit-b.read))
		}
	}
	copy(p, b.data[:n])
	b.data, b.at, b.read = b.data[n:], b.at+int64(n), b.read+int64(n)
	b.u.mu.Lock()
	b.u.read += int64(n)
	b.u.mu.Unlock()
	return n, nil
}

func (b *flow) Close() error {
	b.once.Do(func() {
		close(b.done)
		b.u.mu.Lock()
		b.u.open--
		b.u.mu.Unlock()
	})
	return nil
}

// A disk is an Object in memory that checks what it is given.
type disk struct {
	u          *upstream
	generation uint64
	of         string // the generation upstream

	mu      sync.Mutex
	size    int64
	refs    int
	doomed  bool
	full    bool
	refuses func() bool // nil: never
	wrong   error       // what was put and must not have been
	chunks  map[int64][]byte
}

var errFull = errors.New("full")

func (d *disk) Generation() uint64 { return d.generation }

func (d *disk) Has(i int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.chunks[i] != nil
}

func (d *disk) Put(i int64, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.doomed || d.full || d.refuses != nil && d.refuses():
		return errFull
	case d.chunks[i] != nil:
		d.wrong = fmt.Errorf("chunk %d was put twice", i)
	case d.size >= 0 && int64(len(data)) != min(mib, d.size-i*mib), d.size < 0 && len(data) != mib:
		d.wrong = fmt.Errorf("chunk %d was put with %d bytes", i, len(data))
	}
	d.chunks[i] = append([]byte(nil), data...)
	return nil
}

func (d *disk) SetSize(n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.doomed {
		return errFull
	}
	d.size = n
	return nil
}

func (d *disk) Doom() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.doomed = true
}

func (d *disk) Doomed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.doomed
}

func (d *disk) Retain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refs++
}

func (d *disk) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refs--; d.refs < 0 {
		panic("released more often than retained")
	}
}

// appendTo appends n stored bytes from off on to b.
func (d *disk) appendTo(b []byte, off, n int64) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n > 0 {
		part := d.chunks[off/mib][off%mib:]
		part = part[:min(int64(len(part)), n)]
		b, off, n = append(b, part...), off+int64(len(part)), n-int64(len(part))
	}
	return b
}

// newFiller makes a Filler over u. When the test ends nothing may be left:
// no body, no reference, no buffer, no content.
func newFiller(t testing.TB, u *upstream, cfg Config) *Filler {
	cfg.Source, cfg.Keeper = u, u
	f := New(cfg)
	made := f.bufs.left
	t.Cleanup(func() {
		f.Close()
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.open != 0 {
			t.Errorf("%d bodies were not closed", u.open)
		}
		for _, d := range u.disks {
			if d.refs != 0 {
				t.Errorf("generation %d: %d references are left", d.generation, d.refs)
			}
			if d.wrong != nil {
				t.Errorf("generation %d: %v", d.generation, d.wrong)
			}
		}
		if n := f.bufs.left + len(f.bufs.free); n != made {
			t.Errorf("%d of %d buffers came back", n, made)
		}
		if n := len(f.contents) + len(f.live) + len(f.heads); n != 0 {
			t.Errorf("%d contents and heads are left", n)
		}
	})
	return f
}

// content returns a Content of u's object as a node does: from the store, or
// by asking for it.
func content(ctx context.Context, f *Filler, u *upstream, w Want) (*Content, error) {
	if d := u.current(); d != nil {
		defer d.Release()
		d.mu.Lock()
		size := d.size
		d.mu.Unlock()
		return f.Attach("k", nil, d, size, d.of), nil
	}
	o, err := f.Open(ctx, "k", nil, w)
	return o.Content, err
}

// opened is content that must succeed, closed with the test.
func opened(t testing.TB, f *Filler, u *upstream, w Want) *Content {
	t.Helper()
	c, err := content(t.Context(), f, u, w)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return c
}

// drain reads r to its end; the bytes it got are returned whatever happens.
func drain(ctx context.Context, r *Reader) (got []byte, missed int64, err error) {
	buf := make([]byte, 64<<10)
	got = make([]byte, 0, max(r.end-r.pos, 0))
	for {
		p, err := r.Next(ctx, buf)
		if err == io.EOF {
			return got, missed, nil
		}
		if err != nil {
			return got, missed, err
		}
		if p.Stored {
			got = r.c.obj.(*disk).appendTo(got, p.Off, p.Len)
		} else {
			got = append(got, buf[:p.Len]...)
		}
		if p.Missed {
			missed += p.Len
		}
	}
}

// readRange reads [start, end) of c.
func readRange(ctx context.Context, c *Content, start, end int64) ([]byte, int64, error) {
	r := c.NewReader(nil, byterange.Range{Start: start, End: end})
	defer r.Close()
	return drain(ctx, r)
}
