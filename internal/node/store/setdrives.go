package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

func (s *Store) newSlot(number int, d Drive) *slot {
	return &slot{s: s, number: number, cfg: d, id: d.ID, state: stateOut, since: time.Now(), over: make(chan struct{})}
}

// start has a slot looked after until Close, or until it is removed.
func (s *Store) start(sl *slot) {
	ctx, cancel := context.WithCancel(s.run)
	sl.cancel = cancel
	s.wg.Go(func() {
		defer close(sl.over)
		sl.run(ctx)
	})
}

func (sl *slot) path() string {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	return sl.cfg.Path
}

// SetDrives makes drives the store's, while it is used. Drives that are new are
// open before anything else changes; if one does not open, all stays as it was
// and the error says why. One with an ID was used before: if it does not open,
// it is taken out and tried again, as at Open, unless no drive is left. A drive that stays may get another budget: what is
// above a lower one is evicted in the background. A drive that goes is left
// cleanly, with what it holds; who reads from it reads on, who comes later does
// not find it. Drives are the same if their paths are.
func (s *Store) SetDrives(ctx context.Context, drives []Drive) error {
	if err := checkList(Options{Drives: drives, Reserve: s.reserve}); err != nil {
		return err
	}
	s.drives.Lock()
	defer s.drives.Unlock()
	if s.closed.Load() {
		return ErrClosed
	}
	old := *s.slots.Load()
	byPath := map[string]*slot{}
	taken := map[int]bool{}
	for _, sl := range old {
		byPath[resolve(sl.path())] = sl
		taken[sl.number] = true
	}
	next := make([]*slot, len(drives))
	var added []*slot
	var out []error // why drives that were used before are out
	undo := func(err error) error {
		errs := []error{err}
		for _, sl := range added {
			s.metrics.unwatch(sl)
			errs = append(errs, sl.close())
		}
		return errors.Join(errs...)
	}
	for i, d := range drives {
		if sl := byPath[resolve(d.Path)]; sl != nil {
			next[i] = sl
			delete(byPath, resolve(d.Path))
			continue
		}
		number := 0
		for taken[number] {
			number++
		}
		taken[number] = true
		sl := s.newSlot(number, d)
		err := context.Cause(ctx)
		if err == nil {
			err = sl.open(true)
		}
		switch {
		case err == nil:
		case d.ID == "" || ctx.Err() != nil:
			return undo(fmt.Errorf("drives[%d]: %w", i, err))
		default:
			s.log.Error("drive taken out", "drive", d.Path, "err", err)
			out = append(out, err)
		}
		added = append(added, sl)
		if err := s.metrics.watch(sl); err != nil {
			return undo(fmt.Errorf("registering the metrics of drive %s: %w", d.Path, err))
		}
		next[i] = sl
	}
	if len(out) == len(drives) {
		return undo(fmt.Errorf("%w: %w", ErrNoDrive, errors.Join(out...)))
	}
	for i, d := range drives {
		sl := next[i]
		sl.mu.Lock()
		sl.cfg.Budget = d.Budget
		if v := sl.vol.Load(); v != nil {
			v.setBudget(d.Budget)
		}
		sl.mu.Unlock()
	}
	s.slots.Store(&next)
	for _, sl := range added {
		s.start(sl)
	}
	var errs []error
	for _, sl := range byPath {
		errs = append(errs, s.remove(sl))
	}
	return errors.Join(errs...)
}

// remove leaves a drive that is no longer among the slots.
func (s *Store) remove(sl *slot) error {
	sl.cancel()
	<-sl.over
	s.metrics.unwatch(sl)
	v := sl.vol.Swap(nil)
	if v == nil {
		return nil
	}
	// Nobody finds its objects any more; those who hold one read on.
	s.dropVolume(v)
	err := v.close()
	v.fail(stateOut, errRemoved)
	s.dropVolume(v) // what was looked up in between
	s.log.Info("drive removed", "drive", v.dir)
	return err
}

var errRemoved = errors.New("the drive was removed")

// ChecksumFailures is how many chunks were found different from what was
// written since the store was opened.
func (s *Store) ChecksumFailures() int64 { return s.metrics.rotten.Load() }
