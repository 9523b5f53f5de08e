package durable

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestWriteFileReplacesWhole(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "state.json")
	for _, want := range []string{"first", "second, which is longer", ""} {
		if err := WriteFile(name, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || string(got) != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", fi.Mode().Perm())
	}
}

// Who reads while the file is replaced finds it whole, on Windows too, which does
// not open a file in that moment.
func TestReadFileWhileItIsReplaced(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "state.json")
	content := [2]string{strings.Repeat("a", 1000), strings.Repeat("b", 1000)}
	if err := WriteFile(name, []byte(content[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var written atomic.Bool
	wg.Go(func() {
		tick := time.NewTicker(time.Millisecond) // Windows replaces nothing that is always open
		defer tick.Stop()
		for ; !written.Load(); <-tick.C {
			if got, err := ReadFile(name); err != nil || string(got) != content[0] && string(got) != content[1] {
				t.Errorf("%d bytes, %v", len(got), err)
				return
			}
		}
	})
	for i := range 200 {
		if err := WriteFile(name, []byte(content[i%2]), 0o600); err != nil {
			t.Errorf("%d: %v", i, err)
			break
		}
	}
	written.Store(true)
	wg.Wait()
}

func TestWriteFileLeavesNothingBehindOnFailure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "taken")
	// A directory with something in it cannot be replaced by a file.
	if err := os.MkdirAll(filepath.Join(name, "child"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(name, []byte("x"), 0o600); err == nil {
		t.Fatal("replaced a directory by a file")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestWriteFileByAnotherTemporaryFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "state.json")
	var temp string
	err := WriteFileBy(func(in, pattern string) (*os.File, error) {
		f, err := os.CreateTemp(in, pattern)
		if err == nil {
			temp = f.Name()
		}
		return f, err
	}, name, []byte("x"), 0o600)
	if err != nil || filepath.Dir(temp) != dir {
		t.Fatalf("made %s, %v; want it in %s", temp, err, dir)
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := WriteFileBy(func(string, string) (*os.File, error) { return nil, os.ErrPermission }, name, nil, 0o600); !os.IsPermission(err) {
		t.Errorf("no temporary file: %v", err)
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != "x" {
		t.Errorf("after a failure: %q, %v", got, err)
	}
}

func TestWriteFileNeedsItsDirectory(t *testing.T) {
	t.Parallel()
	if err := WriteFile(filepath.Join(t.TempDir(), "none", "f"), nil, 0o600); !os.IsNotExist(err) {
		t.Errorf("got %v, want a does-not-exist error", err)
	}
}

func TestSyncDir(t *testing.T) {
	t.Parallel()
	if err := SyncDir(t.TempDir()); err != nil {
		t.Error(err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	if err := SyncDir(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no error for a directory that does not exist")
	}
}
