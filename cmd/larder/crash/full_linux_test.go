package crash_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"larder/internal/lardertest"
	"larder/internal/sys/disk"
)

// smallDisk mounts a file system of its own of size bytes, or skips the test.
func smallDisk(t *testing.T, dir string, size string) {
	t.Helper()
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
}

// free returns the bytes free on the file system of dir.
func free(t *testing.T, dir string) int64 {
	t.Helper()
	space, err := disk.Usage(dir)
	if err != nil {
		t.Fatal(err)
	}
	return space.Free
}

// occupy makes a file of size bytes as others do, or as large as there is
// room; grow appends to it.
func occupy(t *testing.T, name string, size int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 64*kib)
	for size > 0 && err == nil {
		var n int
		n, err = f.Write(block[:min(size, int64(len(block)))])
		size -= int64(n)
	}
	if err != nil && !disk.IsFull(err) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// Others fill the disk that a drive is on, down to the last byte.
func TestDiskThatOthersFill(t *testing.T) {
	t.Parallel()
	t.Run("slowly", func(t *testing.T) {
		t.Parallel()
		fullDisk(t, true)
	})
	// The index, which says what can be evicted, is a second late, and then
	// finds no room.
	t.Run("before the index was written", func(t *testing.T) {
		t.Parallel()
		fullDisk(t, false)
	})
}

func fullDisk(t *testing.T, indexed bool) {
	l := newLab(t, []drive{{"$DIR/disk/drive", 60 * mib}}, "reserve: 16MiB")
	mount := filepath.Join(l.dir, "disk")
	smallDisk(t, mount, "80m")
	others := filepath.Join(mount, "others")
	const reserve = 16 * mib
	for i := range 6 {
		l.add("/fixed/more-"+string(rune('a'+i)), 6*mib) // together more than the disk holds
	}
	n := l.start(t)
	l.wantAll(t, n)
	wantWithinBudget(t, n)
	if got := free(t, mount); got < reserve-mib {
		t.Errorf("%d bytes free before others came, want the reserve of %d", got, reserve)
	}

	if indexed {
		lardertest.Eventually(t, "the index to know what there is", func() bool {
			return int64(l.stored(t, n)) == status(t, n).Drives[0].Objects
		})
	}
	stop := l.load(t, n)
	occupy(t, others, 30*mib)
	lardertest.Eventually(t, "the reserve to be free again beside 30 MiB of others", func() bool {
		return free(t, mount) >= reserve-mib
	})
	lardertest.Eventually(t, "others to get all that the node gives up", func() bool {
		occupy(t, others, 80*mib)
		return status(t, n).Drives[0].Used <= 8*mib
	})
	for _, err := range stop() {
		t.Errorf("while others filled the disk: %v", err)
	}
	l.wantAll(t, n)
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	it := l.items[len(l.items)-1]
	lardertest.Eventually(t, "content to be stored again", func() bool {
		c := l.client(n)
		defer c.close()
		c.wantItem(t, it)
		l.origin.Reset()
		c.wantItem(t, it)
		return l.origin.BytesSent(it.path) == 0
	})
	wantWithinBudget(t, n)
	if err := n.Stop(); err != nil {
		t.Errorf("the node did not stop well: %v", err)
	}
}
