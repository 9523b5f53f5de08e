package crash_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"larder/internal/lardertest"
	"larder/internal/node"
)

// roomy holds all that newLab's origin has.
var roomy = []drive{{"$DIR/one", 256 * mib}}

// twoRoomy do, and so does either alone.
var twoRoomy = []drive{{"$DIR/one", 256 * mib}, {"$DIR/two", 192 * mib}}

// noScrub keeps the node from finding by itself what a test has it find.
const noScrub = "scrub_rate: 0"

// A lab is a world of some content and a directory for a node.
type lab struct {
	*world
	dir, yaml string
	r         *rand.Rand
}

func newLab(t *testing.T, drives []drive, more ...string) *lab {
	t.Helper()
	seed := uint64(len(t.Name())) // any: what is tested does not depend on it
	l := &lab{world: &world{origin: lardertest.NewOrigin(t)}, dir: t.TempDir(), yaml: config(drives, more...), r: rand.New(rand.NewPCG(seed, 0))}
	for i, size := range []int64{1, 4095, 4097, 300_000, mib, mib + 1, 2*mib - 1, 3*mib + 5, 5 * mib, 7*mib + 99} {
		l.add(fmt.Sprintf("/fixed/%d", i), size)
	}
	l.add("/ask/small", 500)
	l.add("/ask/large", 3*mib+3)
	return l
}

func (l *lab) start(t *testing.T) *lardertest.Node {
	t.Helper()
	return start(t, l.origin, l.dir, l.yaml)
}

// wantAll fails the test unless the node serves all content right.
func (l *lab) wantAll(t *testing.T, n *lardertest.Node) {
	t.Helper()
	c := l.client(n)
	defer c.close()
	c.wantAll(t)
}

// fill has the node fetch everything and waits until its indexes say so.
func (l *lab) fill(t *testing.T, n *lardertest.Node) {
	t.Helper()
	l.wantAll(t, n)
	lardertest.Eventually(t, "all content to be in the index", func() bool { return l.stored(t, n) == len(l.items) })
}

// stored returns how many objects the indexes hold whole.
func (l *lab) stored(t *testing.T, n *lardertest.Node) (whole int) {
	t.Helper()
	code, text := n.Get(node.PathObjects)
	var list []node.ObjectInfo
	if err := json.Unmarshal([]byte(text), &list); code != http.StatusOK || err != nil {
		t.Fatalf("objects: %d, %v\n%s", code, err, text)
	}
	for _, o := range list {
		if o.Chunks == o.ChunksPresent {
			whole++
		}
	}
	return whole
}

// files returns the files of objects on all drives.
func (l *lab) files(t *testing.T) (names []string) {
	t.Helper()
	for _, d := range twoRoomy {
		names = append(names, objectFiles(t, filepath.Join(l.dir, filepath.Base(d.path)))...)
	}
	return names
}

// flip changes one bit of a file.
func flip(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	if err == nil {
		b[0] ^= 0x10
		_, err = f.WriteAt(b[:], at)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func sizeOf(t *testing.T, name string) int64 {
	t.Helper()
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size()
}

// flipAll changes a bit in every chunk of a file and returns how many there are.
func (l *lab) flipAll(t *testing.T, name string) (chunks int) {
	t.Helper()
	size := sizeOf(t, name)
	for at := int64(0); at < size; at += mib {
		flip(t, name, at+l.r.Int64N(min(mib, size-at)))
		chunks++
	}
	return chunks
}

// After a power cut a drive may hold anything where files were being written.
func TestFilesDamagedInAnUncleanStop(t *testing.T) {
	t.Parallel()
	l := newLab(t, roomy, noScrub)
	n := l.start(t)
	l.fill(t, n)
	n.Kill()
	wrong := 0
	for i, name := range l.files(t) {
		switch i % 6 {
		case 0, 3:
			wrong += l.flipAll(t, name)
		case 1: // the end is missing
			if err := os.Truncate(name, sizeOf(t, name)/2); err != nil {
				t.Fatal(err)
			}
			wrong++
		case 2: // as long as it was, and empty: what delayed allocation leaves
			size := sizeOf(t, name)
			if err := errors.Join(os.Truncate(name, 0), os.Truncate(name, size)); err != nil {
				t.Fatal(err)
			}
			wrong++
		case 4:
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if wrong < 6 {
		t.Fatalf("%d chunks damaged, want more: %v", wrong, l.files(t))
	}
	l.origin.Reset()
	n = l.start(t)
	l.wantAll(t, n)
	if got := n.Metric("larder_store_checksum_failures_total"); got < float64(wrong) {
		t.Errorf("%v checksum failures, want at least the %d chunks that were damaged", got, wrong)
	}
	if sent := l.origin.BytesSent(""); sent == 0 || sent >= l.bytes {
		t.Errorf("the origin sent %d bytes again, want some and less than all %d", sent, l.bytes)
	}
	for _, d := range status(t, n).Drives {
		if d.State != "ok" {
			t.Errorf("drive %s is %s (%s), though only files were damaged", d.Path, d.State, d.Error)
		}
	}
}

// Two files that changed places have right bytes, of something else.
func TestFilesThatChangedPlaces(t *testing.T) {
	t.Parallel()
	l := newLab(t, roomy, noScrub)
	l.add("/fixed/twin-1", 2*mib)
	l.add("/fixed/twin-2", 2*mib)
	n := l.start(t)
	l.fill(t, n)
	n.Kill()
	names := l.files(t)
	for i := 1; i < len(names); i += 2 {
		swap := names[i] + ".swap"
		if err := errors.Join(os.Rename(names[i], swap), os.Rename(names[i-1], names[i]), os.Rename(swap, names[i-1])); err != nil {
			t.Fatal(err)
		}
	}
	n = l.start(t)
	l.wantAll(t, n)
	if n.Metric("larder_store_checksum_failures_total") == 0 {
		t.Error("no checksum failures, though files changed places")
	}
}

// verify runs "larder node verify" and returns what it said and its exit code.
func verify(t *testing.T, n *lardertest.Node) (said string, exit int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), lardertest.Binary(t), "node", "verify", "--admin", n.Admin)
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestVerifyFindsRotInARunningNode(t *testing.T) {
	t.Parallel()
	l := newLab(t, twoRoomy, noScrub)
	n := l.start(t)
	l.fill(t, n)
	if said, exit := verify(t, n); exit != 0 || !strings.Contains(said, "; 0 had rotted") {
		t.Fatalf("of sound drives verify said %q with exit code %d, want 0 rotted and 0", said, exit)
	}
	rotten := 0
	for i, name := range l.files(t) {
		if i%3 == 0 {
			rotten += l.flipAll(t, name)
		}
	}
	if said, exit := verify(t, n); exit != 1 || !strings.Contains(said, fmt.Sprintf("; %d had rotted", rotten)) {
		t.Errorf("verify said %q with exit code %d, want %d rotted and 1", said, exit, rotten)
	}
	if got := n.Metric("larder_store_checksum_failures_total"); got != float64(rotten) {
		t.Errorf("%v checksum failures, want %d", got, rotten)
	}
	l.wantAll(t, n)
	if said, exit := verify(t, n); exit != 0 {
		t.Errorf("after everything was fetched again verify said %q with exit code %d, want 0", said, exit)
	}
}

func TestDamagedIndex(t *testing.T) {
	t.Parallel()
	overwrite := func(share float64, n int) func(*testing.T, *rand.Rand, string) {
		return func(t *testing.T, r *rand.Rand, name string) {
			garbage := make([]byte, n)
			for i := range garbage {
				garbage[i] = byte(r.Uint32())
			}
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt(garbage, int64(float64(sizeOf(t, name))*share))
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	truncate := func(share float64) func(*testing.T, *rand.Rand, string) {
		return func(t *testing.T, _ *rand.Rand, name string) {
			if err := os.Truncate(name, int64(float64(sizeOf(t, name))*share)); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(t *testing.T, _ *rand.Rand, name string) {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		file   string
		clean  bool // the node was stopped, not killed
		damage func(*testing.T, *rand.Rand, string)
	}{
		{"empty", "index.db", false, truncate(0)},
		{"empty after a clean stop", "index.db", true, truncate(0)},
		{"half of it", "index.db", false, truncate(0.5)},
		{"half of it after a clean stop", "index.db", true, truncate(0.5)},
		{"odd length", "index.db", true, truncate(0.77)},
		{"garbage for a header", "index.db", false, overwrite(0, 100)},
		{"garbage for a header after a clean stop", "index.db", true, overwrite(0, 100)},
		{"all garbage", "index.db", true, overwrite(0, 200_000)},
		{"garbage in the middle", "index.db", true, overwrite(0.5, 3000)},
		{"garbage in places", "index.db", true, func(t *testing.T, r *rand.Rand, name string) {
			for range 40 {
				overwrite(r.Float64()*0.9, 16)(t, r, name)
			}
		}},
		{"garbage everywhere but the header", "index.db", true, overwrite(0.1, 200_000)},
		{"no log", "index.db-wal", false, remove},
		{"half a log", "index.db-wal", false, truncate(0.5)},
		{"garbage in the log", "index.db-wal", false, overwrite(0.3, 5000)},
		{"a log of garbage", "index.db-wal", false, overwrite(0, 100_000)},
		{"garbage for shared memory", "index.db-shm", false, overwrite(0, 4096)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, roomy, noScrub)
			n := l.start(t)
			l.fill(t, n)
			if c.clean {
				if err := n.Stop(); err != nil {
					t.Fatal(err)
				}
			} else {
				n.Kill()
			}
			drive := filepath.Join(l.dir, "one")
			c.damage(t, l.r, filepath.Join(drive, c.file))
			n = l.start(t)
			l.wantAll(t, n)
			// Damage may be met only when the index is used; the drive then ends
			// and begins again, empty.
			lardertest.Eventually(t, "the drive to be in use", func() bool { return status(t, n).Drives[0].State == "ok" })
			l.wantAll(t, n)
			wantWithinBudget(t, n)
			lardertest.Eventually(t, "objects nobody knows to be swept", func() bool {
				onDisk, _ := allocated(t, drive)
				aside, err := filepath.Glob(filepath.Join(drive, "objects.bad-*"))
				return err == nil && len(aside) == 0 && onDisk <= status(t, n).Drives[0].Used+slack
			})
			// What it has become is an index that lasts.
			lardertest.Eventually(t, "all content to be in the index", func() bool { return l.stored(t, n) == len(l.items) })
			if err := n.Stop(); err != nil {
				t.Error(err)
			}
			l.origin.Reset()
			n = l.start(t)
			l.wantAll(t, n)
			if sent := l.origin.BytesSent(""); sent != 0 {
				t.Errorf("the origin sent %d bytes after a clean restart, want none", sent)
			}
		})
	}
}

func TestSecondNodeOnADriveInUse(t *testing.T) {
	t.Parallel()
	l := newLab(t, roomy)
	n := l.start(t)
	l.fill(t, n)
	path := filepath.Join(l.dir, "one")
	second := nodeConfig(l.origin, t.TempDir(), config([]drive{{path, 256 * mib}}))
	said, exit := lardertest.StartNodeFails(t, second)
	if exit == 0 || !strings.Contains(said, path) || !strings.Contains(said, "in use by another process") {
		t.Errorf("the second node ended with %d and said:\n%s\nwant a failure that names %s and says that it is in use", exit, said, path)
	}
	if lines := strings.Count(strings.TrimSpace(said), "\n"); lines > 0 {
		t.Errorf("the second node said more than one line:\n%s", said)
	}
	l.origin.Reset()
	l.wantAll(t, n)
	if sent := l.origin.BytesSent(""); sent != 0 {
		t.Errorf("the first node fetched %d bytes again, want none", sent)
	}
	wantWithinBudget(t, n)
	n.Kill()
	second.Dir = t.TempDir()
	l.wantAll(t, lardertest.StartNode(t, second)) // the lock went with the process
}
