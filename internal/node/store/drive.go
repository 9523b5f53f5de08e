package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"larder/internal/node/store/index"
	"larder/internal/sys/disk"
	"larder/internal/sys/durable"
)

// Names in the directory of a drive; docs/store-format.md describes them.
const (
	markerName  = "larder.drive"
	lockName    = "lock"
	indexName   = "index.db"
	objectsName = "objects"
	badMark     = ".bad-" // and a time: moved aside
	probePrefix = "probe-"

	driveFormat = 1
)

// States of a drive.
const (
	stateOK       = "ok"
	stateReadOnly = "read-only" // takes no writes
	stateFailed   = "failed"    // I/O errors
	stateOut      = "out"       // not there, not ours, or of a newer format
)

const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	longLife   = 10 * time.Minute // a drive that lasted that long begins with short retries again
)

var errNotOurs = errors.New("not the drive it was")

// driveError is a reason to take a drive out.
type driveError struct {
	state string
	err   error
}

func (e *driveError) Error() string { return e.err.Error() }
func (e *driveError) Unwrap() error { return e.err }

// marker is the content of larder.drive.
type marker struct {
	Format int    `json:"format"`
	ID     string `json:"id"`
}

// slot is a place in the configuration; the drive in it comes and goes.
type slot struct {
	s      *Store
	number int                    // for metrics and lists; stays while others come and go
	vol    atomic.Pointer[volume] // nil while the drive is taken out
	cancel context.CancelFunc     // ends run
	over   chan struct{}          // closed when run has ended

	mu      sync.Mutex
	cfg     Drive     // guarded by mu: its budget may change
	id      string    // guarded by mu: the drive that must be here; "" before the first was seen
	state   string    // guarded by mu
	err     error     // guarded by mu: why the state is not ok
	since   time.Time // guarded by mu: of state
	damaged bool      // guarded by mu: the index is to be moved aside
}

// DriveStatus is how a drive is.
type DriveStatus struct {
	Path, ID     string
	Budget, Used int64 // bytes on disk
	Free         int64 // bytes free on the file system when last asked
	Objects      int64
	State        string // "ok", "read-only", "failed", "out"
	Err          string // why it is not ok
	Since        time.Time
}

// Drives returns how the drives are, in the order of the configuration.
func (s *Store) Drives() []DriveStatus {
	slots := *s.slots.Load()
	all := make([]DriveStatus, len(slots))
	for i, sl := range slots {
		all[i] = sl.status()
	}
	return all
}

func (sl *slot) status() DriveStatus {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	d := DriveStatus{Path: sl.cfg.Path, ID: sl.id, Budget: sl.cfg.Budget, State: sl.state, Since: sl.since}
	if sl.err != nil {
		d.Err = sl.err.Error()
	}
	if v := sl.vol.Load(); v != nil {
		d.Used, d.Objects, d.Free = v.used.Load(), max(0, v.objects.Load()-v.leaving.Load()), v.free.Load()
		if v.ended.Load() && d.State == stateOK {
			<-v.done
			d.State, d.Err = v.endState, v.end.Error()
		}
	}
	return d
}

// run looks after the drive until ctx ends: it starts what the drive does by
// itself, waits for the drive to fail,
// clears up, and tries to open it again with growing pauses.
func (sl *slot) run(ctx context.Context) {
	pause := sl.s.retry
	for {
		if v := sl.vol.Load(); v != nil {
			opened := time.Now()
			v.start()
			// Whoever is in the system on behalf of a drive that hangs comes
			// back when it does, if ever: who looks after it, and who clears up.
			lived := make(chan struct{})
			go func() {
				v.live(ctx)
				close(lived)
			}()
			select {
			case <-lived:
			case <-v.done:
			}
			if ctx.Err() != nil {
				return
			}
			over := make(chan struct{})
			go func() {
				sl.retire(v)
				<-lived
				close(over)
			}()
			select {
			case <-over:
			case <-ctx.Done():
				return
			}
			if time.Since(opened) > longLife {
				pause = sl.s.retry
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		pause = min(2*pause, lastRetry)
		before := sl.status().Err
		switch err := sl.open(false); {
		case err == nil:
			sl.s.log.Info("drive is back", "drive", sl.path())
		case err.Error() != before:
			sl.s.log.Error("drive stays out", "drive", sl.path(), "err", err)
		}
	}
}

// retire clears up after a volume that ended.
func (sl *slot) retire(v *volume) {
	sl.s.metrics.driveFailures.Inc()
	sl.s.log.Error("drive taken out", "drive", v.dir, "state", v.endState, "err", v.end)
	sl.mu.Lock()
	sl.state, sl.err, sl.since = v.endState, v.end, time.Now()
	sl.damaged = errors.Is(v.end, index.ErrCorrupt)
	sl.vol.Store(nil)
	sl.mu.Unlock()
	sl.s.dropVolume(v)
	v.helpers.Wait()
	v.writer.Wait()
	// The index is beyond help and the lock goes with its file: nothing to be
	// done about errors.
	_ = v.ix.Close()
	_ = v.lock.Unlock()
}

// close ends the drive cleanly.
func (sl *slot) close() error {
	v := sl.vol.Load()
	if v == nil {
		return nil
	}
	if v.ended.Load() {
		if <-v.done; errors.Is(v.end, errHangs) {
			go v.close() // for as long as it hangs; there is nothing left to be done cleanly
			return nil
		}
	}
	return v.close()
}

// open opens the drive; first allows to make its directory.
func (sl *slot) open(first bool) error {
	sl.mu.Lock()
	cfg, id, damaged := sl.cfg, sl.id, sl.damaged
	sl.mu.Unlock()
	v, err := sl.s.openVolume(cfg, id, damaged, first)

	sl.mu.Lock()
	defer sl.mu.Unlock()
	if err != nil {
		state := stateFailed
		if e := (*driveError)(nil); errors.As(err, &e) {
			state = e.state
		} else if disk.IsReadOnly(err) {
			state = stateReadOnly
		}
		if state != sl.state {
			sl.since = time.Now()
		}
		sl.state, sl.err = state, err
		return fmt.Errorf("drive %s: %w", sl.cfg.Path, err)
	}
	sl.id, sl.state, sl.err, sl.since, sl.damaged = v.id, stateOK, nil, time.Now(), false
	v.setBudget(sl.cfg.Budget) // it may have changed meanwhile
	sl.vol.Store(v)
	return nil
}

// openVolume opens the drive that lies in d.Path. id, if not empty, is the one
// it must have; damaged: its index was found to be so.
func (s *Store) openVolume(d Drive, id string, damaged, first bool) (_ *volume, err error) {
	if first && id == "" {
		if err := os.MkdirAll(d.Path, 0o700); err != nil {
			return nil, err
		}
	}
	if fi, err := os.Stat(d.Path); err != nil {
		return nil, &driveError{stateOut, err}
	} else if !fi.IsDir() {
		return nil, &driveError{stateOut, errors.New("found a file, want a directory; name the directory the cache may use")}
	}
	m, err := readMarker(d.Path, id)
	if err != nil {
		return nil, err
	}
	l, err := disk.Lock(filepath.Join(d.Path, lockName))
	if errors.Is(err, disk.ErrLocked) {
		return nil, &driveError{stateOut, fmt.Errorf("%w: %w; stop that process, or give this one another directory", ErrInUse, err)}
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Unlock())
		}
	}()
	// Objects may lie on another mount than the drive's own directory.
	for _, dir := range []string{d.Path, filepath.Join(d.Path, objectsName)} {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := s.removeProbes(dir); err != nil {
			return nil, err
		}
		if err := s.fs.Probe(dir); err != nil && !disk.IsFull(err) {
			return nil, err
		}
	}
	if m == nil {
		if m, err = writeMarker(d.Path); err != nil {
			return nil, err
		}
	}
	return s.useIndex(d, m.ID, l, damaged)
}

// useIndex opens the index and makes the volume of it. On a disk so full that
// the index cannot be written, objects make room: the drive must be in use
// before anything can be evicted.
func (s *Store) useIndex(d Drive, id string, l *disk.FileLock, damaged bool) (*volume, error) {
	for ; ; damaged = false {
		ix, st, err := s.openIndexOf(d.Path, damaged)
		var v *volume
		if err == nil {
			if v, err = s.newVolume(d, id, ix, l, st); err == nil {
				return v, nil
			}
		}
		victim := ""
		if errors.Is(err, index.ErrFull) {
			var e error
			victim, e = s.sacrifice(d.Path, ix)
			err = errors.Join(err, e)
		}
		if ix != nil {
			err = errors.Join(err, ix.Close())
		}
		if victim == "" {
			return nil, err
		}
		s.log.Warn("removed files to make room for the index", "drive", d.Path, "name", victim)
	}
}

// sacrifice removes from the drive in dir, which is not in use, what a damaged
// index left behind, or else the file of an object, and returns the name; "" if there
// is none. ix says which objects are pinned; where it is nil nobody knows.
func (s *Store) sacrifice(dir string, ix indexer) (victim string, err error) {
	aside, err := filepath.Glob(filepath.Join(dir, objectsName+badMark+"*"))
	if err == nil && len(aside) > 0 {
		return aside[0], os.RemoveAll(aside[0])
	}
	err = filepath.WalkDir(filepath.Join(dir, objectsName), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		id, err := strconv.ParseInt(e.Name(), 16, 64)
		if err != nil {
			return nil // not ours
		}
		if n, err := s.fs.Allocated(path); err != nil || n == 0 {
			return err
		}
		if ix != nil {
			rows, err := ix.Scan(id-1, 1)
			if err != nil || len(rows) > 0 && rows[0].ID == id && rows[0].Pinned {
				return err
			}
		}
		if err := s.fs.Remove(path); err != nil {
			return err
		}
		victim = path
		return fs.SkipAll
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return victim, err
}

// removeProbes removes what kills left of earlier probes. Nobody else probes
// while we have the lock and before the volume's goroutines start.
func (s *Store) removeProbes(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), probePrefix) {
			if err := s.fs.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// readMarker reads the drive's marker and compares it with what else is there;
// nil: the directory is a drive's no more than any empty one.
func readMarker(dir, id string) (*marker, error) {
	out := func(format string, args ...any) error { return &driveError{stateOut, fmt.Errorf(format, args...)} }
	b, err := os.ReadFile(filepath.Join(dir, markerName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for _, name := range []string{indexName, objectsName} {
			if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
				return nil, out("found %s but no %s; put %s back, or empty the directory to begin afresh", name, markerName, markerName)
			}
		}
		if id != "" {
			return nil, out("%w: found no %s, want that of drive %s; is its file system mounted?", errNotOurs, markerName, id)
		}
		return nil, nil
	case err != nil:
		return nil, err
	}
	m := &marker{}
	if err := json.Unmarshal(b, m); err != nil || m.Format < 1 || m.ID == "" {
		return nil, out("%s is damaged; put it back, or empty the directory to begin afresh", markerName)
	}
	if m.Format > driveFormat {
		return nil, out("found format %d, this program knows up to %d; use the newer program again, or empty the directory to begin afresh", m.Format, driveFormat)
	}
	if id != "" && m.ID != id {
		return nil, out("%w: found drive %s, want %s; are the file systems mounted in the right places?", errNotOurs, m.ID, id)
	}
	_, noIndex := os.Lstat(filepath.Join(dir, indexName))
	_, noObjects := os.Lstat(filepath.Join(dir, objectsName))
	if errors.Is(noIndex, fs.ErrNotExist) && noObjects == nil {
		return nil, out("found %s but no %s; put %s back, or empty the directory to begin afresh", objectsName, indexName, indexName)
	}
	return m, nil
}

// readable returns an error if dir no longer holds the drive with the id.
func (s *Store) readable(dir, id string) error {
	m, err := readMarker(dir, id)
	if err == nil && m == nil {
		err = errNotOurs
	}
	return err
}

func writeMarker(dir string) (*marker, error) {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	m := &marker{Format: driveFormat, ID: hex.EncodeToString(b[:])}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return m, durable.WriteFile(filepath.Join(dir, markerName), append(text, '\n'), 0o600)
}

// openIndexOf opens the index of the drive in dir, making it if there is none.
// A damaged one is moved aside with the objects, and the drive begins empty.
func (s *Store) openIndexOf(dir string, damaged bool) (indexer, index.State, error) {
	path := filepath.Join(dir, indexName)
	try := func() (indexer, index.State, error) {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			if err := index.Create(path); err != nil {
				return nil, index.State{}, err
			}
		}
		ix, err := s.openIndex(path)
		if err != nil {
			return nil, index.State{}, err
		}
		st, err := ix.State()
		if err != nil {
			return nil, index.State{}, errors.Join(err, ix.Close())
		}
		return ix, st, nil
	}
	err := index.ErrCorrupt
	if !damaged {
		var ix indexer
		var st index.State
		if ix, st, err = try(); err == nil {
			return ix, st, nil
		}
	}
	if errors.Is(err, index.ErrNewer) {
		return nil, index.State{}, &driveError{stateOut, fmt.Errorf("%w; use the newer program again, or empty the directory to begin afresh", err)}
	}
	if !errors.Is(err, index.ErrCorrupt) {
		return nil, index.State{}, err
	}
	s.metrics.indexResets.Inc()
	s.log.Error("index moved aside, drive begins empty", "drive", dir, "err", err)
	if err := moveAside(dir); err != nil {
		return nil, index.State{}, err
	}
	return try()
}

// moveAside renames a damaged index and the objects it knew. The objects go
// first: should it end between, the damaged index is met again.
func moveAside(dir string) error {
	mark := badMark + time.Now().UTC().Format("20060102T150405.000000000")
	names := []string{objectsName}
	for _, suffix := range index.Suffixes {
		names = append(names, indexName+suffix)
	}
	for _, name := range names {
		err := durable.Rename(filepath.Join(dir, name), filepath.Join(dir, name+mark))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// ranked returns the drives in the order in which they are to take the key:
// weighted rendezvous, so that each gets keys by its budget, and a drive that
// comes or goes moves only its own.
func ranked(all []*volume, key string) []*volume {
	if len(all) < 2 {
		return all
	}
	scores := make(map[*volume]float64, len(all))
	for _, v := range all {
		u := (float64(mix(hash(key)^hash(v.id))>>11) + 0.5) / (1 << 53)
		scores[v] = -float64(v.budget.Load()) / math.Log(u)
	}
	slices.SortFunc(all, func(a, b *volume) int { return cmp.Compare(scores[b], scores[a]) })
	return all
}

// mix is the finaliser of splitmix64: it spreads what differs in few bits.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
