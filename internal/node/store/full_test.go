package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"larder/internal/node/store/index"
)

var errIndexFull = fmt.Errorf("test: %w", index.ErrFull)

func TestAnIndexWithoutRoomDoesNotStopTheEviction(t *testing.T) {
	t.Parallel()
	for _, known := range []int{0, 9, 4} { // objects of which the index knows
		for _, cold := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d known, cold=%v", known, cold), func(t *testing.T) {
				t.Parallel()
				o := options(t.TempDir(), 10*mib)
				o.batchDelay = time.Hour
				fail := withFaultyIndex(&o)
				s := open(t, o)
				v := (*s.slots.Load())[0].vol.Load()
				for i := range known {
					fill(t, s, fmt.Sprint(i), mib)
				}
				if err := v.flush(); err != nil {
					t.Fatal(err)
				}
				if cold {
					s.dropVolume(v)
				}
				fail(errIndexFull)
				for i := known; i < 40; i++ {
					fill(t, s, fmt.Sprint(i), mib)
					if n, _ := onDisk(t, v.dir); v.used.Load() > v.budget.Load() || n > v.used.Load() {
						t.Fatalf("%d bytes on disk, counted %d of %d", n, v.used.Load(), v.budget.Load())
					}
				}
				if get(t, s, "39") != 1 {
					t.Error("the newest object is not there")
				}
				if n := value(s.metrics.evictedObjects); n < 31 || n > 39 {
					t.Errorf("%v of 40 objects evicted where 9 have room", n)
				}
				held, err := s.Get("39")
				if err != nil {
					t.Fatal(err)
				}
				v.evict(100 * mib)
				if n, files := onDisk(t, v.dir); files != 1 {
					t.Errorf("%d bytes in %d files, want that of the held object", n, files)
				}
				if n, err := check(held); n != 1 || err != nil {
					t.Errorf("the held object has %d chunks, %v", n, err)
				}
				held.Release()
				fail(nil)
				audit(t, s)
				if n, _ := onDisk(t, v.dir); n > v.used.Load() {
					t.Errorf("%d bytes on disk, counted %d", n, v.used.Load())
				}
			})
		}
	}
}

func TestObjectsThatLostTheirFileToAFullIndexAreDropped(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 10*mib)
	o.batchDelay = time.Hour
	fail := withFaultyIndex(&o)
	s := open(t, o)
	v := (*s.slots.Load())[0].vol.Load()
	for i := range 6 {
		fill(t, s, fmt.Sprint(i), mib)
	}
	if err := v.flush(); err != nil {
		t.Fatal(err)
	}
	fail(errIndexFull)
	if freed := v.evict(3 * mib); freed < 3*mib || freed > 4*mib {
		t.Errorf("freed %d bytes, want 3 MiB", freed)
	}
	abandon(s)
	fail(nil)
	s = open(t, o)
	there := 0
	for i := range 6 {
		if get(t, s, fmt.Sprint(i)) == 1 {
			there++
		}
		fill(t, s, fmt.Sprint("new ", i), 1000)
	}
	if there != 3 {
		t.Errorf("%d objects are there, want 3", there)
	}
	for i := range 6 {
		if get(t, s, fmt.Sprint("new ", i)) != 1 {
			t.Errorf("new object %d is not there", i)
		}
	}
	audit(t, s)
}

func TestAStartWithoutRoomForTheIndexTakesItFromObjects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := options(dir, 20*mib)
	s := open(t, o)
	for i := range 6 {
		fill(t, s, fmt.Sprint(i), mib)
	}
	if _, err := s.Pin(Filter{Key: "0"}, true); err != nil {
		t.Fatal(err)
	}
	abandon(s)
	room := 3 // files that must go
	o.openIndex = func(path string) (indexer, error) {
		x, err := index.Open(path)
		return &fullIndex{x, func() error {
			if _, files := onDisk(t, dir); files > 6-room {
				return errIndexFull
			}
			return nil
		}}, err
	}
	s = open(t, o)
	if get(t, s, "0") != 1 {
		t.Error("the pinned object is gone")
	}
	there := 0
	for i := range 6 {
		there += max(0, get(t, s, fmt.Sprint(i)))
	}
	if there != 3 {
		t.Errorf("%d objects left, want 3", there)
	}
	closeStore(t, s)
	room = 6 // more than there is to give: one is pinned
	if s, err := Open(t.Context(), o); !errors.Is(err, index.ErrFull) {
		if err == nil {
			closeStore(t, s)
		}
		t.Errorf("a start where nothing is left to give: %v", err)
	}
	if _, files := onDisk(t, dir); files != 1 {
		t.Errorf("%d files left, want that of the pinned object", files)
	}
	if err := os.MkdirAll(filepath.Join(dir, objectsName+badMark+"x", "00"), 0o700); err != nil {
		t.Fatal(err)
	}
	if victim, err := s.sacrifice(dir, nil); err != nil || filepath.Base(victim) != objectsName+badMark+"x" {
		t.Errorf("what a damaged index left is not what goes first: %q, %v", victim, err)
	}
}

// fullIndex cannot be marked as in use while full says so.
type fullIndex struct {
	indexer
	full func() error
}

func (x *fullIndex) Mark(st index.State) error {
	if err := x.full(); err != nil {
		return err
	}
	return x.indexer.Mark(st)
}

func TestAStopThatCannotWriteTheIndexIsNoCleanOne(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 10*mib)
	o.batchDelay = time.Hour
	fail := withFaultyIndex(&o)
	s := open(t, o)
	fill(t, s, "k", 2*mib)
	if err := (*s.slots.Load())[0].vol.Load().flush(); err != nil {
		t.Fatal(err)
	}
	k, err := s.Get("k")
	if err != nil {
		t.Fatal(err)
	}
	f, err := k.File()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("rot"), 5); err != nil {
		t.Fatal(err)
	}
	k.Failed(0, errors.New("test: somebody noticed"))
	k.Release()
	fail(errIndexFull)
	closeStore(t, s)
	fail(nil)
	s = open(t, o)
	if n := get(t, s, "k"); n != 1 { // get compares what is there
		t.Errorf("%d chunks, want 1", n)
	}
}
