package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"larder/internal/node/store/index"
	"larder/internal/sys/disk"
)

const (
	tick = time.Second // between looks at a drive

	defaultReserve = 1 << 30
	maxHeadroom    = 16 << 30
)

// newVolume makes the volume of an index that is open, and marks it as in use.
func (s *Store) newVolume(d Drive, id string, ix indexer, l *disk.FileLock, st index.State) (*volume, error) {
	space, err := s.fs.Usage(d.Path)
	if err != nil {
		return nil, err
	}
	v := &volume{
		s: s, dir: d.Path, id: id, fs: s.fs, ix: ix, lock: l,
		block: min(max(512, space.Block), ChunkSize), first: st.NextID, epoch: st.Epoch, hand: st.Hand, scrubbed: st.Scrub,
		keep: s.reserve,
		wake: make(chan struct{}, 1), now: make(chan struct{}, 1), crowd: make(chan struct{}, 1), look: make(chan struct{}, 1),
		done: make(chan struct{}), quit: make(chan struct{}), stop: make(chan struct{}),
	}
	if v.keep == 0 {
		v.keep = min(defaultReserve, space.Total/50)
	}
	_, v.again = s.seen.LoadOrStore(id, true)
	v.setBudget(d.Budget)
	// What a disk does while nobody looks, or a kill in the middle of a write,
	// is found before the bytes are served: each start reads each chunk once
	// against its checksum, when it is first asked for.
	v.epoch++
	if v.unclean = st.Dirty; v.unclean {
		s.log.Info("drive was not left cleanly: what lies there is looked through", "drive", d.Path)
	}
	v.watch.quarter = s.hang / 4
	v.sweep.Store(st.Sweep)
	v.used.Store(st.Used)
	v.objects.Store(st.Objects)
	v.free.Store(space.Free)
	v.nextID.Store(st.NextID)
	v.maxID.Store(st.NextID + idLead)
	// From here on a stop without close is seen as such, and ids of files that
	// were made in between are not given out again.
	err = ix.Mark(index.State{Epoch: v.epoch, Dirty: true, Sweep: true, NextID: v.maxID.Load()})
	if err != nil {
		return nil, fmt.Errorf("marking the index as in use: %w", err)
	}
	return v, nil
}

// setBudget says how many bytes on disk the objects may take. Above it nothing
// more is taken, and the evictor goes down to it at its next look.
func (v *volume) setBudget(n int64) {
	headroom := min(n*3/100, maxHeadroom)
	v.budget.Store(n)
	v.low.Store(n - headroom)
	v.high.Store(n - headroom/2)
}

// start starts the goroutines that close, or retire, waits for.
func (v *volume) start() {
	v.writer.Go(v.write)
	v.helpers.Go(v.evictor)
	v.helpers.Go(v.sweeper)
	v.helpers.Go(v.watchdog)
	if v.s.scrubRate > 0 {
		v.helpers.Go(func() { v.scrubber(v.scrubbed) })
	}
}

// ending returns a context that ends when the helpers are to end.
func (v *volume) ending() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	stop := make(chan struct{})
	v.helpers.Go(func() {
		defer cancel()
		select {
		case <-v.done:
		case <-v.quit:
		case <-stop:
		}
	})
	return ctx, func() { close(stop) }
}

// live looks at the drive now and then, until ctx or the volume ends.
func (v *volume) live(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var last time.Time // examined
	wanted := false
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-v.done:
			return
		case <-v.look:
			wanted = true
		case <-ticker.C:
			w := v.watch.begin()
			v.poll()
			v.watch.end(w)
			if v.s.readable(v.dir, v.id) != nil {
				wanted = true
			}
			if v.used.Load() > v.high.Load() || v.free.Load() < v.keep {
				signal(v.crowd)
			}
			if n%60 == 0 {
				v.troubles.Store(0)
				wanted = true // one that hangs says so to nobody who does not ask
			}
		}
		if wanted && time.Since(last) >= tick {
			w := v.watch.begin()
			v.examine()
			v.watch.end(w)
			last, wanted = time.Now(), false
		}
	}
}

// close ends the volume, cleanly if it can. A drive that cannot be is none of the
// errors: all was done, and the next start reads it back as after a kill.
func (v *volume) close() error {
	v.ops.Lock()
	v.stopped.Store(true)
	v.ops.Unlock()
	close(v.quit)
	v.helpers.Wait()
	close(v.stop)
	v.writer.Wait()
	v.shut.Store(true)
	if !v.ended.Load() {
		if err := v.leave(); err != nil {
			v.s.log.Error("drive not closed cleanly: the next start reads it back", "drive", v.dir, "err", err)
		}
	}
	return errors.Join(v.ix.Close(), v.lock.Unlock())
}

// leave notes in the index that nothing of what it says is in doubt.
func (v *volume) leave() error {
	v.queueMu.Lock()
	rest := len(v.queue.objects) + len(v.queue.forget)
	v.queueMu.Unlock()
	err := v.fs.SyncFS(v.dir)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("writing what the system holds back: %w", err)
	}
	err = v.ix.Mark(index.State{
		Epoch: v.epoch,
		// Where the data could not be synced, a loss of power may still take
		// it: the next start reads it back as after a kill. Nor is an index
		// that could not be written, for want of room, to be believed.
		Dirty:  err != nil || v.behind.Load(),
		Sweep:  v.sweep.Load() || v.leaving.Load() > 0 || rest > 0,
		NextID: v.nextID.Load(),
	})
	if err != nil {
		return fmt.Errorf("marking it as cleanly closed: %w", err)
	}
	return nil
}
