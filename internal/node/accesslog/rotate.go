package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
)

// rotating is a file that grows by whole lines up to a size, and is put aside
// then. It is used by one goroutine.
type rotating struct {
	path    string
	maxSize int64 // 0: no limit
	keep    int

	f     *os.File // nil after an attempt to open it failed
	torn  bool     // the last write ended within a line
	stuck error    // why the file could not be put aside, and grows on
}

func (r *rotating) open() error {
	// Addresses of clients are nobody else's business.
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	r.f = f
	return nil
}

func (r *rotating) close() error {
	if r.f == nil {
		return nil
	}
	f := r.f
	r.f = nil
	return f.Close()
}

// reopen goes over to what the path names now.
func (r *rotating) reopen() error {
	old := r.f
	if err := r.open(); err != nil {
		return err
	}
	r.torn = false
	if old != nil {
		return old.Close()
	}
	return nil
}

// write appends count lines. It returns how many bytes were written, and how
// many lines were not when it failed.
func (r *rotating) write(lines []byte, count int) (written int64, lost int, err error) {
	for len(lines) > 0 {
		var n int
		n, err = r.writeSome(lines)
		written += int64(n)
		count -= bytes.Count(lines[:n], []byte{'\n'})
		lines = lines[n:]
		if err != nil {
			return written, count, err
		}
	}
	return written, 0, nil
}

// writeSome appends as many lines as there is room for, at least one.
func (r *rotating) writeSome(lines []byte) (int, error) {
	if r.f == nil {
		if err := r.open(); err != nil {
			return 0, err
		}
	}
	if r.maxSize > 0 {
		// Asked, not counted: others may truncate the file (copytruncate).
		info, err := r.f.Stat()
		if err != nil {
			return 0, err
		}
		first := bytes.IndexByte(lines, '\n') + 1
		room := r.maxSize - info.Size()
		if info.Size() > 0 && room < int64(first) {
			// A file over its size is better than lost records.
			if r.stuck = r.putAside(); r.f == nil {
				if err := r.open(); err != nil {
					return 0, errors.Join(err, r.stuck)
				}
			}
			room = r.maxSize
		}
		if room < int64(len(lines)) {
			fits := bytes.LastIndexByte(lines[:max(room, 0)], '\n') + 1
			lines = lines[:max(fits, first)]
		}
	}
	if r.torn {
		if _, err := r.f.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		r.torn = false
	}
	n, err := r.f.Write(lines)
	if n > 0 {
		r.torn = lines[n-1] != '\n'
	}
	return n, err
}

// putAside renames path.1 to path.2 and so on, path to path.1, and starts a new
// file. The file is closed first: Windows renames no open ones.
func (r *rotating) putAside() error {
	if err := r.close(); err != nil {
		return err
	}
	r.torn = false
	name := func(i int) string {
		if i == 0 {
			return r.path
		}
		return r.path + "." + strconv.Itoa(i)
	}
	if err := os.Remove(name(r.keep)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("making room for an older log: %w", err)
	}
	for i := r.keep; i > 0; i-- {
		if err := os.Rename(name(i-1), name(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("putting a log aside: %w", err)
		}
	}
	return r.open()
}
