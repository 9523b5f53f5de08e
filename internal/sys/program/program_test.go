package program

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, aside := filepath.Join(dir, "larder"), filepath.Join(dir, "old")
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(name, []byte("program"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(path)
	w, err := Of(path)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	want := func(what string, minute int, want time.Time) {
		t.Helper()
		if got := w.Replaced(start.Add(time.Duration(minute) * time.Minute)); !got.Equal(want) {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	want("nothing happened", 1, time.Time{})
	if err := os.Rename(path, aside); err != nil { // as Windows' installers do
		t.Fatal(err)
	}
	want("it is gone", 2, time.Time{})
	write(path)
	want("another is there", 3, start.Add(3*time.Minute))
	want("for longer", 9, start.Add(3*time.Minute))
	if err := os.Rename(aside, path); err != nil {
		t.Fatal(err)
	}
	want("the old one is back", 10, time.Time{})
	if w, err := Running(); err != nil || !w.Replaced(start).IsZero() {
		t.Errorf("the test's own program: %v", err)
	}
}
