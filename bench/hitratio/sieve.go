package main

import "math/bits"

// sieve is SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi: "SIEVE is Simpler than
// LRU", NSDI 2024): objects stay in the order they came in, a hand goes from
// old to new, takes the mark off an object that was asked for since it last
// passed, and gives up the first without one. New ones come in at the front,
// unmarked.
//
// Most marks an object can have is 1 in SIEVE. With 3, the hand takes one of
// them each time it passes, so that what is asked for often stays longer.
type sieve struct {
	q     *queue
	marks []uint8 // by object
	most  uint8
	hand  int32 // the next to be looked at; none: the oldest
}

func newSieve(s setup, most uint8) *sieve {
	return &sieve{q: newQueue(newPlaces(s.Objects)), marks: make([]uint8, s.Objects), most: most, hand: none}
}

func (p *sieve) Asked(r *request) {
	if p.q.has(r.object) && p.marks[r.object] < p.most {
		p.marks[r.object]++
	}
}

func (p *sieve) Evict(*request, int64) int32 {
	for {
		if p.hand == none {
			p.hand = p.q.back
		}
		o := p.hand
		p.hand = p.q.newer(o)
		if p.marks[o] == 0 {
			p.q.remove(o)
			return o
		}
		p.marks[o]--
	}
}

func (p *sieve) Add(r *request, n int64) {
	if !p.q.has(r.object) {
		p.marks[r.object] = 0
	}
	p.q.add(r.object, n)
}

func (p *sieve) Memory() int64 {
	return int64(p.q.objects*bits.Len8(p.most)+7) / 8
}
