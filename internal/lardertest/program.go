package lardertest

import (
	"os"
	"os/exec"
	"testing"
)

// Program returns the path of a program that a test cannot do without. Without
// it the test is skipped and says so; in CI, where nothing may be left out for
// want of one, it fails.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return path
}
