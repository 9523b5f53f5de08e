//go:build !windows

package origin

import "syscall"

const platformRefused = syscall.ECONNREFUSED
