//go:build unix

package procgroup

import (
	"os"
	"os/exec"
	"syscall"
)

func run(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error {
		if cmd.Process == nil {
			return nil
		}
		// The group lives as long as one of its processes does, and until
		// then its number belongs to nobody else. If it is gone, so be it.
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != syscall.ESRCH {
			return err
		}
		return os.ErrProcessDone
	}
	cmd.Cancel = kill
	err := cmd.Run()
	_ = kill() // what the command left running
	return err
}
