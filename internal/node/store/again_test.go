package store

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// gated answers what a sweep asks only when the gate is open.
type gated struct {
	fileSystem
	gate chan struct{}
}

func (g gated) Allocated(name string) (int64, error) {
	<-g.gate
	return g.fileSystem.Allocated(name)
}

// A drive is opened again while somebody reads an object by the volume before,
// some of whose chunks the index never heard of: who writes the object by the new
// one takes no byte from them.
func TestWhoReadsByTheVolumeBefore(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 100*mib)
	o.retry = 1
	o.batchDelay = 1 << 62
	gate := make(chan struct{})
	o.fs = gated{system{}, gate}
	s := open(t, o)
	t.Cleanup(func() { close(gate) })
	x := create(t, s, "k", 8*mib)
	defer x.Release()
	if err := x.v.flush(); err != nil {
		t.Fatal(err)
	}
	for i := range int64(4) {
		put(t, x, 8*mib, i)
	}
	old := x.v
	old.fail(stateFailed, errors.New("EIO"))
	eventually(t, "the drive is back", func() bool {
		v := (*s.slots.Load())[0].vol.Load()
		return v != nil && v != old && !v.ended.Load()
	})
	y, err := s.Get("k")
	if err != nil {
		t.Fatal(err)
	}
	defer y.Release()
	if y.v == old || y.id != x.id || y.gen != x.gen {
		t.Fatal("it is not the object by the new volume: what is this test about?")
	}
	put(t, y, 8*mib, 5)
	for i := range int64(4) {
		if b, err := read(x, 8*mib, i); err != nil || !bytes.Equal(b, content("k", x.gen, 8*mib, i)) {
			t.Errorf("chunk %d of who reads on: %v, nothing but zeros: %v", i, err, bytes.Equal(b, make([]byte, mib)))
		}
	}
	if b, err := read(y, 8*mib, 5); err != nil || !bytes.Equal(b, content("k", y.gen, 8*mib, 5)) {
		t.Errorf("the chunk that was written: %v", err)
	}
}

// twoDrives opens a store of two drives the second of which may be made to hang.
func twoDrives(t *testing.T) (s *Store, f *faults, good, bad string) {
	t.Helper()
	good, bad = t.TempDir(), t.TempDir()
	f = &faults{}
	s = open(t, Options{Drives: []Drive{{Path: good, Budget: 640 * mib}, {Path: bad, Budget: 640 * mib}}, Reserve: 1, fs: f, retry: time.Hour, hang: limit})
	return s, f, good, bad
}

// limit is how long a drive of these tests may hang before it is taken out.
var limit = map[bool]time.Duration{false: 200 * time.Millisecond, true: time.Second}[lardertest.Race]

// keysOn fills n small objects and returns those on each drive.
func keysOn(t *testing.T, s *Store, n int) map[string][]string {
	t.Helper()
	on := map[string][]string{}
	for i := range n {
		key := fmt.Sprint(i)
		fill(t, s, key, 1000)
		x, err := s.Get(key)
		if err != nil {
			t.Fatal(err)
		}
		on[x.v.dir] = append(on[x.v.dir], key)
		x.Release()
	}
	return on
}

// A drive that hangs when it is looked at is given up all the same, and none of
// its objects is given out any more.
func TestADriveThatHangsWhenItIsLookedAt(t *testing.T) {
	t.Parallel()
	s, f, _, bad := twoDrives(t)
	on := keysOn(t, s, 20)
	answers := make(chan struct{})
	t.Cleanup(func() { close(answers) })
	f.set(func(f *faults) {
		f.probe = func(dir string) error {
			if dir == bad {
				f.mu.Unlock()
				<-answers
				f.mu.Lock()
			}
			return nil
		}
	})
	eventually(t, "taken out", func() bool { return s.Drives()[1].State == stateFailed })
	eventually(t, "its objects are gone", func() bool {
		for _, key := range on[bad] {
			if x, err := s.Get(key); err == nil {
				x.Release()
				return false
			}
		}
		return true
	})
}

// A drive that hangs when a file is made on it holds up neither the objects of
// another nor its own being taken out, even if the object is not wanted any more.
func TestAHungDriveHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	s, f, good, bad := twoDrives(t)
	on := keysOn(t, s, 200)
	var x *Object
	for i := 1000; x == nil; i++ {
		if x = create(t, s, fmt.Sprint(i), mib); x.v.dir != bad {
			x.Release()
			x = nil
		}
	}
	answers, hangs := make(chan struct{}), make(chan struct{})
	hang := sync.OnceFunc(func() { close(hangs) })
	f.set(func(f *faults) {
		f.open = func(name string) error {
			if strings.HasPrefix(name, bad) {
				f.mu.Unlock()
				hang()
				<-answers
				f.mu.Lock()
			}
			return nil
		}
	})
	over := make(chan error, 1)
	go func() { over <- x.Put(0, content(x.key, x.gen, mib, 0)) }()
	<-hangs
	x.Doom() // waits for nothing
	for _, key := range on[good] {
		y, err := s.Get(key)
		if err != nil {
			t.Errorf("%s of the good drive: %v", key, err)
			continue
		}
		y.Release()
	}
	eventually(t, "taken out", func() bool { return s.Drives()[1].State == stateFailed })
	eventually(t, "its objects are gone", func() bool {
		for _, key := range on[bad] {
			if y, err := s.Get(key); err == nil {
				y.Release()
				return false
			}
		}
		return true
	})
	f.set(func(f *faults) { f.open = nil })
	close(answers)
	if err := <-over; err == nil {
		t.Error("the chunk of an object that is not wanted was stored on a drive that is out")
	}
	x.Release()
}
