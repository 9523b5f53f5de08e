package main_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// Drives over the wire: budgets, and what becomes of requests when a drive fails.

const twoDrives = `
listen: {http: ["127.0.0.1:0"], https: [], admin: "127.0.0.1:0"}
state: "$DIR/state"
drives:
  - {path: "$DIR/drive", size: 16MiB}
  - {path: "$DIR/drive2", size: 32MiB}
catalog: {builtin: [], dirs: ["$DIR/catalog.d"]}
tls: {dir: "$DIR/tls"}
`

// onDisk returns how many bytes the objects below a drive take.
func onDisk(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "objects"), func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return ignoreGone(err)
		}
		info, err := e.Info()
		if err == nil {
			n += blocks(info)
		}
		return ignoreGone(err)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

func TestTwoSmallDrivesStayUnderTheirBudgets(t *testing.T) {
	t.Parallel()
	needTime(t)
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/drive2", 0o700); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, labOptions{yaml: twoDrives, dir: dir, plain: true})
	const n, size = 60, 2*mib + mib/2
	path := func(i int) string { return fmt.Sprintf("/o/%d", i) }
	for i := range n {
		l.origin.Add(path(i), size)
	}
	budgets := map[string]int64{"/drive": 16 * mib, "/drive2": 32 * mib}
	check := func() {
		for drive, budget := range budgets {
			if got := onDisk(t, dir+drive); got > budget {
				t.Errorf("%s takes %d bytes, its budget is %d", drive, got, budget)
			}
		}
	}
	for i := range n {
		l.get(t, path(i)).wantContent(t, path(i), 1, size, 0, size)
		if i%10 == 0 {
			check()
		}
	}
	// And in any order, part by part, new ones and evicted ones.
	random := rand.New(rand.NewPCG(1, 2))
	for range 150 {
		p := path(random.IntN(n))
		from := random.Int64N(size)
		to := min(size, from+1+random.Int64N(mib))
		l.get(t, p, fmt.Sprintf("Range: bytes=%d-%d", from, to-1)).wantContent(t, p, 1, size, from, to)
	}
	check()
	for i, drive := range []string{"/drive", "/drive2"} {
		if used := l.Metric("larder_store_used_bytes", "drive", fmt.Sprint(i)); used > float64(budgets[drive]) || used < float64(budgets[drive])/3 {
			t.Errorf("%s: %.0f bytes in use of %d", drive, used, budgets[drive])
		}
	}
	if l.Metric("larder_store_evicted_objects_total") == 0 {
		t.Error("nothing was evicted")
	}
	// An object larger than every drive is served all the same.
	l.origin.Add("/huge", 50*mib)
	l.get(t, "/huge").wantContent(t, "/huge", 1, 50*mib, 0, 50*mib)
	check()
}

func TestDriveDirectoryRemovedAtRunTime(t *testing.T) {
	t.Parallel()
	needTime(t)
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/drive2", 0o700); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, labOptions{yaml: strings.ReplaceAll(twoDrives, "MiB", "0MiB"), dir: dir, plain: true})
	const n, size = 24, 2 * mib
	path := func(i int) string { return fmt.Sprintf("/o/%d", i) }
	for i := range n {
		l.origin.Add(path(i), size)
		l.get(t, path(i)).wantContent(t, path(i), 1, size, 0, size)
	}
	for i, drive := range []string{"/drive2", "/drive"} {
		if err := os.RemoveAll(dir + drive); err != nil {
			t.Fatal(err)
		}
		for round := range 2 {
			for k := range n {
				r := l.get(t, path(k))
				if r.err != nil && round == 0 {
					continue // its head was out when the drive failed
				}
				r.wantContent(t, path(k), 1, size, 0, size)
			}
			fresh := fmt.Sprintf("/new/%d/%d", i, round)
			l.origin.Add(fresh, size)
			l.get(t, fresh).wantContent(t, fresh, 1, size, 0, size)
		}
	}
	if status, _ := l.Node.Get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d", status)
	}
}

// tmpfsLab has its drive on a file system of its own, mounted in a name space
// that only the node sees.
func tmpfsLab(t *testing.T, megabytes int, budget string) *lab {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/drive", 0o700); err != nil {
		t.Fatal(err)
	}
	prepare := fmt.Sprintf("mount -t tmpfs -o size=%dm none \"%s/drive\"", megabytes, dir)
	return newLab(t, labOptions{
		dir: dir, binary: wrapped(t, dir, prepare), plain: true,
		yaml: strings.Replace(lardertest.DefaultNodeConfig, "size: 1GB", "size: "+budget, 1),
	})
}

func TestDiskFullBelowTheBudget(t *testing.T) {
	t.Parallel()
	l := tmpfsLab(t, 24, "24MiB")
	// Somebody else takes half of the disk.
	inside := fmt.Sprintf("/proc/%d/root%s/drive", l.PID(), l.Dir)
	if _, err := os.Stat(inside + "/larder.drive"); err != nil {
		t.Skipf("the node's name space cannot be looked into: %v", err)
	}
	const n, size = 30, 2 * mib
	for i := range n {
		if i == 5 {
			if err := os.WriteFile(inside+"/hog", make([]byte, 12*mib), 0o600); err != nil {
				t.Logf("the hog: %v", err)
			}
		}
		path := fmt.Sprintf("/o/%d", i)
		l.origin.Add(path, size)
		for range 2 {
			l.get(t, path).wantContent(t, path, 1, size, 0, size)
		}
	}
	for i := range n {
		path := fmt.Sprintf("/o/%d", i)
		l.get(t, path).wantContent(t, path, 1, size, 0, size)
	}
	// It recovers when there is room again.
	if err := os.Remove(inside + "/hog"); err != nil {
		t.Fatal(err)
	}
	l.origin.Add("/again", size)
	lardertest.Eventually(t, "objects are stored again", func() bool {
		l.get(t, "/again").wantContent(t, "/again", 1, size, 0, size)
		return l.get(t, "/again").header.Get("Cache-Status") == "Larder; hit"
	})
}

func TestDriveBecomesReadOnly(t *testing.T) {
	t.Parallel()
	needRoot(t, "mounting")
	l := tmpfsLab(t, 64, "40MiB")
	const size = 2 * mib
	for i := range 4 {
		path := fmt.Sprintf("/o/%d", i)
		l.origin.Add(path, size)
		l.get(t, path).wantContent(t, path, 1, size, 0, size)
	}
	objects := "'" + l.Dir + "/drive/objects'"
	// What is open stays as it is, as when a file system gives up by itself.
	out, err := inNameSpace(t, l.PID(), "sh", "-c", "mount --bind "+objects+" "+objects+" && mount -o remount,bind,ro "+objects)
	if err != nil {
		t.Skipf("this machine cannot make a part of the tree read-only: %v: %s", err, out)
	}
	for round := range 3 {
		for i := range 4 {
			path := fmt.Sprintf("/o/%d", i)
			l.get(t, path).wantContent(t, path, 1, size, 0, size)
		}
		path := fmt.Sprintf("/new/%d", round)
		l.origin.Add(path, size)
		r := l.get(t, path)
		r.wantContent(t, path, 1, size, 0, size)
		r.wantQuick(t, 3*time.Second)
	}
	lardertest.Eventually(t, "the node not to be ready, because no drive takes objects", func() bool {
		status, _ := l.Node.Get("/readyz")
		return status == http.StatusServiceUnavailable
	})
}

func TestDriveReadOnlyFromTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, sub := range []string{"/drive", "/drive2"} {
		if err := os.Mkdir(dir+sub, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l := newLab(t, labOptions{
		dir: dir, plain: true, yaml: twoDrives,
		binary: wrapped(t, dir, fmt.Sprintf("mount -t tmpfs -o ro,size=64m none \"%s/drive2\"", dir)),
	})
	const size = 2 * mib
	for i := range 6 {
		path := fmt.Sprintf("/o/%d", i)
		l.origin.Add(path, size)
		for range 2 {
			l.get(t, path).wantContent(t, path, 1, size, 0, size)
		}
		l.wantSent(t, path, size, size)
	}
	if got := l.Metric("larder_store_usable_drives"); got != 1 {
		t.Errorf("%v drives are said to work, want 1", got)
	}
}
