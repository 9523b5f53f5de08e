package main

import "math/bits"

// presence says which chunks of which objects are there.
type presence struct {
	objects []object
	bits    [][]uint64 // by object; nil where nothing is there
}

func newPresence(objects []object) *presence {
	return &presence{objects, make([][]uint64, len(objects))}
}

// mask returns the bits of word i that lie in [first, end).
func mask(i, first, end int32) uint64 {
	m := ^uint64(0)
	if lo := first - i*64; lo > 0 {
		m <<= lo
	}
	if hi := end - i*64; hi < 64 {
		m &= 1<<hi - 1
	}
	return m
}

// missing returns how many bytes of the request are not there.
func (p *presence) missing(r *request) int64 {
	o := p.objects[r.object]
	b := p.bits[r.object]
	if b == nil {
		return o.bytes(r.first, r.end)
	}
	n := 0
	for i := r.first / 64; i <= (r.end-1)/64; i++ {
		n += bits.OnesCount64(mask(i, r.first, r.end) &^ b[i])
	}
	last := o.chunks() - 1
	if r.end > last && b[last/64]>>(last%64)&1 == 0 {
		return int64(n-1)*chunk + o.bytes(last, last+1)
	}
	return int64(n) * chunk
}

// add makes the request's bytes be there and returns how many of them are new.
func (p *presence) add(r *request) int64 {
	n := p.missing(r)
	if n == 0 {
		return 0
	}
	if p.bits[r.object] == nil {
		p.bits[r.object] = make([]uint64, (p.objects[r.object].chunks()+63)/64)
	}
	b := p.bits[r.object]
	for i := r.first / 64; i <= (r.end-1)/64; i++ {
		b[i] |= mask(i, r.first, r.end)
	}
	return n
}

// drop makes nothing of the object be there.
func (p *presence) drop(o int32) { p.bits[o] = nil }
