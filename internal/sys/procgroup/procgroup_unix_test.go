//go:build unix

package procgroup

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Once the command has been waited for its number may be another process's.
func TestNothingIsKilledByANumberThatIsFree(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "exit 7")
	kills := 0
	err := runAndKill(cmd, func(pid int, sig syscall.Signal) error {
		kills++
		if err := syscall.Kill(cmd.Process.Pid, 0); err != nil {
			t.Errorf("%d was killed when it was nobody's: %v", pid, err)
		}
		return syscall.Kill(pid, sig)
	})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 || kills != 1 {
		t.Errorf("%v after %d kills, want exit code 7 after one", err, kills)
	}
	// The context may end at any later time.
	if err := cmd.Cancel(); !errors.Is(err, os.ErrProcessDone) || kills != 1 {
		t.Errorf("afterwards: %v, %d kills", err, kills)
	}
}
