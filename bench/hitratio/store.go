package main

const (
	// storeScan is how many rows the store's hand reads at once.
	storeScan = 256
	// storePart is the part of all objects, one in so many, that the nursery is at most.
	storePart = 10
)

// store is what internal/node/store does: SIEVE, but for two things. The hand
// turns back before the few newest objects (see nursery in evict.go), so that
// they are not given up before anybody could ask for them again. And every
// HTTP request marks, so a client that fetches an object in pieces marks it by
// its second piece, and the hand takes such an object for one that somebody
// came back for.
//
// Without marks by pieces it is the store as it could be: only a request for
// the first chunk marks, unless it is of the download that brings the object
// in. A client asks for that chunk once, at the beginning.
type store struct {
	*sieve
	byPieces bool
	ahead    int // objects that the hand has not come to in this round
}

func newStore(s setup, byPieces bool) *store {
	return &store{sieve: newSieve(s, 1), byPieces: byPieces}
}

func (p *store) Asked(r *request) {
	if p.byPieces || r.first == 0 {
		p.sieve.Asked(r)
	}
}

func (p *store) nursery() bool {
	return p.ahead < storeScan && p.ahead < p.q.objects/storePart
}

func (p *store) Evict(*request, int64) int32 {
	for {
		if p.ahead == 0 || p.nursery() {
			p.hand, p.ahead = p.q.back, p.q.objects
		}
		o := p.hand
		p.hand = p.q.newer(o)
		p.ahead--
		if p.marks[o] == 0 {
			p.q.remove(o)
			return o
		}
		p.marks[o] = 0
	}
}

func (p *store) Add(r *request, n int64) {
	if !p.q.has(r.object) {
		if p.ahead == 0 {
			p.hand = r.object
		}
		p.ahead++
	}
	p.sieve.Add(r, n)
	if p.byPieces && r.pieces > 1 {
		p.marks[r.object] = 1
	}
}
