package store

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"golang.org/x/time/rate"

	"larder/internal/node/store/index"
)

// ScrubResult says what Scrub met.
type ScrubResult struct {
	Objects   int
	Chunks    int64 // read back
	Bytes     int64 // read back
	BadChunks int64 // of these, not right or not readable; absent now
}

// Scrub reads back the chunks of all objects that f selects, at up to bytesPerSecond
// (0: as fast as it goes), and makes those absent that are not right. It does
// not count as asking for the objects.
func (s *Store) Scrub(ctx context.Context, f Filter, bytesPerSecond int64) (ScrubResult, error) {
	var res ScrubResult
	if s.closed.Load() {
		return res, ErrClosed
	}
	limit := limiter(bytesPerSecond)
	for _, v := range s.volumes() {
		err := v.each(f, func(r index.Brief) error { return v.scrub(ctx, r, limit, &res) })
		if err != nil {
			return res, err
		}
	}
	return res, nil
}

func limiter(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), ChunkSize)
}

// scrub reads back one object.
func (v *volume) scrub(ctx context.Context, r index.Brief, limit *rate.Limiter, res *ScrubResult) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	o, err := v.s.load(v.s.shard(string(r.Key)), string(r.Key))
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer o.Release()
	if o.v != v || o.id != r.ID {
		return nil // replaced meanwhile
	}
	res.Objects++
	for i := range o.Chunks() {
		number, w, bit := at(i)
		s := o.segment(number)
		if s == nil || s.present[w].Load()&bit == 0 {
			continue
		}
		n := chunkLen(o.size.Load(), i)
		if limit.Limit() != rate.Inf {
			if err := limit.WaitN(ctx, int(n)); err != nil {
				return err
			}
		} else if err := context.Cause(ctx); err != nil {
			return err
		}
		l := v.stripe(o.id, i)
		l.Lock()
		err := o.check(i, s)
		l.Unlock()
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrGone) {
			continue // lost meanwhile
		}
		res.Chunks++
		res.Bytes += n
		v.s.metrics.scrubbedBytes.Add(float64(n))
		if err != nil {
			res.BadChunks++
			v.s.log.Warn("chunk is bad", "drive", v.dir, "key", o.key, "chunk", i, "err", err)
		}
	}
	return nil
}

// scrubPause is how long the background scrub rests after a round.
const scrubPause = time.Hour

// scrubber reads everything back, round after round, beginning behind the id
// where the last start of the program came to.
func (v *volume) scrubber(after int64) {
	ctx, cancel := v.ending()
	defer cancel()
	limit := limiter(v.s.scrubRate)
	var res ScrubResult
	for {
		rows, err := v.ix.Scan(after, scanRows)
		if err != nil {
			_ = v.indexError(err)
			return
		}
		for _, r := range rows {
			if v.scrub(ctx, r, limit, &res) != nil {
				return // ended
			}
			after = r.ID
			v.change(func(q *queue) { q.scrub = after })
		}
		if len(rows) > 0 {
			continue
		}
		after = 0
		select {
		case <-ctx.Done():
			return
		case <-time.After(scrubPause):
		}
	}
}
