// Package disk asks the system what only it knows about file systems and
// files: room, blocks, locks, and what kind of trouble an error is.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Space is what a file system says about itself, in bytes.
type Space struct {
	Total int64 // size of the file system
	Free  int64 // what a process without privileges may still take
	Block int64 // unit of allocation
}

// Usage returns the room on the file system that holds path.
func Usage(path string) (Space, error) {
	s, err := usage(path)
	if err != nil {
		return Space{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return s, nil
}

// Allocated returns the bytes f takes on disk, which for a sparse file are
// fewer than its length.
func Allocated(f *os.File) (int64, error) { return allocated(f) }

// MakeSparse lets holes in f take no room. Only Windows needs to be told.
func MakeSparse(f *os.File) error { return makeSparse(f) }

// PunchHole frees the blocks of n bytes of f at off; f keeps its length. Where
// that cannot be done the error is errors.ErrUnsupported.
func PunchHole(f *os.File, off, n int64) error {
	if err := punchHole(f, off, n); err != nil {
		return &os.PathError{Op: "punch a hole", Path: f.Name(), Err: err}
	}
	return nil
}

// SyncFS writes out everything the file system that holds dir has in memory.
// Systems that cannot do that for one file system return errors.ErrUnsupported.
func SyncFS(dir string) error { return syncFS(dir) }

// MaxFiles returns how many files this process may have open at once.
func MaxFiles() int { return maxFiles() }

// IsFull reports whether err says that there is no room left on the disk or in
// the owner's quota.
func IsFull(err error) bool { return isFull(err) }

// IsReadOnly reports whether err says that the file system does not take writes.
func IsReadOnly(err error) bool { return isReadOnly(err) }

// ErrLocked is what Lock returns when another process (or another Lock of this
// one) holds the lock.
var ErrLocked = errors.New("locked by another process")

// A FileLock is held until Unlock, or until the process ends however it ends.
type FileLock struct {
	f *os.File
}

// Lock takes the lock that the file at path stands for, creating the file, and
// notes this process's id in it for people. It never waits. A symbolic link is
// not followed: the directory may belong to an account with fewer rights.
func Lock(path string) (*FileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(f, true); err != nil {
		holder := holderOf(f)
		_ = f.Close() // nothing was written
		if errors.Is(err, ErrLocked) {
			return nil, fmt.Errorf("%s: %w%s", path, ErrLocked, holder)
		}
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	// The number is a help for people; the lock does not depend on it.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &FileLock{f: f}, nil
}

// Held reports whether somebody holds the lock that the file at path stands
// for. It takes nothing away from one that is just taking it, and a file that
// is not there is not held.
func Held(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	switch err := lock(f, false); {
	case errors.Is(err, ErrLocked):
		return true, nil
	case err != nil:
		return false, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return false, unlock(f)
}

// Unlock gives the lock up. The file stays: removing it would let two processes
// hold locks on two files of one name.
func (l *FileLock) Unlock() error {
	// Closing alone would leave the lock to a child that is just being started
	// and still has a copy of the file.
	return errors.Join(unlock(l.f), l.f.Close())
}

func holderOf(f *os.File) string {
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}
