package store

import (
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"larder/internal/node/store/index"
)

// onDisk returns the bytes that the files of objects below dir take, and how
// many files there are.
func onDisk(t testing.TB, dir string) (bytes int64, files int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, objectsName), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		n, err := system{}.Allocated(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		bytes += n
		files++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes, files
}

// killedWith returns the options of a drive that was killed when it had seven
// chunks of "k", of which the index knows the given ones, written first.
func killedWith(t *testing.T, known ...int64) Options {
	t.Helper()
	o := options(t.TempDir(), 100*mib)
	o.batchDelay = time.Hour
	s := open(t, o)
	k := create(t, s, "k", 7*mib)
	defer k.Release()
	for _, i := range known {
		put(t, k, 7*mib, i)
	}
	if err := (*s.slots.Load())[0].vol.Load().flush(); err != nil {
		t.Fatal(err)
	}
	for i := range int64(7) {
		put(t, k, 7*mib, i)
	}
	abandon(s)
	return o
}

func TestBlocksOfChunksThatAKillLostAreFreed(t *testing.T) {
	t.Parallel()
	for name, known := range map[string][]int64{"some chunks known": {1, 4}, "none": nil, "the first": {0}, "the last": {6}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := killedWith(t, known...)
			if n, _ := onDisk(t, o.Drives[0].Path); n < 7*mib {
				t.Fatalf("%d bytes on disk; the test shows nothing", n)
			}
			s := open(t, o)
			used := overhead + int64(len(known))*mib
			eventually(t, "no more on disk than is counted", func() bool {
				n, _ := onDisk(t, o.Drives[0].Path)
				return n <= used
			})
			if got := s.Drives()[0].Used; got != used && got != 0 {
				t.Errorf("used %d, want %d, or 0 where holes cannot be made", got, used)
			}
			if n := get(t, s, "k"); n != len(known) && n != -1 {
				t.Errorf("%d chunks, want %d", n, len(known))
			}
			fill(t, s, "k", 7*mib)
			if n := get(t, s, "k"); n != 7 {
				t.Errorf("%d chunks after all were stored again", n)
			}
			audit(t, s)
			if n, files := onDisk(t, o.Drives[0].Path); files != 1 || n > s.Drives()[0].Used {
				t.Errorf("%d bytes in %d files, counted %d", n, files, s.Drives()[0].Used)
			}
		})
	}
}

func TestChunksPutDuringTheSweepStay(t *testing.T) {
	t.Parallel()
	for range 20 {
		o := killedWith(t, 3)
		s := open(t, o)
		k, err := s.Get("k")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range int64(7) {
			wg.Go(func() {
				if err := k.Put(i, content("k", k.Generation(), 7*mib, i)); err != nil {
					t.Errorf("put %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		eventually(t, "swept", func() bool { return !(*s.slots.Load())[0].vol.Load().sweep.Load() })
		if n, err := check(k); n != 7 || err != nil {
			t.Errorf("%d chunks, %v; want all 7", n, err)
		}
		k.Release()
		audit(t, s)
		closeStore(t, s)
	}
}

// A drive that was away and is back is another volume, whose sweep knows nothing
// of what the one before had not told the index. Whoever still reads from that
// one reads what it had.
func TestASweepTakesNothingFromThoseWhoRead(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 100*mib)
	o.retry, o.batchDelay = time.Millisecond, time.Hour
	s := open(t, o)
	v := s.volumes()[0]
	x := create(t, s, "k", 2*mib)
	defer x.Release()
	put(t, x, 2*mib, 0)
	if err := v.flush(); err != nil {
		t.Fatal(err)
	}
	put(t, x, 2*mib, 1)
	v.fail(stateFailed, errors.New("away"))
	eventually(t, "the drive is back and swept", func() bool {
		vs := s.volumes()
		return len(vs) == 1 && vs[0] != v && !vs[0].sweep.Load()
	})
	if n, err := check(x); n != 2 || err != nil {
		t.Errorf("%d chunks, %v; want both, right", n, err)
	}
}

func TestTheSweepWaitsForAChunkThatIsWrittenAndNotYetCounted(t *testing.T) {
	t.Parallel()
	f := &faults{}
	o := options(t.TempDir(), 100*mib)
	o.fs = f
	s := open(t, o)
	k := create(t, s, "k", 2*mib)
	defer k.Release()
	put(t, k, 2*mib, 1)
	swept := make(chan error, 1)
	f.set(func(f *faults) {
		f.wrote = func() {
			go func() { swept <- k.hollowOut() }()
			select {
			case err := <-swept:
				t.Errorf("the sweep did not wait: %v", err)
				swept <- err
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	put(t, k, 2*mib, 0)
	if err := <-swept; err != nil {
		t.Error(err)
	}
	if n, err := check(k); n != 2 || err != nil {
		t.Errorf("%d chunks, %v; want both", n, err)
	}
}

func TestWhereHolesCannotBeMadeTheObjectGoes(t *testing.T) {
	t.Parallel()
	o := killedWith(t, 2)
	o.batchDelay = 10 * time.Millisecond
	o.fs = &faults{punch: func() error { return errors.ErrUnsupported }}
	s := open(t, o)
	eventually(t, "nothing on disk", func() bool {
		_, files := onDisk(t, o.Drives[0].Path)
		return files == 0
	})
	eventually(t, "nothing counted", func() bool { return s.Drives()[0].Used == 0 })
	if get(t, s, "k") != -1 {
		t.Error("the object is still there")
	}
	audit(t, s)
}

func TestAFileThatTheIndexKnowsNoChunkOfGoesWithItsObject(t *testing.T) {
	t.Parallel()
	o := killedWith(t)
	doomed := make(chan struct{})
	o.openIndex = func(path string) (indexer, error) {
		x, err := index.Open(path)
		return &watchedIndex{x, func() { <-doomed }}, err
	}
	s := open(t, o)
	k, err := s.Get("k")
	if err != nil {
		t.Fatal(err)
	}
	k.Doom()
	k.Release()
	close(doomed) // the sweep meets a row that is about to go
	v := (*s.slots.Load())[0].vol.Load()
	eventually(t, "swept", func() bool { return !v.sweep.Load() })
	if err := v.flush(); err != nil {
		t.Fatal(err)
	}
	if n, files := onDisk(t, v.dir); files != 0 {
		t.Errorf("%d bytes left in %d files", n, files)
	}
	audit(t, s)
}

func TestNothingRunsBeforeAllDrivesAreOpen(t *testing.T) {
	t.Parallel()
	a, b := t.TempDir(), t.TempDir()
	both := Options{Reserve: 1, Drives: []Drive{{Path: a, Budget: 100 * mib}, {Path: b, Budget: 1}}}
	s := open(t, both) // all goes to the first
	fill(t, s, "k", mib)
	closeStore(t, s)
	// The newer generation lies on the second drive.
	s = open(t, Options{Reserve: 1, Drives: []Drive{{Path: b, Budget: 100 * mib}}})
	fill(t, s, "k", 2*mib)
	closeStore(t, s)

	both.Drives[1].Budget = 100 * mib
	both.ScrubRate = 1 << 40
	used := make(chan struct{}, 1)
	both.openIndex = func(path string) (indexer, error) {
		if filepath.Dir(path) == b {
			select {
			case <-used:
				t.Error("the first drive is at work before the second one is open")
			case <-time.After(50 * time.Millisecond):
			}
		}
		x, err := index.Open(path)
		return &watchedIndex{x, func() { signal(used) }}, err
	}
	s = open(t, both)
	eventually(t, "the scrub to run", func() bool { return value(s.metrics.scrubbedBytes) > 0 })
	if n := get(t, s, "k"); n != 2 {
		t.Errorf("%d chunks; the older generation has 1, the newer 2", n)
	}
}

// watchedIndex calls met before it is scanned.
type watchedIndex struct {
	indexer
	met func()
}

func (x *watchedIndex) Scan(after int64, limit int) ([]index.Brief, error) {
	x.met()
	return x.indexer.Scan(after, limit)
}
