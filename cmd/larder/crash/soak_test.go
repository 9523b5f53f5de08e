package crash_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// How long the soak lasts, unless LARDER_SOAK says so: make soak, an hour.
const (
	soakTime  = 25 * time.Second
	soakShort = 8 * time.Second
)

// A soak is a series of lives of a node that is asked for everything while what
// can go wrong goes wrong.
type soak struct {
	series
	lives, kills, faults, moved, flipped int
	served                               atomic.Int64 // answers right and whole
	troubled                             atomic.Int64 // answers refused or cut
	memory                               int64        // most that the node took, in bytes
}

// Whatever happens at the same time, origins that fail, drives that go away and
// come back, bits that flip on disks, kills, restarts, new versions: no byte that
// is served is wrong, and in the end all is served. The seed repeats what is done,
// not when: LARDER_CRASH_SEED=n LARDER_SOAK=1h.
func TestSoak(t *testing.T) {
	t.Parallel()
	length := soakTime
	if testing.Short() || lardertest.Race {
		length = soakShort
	}
	if text := os.Getenv("LARDER_SOAK"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("LARDER_SOAK: %v", err)
		}
		length = d
	}
	s := &soak{series: series{world: &world{origin: lardertest.NewOrigin(t)}, dir: t.TempDir(), yaml: config(killDrives, "upstream: {silence_timeout: 1s}")}}
	s.seed = number(t, "LARDER_CRASH_SEED", uint64(time.Now().UnixNano()))
	t.Logf("to repeat: LARDER_CRASH_SEED=%d", s.seed)
	s.populate()
	r := rand.New(rand.NewPCG(s.seed, 0))
	for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); {
		s.lives++
		// Each life is a test of its own, so that only a node that failed tells
		// what it said.
		t.Run(fmt.Sprintf("life %d", s.lives), func(t *testing.T) { s.soakLife(t, r, min(time.Until(end), time.Duration(2+r.IntN(8))*time.Second)) })
	}
	s.origin.SetEvery(lardertest.Behaviour{})
	t.Run("everything in the end", s.lookAtEverything)
	t.Logf("%d lives, %d of them ended by a kill; %d faults of the origin, %d drives taken away, %d bits flipped; %d answers whole and right, %d refused or cut; %d MiB compared, %d MiB of memory at most",
		s.lives, s.kills, s.faults, s.moved, s.flipped, s.served.Load(), s.troubled.Load(), s.compared.Load()/mib, s.memory/mib)
	if s.served.Load() < 10 {
		t.Errorf("%d answers were whole and %d were not: too little was served to tell anything", s.served.Load(), s.troubled.Load())
	}
	if s.memory > 500*mib {
		t.Errorf("the node took %d MiB of memory", s.memory/mib)
	}
}

// soakLife runs the node for a while with clients and trouble, and ends it one
// way or another.
func (s *soak) soakLife(t *testing.T, r *rand.Rand, d time.Duration) {
	n := start(t, s.origin, s.dir, s.yaml)
	c := s.client(n)
	defer c.close()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var wg sync.WaitGroup
	for i := range clients {
		r := rand.New(rand.NewPCG(r.Uint64(), uint64(i)))
		wg.Go(func() {
			for ctx.Err() == nil && !t.Failed() {
				switch _, err := c.do(ctx, s.anyAsk(r)); {
				case errors.Is(err, errWrong):
					t.Errorf("%v", err)
				case err == nil:
					s.served.Add(1)
				case ctx.Err() == nil:
					s.troubled.Add(1)
				}
			}
		})
	}
	changes := rand.New(rand.NewPCG(r.Uint64(), clients))
	wg.Go(func() { s.changeNowAndThen(ctx, changes) })
	away := ""
	for ctx.Err() == nil && !t.Failed() {
		s.trouble(t, r, &away)
		s.memory = max(s.memory, int64(n.Metric("process_resident_memory_bytes")))
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(50+r.IntN(400)) * time.Millisecond):
		}
	}
	s.origin.SetEvery(lardertest.Behaviour{Pace: pace})
	if panics := n.Metric("larder_front_panics_total"); panics != 0 {
		t.Errorf("%g panics", panics)
	}
	if r.IntN(2) == 0 {
		s.kills++
		n.Kill()
		wg.Wait()
	} else {
		wg.Wait()
		if err := n.Stop(); err != nil {
			t.Errorf("the node did not stop well: %v", err)
		}
	}
	s.bring(t, &away)
	s.flip(t, r)
	s.origin.Reset()
}

// trouble makes something go wrong, or well again.
func (s *soak) trouble(t *testing.T, r *rand.Rand, away *string) {
	t.Helper()
	switch n := r.IntN(12); {
	case n < 7: // mostly all is well
		s.origin.SetEvery(lardertest.Behaviour{Pace: pace})
	case n < 10:
		s.faults++
		s.origin.SetEvery([]lardertest.Behaviour{
			{Reset: true}, {Status: 503}, {Status: 500}, {Truncate: true, After: r.Int64N(2 * mib)}, {Stall: true, After: r.Int64N(mib), StallFor: 300 * time.Millisecond},
			{Pace: 200 * kib}, {IgnoreRange: true}, {Delay: 100 * time.Millisecond}, {Chunked: true, IgnoreRange: true}, {NoKeepAlive: true},
		}[r.IntN(10)])
	case *away == "":
		// The small drive goes: what lies on it is away with it.
		s.moved++
		*away = filepath.Join(s.dir, "small")
		if err := os.Rename(*away, *away+"-away"); err != nil {
			t.Errorf("taking a drive away: %v", err)
		}
	default:
		s.bring(t, away)
	}
}

// bring puts a drive back that was taken away.
func (s *soak) bring(t *testing.T, away *string) {
	t.Helper()
	if *away == "" {
		return
	}
	if _, err := os.Lstat(*away); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v: the node made something in the place of a drive that was away", err)
		if err := os.RemoveAll(*away); err != nil {
			t.Error(err)
		}
	}
	if err := os.Rename(*away+"-away", *away); err != nil {
		t.Errorf("bringing a drive back: %v", err)
	}
	*away = ""
}

// flip changes bits of some objects on the drives of a node that does not run.
func (s *soak) flip(t *testing.T, r *rand.Rand) {
	t.Helper()
	for _, d := range killDrives {
		names := objectFiles(t, filepath.Join(s.dir, filepath.Base(d.path)))
		for range min(3, len(names)) {
			name := names[r.IntN(len(names))]
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if fi, err := f.Stat(); err == nil && fi.Size() > 0 {
				var b [1]byte
				at := r.Int64N(fi.Size())
				if _, err := f.ReadAt(b[:], at); err == nil {
					b[0] ^= 1 << r.IntN(8)
					if _, err := f.WriteAt(b[:], at); err != nil {
						t.Error(err)
					}
					s.flipped++
				}
			}
			f.Close()
		}
	}
}
