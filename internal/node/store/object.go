package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Object is one stored representation, whole or in parts. Who got it from Get
// or Create holds it and must Release it once; until then its file stays.
type Object struct {
	key     string
	id      int64
	gen     uint64
	created time.Time
	s       *Store
	v       *volume // the drive it lies on

	refs    atomic.Int64
	size    atomic.Int64 // -1: not known yet
	meta    atomic.Pointer[Meta]
	derived atomic.Pointer[derived]
	chunks  atomic.Pointer[table]
	count   atomic.Int64 // chunks present
	visited atomic.Bool  // asked for since the eviction hand passed
	warm    atomic.Bool  // asked for since the hot set was last looked through
	pinned  atomic.Bool
	doomed  atomic.Bool // not current any more; set once, under the shard's lock
	left    atomic.Bool // out of the hot set; set once, under the shard's lock
	handle  atomic.Pointer[handle]

	changes atomic.Uint64 // made; written under mu
	saved   atomic.Uint64 // of these, in the index

	opening sync.Mutex // held while the file is opened or made; before mu

	mu        sync.Mutex // guards what follows and the guarded fields of the segments; the drive is not waited for under it, but for an object that nobody holds any more
	disk      int64      // bytes counted against the budget
	stored    int64      // bytes present
	hasFile   bool       // the file was made
	queued    bool       // waits for the next batch
	forgotten bool       // the index does not know it any more
	settled   bool       // file closed and, if doomed, removed
}

// derived is what a user of the store made of an object's meta.
type derived struct {
	of    *Meta
	value any
}

// handle is the open file of an object.
type handle struct{ f file }

// Key returns the key the object was created with.
func (o *Object) Key() string { return o.key }

// Generation returns a number that is larger for every later object of a key.
func (o *Object) Generation() uint64 { return o.gen }

// Meta returns what is known of the object now. The caller must not change it.
func (o *Object) Meta() *Meta { return o.meta.Load() }

// Derived returns what read makes of m, which Meta returned. It is kept with the
// object as long as it is in memory and has no other meta, so it must not change.
func (o *Object) Derived(m *Meta, read func(*Meta) any) any {
	if d := o.derived.Load(); d != nil && d.of == m {
		return d.value
	}
	d := &derived{m, read(m)}
	o.derived.Store(d)
	return d.value
}

// Chunks returns the number of chunks, or -1 while the size is not known.
func (o *Object) Chunks() int64 {
	size := o.size.Load()
	if size < 0 {
		return -1
	}
	return chunksOf(size)
}

// Complete reports whether every chunk is there. Chunks that were not read
// since an unclean stop count; only Has knows whether they are right.
func (o *Object) Complete() bool {
	n := o.Chunks()
	return n >= 0 && o.count.Load() == n
}

// Retain makes a further holder of one who holds the object.
func (o *Object) Retain() { o.refs.Add(1) }

// Release gives up what Get, Create or Retain gave.
func (o *Object) Release() {
	switch n := o.refs.Add(-1); {
	case n < 0:
		panic("store: object released more often than retained")
	case n == 0 && o.size.Load() < 0 && !o.left.Load():
		o.s.dropUnfinished(o)
	case n == 0 && o.left.Load():
		o.settle()
	}
}

// touch keeps the object in memory for a while. It loads first: a store would
// take the cache line from the other processors.
func (o *Object) touch() {
	if !o.warm.Load() {
		o.warm.Store(true)
	}
}

// ripeAfter is how old an object is before somebody who asks for it came back:
// until then it may be the download that brought it in.
const ripeAfter = 5 * time.Minute

// Ask notes that somebody asks for the object from its beginning, and eviction
// passes it over once. It is for the first piece of a download: a client that
// fetches in pieces is one that came once, and if each of its requests counted,
// everything fetched in pieces would look popular (docs/decisions/0008).
func (o *Object) Ask() {
	if !o.visited.Load() && time.Since(o.created) >= o.s.ripe {
		o.visited.Store(true)
	}
}

// segment returns the segment of chunk i, or nil where none of its chunks is.
func (o *Object) segment(number int64) *segment {
	t := *o.chunks.Load()
	if number < 0 || number >= int64(len(t)) {
		return nil
	}
	return t[number].Load()
}

// makeSegment is segment that makes what is missing. The caller holds o.mu.
func (o *Object) makeSegment(number int64) *segment {
	t := *o.chunks.Load()
	if number >= int64(len(t)) { // size not known: the table grows
		next := make(table, max(number+1, 2*int64(len(t))))
		for i := range t {
			next[i].Store(t[i].Load())
		}
		o.chunks.Store(&next)
		t = next
	}
	s := t[number].Load()
	if s == nil {
		n := int64(segmentChunks)
		if chunks := o.Chunks(); chunks >= 0 {
			n = min(n, chunks-number*segmentChunks)
		}
		s = &segment{sums: make([]uint32, n)}
		t[number].Store(s)
	}
	return s
}

// Has reports whether chunk i is there and right: its checksum was found to
// match since the drive was opened, if need be by reading it now.
func (o *Object) Has(i int64) bool {
	if i < 0 {
		return false
	}
	number, w, bit := at(i)
	s := o.segment(number)
	if s == nil {
		return false
	}
	if s.verified[w].Load()&bit != 0 {
		return true
	}
	return s.present[w].Load()&bit != 0 && o.verify(i, s) == nil
}

var errMismatch = errors.New("checksum does not match")

var buffers = sync.Pool{New: func() any { return new([ChunkSize]byte) }}

// verify reads chunk i, which must be present in s, and compares its checksum.
// If that fails the chunk is absent afterwards.
func (o *Object) verify(i int64, s *segment) error {
	l := o.v.stripe(o.id, i)
	l.Lock()
	defer l.Unlock()
	_, w, bit := at(i)
	if s.verified[w].Load()&bit != 0 {
		return nil
	}
	return o.check(i, s)
}

// check is verify whatever was verified before. The caller holds the stripe.
func (o *Object) check(i int64, s *segment) error {
	_, w, bit := at(i)
	if s.present[w].Load()&bit == 0 {
		return fs.ErrNotExist
	}
	buf := buffers.Get().(*[ChunkSize]byte)
	defer buffers.Put(buf)
	b := buf[:chunkLen(o.sizeFor(i), i)]
	at := o.v.watch.begin()
	f, err := o.open()
	if err == nil {
		_, err = f.ReadAt(b, i*ChunkSize)
	}
	o.v.watch.end(at)
	if err != nil {
		// A file that is too short lost its end in the stop; that is no
		// trouble of the drive.
		if errors.Is(err, io.EOF) {
			o.s.metrics.rotten.Add(1)
		} else {
			o.s.metrics.readErrors.Inc()
			o.v.suspect(err)
		}
		o.lose(i, s)
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.sums[i%segmentChunks] != crc32.Checksum(b, castagnoli) {
		o.s.metrics.rotten.Add(1)
		o.loseLocked(i, s)
		return errMismatch
	}
	// No change for the index: it is true for this start alone.
	s.verified[w].Or(bit)
	return nil
}

// sizeFor returns the size for the length of chunk i: while the size is not
// known, chunks are whole.
func (o *Object) sizeFor(i int64) int64 {
	if size := o.size.Load(); size >= 0 {
		return size
	}
	return (i + 1) * ChunkSize
}

// lose makes chunk i absent. Its blocks stay counted: the file still has them.
func (o *Object) lose(i int64, s *segment) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.loseLocked(i, s)
}

func (o *Object) loseLocked(i int64, s *segment) {
	_, w, bit := at(i)
	s.verified[w].And(^bit)
	if s.present[w].And(^bit)&bit == 0 {
		return
	}
	s.dirty = true
	o.count.Add(-1)
	o.stored -= chunkLen(o.sizeFor(i), i)
	o.changed()
}

// Failed tells the store that reading chunk i from the file met err. The chunk
// is absent from now on, and the drive is looked at.
func (o *Object) Failed(i int64, err error) {
	o.s.metrics.readErrors.Inc()
	if i < 0 {
		return
	}
	number, _, _ := at(i)
	if s := o.segment(number); s != nil {
		o.lose(i, s)
	}
	o.v.suspect(fmt.Errorf("reading chunk %d of %s: %w", i, o.v.path(o.id), err))
}

// SetMeta replaces what is known of the object, such as after a 304. The size
// must be the one it has, or -1: it may have become known since m was made.
func (o *Object) SetMeta(m *Meta) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := o.size.Load()
	if m.Size != size && m.Size >= 0 {
		return fmt.Errorf("meta of %q says %d bytes, the object has %d: %w", o.key, m.Size, size, errSize)
	}
	m = m.clone()
	m.Size = size
	o.meta.Store(m)
	o.changed()
	return nil
}

var errSize = errors.New("size does not fit")

// SetSize tells the size of an object that was created without one, before its
// last chunk is Put. From now on the object survives a restart.
func (o *Object) SetSize(n int64) error {
	if n < 0 || n > maxSize {
		return fmt.Errorf("size %d of %q: %w", n, o.key, errSize)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.doomed.Load() {
		return ErrGone
	}
	if size := o.size.Load(); size >= 0 {
		if size == n {
			return nil
		}
		return fmt.Errorf("size %d of %q, which has %d bytes: %w", n, o.key, size, errSize)
	}
	chunks := chunksOf(n)
	if last := o.lastChunk(); last >= chunks || last == chunks-1 && n%ChunkSize != 0 && last >= 0 {
		return fmt.Errorf("size %d of %q, which has a whole chunk %d: %w", n, o.key, last, errSize)
	}
	old := *o.chunks.Load()
	next := make(table, segmentsOf(chunks))
	for i := range min(len(old), len(next)) {
		if s := old[i].Load(); s != nil {
			s.sums = s.sums[:min(segmentChunks, chunks-int64(i)*segmentChunks)]
			next[i].Store(s)
		}
	}
	m := o.meta.Load().clone()
	m.Size = n
	o.chunks.Store(&next)
	o.meta.Store(m)
	o.size.Store(n)
	o.changed()
	return nil
}

// lastChunk returns the highest chunk with blocks, or -1. The caller holds o.mu.
func (o *Object) lastChunk() int64 {
	t := *o.chunks.Load()
	for n := int64(len(t)) - 1; n >= 0; n-- {
		s := t[n].Load()
		if s == nil {
			continue
		}
		for i := int64(len(s.sums)) - 1; i >= 0; i-- {
			if _, w, bit := at(i); s.allocated[w]&bit != 0 {
				return n*segmentChunks + i
			}
		}
	}
	return -1
}

// File returns the file that holds the chunks at their offsets, for reading at
// explicit offsets. It is valid until Release; the caller must not close it.
func (o *Object) File() (*os.File, error) {
	if h := o.handle.Load(); h != nil {
		return h.f.OS(), nil
	}
	f, err := o.open()
	if err != nil {
		return nil, err
	}
	return f.OS(), nil
}

// open returns the file, opening or making it first if need be. The caller holds
// the object.
func (o *Object) open() (file, error) {
	if h := o.handle.Load(); h != nil {
		return h.f, nil
	}
	o.opening.Lock()
	defer o.opening.Unlock()
	if h := o.handle.Load(); h != nil {
		return h.f, nil
	}
	o.mu.Lock()
	has, gone := o.hasFile, o.settled || o.doomed.Load() && !o.hasFile
	o.mu.Unlock()
	if gone {
		return nil, ErrGone
	}
	if err := o.v.usable(); err != nil {
		return nil, err
	}
	f, err := o.openFile(has)
	if err != nil {
		return nil, fmt.Errorf("opening the file of %q: %w", o.key, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hasFile = true
	o.handle.Store(&handle{f})
	return f, nil
}

// openFile opens the file that is there, or makes it.
func (o *Object) openFile(has bool) (file, error) {
	name := o.v.path(o.id)
	if has {
		return o.v.fs.Open(name, false)
	}
	if o.id < o.v.first {
		// A file of an earlier life may be there that the index never heard of,
		// and be read by who got it from the volume before: it stays theirs.
		if err := o.v.fs.Remove(name); err != nil {
			return nil, err
		}
	}
	f, err := o.v.fs.Open(name, true)
	if errors.Is(err, fs.ErrNotExist) {
		if err = o.v.makeParent(o.id); err == nil {
			f, err = o.v.fs.Open(name, true)
		}
	}
	return f, err
}

// changed notes that the index is behind. The caller holds o.mu.
func (o *Object) changed() {
	o.changes.Add(1)
	if !o.queued && !o.doomed.Load() && o.size.Load() >= 0 {
		o.queued = true
		o.v.enqueue(o)
	}
}

// unsaved reports whether the index is behind.
func (o *Object) unsaved() bool { return o.changes.Load() != o.saved.Load() }

// Doom makes the object not current any more: Get does not find it, Put refuses,
// and its bytes are freed when its last holder releases it.
func (o *Object) Doom() { o.s.doom(o) }

// Doomed reports whether the object is not current any more.
func (o *Object) Doomed() bool { return o.doomed.Load() }

// settle closes the file of an object that is out of the hot set and held by
// nobody, and removes it if the object is doomed and the index has forgotten it.
func (o *Object) settle() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.settled || !o.left.Load() || o.refs.Load() > 0 {
		return
	}
	if h := o.handle.Swap(nil); h != nil {
		_ = h.f.Close() // data was written by WriteAt, which told its errors
	}
	if !o.doomed.Load() {
		o.settled = true
		return
	}
	if o.forgotten {
		o.settled = true
		// Of an earlier life there may be a file that the index never heard of.
		o.v.removed(o.id, o.disk, o.hasFile || o.id < o.v.first)
	}
}

func (m *Meta) clone() *Meta {
	c := *m
	c.Header, c.Selecting = slices.Clone(m.Header), slices.Clone(m.Selecting)
	return &c
}
