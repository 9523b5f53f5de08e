package main

// fifo gives up what came first, asked for or not.
type fifo struct{ q *queue }

func newFIFO(s setup) *fifo { return &fifo{newQueue(newPlaces(s.Objects))} }

func (p *fifo) Asked(*request) {}

func (p *fifo) Evict(*request, int64) int32 { return p.q.pop() }

func (p *fifo) Add(r *request, n int64) { p.q.add(r.object, n) }

func (p *fifo) Memory() int64 { return 0 } // the index has the order
