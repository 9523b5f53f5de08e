package main

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps the terminal's interrupt from the peers: Stop ends them, in order.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
