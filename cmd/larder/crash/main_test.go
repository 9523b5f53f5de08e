package crash_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"larder/internal/lardertest"
	"larder/internal/node"
	"larder/internal/sys/disk"
)

func TestMain(m *testing.M) { lardertest.Main(m) }

const (
	kib = 1 << 10
	mib = 1 << 20
)

// host is the publisher of these tests. Nothing resolves below "test".
const host = "cdn.test"

// publisher has content that never changes, and content that does.
const publisher = `
name: cdn
hosts: [cdn.test]
freshness: immutable
rules:
  - {path: "/ask/*", freshness: revalidate}
  - {path: "/soon/*", freshness: revalidate, max_age: 200ms}
origin: {scheme: http, address: "$ORIGIN"}
`

// A drive is where objects of a node under test lie.
type drive struct {
	path   string // $DIR is the node's directory
	budget int64  // bytes
}

// config returns the configuration of a node with these drives. More are
// further lines of it.
func config(drives []drive, more ...string) string {
	var b strings.Builder
	b.WriteString(`
listen: {http: ["127.0.0.1:0"], https: [], admin: "127.0.0.1:0"}
state: "$DIR/state"
catalog: {builtin: [], dirs: ["$DIR/catalog.d"]}
tls: {dir: "$DIR/tls"}
log: {level: warn}
drives:
`)
	for _, d := range drives {
		fmt.Fprintf(&b, "  - {path: %q, size: %d}\n", d.path, d.budget)
	}
	for _, line := range more {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// start starts a node on dir for content of the origin.
func start(t *testing.T, o *lardertest.Origin, dir, yaml string) *lardertest.Node {
	t.Helper()
	return lardertest.StartNode(t, nodeConfig(o, dir, yaml))
}

func nodeConfig(o *lardertest.Origin, dir, yaml string) lardertest.NodeConfig {
	return lardertest.NodeConfig{Dir: dir, YAML: yaml, Files: map[string]string{
		"catalog.d/cdn.yaml": strings.ReplaceAll(publisher, "$ORIGIN", o.Addr),
	}}
}

// status returns what the node says of itself.
func status(t *testing.T, n *lardertest.Node) node.Status {
	t.Helper()
	code, text := n.Get(node.PathStatus)
	var s node.Status
	if err := json.Unmarshal([]byte(text), &s); code != http.StatusOK || err != nil {
		t.Fatalf("status: %d, %v\n%s", code, err, text)
	}
	return s
}

// wantWithinBudget fails the test if a drive says it has used more than it may.
func wantWithinBudget(t *testing.T, n *lardertest.Node) {
	t.Helper()
	for _, d := range status(t, n).Drives {
		if d.State != "ok" || d.Used > d.Budget || d.Used < 0 {
			t.Errorf("drive %s is %s (%s) and has used %d bytes; want ok and 0 to %d", d.Path, d.State, d.Error, d.Used, d.Budget)
		}
	}
}

// allocated returns the bytes on disk of all files below dir, and how many
// files there are.
func allocated(t *testing.T, dir string) (bytes int64, files int) {
	t.Helper()
	for _, name := range objectFiles(t, dir) {
		f, err := os.Open(name)
		if os.IsNotExist(err) {
			continue // evicted meanwhile
		}
		if err != nil {
			t.Fatal(err)
		}
		n, err := disk.Allocated(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		bytes += n
		files++
	}
	return bytes, files
}

// objectFiles returns the files of the objects on the drive in dir.
func objectFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "objects"), func(name string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && d.Type().IsRegular() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// number returns what an environment variable says, or what is usual.
func number(t *testing.T, name string, usual uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q, want a number: %v", name, text, err)
	}
	return n
}
