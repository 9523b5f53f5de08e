package main

import "slices"

// bound is what no policy exceeds on a trace, whatever it knows.
type bound struct {
	Hits  float64 // requests
	Bytes float64 // that need not be fetched
}

// boundOf relaxes the question as PFOO-L does (Berger, Beckmann, Harchol-
// Balter: "Practical Bounds on Optimal Caching with Variable Object Sizes",
// ACM SIGMETRICS 2018; they count misses, of which this is the lower bound):
// a hit needs each chunk to be held from the last request for it to this one,
// which takes bytes × requests. A cache has budget × length of the trace of
// that, and is allowed to spend it at any time, more than the budget at some
// and less at others. The cheapest hits first, until it is spent.
//
// Chunks are counted one by one, so a policy that gives up single chunks
// cannot exceed it either. A hit on bytes costs their distance, a hit on a
// request that of all its chunks; hence two orders, and no cache reaches both.
func boundOf(t *trace, budget int64) bound {
	byDistance, costs := waits(t)
	area := float64(budget) * float64(len(t.requests)-1)
	var b bound
	left := area
	for distance, bytes := range byDistance {
		need := float64(bytes) * float64(distance)
		if need > left {
			b.Bytes += left / float64(distance)
			break
		}
		b.Bytes += float64(bytes)
		left -= need
	}
	slices.Sort(costs)
	left = area
	for _, need := range costs {
		if need > left {
			b.Hits += left / need
			break
		}
		b.Hits++
		left -= need
	}
	return b
}

// waits returns the bytes that were asked for before, by how many requests
// ago, and what a hit would cost, in bytes × requests, for every request that
// can be one.
func waits(t *trace) (byDistance []int64, costs []float64) {
	byDistance = make([]int64, len(t.requests))
	begin := make([]int32, len(t.objects)+1) // of the object's chunks in last
	for i, o := range t.objects {
		begin[i+1] = begin[i] + o.chunks()
	}
	last := make([]int32, begin[len(t.objects)]) // request that asked for the chunk last, from 1; 0: none
	for i := range t.requests {
		r := &t.requests[i]
		o := t.objects[r.object]
		cost, known := 0.0, true
		for c := r.first; c < r.end; c++ {
			seen := &last[begin[r.object]+c]
			if *seen > 0 {
				d, n := int64(r.at)+1-int64(*seen), o.bytes(c, c+1)
				byDistance[d] += n
				cost += float64(d) * float64(n)
			} else {
				known = false
			}
			*seen = r.at + 1
		}
		if known {
			costs = append(costs, cost)
		}
	}
	return byDistance, costs
}
