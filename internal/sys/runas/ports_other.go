//go:build unix && !linux

package runas

import "syscall"

func lowPorts(*syscall.SysProcAttr) {}
