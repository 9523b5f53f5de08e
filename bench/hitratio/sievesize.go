package main

// sieveSize is SIEVE in which an object that is smaller than the middling one
// held comes in marked: it gets a second round of the hand, since it costs
// little to keep it. That is for requests, and at the expense of bytes.
type sieveSize struct{ *sieve }

func newSieveSize(s setup) *sieveSize { return &sieveSize{newSieve(s, 1)} }

func (p *sieveSize) Add(r *request, n int64) {
	held := p.q.has(r.object)
	p.sieve.Add(r, n)
	if !held && n*int64(p.q.objects) < p.q.bytes {
		p.marks[r.object] = 1
	}
}
