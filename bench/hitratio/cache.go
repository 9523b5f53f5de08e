package main

import "time"

// A policy decides what a full cache gives up. It keeps the order of objects
// and their marks; which chunks are there is the cache's business. Objects are
// given up whole, as the store does.
type policy interface {
	// Asked notes a request, before the cache looks whether it can answer it.
	Asked(r *request)
	// Evict forgets one object, to make room for n missing bytes of r, and
	// returns it. If that is r's own object, r is not worth the room: its
	// bytes pass through, and what was held of the object is gone.
	Evict(r *request, n int64) int32
	// Add takes r's object in, or n more bytes of it if it is held.
	Add(r *request, n int64)
	// Memory returns how many bytes of memory its bookkeeping takes now in a
	// store that has the order of insertion for nothing, from its index.
	Memory() int64
}

// setup is what a policy may know when it is made.
type setup struct {
	Objects  int   // that there are in the trace: the length of tables
	Budget   int64 // bytes
	Expected int   // objects that fit in the budget, if they are of middling size
}

func setupFor(t *trace, budget int64) setup {
	n := float64(len(t.objects)) * float64(budget) / float64(t.distinct())
	return setup{Objects: len(t.objects), Budget: budget, Expected: max(64, int(n))}
}

// A cache holds at most budget bytes.
type cache struct {
	budget  int64
	policy  policy
	present *presence

	used    int64
	bytes   []int64 // held, by object
	objects int     // held
}

func newCache(t *trace, budget int64, p policy) *cache {
	return &cache{budget: budget, policy: p, present: newPresence(t.objects), bytes: make([]int64, len(t.objects))}
}

// serve answers a request and returns how many bytes of it had to be fetched.
func (c *cache) serve(r *request) (fetched int64) {
	c.policy.Asked(r)
	n := c.present.missing(r)
	if n == 0 || c.bytes[r.object]+n > c.budget { // there, or larger than the cache
		return n
	}
	for c.used+n > c.budget {
		o := c.policy.Evict(r, n)
		c.drop(o)
		if o == r.object {
			return n
		}
	}
	c.policy.Add(r, n)
	c.present.add(r)
	c.used += n
	if c.bytes[r.object] == 0 {
		c.objects++
	}
	c.bytes[r.object] += n
	return n
}

func (c *cache) drop(o int32) {
	if c.bytes[o] == 0 {
		return
	}
	c.used -= c.bytes[o]
	c.bytes[o] = 0
	c.objects--
	c.present.drop(o)
}

// result is what one policy did.
type result struct {
	Policy         string
	Requests, Hits int64 // a hit is a request of which nothing had to be fetched
	Asked, Fetched int64 // bytes
	Memory         int64 // bytes of bookkeeping at the end
	Held           int   // objects at the end
	Took           time.Duration
}

// play serves the whole trace.
func play(t *trace, budget int64, p policy) result {
	c := newCache(t, budget, p)
	res := result{Requests: int64(len(t.requests)), Asked: t.asked()}
	start := time.Now()
	for i := range t.requests {
		n := c.serve(&t.requests[i])
		res.Fetched += n
		if n == 0 {
			res.Hits++
		}
	}
	res.Took = time.Since(start)
	res.Memory, res.Held = p.Memory(), c.objects
	return res
}

// infinite is what a cache that never evicts does: it fetches every byte once.
func infinite(t *trace) result {
	seen := newPresence(t.objects)
	res := result{Policy: "infinite", Requests: int64(len(t.requests)), Asked: t.asked()}
	for i := range t.requests {
		n := seen.add(&t.requests[i])
		res.Fetched += n
		if n == 0 {
			res.Hits++
		}
	}
	return res
}
