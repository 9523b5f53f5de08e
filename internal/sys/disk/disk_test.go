package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	s, err := Usage(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if s.Total <= 0 || s.Free < 0 || s.Free > s.Total || s.Block < 512 {
		t.Errorf("implausible: %+v", s)
	}
	if _, err := Usage(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("path that does not exist: %v", err)
	}
}

func TestAllocatedDoesNotCountHoles(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := MakeSparse(f); err != nil {
		t.Fatal(err)
	}
	const offset = 64 << 20
	if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 1<<20), offset); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil { // delayed allocation
		t.Fatal(err)
	}
	n, err := Allocated(f)
	if err != nil {
		t.Fatal(err)
	}
	if n < 1<<20 || n >= offset {
		t.Errorf("allocated %d bytes for 1 MiB behind a hole of 64 MiB", n)
	}
}

func TestLockKeepsASecondOut(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Lock(path)
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("second lock: %v", err)
	}
	if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("%q names neither the file nor the holder", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	l, err = Lock(path)
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
}

func TestLockKeepsASecondProcessOut(t *testing.T) {
	const env = "LARDER_TEST_LOCK"
	if path := os.Getenv(env); path != "" {
		if _, err := Lock(path); errors.Is(err, ErrLocked) {
			fmt.Println("kept out")
		}
		return
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockKeepsASecondProcessOut$", "-test.v")
	cmd.Env = append(os.Environ(), env+"="+path)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "kept out") {
		t.Errorf("second process was let in: %v\n%s", err, out)
	}
}

func TestMaxFiles(t *testing.T) {
	t.Parallel()
	if n := MaxFiles(); n < 16 {
		t.Errorf("MaxFiles() = %d", n)
	}
}

func TestPunchHole(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "full"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 3 << 20
	if _, err := f.WriteAt(bytes.Repeat([]byte{1}, size), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	err = PunchHole(f, 1<<20, 4<<20) // beyond its end
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n, err := Allocated(f); err != nil || n < 1<<20 || n >= 2<<20 {
		t.Errorf("allocated %d bytes, %v; want those of the first MiB", n, err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil || len(b) != size || bytes.Count(b, []byte{1}) != 1<<20 {
		t.Errorf("%d bytes left, %d of them not zero, %v; want the length kept and 1 MiB", len(b), bytes.Count(b, []byte{1}), err)
	}
	r, err := os.Open(f.Name()) // not for writing
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := PunchHole(r, 0, 1<<20); err == nil || !strings.Contains(err.Error(), f.Name()) {
		t.Errorf("a hole in a file that is only read: %v", err)
	}
}
