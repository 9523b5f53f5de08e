package main

const (
	s3Small = 10 // the small queue's part of the budget: one in so many
	s3Most  = 3  // marks an object can have
	s3Moves = 2  // marks with which it leaves the small queue for the main one

	// s3GhostBytes is what one remembered object takes: a hash and a size.
	s3GhostBytes = 12
)

// s3fifo is S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO Queues are All You
// Need for Cache Eviction", SOSP 2023): new objects go through a small queue,
// and only those that were asked for more than once meanwhile move to the main
// one; the others are given up and remembered for as long as the main queue's
// bytes last. One that is remembered when it comes back goes to the main queue
// at once. There, a mark buys another round.
type s3fifo struct {
	small, main *queue
	ghosts      *queue
	marks       []uint8 // by object
	smallCap    int64   // bytes
	ghostCap    int64   // bytes of the objects that are remembered
}

func newS3FIFO(s setup) *s3fifo {
	all := newPlaces(s.Objects)
	return &s3fifo{
		small: newQueue(all), main: newQueue(all), ghosts: newQueue(newPlaces(s.Objects)),
		marks: make([]uint8, s.Objects), smallCap: s.Budget / s3Small, ghostCap: s.Budget - s.Budget/s3Small,
	}
}

func (p *s3fifo) held(o int32) bool { return p.small.has(o) || p.main.has(o) }

func (p *s3fifo) Asked(r *request) {
	if p.held(r.object) && p.marks[r.object] < s3Most {
		p.marks[r.object]++
	}
}

func (p *s3fifo) Evict(*request, int64) int32 {
	for {
		if p.main.objects == 0 || p.small.objects > 0 && p.small.bytes >= p.smallCap {
			o := p.small.back
			if p.marks[o] < s3Moves {
				p.remember(o, p.small.remove(o))
				return o
			}
			p.marks[o] = 0
			p.small.moveTo(p.main, o)
			continue
		}
		o := p.main.back
		if p.marks[o] == 0 {
			return p.main.pop()
		}
		p.marks[o]--
		p.main.refresh(o)
	}
}

func (p *s3fifo) remember(o int32, bytes int64) {
	p.ghosts.push(o, bytes)
	for p.ghosts.bytes > p.ghostCap {
		p.ghosts.pop()
	}
}

func (p *s3fifo) Add(r *request, n int64) {
	o := r.object
	switch {
	case p.small.has(o):
		p.small.grow(o, n)
	case p.main.has(o):
		p.main.grow(o, n)
	case p.ghosts.has(o):
		p.ghosts.remove(o)
		p.marks[o] = 0
		p.main.push(o, n)
	default:
		p.marks[o] = 0
		p.small.push(o, n)
	}
}

func (p *s3fifo) Memory() int64 {
	held := int64(p.small.objects + p.main.objects)
	return held*linkBytes + held/4 + int64(p.ghosts.objects)*s3GhostBytes // two bits of marks
}
