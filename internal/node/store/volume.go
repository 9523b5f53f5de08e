package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"

	"larder/internal/node/store/index"
	"larder/internal/sys/disk"
)

const (
	// overhead is what each object costs besides its chunks: inode, directory
	// entry and rows. Without it, objects that hold nothing would cost nothing.
	overhead = 4096
	// idLead is how many ids are given out before the index must durably say so.
	idLead = 1 << 20
	// pollBytes is how much a drive may grow before the file system is asked
	// again how much room it has.
	pollBytes = 64 << 20
	// tooManyTroubles is how many I/O errors in a minute end a drive that
	// otherwise seems to work.
	tooManyTroubles = 128
)

// indexer is what the store wants of an index.
type indexer interface {
	State() (index.State, error)
	Mark(index.State) error
	Apply(*index.Batch) error
	Get(key []byte) (index.Row, error)
	Segments(id int64) ([]index.Segment, error)
	Scan(after int64, limit int) ([]index.Brief, error)
	Select(f index.Filter, after int64, limit int) ([]index.Brief, error)
	List(f index.Filter, after []byte, limit int) ([]index.Row, error)
	Close() error
}

// volume is a drive while it is open. When the drive fails the volume ends for
// good; should the drive come back, it comes back as another volume.
type volume struct {
	s        *Store
	dir      string
	id       string // of the drive, from its marker
	fs       fileSystem
	ix       indexer
	lock     *disk.FileLock
	block    int64 // unit of allocation
	first    int64 // ids below were given out before this volume was opened
	epoch    uint32
	unclean  bool  // it was not left cleanly before this start
	again    bool  // this process had the drive open before
	scrubbed int64 // the background scrub of an earlier life came to this id

	keep    int64        // bytes of the file system to be left free
	budget  atomic.Int64 // bytes on disk the objects may take; setBudget
	high    atomic.Int64 // above this, the evictor runs
	low     atomic.Int64 // down to this
	used    atomic.Int64
	freed   atomic.Int64 // bytes removed since the volume was opened
	objects atomic.Int64
	free    atomic.Int64 // of the file system, when last asked
	grown   atomic.Int64 // reserved since
	nextID  atomic.Int64
	maxID   atomic.Int64 // ids from here on need a Mark first
	sweep   atomic.Bool  // files without a row may exist
	behind  atomic.Bool  // the last batch could not be written
	leaving atomic.Int64 // objects forgotten whose files are still there
	visited marks        // of objects that are not hot

	ops     sync.RWMutex // held shared while objects are made or written; Close takes it whole
	stripes [64]sync.Mutex

	idMu sync.Mutex // one Mark at a time

	evictMu sync.Mutex // guards hand and tired; held while evicting, so commits and removals happen under it
	hand    int64
	tired   fatigue

	queueMu sync.Mutex
	queue   queue // guarded by queueMu

	wake  chan struct{} // the queue is no longer empty
	now   chan struct{} // do not wait for more
	crowd chan struct{} // above the high mark
	look  chan struct{} // see whether the drive works

	watch    watch        // what the drive has not answered yet
	troubles atomic.Int64 // I/O errors since the last tick of a minute
	ended    atomic.Bool
	stopped  atomic.Bool // Close is under way: no new changes
	shut     atomic.Bool // the index is closed, or about to be
	endOnce  sync.Once
	end      error         // why; written before done is closed
	endState string        // likewise
	done     chan struct{} // closed when the volume ended
	quit     chan struct{} // closed by close: the helpers are to end
	stop     chan struct{} // closed by close after them: the writer is to end
	helpers  sync.WaitGroup
	writer   sync.WaitGroup
}

// usable returns why nothing can be done on the drive, if so.
func (v *volume) usable() error {
	if v.stopped.Load() {
		if v.s.closed.Load() {
			return ErrClosed
		}
		return fmt.Errorf("drive %s: %w: %w", v.dir, ErrNoDrive, errRemoved)
	}
	if !v.ended.Load() {
		return nil
	}
	<-v.done // about to be closed
	return fmt.Errorf("drive %s: %w: %w", v.dir, ErrNoDrive, v.end)
}

// fail ends the volume: from now on nothing is looked up or placed on it.
func (v *volume) fail(state string, err error) {
	v.endOnce.Do(func() {
		v.end, v.endState = err, state
		v.ended.Store(true)
		close(v.done)
	})
}

// indexError says what an error of the index means for the drive.
func (v *volume) indexError(err error) error {
	if err == nil || errors.Is(err, index.ErrNotFound) || errors.Is(err, index.ErrFull) {
		return err
	}
	if !v.stopped.Load() {
		v.fail(stateFailed, err)
	}
	return err
}

// writeError says what an error of a write means for the drive.
func (v *volume) writeError(err error) error {
	switch {
	case errors.Is(err, ErrGone) || errors.Is(err, ErrNoDrive) || errors.Is(err, ErrClosed):
	case disk.IsFull(err):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case disk.IsReadOnly(err):
		v.fail(stateReadOnly, err)
	default:
		v.suspect(err)
	}
	return err
}

// suspect has the drive looked at because of err.
func (v *volume) suspect(err error) {
	v.s.log.Warn("drive trouble", "drive", v.dir, "err", err)
	if v.troubles.Add(1) >= tooManyTroubles {
		// Small writes go well, but what matters does not.
		v.fail(stateFailed, fmt.Errorf("%d I/O errors within a minute, the last: %w", tooManyTroubles, err))
	}
	signal(v.look)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// examine finds out whether the drive works, by using it.
func (v *volume) examine() {
	err := v.s.readable(v.dir, v.id)
	if err == nil {
		err = v.fs.Probe(v.dir)
	}
	switch {
	case err == nil || disk.IsFull(err):
	case disk.IsReadOnly(err):
		v.fail(stateReadOnly, err)
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotOurs):
		v.fail(stateOut, err)
	default:
		v.fail(stateFailed, err)
	}
}

func (v *volume) stripe(id, chunk int64) *sync.Mutex {
	return &v.stripes[uint64(id*31+chunk)%uint64(len(v.stripes))]
}

func (v *volume) parent(id int64) string { return objectDir(v.dir, id) }
func (v *volume) path(id int64) string   { return filepath.Join(v.parent(id), fmt.Sprintf("%016x", id)) }

// makeParent makes the directory of the id's file, but nothing in the place of a
// drive that has gone: a mount point without its drive is not filled.
func (v *volume) makeParent(id int64) error {
	if err := v.s.readable(v.dir, v.id); err != nil {
		return err
	}
	dir := v.parent(id)
	for _, name := range []string{filepath.Dir(filepath.Dir(dir)), filepath.Dir(dir), dir} {
		if err := v.fs.Mkdir(name); err != nil {
			return err
		}
	}
	return nil
}

// objectDir returns where the file of the id lies. Neighbouring ids, which are
// made and evicted together, share a directory.
func objectDir(dir string, id int64) string {
	return filepath.Join(dir, objectsName, fmt.Sprintf("%02x", id>>16&0xff), fmt.Sprintf("%02x", id>>8&0xff))
}

// rounded returns the bytes on disk that n bytes take.
func (v *volume) rounded(n int64) int64 { return (n + v.block - 1) / v.block * v.block }

// newID returns an id that was never given out before, by this process or any
// that was killed: the index says durably how far ids may have come.
func (v *volume) newID() (int64, error) {
	id := v.nextID.Add(1) - 1
	if id < v.maxID.Load() {
		return id, nil
	}
	v.idMu.Lock()
	defer v.idMu.Unlock()
	if id < v.maxID.Load() {
		return id, nil
	}
	next := id + idLead
	if err := v.ix.Mark(index.State{Epoch: v.epoch, Dirty: true, Sweep: true, NextID: next}); err != nil {
		if err = v.indexError(err); errors.Is(err, index.ErrFull) {
			err = fmt.Errorf("%w: %w", ErrFull, err)
		}
		return 0, err
	}
	v.maxID.Store(next)
	return id, nil
}

// reserve counts n bytes as used, evicting if need be; ErrFull if that does not help.
func (v *volume) reserve(n int64) error {
	for try := 0; ; try++ {
		short := v.take(n)
		if short == 0 {
			break
		}
		if try == 8 || v.evict(short) == 0 {
			return ErrFull
		}
	}
	if v.used.Load() > v.high.Load() {
		signal(v.crowd)
	}
	return nil
}

// take counts n bytes as used if there is room, or returns how much is missing.
func (v *volume) take(n int64) (short int64) {
	if over := v.used.Add(n) - v.budget.Load(); over > 0 {
		v.used.Add(-n)
		return over
	}
	grown := v.grown.Add(n)
	if grown >= pollBytes || v.free.Load()-grown < v.keep {
		v.poll()
		if short := v.keep + n - v.free.Load(); short > 0 {
			v.used.Add(-n)
			return short
		}
		v.grown.Add(n)
	}
	return 0
}

// poll asks the file system how much room there is.
func (v *volume) poll() {
	space, err := v.fs.Usage(v.dir)
	if err != nil {
		v.suspect(err)
		return
	}
	v.free.Store(space.Free)
	v.grown.Store(0)
}

// removed takes the file of a forgotten object away and its bytes off the count.
func (v *volume) removed(id, bytes int64, hasFile bool) {
	if v.ended.Load() || v.shut.Load() {
		return // the next start sweeps it up
	}
	if hasFile {
		if err := v.fs.Remove(v.path(id)); err != nil {
			v.sweep.Store(true)
			if !errors.Is(err, fs.ErrPermission) { // on Windows: somebody reads it
				v.suspect(err)
			}
		}
	}
	v.gaveUp(bytes)
	v.objects.Add(-1)
	v.leaving.Add(-1)
}

// gaveUp takes bytes that are free again off the count.
func (v *volume) gaveUp(bytes int64) {
	v.used.Add(-bytes)
	v.freed.Add(bytes)
}

// marks is a set of ids, for the visited bits of objects that are not in
// memory. It takes one bit for each, in pages that vanish with their last bit.
type marks struct {
	mu    sync.Mutex
	pages map[int64]*markPage // guarded by mu
}

const pageWords = 64 // 4096 ids

type markPage struct {
	n    int // bits set
	bits [pageWords]uint64
}

func (m *marks) set(id int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pages == nil {
		m.pages = map[int64]*markPage{}
	}
	p := m.pages[id/(pageWords*64)]
	if p == nil {
		p = &markPage{}
		m.pages[id/(pageWords*64)] = p
	}
	w, bit := id/64%pageWords, uint64(1)<<(id%64)
	if p.bits[w]&bit == 0 {
		p.bits[w] |= bit
		p.n++
	}
}

// take removes the id and reports whether it was there.
func (m *marks) take(id int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pages[id/(pageWords*64)]
	w, bit := id/64%pageWords, uint64(1)<<(id%64)
	if p == nil || p.bits[w]&bit == 0 {
		return false
	}
	p.bits[w] &^= bit
	if p.n--; p.n == 0 {
		delete(m.pages, id/(pageWords*64))
	}
	return true
}
