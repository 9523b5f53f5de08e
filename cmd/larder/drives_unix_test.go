//go:build unix

package main_test

import (
	"fmt"
	"io/fs"
	"os/exec"
	"syscall"
	"testing"
)

// blocks returns what a file takes on disk, in bytes.
func blocks(info fs.FileInfo) int64 { return info.Sys().(*syscall.Stat_t).Blocks * 512 }

// inNameSpace runs a command in the mount name space of a process.
func inNameSpace(t *testing.T, pid int, command ...string) ([]byte, error) {
	t.Helper()
	args := append([]string{"-t", fmt.Sprint(pid), "-m"}, command...)
	return exec.CommandContext(t.Context(), "nsenter", args...).CombinedOutput()
}
