//go:build unix

package reload

import (
	"os"
	"os/signal"
	"syscall"
)

// Notify relays SIGHUP to c.
func Notify(c chan<- os.Signal) { signal.Notify(c, syscall.SIGHUP) }
