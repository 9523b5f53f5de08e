//go:build unix

package procgroup

import (
	"os"
	"os/exec"
	"sync"
	"syscall"
)

func run(cmd *exec.Cmd) error { return runAndKill(cmd, syscall.Kill) }

func runAndKill(cmd *exec.Cmd, signal func(pid int, sig syscall.Signal) error) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The group has the number of its leader, the command. That number belongs
	// to nobody else for as long as the leader has not been waited for, ended
	// or not. So the group is killed before, and never after.
	var mu sync.Mutex
	reaped := false // or about to be; guarded by mu
	kill := func() error {
		mu.Lock()
		defer mu.Unlock()
		if reaped || cmd.Process == nil {
			return os.ErrProcessDone
		}
		if err := signal(-cmd.Process.Pid, syscall.SIGKILL); err != syscall.ESRCH {
			return err
		}
		return os.ErrProcessDone
	}
	cmd.Cancel = kill
	if err := cmd.Start(); err != nil {
		return err
	}
	if awaitEnd(cmd.Process.Pid) == nil {
		_ = kill() // what the command left running
	}
	mu.Lock()
	reaped = true
	mu.Unlock()
	return cmd.Wait()
}
