package durable

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
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
