package fill

import (
	"context"
	"errors"
	"time"

	"larder/internal/byterange"
)

// Want says what the one who opens a resource is after, so that the first
// request upstream already brings it.
type Want struct {
	// Range is what is needed first, when it is known where it lies:
	// [Start, End), End -1 for "to the end".
	Range byterange.Range
	// Whole asks for the representation without a Range field.
	Whole bool
	// Probe asks for length and validators only: one byte is fetched.
	Probe bool
	// Revalidate asks the origin whether the stored object is still good.
	Revalidate bool
}

// Opened is what became of an Open: one of its first three fields is set.
type Opened struct {
	Content *Content // must be closed
	Pass    *Reply   // not to be kept; the body is the caller's
	Renewed bool     // there is a stored object that is good, or good again
	Shared  bool     // somebody else's request brought it
}

// A head is a first answer under way, shared by all who wait for it.
type head struct {
	done chan struct{}

	// Written before done is closed.
	content *Content
	pass    *Reply
	renewed bool
	err     error

	route string // of the leader; set for the head's life

	waiters int  // guarded by Filler.mu; each is a user of content once that is set
	orphan  bool // nobody will read a body that only the leader may have; guarded by Filler.mu
	void    bool // what it brings must not be kept: see Forget; guarded by Filler.mu
	making  bool // its object may be seen, and its Content is not there yet; guarded by Filler.mu

	outdated bool // what it brought was not kept for that; written before done is closed
}

// headKey tells heads apart: who has nothing stored cannot share a 304.
type headKey struct {
	key        string
	revalidate bool
	who        string // of Keeper.Own
}

// Open asks the origin for a resource that is not stored, or whose stored
// object has to be revalidated. However many ask, one request goes out.
//
// Errors: ErrPass when others share an answer that must not be shared (the
// caller fetches for itself), *StatusError, *UnsatisfiedError, *TimeoutError,
// the source's own, or the context's.
func (f *Filler) Open(ctx context.Context, key string, resource any, w Want) (Opened, error) {
	route := f.cfg.Keeper.Route(resource)
	for again := 0; ; {
		o, by, err := f.open(ctx, key, resource, w)
		switch {
		case errors.Is(err, ErrOutdated):
			// It was asked for too early to be shared with us.
			if again++; again == attempts {
				return Opened{Shared: true}, ErrPass
			}
		case o.Shared && w.elsewhere(err):
			// The range of the one who asked lies behind the end, not ours.
		case err == nil || by == "" || by == route || errors.Is(err, ErrPass):
			return o, err
		}
		// It failed on another way than ours, which is not tried yet.
	}
}

// elsewhere reports whether err is about a range that is not this one.
func (w *Want) elsewhere(err error) bool {
	var ue *UnsatisfiedError
	return errors.As(err, &ue) && (w.probes() || w.Range.Start < ue.Size)
}

// open is Open once. by is the route of the head that was waited for.
func (f *Filler) open(ctx context.Context, key string, resource any, w Want) (_ Opened, by string, err error) {
	h, leader, o, err := f.join(key, resource, w)
	if h == nil {
		return o, "", err
	}
	silence := time.NewTimer(f.cfg.Silence)
	defer silence.Stop()
	select {
	case <-h.done:
		switch {
		case h.outdated && !leader:
			return Opened{}, "", ErrOutdated
		case h.pass != nil && !leader:
			return Opened{Shared: true}, "", ErrPass
		}
		return Opened{Content: h.content, Pass: h.pass, Renewed: h.renewed, Shared: !leader}, h.route, h.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-silence.C:
		err = &TimeoutError{After: f.cfg.Silence}
	}
	f.leave(h, leader)
	return Opened{}, "", err
}

// join finds what is known or under way, or starts a head and makes the caller
// its leader. Without a head, o and err are the answer.
func (f *Filler) join(key string, resource any, w Want) (h *head, leader bool, o Opened, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	who, _ := f.cfg.Keeper.Own(resource)
	if who == "" && now.Before(f.private[key]) {
		return nil, false, o, ErrPass
	}
	// One that was dropped meanwhile lives on for those who read it only.
	if c := f.live[key]; c != nil && !w.Revalidate && !c.obj.Doomed() {
		c.join(resource)
		return nil, false, Opened{Content: c, Shared: true}, nil
	}
	if fl := f.failed[f.failKey(key, resource)]; now.Before(fl.until) {
		return nil, false, o, fl.err
	}
	k := headKey{key, w.Revalidate, who}
	h = f.heads[k]
	if h == nil {
		h = &head{done: make(chan struct{}), route: f.cfg.Keeper.Route(resource)}
		leader = true
		if !f.start(func() { f.lead(h, k, resource, w) }) {
			return nil, false, o, context.Canceled
		}
		f.heads[k] = h
	} else {
		f.m.coalesced.Inc()
	}
	h.waiters++
	return h, leader, o, nil
}

// leave gives back what an answer that comes too late would have given.
func (f *Filler) leave(h *head, leader bool) {
	f.mu.Lock()
	select {
	case <-h.done:
		f.mu.Unlock()
		if h.content != nil {
			h.content.Close()
		}
		if leader && h.pass != nil {
			h.pass.Body.Close()
		}
	default:
		h.waiters--
		h.orphan = h.orphan || leader
		f.mu.Unlock()
	}
}

// lead brings the first answer.
func (f *Filler) lead(h *head, k headKey, resource any, w Want) {
	// Who came too late for another head looked at the store too early. Now
	// that this one is registered, nobody else can be in between.
	if f.cfg.Keeper.Stored(resource) {
		f.settle(h, k, resource, w, nil, nil)
		return
	}
	rep, err := f.first(f.ctx, resource, w)
	f.settle(h, k, resource, w, rep, err)
}

// settle makes of a first answer what it is good for, and hands that to all
// who wait. Without an answer and an error there is a stored object already.
func (f *Filler) settle(h *head, k headKey, resource any, w Want, rep *Reply, err error) {
	var c *Content
	var pass *Reply
	renewed, outdated := false, false
	switch {
	case err != nil:
	case rep == nil:
		renewed = true
	case rep.Status == 304 && k.revalidate:
		rep.Body.Close()
		err = f.renew(resource, rep)
		renewed = err == nil
	default:
		c, err = f.begin(h, k.key, resource, rep, w)
		outdated = errors.Is(err, ErrOutdated)
		if outdated || errors.Is(err, ErrPass) {
			err = nil
			pass = rep
		}
	}
	if err != nil && f.ctx.Err() == nil {
		f.remember(f.failKey(k.key, resource), failure{err: err, until: time.Now().Add(f.cfg.Keeper.Remember(resource, err))})
	}

	f.mu.Lock()
	h.content, h.pass, h.renewed, h.outdated, h.err = c, pass, renewed, outdated, err
	if c != nil {
		c.use(h.waiters)
		if h.waiters == 0 {
			c.mu.Lock()
			c.unpromiseLocked()
			c.mu.Unlock()
		}
	}
	now := time.Now()
	if pass != nil && pass.Status < 400 && k.who == "" && !outdated {
		// Whoever comes in the next while is not kept waiting for an answer
		// that cannot be shared. What somebody got for themselves says nothing
		// of what others will.
		f.private[k.key] = now.Add(time.Minute)
		f.sweepLocked(now)
	}
	orphan := h.orphan
	if f.heads[k] == h {
		delete(f.heads, k) // before done: who comes now must look again
	}
	close(h.done)
	f.mu.Unlock()
	if pass != nil && orphan {
		pass.Body.Close()
	}
	if c != nil {
		c.release() // the reference that begin held
	}
}

// begin makes the Content of a new generation from the first reply, that of h. It
// returns with one reference held, and the body being read.
func (f *Filler) begin(h *head, key string, resource any, rep *Reply, w Want) (*Content, error) {
	_, own := f.cfg.Keeper.Own(resource)
	f.mu.Lock()
	void := h.void
	h.making = true
	f.mu.Unlock()
	if void && own {
		return nil, ErrOutdated
	}
	obj, err := f.beginObject(resource, rep)
	if err != nil {
		if !errors.Is(err, ErrPass) && !errors.Is(err, ErrOutdated) {
			rep.Body.Close()
		}
		return nil, err
	}
	f.mu.Lock()
	c := f.newContentLocked(key, resource, obj, rep.Size, rep.Strong)
	if h.void {
		obj.Doom()
	} else {
		f.live[key] = c
	}
	delete(f.failed, f.failKey(key, resource))
	f.mu.Unlock()
	c.startWith(resource, rep, w)
	return c, nil
}

func (f *Filler) beginObject(resource any, rep *Reply) (_ Object, err error) {
	defer f.guard(&err)
	return f.cfg.Keeper.Begin(resource, rep)
}

func (f *Filler) renew(resource any, rep *Reply) (err error) {
	defer f.guard(&err)
	return f.cfg.Keeper.Renew(resource, rep)
}

// change ends a generation that the origin has replaced: who needs more of it
// gets ErrChanged. rep, if not nil, is the answer to resource that told of it. It
// becomes the next generation, unless that is on its way already; who comes
// meanwhile, and may share it, waits for it.
func (f *Filler) change(c *Content, resource any, rep *Reply) {
	h := &head{done: make(chan struct{}), orphan: true}
	k := headKey{key: c.key}
	if rep != nil {
		k.who, _ = f.cfg.Keeper.Own(resource)
		h.route = f.cfg.Keeper.Route(resource)
	}
	f.mu.Lock()
	c.mu.Lock()
	first := c.dead == nil
	if first {
		f.m.changed.Inc()
		c.obj.Doom() // before anybody can see that it is dead, and look for the next
		c.dead = ErrChanged
		c.changedLocked()
	}
	c.mu.Unlock()
	if f.live[c.key] == c {
		delete(f.live, c.key)
	}
	succeeds := first && rep != nil && f.live[c.key] == nil && f.heads[k] == nil
	if succeeds {
		f.heads[k] = h
	}
	f.mu.Unlock()
	switch {
	case succeeds:
		f.settle(h, k, resource, Want{Whole: true}, rep, nil)
	case rep != nil:
		rep.Body.Close()
	}
}
