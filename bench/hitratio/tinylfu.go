package main

const (
	lfuWindow    = 0.01 // the window's part of the budget
	lfuProtected = 0.80 // the protected segment's part of the rest
)

// tinyLFU is W-TinyLFU (Einziger, Friedman, Manes: "TinyLFU: A Highly
// Efficient Cache Admission Policy", ACM Transactions on Storage 2017): new
// objects pass through a small LRU window. What leaves it stays only if it was
// asked for more often than what would be given up for it. The rest of the
// cache is a segmented LRU: on probation until asked for again, then protected.
//
// Its authors also adapt the window's size while it runs; this one does not. An
// object that needs more room than one other takes is weighed against each of
// those it pushes out, one at a time.
type tinyLFU struct {
	window, probation, protected *queue
	windowCap, protectedCap      int64 // bytes
	counts                       *sketch
}

func newTinyLFU(s setup) *tinyLFU {
	all := newPlaces(s.Objects)
	window := int64(lfuWindow * float64(s.Budget))
	return &tinyLFU{
		window: newQueue(all), probation: newQueue(all), protected: newQueue(all),
		windowCap: window, protectedCap: int64(lfuProtected * float64(s.Budget-window)),
		counts: newSketch(s.Expected),
	}
}

func (p *tinyLFU) Asked(r *request) {
	o := r.object
	p.counts.add(o)
	switch {
	case p.window.has(o):
		p.window.refresh(o)
	case p.protected.has(o):
		p.protected.refresh(o)
	case p.probation.has(o):
		p.probation.moveTo(p.protected, o)
		p.settle()
	}
}

func (p *tinyLFU) Evict(r *request, n int64) int32 {
	main := p.probation
	if main.objects == 0 {
		main = p.protected
	}
	entering := n
	if p.probation.has(r.object) || p.protected.has(r.object) {
		entering = 0
	}
	if main.objects > 0 && p.window.bytes+entering <= p.windowCap {
		return main.pop()
	}
	if p.window.objects == 0 {
		if p.counts.count(r.object) > p.counts.count(main.back) {
			return main.pop()
		}
		return r.object
	}
	if main.objects > 0 && p.counts.count(p.window.back) > p.counts.count(main.back) {
		victim := main.pop()
		p.window.moveTo(p.probation, p.window.back)
		return victim
	}
	return p.window.pop()
}

func (p *tinyLFU) Add(r *request, n int64) {
	o := r.object
	switch {
	case p.probation.has(o):
		p.probation.grow(o, n)
	case p.protected.has(o):
		p.protected.grow(o, n)
	default:
		p.window.add(o, n)
	}
	p.settle()
}

// settle moves on what the window and the protected segment have too much.
func (p *tinyLFU) settle() {
	for p.window.bytes > p.windowCap {
		p.window.moveTo(p.probation, p.window.back)
	}
	for p.protected.bytes > p.protectedCap {
		p.protected.moveTo(p.probation, p.protected.back)
	}
}

func (p *tinyLFU) Memory() int64 {
	held := int64(p.window.objects + p.probation.objects + p.protected.objects)
	return held*(linkBytes+1) + p.counts.memory() // one byte says in which queue
}
