package lardertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"larder/internal/sys/disk"
	"larder/internal/sys/durable"
)

// Programs of other projects that tests speak to: real peers at versions that
// were tried. They are built by the go command, each once per machine.
const (
	Pebble     = "github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1"
	StepCA     = "github.com/smallstep/certificates/cmd/step-ca@v0.30.2"
	SCEPServer = "github.com/micromdm/scep/v2/cmd/scepserver@v2.3.0"
)

// Tool returns the path of a program, given as package@version, after building
// it if this machine does not have it yet. Test processes that want the same
// one wait for the first. A test that cannot have it for want of a registry is
// skipped and says so; any other trouble fails it.
func Tool(t testing.TB, pkg string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "larder-test-tools")
	name := filepath.Join(dir, strings.NewReplacer("/", "_", "@", "_").Replace(pkg))
	toolMu.Lock()
	defer toolMu.Unlock()
	if _, err := os.Stat(name); err == nil {
		return name
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var held *disk.FileLock
	if !poll(10*time.Minute, func() bool {
		held, err = disk.Lock(name + ".lock")
		return err == nil
	}) {
		t.Fatalf("waiting for another process that builds %s: %v", pkg, err)
	}
	defer func() { _ = held.Unlock() }()
	if _, err := os.Stat(name); err == nil {
		return name // the other process did it
	}
	if out, err := buildTool(t.Context(), pkg, name); err != nil {
		for _, sign := range []string{"dial tcp", "no such host", "server response", "network is unreachable", "i/o timeout", "connection re"} {
			if strings.Contains(out, sign) {
				t.Skipf("%s could not be fetched: %.500s", pkg, out)
			}
		}
		t.Fatalf("building %s: %v\n%s", pkg, err, out)
	}
	return name
}

var toolMu sync.Mutex // one build at a time in this process

func buildTool(ctx context.Context, pkg, to string) (string, error) {
	bin, err := os.MkdirTemp(filepath.Dir(to), "build-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(bin) }()
	cmd := exec.CommandContext(ctx, "go", "install", "-trimpath", pkg)
	cmd.Dir = bin // not in this module: the tool has its own
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		return string(out), err
	}
	built, err := filepath.Glob(filepath.Join(bin, "*"))
	if err != nil || len(built) != 1 {
		return fmt.Sprintf("it left %q", built), fmt.Errorf("expected one program")
	}
	return "", durable.Rename(built[0], to)
}
