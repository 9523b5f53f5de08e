package lardertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// built is the binary of this test process and the directory it lies in.
var built struct {
	sync.Once
	dir, path string
	err       error
}

// Binary returns the path of the larder binary. LARDER_BINARY names one that
// is there; otherwise the tree is built, once per test process and with the
// race detector if the test has it. Packages that use it end their TestMain
// with Main, which removes it.
func Binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("LARDER_BINARY"); path != "" {
		return path
	}
	built.Do(func() { built.path, built.err = build() })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func build() (string, error) {
	dir, err := os.MkdirTemp("", "larder-test-")
	if err != nil {
		return "", err
	}
	built.dir = dir
	path := filepath.Join(dir, "larder")
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	args := []string{"build", "-o", path}
	if Race {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "larder/cmd/larder")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the binary: %w\n%s", err, out)
	}
	return path, nil
}

// Main runs the tests of a package and removes the binary that Binary built:
//
//	func TestMain(m *testing.M) { lardertest.Main(m) }
func Main(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}
