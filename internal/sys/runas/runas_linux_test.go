package runas

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatAnotherOwnsRunsAsThem(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root: it gives rights up")
	}
	dir := filepath.Join(t.TempDir(), "tls")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if more, err := Needed(dir); more || err != nil {
		t.Errorf("a directory of our own: %v, %v", more, err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if more, err := Needed(dir); !more || err != nil {
		t.Errorf("a directory of nobody's: %v, %v", more, err)
	}
	cmd := exec.Command("/bin/sh", "-c", "id -u; id -g; id -G; echo $HOME; grep -E '^Cap(Eff|Bnd)' /proc/self/status")
	cmd.Dir = "/"
	if err := Owner(cmd, dir); err != nil {
		t.Fatal(err)
	}
	for _, v := range cmd.Env {
		if strings.HasPrefix(v, "GOFLAGS=") || strings.HasPrefix(v, "USER=") || strings.HasPrefix(v, "PWD=") {
			t.Errorf("it would see %s of this account's", v)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(string(out), "\n")
	// 0x400 is CAP_NET_BIND_SERVICE.
	if lines[0] != "65534" || lines[1] != "65534" || lines[2] != "65534" || lines[3] == os.Getenv("HOME") || !strings.Contains(string(out), "CapEff:\t0000000000000400") {
		t.Errorf("it ran as\n%s", out)
	}
}
