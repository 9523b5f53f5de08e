package fill

import (
	"context"
	"fmt"
	"io"
	"time"

	"larder/internal/byterange"
)

// A stream is the bytes of a run from r.at on, over as many replies as it takes.
type stream struct {
	r   *run
	ctx context.Context
	rep *Reply // being read; nil: ask

	idle      int    // replies in a row that brought nothing
	asked     any    // the resource that was asked for last
	successor *Reply // its answer, which is of the next generation
}

// attempts is how many replies in a row may bring nothing.
const attempts = 3

// theirs reports whether another content than expected is what one client gets for
// their credentials, and so says nothing of the one that is for all.
func (s *stream) theirs() bool {
	k := s.r.c.f.cfg.Keeper
	who, _ := k.Own(s.asked)
	return who != "" && (s.successor == nil || !k.Shared(s.asked, s.successor))
}

// drop ends the current reply.
func (s *stream) drop() {
	if s.rep != nil {
		s.rep.Body.Close()
		s.rep = nil
	}
}

// read reads bytes at r.at, asking again when an answer ends early or stalls.
// io.EOF: the content ends here.
func (s *stream) read(p []byte) (int, error) {
	r, c := s.r, s.r.c
	for {
		if s.rep == nil {
			if err := s.ask(); err != nil {
				return 0, err
			}
		}
		n, err := s.readOnce(p)
		if n > 0 {
			s.idle = 0
			r.at += int64(n)
			return n, nil // an error comes again with the next read
		}
		if err == nil {
			continue
		}
		s.drop()
		if s.ctx.Err() != nil {
			return 0, context.Cause(s.ctx)
		}
		c.mu.Lock()
		size, wanted := c.size, r.wantedLocked()
		c.mu.Unlock()
		if err == io.EOF {
			if size < 0 || r.at == size {
				return 0, io.EOF
			}
			err = io.ErrUnexpectedEOF
		}
		if !wanted {
			return 0, errLeft
		}
		if s.idle++; s.idle >= attempts {
			return 0, err
		}
	}
}

// readOnce reads from the current reply. One that is silent for Stall is ended,
// so that another request for the rest overtakes it.
func (s *stream) readOnce(p []byte) (n int, err error) {
	f := s.r.c.f
	body := s.rep.Body
	watchdog := time.AfterFunc(f.cfg.Stall, func() { body.Close() })
	defer func() {
		f.m.fetched.Add(float64(n))
		if !watchdog.Stop() && s.ctx.Err() == nil {
			// The body was closed under the read: what it says from now on,
			// even an end, means nothing.
			s.drop()
			f.m.overtaken.Inc()
			err = &TimeoutError{After: f.cfg.Stall}
		}
	}()
	defer f.guard(&err)
	return body.Read(p)
}

// ask requests the rest of the run and checks that the answer continues what
// is there.
func (s *stream) ask() error {
	r, c, f := s.r, s.r.c, s.r.c.f
	c.mu.Lock()
	a := &Ask{Resource: r.resourceLocked()}
	if c.rangesLocked() {
		a.Ranged = true
		a.Range = byterange.Range{Start: r.at, End: min(r.end*ChunkSize, c.size)}
		a.IfRange = c.strong
	}
	size, strong := c.size, c.strong
	c.mu.Unlock()
	s.asked = a.Resource

	rep, err := f.ask(s.ctx, a)
	if err != nil {
		return err
	}
	switch {
	case rep.Status == 200 && strong != "" && rep.Strong == strong && (rep.Size == size || size < 0 || rep.Size < 0):
		// The same, all of it.
		s.rep = rep
		if a.Ranged {
			f.cfg.Source.LearnNoRanges(a.Resource)
			if r.becomeWhole() {
				return errLeft
			}
		}
		return s.skip(r.at)
	case rep.Status == 200:
		s.successor = rep
		return ErrChanged
	case rep.Status == 206 && a.Ranged && rep.Size == size && (rep.Strong == strong || rep.Strong == ""):
		if rep.Range.Start != r.at || rep.Range.End > a.Range.End {
			rep.Body.Close()
			return fmt.Errorf("the origin answered bytes [%d, %d) to a request for [%d, %d)", rep.Range.Start, rep.Range.End, a.Range.Start, a.Range.End)
		}
		s.rep = rep
		return nil
	case rep.Status == 206 && a.Ranged, rep.Status == 416, rep.Status == 412:
		rep.Body.Close()
		return ErrChanged
	}
	rep.Body.Close()
	return &StatusError{Status: rep.Status, Header: rep.Header}
}

// becomeWhole turns a run in part into one over everything, because the origin
// sends everything whatever it is asked for. It reports whether another run
// does that already.
func (r *run) becomeWhole() (covered bool) {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.runs {
		if x != r && x.whole && x.next <= r.next && x.allLocked() {
			return true
		}
	}
	r.whole, r.end = true, c.chunksLocked()
	c.changedLocked()
	return false
}

// skip reads past the first n bytes of a whole body, which were read before.
func (s *stream) skip(n int64) error {
	buf := make([]byte, 64<<10)
	for n > 0 {
		k, err := s.readOnce(buf[:min(int64(len(buf)), n)])
		if n -= int64(k); n > 0 && err != nil {
			s.drop()
			return fmt.Errorf("reading past what is there: %w", err)
		}
	}
	return nil
}
