package store

import "sync"

const shards = 64

// shard holds the objects in memory of a part of the keys.
//
// Order of locks: stripe, shard, object, queue.
type shard struct {
	mu     sync.RWMutex
	hot    map[string]*Object // guarded by mu: the newest generation of each key, if it is in memory
	claims map[string]*claim  // guarded by mu: keys that somebody loads or creates
	// leaving are keys whose row on a drive is to be forgotten and may still be
	// read there. Who claims a key does not look at those drives.
	leaving map[leavingKey]int // guarded by mu
}

type leavingKey struct {
	v   *volume
	key string
}

// claim is the right to decide what a key stands for. While somebody holds it
// nobody else loads or creates the key, and rows of it that are not in memory
// are not evicted.
type claim struct {
	done chan struct{} // closed when given up
	err  error         // what loading came to; written before done is closed
	// leaving are the drives that must not be asked.
	leaving []*volume
}

func (s *Store) shard(key string) *shard {
	return &s.shards[hash(key)%shards]
}

// hash is FNV-1a; it spreads keys over shards and drives.
func hash(key string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	h ^= h >> 32 // FNV's low bits alone are weak
	return h
}

// Get returns the newest generation of the key, held for the caller, or
// ErrNotFound. For an object in memory it neither waits nor allocates.
func (s *Store) Get(key string) (*Object, error) {
	sh := s.shard(key)
	sh.mu.RLock()
	o := sh.hot[key]
	if o != nil {
		o.refs.Add(1)
	}
	sh.mu.RUnlock()
	if o != nil {
		o.touch()
		return o, nil
	}
	o, err := s.load(sh, key)
	if err != nil {
		return nil, err
	}
	o.touch()
	return o, nil
}

// claim returns the object of the key from memory, held, or the right to
// decide about it, or the error that somebody who had the right came to.
func (sh *shard) claim(key string) (*Object, *claim, error) {
	for {
		sh.mu.Lock()
		if o := sh.hot[key]; o != nil {
			o.refs.Add(1)
			sh.mu.Unlock()
			return o, nil, nil
		}
		c := sh.claims[key]
		if c == nil {
			c = sh.newClaim(key)
			sh.mu.Unlock()
			return nil, c, nil
		}
		sh.mu.Unlock()
		<-c.done
		if c.err != nil {
			return nil, nil, c.err
		}
	}
}

// claimAlways is claim for who wants the right even if the object is in memory.
// The object, if any, is held: else it might leave memory and lose its file's
// handle while its claimant is about to doom it.
func (sh *shard) claimAlways(key string) (*Object, *claim) {
	for {
		sh.mu.Lock()
		c := sh.claims[key]
		if c == nil {
			o := sh.hot[key]
			if o != nil {
				o.refs.Add(1)
			}
			c = sh.newClaim(key)
			sh.mu.Unlock()
			return o, c
		}
		sh.mu.Unlock()
		<-c.done
	}
}

// newClaim is called with mu held.
func (sh *shard) newClaim(key string) *claim {
	c := &claim{done: make(chan struct{})}
	sh.claims[key] = c
	if len(sh.leaving) > 0 {
		for l := range sh.leaving {
			if l.key == key {
				c.leaving = append(c.leaving, l.v)
			}
		}
	}
	return c
}

// give gives the claim up, with what it came to.
func (sh *shard) give(key string, c *claim, err error) {
	c.err = err
	sh.mu.Lock()
	delete(sh.claims, key)
	sh.mu.Unlock()
	close(c.done)
}

// forgot notes that the index of v no longer has the row of the key.
func (sh *shard) forgot(v *volume, key string) {
	l := leavingKey{v, key}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.leaving[l]--; sh.leaving[l] <= 0 {
		delete(sh.leaving, l)
	}
}

// load is Get for a key that is not in memory.
func (s *Store) load(sh *shard, key string) (*Object, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	o, c, err := sh.claim(key)
	if o != nil || err != nil {
		return o, err
	}
	o, err = s.find(key, c)
	if o != nil && !s.install(sh, o) {
		o, err = nil, ErrNotFound // its drive failed this moment
	}
	sh.give(key, c, err)
	return o, err
}

// install puts o into memory as what its key stands for, held once.
func (s *Store) install(sh *shard, o *Object) bool {
	var out []*Object
	sh.mu.Lock()
	ok := !o.v.ended.Load() && !s.closed.Load()
	if ok {
		sh.hot[o.key] = o
		out = sh.shrink(s.perShard)
	}
	sh.mu.Unlock()
	settleAll(out)
	if !ok {
		o.left.Store(true)
		o.refs.Store(0)
		o.settle()
	}
	return ok
}

// shrink takes objects that nobody holds or asked for lately out of memory
// until no more than limit are there, and returns them to be settled. It is
// called with mu held; it looks at a few objects only, in the random order of
// maps, so that nobody pays for all.
func (sh *shard) shrink(limit int) (out []*Object) {
	looked := 0
	for _, o := range sh.hot {
		if looked++; len(sh.hot) <= limit || looked > 64 {
			break
		}
		if o.refs.Load() > 0 || o.unsaved() || o.warm.Swap(false) {
			continue
		}
		sh.takeOut(o)
		out = append(out, o)
	}
	return out
}

// trim makes the shard of the key shrink: objects that were not in the index
// could not leave before.
func (s *Store) trim(key string) {
	sh := s.shard(key)
	sh.mu.Lock()
	out := sh.shrink(s.perShard)
	sh.mu.Unlock()
	settleAll(out)
}

// takeOut is called with mu held.
func (sh *shard) takeOut(o *Object) {
	delete(sh.hot, o.key)
	o.left.Store(true)
	if o.visited.Load() {
		o.v.visited.set(o.id)
	}
}

func settleAll(out []*Object) {
	for _, o := range out {
		o.settle()
	}
}

// doom takes o out of memory and has the index forget it.
func (s *Store) doom(o *Object) {
	sh := s.shard(o.key)
	sh.mu.Lock()
	ok := sh.doomLocked(o)
	sh.mu.Unlock()
	if ok {
		o.settle()
	}
}

// doomLocked is doom with mu held, without settling; it reports whether
// anything was to be done.
func (sh *shard) doomLocked(o *Object) bool {
	if o.doomed.Load() {
		return false
	}
	if sh.hot[o.key] == o {
		delete(sh.hot, o.key)
	}
	o.mu.Lock() // who changes the object sees it in the middle of nothing
	o.doomed.Store(true)
	o.mu.Unlock()
	o.left.Store(true) // after doomed: a last holder who leaves now must not settle it as one that stays
	if !o.v.ended.Load() {
		sh.leaving[leavingKey{o.v, o.key}]++
		o.v.forget(forgotten{id: o.id, key: o.key, o: o})
	}
	return true
}

// dropUnfinished dooms an object of unknown size that nobody holds: nobody
// fills it any more, and it would not survive a restart.
func (s *Store) dropUnfinished(o *Object) {
	sh := s.shard(o.key)
	sh.mu.Lock()
	ok := o.refs.Load() == 0 && o.size.Load() < 0 && sh.doomLocked(o)
	sh.mu.Unlock()
	if ok {
		o.settle()
	}
}
