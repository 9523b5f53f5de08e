package store

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"

	"larder/internal/node/store/index"
)

// find looks the key up on all drives but those that are forgetting it, and
// returns the newest generation, held once. Older ones, which a drive that was
// away brought back, are forgotten. The caller has the claim.
func (s *Store) find(key string, c *claim) (*Object, error) {
	type found struct {
		v *volume
		r index.Row
	}
	var all []found
	usable := false
	for _, v := range s.volumes() {
		if slices.Contains(c.leaving, v) {
			usable = true
			continue
		}
		at := v.watch.begin()
		row, err := v.ix.Get([]byte(key))
		v.watch.end(at)
		switch {
		case err == nil:
			all = append(all, found{v, row})
		case !errors.Is(err, index.ErrNotFound):
			_ = v.indexError(err) // ends the drive; the others go on
			s.log.Warn("looking up an object", "drive", v.dir, "err", err)
			continue
		}
		usable = true
	}
	if s.closed.Load() {
		return nil, ErrClosed
	}
	if !usable {
		return nil, ErrNoDrive
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(uint64(b.r.Gen), uint64(a.r.Gen)) })
	var o *Object
	for _, f := range all {
		if o == nil {
			if o = s.object(f.v, &f.r); o != nil {
				continue
			}
		}
		s.forgetRow(f.v, f.r.ID, key)
	}
	if o == nil {
		return nil, ErrNotFound
	}
	return o, nil
}

// forgetRow has a drive forget a row that is not in memory.
func (s *Store) forgetRow(v *volume, id int64, key string) {
	sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.forgetLocked(v, id, key)
}

// forgetLocked is forgetRow with mu held.
func (sh *shard) forgetLocked(v *volume, id int64, key string) {
	if v.ended.Load() {
		return
	}
	sh.leaving[leavingKey{v, key}]++
	v.forget(forgotten{id: id, key: key})
}

// object makes an object, held once, of a row and its segments; nil if what
// the index says makes no sense or the file is not there.
func (s *Store) object(v *volume, row *index.Row) *Object {
	r, err := decodeRow(row)
	if err != nil {
		s.dropped(v, row.ID, err)
		return nil
	}
	segments, err := v.ix.Segments(r.id)
	if err != nil {
		_ = v.indexError(err)
		s.dropped(v, row.ID, err)
		return nil
	}
	o := s.newObject(v, &r)
	chunks := chunksOf(r.meta.Size)
	t := *o.chunks.Load()
	o.disk = overhead
	for _, seg := range segments {
		if seg.Seg < 0 || seg.Seg >= int64(len(t)) {
			s.dropped(v, row.ID, errRow)
			return nil
		}
		sg, err := decodeSegment(seg.Data, r.id, seg.Seg, v.epoch, chunks)
		if err != nil {
			s.dropped(v, row.ID, err)
			return nil
		}
		t[seg.Seg].Store(sg)
		o.tally(sg, seg.Seg)
	}
	if o.disk > overhead {
		o.hasFile = true
		if _, err := o.open(); err != nil {
			s.dropped(v, row.ID, err)
			if !errors.Is(err, fs.ErrNotExist) {
				v.suspect(err)
			}
			return nil
		}
	}
	if row.Disk != o.disk {
		v.used.Add(o.disk - max(0, row.Disk))
		o.mu.Lock()
		o.changed()
		o.mu.Unlock()
	}
	if gen := s.gen.Load(); r.gen > gen {
		s.gen.CompareAndSwap(gen, r.gen)
	}
	return o
}

// tally adds a segment from the index to the object's sums.
func (o *Object) tally(sg *segment, number int64) {
	size := o.size.Load()
	for j := range int64(len(sg.sums)) {
		i := number*segmentChunks + j
		_, w, bit := at(i)
		n := chunkLen(size, i)
		if sg.allocated[w]&bit != 0 {
			o.disk += o.v.rounded(n)
		}
		if sg.present[w].Load()&bit != 0 {
			o.stored += n
			o.count.Add(1)
		}
	}
}

func (s *Store) dropped(v *volume, id int64, err error) {
	s.metrics.droppedRows.Inc()
	s.log.Warn("dropping an object", "drive", v.dir, "id", id, "err", err)
}

func (s *Store) newObject(v *volume, r *record) *Object {
	o := &Object{key: r.key, id: r.id, gen: r.gen, created: r.created, s: s, v: v}
	t := make(table, segmentsOf(max(0, chunksOf(r.meta.Size))))
	o.chunks.Store(&t)
	o.size.Store(r.meta.Size)
	o.meta.Store(r.meta.clone())
	o.pinned.Store(r.pinned)
	o.refs.Store(1)
	return o
}
