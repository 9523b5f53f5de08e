package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// larder runs a node's binary.
type larder struct {
	process
	binary   string
	procs    int    // GOMAXPROCS; 0 leaves the choice to Go
	standard bool   // the publisher's freshness is the origin's word (RFC 9111), as it is for all other peers
	profiles string // where a profile of every hot job goes; "": none are taken
	admin    string
}

const larderConfig = `state: $DIR/state
listen:
  http: ["$HTTP"]
  https: ["$TLS"]
  admin: "$ADMIN"
drives:
  - {path: $DIR/drive, size: 8GB}
catalog:
  builtin: []
  dirs: [$DIR/catalog.d]
upstream: {proxy: none}
tls: {dir: $DIR/tls}
log: {level: warn}
`

const larderPublisher = `name: bench
content_type: internal
hosts: [$HOST]
schemes: [http, https]
freshness: $FRESHNESS
query: drop
origin: {scheme: http, address: "$ORIGIN"}
`

// newLarder makes a node of a name on the command line: larder or before, then -N
// and -standard; nil if it is none.
func newLarder(arg string, s settings) *larder {
	words := strings.Split(arg, "-")
	l := &larder{process: process{name: words[0]}, binary: s.binary, profiles: s.profiles}
	switch words[0] {
	case "larder":
	case "before":
		l.binary = s.before
	default:
		return nil
	}
	for _, w := range words[1:] {
		if n, err := strconv.Atoi(w); err == nil && n > 0 {
			l.procs = n
			l.name += fmt.Sprintf(", %d proc", n)
		} else if w == "standard" {
			l.standard = true
			l.name += ", standard"
		} else {
			return nil
		}
	}
	return l
}

// profile takes a processor profile of the next d; what it returns waits for it.
func (l *larder) profile(ctx context.Context, name string, d time.Duration) (wait func() error) {
	if l.profiles == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", l.admin, max(1, int(d.Seconds()))), nil)
			if err != nil {
				return err
			}
			resp, err := (&http.Client{Timeout: d + time.Minute}).Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("a profile: %s: %.200s", resp.Status, b)
			}
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(l.profiles, strings.ReplaceAll(l.name, ", ", "-")+"-"+name+".pprof"), b, 0o644)
		}()
	}()
	return func() error { return <-done }
}

func (l *larder) Start(ctx context.Context, dir, origin string, cert *certificate) (Addrs, error) {
	addrs, err := freeAddrs(3)
	if err != nil {
		return Addrs{}, err
	}
	certPEM, err := os.ReadFile(cert.CertFile)
	if err != nil {
		return Addrs{}, err
	}
	keyPEM, err := os.ReadFile(cert.KeyFile)
	if err != nil {
		return Addrs{}, err
	}
	for _, sub := range []string{"drive", "state"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return Addrs{}, err
		}
	}
	l.admin = addrs[2]
	freshness := "immutable"
	if l.standard {
		freshness = "standard"
	}
	if err := writeFiles(dir, map[string]string{
		"node.yaml":            larderConfig,
		"catalog.d/bench.yaml": larderPublisher,
		"tls/certs/node.crt":   string(certPEM),
		"tls/keys/node.key":    string(keyPEM),
		"tls/active.yaml":      "certificate: certs/node.crt\nkey: keys/node.key\n",
	}, "$DIR", dir, "$HTTP", addrs[0], "$TLS", addrs[1], "$ADMIN", addrs[2], "$HOST", hostName, "$ORIGIN", origin, "$FRESHNESS", freshness); err != nil {
		return Addrs{}, err
	}
	if err := os.Chmod(filepath.Join(dir, "tls/keys/node.key"), 0o600); err != nil {
		return Addrs{}, err
	}
	var env []string
	if l.procs > 0 {
		env = append(env, fmt.Sprintf("GOMAXPROCS=%d", l.procs))
	}
	if err := l.run(dir, env, l.binary, "node", "run", "--config", filepath.Join(dir, "node.yaml")); err != nil {
		return Addrs{}, err
	}
	return Addrs{HTTP: addrs[0], HTTPS: addrs[1]}, l.await(ctx, addrs[:2]...)
}

// buildLarder compiles the node of this tree into dir.
func buildLarder(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "bin", "larder")
	if out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "./cmd/larder").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/larder (run it at the root of the repository, or name a binary with -larder): %w\n%s", err, out)
	}
	return binary, nil
}
