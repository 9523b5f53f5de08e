// Package procgroup runs a command in a group of its own, so that what it
// started ends with it.
package procgroup

import "os/exec"

// Run is cmd.Run for a command made by exec.CommandContext. When the context
// ends, the command is killed together with everything that it started, and
// what it leaves running when it ends by itself is killed, too. On Unix
// whoever makes a process group of his own, as setsid does, escapes.
//
// It sets cmd.SysProcAttr and cmd.Cancel. The caller sets cmd.WaitDelay: an
// escaped child can keep the output open.
func Run(cmd *exec.Cmd) error { return run(cmd) }
