package fill

import (
	"context"
	"io"
	"time"
)

// A Reader gives the bytes of one range of a Content, waiting for what is on
// its way. It is used by one goroutine.
type Reader struct {
	c        *Content
	resource any                // what its user asked for
	pos, end int64              // written under Content.mu; end -1: to the end
	mine     map[int64]struct{} // chunks from pos on that were fetched on its behalf; guarded by Content.mu
	until    time.Time          // of a promise: when it is over
	heard    uint64             // the last run of another that failed; guarded by Content.mu
	strange  int                // how many since its last byte; guarded by Content.mu
	tries    int                // runs that were started for it since its last byte; its own
}

// A Piece is the next bytes of a reader: either in the object's file at
// [Off, Off+Len), or copied into the caller's buffer.
type Piece struct {
	Stored bool
	Missed bool // it was fetched on behalf of this reader
	Off    int64
	Len    int64
}

// maxPiece bounds how much of a stored run one piece covers, so that write
// deadlines stay meaningful.
const maxPiece = 8 * ChunkSize

// Close tells that this reader wants nothing more.
func (r *Reader) Close() {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	delete(r.c.readers, r)
	r.c.movedLocked()
}

// needsLocked reports whether the reader has not passed chunk i yet and will.
func (r *Reader) needsLocked(i int64) bool {
	return r.pos/ChunkSize <= i && r.passesLocked(i)
}

// passesLocked reports whether the reader goes as far as chunk i.
func (r *Reader) passesLocked(i int64) bool {
	return (r.end < 0 || i*ChunkSize < r.end) && (r.until.IsZero() || time.Now().Before(r.until))
}

// Next returns the next piece, io.EOF after the last. Bytes that are not in
// the object's file yet are copied to buf, which must not be empty.
//
// Errors: ErrChanged, *TimeoutError after Silence without a byte, what made
// the fetch fail, or the context's.
func (r *Reader) Next(ctx context.Context, buf []byte) (Piece, error) {
	c := r.c
	c.mu.Lock()
	since := c.started
	c.mu.Unlock()
	var silence *time.Timer
	for {
		p, wake, err := r.step(buf, since)
		if wake == nil {
			return p, err
		}
		if silence == nil {
			silence = time.NewTimer(c.f.cfg.Silence)
			defer silence.Stop()
		}
		select {
		case <-wake:
		case <-silence.C:
			return Piece{}, &TimeoutError{After: c.f.cfg.Silence}
		case <-ctx.Done():
			return Piece{}, context.Cause(ctx)
		}
	}
}

// step returns the piece at the reader's position, or what to wait for until
// it is worth another look. Runs up to number since were there when the reader
// began to wait: if they fail, it asks once more; later ones speak for it, unless
// they went out in the name of another only.
func (r *Reader) step(buf []byte, since uint64) (Piece, <-chan struct{}, error) {
	c := r.c
	stop := r.storedTo()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size >= 0 && (r.end < 0 || r.end > c.size) {
		r.end = c.size
	}
	if r.end >= 0 && r.pos >= r.end {
		return Piece{}, nil, io.EOF
	}
	i := r.pos / ChunkSize
	ch := c.flying[i]
	if ch == nil && stop == r.pos && c.obj.Has(i) {
		stop = (i + 1) * ChunkSize // it was stored in between
	}
	switch {
	case stop > r.pos:
		return r.storedLocked(stop), nil, nil
	case ch != nil:
		off := int(r.pos - i*ChunkSize)
		if ch.n > off {
			n := copy(buf, ch.buf[off:ch.n])
			return r.advanceLocked(min(r.pos+int64(n), r.limitLocked())), nil, nil
		}
		if ch.wake == nil {
			ch.wake = make(chan struct{})
		}
		return Piece{}, ch.wake, nil
	}
	switch {
	case c.soonLocked(i):
		// On its way.
	case c.dead != nil:
		return Piece{}, nil, c.dead
	case c.failed.err != nil && (time.Now().Before(c.failed.until) || c.failed.run > since && r.heedsLocked(&c.failed)):
		return Piece{}, nil, c.failed.err
	case r.tries >= attempts:
		return Piece{}, nil, io.ErrNoProgress // runs bring something or fail; a spin would be worse than an error
	case !c.fetchLocked(i, r):
		return Piece{}, nil, context.Canceled
	default:
		r.tries++
	}
	return Piece{}, c.wake, nil
}

// heedsLocked reports whether a failure speaks for this reader: one that was asked
// for in another's name does not, unless so many fail that it is nobody's fault.
func (r *Reader) heedsLocked(fl *failure) bool {
	if fl.of == nil || fl.of == r.resource {
		return true
	}
	if fl.run != r.heard {
		r.heard = fl.run
		r.strange++
	}
	return r.strange > strangers
}

// strangers is how many runs of others may fail before a reader gives up with them.
const strangers = 8

// storedTo returns how far what lies in the object's file reaches from the
// reader's position, in whole chunks. Looking may read the file, so no lock is
// held.
func (r *Reader) storedTo() int64 {
	stop := r.pos
	for stop-r.pos < maxPiece && (r.end < 0 || stop < r.end) && r.c.obj.Has(stop/ChunkSize) {
		stop = (stop/ChunkSize + 1) * ChunkSize
	}
	return stop
}

func (r *Reader) limitLocked() int64 {
	if r.end < 0 {
		return 1<<63 - 1
	}
	return r.end
}

// storedLocked returns the piece up to stop; all of it was fetched on behalf
// of this reader, or nothing of it.
func (r *Reader) storedLocked(stop int64) Piece {
	stop = min(stop, r.limitLocked())
	i := r.pos / ChunkSize
	_, mine := r.mine[i]
	for k := i + 1; k*ChunkSize < stop; k++ {
		if _, m := r.mine[k]; m != mine {
			stop = k * ChunkSize
		}
	}
	p := r.advanceLocked(stop)
	p.Stored = true
	return p
}

// advanceLocked moves the reader to pos, and returns the piece it passed.
func (r *Reader) advanceLocked(pos int64) Piece {
	from, to := r.pos/ChunkSize, pos/ChunkSize
	_, mine := r.mine[from]
	p := Piece{Off: r.pos, Len: pos - r.pos, Missed: mine}
	r.pos, r.tries, r.strange = pos, 0, 0
	for k := from; k < to && mine; k++ {
		delete(r.mine, k)
	}
	if from < to || pos == r.end {
		r.c.movedLocked()
	}
	return p
}
