package store

import (
	"errors"
	"fmt"
	"time"
)

// Create makes a new generation of the key, held for the caller, which from now
// on is what Get finds. Who holds an older generation keeps it until Release.
// A pin of the older one goes over to the new one. Errors: ErrFull, ErrNoDrive.
func (s *Store) Create(key string, m Meta) (*Object, error) {
	if m.Size < -1 || m.Size > maxSize {
		return nil, errSize
	}
	if s.closed.Load() {
		return nil, ErrClosed
	}
	sh := s.shard(key)
	old, c := sh.claimAlways(key)
	defer sh.give(key, c, nil)
	if old == nil {
		var err error
		if old, err = s.find(key, c); err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if old != nil {
			old.left.Store(true) // it never was in the hot set: nobody else has it
		}
	}
	pin := m.Pin
	if old != nil {
		defer old.Release()
		pin = pin || old.pinned.Load()
	}
	o, err := s.place(key, &m, pin)
	if err != nil {
		return nil, err
	}
	defer o.v.ops.RUnlock()
	var out []*Object
	sh.mu.Lock()
	if o.v.ended.Load() { // nobody would take it out of memory any more
		sh.mu.Unlock()
		return nil, fmt.Errorf("drive %s: %w", o.v.dir, ErrNoDrive)
	}
	if old != nil {
		sh.doomLocked(old)
	}
	sh.hot[key] = o
	o.mu.Lock()
	o.changed()
	o.mu.Unlock()
	out = sh.shrink(s.perShard)
	sh.mu.Unlock()
	settleAll(out)
	o.warm.Store(true) // but not visited: that is for those who come back
	return o, nil
}

// place makes the object on the drive that the key's weight falls to, or on
// the next one that takes it. The volume's ops are held shared on success.
func (s *Store) place(key string, m *Meta, pin bool) (*Object, error) {
	err := error(ErrNoDrive)
	for _, v := range ranked(s.volumes(), key) {
		v.ops.RLock()
		o, e := s.placeOn(v, key, m, pin)
		if e == nil {
			return o, nil
		}
		v.ops.RUnlock()
		if !errors.Is(err, ErrFull) { // a full drive says more than a lost one
			err = e
		}
	}
	return nil, err
}

func (s *Store) placeOn(v *volume, key string, m *Meta, pin bool) (*Object, error) {
	if err := v.usable(); err != nil {
		return nil, err
	}
	if err := v.reserve(overhead); err != nil {
		return nil, err
	}
	id, err := v.newID()
	if err != nil {
		v.used.Add(-overhead)
		return nil, err
	}
	now := time.Now()
	r := record{id: id, gen: s.nextGen(now), key: key, pinned: pin, created: now, meta: *m}
	o := s.newObject(v, &r)
	o.disk = overhead
	v.objects.Add(1)
	return o, nil
}

// nextGen returns a number above all before, here and, by the clock, in
// earlier lives on any drive.
func (s *Store) nextGen(now time.Time) uint64 {
	for {
		last := s.gen.Load()
		next := max(last+1, uint64(now.UnixNano()))
		if s.gen.CompareAndSwap(last, next) {
			return next
		}
	}
}
