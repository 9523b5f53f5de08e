// Package demo is the publisher that "larder up --demo" serves: an origin
// with files that anybody can check, and simulated clients that fetch them.
package demo

import (
	"encoding/binary"
	"hash/fnv"
	"io"
)

// Content is a file whose every byte follows from its name and its place in
// it, so that a reader of any part can tell right bytes from wrong ones
// without having the file. It is a value: copying it costs nothing and it may
// be read from many goroutines.
type Content struct {
	name string
	size int64 // bytes
	seed uint64
}

// NewContent returns the content of that name with size bytes. Two names have
// different bytes; one name with two sizes has the same bytes up to the
// shorter one's end.
func NewContent(name string, size int64) Content {
	h := fnv.New64a()
	_, _ = io.WriteString(h, name) // a hash never fails
	return Content{name: name, size: size, seed: mix(h.Sum64())}
}

// Name returns the name the bytes follow from.
func (c Content) Name() string { return c.name }

// Size returns the length in bytes.
func (c Content) Size() int64 { return c.size }

// golden is 2^64 divided by the golden ratio, the step of splitmix64.
const golden = 0x9e3779b97f4a7c15

// mix is the finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable
// pseudorandom number generators, 2014).
func mix(z uint64) uint64 {
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

// word returns the eight bytes at 8*i, little-endian.
func (c Content) word(i int64) uint64 {
	return mix(c.seed + uint64(i)*golden)
}

// Fill writes the bytes from off on into p. It knows no end: past Size it
// writes what a longer file of the same name would have there. Off must not
// be negative.
func (c Content) Fill(p []byte, off int64) {
	i := off / 8
	if skip := int(off % 8); skip != 0 {
		var w [8]byte
		binary.LittleEndian.PutUint64(w[:], c.word(i))
		p = p[copy(p, w[skip:]):]
		i++
	}
	z := c.seed + uint64(i)*golden
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, mix(z))
		z += golden
		p = p[8:]
	}
	if len(p) > 0 {
		var w [8]byte
		binary.LittleEndian.PutUint64(w[:], mix(z))
		copy(p, w[:])
	}
}

// Wrong returns how many bytes of p differ from those of the content at off.
func (c Content) Wrong(p []byte, off int64) int64 {
	var wrong int64
	i := off / 8
	if skip := int(off % 8); skip != 0 {
		n := min(8-skip, len(p))
		wrong += wrongBytes(p[:n], c.word(i)>>(8*skip))
		p = p[n:]
		i++
	}
	z := c.seed + uint64(i)*golden
	for len(p) >= 8 {
		if w := mix(z); binary.LittleEndian.Uint64(p) != w {
			wrong += wrongBytes(p[:8], w)
		}
		z += golden
		p = p[8:]
	}
	return wrong + wrongBytes(p, mix(z))
}

// wrongBytes compares at most eight bytes with the low ones of w.
func wrongBytes(p []byte, w uint64) int64 {
	var wrong int64
	for _, b := range p {
		if b != byte(w) {
			wrong++
		}
		w >>= 8
	}
	return wrong
}

// ReadAt reads as io.ReaderAt says: fewer than len(p) bytes come with io.EOF.
func (c Content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= c.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), c.size-off))
	c.Fill(p[:n], off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Reader returns a reader over all of it.
func (c Content) Reader() *io.SectionReader {
	return io.NewSectionReader(c, 0, c.size)
}
