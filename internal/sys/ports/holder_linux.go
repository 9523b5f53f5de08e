package ports

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
)

// deniedHint is what to do when a port may not be opened.
const deniedHint = "ports below 1024 need root or CAP_NET_BIND_SERVICE, which the service has and this command may not"

func holder(network string, want netip.AddrPort) (Process, bool, error) {
	return procHolder(os.DirFS("/proc"), network, want)
}

func isTaken(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
