package runas

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// lowPorts lets the program open ports below 1024, if this one may: in a
// container root may not.
func lowPorts(a *syscall.SysProcAttr) {
	has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_NET_BIND_SERVICE, 0, 0, 0)
	if err == nil && has == 1 {
		a.AmbientCaps = []uintptr{unix.CAP_NET_BIND_SERVICE}
	}
}
