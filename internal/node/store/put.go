package store

import (
	"fmt"
	"hash/crc32"
	"io"

	"larder/internal/sys/disk"
)

// Put stores chunk i: all of it, or nothing. Room is reserved before anything
// is written, and the chunk is seen only when its bytes are in the file.
// A chunk that is there already is left as it is. Errors: ErrFull, ErrGone,
// ErrClosed, or what the drive said.
func (o *Object) Put(i int64, data []byte) error {
	v := o.v
	v.ops.RLock() // Close waits for us
	defer v.ops.RUnlock()
	if o.doomed.Load() {
		return ErrGone
	}
	if err := v.usable(); err != nil {
		return err
	}
	if err := o.fits(i, int64(len(data))); err != nil {
		return err
	}
	err := o.put(i, data)
	if err != nil {
		o.s.metrics.putErrors.Inc()
	}
	return err
}

func (o *Object) fits(i, n int64) error {
	want := int64(ChunkSize)
	if chunks := o.Chunks(); chunks >= 0 {
		if i < 0 || i >= chunks {
			return fmt.Errorf("chunk %d of %q, which has %d: %w", i, o.key, chunks, errSize)
		}
		want = chunkLen(o.size.Load(), i)
	} else if i < 0 || i >= maxSize/ChunkSize {
		return fmt.Errorf("chunk %d of %q: %w", i, o.key, errSize)
	}
	if n != want {
		return fmt.Errorf("chunk %d of %q has %d bytes, want %d: %w", i, o.key, n, want, errSize)
	}
	return nil
}

func (o *Object) put(i int64, data []byte) error {
	v := o.v
	number, w, bit := at(i)
	o.mu.Lock()
	s := o.makeSegment(number)
	counted := s.allocated[w]&bit != 0
	o.mu.Unlock()
	if s.verified[w].Load()&bit != 0 {
		return nil
	}
	var room int64
	if !counted {
		room = v.rounded(int64(len(data)))
		if err := v.reserve(room); err != nil {
			return err
		}
	}
	sum := crc32.Checksum(data, castagnoli)

	l := v.stripe(o.id, i)
	l.Lock()
	defer l.Unlock()
	if s.verified[w].Load()&bit != 0 { // somebody was faster
		v.used.Add(-room)
		return nil
	}
	if err := o.write(i, data); err != nil {
		o.hollow(i)
		v.used.Add(-room)
		return fmt.Errorf("writing chunk %d of %q: %w", i, o.key, err)
	}

	o.mu.Lock()
	if err := o.fits(i, int64(len(data))); err != nil { // SetSize came between
		o.mu.Unlock()
		o.hollow(i)
		v.used.Add(-room)
		return err
	}
	defer o.mu.Unlock()
	if room > 0 && s.allocated[w]&bit != 0 {
		v.used.Add(-room) // counted meanwhile by one who put it and lost it again
		room = 0
	}
	s.allocated[w] |= bit
	o.disk += room
	if o.doomed.Load() {
		return ErrGone
	}
	s.sums[i%segmentChunks] = sum
	s.dirty = true
	if s.present[w].Or(bit)&bit == 0 {
		o.count.Add(1)
		o.stored += int64(len(data))
	}
	s.verified[w].Or(bit) // last: who sees it may read the file
	o.changed()
	return nil
}

// write puts data in its place in the file. Where the system finds no room
// although the store reserved it, the store makes some, once.
func (o *Object) write(i int64, data []byte) error {
	v := o.v
	at := v.watch.begin()
	defer v.watch.end(at)
	f, err := o.open()
	if err != nil {
		return v.writeError(err)
	}
	for try := 0; ; try++ {
		n, err := f.WriteAt(data, i*ChunkSize)
		if err == nil && n < len(data) {
			err = io.ErrShortWrite
		}
		if err == nil {
			return nil
		}
		if !disk.IsFull(err) {
			return v.writeError(err)
		}
		if try > 0 || v.evict(v.rounded(int64(len(data)))) == 0 {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
	}
}
