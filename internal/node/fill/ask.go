package fill

import (
	"context"
	"io"
	"math"
	"sync"
	"time"

	"larder/internal/byterange"
)

// first makes the first request for a resource: in part when that is enough,
// whole when the origin cannot or will not answer in part.
func (f *Filler) first(ctx context.Context, resource any, w Want) (*Reply, error) {
	a := &Ask{Resource: resource, Revalidate: w.Revalidate}
	if !w.Whole && !w.Revalidate && !f.cfg.Source.NoRanges(resource) {
		a.Ranged, a.Range = true, f.firstRange(w)
	}
	for {
		rep, err := f.ask(ctx, a)
		if err != nil {
			return nil, err
		}
		switch {
		case rep.Status == 304 && a.Revalidate:
			return rep, nil
		case rep.Status == 206 && !a.Ranged:
			rep.Body.Close()
			return nil, ErrUnaskedPart
		case rep.Status == 200 && a.Ranged && rep.Size > a.Range.Start && (rep.Size > a.Range.End || a.Range.Start > 0):
			f.cfg.Source.LearnNoRanges(resource)
			return rep, nil
		case rep.Status == 206 && rep.Range.Start == 0 && rep.Range.End == rep.Size:
			rep.Status = 200 // nothing has to bind it to other parts
			rep.Range = byterange.Range{}
			rep.Header.Del("Content-Range")
			return rep, nil
		case rep.Status == 206 && (rep.Range.Start != a.Range.Start || rep.Range.End > min(a.Range.End, rep.Size) || rep.Range.Len() <= 0):
			f.log.WarnContext(ctx, "origin answered with another range than asked", "asked", a.Range, "got", rep.Range, "size", rep.Size)
		case rep.Status == 206 && rep.Strong == "":
			// Parts that nothing binds together must not be combined.
		case rep.Status == 416 && a.Ranged && rep.Size > 0 && w.Range.Start >= rep.Size && !w.probes():
			rep.Body.Close()
			return nil, &UnsatisfiedError{Size: rep.Size}
		case rep.Status == 416 && a.Ranged && rep.Size > a.Range.Start && rep.Size < a.Range.End:
			// A strict origin that does not clamp (RFC 9110 14.1.2 says it should).
			rep.Body.Close()
			a.Range.End = rep.Size
			continue
		case rep.Status == 416 && a.Ranged:
		default:
			return rep, nil
		}
		rep.Body.Close()
		a.Ranged, a.Range = false, byterange.Range{}
	}
}

// probes reports whether one byte is all to ask for: where a range begins so
// far out, nothing lies, and sums would overflow.
func (w *Want) probes() bool { return w.Probe || w.Range.Start > math.MaxInt64/2 }

// firstRange returns the range to ask for before the length is known.
func (f *Filler) firstRange(w Want) byterange.Range {
	if w.probes() {
		return byterange.Range{Start: 0, End: 1}
	}
	r := byterange.Range{Start: w.Range.Start / ChunkSize * ChunkSize}
	r.End = r.Start + f.cfg.RunChunks*ChunkSize
	if w.Range.End >= 0 && w.Range.End < r.End {
		r.End = max(ceilChunk(w.Range.End), r.Start+ChunkSize)
	}
	return r
}

// ask makes one request; one that is silent for Stall is overtaken by another,
// and both are given up after Silence.
func (f *Filler) ask(ctx context.Context, a *Ask) (*Reply, error) {
	type result struct {
		rep *Reply
		err error
		who int
	}
	var cancels []context.CancelFunc
	results := make(chan result, 2)
	launch := func() {
		who := len(cancels)
		actx, cancel := context.WithCancel(ctx)
		cancels = append(cancels, cancel)
		ask := *a // the caller may change its own while the loser still reads
		f.wg.Go(func() {
			rep, err := f.fetch(actx, &ask)
			results <- result{rep, err, who}
		})
	}
	launch()
	flying := 1
	// abandon ends all but the winner, and closes what they still bring.
	abandon := func(winner int) {
		for i, cancel := range cancels {
			if i != winner {
				cancel()
			}
		}
		for range flying {
			f.wg.Go(func() {
				if l := <-results; l.err == nil {
					l.rep.Body.Close()
				}
			})
		}
	}
	stall := time.NewTimer(f.cfg.Stall)
	defer stall.Stop()
	silence := time.NewTimer(f.cfg.Silence)
	defer silence.Stop()
	for {
		select {
		case r := <-results:
			flying--
			if r.err == nil {
				abandon(r.who)
				f.m.fetches.WithLabelValues(outcome(r.rep.Status)).Inc()
				r.rep.Body = &body{ReadCloser: r.rep.Body, cancel: cancels[r.who]}
				return r.rep, nil
			}
			if flying > 0 {
				continue // the other may still answer
			}
			abandon(-1)
			f.m.fetches.WithLabelValues("failed").Inc()
			return nil, r.err
		case <-stall.C:
			f.m.overtaken.Inc()
			launch()
			flying++
		case <-silence.C:
			abandon(-1)
			f.m.fetches.WithLabelValues("silent").Inc()
			return nil, &TimeoutError{After: f.cfg.Silence}
		case <-ctx.Done():
			abandon(-1)
			return nil, context.Cause(ctx)
		}
	}
}

func (f *Filler) fetch(ctx context.Context, a *Ask) (_ *Reply, err error) {
	defer f.guard(&err)
	return f.cfg.Source.Fetch(ctx, a)
}

// A body ends its request when it is closed. It may be closed twice, and while
// it is read.
type body struct {
	io.ReadCloser
	cancel context.CancelFunc
	once   sync.Once
	err    error
}

func (b *body) Close() error {
	b.once.Do(func() {
		b.cancel() // first: a read that is waiting ends at once
		b.err = b.ReadCloser.Close()
	})
	return b.err
}

func outcome(status int) string {
	switch {
	case status == 206:
		return "partial"
	case status == 304:
		return "not_modified"
	case status < 300:
		return "ok"
	case status < 400:
		return "redirect"
	case status < 500:
		return "client_error"
	}
	return "server_error"
}

func ceilChunk(n int64) int64 { return (n + ChunkSize - 1) / ChunkSize * ChunkSize }
