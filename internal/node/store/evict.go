package store

import (
	"errors"
	"time"

	"larder/internal/node/store/index"
)

// scanRows is how many rows the hand reads at once.
const scanRows = 256

// maxRounds bounds the rounds of the hand in one call, should others mark
// objects as visited as fast as it takes the marks away.
const maxRounds = 8

// fatigue remembers that a whole round of the hand found nothing to evict, so
// that a drive full of pinned objects is not read through for every chunk.
type fatigue struct{ until time.Time }

// evictor makes room in the background when the drive is above its high mark
// or the file system below its reserve.
func (v *volume) evictor() {
	for {
		select {
		case <-v.done:
			return
		case <-v.quit:
			return
		case <-v.crowd:
			v.evict(max(v.overLow(), v.keep-v.free.Load()))
			v.poll()
		}
	}
}

// overLow returns how much the drive is above its low mark, if it is above its high one.
func (v *volume) overLow() int64 {
	if used := v.used.Load(); used > v.high.Load() {
		return used - v.low.Load()
	}
	return 0
}

// evict frees want bytes or more by forgetting objects that are neither held
// nor pinned, and returns how many it freed: fewer, or none, if there are no
// such objects. It is SIEVE: the hand goes from old to new objects, which is
// the order of ids; an object that was asked for since the hand last passed
// stays, and one that was not goes. New objects are put in front, so a scan
// pushes out only what nobody came back for.
func (v *volume) evict(want int64) (freed int64) {
	if want <= 0 {
		return 0
	}
	v.evictMu.Lock()
	defer v.evictMu.Unlock()
	start := time.Now()
	if v.ended.Load() || start.Before(v.tired.until) {
		return 0
	}
	before := v.freed.Load()
	// An index without room is no reason to end: what goes has lost its file
	// nevertheless, and that makes room.
	full := false
	flush := func() bool {
		err := v.flush()
		full = errors.Is(err, index.ErrFull)
		return err == nil || full
	}
	if v.leaving.Load() > 0 && !flush() { // these go in any case
		return 0
	}
	gone := func() int64 { return v.freed.Load() - before }
	// Whole rounds, from wherever the hand is, as long as they are any use: one
	// may only take the marks of visits away. The last one takes the nursery too.
	for ends, useful, all := 0, true, false; gone() < want && ends < maxRounds; {
		rows, err := v.ix.Scan(v.hand, scanRows)
		if err != nil {
			_ = v.indexError(err) // the drive ends; there is nothing to be freed
			break
		}
		if len(rows) == 0 || !all && v.nursery(len(rows)) {
			if !useful && all {
				break
			}
			all = !useful
			useful = false
			v.hand = 0
			ends++
			if !flush() { // objects that are not in the index yet
				break
			}
			continue
		}
		n, moved := v.evictRows(rows, want-gone())
		useful = useful || moved
		if n > 0 && !flush() {
			break
		}
	}
	if short := want - gone(); full && short > 0 {
		v.evictUnsaved(short)
		flush()
	}
	v.change(func(q *queue) { q.hand = v.hand })
	if gone() == 0 {
		v.tired.until = time.Now().Add(10 * time.Since(start))
	}
	return gone()
}

// evictUnsaved forgets want bytes or more of objects in memory that a full
// index does not know, or not as they are: the hand does not come to them.
func (v *volume) evictUnsaved(want int64) {
	for i := range v.s.shards {
		sh := &v.s.shards[i]
		var out []*Object
		sh.mu.Lock()
		for _, o := range sh.hot {
			if want <= 0 {
				break
			}
			if o.v != v || o.refs.Load() > 0 || o.pinned.Load() || !o.unsaved() || !sh.doomLocked(o) {
				continue
			}
			o.mu.Lock()
			n := o.disk
			o.mu.Unlock()
			want -= n
			v.countEvicted(n)
			out = append(out, o)
		}
		sh.mu.Unlock()
		settleAll(out)
	}
}

// nursery reports whether the n objects in front of the hand are all there are,
// and so few that the hand turns back. Where most objects stay, because they
// are asked for or pinned, the hand would otherwise come to follow close behind
// the newest object: each new one would go before anybody could ask for it
// again, and the old ones would stay for ever.
func (v *volume) nursery(n int) bool {
	return n < scanRows && int64(n) < v.objects.Load()/10
}

// evictRows goes through rows until it has found want bytes. It reports
// whether going on is any use: something was evicted, or a mark was taken away.
func (v *volume) evictRows(rows []index.Brief, want int64) (chosen int64, moved bool) {
	for _, r := range rows {
		v.hand = r.ID
		n, m := v.evictRow(r)
		moved = moved || m
		chosen += n
		if chosen >= want {
			break
		}
	}
	return chosen, moved
}

func (v *volume) evictRow(r index.Brief) (freed int64, moved bool) {
	key := string(r.Key)
	sh := v.s.shard(key)
	sh.mu.Lock()
	if sh.claims[key] != nil || sh.leaving[leavingKey{v, key}] > 0 {
		sh.mu.Unlock()
		return 0, false
	}
	o := sh.hot[key]
	if o != nil && o.v == v && o.id == r.ID {
		if o.pinned.Load() || o.refs.Load() > 0 {
			sh.mu.Unlock()
			return 0, false
		}
		if visited := v.visited.take(r.ID); o.visited.Swap(false) || visited {
			sh.mu.Unlock()
			return 0, true
		}
		sh.doomLocked(o)
		sh.mu.Unlock()
		o.mu.Lock()
		freed = o.disk
		o.mu.Unlock()
		o.settle()
		v.countEvicted(freed)
		return freed, true
	}
	defer sh.mu.Unlock()
	// A row that is not what its key stands for was left behind by a drive
	// that was away; its pin went over to the newer one.
	if o == nil {
		if r.Pinned {
			return 0, false
		}
		if v.visited.take(r.ID) {
			return 0, true
		}
	}
	sh.forgetLocked(v, r.ID, key)
	v.countEvicted(r.Disk)
	return r.Disk, true
}

func (v *volume) countEvicted(bytes int64) {
	v.s.metrics.evictedObjects.Inc()
	v.s.metrics.evictedBytes.Add(float64(bytes))
}
