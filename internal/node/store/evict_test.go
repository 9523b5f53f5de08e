package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

func TestTheBudgetIsKept(t *testing.T) {
	t.Parallel()
	s := open(t, options(t.TempDir(), 10*mib))
	v := (*s.slots.Load())[0].vol.Load()
	for i := range 60 {
		fill(t, s, fmt.Sprint(i), mib/2+int64(i))
		if used := v.used.Load(); used > v.budget.Load() {
			t.Fatalf("used %d of %d", used, v.budget.Load())
		}
	}
	if get(t, s, "59") != 1 {
		t.Error("the newest object is gone")
	}
	if get(t, s, "0") != -1 {
		t.Error("the oldest object is still there")
	}
	if n := value(s.metrics.evictedObjects); n < 35 || n > 50 {
		t.Errorf("%v objects evicted, want about 42", n)
	}
	audit(t, s)
}

func TestWhatIsAskedForSurvivesAScan(t *testing.T) {
	t.Parallel()
	for _, cold := range []bool{false, true} { // the marks of cold objects lie elsewhere
		t.Run(fmt.Sprintf("cold=%v", cold), func(t *testing.T) {
			t.Parallel()
			o := options(t.TempDir(), 20*mib)
			o.MaxOpen = shards
			s := open(t, o)
			for i := range 5 {
				fill(t, s, fmt.Sprint("popular ", i), mib)
			}
			for i := range 100 {
				fill(t, s, fmt.Sprint("scan ", i), mib)
				if cold {
					audit(t, s)
					for j := range s.shards { // what nobody holds leaves memory
						sh := &s.shards[j]
						sh.mu.Lock()
						out := append(sh.shrink(0), sh.shrink(0)...)
						sh.mu.Unlock()
						settleAll(out)
					}
				}
				for i := range 5 {
					if get(t, s, fmt.Sprint("popular ", i)) != 1 {
						t.Fatalf("popular object %d was pushed out by the scan", i)
					}
				}
			}
		})
	}
}

// A download in pieces, however many, is no reason to keep an object, nor is what
// comes right after the one that brought it in.
func TestOneDownloadIsNotTwo(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 20*mib)
	o.ripe = time.Hour
	s := open(t, o)
	fill(t, s, "once", mib)
	for range 10 {
		if get(t, s, "once") != 1 { // it asks
			t.Fatal("it is gone")
		}
	}
	x, err := s.Get("once")
	if err != nil {
		t.Fatal(err)
	}
	if x.visited.Load() {
		t.Error("the download that brought it in counts as one more")
	}
	x.created = x.created.Add(-2 * time.Hour)
	if x.Ask(); !x.visited.Load() {
		t.Error("somebody who comes back does not count")
	}
	x.Release()
	// Looking an object up is no request for it.
	s.ripe = -1
	fill(t, s, "looked up", mib)
	for range 10 {
		y, err := s.Get("looked up")
		if err != nil {
			t.Fatal(err)
		}
		if y.visited.Load() {
			t.Fatal("a look-up counts")
		}
		y.Release()
	}
}

func TestPinnedAndHeldObjectsAreNotEvicted(t *testing.T) {
	t.Parallel()
	s := open(t, options(t.TempDir(), 10*mib))
	for i := range 4 {
		fill(t, s, fmt.Sprint("pinned ", i), mib)
	}
	if res, err := s.Pin(Filter{Prefix: "host.example/pinned"}, true); err != nil || res.Objects != 4 || res.Bytes != 4*mib {
		t.Fatalf("pin: %+v, %v", res, err)
	}
	o, err := s.Create("born pinned", Meta{URL: "https://host.example/x", Size: mib, Pin: true})
	if err != nil {
		t.Fatal(err)
	}
	put(t, o, mib, 0)
	o.Release()
	fill(t, s, "pinned 0", mib) // a new generation keeps the pin
	held := create(t, s, "held", 4*mib)
	for i := range int64(4) {
		put(t, held, 4*mib, i)
	}
	for i := range 20 {
		o, err := s.Create(fmt.Sprint("other ", i), Meta{Size: mib})
		if err != nil {
			continue
		}
		o.Put(0, content(o.Key(), o.Generation(), mib, 0))
		o.Release()
	}
	for i := range 4 {
		if get(t, s, fmt.Sprint("pinned ", i)) != 1 {
			t.Errorf("pinned object %d is gone", i)
		}
	}
	if get(t, s, "born pinned") != 1 {
		t.Error("the object created pinned is gone")
	}
	if n, err := check(held); n != 4 || err != nil {
		t.Errorf("the held object has %d chunks, %v", n, err)
	}
	big := create(t, s, "big", 2*mib)
	defer big.Release()
	if err := big.Put(0, content("big", big.Generation(), 2*mib, 0)); !errors.Is(err, ErrFull) {
		t.Errorf("Put with all pinned or held: %v", err)
	}
	held.Release()
	eventually(t, "room after the release", func() bool {
		return big.Put(0, content("big", big.Generation(), 2*mib, 0)) == nil
	})
	if _, err := s.Pin(Filter{}, false); err != nil {
		t.Fatal(err)
	}
	// More than one round of the hand. It follows new objects, and stays with
	// them as long as nobody asks for them.
	for i := range 60 {
		fill(t, s, fmt.Sprint("other ", i), mib)
		get(t, s, fmt.Sprint("other ", i))
	}
	if get(t, s, "pinned 1") != -1 {
		t.Error("unpinned objects stay")
	}
	audit(t, s)
}

func TestManyWritersStayWithinTheBudget(t *testing.T) {
	t.Parallel()
	o := Options{Reserve: 1, MaxOpen: shards, Drives: []Drive{{Path: t.TempDir(), Budget: 6 * mib}, {Path: t.TempDir(), Budget: 3 * mib}}}
	s := open(t, o)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 40 {
				key := fmt.Sprint((g*7 + i) % 30)
				o, err := s.Get(key)
				if errors.Is(err, ErrNotFound) {
					o, err = s.Create(key, Meta{URL: "https://host.example/" + key, Size: mib/2 + 1000})
				}
				if errors.Is(err, ErrFull) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				err = o.Put(0, content(key, o.Generation(), mib/2+1000, 0))
				if err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, ErrGone) {
					t.Error(err)
				}
				if _, err := check(o); err != nil {
					t.Error(err)
				}
				switch i % 10 {
				case 3:
					o.Doom()
				case 5:
					_, err := s.Purge(Filter{Prefix: "host.example/1"}, false)
					if err != nil {
						t.Error(err)
					}
				case 7:
					if _, err := s.List(Filter{}, "", 10); err != nil {
						t.Error(err)
					}
				}
				o.Release()
			}
		})
	}
	wg.Wait()
	audit(t, s)
	for _, v := range s.volumes() {
		if n := v.leaving.Load(); n != 0 {
			t.Errorf("%d files were not removed", n)
		}
	}
}

func TestCloseWhileOthersWork(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 10*mib)
	s := open(t, o)
	var wg sync.WaitGroup
	started := make(chan struct{}, 4)
	for range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				if i == 5 {
					started <- struct{}{}
				}
				err := strike(s)
				if errors.Is(err, ErrClosed) || errors.Is(err, ErrGone) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 4 {
		<-started
	}
	closeStore(t, s)
	wg.Wait()
	s = open(t, o)
	if (*s.slots.Load())[0].vol.Load().unclean {
		t.Error("a clean stop was taken for an unclean one")
	}
	infos, err := s.List(Filter{}, "", 0)
	if err != nil || len(infos) == 0 {
		t.Fatal(len(infos), err)
	}
	for _, in := range infos {
		if get(t, s, in.Key) != int(in.ChunksPresent) {
			t.Errorf("%q has lost chunks in a clean stop", in.Key)
		}
	}
	audit(t, s)
}
