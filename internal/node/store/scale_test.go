package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"testing"
	"time"

	"larder/internal/lardertest"
	"larder/internal/node/store/index"
)

// The form of the objects of TestScale: ten million of them are 4 TiB.
const (
	scaleShort  = 30_000 // objects in CI; LARDER_SCALE says how many else
	scaleSmall  = 10_000 // what they are compared with
	scaleObject = 439_805
)

// crowded makes a drive whose index knows n objects with a chunk each, and a
// real one, "first". The bytes of the others are not there, and the files only of
// those that are asked for.
func crowded(t *testing.T, n int, asked []int) Options {
	t.Helper()
	o := options(t.TempDir(), 1<<43)
	s := open(t, o)
	fill(t, s, "first", mib)
	path := s.volumes()[0].path
	closeStore(t, s)
	ix, err := index.Open(filepath.Join(o.Drives[0].Path, indexName))
	if err != nil {
		t.Fatal(err)
	}
	st, err := ix.State()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range asked {
		name := path(st.NextID + int64(i))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const batch = 5000
	for at := 0; at < n; at += batch {
		var b index.Batch
		for i := at; i < min(at+batch, n); i++ {
			r := record{id: st.NextID + int64(i), gen: uint64(i) + 1, key: scaleKey(i), created: time.Unix(1.8e9, 0), meta: Meta{
				Publisher: "windows-update", ContentType: "updates", URL: "http://host.example" + scaleKey(i)[15:], Status: 200, Size: scaleObject, ETag: `"0123456789abcdef"`,
				LastModified: "Thu, 01 Jan 2026 00:00:00 GMT", Header: []Field{{"Content-Type", "application/octet-stream"}}, RequestTime: time.Unix(1.8e9, 0), ResponseTime: time.Unix(1.8e9, 0),
			}}
			sg := &segment{sums: []uint32{uint32(i)}}
			sg.present[0].Store(1)
			sg.allocated[0] = 1
			b.Rows = append(b.Rows, index.Row{
				ID: r.id, Gen: int64(r.gen), Key: []byte(r.key), URL: []byte(withoutScheme(r.meta.URL)), Publisher: []byte(r.meta.Publisher),
				Size: scaleObject, Stored: scaleObject, Disk: scaleObject / 4096 * 4096, Chunks: 1, Created: r.created.Unix(), Meta: encodeMeta(&r),
			})
			b.Segments = append(b.Segments, index.Segment{ID: r.id, Seg: 0, Data: encodeSegment(sg, r.id, 0, st.Epoch)})
		}
		if err := ix.Apply(&b); err != nil {
			t.Fatal(err)
		}
	}
	st.NextID += int64(n)
	if err := ix.Mark(st); err != nil {
		t.Fatal(err)
	}
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	return o
}

func scaleKey(i int) string {
	return fmt.Sprintf("windows-update\n/c/msdownload/update/software/secu/2026/11/windows10.0-kb%08d-x64.cab", i)
}

// heap is what the process uses of its heap when nothing is left to collect.
func heap() int64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// What a start, a look-up, an eviction and an object cost does not grow with the
// number of objects. LARDER_SCALE=10000000 for the figures (make scale).
func TestScale(t *testing.T) {
	n, asks := scaleShort, 2000
	text := os.Getenv("LARDER_SCALE")
	if lardertest.Race && text == "" {
		t.Skip("nothing here is done at the same time")
	}
	if text != "" {
		var err error
		asks = 20_000
		if n, err = strconv.Atoi(text); err != nil || n < scaleSmall {
			t.Fatalf("LARDER_SCALE=%q, want a number from %d", text, scaleSmall)
		}
	}
	type figures struct {
		start, lookup time.Duration
		memory        int64
	}
	measure := func(n int) (f figures, s *Store) {
		begun := time.Now()
		r := rand.New(rand.NewPCG(1, 2))
		asked := make([]int, asks)
		for i := range asked {
			asked[i] = r.IntN(n)
		}
		o := crowded(t, n, asked)
		fi, err := os.Stat(filepath.Join(o.Drives[0].Path, indexName))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d objects: %s to make, index of %d MiB", n, time.Since(begun).Round(time.Millisecond), fi.Size()/mib)
		o.MaxOpen = shards // what is asked for is not in memory
		before := heap()
		begun = time.Now()
		s = open(t, o)
		first, err := s.Get("first")
		if err != nil || !first.Has(0) {
			t.Fatalf("the first hit: %v", err)
		}
		first.Release()
		f.start = time.Since(begun)
		f.memory = heap() - before
		var took []time.Duration
		for _, i := range asked {
			key := scaleKey(i)
			begun := time.Now()
			x, err := s.Get(key)
			if err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(begun))
			x.Release()
		}
		slices.Sort(took)
		f.lookup = took[len(took)/2]
		return f, s
	}
	small, s := measure(scaleSmall)
	closeStore(t, s)
	large, s := measure(n)
	each := float64(large.memory-small.memory) / float64(n)
	t.Logf("from start to first hit %s (%d objects: %s); a look-up %s (%s); %.1f bytes of memory an object",
		large.start.Round(time.Microsecond*100), scaleSmall, small.start.Round(time.Microsecond*100), large.lookup, small.lookup, each)
	if large.start > time.Second {
		t.Errorf("the first hit took %s after the start, want a second at most", large.start)
	}
	if each > 16 {
		t.Errorf("an object takes %.1f bytes of memory, want 16 at most", each)
	}
	if text != "" && float64(large.lookup) > 1.2*float64(small.lookup) {
		t.Errorf("a look-up takes %s of %d objects and %s of %d, want no more than a fifth more", large.lookup, n, small.lookup, scaleSmall)
	}
	scaleEviction(t, s, text != "")
}

// scaleEviction fills a full drive at the rate of a line of 1 Gbit/s and looks
// how long anybody is held up.
func scaleEviction(t *testing.T, s *Store, long bool) {
	t.Helper()
	d := s.Drives()[0]
	d.Budget = d.Used // it is full
	if err := s.SetDrives(t.Context(), []Drive{{Path: d.Path, Budget: d.Used, ID: d.ID}}); err != nil {
		t.Fatal(err)
	}
	// As on any day when the drive is full: the evictor is below its mark.
	v := s.volumes()[0]
	eventually(t, "room is made", func() bool { return v.used.Load() <= v.low.Load()+64*mib })
	before := value(s.metrics.evictedObjects)
	v.setBudget(v.used.Load() + 64*mib)
	seconds, rate := 2, 119
	if long {
		seconds = 20
	}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	data := make([]byte, mib)
	var took []time.Duration
	refused := 0
	for i := range seconds * rate {
		<-tick.C
		begun := time.Now()
		x, err := s.Create(fmt.Sprintf("new %d", i), Meta{Size: mib})
		if err == nil {
			err = x.Put(0, data)
			x.Release()
		}
		if err != nil {
			refused++
			continue
		}
		took = append(took, time.Since(begun))
	}
	if len(took) == 0 {
		t.Fatalf("nothing was taken, %d refused", refused)
	}
	slices.Sort(took)
	t.Logf("filling a full drive at %d MiB/s: a MiB is taken in %s, of 100 in %s, at most in %s; %d not taken; %g objects evicted",
		rate, took[len(took)/2], took[len(took)*99/100], took[len(took)-1], refused, value(s.metrics.evictedObjects)-before)
	if refused > len(took)/20 {
		t.Errorf("%d of %d were not taken", refused, len(took)+refused)
	}
}
