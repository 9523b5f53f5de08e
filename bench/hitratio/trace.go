package main

import "math"

// chunk is the unit in which the store keeps parts of an object.
const chunk = 1 << 20

// never is the next request of an object that nobody asks for again.
const never = math.MaxInt32

// An object is one file that clients ask for. Requests name it by its place in the trace.
type object struct {
	size int64 // bytes, at least 1
	kind uint8 // place in the fleet's kinds
}

func (o object) chunks() int32 { return int32((o.size + chunk - 1) / chunk) }

// bytes returns how long the chunks [first, end) are: all of them whole but the last of the object.
func (o object) bytes(first, end int32) int64 {
	return min(int64(end)*chunk, o.size) - int64(first)*chunk
}

// A request is one client's download of an object or of a part of it, however
// many HTTP requests that takes.
type request struct {
	object     int32
	first, end int32 // chunks, [first, end), at least one
	pieces     int32 // HTTP requests it takes: one for the whole, or a probe and one for each chunk
	at         int32 // its place in the trace
	next       int32 // place of the next request for the object, or never: for offline policies only
}

type trace struct {
	objects  []object
	requests []request
}

// number fills in the places of the requests and of those that follow them.
func (t *trace) number() {
	next := make([]int32, len(t.objects))
	for i := range next {
		next[i] = never
	}
	for i := len(t.requests) - 1; i >= 0; i-- {
		r := &t.requests[i]
		r.at, r.next = int32(i), next[r.object]
		next[r.object] = int32(i)
	}
}

// asked returns the bytes of all requests.
func (t *trace) asked() (n int64) {
	for i := range t.requests {
		r := &t.requests[i]
		n += t.objects[r.object].bytes(r.first, r.end)
	}
	return n
}

// distinct returns the bytes that are asked for at least once: the working set.
func (t *trace) distinct() (n int64) {
	seen := newPresence(t.objects)
	for i := range t.requests {
		n += seen.add(&t.requests[i])
	}
	return n
}

// askedOnce returns how many objects are asked for in one request only.
func (t *trace) askedOnce() (n int) {
	times := make([]int32, len(t.objects))
	for i := range t.requests {
		times[t.requests[i].object]++
	}
	for _, k := range times {
		if k == 1 {
			n++
		}
	}
	return n
}
