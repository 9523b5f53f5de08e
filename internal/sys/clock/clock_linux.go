package clock

import (
	"os"

	"golang.org/x/sys/unix"
)

// synchronised reads the kernel's clock discipline, as adjtimex(2) has it;
// with no mode set it changes nothing and needs no privilege, except in
// containers whose filter of system calls does not look at the mode.
func synchronised() (bool, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, os.NewSyscallError("adjtimex", err)
	}
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, nil
}
