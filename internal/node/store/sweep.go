package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sweeper removes, after an unclean stop, the files that no row stands for, and
// frees the blocks of chunks that no row tells of. It looks only at ids that were given out before this start, so that it never
// meets a file that is just being made.
func (v *volume) sweeper() {
	v.removeLeftovers()
	if !v.sweep.Load() {
		return
	}
	root := filepath.Join(v.dir, objectsName)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if v.leavingNow() {
			return fs.SkipAll
		}
		if d.IsDir() {
			return nil
		}
		id, err := strconv.ParseInt(d.Name(), 16, 64)
		if err != nil || path != v.path(id) || id >= v.first {
			return nil // not ours, or not old
		}
		return v.sweepFile(path, id)
	})
	switch {
	case v.leavingNow():
	case err != nil:
		v.s.log.Warn("removing files that belong to nothing", "drive", v.dir, "err", err)
	default:
		v.sweep.Store(false)
	}
}

// sweepFile looks at the file of an object of an earlier life.
func (v *volume) sweepFile(path string, id int64) error {
	rows, err := v.ix.Scan(id-1, 1)
	if err != nil {
		return v.indexError(err)
	}
	if len(rows) == 0 || rows[0].ID != id {
		v.s.metrics.orphans.Inc()
		return v.fs.Remove(path)
	}
	n, err := v.fs.Allocated(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && n <= rows[0].Disk {
		return nil
	}
	if err != nil {
		return err
	}
	key := string(rows[0].Key)
	o, err := v.s.load(v.s.shard(key), key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer o.Release()
	if o.v != v || o.id != id {
		return nil // the file goes with its row
	}
	return o.hollowOut()
}

// hollowOut frees the blocks of chunks that are not counted.
func (o *Object) hollowOut() error {
	if done, err := o.removeUnknown(); done {
		return err
	}
	f, err := o.open()
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	fi, err := f.OS().Stat()
	if err != nil {
		return err
	}
	for i := range chunksOf(fi.Size()) {
		if o.v.leavingNow() {
			break
		}
		l := o.v.stripe(o.id, i)
		l.Lock()
		ok := o.hollow(i)
		l.Unlock()
		if !ok {
			o.Doom() // better fetched again than on the disk and not counted
			break
		}
	}
	return nil
}

// removeUnknown removes the file if none of its chunks is counted, and reports
// whether that is so.
func (o *Object) removeUnknown() (done bool, err error) {
	o.opening.Lock() // nobody makes one meanwhile
	defer o.opening.Unlock()
	o.mu.Lock()
	has := o.hasFile
	o.mu.Unlock()
	if has {
		return false, nil
	}
	return true, o.v.fs.Remove(o.v.path(o.id))
}

// hollow makes a hole of chunk i unless it is counted. Whoever writes the chunk
// has the stripe until it is, and so has the caller. It reports whether no
// blocks are left uncounted.
func (o *Object) hollow(i int64) bool {
	number, w, bit := at(i)
	o.mu.Lock()
	h, s := o.handle.Load(), o.segment(number)
	counted := s != nil && s.allocated[w]&bit != 0
	o.mu.Unlock()
	if h == nil || counted {
		return true
	}
	if o.v.ended.Load() {
		return true // the file is that of another volume by now, or will be
	}
	if o.v.again {
		// Somebody may still read the chunk by the volume before, to which it
		// counts. Taking the file away, as the caller may, takes it from nobody.
		o.v.sweep.Store(true)
		return false
	}
	began := o.v.watch.begin()
	err := h.f.PunchHole(i*ChunkSize, ChunkSize)
	o.v.watch.end(began)
	if err != nil {
		o.v.sweep.Store(true) // the next start tries again
		if !errors.Is(err, errors.ErrUnsupported) {
			o.v.s.log.Warn("freeing blocks", "drive", o.v.dir, "key", o.key, "chunk", i, "err", err)
		}
		return false
	}
	return true
}

// leavingNow reports whether the helpers are to end.
func (v *volume) leavingNow() bool {
	select {
	case <-v.quit:
		return true
	case <-v.done:
		return true
	default:
		return false
	}
}

// removeLeftovers removes what starts that were cut short, and damaged
// indexes, left behind. The newest damaged index is kept for who wants to know.
func (v *volume) removeLeftovers() {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		v.suspect(err)
		return
	}
	newest := ""
	for _, e := range entries {
		if _, mark, ok := strings.Cut(e.Name(), badMark); ok && strings.HasPrefix(e.Name(), indexName) {
			newest = max(newest, mark)
		}
	}
	for _, e := range entries {
		name := e.Name()
		_, mark, bad := strings.Cut(name, badMark)
		ours := slices.ContainsFunc([]string{"." + markerName + ".tmp-", objectsName + badMark}, func(p string) bool {
			return strings.HasPrefix(name, p)
		}) || bad && strings.HasPrefix(name, indexName) && mark < newest
		if !ours || v.leavingNow() {
			continue
		}
		if err := os.RemoveAll(filepath.Join(v.dir, name)); err != nil {
			v.s.log.Warn("removing leftovers", "drive", v.dir, "name", name, "err", err)
		}
	}
}
