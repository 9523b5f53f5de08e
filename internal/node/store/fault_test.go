package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"larder/internal/node/store/index"
	"larder/internal/sys/disk"
)

// faults is a file system in which things go wrong. Its fields may be set at
// any time through set; nil does nothing.
type faults struct {
	system
	mu    sync.Mutex
	usage func(dir string, s disk.Space) disk.Space
	write func(name string, n int) (int, error) // how much is written, and what is said; n, nil: all is well
	read  func(name string, b []byte) error     // after a read
	probe func(dir string) error
	open  func(name string) error
	punch func() error // instead of making a hole
	wrote func()       // after a write
}

func (f *faults) set(change func(*faults)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *faults) Usage(dir string) (disk.Space, error) {
	s, err := f.system.Usage(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.usage != nil {
		s = f.usage(dir, s)
	}
	return s, err
}

func (f *faults) Probe(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.probe != nil {
		if err := f.probe(dir); err != nil {
			return err
		}
	}
	return f.system.Probe(dir)
}

func (f *faults) Open(name string, create bool) (file, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open != nil {
		if err := f.open(name); err != nil {
			return nil, err
		}
	}
	x, err := f.system.Open(name, create)
	if err != nil {
		return nil, err
	}
	return &faultyFile{x, f, name}, nil
}

type faultyFile struct {
	file
	f    *faults
	name string
}

func (x *faultyFile) WriteAt(b []byte, off int64) (int, error) {
	x.f.mu.Lock()
	n, err := len(b), error(nil)
	if x.f.write != nil {
		n, err = x.f.write(x.name, n)
	}
	x.f.mu.Unlock()
	m, e := x.file.WriteAt(b[:n], off)
	x.f.mu.Lock()
	wrote := x.f.wrote
	x.f.mu.Unlock()
	if wrote != nil {
		wrote()
	}
	return m, errors.Join(err, e)
}

func (x *faultyFile) PunchHole(off, n int64) error {
	x.f.mu.Lock()
	defer x.f.mu.Unlock()
	if x.f.punch != nil {
		return x.f.punch()
	}
	return x.file.PunchHole(off, n)
}

func (x *faultyFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := x.file.ReadAt(b, off)
	x.f.mu.Lock()
	defer x.f.mu.Unlock()
	if x.f.read != nil {
		if e := x.f.read(x.name, b); e != nil {
			return 0, e
		}
	}
	return n, err
}

func TestWritesThatFailStoreNothing(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(string, int) (int, error){
		"I/O error":              func(_ string, n int) (int, error) { return 0, syscall.EIO },
		"error in the middle":    func(_ string, n int) (int, error) { return n / 2, syscall.EIO },
		"short write, no word":   func(_ string, n int) (int, error) { return n - 1, nil },
		"no room":                func(_ string, n int) (int, error) { return n / 3, syscall.ENOSPC },
		"over the owner's quota": func(_ string, n int) (int, error) { return 0, syscall.EDQUOT },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &faults{}
			o := options(t.TempDir(), 10*mib)
			o.fs = f
			s := open(t, o)
			k := create(t, s, "k", 2*mib)
			defer k.Release()
			put(t, k, 2*mib, 0)
			used := s.Drives()[0].Used
			f.set(func(f *faults) { f.write = write })
			err := k.Put(1, content("k", k.Generation(), 2*mib, 1))
			if err == nil {
				t.Fatal("no error")
			}
			if full := strings.HasPrefix(name, "no room") || strings.HasPrefix(name, "over"); errors.Is(err, ErrFull) != full {
				t.Errorf("error %v; full: want %v", err, full)
			}
			if k.Has(1) || !k.Has(0) {
				t.Error("a chunk that failed is there, or the other is not")
			}
			if got := s.Drives()[0]; got.Used != used || got.State != stateOK {
				t.Errorf("after: %+v, used before %d", got, used)
			}
			if value(s.metrics.putErrors) != 1 {
				t.Error("not counted")
			}
			f.set(func(f *faults) { f.write = nil })
			put(t, k, 2*mib, 1)
			if n, err := check(k); n != 2 || err != nil {
				t.Errorf("afterwards %d chunks, %v", n, err)
			}
		})
	}
}

func TestAFullDiskMakesTheStoreEvictBelowItsBudget(t *testing.T) {
	t.Parallel()
	f := &faults{}
	o := options(t.TempDir(), 1000*mib)
	o.fs = f
	s := open(t, o)
	for i := range 10 {
		fill(t, s, fmt.Sprint(i), mib)
	}
	// Without a word from statfs, the system refuses twice: the first one is evicted for.
	n := 0
	f.set(func(f *faults) {
		f.write = func(_ string, b int) (int, error) {
			if n++; n <= 1 {
				return 0, syscall.ENOSPC
			}
			return b, nil
		}
	})
	fill(t, s, "more", mib)
	if got := value(s.metrics.evictedObjects); got < 1 {
		t.Errorf("%v objects evicted", got)
	}
	if get(t, s, "more") != 1 {
		t.Error("the new object is not there")
	}
}

func TestTheReserveIsKeptWhenOthersFillTheDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := &faults{}
	o := options(dir, 1000*mib)
	o.fs, o.Reserve = f, 100*mib
	// A file system of 130 MiB beside the store's own bytes.
	var s *Store
	others := int64(0)
	f.usage = func(_ string, sp disk.Space) disk.Space {
		sp.Total = 200 * mib
		sp.Free = 130*mib - others
		if s != nil {
			sp.Free -= (*s.slots.Load())[0].vol.Load().used.Load()
		}
		return sp
	}
	opened := open(t, o)
	f.set(func(*faults) { s = opened })
	for i := range 20 {
		fill(t, opened, fmt.Sprint(i), mib)
	}
	if got := value(opened.metrics.evictedObjects); got != 0 {
		t.Fatalf("%v objects evicted while there was room", got)
	}
	f.set(func(*faults) { others = 15 * mib })
	eventually(t, "used down to what the reserve allows", func() bool { return opened.Drives()[0].Used <= 15*mib })
	f.set(func(*faults) { others = 1000 * mib })
	eventually(t, "all evicted", func() bool { return opened.Drives()[0].Objects == 0 })
	if _, err := opened.Create("k", Meta{Size: 10}); !errors.Is(err, ErrFull) {
		t.Errorf("Create on a full disk: %v", err)
	}
	f.set(func(*faults) { others = 0 })
	eventually(t, "room again", func() bool {
		k, err := opened.Create("k", Meta{Size: 10})
		if err != nil {
			return false
		}
		defer k.Release()
		return k.Put(0, content("k", k.Generation(), 10, 0)) == nil
	})
}

func TestAReadThatFailsLosesTheChunkOnly(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(string, []byte) error{
		"I/O error": func(string, []byte) error { return syscall.EIO },
		"bit flip":  func(_ string, b []byte) error { b[len(b)/2] ^= 1; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t.TempDir(), 100*mib)
			s := open(t, o)
			fill(t, s, "k", 2*mib)
			if err := (*s.slots.Load())[0].vol.Load().flush(); err != nil {
				t.Fatal(err)
			}
			abandon(s)
			f := &faults{}
			o.fs = f
			s = open(t, o)
			k, err := s.Get("k")
			if err != nil {
				t.Fatal(err)
			}
			defer k.Release()
			f.set(func(f *faults) { f.read = read })
			if k.Has(1) {
				t.Error("has a chunk that cannot be read right")
			}
			f.set(func(f *faults) { f.read = nil })
			if k.Has(1) {
				t.Error("a chunk that was lost came back")
			}
			if n, err := check(k); n != 1 || err != nil {
				t.Errorf("%d chunks, %v; want the other one", n, err)
			}
			if value(s.metrics.checksumFailures)+value(s.metrics.readErrors) != 1 {
				t.Error("not counted once")
			}
			if st := s.Drives()[0]; st.State != stateOK {
				t.Errorf("one bad chunk took the drive out: %+v", st)
			}
		})
	}
}

// faultyIndex is an index that refuses changes while err is set.
type faultyIndex struct {
	indexer
	err func() error
}

func (x *faultyIndex) Apply(b *index.Batch) error {
	if err := x.err(); err != nil {
		return err
	}
	return x.indexer.Apply(b)
}

// withFaultyIndex makes the index of o refuse changes with what the returned
// function was last given.
func withFaultyIndex(o *Options) func(error) {
	var mu sync.Mutex
	var cur error
	o.openIndex = func(path string) (indexer, error) {
		x, err := index.Open(path)
		if err != nil {
			return nil, err
		}
		return &faultyIndex{x, func() error { mu.Lock(); defer mu.Unlock(); return cur }}, nil
	}
	return func(err error) { mu.Lock(); defer mu.Unlock(); cur = err }
}

func TestAnIndexWithoutRoomIsWrittenLater(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 100*mib)
	o.batchDelay = 10 * time.Millisecond
	fail := withFaultyIndex(&o)
	s := open(t, o)
	fail(fmt.Errorf("test: %w", index.ErrFull))
	fill(t, s, "k", 2*mib)
	if err := (*s.slots.Load())[0].vol.Load().flush(); !errors.Is(err, index.ErrFull) {
		t.Fatalf("flush: %v", err)
	}
	if get(t, s, "k") != 2 {
		t.Error("not served while the index has no room")
	}
	fail(nil)
	o2, err := s.Get("k")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "saved", func() bool { return !o2.unsaved() })
	o2.Release()
	abandon(s)
	s = open(t, o)
	if get(t, s, "k") != 2 {
		t.Error("what the index could not take at first is lost")
	}
}

func TestABrokenIndexTakesTheDriveOutAndBack(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 100*mib)
	o.Drives = append(o.Drives, Drive{Path: t.TempDir(), Budget: 1}) // too small for anything
	o.retry = 20 * time.Millisecond
	fail := withFaultyIndex(&o)
	s := open(t, o)
	fill(t, s, "before", mib)
	for _, v := range s.volumes() {
		if err := v.flush(); err != nil {
			t.Fatal(err)
		}
	}
	fail(syscall.EIO)
	k := create(t, s, "k", mib)
	put(t, k, mib, 0)
	eventually(t, "taken out", func() bool { return s.Drives()[0].State != stateOK || value(s.metrics.driveFailures) > 0 })
	if err := k.Put(0, content("k", k.Generation(), mib, 0)); err != nil && !errors.Is(err, ErrNoDrive) {
		t.Errorf("Put on a drive that is out: %v", err)
	}
	k.Release()
	fail(nil)
	eventually(t, "back", func() bool { return s.Drives()[0].State == stateOK && get(t, s, "before") == 1 })
	if got := get(t, s, "k"); got > 0 {
		t.Errorf("what never came into the index is there: %d", got)
	}
}

func TestADriveWithTooManyErrorsIsTakenOut(t *testing.T) {
	t.Parallel()
	f := &faults{}
	o := options(t.TempDir(), 100*mib)
	o.fs, o.retry = f, time.Hour
	s := open(t, o)
	k := create(t, s, "k", mib)
	defer k.Release()
	f.set(func(f *faults) { f.write = func(string, int) (int, error) { return 0, syscall.EIO } })
	for range tooManyTroubles {
		k.Put(0, content("k", k.Generation(), mib, 0))
	}
	if st := s.Drives()[0]; st.State != stateFailed || !strings.Contains(st.Err, "I/O errors") {
		t.Errorf("%+v", st)
	}
	if _, err := s.Create("other", Meta{}); !errors.Is(err, ErrNoDrive) {
		t.Errorf("Create without a drive: %v", err)
	}
	if _, err := s.Get("other"); !errors.Is(err, ErrNoDrive) {
		t.Errorf("Get without a drive: %v; unknown is not absent", err)
	}
}

func TestADriveThatTurnsReadOnlyIsTakenOutWhileTheOtherGoesOn(t *testing.T) {
	t.Parallel()
	a, b := t.TempDir(), t.TempDir()
	f := &faults{}
	o := Options{Reserve: 1, fs: f, retry: 10 * time.Millisecond, Drives: []Drive{{Path: a, Budget: 50 * mib}, {Path: b, Budget: 50 * mib}}}
	s := open(t, o)
	for i := range 20 {
		fill(t, s, fmt.Sprint(i), 1000)
	}
	for _, v := range s.volumes() {
		if err := v.flush(); err != nil {
			t.Fatal(err)
		}
	}
	onA := int(s.Drives()[0].Objects)
	if onA == 0 || onA == 20 {
		t.Fatalf("all on one drive: %d", onA)
	}
	readOnly := &fs.PathError{Op: "write", Path: a, Err: syscall.EROFS}
	f.set(func(f *faults) {
		f.write = func(name string, n int) (int, error) {
			if strings.HasPrefix(name, a) {
				return 0, readOnly
			}
			return n, nil
		}
		f.probe = func(dir string) error {
			if dir == a {
				return readOnly
			}
			return nil
		}
	})
	for i := 0; s.Drives()[0].State == stateOK; i++ {
		k, err := s.Create(fmt.Sprint("new ", i), Meta{Size: 10})
		if err != nil {
			t.Fatal(err)
		}
		k.Put(0, content(k.Key(), k.Generation(), 10, 0))
		k.Release()
	}
	if st := s.Drives()[0]; st.State != stateReadOnly || st.Err == "" {
		t.Errorf("%+v", st)
	}
	eventually(t, "only what lies on the other drive is found", func() bool {
		there := 0
		for i := range 20 {
			if get(t, s, fmt.Sprint(i)) == 1 {
				there++
			}
		}
		return there == 20-onA
	})
	for i := range 20 {
		fill(t, s, fmt.Sprint("later ", i), 1000) // goes on
	}
	f.set(func(f *faults) { f.write, f.probe = nil, nil })
	eventually(t, "all found again", func() bool {
		for i := range 20 {
			if get(t, s, fmt.Sprint(i)) != 1 {
				return false
			}
		}
		return s.Drives()[0].State == stateOK
	})
}

func TestADriveThatGoesAwayComesBack(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir, away := base+"/drive", base+"/away"
	o := options(dir, 100*mib)
	o.retry = 10 * time.Millisecond
	s := open(t, o)
	fill(t, s, "k", mib)
	if err := (*s.slots.Load())[0].vol.Load().flush(); err != nil {
		t.Fatal(err)
	}
	id := s.Drives()[0].ID
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	eventually(t, "taken out", func() bool { return s.Drives()[0].State == stateOut })
	// An empty mount point is not taken for a new drive, nor is another drive.
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reason says so", func() bool { return strings.Contains(s.Drives()[0].Err, "mounted?") })
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("something was made in the empty mount point: %v %v", entries, err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "back", func() bool { return s.Drives()[0].State == stateOK })
	if get(t, s, "k") != 1 || s.Drives()[0].ID != id {
		t.Error("the drive is back without its objects")
	}
}

// A mount point whose drive has gone this moment is not filled, not even with
// the file of an object that was just made.
func TestAMountPointWithoutItsDriveIsNotFilled(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir := base + "/drive"
	s := open(t, options(dir, 100*mib))
	x := create(t, s, "k", mib)
	defer x.Release()
	if err := os.Rename(dir, base+"/away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := x.Put(0, content("k", x.gen, mib, 0)); err == nil {
		t.Error("it was stored")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("made in the empty mount point: %v %v", entries, err)
	}
}

// A drive that is pulled while the store stops is said and read back, and no
// reason for the stop to fail.
func TestADriveThatIsPulledAtTheStop(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir, away := base+"/drive", base+"/away"
	o := options(dir, 100*mib)
	var logged bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&logged, nil))
	s := open(t, o)
	fill(t, s, "k", mib)
	if err := (*s.slots.Load())[0].vol.Load().flush(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if text := logged.String(); !strings.Contains(text, "drive not closed cleanly") && !strings.Contains(text, "drive taken out") {
		t.Errorf("not said: %s", &logged)
	}
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	if get(t, s, "k") != 1 {
		t.Error("what was stored is gone")
	}
	closeStore(t, s)
}

// A drive that does not answer at all is taken out like one that answers with
// errors: the others go on, nobody new waits for it, a stop does not either, and
// it is back when it answers again.
func TestADriveThatHangs(t *testing.T) {
	t.Parallel()
	good, bad := t.TempDir(), t.TempDir()
	f := &faults{}
	o := Options{Drives: []Drive{{Path: good, Budget: 64 * mib}, {Path: bad, Budget: 64 * mib}}, Reserve: 1, fs: f, retry: time.Millisecond, hang: 200 * time.Millisecond}
	s := open(t, o)
	keys := map[string]string{} // a key on each drive
	for i := 0; len(keys) < 2; i++ {
		key := fmt.Sprint(i)
		fill(t, s, key, mib)
		x, err := s.Get(key)
		if err != nil {
			t.Fatal(err)
		}
		keys[x.v.dir] = key
		x.Release()
	}
	closeStore(t, s)
	s = open(t, o) // what is asked for is read back
	answers := make(chan struct{})
	answer := sync.OnceFunc(func() { close(answers) })
	t.Cleanup(answer) // or the stop waits, if the test ends early
	f.set(func(f *faults) {
		f.probe = func(dir string) error {
			if strings.HasPrefix(dir, bad) {
				f.mu.Unlock()
				<-answers
				f.mu.Lock()
			}
			return nil
		}
		f.read = func(name string, _ []byte) error {
			if strings.HasPrefix(name, bad) {
				f.mu.Unlock() // the others are not held up
				<-answers
				f.mu.Lock()
			}
			return nil
		}
	})
	x, err := s.Get(keys[bad])
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan bool)
	go func() { waiting <- x.Has(0) }()
	eventually(t, "the drive is taken out", func() bool { return s.Drives()[1].State == stateFailed })
	if d := s.Drives()[1]; !strings.Contains(d.Err, "hangs") || s.Drives()[0].State != stateOK {
		t.Errorf("the drives are %+v", s.Drives())
	}
	if get(t, s, keys[good]) != 1 {
		t.Error("what lies on the other drive is not served")
	}
	eventually(t, "what lies on the drive that hangs is not found", func() bool {
		x, err := s.Get(keys[bad])
		if err == nil {
			x.Release()
		}
		return errors.Is(err, ErrNotFound)
	})
	fill(t, s, "new", mib)
	// It answers again.
	answer()
	<-waiting
	x.Release()
	f.set(func(f *faults) { f.read, f.probe = nil, nil })
	eventually(t, "the drive is back", func() bool { return s.Drives()[1].State == stateOK })
	if get(t, s, keys[bad]) != 1 {
		t.Error("what lies on the drive is gone")
	}
}

// Nobody waits for a drive that hangs to stop.
func TestStoppingBesideADriveThatHangs(t *testing.T) {
	t.Parallel()
	f := &faults{}
	dir := t.TempDir()
	o := Options{Drives: []Drive{{Path: dir, Budget: 64 * mib}}, Reserve: 1, fs: f, retry: time.Millisecond, hang: 200 * time.Millisecond}
	s := open(t, o)
	answers, asked := make(chan struct{}), make(chan struct{})
	f.set(func(f *faults) {
		f.write = func(string, int) (int, error) {
			f.mu.Unlock()
			close(asked)
			<-answers
			f.mu.Lock()
			return 0, syscall.EIO
		}
	})
	x := create(t, s, "k", mib)
	over := make(chan error)
	go func() { over <- x.Put(0, content("k", x.Generation(), mib, 0)) }()
	<-asked
	eventually(t, "the drive is taken out", func() bool { return s.Drives()[0].State == stateFailed })
	if err := s.Close(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	close(answers)
	if err := <-over; err == nil {
		t.Error("what was not written was taken")
	}
	x.Release()
}
