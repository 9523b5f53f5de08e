package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestPurgeReachesColdHotHeldAndUnfinishedObjects(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 100*mib)
	s := open(t, o)
	for i := range 10 {
		fill(t, s, fmt.Sprint("a/", i), 1000)
		fill(t, s, fmt.Sprint("b/", i), 1000)
	}
	closeStore(t, s)
	s = open(t, o) // all cold
	get(t, s, "a/1")
	held, err := s.Get("a/2")
	if err != nil {
		t.Fatal(err)
	}
	unfinished, err := s.Create("a/u", Meta{Publisher: "test", URL: "https://host.example/a/u", Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	f := Filter{Prefix: "host.example/a", Publisher: "test"}
	for _, dry := range []bool{true, false} {
		res, err := s.Purge(f, dry)
		if err != nil || res.Objects != 11 || res.Bytes != 10*1000 {
			t.Errorf("dry %v: %+v, %v", dry, res, err)
		}
	}
	if res, err := s.Purge(f, false); err != nil || res.Objects != 0 {
		t.Errorf("again: %+v, %v", res, err)
	}
	if res, err := s.Purge(Filter{Publisher: "other"}, false); err != nil || res.Objects != 0 {
		t.Errorf("another publisher: %+v, %v", res, err)
	}
	for i := range 10 {
		if get(t, s, fmt.Sprint("a/", i)) != -1 || get(t, s, fmt.Sprint("b/", i)) != 1 {
			t.Fatalf("object %d: wrong one purged", i)
		}
	}
	if n, err := check(held); n != 1 || err != nil {
		t.Errorf("the held object was taken away: %d, %v", n, err)
	}
	held.Release()
	if err := unfinished.Put(0, make([]byte, ChunkSize)); !errors.Is(err, ErrGone) {
		t.Errorf("Put into a purged object: %v", err)
	}
	unfinished.Release()
	if res, err := s.Purge(Filter{Key: "b/3"}, false); err != nil || res.Objects != 1 {
		t.Errorf("by key: %+v, %v", res, err)
	}
	audit(t, s)
	if st := s.Drives()[0]; st.Objects != 9 {
		t.Errorf("%+v", st)
	}
}

func TestListGoesThroughAllInOrder(t *testing.T) {
	t.Parallel()
	o := Options{Reserve: 1, Drives: []Drive{{Path: t.TempDir(), Budget: 50 * mib}, {Path: t.TempDir(), Budget: 50 * mib}}}
	s := open(t, o)
	for i := range 25 {
		fill(t, s, fmt.Sprintf("%02d", i), mib+1)
	}
	part := create(t, s, "part", 3*mib)
	defer part.Release()
	put(t, part, 3*mib, 1)
	var got []Info
	for after := ""; ; after = got[len(got)-1].Key {
		page, err := s.List(Filter{}, after, 4)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
	}
	if len(got) != 26 {
		t.Fatalf("%d listed", len(got))
	}
	drives := map[int]int{}
	for i, in := range got[:25] {
		drives[in.Drive]++
		if in.Key != fmt.Sprintf("%02d", i) || in.Stored != mib+1 || in.Chunks != 2 || in.ChunksPresent != 2 ||
			in.URL != "https://host.example/"+in.Key || in.Publisher != "test" || in.Created.IsZero() {
			t.Errorf("%+v", in)
		}
	}
	if len(drives) != 2 {
		t.Errorf("drives: %v", drives)
	}
	if in := got[25]; in.Key != "part" || in.Chunks != 3 || in.ChunksPresent != 1 || in.Stored != mib || in.Size != 3*mib {
		t.Errorf("%+v", in)
	}
}

func TestScrubFindsDamageInColdObjects(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), 100*mib)
	s := open(t, o)
	for i := range 5 {
		fill(t, s, fmt.Sprint(i), 2*mib+500)
	}
	three, err := s.Get("3")
	if err != nil {
		t.Fatal(err)
	}
	path := three.v.path(three.id)
	three.Release()
	closeStore(t, s)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1, 2, 3}, mib+5); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s = open(t, o)
	res, err := s.Scrub(t.Context(), Filter{Prefix: "host.example/"}, 1<<40)
	if err != nil || res != (ScrubResult{Objects: 5, Chunks: 15, Bytes: 5 * (2*mib + 500), BadChunks: 1}) {
		t.Errorf("%+v, %v", res, err)
	}
	if got := get(t, s, "3"); got != 2 {
		t.Errorf("%d chunks left of 3", got)
	}
	if res, err := s.Scrub(t.Context(), Filter{}, 0); err != nil || res.BadChunks != 0 || res.Chunks != 14 {
		t.Errorf("again: %+v, %v", res, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Scrub(ctx, Filter{}, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// Those who run in the background find it too, and go on where they were.
	closeStore(t, s)
	if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{9, 9, 9}, 5); err != nil {
		t.Fatal(err)
	}
	f.Close()
	o.ScrubRate = 1 << 40
	s = open(t, o)
	eventually(t, "found in the background", func() bool { return value(s.metrics.checksumFailures) == 1 })
	eventually(t, "position kept", func() bool {
		if err := (*s.slots.Load())[0].vol.Load().flush(); err != nil {
			t.Fatal(err)
		}
		st, err := (*s.slots.Load())[0].vol.Load().ix.State()
		return err == nil && st.Scrub >= 4
	})
}

func TestMetricsAreThereAndTheirNamesCanBeUsedAgain(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	o := options(t.TempDir(), 100*mib)
	o.Registerer = reg
	for range 2 {
		s := open(t, o)
		fill(t, s, "k", mib)
		all, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range all {
			got[f.GetName()] = f.Metric[0].GetGauge().GetValue()
		}
		for name, want := range map[string]float64{"larder_store_objects": 1, "larder_store_budget_bytes": 100 * mib, "larder_store_usable_drives": 1} {
			if got[name] != want {
				t.Errorf("%s is %v, want %v", name, got[name], want)
			}
		}
		if got["larder_store_used_bytes"] < mib || got["larder_store_free_bytes"] <= 0 || len(got) < 15 {
			t.Errorf("%v", got)
		}
		if _, err := Open(t.Context(), o); err == nil {
			t.Error("a second store took the same registry")
		}
		closeStore(t, s)
	}
}
