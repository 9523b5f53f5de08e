package store

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"larder/internal/node/store/index"
)

// Filter selects objects; what is set must all hold, and the zero Filter
// selects all.
type Filter struct {
	Key       string
	Prefix    string // of the URL without its scheme: "host/path…"
	Publisher string
}

func (f Filter) index() index.Filter {
	x := index.Filter{Prefix: []byte(f.Prefix), Publisher: []byte(f.Publisher)}
	if f.Key != "" {
		x.Key = []byte(f.Key)
	}
	return x
}

// match is what the index does for rows, for an object that has none.
func (f Filter) match(o *Object) bool {
	m := o.Meta()
	return (f.Key == "" || f.Key == o.key) && strings.HasPrefix(withoutScheme(m.URL), f.Prefix) &&
		(f.Publisher == "" || f.Publisher == m.Publisher)
}

// Result says how much Purge or Pin met.
type Result struct {
	Objects int
	Bytes   int64 // present, of these objects
}

// Info describes an object for people.
type Info struct {
	Key, URL, Publisher, ContentType string
	Size, Stored                     int64 // bytes; Stored: present
	Chunks, ChunksPresent            int64
	Pinned                           bool
	ETag                             string
	Created                          time.Time
	Drive                            int // number in the configuration
}

// selectBatch is how many rows administrative work takes at once.
const selectBatch = 512

// each calls f for all rows of the drive that the filter selects, in the order
// of ids. Changes made before the call are seen.
func (v *volume) each(filter Filter, f func(index.Brief) error) error {
	if err := v.flush(); err != nil {
		return err
	}
	x := filter.index()
	for after := int64(0); ; {
		rows, err := v.ix.Select(x, after, selectBatch)
		if err != nil {
			return v.indexError(err)
		}
		for _, r := range rows {
			after = r.ID
			if err := f(r); err != nil {
				return err
			}
		}
		if len(rows) < selectBatch {
			return nil
		}
	}
}

// unfinished returns, held, the objects in memory of unknown size, which are
// in no index.
func (s *Store) unfinished(f Filter) (all []*Object) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.RLock()
		for _, o := range sh.hot {
			if o.size.Load() < 0 && f.match(o) {
				o.refs.Add(1)
				all = append(all, o)
			}
		}
		sh.mu.RUnlock()
	}
	return all
}

// Purge forgets the objects that f selects, pinned or not, and says what they
// were; with dry it only says. Who holds one of them keeps it until Release. A
// drive that is taken out at the time is not reached.
func (s *Store) Purge(f Filter, dry bool) (Result, error) {
	var res Result
	if s.closed.Load() {
		return res, ErrClosed
	}
	for _, o := range s.unfinished(f) {
		o.mu.Lock()
		bytes := o.stored
		o.mu.Unlock()
		if dry || s.doomIf(o) {
			res.Objects++
			res.Bytes += bytes
		}
		o.Release()
	}
	var errs []error
	for _, v := range s.volumes() {
		err := v.each(f, func(r index.Brief) error {
			if dry || v.purge(r) {
				res.Objects++
				res.Bytes += r.Stored
			}
			return nil
		})
		if err == nil && !dry {
			err = v.flush()
		}
		if err != nil {
			errs = append(errs, s.ended("purging on", v, err))
		}
	}
	return res, errors.Join(errs...)
}

// doomIf is doom that reports whether it was the one.
func (s *Store) doomIf(o *Object) bool {
	sh := s.shard(o.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.doomLocked(o)
}

// purge forgets what the row stands for, and reports whether it was there still.
func (v *volume) purge(r index.Brief) bool {
	key := string(r.Key)
	sh := v.s.shard(key)
	for {
		sh.mu.Lock()
		if c := sh.claims[key]; c != nil {
			sh.mu.Unlock()
			<-c.done
			continue
		}
		if o := sh.hot[key]; o != nil && o.v == v && o.id == r.ID {
			ok := sh.doomLocked(o)
			sh.mu.Unlock()
			o.settle()
			return ok
		}
		ok := sh.leaving[leavingKey{v, key}] == 0
		if ok {
			sh.forgetLocked(v, r.ID, key)
		}
		sh.mu.Unlock()
		return ok
	}
}

// Pin pins or unpins the objects that f selects. A pinned object is not
// evicted, and neither are later generations of its key; Purge takes it.
func (s *Store) Pin(f Filter, on bool) (Result, error) {
	var res Result
	if s.closed.Load() {
		return res, ErrClosed
	}
	for _, o := range s.unfinished(f) {
		o.pinned.Store(on)
		res.Objects++
		o.Release()
	}
	var errs []error
	for _, v := range s.volumes() {
		n := 0
		err := v.each(f, func(r index.Brief) error {
			o, err := s.load(s.shard(string(r.Key)), string(r.Key))
			if errors.Is(err, ErrNotFound) {
				return nil // gone meanwhile
			}
			if err != nil {
				return err
			}
			defer o.Release()
			if o.v == v {
				o.setPinned(on)
				res.Objects++
				res.Bytes += r.Stored
			}
			if n++; n%selectBatch == 0 { // or all of them would stay in memory
				return v.flush()
			}
			return nil
		})
		if err == nil {
			err = v.flush()
		}
		if err != nil {
			errs = append(errs, s.ended("pinning on", v, err))
		}
		v.evictMu.Lock()
		v.tired = fatigue{}
		if !on {
			v.hand = 0 // what was passed over because it was pinned comes first
		}
		v.evictMu.Unlock()
	}
	return res, errors.Join(errs...)
}

// ended is the error of something done to a drive: ErrClosed if the store was
// closed meanwhile, whatever of it was in the way.
func (s *Store) ended(what string, v *volume, err error) error {
	if s.closed.Load() {
		return ErrClosed
	}
	return fmt.Errorf("%s drive %s: %w", what, v.dir, err)
}

func (o *Object) setPinned(on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pinned.Swap(on) != on {
		o.changed()
	}
}

// List returns up to limit (0: 1000) of the objects that f selects with keys
// above after ("": from the first), in the order of keys. Objects of unknown
// size are not among them.
func (s *Store) List(f Filter, after string, limit int) ([]Info, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	if limit <= 0 {
		limit = 1000
	}
	type listed struct {
		Info
		gen int64
	}
	var all []listed
	for _, sl := range *s.slots.Load() {
		v := sl.vol.Load()
		if v == nil || v.ended.Load() {
			continue
		}
		rows, err := v.list(f, after, limit)
		if err != nil {
			return nil, s.ended("listing", v, err)
		}
		for i := range rows {
			if in, ok := describe(&rows[i], sl.number); ok {
				all = append(all, listed{in, rows[i].Gen})
			}
		}
	}
	slices.SortFunc(all, func(a, b listed) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), cmp.Compare(b.gen, a.gen))
	})
	// A drive that was away may have brought older generations back.
	all = slices.CompactFunc(all, func(a, b listed) bool { return a.Key == b.Key })
	infos := make([]Info, 0, min(limit, len(all)))
	for _, l := range all[:min(limit, len(all))] {
		infos = append(infos, l.Info)
	}
	return infos, nil
}

// list returns up to limit sound rows.
func (v *volume) list(f Filter, after string, limit int) (rows []index.Row, err error) {
	if err := v.flush(); err != nil {
		return nil, err
	}
	x := f.index()
	var from []byte
	if after != "" {
		from = []byte(after)
	}
	for len(rows) < limit {
		page, err := v.ix.List(x, from, limit)
		if err != nil {
			return nil, v.indexError(err)
		}
		for _, r := range page {
			from = r.Key
			if _, err := decodeRow(&r); err == nil && len(rows) < limit {
				rows = append(rows, r)
			}
		}
		if len(page) < limit {
			break
		}
	}
	return rows, nil
}

func describe(row *index.Row, drive int) (Info, bool) {
	r, err := decodeRow(row)
	return Info{
		Key: r.key, URL: r.meta.URL, Publisher: r.meta.Publisher, ContentType: r.meta.ContentType,
		Size: r.meta.Size, Stored: row.Stored, Chunks: chunksOf(r.meta.Size), ChunksPresent: row.Chunks,
		Pinned: r.pinned, ETag: r.meta.ETag, Created: r.created, Drive: drive,
	}, err == nil
}
