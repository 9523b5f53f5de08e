package sysinfo

import (
	"os"

	"golang.org/x/sys/unix"
)

func read(i *Info) {
	for _, file := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if b, err := os.ReadFile(file); err == nil {
			i.Edition, i.Release = osRelease(string(b))
			break
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		i.Build = unix.ByteSliceToString(u.Release[:])
	}
}
