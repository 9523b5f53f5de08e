// Package program says whether the program that runs is still the one that is
// installed.
package program

import (
	"io/fs"
	"os"
	"sync"
	"time"
)

// Watch knows the file that a process was started from. It may be used by
// several goroutines.
type Watch struct {
	path string
	file fs.FileInfo

	mu   sync.Mutex
	seen time.Time // when it was another file first; guarded by mu
}

// Running is the file of this process. Ask for it early: what is there by then
// is taken for what runs.
func Running() (*Watch, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return Of(path)
}

// Of is any file.
func Of(path string) (*Watch, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &Watch{path: path, file: fi}, nil
}

// Replaced is when another file was first seen in the place of the one that
// runs; zero if none was. A program cannot be written to while it runs, so an
// update is always another file. One that is gone was not replaced.
func (w *Watch) Replaced(now time.Time) time.Time {
	fi, err := os.Stat(w.path)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err != nil:
	case os.SameFile(fi, w.file):
		w.seen = time.Time{}
	case w.seen.IsZero():
		w.seen = now
	}
	return w.seen
}
