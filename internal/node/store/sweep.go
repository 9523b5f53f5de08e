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

// sweeper removes, after an unclean stop, the files that no row stands for. It
// looks only at ids that were given out before this start, so that it never
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
		known, err := v.ix.Known(id)
		if err != nil {
			return v.indexError(err)
		}
		if known {
			return nil
		}
		v.s.metrics.orphans.Inc()
		return v.fs.Remove(path)
	})
	switch {
	case v.leavingNow():
	case err != nil:
		v.s.log.Warn("removing files that belong to nothing", "drive", v.dir, "err", err)
	default:
		v.sweep.Store(false)
	}
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
