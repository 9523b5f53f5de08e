package main

import "math/rand/v2"

// beladySamples is how many held objects beladySize looks at to give one up.
const beladySamples = 64

// beladySize knows the future and gives up what takes most bytes × time until
// it is asked for again, out of a sample of what is held: the order of all
// would change with every request. That is after requests rather than bytes.
type beladySize struct {
	rand  *rand.Rand
	held  []int32
	at    []int32 // place in held, by object; none where it is not there
	bytes []int64 // by object
	next  []int32 // by object
}

func newBeladySize(s setup) *beladySize {
	p := &beladySize{
		rand: rand.New(rand.NewPCG(1, 2)),
		at:   make([]int32, s.Objects), bytes: make([]int64, s.Objects), next: make([]int32, s.Objects),
	}
	for i := range p.at {
		p.at[i] = none
	}
	return p
}

func (p *beladySize) Asked(r *request) { p.next[r.object] = r.next }

func (p *beladySize) Evict(r *request, n int64) int32 {
	worst, most := r.object, cost(p.bytes[r.object]+n, r.next, r.at)
	for range beladySamples {
		o := p.held[p.rand.IntN(len(p.held))]
		if c := cost(p.bytes[o], p.next[o], r.at); c > most {
			worst, most = o, c
		}
	}
	p.forget(worst)
	return worst
}

// cost is of bytes that wait from one request to another; what is never asked for again waits longest.
func cost(bytes int64, next, now int32) float64 {
	return float64(bytes) * float64(next-now)
}

func (p *beladySize) forget(o int32) {
	i := p.at[o]
	if i == none {
		return
	}
	last := p.held[len(p.held)-1]
	p.held[i], p.at[last] = last, i
	p.held = p.held[:len(p.held)-1]
	p.at[o], p.bytes[o] = none, 0
}

func (p *beladySize) Add(r *request, n int64) {
	o := r.object
	if p.at[o] == none {
		p.at[o] = int32(len(p.held))
		p.held = append(p.held, o)
	}
	p.bytes[o] += n
}

func (p *beladySize) Memory() int64 { return 0 } // nobody can build it
