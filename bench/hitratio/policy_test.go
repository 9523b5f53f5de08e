package main

import (
	"testing"

	"pgregory.net/rapid"
)

// drawTrace draws few objects of few chunks and many requests, so that all meet.
func drawTrace(t *rapid.T) *trace {
	tr := &trace{}
	for range rapid.IntRange(1, 12).Draw(t, "objects") {
		tr.objects = append(tr.objects, object{size: rapid.Int64Range(1, 70*chunk).Draw(t, "size")})
	}
	for range rapid.IntRange(1, 80).Draw(t, "requests") {
		o := rapid.Int32Range(0, int32(len(tr.objects)-1)).Draw(t, "object")
		n := tr.objects[o].chunks()
		r := request{object: o, end: n, pieces: 1}
		if rapid.Bool().Draw(t, "part") {
			r.first = rapid.Int32Range(0, n-1).Draw(t, "first")
			r.end = rapid.Int32Range(r.first+1, n).Draw(t, "end")
			r.pieces += r.end - r.first
		}
		tr.requests = append(tr.requests, r)
	}
	tr.number()
	return tr
}

// No policy holds more than its budget or loses count, and none is better than the bound.
func TestPoliciesKeepToBudgetAndBound(t *testing.T) {
	t.Parallel()
	for _, cand := range candidates {
		t.Run(cand.name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				tr := drawTrace(t)
				budget := rapid.Int64Range(1, tr.distinct()).Draw(t, "budget")
				c := newCache(tr, budget, cand.make(setupFor(tr, budget)))
				hits, bytes := 0.0, 0.0
				for i := range tr.requests {
					r := &tr.requests[i]
					fetched := c.serve(r)
					bytes += float64(tr.objects[r.object].bytes(r.first, r.end) - fetched)
					if fetched == 0 {
						hits++
					}
					checkCount(t, c)
				}
				b := boundOf(tr, budget)
				if hits > b.Hits+1e-6 || bytes > b.Bytes+1e-6 {
					t.Errorf("%.0f hits and %.0f bytes: the bound is %+v", hits, bytes, b)
				}
			})
		})
	}
}

// checkCount adds up what the cache holds in the slowest way.
func checkCount(t *rapid.T, c *cache) {
	sum, objects := int64(0), 0
	for o, obj := range c.present.objects {
		n := int64(0)
		for i := range obj.chunks() {
			if c.present.missing(&request{object: int32(o), first: i, end: i + 1}) == 0 {
				n += obj.bytes(i, i+1)
			}
		}
		if n != c.bytes[o] {
			t.Fatalf("object %d: %d bytes are there and %d are counted", o, n, c.bytes[o])
		}
		if n > 0 {
			objects++
		}
		sum += n
	}
	if sum != c.used || objects != c.objects || sum > c.budget {
		t.Fatalf("%d bytes of %d objects are there, counted as %d of %d, in a budget of %d", sum, objects, c.used, c.objects, c.budget)
	}
}

func TestWithRoomForAllEveryByteIsFetchedOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tr := drawTrace(t)
		all := tr.distinct()
		free := infinite(tr)
		for _, cand := range candidates {
			got := play(tr, all, cand.make(setupFor(tr, all)))
			if got.Fetched != all || got.Hits != free.Hits {
				t.Errorf("%s: %d bytes fetched and %d hits, want %d and %d", cand.name, got.Fetched, got.Hits, all, free.Hits)
			}
		}
	})
}

func TestWithRoomForAllEveryObjectIsMissedOnce(t *testing.T) {
	t.Parallel()
	tr := sequence("ABRACADABRACADABRA", map[rune]int64{'A': 5 * chunk, 'B': 70*chunk + 1})
	for _, cand := range candidates {
		got := play(tr, tr.distinct(), cand.make(setupFor(tr, tr.distinct())))
		if misses := got.Requests - got.Hits; misses != 5 {
			t.Errorf("%s: %d misses of 5 objects", cand.name, misses)
		}
	}
}
