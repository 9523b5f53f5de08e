package main

const (
	sketchRows = 4
	sketchMost = 15 // four bits
	sketchLife = 10 // requests until the counts are halved, for each object expected
)

// A sketch counts how often objects were asked for lately: a count-min sketch
// (Cormode and Muthukrishnan, 2005), which may count too much but never too
// little. The first request of an object only enters the doorkeeper, a Bloom
// filter, so that the many that are asked for once do not fill the sketch. Old
// requests fade: from time to time all counts are halved and the doorkeeper is
// emptied.
type sketch struct {
	rows       [sketchRows][]uint8 // counters of four bits, here in a byte each
	doorkeeper *bloom
	n, life    int // requests since the counts were halved; until they are
}

func newSketch(expected int) *sketch {
	s := &sketch{doorkeeper: newBloom(sketchLife * expected), life: sketchLife * expected}
	width := 64
	for width < 2*expected {
		width *= 2
	}
	for i := range s.rows {
		s.rows[i] = make([]uint8, width)
	}
	return s
}

func (s *sketch) counter(o int32, row int) *uint8 {
	cells := s.rows[row]
	return &cells[hash(o, uint64(8+row))&uint64(len(cells)-1)]
}

func (s *sketch) add(o int32) {
	if s.n++; s.n >= s.life {
		s.age()
	}
	if !s.doorkeeper.has(o) {
		s.doorkeeper.add(o)
		return
	}
	for row := range s.rows {
		if c := s.counter(o, row); *c < sketchMost {
			*c++
		}
	}
}

func (s *sketch) count(o int32) int {
	least := uint8(sketchMost)
	for row := range s.rows {
		least = min(least, *s.counter(o, row))
	}
	n := int(least)
	if s.doorkeeper.has(o) {
		n++
	}
	return n
}

func (s *sketch) age() {
	for _, cells := range s.rows {
		for i := range cells {
			cells[i] /= 2
		}
	}
	s.doorkeeper.clear()
	s.n = 0
}

// memory counts the counters as the four bits they need.
func (s *sketch) memory() int64 {
	return int64(sketchRows*len(s.rows[0])/2) + s.doorkeeper.memory()
}
