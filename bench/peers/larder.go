package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// larder runs the node's binary. procs is its GOMAXPROCS; 0 leaves the choice to Go.
type larder struct {
	process
	binary string
	procs  int
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
freshness: immutable
query: drop
origin: {scheme: http, address: "$ORIGIN"}
`

func newLarder(binary string, procs int) *larder {
	name := "larder"
	if procs > 0 {
		name = fmt.Sprintf("larder, %d proc", procs)
	}
	return &larder{process: process{name: name}, binary: binary, procs: procs}
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
	if err := writeFiles(dir, map[string]string{
		"node.yaml":            larderConfig,
		"catalog.d/bench.yaml": larderPublisher,
		"tls/certs/node.crt":   string(certPEM),
		"tls/keys/node.key":    string(keyPEM),
		"tls/active.yaml":      "certificate: certs/node.crt\nkey: keys/node.key\n",
	}, "$DIR", dir, "$HTTP", addrs[0], "$TLS", addrs[1], "$ADMIN", addrs[2], "$HOST", hostName, "$ORIGIN", origin); err != nil {
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
