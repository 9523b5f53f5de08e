// Package durable puts files in place so that whatever stops the machine, a
// reader finds the old content or the new one, whole.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile replaces name with data: temporary file in the same directory,
// write, sync, rename, sync of the directory. On an error name is as it was
// before and the temporary file is gone.
func WriteFile(name string, data []byte, perm fs.FileMode) error {
	return WriteFileBy(os.CreateTemp, name, data, perm)
}

// WriteFileBy is WriteFile with a temporary file that create makes, as
// os.CreateTemp would: who may read it is settled before there is anything in
// it to read. On Windows perm says no more than whether it may be written.
func WriteFileBy(create func(dir, pattern string) (*os.File, error), name string, data []byte, perm fs.FileMode) (err error) {
	dir, base := filepath.Split(name)
	if dir == "" {
		dir = "."
	}
	f, err := create(dir, "."+base+".tmp-*")
	if err != nil {
		return err
	}
	temp := f.Name()
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreNotExist(os.Remove(temp)))
		}
	}()
	if err := fill(f, data, perm); err != nil {
		return err
	}
	return Rename(temp, name)
}

// fill writes data to f with the given mode, syncs and closes it.
func fill(f *os.File, data []byte, perm fs.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// ReadFile reads a file that WriteFile or Rename may replace meanwhile: the old
// content or the new one. Errors are those of os.ReadFile.
func ReadFile(name string) ([]byte, error) { return readFile(name) }

// Rename moves from to to, replacing it, and syncs the directory of to. The
// content of from must have been synced by the caller.
func Rename(from, to string) error {
	if err := rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// SyncDir makes the names in dir durable. On Windows, where a directory cannot
// be synced and renames are journalled, it does nothing.
func SyncDir(dir string) error {
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("syncing directory %s: %w", dir, err)
	}
	return nil
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
