package store

import (
	"errors"
	"io/fs"
	"os"

	"larder/internal/sys/disk"
)

// fileSystem is what the store asks of the system below it; tests put faults here.
type fileSystem interface {
	// Open opens the file of an object. With create it is made, or emptied.
	Open(name string, create bool) (file, error)
	Remove(name string) error // nothing there: no error
	Mkdir(name string) error  // there already: no error
	Stat(name string) (fs.FileInfo, error)
	Allocated(name string) (int64, error) // bytes on disk
	Usage(dir string) (disk.Space, error)
	SyncFS(dir string) error
	Probe(dir string) error // writes, syncs, reads and removes a small file
}

// file is a file of an object.
type file interface {
	ReadAt(b []byte, off int64) (int, error)
	WriteAt(b []byte, off int64) (int, error)
	PunchHole(off, n int64) error
	Close() error
	OS() *os.File // for sendfile
}

// system is the real fileSystem.
type system struct{}

type systemFile struct{ *os.File }

func (f systemFile) OS() *os.File { return f.File }

func (f systemFile) PunchHole(off, n int64) error { return disk.PunchHole(f.File, off, n) }

func (system) Open(name string, create bool) (file, error) {
	flag := os.O_RDWR
	if create {
		flag |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	if create {
		if err := disk.MakeSparse(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return systemFile{f}, nil
}

func (system) Remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (system) Allocated(name string) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	n, err := disk.Allocated(f)
	return n, errors.Join(err, f.Close())
}

func (system) Mkdir(name string) error {
	if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (system) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }
func (system) Usage(dir string) (disk.Space, error)  { return disk.Usage(dir) }
func (system) SyncFS(dir string) error               { return disk.SyncFS(dir) }

func (system) Probe(dir string) (err error) {
	f, err := os.CreateTemp(dir, probePrefix+"*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	const word = "larder was here"
	if _, err := f.WriteString(word); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	b := make([]byte, len(word))
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	if string(b) != word {
		return &fs.PathError{Op: "read", Path: f.Name(), Err: errors.New("read back something else than was written")}
	}
	return nil
}
