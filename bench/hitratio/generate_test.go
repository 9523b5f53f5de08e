package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

func makeTrace(t *testing.T, workload string, seed uint64) *trace {
	t.Helper()
	f, err := fleetOf(workload)
	if err != nil {
		t.Fatal(err)
	}
	return f.generate(20_000, seed)
}

func TestTheSeedDecides(t *testing.T) {
	t.Parallel()
	a, b, c := makeTrace(t, "mixed", 7), makeTrace(t, "mixed", 7), makeTrace(t, "mixed", 8)
	if !slices.Equal(a.objects, b.objects) || !slices.Equal(a.requests, b.requests) {
		t.Error("one seed gave two traces")
	}
	if slices.Equal(a.requests, c.requests) {
		t.Error("two seeds gave one trace")
	}
	for _, cand := range candidates {
		budget := a.distinct() / 20
		x, y := play(a, budget, cand.make(setupFor(a, budget))), play(b, budget, cand.make(setupFor(b, budget)))
		x.Took, y.Took = 0, 0
		if x != y {
			t.Errorf("%s: %+v, then %+v", cand.name, x, y)
		}
	}
}

func TestTracesAreWhole(t *testing.T) {
	t.Parallel()
	for _, workload := range []string{"patchday", "mirror", "mixed"} {
		t.Run(workload, func(t *testing.T) {
			t.Parallel()
			tr := makeTrace(t, workload, 1)
			if n := len(tr.requests); n < 19_000 || n > 24_000 {
				t.Errorf("%d requests, expected about 20000", n)
			}
			if once, all := tr.askedOnce(), len(tr.objects); once*3 < all {
				t.Errorf("%d of %d objects are asked for once, expected a third or more", once, all)
			}
			asked := make([]bool, len(tr.objects))
			last := make([]int32, len(tr.objects))
			for i, r := range tr.requests {
				if n := tr.objects[r.object].chunks(); r.first < 0 || r.first >= r.end || r.end > n {
					t.Fatalf("request %d: chunks %d to %d of %d", i, r.first, r.end, n)
				}
				if asked[r.object] && tr.requests[last[r.object]].next != int32(i) {
					t.Fatalf("request %d is not the next of request %d", i, last[r.object])
				}
				asked[r.object], last[r.object] = true, int32(i)
			}
			if i := slices.Index(asked, false); i >= 0 {
				t.Errorf("nobody asks for object %d", i)
			}
		})
	}
}

// On patch day most machines come for the same few large objects.
func TestPatchesComeInAWave(t *testing.T) {
	t.Parallel()
	f, err := fleetOf("patchday")
	if err != nil {
		t.Fatal(err)
	}
	g := newGenerator(f, 500, 1)
	g.batches(0)
	begin := f.Kinds[0].First
	wave := 0
	for _, d := range g.downloads {
		if since := (d.at - begin) % f.Kinds[0].Every; since < 3*day {
			wave++
		}
	}
	if n := len(g.downloads); n < 1000 || wave < n/2 {
		t.Errorf("%d of %d downloads within three days, expected more than half of some thousand", wave, n)
	}
}

func TestActivity(t *testing.T) {
	t.Parallel()
	noon, night, saturday := 12*time.Hour, 3*time.Hour, 5*day+12*time.Hour
	if activity(true, noon) < 5*activity(true, night) || activity(true, noon) < 5*activity(true, saturday) {
		t.Error("offices do not keep office hours")
	}
	if activity(false, night) < 0.1 || activity(false, noon) != activity(false, saturday) {
		t.Error("servers keep office hours")
	}
	if got, want := activity(true, noon-2*week), activity(true, noon); got != want {
		t.Errorf("before the first Monday: got %v, want %v", got, want)
	}
}

func TestCompareWritesARowForEach(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	o := options{Seed: 1, Requests: 5000, Workload: "mixed", Sizes: []float64{1, 20}, Policies: policyNames()}
	if err := compare(&out, o); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(policyNames(), "bound", "infinite") {
		if n := strings.Count(out.String(), "| "+name+" |"); n != len(o.Sizes) {
			t.Errorf("%s: %d rows, want %d", name, n, len(o.Sizes))
		}
	}
}

func TestOptionsAreRefused(t *testing.T) {
	t.Parallel()
	good := options{Requests: 5000, Workload: "mixed", Sizes: []float64{1}, Policies: []string{"lru"}}
	for want, change := range map[string]func(*options){
		"-requests": func(o *options) { o.Requests = 1 },
		"-workload": func(o *options) { o.Workload = "monday" },
		"-policies": func(o *options) { o.Policies = []string{"mru"} },
	} {
		o := good
		change(&o)
		if err := compare(&bytes.Buffer{}, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error about %s", err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "101", "NaN", "1,x"} {
		if got, err := parseSizes(text); err == nil {
			t.Errorf("-sizes %q: got %v, want an error", text, got)
		}
	}
}
