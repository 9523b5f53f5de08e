package main

// belady knows the future and gives up what is asked for again last, the
// object at hand included (Belady: "A Study of Replacement Algorithms for a
// Virtual-Storage Computer", 1966). For objects of one size nothing is better;
// with sizes, finding the best is NP-hard, and this is a good way to save
// bytes, since it costs an object's bytes for as long as they wait.
type belady struct{ ranking *ranking }

func newBelady(s setup) *belady { return &belady{newRanking(s.Objects)} }

func (p *belady) Asked(r *request) {
	if p.ranking.has(r.object) {
		p.ranking.set(r.object, -float64(r.next))
	}
}

func (p *belady) Evict(r *request, _ int64) int32 {
	o := p.ranking.first()
	if -float64(r.next) <= p.ranking.rank[o] { // r is the last of all
		o = r.object
	}
	if p.ranking.has(o) {
		p.ranking.remove(o)
	}
	return o
}

func (p *belady) Add(r *request, _ int64) { p.ranking.set(r.object, -float64(r.next)) }

func (p *belady) Memory() int64 { return 0 } // nobody can build it
