package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"
)

func TestWhatWasPutIsThereAfterARestart(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 100*mib)
	s := open(t, o)
	sizes := map[string]int64{"empty": 0, "byte": 1, "chunk": mib, "chunk and byte": mib + 1, "many": 3*mib + 12345}
	meta := Meta{Publisher: "windows-update", ContentType: "updates", URL: "https://host.example/a?b", Status: 200, Size: 7,
		ETag: `"x"`, LastModified: "Thu, 01 Jan 2026 00:00:00 GMT", Header: []Field{{"Content-Type", "text/plain"}, {"X-Empty", ""}},
		RequestTime: time.Unix(1, 2), ResponseTime: time.Unix(3, 4)}
	for key, size := range sizes {
		fill(t, s, key, size)
	}
	m, err := s.Create("meta", meta)
	if err != nil {
		t.Fatal(err)
	}
	m.Release()
	for round := range 3 {
		for key, size := range sizes {
			if got := get(t, s, key); got != int(chunksOf(size)) {
				t.Errorf("round %d: %s has %d chunks, want %d", round, key, got, chunksOf(size))
			}
		}
		m, err := s.Get("meta")
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(*m.Meta(), meta) {
			t.Errorf("round %d: meta %+v, want %+v", round, *m.Meta(), meta)
		}
		m.Release()
		before := s.Drives()[0]
		closeStore(t, s)
		s = open(t, o)
		after := s.Drives()[0]
		if before.Used != after.Used || before.Objects != after.Objects || after.Objects != int64(len(sizes)+1) {
			t.Errorf("round %d: totals before %+v, after %+v", round, before, after)
		}
	}
}

func TestGetOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	s := open(t, options(t.TempDir(), 10*mib))
	if _, err := s.Get("none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	closeStore(t, s)
	if _, err := s.Get("none"); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close got %v", err)
	}
	if _, err := s.Create("none", Meta{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close Create gave %v", err)
	}
}

func TestANewGenerationReplacesWithoutTouchingReaders(t *testing.T) {
	t.Parallel()
	s := open(t, options(t.TempDir(), 100*mib))
	fill(t, s, "k", 2*mib)
	old, err := s.Get("k")
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, "k", 3*mib)
	if err := old.Put(0, content("k", old.Generation(), 2*mib, 0)); !errors.Is(err, ErrGone) {
		t.Errorf("Put on a replaced generation: %v", err)
	}
	if err := (*s.slots.Load())[0].vol.Load().flush(); err != nil {
		t.Fatal(err)
	}
	if n, err := check(old); n != 2 || err != nil {
		t.Errorf("who holds the old generation reads %d chunks, %v", n, err)
	}
	o, err := s.Get("k")
	if err != nil {
		t.Fatal(err)
	}
	if o.Generation() <= old.Generation() {
		t.Errorf("generation %d after %d", o.Generation(), old.Generation())
	}
	if n, err := check(o); n != 3 || err != nil {
		t.Errorf("the new generation has %d chunks, %v", n, err)
	}
	o.Release()
	v := (*s.slots.Load())[0].vol.Load()
	oldPath := v.path(old.id)
	if _, err := os.Stat(oldPath); err != nil {
		t.Errorf("the old file went while it was held: %v", err)
	}
	old.Release()
	if _, err := os.Stat(oldPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old file stays after its last holder left: %v", err)
	}
	if want := int64(3*mib + overhead); v.used.Load() != want || v.objects.Load() != 1 {
		t.Errorf("used %d, objects %d; want %d and 1", v.used.Load(), v.objects.Load(), want)
	}
}

func TestAnObjectOfUnknownSize(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 1000*mib)
	s := open(t, o)
	m := Meta{URL: "https://h/u", Size: -1}
	u, err := s.Create("u", m)
	if err != nil {
		t.Fatal(err)
	}
	const size = 300*mib + 5 // more than one segment
	for _, i := range []int64{0, 299, 7} {
		put(t, u, size, i)
	}
	if u.Chunks() != -1 || u.Complete() || !u.Has(299) || u.Has(298) {
		t.Error("wrong before the size is known")
	}
	if err := u.Put(300, make([]byte, 5)); err == nil {
		t.Error("took a short chunk without knowing the size")
	}
	if err := u.SetSize(299 * mib); err == nil {
		t.Error("took a size smaller than what is there")
	}
	if err := u.SetSize(size); err != nil {
		t.Fatal(err)
	}
	if err := u.SetSize(size + 1); err == nil {
		t.Error("took a second size")
	}
	put(t, u, size, 300)
	if u.Meta().Size != size || u.Chunks() != 301 {
		t.Errorf("size %d, chunks %d", u.Meta().Size, u.Chunks())
	}
	gen := u.Generation()
	u.Release()
	// Another one never gets its size: it goes with its last holder.
	lost, err := s.Create("lost", m)
	if err != nil {
		t.Fatal(err)
	}
	put(t, lost, mib, 0)
	lost.Release()
	if got := get(t, s, "lost"); got != -1 {
		t.Errorf("an unfinished object of unknown size is still found: %d", got)
	}
	closeStore(t, s)
	s = open(t, o)
	u, err = s.Get("u")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Release()
	if n, err := check(u); n != 4 || err != nil || u.Generation() != gen {
		t.Errorf("after restart: %d chunks, %v, generation %d want %d", n, err, u.Generation(), gen)
	}
	if got := s.Drives()[0]; got.Objects != 1 || got.Used != overhead+3*mib+4096 {
		t.Errorf("totals: %+v", got)
	}
}

func TestTwoLoadsGiveOneObject(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 100*mib)
	s := open(t, o)
	for i := range 50 {
		fill(t, s, fmt.Sprint(i), 10)
	}
	closeStore(t, s)
	s = open(t, o)
	for i := range 50 {
		var wg sync.WaitGroup
		got := make([]*Object, 8)
		for j := range got {
			wg.Go(func() {
				var err error
				if got[j], err = s.Get(fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		for _, o := range got {
			if o != got[0] {
				t.Fatal("two objects for one key")
			}
			o.Release()
		}
	}
}

func TestTheHotSetIsBounded(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 100*mib)
	o.MaxOpen = shards // one for each shard
	s := open(t, o)
	for i := range 500 {
		fill(t, s, fmt.Sprint(i), 10)
	}
	v := (*s.slots.Load())[0].vol.Load()
	if err := v.flush(); err != nil {
		t.Fatal(err)
	}
	hot := func() (n int) {
		for i := range s.shards {
			s.shards[i].mu.RLock()
			n += len(s.shards[i].hot)
			s.shards[i].mu.RUnlock()
		}
		return n
	}
	if n := hot(); n > 5*shards {
		t.Errorf("%d objects in memory after writing, want about %d", n, shards)
	}
	for range 2 {
		for i := range 500 {
			if get(t, s, fmt.Sprint(i)) != 1 {
				t.Fatalf("object %d is gone", i)
			}
		}
	}
	if n := hot(); n > 5*shards {
		t.Errorf("%d objects in memory after reading, want about %d", n, shards)
	}
}

func TestDamageIsFoundAfterAStop(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 100*mib)
	s := open(t, o)
	fill(t, s, "k", 3*mib)
	v := (*s.slots.Load())[0].vol.Load()
	if err := v.flush(); err != nil {
		t.Fatal(err)
	}
	k, err := s.Get("k")
	if err != nil {
		t.Fatal(err)
	}
	path, gen := v.path(k.id), k.Generation()
	k.Release()
	abandon(s)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), mib+1000); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(3*mib - 1); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s = open(t, o)
	k, err = s.Get("k")
	if err != nil {
		t.Fatal(err)
	}
	if !k.Complete() {
		t.Error("chunks are lost before anybody looked")
	}
	if !k.Has(0) || k.Has(1) || k.Has(2) {
		t.Errorf("has %v %v %v, want true false false", k.Has(0), k.Has(1), k.Has(2))
	}
	if k.Complete() {
		t.Error("complete with chunks lost")
	}
	if got := value(s.metrics.checksumFailures); got != 2 {
		t.Errorf("%v checksum failures counted, want 2", got)
	}
	used := s.Drives()[0].Used
	put(t, k, 3*mib, 1)
	if got := s.Drives()[0].Used; got != used {
		t.Errorf("used went from %d to %d: the blocks were counted already", used, got)
	}
	if k.Generation() != gen {
		t.Errorf("generation changed")
	}
	k.Release()
	// The same after a clean stop: disks rot while nobody looks.
	closeStore(t, s)
	rot(t, path, 10)
	s = open(t, o)
	if k, err = s.Get("k"); err != nil {
		t.Fatal(err)
	}
	defer k.Release()
	if k.Has(0) || !k.Has(1) {
		t.Errorf("after a clean stop: has %v %v, want false true", k.Has(0), k.Has(1))
	}
	if n, err := check(k); n != 1 || err != nil {
		t.Errorf("%d chunks, %v; want 1", n, err)
	}
}

// rot flips a bit of a file.
func rot(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

func TestAReaderThatFailsMakesTheChunkAbsent(t *testing.T) {
	t.Parallel()
	s := open(t, options(t.TempDir(), 100*mib))
	k := create(t, s, "k", 2*mib)
	defer k.Release()
	put(t, k, 2*mib, 0)
	put(t, k, 2*mib, 1)
	k.Failed(1, errors.New("input/output error"))
	if !k.Has(0) || k.Has(1) || k.Complete() {
		t.Error("the chunk is still there")
	}
	put(t, k, 2*mib, 1)
	if n, err := check(k); n != 2 || err != nil {
		t.Errorf("%d chunks, %v", n, err)
	}
}

func TestPutRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	s := open(t, options(t.TempDir(), 100*mib))
	k := create(t, s, "k", mib+10)
	defer k.Release()
	for _, c := range []struct {
		i int64
		n int
	}{{-1, mib}, {2, mib}, {0, 10}, {1, 9}, {1, 11}, {1, mib}, {1 << 60, mib}} {
		if err := k.Put(c.i, make([]byte, c.n)); !errors.Is(err, errSize) {
			t.Errorf("chunk %d of %d bytes: %v", c.i, c.n, err)
		}
	}
	if err := k.SetMeta(&Meta{Size: 5}); !errors.Is(err, errSize) {
		t.Errorf("SetMeta with another size: %v", err)
	}
	if err := k.SetMeta(&Meta{Size: -1, ETag: `"x"`}); err != nil || k.Meta().Size != mib+10 || k.Meta().ETag != `"x"` {
		t.Errorf("SetMeta without a size: %v, %+v", err, k.Meta())
	}
	for _, i := range []int64{-1, 2, 1 << 60} {
		if k.Has(i) {
			t.Errorf("has chunk %d", i)
		}
	}
	if _, err := s.Create("big", Meta{Size: maxSize + 1}); err == nil {
		t.Error("took an object of more than 16 TiB")
	}
}

func TestOrphansAreSwept(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 100*mib)
	o.batchDelay = time.Hour
	s := open(t, o)
	fill(t, s, "kept", 10)
	if err := (*s.slots.Load())[0].vol.Load().flush(); err != nil {
		t.Fatal(err)
	}
	// Its file is made, but the index never hears of it.
	lost := create(t, s, "lost", 10)
	put(t, lost, 10, 0)
	path := lost.v.path(lost.id)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	abandon(s)
	foreign := filepath.Join(filepath.Dir(path), "readme")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	eventually(t, "orphan removed", func() bool {
		_, err := os.Stat(path)
		return errors.Is(err, os.ErrNotExist)
	})
	eventually(t, "sweep finished", func() bool { return !(*s.slots.Load())[0].vol.Load().sweep.Load() })
	if get(t, s, "kept") != 1 {
		t.Error("what the index knows was swept")
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("a file that is not ours was swept: %v", err)
	}
	n := create(t, s, "new", 10)
	defer n.Release()
	if n.id <= lost.id {
		t.Errorf("id %d given out after %d", n.id, lost.id)
	}
}
