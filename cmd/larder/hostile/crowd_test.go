package hostile

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/lardertest"
	"larder/internal/sys/disk"
)

// What a crowd is, at most: fewer where this process may not open as many files.
const (
	idleClients   = 10_000
	activeClients = 2_000
)

// resident is the memory of a process that is not files, in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "RssAnon:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no RssAnon")
	return 0
}

// wide is a node that lets a whole crowd in from one address.
func wide(t *testing.T, size int) *lardertest.Node {
	t.Helper()
	content := make([]byte, size)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader(string(content)))
	}))
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	lardertest.NewCA(t).Leaf(t, "127.0.0.1").Install(t, dir+"/tls", "node")
	yaml := strings.Replace(lardertest.DefaultNodeConfig, "listen:\n", "listen:\n  connections: 15000\n  connections_per_address: 15000\n", 1)
	return lardertest.StartNode(t, lardertest.NodeConfig{Dir: dir, YAML: yaml, Files: map[string]string{"catalog.d/site.yaml": fmt.Sprintf(publisher, srv.Listener.Addr())}})
}

// ask makes one request on a connection and reads some of the answer.
func ask(c net.Conn, target string, read int64) (*bufio.Reader, error) {
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a.test\r\n\r\n", target); err != nil {
		return nil, err
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != 200 {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	if read < 0 {
		_, err = io.Copy(io.Discard, resp.Body)
	} else {
		_, err = io.CopyN(io.Discard, resp.Body, read)
	}
	return r, err
}

// Memory has a bound under a crowd of those who ask for nothing more and those
// who read slowly, and others are served meanwhile.
func TestMemoryUnderACrowd(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("memory is read from /proc")
	}
	if lardertest.Race {
		t.Skip("what the race detector takes is not what the node takes")
	}
	t.Parallel()
	const size = 8 << 20
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			n := wide(t, size)
			share := .15
			if os.Getenv("LARDER_CROWD") != "" { // make crowd: all of them
				share = min(1, float64(disk.MaxFiles()-2000)/(idleClients+activeClients))
			}
			idle, active := int(idleClients*share), int(activeClients*share)
			dial := func() (net.Conn, error) {
				if scheme == "https" {
					return tls.Dial("tcp", n.HTTPS, &tls.Config{InsecureSkipVerify: true})
				}
				return net.Dial("tcp", n.HTTP)
			}
			hit := func() time.Duration {
				t.Helper()
				start := time.Now()
				c, err := dial()
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := ask(c, "/big", -1); err != nil {
					t.Fatal(err)
				}
				return time.Since(start)
			}
			hit()
			before := resident(t, n.PID())
			var mu sync.Mutex
			var conns []net.Conn
			defer func() {
				for _, c := range conns {
					c.Close()
				}
			}()
			crowd := func(count int, target string, read int64) {
				t.Helper()
				var wg sync.WaitGroup
				var next, failed atomic.Int64
				for range 32 {
					wg.Go(func() {
						for next.Add(1) <= int64(count) {
							c, err := dial()
							if err == nil {
								mu.Lock()
								conns = append(conns, c)
								mu.Unlock()
								_, err = ask(c, target, read)
							}
							if err != nil && failed.Add(1) == 1 {
								t.Error(err)
							}
						}
					})
				}
				wg.Wait()
				if f := failed.Load(); f > 0 {
					t.Fatalf("%d of %d failed", f, count)
				}
			}
			crowd(idle, "/small?1", -1)
			// Their buffers go after seconds without a request. What the collector
			// has not given back to the system is part of the bound.
			each := int64(32 << 10)
			if scheme == "https" {
				each = 96 << 10
			}
			var quiet int64
			lardertest.Eventually(t, "idle connections are small", func() bool {
				quiet = resident(t, n.PID())
				return quiet-before < int64(idle)*each
			})
			crowd(active, "/big", 100<<10)
			busy := resident(t, n.PID())
			t.Logf("%d idle: %.1f KiB each; %d slow readers: %.1f KiB each; %d MiB in all; a hit of 8 MiB meanwhile took %v",
				idle, float64(quiet-before)/1024/float64(idle), active, float64(busy-quiet)/1024/float64(active), busy>>20, hit().Round(time.Millisecond))
			// Of TLS some hundred answers have half a MiB each, the others a tenth of it.
			most := int64(active) * 2 * each
			if scheme == "https" {
				most += 160 << 20
			}
			if busy-quiet > most {
				t.Errorf("%d slow readers take %d MiB, want %d at most", active, (busy-quiet)>>20, most>>20)
			}
		})
	}
}

// A flood of requests for what nobody has does not keep those waiting who ask
// for what is here.
func TestFloodOfColdKeys(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	var waiting, most atomic.Int64 // at the origin now, and at any one time
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/cold") {
			now := waiting.Add(1)
			defer waiting.Add(-1)
			for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
			}
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
		w.Header().Set("Cache-Control", "max-age=600")
		io.WriteString(w, strings.Repeat("x", 100_000))
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(hold) })
	n := lardertest.StartNode(t, lardertest.NodeConfig{Files: map[string]string{"catalog.d/site.yaml": fmt.Sprintf(publisher, srv.Listener.Addr())}})
	hit := func() time.Duration {
		t.Helper()
		start := time.Now()
		c, err := net.Dial("tcp", n.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := ask(c, "/warm", -1); err != nil {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	hit()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	const flood = 1500
	for i := range flood {
		wg.Go(func() {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", n.HTTP)
			if err != nil {
				return
			}
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			fmt.Fprintf(c, "GET /cold/%d HTTP/1.1\r\nHost: a.test\r\n\r\n", i)
			io.Copy(io.Discard, c) // until the end of the test
		})
	}
	// As many wait at the origin as it is asked for at once; the others wait here.
	lardertest.Eventually(t, "the flood is there", func() bool {
		return waiting.Load() >= 60 && n.Metric("larder_front_connections", "scheme", "http") >= flood
	})
	var worst time.Duration
	for range 200 {
		worst = max(worst, hit())
	}
	t.Logf("with %d cold requests waiting the slowest of 200 hits took %v", flood, worst)
	if worst > 2*time.Second {
		t.Errorf("a hit took %v while %d cold requests wait", worst, flood)
	}
	if got := most.Load(); got > 200 {
		t.Errorf("the origin was asked for %d things at once", got)
	}
}
