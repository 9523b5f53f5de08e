package crash_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"larder/internal/lardertest"
)

// load asks without a pause until it is told to stop, which reports how many
// answers did not come whole. A wrong one fails the test.
func (l *lab) load(t *testing.T, n *lardertest.Node) (stop func() (failed []error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	c := l.client(n)
	for i := range 2 {
		r := rand.New(rand.NewPCG(l.r.Uint64(), uint64(i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				// An answer is waited for even when it is time to stop: what is
				// cut is cut by the node.
				_, err := c.do(t.Context(), l.anyAsk(r))
				if errors.Is(err, errWrong) {
					t.Errorf("%v", err)
				}
				if err != nil {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	return func() []error {
		cancel()
		wg.Wait()
		c.close()
		return failed
	}
}

// driveState returns the state of a drive, by its number.
func driveState(t *testing.T, n *lardertest.Node, number int) string {
	t.Helper()
	return status(t, n).Drives[number].State
}

func TestDriveThatVanishesAndComesBack(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let go of a directory whose files are open")
	}
	l := newLab(t, twoRoomy)
	n := l.start(t)
	l.fill(t, n)
	gone, away := filepath.Join(l.dir, "two"), filepath.Join(l.dir, "away")
	if files := objectFiles(t, gone); len(files) == 0 {
		t.Fatal("nothing lies on the second drive")
	}

	stop := l.load(t, n)
	if err := os.Rename(gone, away); err != nil {
		t.Fatal(err)
	}
	lardertest.Eventually(t, "the drive to be taken out", func() bool { return driveState(t, n, 1) == "out" })
	if state := driveState(t, n, 0); state != "ok" {
		t.Errorf("the other drive is %s, want ok", state)
	}
	l.wantAll(t, n)
	if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory that is gone was made again, or %v; want it left alone", err)
	}
	if err := os.Rename(away, gone); err != nil {
		t.Fatal(err)
	}
	lardertest.Eventually(t, "the drive to be used again", func() bool { return driveState(t, n, 1) == "ok" })
	for _, err := range stop() {
		t.Errorf("while the drive came and went: %v", err)
	}
	l.wantAll(t, n)
	wantWithinBudget(t, n)

	// The same while the node does not run: the empty place is no new drive.
	n.Kill()
	if err := os.Rename(gone, away); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(gone, 0o700); err != nil {
		t.Fatal(err)
	}
	n = l.start(t)
	if state := driveState(t, n, 1); state != "out" {
		t.Errorf("an empty directory in the place of the drive is %s, want out", state)
	}
	l.wantAll(t, n)
	n.Kill()
	if err := errors.Join(os.Remove(gone), os.Rename(away, gone)); err != nil {
		t.Fatal(err)
	}
	n = l.start(t)
	l.wantAll(t, n)
	wantWithinBudget(t, n)
}

// A drive that was away for some versions must not bring old ones back.
func TestDriveThatComesBackWithOldVersions(t *testing.T) {
	t.Parallel()
	l := newLab(t, twoRoomy)
	for i := range 12 {
		l.add("/ask/more-"+string(rune('a'+i)), 200_000)
	}
	n := l.start(t)
	l.fill(t, n)
	n.Kill()
	gone, away := filepath.Join(l.dir, "two"), filepath.Join(l.dir, "away")
	if err := os.Rename(gone, away); err != nil {
		t.Fatal(err)
	}
	for _, it := range l.items {
		if !it.fixed() {
			l.change(it)
		}
	}
	n = l.start(t)
	l.wantAll(t, n)
	n.Kill()
	if err := errors.Join(os.RemoveAll(gone), os.Rename(away, gone)); err != nil {
		t.Fatal(err)
	}
	n = l.start(t)
	l.wantAll(t, n)
	wantWithinBudget(t, n)
}
