package main

// A bloom is a set that may claim to have what it has not: about one in a
// hundred while it is not full, by ten bits for each object and four hashes.
type bloom struct {
	bits     []uint64
	n, limit int // added; until it is full
}

func newBloom(limit int) *bloom { return &bloom{bits: make([]uint64, limit*10/64+1), limit: limit} }

func (b *bloom) has(o int32) bool {
	for row := range uint64(4) {
		if i := b.bit(o, row); b.bits[i/64]>>(i%64)&1 == 0 {
			return false
		}
	}
	return true
}

func (b *bloom) add(o int32) {
	for row := range uint64(4) {
		i := b.bit(o, row)
		b.bits[i/64] |= 1 << (i % 64)
	}
	b.n++
}

func (b *bloom) bit(o int32, row uint64) uint64 {
	return hash(o, row) % uint64(len(b.bits)*64)
}

func (b *bloom) full() bool { return b.n >= b.limit }

func (b *bloom) clear() {
	clear(b.bits)
	b.n = 0
}

func (b *bloom) memory() int64 { return int64(len(b.bits)) * 8 }

// hash is the finaliser of SplitMix64 over an object and the number of a hash function.
func hash(o int32, row uint64) uint64 {
	x := uint64(o) + (row+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
