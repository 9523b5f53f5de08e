package crash_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/lardertest"
)

const (
	kills      = 200
	fewKills   = 25 // with -short
	roundKills = 20 // between two looks at everything
	clients    = 6  // at the same time
	// pace is how fast the origin sends one answer, in bytes per second: enough
	// to keep evictions going, little enough that kills meet fetches.
	pace = 16 * mib
	// slack is what file systems take for a file besides its blocks.
	slack = mib
)

// killDrives take a good third of the content.
var killDrives = []drive{{"$DIR/small", 18 * mib}, {"$DIR/large", 37 * mib}}

// A series is a node that is killed and started again on the same drives.
type series struct {
	*world
	seed uint64
	dir  string
	yaml string
	last []ask // what was under way at the last kill

	filling  int   // kills that cut fetches from the origin
	evicting int   // kills of lives that evicted
	orphans  int   // files that starts removed
	starting int   // kills before the node was ready
	fetched  int64 // bytes the origin sent
	beyond   int64 // most bytes on a drive that its node did not count
}

// Whenever a node is killed, what it serves afterwards is right. The seed
// repeats what is asked and when the node is killed; what the kill meets is
// the machine's business: LARDER_CRASH_SEED=n LARDER_CRASH_KILLS=n.
func TestKilledNodeServesRightBytes(t *testing.T) {
	t.Parallel()
	usual := uint64(kills)
	if testing.Short() {
		usual = fewKills
	}
	total := int(number(t, "LARDER_CRASH_KILLS", usual))
	s := &series{world: &world{origin: lardertest.NewOrigin(t)}, dir: t.TempDir(), yaml: config(killDrives)}
	s.seed = number(t, "LARDER_CRASH_SEED", uint64(time.Now().UnixNano()))
	t.Logf("to repeat: LARDER_CRASH_SEED=%d", s.seed)
	s.populate()
	begun := time.Now()
	t.Run("filling the drives", s.lookAtEverything)
	for done := 0; done < total && !t.Failed(); done += roundKills {
		to := min(done+roundKills, total)
		// A round is a test of its own, so that only the nodes of a round that
		// failed tell what they said.
		t.Run(fmt.Sprintf("kills %d to %d", done+1, to), func(t *testing.T) {
			for i := done; i < to && !t.Failed(); i++ {
				s.life(t, rand.New(rand.NewPCG(s.seed, uint64(i))))
			}
			s.lookAtEverything(t)
		})
	}
	t.Logf("%d kills in %.0f s, %d of them during fetches, %d of nodes that were evicting, %d more during starts; %d orphaned files swept, %d KiB on a drive beyond what was counted at most",
		total, time.Since(begun).Seconds(), s.filling, s.evicting, s.starting, s.orphans, s.beyond/kib)
	t.Logf("%d MiB compared with the origin's %d MiB, which sent %d MiB; %d answers whole, %d cut, %d refused",
		s.compared.Load()/mib, s.bytes/mib, s.fetched/mib, s.whole.Load(), s.cut.Load(), s.refused.Load())
	if s.filling < total/4 || s.evicting < total/2 {
		t.Errorf("too few kills met the node at work: %d during fetches, want %d; %d of nodes that were evicting, want %d",
			s.filling, total/4, s.evicting, total/2)
	}
}

// life starts the node, looks at what the last kill may have harmed, loads the
// node and kills it.
func (s *series) life(t *testing.T, r *rand.Rand) {
	t.Helper()
	if r.IntN(10) == 0 {
		s.stillborn(t, r)
	}
	n := start(t, s.origin, s.dir, s.yaml)
	s.lookAtDrives(t, n)
	s.lookAtSample(t, n, r)

	s.origin.SetEvery(lardertest.Behaviour{Pace: pace})
	c := s.client(n)
	defer c.close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var dying atomic.Bool
	var wg sync.WaitGroup
	underWay := make([]ask, clients)
	for i := range clients {
		r := rand.New(rand.NewPCG(r.Uint64(), uint64(i)))
		wg.Go(func() { underWay[i] = s.hammer(ctx, t, c, r, &dying) })
	}
	changes := rand.New(rand.NewPCG(r.Uint64(), clients))
	wg.Go(func() { s.changeNowAndThen(ctx, changes) })

	wait(time.Duration(20+r.IntN(280)) * time.Millisecond)
	evicted := n.Metric("larder_store_evicted_objects_total")
	wait(time.Duration(r.IntN(20_000)) * time.Microsecond)
	dying.Store(true)
	n.Kill()
	if s.fetching() {
		s.filling++
	}
	if evicted > 0 {
		s.evicting++
	}
	cancel()
	wg.Wait()
	s.origin.SetEvery(lardertest.Behaviour{})
	s.last = underWay
	s.fetched += s.origin.BytesSent("")
	s.origin.Reset()
}

// wait lets time pass for a process that nothing else can be waited for.
func wait(d time.Duration) { <-time.After(d) }

// hammer asks until the node dies, and returns what it could not finish.
func (s *series) hammer(ctx context.Context, t *testing.T, c *client, r *rand.Rand, dying *atomic.Bool) ask {
	for {
		a := s.anyAsk(r)
		_, err := c.do(ctx, a)
		switch {
		case errors.Is(err, errWrong):
			t.Errorf("%v", err)
			return a
		case dying.Load():
			return a
		case err != nil && (a.it.fixed() || errors.Is(err, errRefused)):
			// What changes may be cut in the middle, by its change.
			t.Errorf("nobody has killed the node yet: %v", err)
			return a
		}
	}
}

// changeNowAndThen makes new versions of what may change.
func (s *series) changeNowAndThen(ctx context.Context, r *rand.Rand) {
	ticker := time.NewTicker(30 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if it := s.items[r.IntN(len(s.items))]; !it.fixed() {
				s.change(it)
			}
		}
	}
}

// fetching reports whether the origin has an answer that is not sent whole:
// right after a kill, one that the node was storing.
func (s *series) fetching() bool {
	for _, r := range s.origin.Requests() {
		if r.Status != http.StatusPartialContent && r.Status != http.StatusOK {
			continue
		}
		for _, it := range s.items {
			if it.path != r.Path {
				continue
			}
			from, to := ask{it: it, ranges: r.Range}.want(it.base)
			if r.Method == http.MethodGet && r.Sent < to-from {
				return true
			}
		}
	}
	return false
}

// lookAtDrives fails the test unless the accounts of a node that was killed
// are within the budget and its disk holds no more than they say.
func (s *series) lookAtDrives(t *testing.T, n *lardertest.Node) {
	t.Helper()
	wantWithinBudget(t, n)
	for i, d := range killDrives {
		dir := filepath.Join(s.dir, filepath.Base(d.path))
		var onDisk, used int64
		var files int
		ok := poll(5*time.Second, func() bool {
			onDisk, files = allocated(t, dir)
			used = status(t, n).Drives[i].Used
			s.beyond = max(s.beyond, onDisk-used)
			return onDisk <= used+slack
		})
		if !ok {
			t.Errorf("%s: %d files take %d bytes on disk, the node counts %d (budget %d)", dir, files, onDisk, used, d.budget)
		}
	}
	s.orphans += int(n.Metric("larder_store_orphans_removed_total"))
}

// poll reports whether cond became true within limit.
func poll(limit time.Duration, cond func() bool) bool {
	for deadline := time.Now().Add(limit); ; wait(5 * time.Millisecond) {
		if cond() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// lookAtSample asks again for what the last kill cut off, and for a few
// others, from a node that nobody else asks.
func (s *series) lookAtSample(t *testing.T, n *lardertest.Node, r *rand.Rand) {
	t.Helper()
	c := s.client(n)
	defer c.close()
	asks := slices.Clone(s.last)
	for range 2 {
		asks = append(asks, s.anyAsk(r))
	}
	for _, a := range asks {
		if _, err := c.again(t.Context(), a); err != nil {
			t.Errorf("after the restart: %v", err)
		}
	}
}

// stillborn kills the node while it starts.
func (s *series) stillborn(t *testing.T, r *rand.Rand) {
	t.Helper()
	config := filepath.Join(s.dir, "node.yaml")
	if _, err := os.Stat(config); err != nil {
		return // there was no life yet
	}
	cmd := exec.Command(lardertest.Binary(t), "node", "run", "--config", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait(time.Duration(r.IntN(100)) * time.Millisecond)
	_ = cmd.Process.Kill() // fails when it has ended
	_ = cmd.Wait()
	if state := cmd.ProcessState; state.Exited() {
		t.Errorf("the node ended by itself while it started: %v", state)
	}
	s.starting++
}

// lookAtEverything starts the node once more and compares all content.
func (s *series) lookAtEverything(t *testing.T) {
	t.Helper()
	if t.Failed() {
		return
	}
	n := start(t, s.origin, s.dir, s.yaml)
	s.lookAtDrives(t, n)
	c := s.client(n)
	defer c.close()
	c.wantAll(t)
	wantWithinBudget(t, n)
	if err := n.Stop(); err != nil {
		t.Errorf("the node did not stop well: %v", err)
	}
	s.last = nil
	s.fetched += s.origin.BytesSent("")
	s.origin.Reset()
}
