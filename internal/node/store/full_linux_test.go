package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"larder/internal/sys/disk"
)

// smallDisk mounts a file system of its own of size bytes, or skips the test.
func smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	err := unix.Mount("none", dir, "tmpfs", 0, "size="+size)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENODEV) {
		t.Skipf("needs a disk that can be filled: mounting one: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return dir
}

// occupy takes all that is free.
func occupy(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !disk.IsFull(err) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStartOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		stop func(testing.TB, *Store)
		harm func(drive string) error
	}{
		{"after a clean stop", closeStore, nil},
		{"after a kill", func(_ testing.TB, s *Store) { abandon(s) }, nil},
		{"with a damaged index", closeStore, func(drive string) error {
			return os.WriteFile(filepath.Join(drive, indexName), make([]byte, 8192), 0o600)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mount := smallDisk(t, "24m")
			o := options(filepath.Join(mount, "drive"), 20*mib)
			s := open(t, o)
			for i := range 10 {
				fill(t, s, fmt.Sprint(i), mib)
			}
			if err := (*s.slots.Load())[0].vol.Load().flush(); err != nil {
				t.Fatal(err)
			}
			c.stop(t, s)
			if c.harm != nil {
				if err := c.harm(o.Drives[0].Path); err != nil {
					t.Fatal(err)
				}
			}
			occupy(t, filepath.Join(mount, "others"))
			s = open(t, o)
			there := 0
			for i := range 10 {
				there += max(0, get(t, s, fmt.Sprint(i)))
			}
			if c.harm == nil && there < 8 {
				t.Errorf("%d of 10 objects survived", there)
			}
			if err := os.Remove(filepath.Join(mount, "others")); err != nil {
				t.Fatal(err)
			}
			for i := range 12 {
				fill(t, s, fmt.Sprint("new ", i), mib)
			}
			if get(t, s, "new 11") != 1 {
				t.Error("nothing can be stored when there is room again")
			}
			audit(t, s)
		})
	}
}
