// Package store keeps objects in chunks on drives: it says what is there,
// never gives out a byte that is not right, and stays within its budget.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/node/store/index"
	"larder/internal/sys/disk"
)

var (
	// ErrNotFound: no object has the key.
	ErrNotFound = errors.New("not stored")
	// ErrFull: there is no room, and nothing that may be evicted.
	ErrFull = errors.New("no room in the store")
	// ErrNoDrive: no drive works, or the object's drive does not.
	ErrNoDrive = errors.New("no usable drive")
	// ErrGone: the object was purged, evicted or replaced.
	ErrGone = errors.New("object is gone")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("store is closed")
	// ErrInUse: another process has the drive.
	ErrInUse = errors.New("drive is in use by another process")
)

// Drive is a directory with a size budget where objects lie.
type Drive struct {
	Path   string
	Budget int64 // bytes on disk the objects may take, index included
	// ID, if set, is the id that the drive must have, as Drives told it
	// earlier. An empty directory, such as a mount point whose file system is
	// missing, is then not taken for a new drive.
	ID string
}

// Options are the settings of a store.
type Options struct {
	Drives []Drive
	// Reserve is how many bytes of each file system are left free even if
	// others fill it. 0: the smaller of 1 GiB and 2 % of the file system.
	Reserve int64
	// MaxOpen is about how many objects are kept in memory with their files
	// open besides those that are held. 0: 8192; never more than half of the files
	// the process may open.
	MaxOpen int
	// ScrubRate is how many bytes a second of cold data are read back on each
	// drive to see whether they are right. 0: none.
	ScrubRate  int64
	Log        *slog.Logger
	Registerer prometheus.Registerer

	fs         fileSystem                         // for tests; nil: the system's
	openIndex  func(path string) (indexer, error) // for tests; nil: SQLite
	batchDelay time.Duration                      // for tests; 0: batchDelay
	retry      time.Duration                      // for tests; 0: firstRetry
	hang       time.Duration                      // for tests; 0: hangAfter
	ripe       time.Duration                      // for tests; 0: ripeAfter
}

// Store is a set of drives. Its methods may be called at the same time.
type Store struct {
	log        *slog.Logger
	metrics    *metrics
	fs         fileSystem
	openIndex  func(path string) (indexer, error)
	batchDelay time.Duration
	retry      time.Duration
	hang       time.Duration
	ripe       time.Duration
	reserve    int64
	scrubRate  int64
	perShard   int
	slots      atomic.Pointer[[]*slot] // in the order of the configuration; replaced as a whole
	drives     sync.Mutex              // held while slots is replaced
	run        context.Context         // ends at Close; the slots live under it

	seen sync.Map // ids of drives that were open; true

	shards [shards]shard
	gen    atomic.Uint64 // the last one given out
	closed atomic.Bool

	cancel context.CancelFunc // ends the slots' goroutines
	wg     sync.WaitGroup     // the slots' goroutines
	once   sync.Once
	err    error // of Close; guarded by once
}

// Open opens the drives, making directories and new drives as needed. A drive
// that does not work is taken out and tried again later. Errors: mistakes in o;
// ErrInUse when another process holds a drive; ErrNoDrive when none works.
// ctx bounds the opening only.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := checkList(o); err != nil {
		return nil, err
	}
	s := &Store{log: o.Log, fs: o.fs, openIndex: o.openIndex, batchDelay: o.batchDelay, retry: o.retry,
		reserve: o.Reserve, scrubRate: o.ScrubRate}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.fs == nil {
		s.fs = system{}
	}
	if s.openIndex == nil {
		s.openIndex = func(path string) (indexer, error) { return index.Open(path) }
	}
	if s.batchDelay == 0 {
		s.batchDelay = batchDelay
	}
	if s.retry == 0 {
		s.retry = firstRetry
	}
	if s.hang = o.hang; s.hang == 0 {
		s.hang = hangAfter
	}
	if s.ripe = o.ripe; s.ripe == 0 {
		s.ripe = ripeAfter
	}
	s.perShard = perShard(o.MaxOpen)
	for i := range s.shards {
		sh := &s.shards[i]
		sh.hot, sh.claims, sh.leaving = map[string]*Object{}, map[string]*claim{}, map[leavingKey]int{}
	}
	var err error
	if s.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("registering the store's metrics: %w", err)
	}
	s.slots.Store(new([]*slot))
	s.run, s.cancel = context.WithCancel(context.Background())
	if err := s.openDrives(ctx, o.Drives); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	// Not before all drives are open: who looks an object up, if only to read it
	// back, must see all its generations.
	for _, sl := range *s.slots.Load() {
		s.start(sl)
	}
	return s, nil
}

func perShard(maxOpen int) int {
	if maxOpen <= 0 {
		maxOpen = 8192
	}
	each := max(1, min(maxOpen, disk.MaxFiles()/2)/shards)
	return each + 3*int(math.Sqrt(float64(each))) // keys do not spread evenly
}

// openDrives opens each drive once.
func (s *Store) openDrives(ctx context.Context, drives []Drive) error {
	slots := make([]*slot, len(drives))
	for i, d := range drives {
		slots[i] = s.newSlot(i, d)
	}
	s.slots.Store(&slots)
	var errs []error
	for i, d := range drives {
		sl := slots[i]
		if err := s.metrics.watch(sl); err != nil {
			return fmt.Errorf("registering the metrics of drive %s: %w", d.Path, err)
		}
		err := context.Cause(ctx)
		if err == nil {
			err = sl.open(true)
		}
		if errors.Is(err, ErrInUse) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			s.log.Error("drive taken out", "drive", d.Path, "err", err)
			errs = append(errs, err)
		}
	}
	if len(errs) == len(drives) {
		return fmt.Errorf("%w: %w", ErrNoDrive, errors.Join(errs...))
	}
	return nil
}

// Close waits for changes under way, writes what the indexes do not know yet,
// marks the drives as cleanly left and gives them free. Objects still held can
// be read until they are released.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.drives.Lock()
		defer s.drives.Unlock()
		s.closed.Store(true)
		s.cancel()
		s.wg.Wait()
		slots := *s.slots.Load()
		errs := make([]error, len(slots))
		var wg sync.WaitGroup
		for i, sl := range slots {
			wg.Go(func() { errs[i] = sl.close() })
		}
		wg.Wait()
		s.dropVolume(nil)
		s.metrics.close()
		s.err = errors.Join(errs...)
	})
	return s.err
}

// volumes returns the drives in use.
func (s *Store) volumes() []*volume {
	slots := *s.slots.Load()
	all := make([]*volume, 0, len(slots))
	for _, sl := range slots {
		if v := sl.vol.Load(); v != nil && !v.ended.Load() {
			all = append(all, v)
		}
	}
	return all
}

// dropVolume takes the objects of a drive, or with nil of all, out of memory:
// first all of them, for nobody to find them any more; their files are closed
// then, which may take as long as a drive hangs.
func (s *Store) dropVolume(v *volume) {
	var out []*Object
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for key, o := range sh.hot {
			if v == nil || o.v == v {
				delete(sh.hot, key)
				o.left.Store(true)
				out = append(out, o)
			}
		}
		for l := range sh.leaving {
			if v == nil || l.v == v {
				delete(sh.leaving, l)
			}
		}
		sh.mu.Unlock()
	}
	settleAll(out)
}
