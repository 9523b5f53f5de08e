package main

// greedyBytes is what an object in the heap takes: its place, its priority, how often it was asked for.
const greedyBytes = 8 + 8 + 4

// greedy gives up the object of the lowest priority: age + requests × worth.
// Age is the priority of what was given up last, so that what was asked for
// often, but long ago, goes at last.
//
// With the worth of an object 1/size it is GDSF, greedy dual size frequency
// (Cherkasova: "Improving WWW Proxies Performance with Greedy-Dual-Size-
// Frequency Caching Policy", HP Labs 1998), which is after requests: ten small
// hits are better than a large one. With a worth of 1, bytes count alike
// whatever they belong to: LFU with dynamic aging (Arlitt, Cherkasova, Dilley,
// Friedrich, Jin: "Evaluating Content Management Techniques for Web Proxy
// Caches", 2000), which is after bytes.
type greedy struct {
	bySize   bool
	age      float64
	ranking  *ranking
	bytes    []int64   // held, by object
	requests []float64 // by object, since it came in
	born     []float64 // age at the last request, by object
}

func newGDSF(s setup) *greedy {
	g := newLFUDA(s)
	g.bySize = true
	return g
}

func newLFUDA(s setup) *greedy {
	return &greedy{
		ranking: newRanking(s.Objects), bytes: make([]int64, s.Objects),
		requests: make([]float64, s.Objects), born: make([]float64, s.Objects),
	}
}

func (p *greedy) place(o int32) {
	worth := p.requests[o]
	if p.bySize {
		worth /= float64(p.bytes[o])
	}
	p.ranking.set(o, p.born[o]+worth)
}

func (p *greedy) Asked(r *request) {
	if o := r.object; p.ranking.has(o) {
		p.requests[o]++
		p.born[o] = p.age
		p.place(o)
	}
}

func (p *greedy) Evict(*request, int64) int32 {
	o := p.ranking.first()
	p.age = p.ranking.rank[o]
	p.ranking.remove(o)
	return o
}

func (p *greedy) Add(r *request, n int64) {
	o := r.object
	if !p.ranking.has(o) {
		p.bytes[o], p.requests[o], p.born[o] = 0, 1, p.age
	}
	p.bytes[o] += n
	p.place(o)
}

func (p *greedy) Memory() int64 { return int64(p.ranking.Len()) * greedyBytes }
