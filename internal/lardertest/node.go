package lardertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"larder/internal/sys/durable"
)

// DefaultNodeConfig is the configuration of a node whose test does not care:
// all listeners on loopback with ports of the system's choice, one drive,
// only the catalogue files of the test. $DIR is the node's directory.
const DefaultNodeConfig = `
listen:
  http: ["127.0.0.1:0"]
  https: ["127.0.0.1:0"]
  admin: "127.0.0.1:0"
state: "$DIR/state"
drives:
  - {path: "$DIR/drive", size: 1GB}
catalog:
  builtin: []
  dirs: ["$DIR/catalog.d"]
tls: {dir: "$DIR/tls"}
`

// NodeConfig says how a node is started. The zero value is DefaultNodeConfig
// in a fresh directory.
type NodeConfig struct {
	// YAML is the configuration, $DIR in it the node's directory.
	YAML string

	// Files are written below the directory before the start: catalogue files
	// for the most part. $DIR in them is the directory too.
	Files map[string]string

	// Dir is the node's directory; that of an earlier node to start again on
	// the same disk. Default: a temporary one.
	Dir string

	Env    []string      // besides the test's own
	Binary string        // default: Binary(t)
	Within time.Duration // to be ready; default half a minute
}

// Node is a node of the real binary in a process of its own.
type Node struct {
	Dir   string
	HTTP  string // host:port of the first plain listener, "" none
	HTTPS string // host:port of the first TLS listener, "" none
	Admin string // host:port

	// Addresses are all of them, by kind.
	Addresses Addresses

	t    testing.TB
	cmd  *exec.Cmd
	logs *output
	done chan struct{} // closed when the process has ended
	err  error         // of the process; after done
}

// Addresses is where a node listens, as it says itself.
type Addresses struct {
	HTTP  []string `json:"http"`
	HTTPS []string `json:"https"`
	Admin string   `json:"admin"`
}

// StartNode starts a node and waits until it is ready. It is killed at the end
// of the test, and what it said is shown if the test failed.
func StartNode(t testing.TB, cfg NodeConfig) *Node {
	t.Helper()
	n, err := startNode(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// StartNodeFails starts a node that is expected to end by itself instead of
// becoming ready, and returns what it said and its exit code.
func StartNodeFails(t testing.TB, cfg NodeConfig) (said string, exit int) {
	t.Helper()
	n, err := startNode(t, cfg)
	if err == nil {
		t.Fatalf("the node started on %s, though it should not have", n.Admin)
	}
	var ended *endedError
	if !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return ended.said, ended.exit
}

// endedError is a node that ended before it was ready.
type endedError struct {
	exit int
	said string
}

func (e *endedError) Error() string {
	return fmt.Sprintf("the node ended with %d before it was ready:\n%s", e.exit, e.said)
}

func startNode(t testing.TB, cfg NodeConfig) (*Node, error) {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Binary == "" {
		cfg.Binary = Binary(t)
	}
	if cfg.Within <= 0 {
		cfg.Within = patience
	}
	if cfg.YAML == "" {
		cfg.YAML = DefaultNodeConfig
	}
	config := filepath.Join(cfg.Dir, "node.yaml")
	if err := writeTree(cfg, config); err != nil {
		return nil, err
	}
	if err := os.Remove(addressFile(cfg.Dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err // it would be believed
	}

	n := &Node{Dir: cfg.Dir, t: t, logs: &output{}, done: make(chan struct{})}
	n.cmd = exec.Command(cfg.Binary, "node", "run", "--config", config)
	n.cmd.Env = append(os.Environ(), cfg.Env...)
	n.cmd.Stdout, n.cmd.Stderr = n.logs, n.logs
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the process, which Cleanup kills and waits for
		n.err = n.cmd.Wait()
		close(n.done)
	}()
	t.Cleanup(func() {
		n.Kill()
		if Race && strings.Contains(n.logs.String(), "WARNING: DATA RACE") {
			t.Error("the node has a data race")
		}
		if t.Failed() {
			t.Logf("the node in %s said:\n%s", n.Dir, n.logs.String())
		}
	})

	ready := poll(cfg.Within, func() bool { return n.ended() || n.discover() })
	switch {
	case n.ended():
		return nil, &endedError{n.cmd.ProcessState.ExitCode(), n.logs.String()}
	case !ready:
		return nil, fmt.Errorf("the node was not ready within %v:\n%s", cfg.Within, n.logs.String())
	}
	return n, nil
}

func writeTree(cfg NodeConfig, config string) error {
	dir := filepath.ToSlash(cfg.Dir)
	for _, sub := range []string{"state", "drive", "catalog.d", "tls"} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, sub), 0o700); err != nil {
			return err
		}
	}
	for name, text := range cfg.Files {
		name = filepath.Join(cfg.Dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if err := durable.WriteFile(name, []byte(strings.ReplaceAll(text, "$DIR", dir)), 0o600); err != nil {
			return err
		}
	}
	return durable.WriteFile(config, []byte(strings.ReplaceAll(cfg.YAML, "$DIR", dir)), 0o600)
}

// addressFile is where a node whose state is in dir/state writes its
// addresses. It and discover are all that know how a node is found.
func addressFile(dir string) string { return filepath.Join(dir, "state", "addresses.json") }

// discover reports whether the node has said where it listens and is ready.
func (n *Node) discover() bool {
	text, err := os.ReadFile(addressFile(n.Dir))
	var addresses Addresses
	if err != nil || json.Unmarshal(text, &addresses) != nil || addresses.Admin == "" {
		return false
	}
	n.Addresses = addresses
	n.Admin, n.HTTP, n.HTTPS = n.Addresses.Admin, first(n.Addresses.HTTP), first(n.Addresses.HTTPS)
	status, _, err := n.get("/readyz")
	return err == nil && status == http.StatusOK
}

// Refresh reads again where the node listens: it opens its TLS listeners when
// it gets its first certificate. False: it does not say, or is not ready.
func (n *Node) Refresh() bool { return n.discover() }

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func (n *Node) ended() bool {
	select {
	case <-n.done:
		return true
	default:
		return false
	}
}

// Ended is closed when the process has ended, for whatever reason.
func (n *Node) Ended() <-chan struct{} { return n.done }

// Kill ends the process without warning, as a power cut would, and waits
// until it is gone. It is harmless on one that is gone.
func (n *Node) Kill() {
	_ = n.cmd.Process.Kill() // fails when it has ended
	<-n.done
}

// Stop asks the process to end, waits, and returns how it ended: nil for exit
// code 0. Where the system has no SIGTERM it is killed.
func (n *Node) Stop() error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.Kill()
		return err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-n.done:
		return n.err
	case <-timer.C:
		n.Kill()
		return fmt.Errorf("the node did not stop within %v", patience)
	}
}

// Signal sends a signal to the process.
func (n *Node) Signal(s os.Signal) error { return n.cmd.Process.Signal(s) }

// PID returns the number of the process.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Output returns what the node wrote to stdout and stderr so far.
func (n *Node) Output() string { return n.logs.String() }

// Metric returns the value of a metric: the sum of its series that have all
// the given labels (name and value in turn); 0 if there is none. For
// histograms ask for name_sum or name_count.
func (n *Node) Metric(name string, labels ...string) float64 {
	n.t.Helper()
	status, text, err := n.get("/metrics")
	if err != nil || status != http.StatusOK {
		n.t.Fatalf("asking the node for its metrics: status %d, %v", status, err)
	}
	value, err := sumMetric(text, name, labels...)
	if err != nil {
		n.t.Fatal(err)
	}
	return value
}

// Get asks the admin listener for path and returns status and body.
func (n *Node) Get(path string) (int, string) {
	n.t.Helper()
	status, text, err := n.get(path)
	if err != nil {
		n.t.Fatal(err)
	}
	return status, text
}

// adminTransport has no idle connections: a node that is killed and started
// again must not be met on the old one.
var adminTransport = &http.Transport{DisableKeepAlives: true}

func (n *Node) get(path string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := adminTransport.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// output collects what a process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

// Write appends p; beyond 1 MiB the older half is forgotten.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.buf.Len() > 1<<20 {
		newer := slices.Clone(o.buf.Bytes()[o.buf.Len()/2:])
		o.buf.Reset()
		o.buf.Write(newer)
	}
	return o.buf.Write(p)
}

// String returns what was written.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
