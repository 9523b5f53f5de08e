package fill

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"
)

// A run brings one stretch of neighbouring chunks, in order.
type run struct {
	c      *Content
	number uint64 // counts the runs of c; guarded by Content.mu

	first int64   // chunk from which it read without a gap; guarded by Content.mu
	next  int64   // the chunk that is arriving; guarded by Content.mu
	end   int64   // first chunk that is not this run's; -1 until the length is known; guarded by Content.mu
	owner *Reader // on whose behalf; nil: nobody's; guarded by Content.mu
	of    any     // the resource it asks for; nil: that of its content; set for its life
	whole bool    // the body is the whole representation; guarded by Content.mu
	at    int64   // position of the next byte of the body; the run's own
	begun bool    // the first chunk is brought whoever wants it; the run's own
	alone int64   // chunks in a row that nobody waited for; the run's own
}

// readSize bounds one read, so that readers get bytes while they arrive.
const readSize = 128 << 10

// run fetches until nobody wants more, all is there, or it fails. rep, if not
// nil, is the answer to begin with.
func (r *run) run(rep *Reply) {
	c, f := r.c, r.c.f
	f.m.runs.Inc()
	defer f.m.runs.Dec()
	ctx := f.ctx // of its requests, each of which ends with its body: a successor's outlives the run
	s := &stream{r: r, ctx: ctx, rep: rep}
	defer s.drop()
	var err error
	for err == nil && r.goesOn(ctx) {
		err = r.chunk(ctx, s)
	}
	switch {
	case errors.Is(err, errDone), errors.Is(err, errLeft):
		err = nil
	case errors.Is(err, ErrChanged) && s.theirs():
		if s.successor != nil {
			s.successor.Body.Close()
		}
	case errors.Is(err, ErrChanged):
		f.change(c, s.asked, s.successor)
	case err != nil && ctx.Err() == nil:
		f.log.WarnContext(ctx, "fill failed", "key", c.key, "chunk", r.next, "err", err)
	}
	r.over(err)
}

// resourceLocked returns what the run asks for.
func (r *run) resourceLocked() any {
	if r.of != nil {
		return r.of
	}
	return r.c.resource
}

// over takes the run out of its content, and wakes who waits for it.
func (r *run) over(err error) {
	c, f := r.c, r.c.f
	c.mu.Lock()
	resource := r.resourceLocked()
	c.mu.Unlock()
	fl := failure{err: err, run: r.number, of: r.of}
	if err != nil && !errors.Is(err, ErrChanged) {
		fl.until = time.Now().Add(f.cfg.Keeper.Remember(resource, err))
		f.remember(f.failKey(c.key, resource), fl)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs = slices.DeleteFunc(c.runs, func(x *run) bool { return x == r })
	if err != nil {
		c.failed = fl
	}
	c.changedLocked()
}

// goesOn reports whether the run has another chunk to bring. It waits for the
// readers when the disk does not take what is in front of them, and prepares
// the stretch behind this one when its last chunk is next.
func (r *run) goesOn(ctx context.Context) bool {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if r.end >= 0 && r.next >= r.end || r.coveredLocked() {
			return false
		}
		if !r.begun {
			r.begun = true
			return true
		}
		wanted := r.wantedLocked()
		if wanted {
			r.alone = 0
		} else {
			r.alone++
		}
		if !r.onlyLocked() {
			if !wanted || !c.missingLocked(r.next) {
				return false
			}
		} else if !wanted && (c.refused || c.size < 0 && r.alone > c.f.cfg.RunChunks) {
			// What can only be had whole is brought whole, if it can be kept
			// and has an end.
			return false
		}
		if !c.refused || r.nearLocked() {
			break
		}
		wake := c.wake
		c.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
		}
		c.mu.Lock()
		if ctx.Err() != nil {
			return false
		}
	}
	if !r.whole && r.next == r.end-1 && r.end < c.chunksLocked() && c.dead == nil && !c.refused &&
		c.missingLocked(r.end) && c.comingLocked(r.end) == nil {
		if w := c.wanterLocked(r.end); w != nil {
			c.fetchLocked(r.end, w) // hides the round trip
		}
	}
	return true
}

// onlyLocked reports whether the run is one that cannot begin anywhere but at
// the start: it has to pass all chunks to bring one.
func (r *run) onlyLocked() bool { return r.whole && !r.c.rangesLocked() }

// bringsLocked reports whether the run is to bring chunk i.
func (r *run) bringsLocked(i int64) bool { return r.next <= i && (r.end < 0 || i < r.end) }

// allLocked reports whether the run goes on to the end of the content.
func (r *run) allLocked() bool { return r.end < 0 || r.end == r.c.chunksLocked() }

// wantedLocked reports whether a reader needs the run's next chunk, or one that
// only comes after it.
func (r *run) wantedLocked() bool {
	if !r.onlyLocked() {
		return r.c.wanterLocked(r.next) != nil
	}
	for rd := range r.c.readers {
		if rd.passesLocked(r.next) {
			return true
		}
	}
	return false
}

// nearLocked is wantedLocked of readers that are not far behind.
func (r *run) nearLocked() bool {
	only := r.onlyLocked()
	for rd := range r.c.readers {
		if r.next-rd.pos/ChunkSize <= ahead && (only || rd.needsLocked(r.next)) && rd.passesLocked(r.next) {
			return true
		}
	}
	return false
}

// ahead is how many chunks a run may be in front of its readers when the disk
// refuses: memory is not a store.
const ahead = 2

// coveredLocked reports whether another run that reads everything is in front
// of this one and left no gap: two of the kind come about when several requests
// in part find out at once that the origin ignores ranges.
func (r *run) coveredLocked() bool {
	if r.c.refused || !r.onlyLocked() {
		return false
	}
	for k, x := range r.c.runs {
		if x == r || !x.whole || x.first > r.next || x.next < r.next || !x.allLocked() {
			continue
		}
		i := r.next
		for i < x.next && !r.c.missingLocked(i) {
			i++
		}
		if i == x.next && (x.next > r.next || k < slices.Index(r.c.runs, r)) {
			return true
		}
	}
	return false
}

// creditLocked notes on whose behalf chunk i is fetched.
func (r *run) creditLocked(i int64) {
	if _, here := r.c.readers[r.owner]; !here || !r.owner.needsLocked(i) {
		r.owner = r.c.wanterLocked(i)
	}
	if o := r.owner; o != nil {
		if o.mine == nil {
			o.mine = map[int64]struct{}{}
		}
		o.mine[i] = struct{}{}
	}
}

var (
	errDone = errors.New("the body ended and all is there")
	errLeft = errors.New("another run brings it, or nobody wants it")
)

// chunk brings the run's next chunk in.
func (r *run) chunk(ctx context.Context, s *stream) error {
	c := r.c
	c.mu.Lock()
	ch := &chunk{c: c, i: r.next, buf: small()}
	own := c.missingLocked(ch.i) // else only read past, for a body that cannot be begun elsewhere
	if own {
		c.flying[ch.i] = ch
		r.creditLocked(ch.i)
		c.changedLocked()
	}
	start, want := ch.i*ChunkSize, ChunkSize
	if c.size >= 0 {
		want = int(min(c.size-start, ChunkSize))
	}
	c.mu.Unlock()

	n := 0
	var err error
	for n < want && err == nil {
		if n == len(ch.buf) {
			if err = ch.grow(ctx, n); err != nil {
				break
			}
		}
		var k int
		k, err = s.read(ch.buf[n:min(want, n+readSize, len(ch.buf))])
		n += k
		if own && k > 0 {
			c.mu.Lock()
			ch.n = n
			ch.grownLocked()
			c.mu.Unlock()
		}
	}
	if err == io.EOF {
		if err = c.sized(start + int64(n)); err == nil {
			err = errDone
		}
	}
	if own && n > 0 && (err == nil || errors.Is(err, errDone)) {
		r.keep(ctx, ch, n)
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case own:
		c.dropLocked(ch)
	default:
		c.f.bufs.put(ch.buf)
	}
	if err == nil {
		r.next++
	}
	return err
}

// grow moves the n bytes of a chunk into memory that takes all of it.
func (ch *chunk) grow(ctx context.Context, n int) error {
	buf, err := ch.c.f.bufs.get(ctx)
	if err != nil {
		return err
	}
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	copy(buf, ch.buf[:n])
	ch.c.f.bufs.put(ch.buf)
	ch.buf = buf
	return nil
}

// keep stores a chunk that is whole and lets go of its memory. A disk that
// refuses leaves it in memory for those who are reading it.
func (r *run) keep(ctx context.Context, ch *chunk, n int) {
	c := r.c
	err := c.obj.Put(ch.i, ch.buf[:n])
	c.mu.Lock()
	r.next++
	c.refused = err != nil
	if err == nil || c.wanterLocked(ch.i) == nil {
		c.dropLocked(ch)
	} else {
		ch.kept = true
		ch.grownLocked()
		c.f.bufs.keep(ch)
	}
	c.changedLocked()
	c.mu.Unlock()
	if err != nil {
		c.f.m.unstored.Inc()
		c.f.log.DebugContext(ctx, "chunk not stored", "key", c.key, "chunk", ch.i, "err", err)
		c.f.bufs.reclaim()
	}
}

// sized takes note of a length that only the end of the body told.
func (c *Content) sized(size int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.size == size:
		return nil
	case c.size >= 0:
		return io.ErrUnexpectedEOF // two bodies of one validator differ
	}
	if err := c.obj.SetSize(size); err != nil {
		// It cannot be stored, then; who reads it is not harmed.
		c.f.log.Debug("length not stored", "key", c.key, "err", err)
	}
	c.size = size
	for _, r := range c.runs {
		if r.whole {
			r.end = c.chunksLocked()
		}
	}
	c.changedLocked()
	return nil
}
