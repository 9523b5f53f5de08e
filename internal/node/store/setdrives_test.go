package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Drives come, go and change their budgets while objects are written and read,
// and nothing that is read is ever wrong.
func TestDrivesChangeUnderLoad(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	drive := func(i int, mb int64) Drive { return Drive{Path: filepath.Join(base, fmt.Sprint(i)), Budget: mb * mib} }
	s := open(t, Options{Drives: []Drive{drive(0, 64)}, Reserve: 1})
	var stop atomic.Bool
	var wg sync.WaitGroup
	var reads atomic.Int64
	for w := range 4 {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				key := fmt.Sprintf("k%d", (n*7+w)%40)
				o, err := s.Get(key)
				if errors.Is(err, ErrNotFound) {
					o, err = s.Create(key, Meta{Publisher: "test", URL: "https://host.example/" + key, Status: 200, Size: 2 * mib})
				}
				if err != nil {
					if !errors.Is(err, ErrNoDrive) && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrFull) && !errors.Is(err, ErrGone) {
						t.Errorf("%s: %v", key, err)
					}
					continue
				}
				for i := range o.Chunks() {
					if !o.Has(i) {
						// A drive that goes takes no more.
						_ = o.Put(i, content(key, o.Generation(), 2*mib, i))
					}
				}
				n, err := check(o)
				if err != nil {
					t.Errorf("reading %s: %v", key, err)
				}
				reads.Add(int64(n))
				o.Release()
			}
		})
	}
	sets := [][]Drive{
		{drive(0, 64), drive(1, 64)}, {drive(1, 64)}, {drive(1, 16), drive(2, 64)}, {drive(2, 64), drive(0, 64), drive(1, 64)}, {drive(0, 64)},
	}
	for round := range 10 {
		if err := s.SetDrives(t.Context(), sets[round%len(sets)]); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		before := reads.Load()
		eventually(t, "reads go on", func() bool { return reads.Load() > before+20 })
	}
	stop.Store(true)
	wg.Wait()
	ds := s.Drives()
	if len(ds) != 1 || ds[0].Path != drive(0, 0).Path || ds[0].State != "ok" {
		t.Errorf("drives are %+v, want only %s", ds, drive(0, 0).Path)
	}
}

// What a drive held is there again when the drive is, without a doubt about it.
func TestADriveThatWasRemovedComesBackWithItsObjects(t *testing.T) {
	t.Parallel()
	a, b := Drive{Path: t.TempDir(), Budget: 64 * mib}, Drive{Path: t.TempDir(), Budget: 64 * mib}
	s := open(t, Options{Drives: []Drive{a}, Reserve: 1})
	fill(t, s, "x", 3*mib)
	held, err := s.Get("x")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetDrives(t.Context(), []Drive{b}); err != nil {
		t.Fatal(err)
	}
	if n, err := check(held); err != nil || n != 3 {
		t.Errorf("who held it reads %d chunks (%v), want 3", n, err)
	}
	held.Release()
	if _, err := s.Get("x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	fill(t, s, "y", mib)
	if err := s.SetDrives(t.Context(), []Drive{b, a}); err != nil {
		t.Fatal(err)
	}
	if get(t, s, "x") != 3 || get(t, s, "y") != 1 {
		t.Errorf("x has %d chunks and y %d, want 3 and 1", get(t, s, "x"), get(t, s, "y"))
	}
	if (*s.slots.Load())[1].vol.Load().unclean {
		t.Error("the drive that came back was not left cleanly")
	}
}

func TestASmallerBudgetEvicts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, Options{Drives: []Drive{{Path: dir, Budget: 64 * mib}}, Reserve: 1})
	for i := range 40 {
		fill(t, s, fmt.Sprint(i), mib)
	}
	if err := s.SetDrives(t.Context(), []Drive{{Path: dir, Budget: 16 * mib}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "evicted", func() bool { return s.Drives()[0].Used <= 16*mib })
	fill(t, s, "new", mib)
}

// A drive that was used before and is away keeps no other out, and comes back.
func TestDrivesThatAreAwayComeBack(t *testing.T) {
	t.Parallel()
	a, b := Drive{Path: t.TempDir(), Budget: 32 * mib}, Drive{Path: filepath.Join(t.TempDir(), "b"), Budget: 32 * mib}
	before := open(t, Options{Drives: []Drive{b}, Reserve: 1})
	fill(t, before, "x", mib)
	b.ID = before.Drives()[0].ID
	closeStore(t, before)
	away := b.Path + "-away"
	if err := os.Rename(b.Path, away); err != nil {
		t.Fatal(err)
	}
	o := options(a.Path, a.Budget)
	o.retry = time.Millisecond
	s := open(t, o)
	if err := s.SetDrives(t.Context(), []Drive{b}); !errors.Is(err, ErrNoDrive) {
		t.Errorf("no drive is left: got %v, want ErrNoDrive", err)
	}
	if err := s.SetDrives(t.Context(), []Drive{a, b}); err != nil {
		t.Fatal(err)
	}
	if ds := s.Drives(); len(ds) != 2 || ds[0].State != "ok" || ds[1].State != "out" || ds[1].ID != b.ID || ds[1].Err == "" {
		t.Errorf("drives are %+v, want the second one out", ds)
	}
	fill(t, s, "y", mib)
	if err := os.Rename(away, b.Path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the drive is back", func() bool { return s.Drives()[1].State == "ok" })
	if get(t, s, "x") != 1 || get(t, s, "y") != 1 {
		t.Errorf("x has %d chunks and y %d, want 1 each", get(t, s, "x"), get(t, s, "y"))
	}
}

func TestDrivesThatDoNotOpenChangeNothing(t *testing.T) {
	t.Parallel()
	a, b := Drive{Path: t.TempDir(), Budget: 32 * mib}, Drive{Path: t.TempDir(), Budget: 32 * mib}
	other := open(t, Options{Drives: []Drive{b}, Reserve: 1})
	s := open(t, Options{Drives: []Drive{a}, Reserve: 1})
	fill(t, s, "x", mib)
	c := Drive{Path: t.TempDir(), Budget: 32 * mib}
	for _, tt := range []struct {
		drives []Drive
		want   string
	}{
		{nil, "found none"},
		{[]Drive{a, {Path: filepath.Join(a.Path, "in"), Budget: 1}}, "drives[1].path"},
		{[]Drive{{Path: a.Path}}, "drives[0].size"},
		{[]Drive{c, b}, "drives[1]"},
	} {
		err := s.SetDrives(t.Context(), tt.drives)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: got %v, want an error with %q", tt.drives, err, tt.want)
		}
	}
	if ds := s.Drives(); len(ds) != 1 || ds[0].Path != a.Path || ds[0].Budget != a.Budget {
		t.Errorf("drives are %+v, want only %s", ds, a.Path)
	}
	if get(t, s, "x") != 1 {
		t.Error("what was stored is gone")
	}
	// The one that opened first was given free again.
	open(t, Options{Drives: []Drive{c}, Reserve: 1})
	closeStore(t, other)
	if err := s.SetDrives(t.Context(), []Drive{a, b}); err != nil {
		t.Errorf("once the other process has left: %v", err)
	}
}
