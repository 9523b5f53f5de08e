package main

// lru gives up what was not asked for the longest.
type lru struct{ q *queue }

func newLRU(s setup) *lru { return &lru{newQueue(newPlaces(s.Objects))} }

func (p *lru) Asked(r *request) {
	if p.q.has(r.object) {
		p.q.refresh(r.object)
	}
}

func (p *lru) Evict(*request, int64) int32 { return p.q.pop() }

func (p *lru) Add(r *request, n int64) { p.q.add(r.object, n) }

func (p *lru) Memory() int64 { return int64(p.q.objects) * linkBytes }
