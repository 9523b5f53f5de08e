//go:build unix && !linux

package ports

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// deniedHint is what to do when a port may not be opened.
const deniedHint = "ports below 1024 may need root"

func holder(_ string, want netip.AddrPort) (Process, bool, error) {
	return Process{}, false, fmt.Errorf("not known on this system: %w; ask lsof -nP -iTCP:%d -sTCP:LISTEN", errors.ErrUnsupported, want.Port())
}

func isTaken(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
