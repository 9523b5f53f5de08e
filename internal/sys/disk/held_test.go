package disk

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

func TestHeldTakesNothingAway(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	if held, err := Held(path); held || err != nil {
		t.Errorf("nobody made it: %v, %v", held, err)
	}
	l, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if held, err := Held(path); !held || err != nil {
		t.Errorf("locked: %v, %v", held, err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	// Many who ask do not take one another for a holder.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if held, err := Held(path); held || err != nil {
					t.Errorf("unlocked: %v, %v", held, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestLockDoesNotFollowLinks(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("links need a right of their own there")
	}
	dir := t.TempDir()
	victim, link := filepath.Join(dir, "victim"), filepath.Join(dir, "lock")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(link); err == nil {
		t.Error("locked through a link")
	}
	if _, err := Held(link); err == nil {
		t.Error("asked through a link")
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
		t.Errorf("the file behind the link: %q, %v", text, err)
	}
}
