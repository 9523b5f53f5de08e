package fill

import (
	"context"
	"sync"
	"time"

	"larder/internal/byterange"
)

// Content is one generation that is being read while parts of it are missing.
//
// Lock order: Filler.mu, then Content.mu, then Filler.life or buffers.mu.
type Content struct {
	f      *Filler
	key    string
	obj    Object
	strong string // validator all parts must share; "" parts cannot be combined

	mu       sync.Mutex
	resource any                  // what was asked for last, or first where it is of its asker (Keeper.Own); guarded by mu
	refs     int                  // users, runs, and who makes it; guarded by mu, and becomes 0 only under Filler.mu too
	users    int                  // who got it from Open or Attach; guarded by mu
	size     int64                // bytes; -1 unknown; guarded by mu
	flying   map[int64]*chunk     // arriving, or kept in memory because the disk refused; guarded by mu
	refused  bool                 // the disk refused the last chunk; guarded by mu
	runs     []*run               // guarded by mu
	started  uint64               // runs so far; guarded by mu
	readers  map[*Reader]struct{} // guarded by mu
	promise  *Reader              // stands for the reader that is about to come; guarded by mu
	dead     error                // nothing more can be fetched for this generation; guarded by mu
	failed   failure              // how the last run that failed did; guarded by mu
	wake     chan struct{}        // closed and replaced when anything above changes; guarded by mu
}

// A chunk is one chunk in memory.
type chunk struct {
	c     *Content
	i     int64
	buf   []byte        // of buffers, small at first; replaced under Content.mu
	n     int           // bytes that arrived; guarded by Content.mu
	kept  bool          // whole, and only here: the disk refused it; guarded by Content.mu
	since time.Time     // kept; guarded by buffers.mu
	wake  chan struct{} // closed and replaced when n grows; nil while nobody waits; guarded by Content.mu
}

// grownLocked wakes who waits for more of the chunk.
func (ch *chunk) grownLocked() {
	if ch.wake != nil {
		close(ch.wake)
		ch.wake = nil
	}
}

// Size returns the length in bytes, -1 while the origin has not told it.
func (c *Content) Size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}

// WaitSize waits until the length is known and returns it; -1 when patience or
// ctx ends first, or it will never be known.
func (c *Content) WaitSize(ctx context.Context, patience <-chan time.Time) int64 {
	for {
		c.mu.Lock()
		size, wake, over := c.size, c.wake, len(c.runs) == 0
		c.mu.Unlock()
		if size >= 0 || over {
			return size
		}
		select {
		case <-wake:
		case <-patience:
			return -1
		case <-ctx.Done():
			return -1
		}
	}
}

// Here reports whether all of chunk i is stored, or in memory on its way there.
func (c *Content) Here(i int64) bool {
	c.mu.Lock()
	if ch := c.flying[i]; ch != nil && c.size >= 0 {
		defer c.mu.Unlock()
		return int64(ch.n) == min(c.size-i*ChunkSize, ChunkSize)
	}
	c.mu.Unlock()
	return c.obj.Has(i)
}

// Object returns where the bytes are kept; valid until Close.
func (c *Content) Object() Object { return c.obj }

// Close gives the reference back that Open or Attach returned.
func (c *Content) Close() {
	c.mu.Lock()
	if c.users--; c.users == 0 {
		c.unpromiseLocked()
	}
	c.mu.Unlock()
	c.release()
}

// unpromiseLocked tells that no reader is about to come.
func (c *Content) unpromiseLocked() {
	if c.promise != nil {
		delete(c.readers, c.promise)
		c.promise = nil
		c.movedLocked()
	}
}

// use adds n users. Filler.mu is held.
func (c *Content) use(n int) {
	c.mu.Lock()
	c.refs += n
	c.users += n
	c.mu.Unlock()
}

// join adds a user who asked for resource. Requests from now on go out in its
// name: where a query holds a signature, the newest lives longest. Only what is of
// its asker goes out in the name of the reader who needs it. Filler.mu is held.
func (c *Content) join(resource any) {
	c.mu.Lock()
	c.refs++
	c.users++
	if k := c.f.cfg.Keeper; k.Route(resource) != k.Route(c.resource) {
		c.failed = failure{} // that was another's
	}
	if _, own := c.f.cfg.Keeper.Own(resource); !own {
		c.resource = resource
	}
	c.mu.Unlock()
}

func (c *Content) release() {
	f := c.f
	f.mu.Lock()
	c.mu.Lock()
	c.refs--
	last := c.refs == 0
	if last {
		delete(f.contents, c.obj.Generation())
		if f.live[c.key] == c {
			delete(f.live, c.key)
		}
		for _, ch := range c.flying {
			c.dropLocked(ch)
		}
	}
	c.mu.Unlock()
	f.mu.Unlock()
	if last {
		c.obj.Release()
	}
}

// changedLocked wakes everybody who waits for anything of this content.
func (c *Content) changedLocked() {
	close(c.wake)
	c.wake = make(chan struct{})
}

// movedLocked notes that what readers want has changed. Only runs that wait
// for their readers care.
func (c *Content) movedLocked() {
	for _, ch := range c.flying {
		if ch.kept && c.wanterLocked(ch.i) == nil {
			c.dropLocked(ch)
		}
	}
	if c.refused {
		c.changedLocked()
	}
}

// dropLocked forgets a chunk in memory and frees its buffer.
func (c *Content) dropLocked(ch *chunk) {
	delete(c.flying, ch.i)
	c.f.bufs.drop(ch)
	ch.grownLocked()
}

// forgo gives up a kept chunk, wanted or not: its memory is needed more.
func (c *Content) forgo(ch *chunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flying[ch.i] == ch {
		c.dropLocked(ch)
		c.changedLocked()
	}
}

// chunksLocked returns the number of chunks, -1 while it is not known.
func (c *Content) chunksLocked() int64 {
	if c.size < 0 {
		return -1
	}
	return (c.size + ChunkSize - 1) / ChunkSize
}

// wanterLocked returns a reader that still needs chunk i, the one that will
// read furthest, or nil.
func (c *Content) wanterLocked(i int64) *Reader {
	var best *Reader
	for r := range c.readers {
		if r.needsLocked(i) && (best == nil || best.end >= 0 && (r.end < 0 || r.end > best.end)) {
			best = r
		}
	}
	return best
}

// comingLocked returns the run that will bring chunk i first, or nil.
func (c *Content) comingLocked(i int64) *run {
	var best *run
	for _, r := range c.runs {
		if r.bringsLocked(i) && (best == nil || r.next > best.next) {
			best = r
		}
	}
	return best
}

// soonLocked reports whether a reader of chunk i does best to wait for a run
// that is under way.
func (c *Content) soonLocked(i int64) bool {
	for _, r := range c.runs {
		if r.bringsLocked(i) && (i-r.next <= 1 || r.onlyLocked()) {
			return true
		}
	}
	return false
}

// missingLocked reports whether chunk i is neither stored nor in memory. It is
// the one question that both starting a fetch and going on with one ask.
func (c *Content) missingLocked(i int64) bool {
	return c.flying[i] == nil && !c.obj.Has(i)
}

// rangesLocked reports whether parts may be fetched by themselves.
func (c *Content) rangesLocked() bool {
	return c.strong != "" && c.size >= 0 && !c.f.cfg.Source.NoRanges(c.resource)
}

// fetchLocked starts a run for chunk i on behalf of owner, who needs it. False
// after the Filler was closed.
func (c *Content) fetchLocked(i int64, owner *Reader) bool {
	r := &run{c: c, next: i, at: i * ChunkSize, owner: owner, of: c.own(owner.resource)}
	if c.rangesLocked() {
		if x := c.comingLocked(i); x != nil {
			x.end = i // it is too far away; what is behind i goes to the new one
		}
		r.end = i + 1
		for r.end < c.chunksLocked() && r.end < i+c.f.cfg.RunChunks && owner.needsLocked(r.end) &&
			c.missingLocked(r.end) && c.comingLocked(r.end) == nil {
			r.end++
		}
	} else {
		// The origin can only send all of it: the object grows from its start.
		r.next, r.at, r.end, r.whole = 0, 0, c.chunksLocked(), true
	}
	return c.launchLocked(r, nil)
}

// own returns the resource if nobody else asks in its name, else nil.
func (c *Content) own(resource any) any {
	if resource == nil {
		return nil
	}
	if _, own := c.f.cfg.Keeper.Own(resource); own {
		return resource
	}
	return nil
}

// startWith starts the run that reads the body of a first reply to resource.
func (c *Content) startWith(resource any, rep *Reply, w Want) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Who only wanted the length has it. A body that cannot be had again in
	// part is read all the same.
	if c.size == 0 || w.probes() && (rep.Status == 206 || c.size > ChunkSize && c.strong != "") {
		rep.Body.Close()
		return
	}
	r := &run{c: c, of: c.own(resource)}
	if rep.Status == 206 {
		r.next = rep.Range.Start / ChunkSize
		r.at = rep.Range.Start
		r.end = ceilChunk(rep.Range.End) / ChunkSize
	} else {
		r.end = c.chunksLocked()
		r.whole = true
	}
	// The reader that caused this takes its place only after Open returned.
	c.promise = &Reader{c: c, resource: resource, pos: w.Range.Start, end: -1, until: time.Now().Add(promised)}
	if !w.Whole && w.Range.End > 0 {
		c.promise.end = w.Range.End
	}
	c.readers[c.promise] = struct{}{}
	r.owner = c.promise
	c.launchLocked(r, rep)
}

// promised is how long a run goes on for a reader that does not come.
const promised = time.Second

func (c *Content) launchLocked(r *run, rep *Reply) bool {
	ok := c.f.start(func() {
		defer c.release()
		r.run(rep)
	})
	if !ok {
		if rep != nil {
			rep.Body.Close()
		}
		return false
	}
	c.started++
	r.number, r.first = c.started, r.next
	c.runs = append(c.runs, r)
	c.refs++ // the run's, which cannot end before Content.mu is free
	return true
}

// NewReader returns a reader of r for who asked for resource; it must be closed.
// End -1 reads to the end of content whose size is not known yet.
func (c *Content) NewReader(resource any, r byterange.Range) *Reader {
	rd := &Reader{c: c, resource: resource, pos: r.Start, end: r.End}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readers[rd] = struct{}{}
	if p := c.promise; p != nil && rd.needsLocked(p.pos/ChunkSize) {
		// This is the reader on whose behalf the first run goes.
		rd.mine = p.mine
		for _, x := range c.runs {
			if x.owner == p {
				x.owner = rd
			}
		}
		c.unpromiseLocked()
	}
	c.movedLocked()
	return rd
}
