package main

// none is the object that is no object.
const none = int32(-1)

// linkBytes is what a place in a doubly linked list takes: two ids of 64 bits.
const linkBytes = 16

// places is the memory that queues share: an object stands in one of them at most.
type places []place

type place struct {
	newer, older int32
	bytes        int64 // held; 0 where the object stands in no queue
	in           *queue
}

func newPlaces(objects int) places { return make(places, objects) }

// A queue is objects in an order, from the front, where the new ones come in, to the back.
type queue struct {
	all         places
	front, back int32
	objects     int
	bytes       int64
}

func newQueue(all places) *queue { return &queue{all: all, front: none, back: none} }

func (q *queue) has(o int32) bool { return q.all[o].in == q }

// newer returns the object in front of o, or none.
func (q *queue) newer(o int32) int32 { return q.all[o].newer }

func (q *queue) push(o int32, bytes int64) {
	q.all[o] = place{newer: none, older: q.front, bytes: bytes, in: q}
	if q.front != none {
		q.all[q.front].newer = o
	} else {
		q.back = o
	}
	q.front = o
	q.objects++
	q.bytes += bytes
}

// grow notes that more of o is held.
func (q *queue) grow(o int32, bytes int64) {
	q.all[o].bytes += bytes
	q.bytes += bytes
}

// remove takes o out and returns its bytes.
func (q *queue) remove(o int32) int64 {
	p := q.all[o]
	if p.newer != none {
		q.all[p.newer].older = p.older
	} else {
		q.front = p.older
	}
	if p.older != none {
		q.all[p.older].newer = p.newer
	} else {
		q.back = p.newer
	}
	q.all[o] = place{}
	q.objects--
	q.bytes -= p.bytes
	return p.bytes
}

// refresh moves o to the front.
func (q *queue) refresh(o int32) { q.push(o, q.remove(o)) }

// moveTo puts o at the front of another queue.
func (q *queue) moveTo(other *queue, o int32) { other.push(o, q.remove(o)) }

// add pushes o, or grows it if it is there.
func (q *queue) add(o int32, bytes int64) {
	if q.has(o) {
		q.grow(o, bytes)
		return
	}
	q.push(o, bytes)
}

// pop removes the back and returns it.
func (q *queue) pop() int32 {
	o := q.back
	q.remove(o)
	return o
}
