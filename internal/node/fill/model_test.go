package fill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"larder/internal/byterange"
)

// TestEveryByteIsOfOneGenerationAndEveryReaderEnds lets readers loose on an
// origin that does everything wrong at random. The model is the bytes of each
// generation: what a reader gets is a part of one of them, at the right place,
// and it ends within the time that silence may take.
func TestEveryByteIsOfOneGenerationAndEveryReaderEnds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := world{plan: plan{
			Seed:     rapid.Uint64().Draw(rt, "seed"),
			Size:     rapid.Int64Range(0, 6*mib).Draw(rt, "size"),
			Readers:  rapid.IntRange(1, 12).Draw(rt, "readers"),
			Troubles: rapid.IntRange(0, 12).Draw(rt, "troubles"),
			Changes:  rapid.IntRange(0, 3).Draw(rt, "changes"),
			Buffers:  rapid.IntRange(1, 8).Draw(rt, "buffers"),
			Refusals: rapid.SampledFrom([]int{0, 0, 3, 10}).Draw(rt, "refusals of ten"),
			NoStrong: rapid.IntRange(0, 4).Draw(rt, "validator") == 0,
			NoRanges: rapid.IntRange(0, 4).Draw(rt, "ranges") == 0,
			Strict:   rapid.Bool().Draw(rt, "strict"),
		}}
		var problems []string
		synctest.Test(t, func(t *testing.T) { problems = w.run(t) })
		for _, p := range problems {
			rt.Errorf("%+v: %s", w.plan, p)
		}
	})
}

// A plan is what a world is made of.
type plan struct {
	Seed                                          uint64
	Size                                          int64
	Readers, Troubles, Changes, Buffers, Refusals int
	NoStrong, NoRanges, Strict                    bool
}

type world struct {
	plan

	mu       sync.Mutex
	rng      *rand.Rand
	truth    map[uint64][]byte // by generation of the store
	problems []string
}

func (w *world) chance(n int64) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.Int64N(max(n, 1))
}

func (w *world) problem(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

func (w *world) run(t *testing.T) []string {
	w.rng = rand.New(rand.NewPCG(w.Seed, 0))
	w.truth = map[uint64][]byte{}
	u := newUpstream(w.Size)
	u.noRanges, u.strict = w.NoRanges, w.Strict
	if w.NoStrong {
		u.strong = ""
	}
	left := w.Troubles
	u.trouble = func(int, *Ask) trouble {
		tr := trouble{delay: time.Duration(w.chance(50)) * time.Millisecond, unsized: w.chance(6) == 0}
		if left == 0 {
			return tr
		}
		left--
		switch w.chance(10) {
		case 0:
			tr.cut = 1 + w.chance(2*mib)
		case 1:
			tr.stall = 1 + w.chance(2*mib)
		case 2:
			tr.mutter = true
		case 3:
			tr.mute = true
		case 4:
			tr.err = errors.New("refused")
		case 5:
			tr.status = []int{403, 404, 500, 503, 412, 416}[w.chance(6)]
		case 6:
			tr.ignore = true
		case 7:
			tr.shift = 1 + w.chance(mib)
		case 8:
			tr.panicked = true
		case 9:
			tr.delay = 7 * time.Second
		}
		return tr
	}
	u.gate = func(int, int64) { time.Sleep(time.Duration(w.chance(2000)) * time.Microsecond) }
	u.memory = time.Duration(w.chance(2)) * 2 * time.Second
	u.begin = func(rep *Reply) (*disk, error) {
		d := &disk{u: u, generation: uint64(len(u.disks) + 1), of: rep.Strong, size: rep.Size, refs: 1, chunks: map[int64][]byte{}}
		if w.Refusals > 0 {
			d.refuses = func() bool { return w.chance(10) < int64(w.Refusals) }
		}
		if n := len(u.disks); n > 0 {
			u.disks[n-1].Doom()
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.truth[d.generation] = rep.Body.(*body).ReadCloser.(*flow).of
		return d, nil
	}
	f := newFiller(t, u, Config{Buffers: w.Buffers, RunChunks: 1 + w.chance(5)})

	var wg sync.WaitGroup
	for k := range w.Changes {
		wg.Go(func() {
			time.Sleep(time.Duration(w.chance(10_000)) * time.Millisecond)
			u.mu.Lock()
			strong := u.strong
			u.mu.Unlock()
			if strong != "" {
				strong = fmt.Sprint("change ", k)
			}
			size := w.Size
			if w.chance(2) == 0 {
				size = w.chance(6 * mib)
			}
			u.mu.Lock()
			u.body, u.strong = bytesOf(fmt.Sprint("change ", k), size), strong
			u.mu.Unlock()
		})
	}
	for k := range w.Readers {
		wg.Go(func() {
			time.Sleep(time.Duration(w.chance(3000)) * time.Millisecond)
			for range 3 {
				if !w.client(t.Context(), f, u, k) {
					return
				}
			}
		})
	}
	wg.Wait()
	return w.problems
}

// client asks for a range as a node does, and compares. True: the content
// changed before its first byte, and it is worth another look.
func (w *world) client(ctx context.Context, f *Filler, u *upstream, k int) bool {
	start := w.chance(w.Size)
	end := start + 1 + w.chance(w.Size-start)
	want := Want{Range: byterange.Range{Start: start, End: end}, Whole: w.chance(4) == 0, Probe: w.chance(6) == 0}
	began := time.Now()
	c, err := content(ctx, f, u, want)
	if d := time.Since(began); d > f.cfg.Silence {
		w.problem("reader %d waited %s for the head", k, d)
	}
	if err != nil {
		return false
	}
	defer c.Close()
	w.mu.Lock()
	truth := w.truth[c.obj.Generation()]
	w.mu.Unlock()
	size := c.Size()
	if size < 0 {
		start, end = 0, -1
	} else {
		start, end = min(start, size), min(end, size)
	}
	r := c.NewReader(nil, byterange.Range{Start: start, End: end})
	defer r.Close()
	leaves := 1 + w.chance(8*mib)
	buf := make([]byte, 1+w.chance(256<<10))
	pos := start
	for pos-start < leaves {
		began := time.Now()
		p, err := r.Next(ctx, buf)
		if d := time.Since(began); d > f.cfg.Silence {
			w.problem("reader %d waited %s for a byte", k, d)
		}
		if err != nil {
			if err == io.EOF && pos != end && (end >= 0 || pos != int64(len(truth))) {
				w.problem("reader %d of [%d, %d) came to an end at %d", k, start, end, pos)
			}
			if errors.Is(err, io.ErrNoProgress) && time.Since(began) == 0 {
				w.problem("reader %d: runs end at once, for ever", k)
			}
			return errors.Is(err, ErrChanged) && pos == start
		}
		got := buf
		if p.Stored {
			got = c.obj.(*disk).appendTo(nil, p.Off, p.Len)
		}
		got = got[:p.Len]
		if p.Off != pos || p.Len == 0 || pos+p.Len > int64(len(truth)) || !bytes.Equal(got, truth[pos:pos+p.Len]) {
			w.problem("reader %d of generation %d got %d wrong bytes at %d (%+v)", k, c.obj.Generation(), p.Len, pos, p)
			return false
		}
		pos += p.Len
		if w.chance(5) == 0 {
			time.Sleep(time.Duration(w.chance(3000)) * time.Millisecond) // a thin line
		}
	}
	return false
}
