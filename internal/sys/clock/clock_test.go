package clock

import (
	"errors"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// timedatectl asks the same question of the same kernel.
func TestSynchronisedIsWhatTheSystemSays(t *testing.T) {
	t.Parallel()
	got, err := Synchronised()
	if runtime.GOOS != "linux" {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Fatalf("got %v, want errors.ErrUnsupported", err)
		}
		return
	}
	if err != nil {
		t.Skipf("this process may not ask: %v", err)
	}
	out, err := exec.Command("timedatectl", "show", "--property=NTPSynchronized", "--value").Output()
	if err != nil {
		t.Skipf("nothing to compare with: %v", err)
	}
	if want := strings.TrimSpace(string(out)) == "yes"; got != want {
		t.Errorf("got %v, timedatectl says %v", got, want)
	}
}
