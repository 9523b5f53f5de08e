package lardertest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// fakeNode makes this test binary play a node: its value says which.
const fakeNode = "LARDERTEST_FAKE_NODE"

func TestMain(m *testing.M) {
	if kind := os.Getenv(fakeNode); kind != "" {
		if err := playNode(kind, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "fake node:", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	Main(m)
}

// playNode is as much of a node as Node needs: addresses, readiness and
// metrics.
func playNode(kind string, args []string) error {
	if len(args) != 4 || args[0] != "node" || args[1] != "run" || args[2] != "--config" {
		return fmt.Errorf("arguments %q", args)
	}
	dir := filepath.Dir(args[3])
	config, err := os.ReadFile(args[3])
	if err != nil {
		return err
	}
	if !strings.Contains(string(config), filepath.ToSlash(dir)+"/state") {
		return fmt.Errorf("the configuration does not know its directory:\n%s", config)
	}
	if kind == "broken" {
		return fmt.Errorf("no good: %s", config)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	var asked atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 || kind == "never" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "# HELP larder_ready_asks_total x\nlarder_ready_asks_total{who=\"a\"} %d\n", asked.Load())
	})
	go func() { _ = http.Serve(ln, mux) }() // ends with the process
	text, err := json.Marshal(Addresses{HTTP: []string{"127.0.0.1:1", "127.0.0.1:2"}, Admin: ln.Addr().String()})
	if err != nil {
		return err
	}
	if err := os.WriteFile(addressFile(dir), text, 0o600); err != nil {
		return err
	}
	fmt.Println("fake node is up")
	<-stop
	return nil
}

func fake(t *testing.T, kind string) NodeConfig {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return NodeConfig{
		Binary: self,
		Env:    []string{fakeNode + "=" + kind},
		Files:  map[string]string{"catalog.d/a.yaml": "in: $DIR"},
	}
}

func TestNodeIsFoundAndStopped(t *testing.T) {
	t.Parallel()
	cfg := fake(t, "good")
	n := StartNode(t, cfg)
	if n.HTTP != "127.0.0.1:1" || n.HTTPS != "" || len(n.Addresses.HTTP) != 2 {
		t.Errorf("addresses %+v", n.Addresses)
	}
	if got := n.Metric("larder_ready_asks_total", "who", "a"); got != 3 {
		t.Errorf("ready after %v asks, want 3", got)
	}
	if status, _ := n.Get("/nothing"); status != http.StatusNotFound {
		t.Errorf("status %d", status)
	}
	file, err := os.ReadFile(filepath.Join(n.Dir, "catalog.d", "a.yaml"))
	if want := "in: " + filepath.ToSlash(n.Dir); err != nil || string(file) != want {
		t.Errorf("file %q, %v; want %q", file, err, want)
	}
	more := strings.Replace(`{"https":["127.0.0.1:3"],"admin":"ADMIN"}`, "ADMIN", n.Admin, 1)
	if err := os.WriteFile(addressFile(n.Dir), []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	if !n.Refresh() || n.HTTPS != "127.0.0.1:3" || n.HTTP != "" {
		t.Errorf("addresses %+v", n.Addresses)
	}
	if err := n.Stop(); err != nil && runtime.GOOS != "windows" {
		t.Errorf("Stop = %v", err)
	}
	if !strings.Contains(n.Output(), "fake node is up") {
		t.Errorf("output %q", n.Output())
	}

	// Again on the same directory: the old address must not be believed.
	cfg.Dir = n.Dir
	again := StartNode(t, cfg)
	if again.Admin == n.Admin {
		t.Errorf("both have the address %s", n.Admin)
	}
	again.Kill()
	select {
	case <-again.Ended():
	default:
		t.Error("still there after Kill")
	}
}

func TestNodeThatDoesNotStart(t *testing.T) {
	t.Parallel()
	said, exit := StartNodeFails(t, fake(t, "broken"))
	if exit != 3 || !strings.Contains(said, "fake node: no good") {
		t.Errorf("exit %d, said %q", exit, said)
	}
}

func TestNodeThatIsNeverReady(t *testing.T) {
	t.Parallel()
	cfg := fake(t, "never")
	cfg.Within = 300 * time.Millisecond
	if _, err := startNode(t, cfg); err == nil || !strings.Contains(err.Error(), "not ready within") {
		t.Errorf("got %v", err)
	}
}

func TestSumMetric(t *testing.T) {
	t.Parallel()
	const text = `# HELP larder_fill_bytes_total Bytes.
# TYPE larder_fill_bytes_total counter
larder_fill_bytes_total{source="origin",host="a,}b\"c"} 10
larder_fill_bytes_total{source="peer",host="a"} 2.5e+1
larder_fill_bytes_total_other 1000
larder_up 1
larder_latency_seconds_sum{le="x"} 0.25 1700000000
`
	for _, c := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"larder_fill_bytes_total", nil, 35},
		{"larder_fill_bytes_total", []string{"source", "origin"}, 10},
		{"larder_fill_bytes_total", []string{"source", "origin", "host", `a,}b"c`}, 10},
		{"larder_fill_bytes_total", []string{"source", "origin", "host", "a"}, 0},
		{"larder_fill_bytes_total", []string{"absent", ""}, 0},
		{"larder_up", nil, 1},
		{"larder_latency_seconds_sum", nil, 0.25},
		{"larder_none", nil, 0},
	} {
		if got, err := sumMetric(text, c.name, c.labels...); err != nil || got != c.want {
			t.Errorf("%s%q = %v, %v; want %v", c.name, c.labels, got, err, c.want)
		}
	}
	for _, bad := range []string{"a{x} 1", `a{x="y} 1`, "a one", `a{x="y"}`} {
		if _, err := sumMetric(bad, "a"); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := sumMetric("", "a", "label"); err == nil {
		t.Error("a label without a value was taken")
	}
}

func TestPoll(t *testing.T) {
	t.Parallel()
	n := 0
	if !poll(time.Minute, func() bool { n++; return n == 4 }) || n != 4 {
		t.Errorf("asked %d times, want 4", n)
	}
	if poll(5*time.Millisecond, func() bool { return false }) {
		t.Error("came true")
	}
}
