package store

import (
	"errors"
	"io/fs"
	"time"

	"larder/internal/node/store/index"
)

const (
	batchDelay = time.Second // a change is in the index at most this late
	batchSize  = 512         // changes that do not wait longer
)

// queue is what the next batch will hold.
type queue struct {
	objects []*Object
	forget  []forgotten
	hand    int64 // 0: unchanged
	scrub   int64 // likewise
	waiting []chan error
	closed  bool
}

func (q *queue) empty() bool {
	return len(q.objects) == 0 && len(q.forget) == 0 && q.hand == 0 && q.scrub == 0 && len(q.waiting) == 0
}

// forgotten is an object that the index is to forget and that is then removed.
type forgotten struct {
	id  int64
	key string
	o   *Object // nil: it was not in memory
	// early is what removing the file of one that was not in memory gave,
	// when that had to come before the index forgot it.
	early int64
}

// enqueue has the object's state written with the next batch. The caller holds o.mu.
func (v *volume) enqueue(o *Object) {
	v.change(func(q *queue) { q.objects = append(q.objects, o) })
}

// forget has the index forget an object. The caller holds the lock of the
// key's shard and has noted the key there as being forgotten.
func (v *volume) forget(f forgotten) {
	v.leaving.Add(1)
	v.change(func(q *queue) { q.forget = append(q.forget, f) })
}

func (v *volume) change(f func(*queue)) {
	v.queueMu.Lock()
	f(&v.queue)
	n := len(v.queue.objects) + len(v.queue.forget)
	v.queueMu.Unlock()
	signal(v.wake)
	if n >= batchSize {
		signal(v.now)
	}
}

// flush returns when all changes made before the call are in the index, and
// what it forgot is removed.
func (v *volume) flush() error {
	done := make(chan error, 1)
	v.queueMu.Lock()
	if v.queue.closed {
		v.queueMu.Unlock()
		return ErrClosed
	}
	v.queue.waiting = append(v.queue.waiting, done)
	v.queueMu.Unlock()
	signal(v.wake)
	signal(v.now)
	return <-done
}

// write is the one goroutine that changes the index, until the volume ends or
// is stopped.
func (v *volume) write() {
	delay := time.NewTimer(v.s.batchDelay)
	defer delay.Stop()
	for running := true; running; {
		select {
		case <-v.wake:
			delay.Reset(v.s.batchDelay)
			select {
			case <-delay.C:
			case <-v.now:
			case <-v.done:
			case <-v.stop:
			}
			v.commit()
		case <-v.now:
			v.commit()
		case <-v.done:
			running = false
		case <-v.stop:
			v.commit()
			running = false
		}
	}
	v.queueMu.Lock()
	v.queue.closed = true
	waiting := v.queue.waiting
	v.queue.waiting = nil
	v.queueMu.Unlock()
	for _, w := range waiting {
		w <- ErrClosed
	}
}

// written is what of an object went into a batch.
type written struct {
	o        *Object
	changes  uint64
	segments []*segment
}

// commit writes the queue to the index and removes what it forgot.
func (v *volume) commit() {
	v.queueMu.Lock()
	q := v.queue
	v.queue = queue{closed: q.closed}
	v.queueMu.Unlock()
	if v.ended.Load() { // whatever it wrote now might harm a drive that is sick
		for _, w := range q.waiting {
			w <- v.usable()
		}
		return
	}
	if q.empty() {
		return
	}
	b := &index.Batch{Hand: q.hand, Scrub: q.scrub}
	for _, f := range q.forget {
		b.Forget = append(b.Forget, f.id)
	}
	var all []written
	for _, o := range q.objects {
		if w, ok := o.snapshot(b); ok {
			all = append(all, w)
		}
	}
	err := v.apply(b)
	if errors.Is(err, index.ErrFull) {
		// The disk is so full that even forgetting needs room that is not
		// there. Removing the files first is safe: a row without its file is
		// dropped when it is met.
		v.removeFiles(q.forget)
		err = v.apply(b)
	}
	v.behind.Store(err != nil)
	if err != nil {
		v.putBack(&q, all)
		_ = v.indexError(err) // the waiters get err
		if errors.Is(err, index.ErrFull) {
			v.s.log.Warn("index not written", "drive", v.dir, "err", err)
			time.AfterFunc(v.s.batchDelay, func() { signal(v.wake) })
		}
	} else {
		v.finish(&q, b, all)
	}
	for _, w := range q.waiting {
		w <- err
	}
}

func (v *volume) apply(b *index.Batch) error {
	if len(b.Forget) == 0 && len(b.Rows) == 0 && b.Hand == 0 && b.Scrub == 0 {
		return nil
	}
	start := time.Now()
	at := v.watch.begin()
	err := v.ix.Apply(b)
	v.watch.end(at)
	v.s.metrics.batchSeconds.Observe(time.Since(start).Seconds())
	return err
}

// finish is what follows a batch that is in the index.
func (v *volume) finish(q *queue, b *index.Batch, all []written) {
	for i, f := range q.forget {
		v.s.shard(f.key).forgot(v, f.key)
		if f.o == nil {
			v.visited.take(f.id)
			// What the row said when it went counts, not what somebody read
			// before; and of two who read the same row only one took it away.
			if b.Gone[i] >= 0 {
				v.removed(f.id, b.Gone[i]-f.early, true)
			} else {
				v.used.Add(f.early) // counted by the other
				v.leaving.Add(-1)
			}
			continue
		}
		f.o.mu.Lock()
		f.o.forgotten = true
		f.o.mu.Unlock()
		f.o.settle()
	}
	// Only now may the objects leave memory: who looks for them in the index
	// finds them, and nothing of an older generation that hides them.
	for _, w := range all {
		w.o.saved.Store(w.changes)
		v.s.trim(w.o.key)
	}
}

// putBack undoes the taking of q for a batch that could not be written.
func (v *volume) putBack(q *queue, all []written) {
	for _, w := range all {
		w.o.mu.Lock()
		for _, s := range w.segments {
			s.dirty = true
		}
		w.o.changed()
		w.o.mu.Unlock()
	}
	v.queueMu.Lock()
	defer v.queueMu.Unlock()
	v.queue.forget = append(q.forget, v.queue.forget...)
	if v.queue.hand == 0 {
		v.queue.hand = q.hand
	}
	if v.queue.scrub == 0 {
		v.queue.scrub = q.scrub
	}
}

// removeFiles removes the files of what is to be forgotten and takes their
// bytes off the count, though the index still has the rows.
func (v *volume) removeFiles(forget []forgotten) {
	for i := range forget {
		f := &forget[i]
		var err error
		if f.o != nil {
			err = f.o.removeFile()
		} else if f.early == 0 {
			f.early, err = v.removeCold(f.id)
		}
		if err != nil {
			v.suspect(err)
			return
		}
	}
}

// removeCold removes the file of an object that is not in memory and returns
// what it took, 0 if there is none.
func (v *volume) removeCold(id int64) (int64, error) {
	name := v.path(id)
	n, err := v.fs.Allocated(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err == nil {
		err = v.fs.Remove(name)
	}
	if err != nil {
		return 0, err
	}
	v.gaveUp(n)
	return n, nil
}

// removeFile removes the file of a doomed object unless somebody holds it.
func (o *Object) removeFile() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refs.Load() > 0 || !o.hasFile {
		return nil
	}
	if h := o.handle.Swap(nil); h != nil {
		_ = h.f.Close() // nobody will read what was written
	}
	if err := o.v.fs.Remove(o.v.path(o.id)); err != nil {
		return err
	}
	o.v.gaveUp(o.disk - overhead)
	o.disk, o.hasFile = overhead, false
	return nil
}

// snapshot adds the object's state to b. It reports false for an object that
// does not belong into the index.
func (o *Object) snapshot(b *index.Batch) (written, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queued = false
	w := written{o: o, changes: o.changes.Load()}
	m := o.meta.Load()
	if o.doomed.Load() || m.Size < 0 {
		return w, false
	}
	r := record{id: o.id, gen: o.gen, key: o.key, meta: *m}
	b.Rows = append(b.Rows, index.Row{
		ID: o.id, Gen: int64(o.gen), Key: []byte(o.key), URL: []byte(withoutScheme(m.URL)), Publisher: []byte(m.Publisher),
		Size: m.Size, Stored: o.stored, Disk: o.disk, Chunks: o.count.Load(), Pinned: o.pinned.Load(),
		Created: o.created.Unix(), Meta: encodeMeta(&r),
	})
	t := *o.chunks.Load()
	for n := range t {
		if s := t[n].Load(); s != nil && s.dirty {
			s.dirty = false
			w.segments = append(w.segments, s)
			b.Segments = append(b.Segments, index.Segment{ID: o.id, Seg: int64(n), Data: encodeSegment(s, o.id, int64(n), o.v.epoch)})
		}
	}
	return w, true
}
