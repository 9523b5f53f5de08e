package procgroup

import (
	"syscall"
	"unsafe"
)

// awaitEnd waits until a child has ended, and leaves it to be waited for.
func awaitEnd(pid int) error {
	const byPID = 1       // P_PID
	var info [128]byte    // siginfo_t, which nobody reads
	const exited = 0x4    // WEXITED
	const unwaited = 0x20 // WNOWAIT
	for {
		_, _, err := syscall.Syscall6(syscall.SYS_WAITID, byPID, uintptr(pid), uintptr(unsafe.Pointer(&info)), exited|unwaited, 0, 0)
		switch err {
		case 0:
			return nil
		case syscall.EINTR:
		default:
			return err
		}
	}
}
