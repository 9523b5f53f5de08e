package main

// secondPart is how large a download must be for second to turn it away: one part in so many of the budget.
const secondPart = 1000

// second is SIEVE that keeps a large object only from its second request on,
// so that one nobody comes back for does not push out many small ones; every
// other large object is fetched once more for that. Which objects were asked
// for it remembers in two Bloom filters (Bloom: "Space/Time Trade-offs in Hash
// Coding with Allowable Errors", 1970): when the newer is full, the older is
// emptied and takes its place, so what was asked for long ago is forgotten.
type second struct {
	*sieve
	limit        int64 // bytes
	newer, older *bloom
	first        bool // the request at hand is the first that is remembered for its object
}

func newSecond(s setup) *second {
	n := 2 * s.Expected
	return &second{sieve: newSieve(s, 1), limit: s.Budget / secondPart, newer: newBloom(n), older: newBloom(n)}
}

func (p *second) Asked(r *request) {
	p.sieve.Asked(r)
	p.first = !p.newer.has(r.object) && !p.older.has(r.object)
	if p.newer.has(r.object) {
		return
	}
	if p.newer.full() {
		p.newer, p.older = p.older, p.newer
		p.newer.clear()
	}
	p.newer.add(r.object)
}

func (p *second) Evict(r *request, n int64) int32 {
	if p.first && n > p.limit && !p.q.has(r.object) {
		return r.object
	}
	return p.sieve.Evict(r, n)
}

func (p *second) Memory() int64 {
	return p.sieve.Memory() + p.newer.memory() + p.older.memory()
}
