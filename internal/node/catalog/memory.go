package catalog

import (
	"bytes"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// Memory are files of one directory that lie in memory, by name: the FS of a
// Source that is not on a disk.
type Memory map[string][]byte

// Open opens a file, for fs.FS.
func (m Memory) Open(name string) (fs.File, error) {
	data, ok := m[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &memoryFile{memoryInfo{name, int64(len(data))}, bytes.NewReader(data)}, nil
}

// ReadDir lists the files, for fs.ReadDirFS.
func (m Memory) ReadDir(name string) ([]fs.DirEntry, error) {
	if name != "." {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var list []fs.DirEntry
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, fs.FileInfoToDirEntry(memoryInfo{name, int64(len(m[name]))}))
	}
	return list, nil
}

type memoryFile struct {
	memoryInfo
	*bytes.Reader
}

func (f *memoryFile) Stat() (fs.FileInfo, error) { return f.memoryInfo, nil }
func (f *memoryFile) Close() error               { return nil }

// Size is the length in bytes; both embedded types have one.
func (f *memoryFile) Size() int64 { return f.memoryInfo.size }

type memoryInfo struct {
	name string
	size int64
}

func (i memoryInfo) Name() string       { return i.name }
func (i memoryInfo) Size() int64        { return i.size }
func (i memoryInfo) Mode() fs.FileMode  { return 0o444 }
func (i memoryInfo) ModTime() time.Time { return time.Time{} }
func (i memoryInfo) IsDir() bool        { return false }
func (i memoryInfo) Sys() any           { return nil }
