// Package ports says who holds a TCP port of this machine, and whether it is free.
package ports

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// Process is who listens. What could not be learnt is empty.
type Process struct {
	PID  int    // 0: another account's, which this one may not look at
	Name string // such as nginx, or what Windows' kernel serves for
	Path string // the program's file, or how it was called
	User string // the account it runs under, or its number
}

// String is the process in a sentence: "nginx (process 812, /usr/sbin/nginx,
// account root)".
func (p Process) String() string {
	if p.PID == 0 {
		text := "a process"
		if p.User != "" {
			text += " of account " + p.User
		}
		return text + ", whose name only root may see"
	}
	name := p.Name
	if name == "" {
		name = "a process"
	}
	text := fmt.Sprintf("%s (process %d", name, p.PID)
	if p.Path != "" {
		text += ", " + p.Path
	}
	if p.User != "" {
		text += ", account " + p.User
	}
	return text + ")"
}

// Holder finds the process that listens where addr, as host:port, would have
// to. Network is tcp, tcp4 or tcp6. An empty host means all addresses: then
// every listener on the port is in the way.
func Holder(network, addr string) (p Process, found bool, err error) {
	want, err := resolve(network, addr)
	if err != nil {
		return Process{}, false, err
	}
	p, found, err = holder(network, want)
	if err != nil {
		return Process{}, false, fmt.Errorf("who holds %s: %w", addr, err)
	}
	return p, found, nil
}

// Free returns nil if addr can be listened on now, and otherwise why not, with
// the process in the way where it can be learnt.
func Free(addr string) error {
	l, err := Listen(addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// Listen is net.Listen for TCP whose error says who is in the way, or which
// right is missing.
func Listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, explain(addr, err)
	}
	return l, nil
}

func explain(addr string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	// Windows says "access denied" where another holds a port for itself alone.
	if taken := isTaken(err); taken || errors.Is(err, fs.ErrPermission) {
		if p, found, holderErr := Holder("tcp", addr); holderErr == nil && found {
			return fmt.Errorf("%s: held by %s: %w", addr, p, err)
		}
		if !taken {
			return fmt.Errorf("%s: %w; %s", addr, err, deniedHint)
		}
	}
	return fmt.Errorf("%s: %w", addr, err)
}

func resolve(network, addr string) (netip.AddrPort, error) {
	if !slices.Contains([]string{"tcp", "tcp4", "tcp6"}, network) {
		return netip.AddrPort{}, fmt.Errorf("network: found %q, expected tcp, tcp4 or tcp6", network)
	}
	a, err := net.ResolveTCPAddr(network, addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ip, _ := netip.AddrFromSlice(a.IP) // none: all addresses
	return netip.AddrPortFrom(ip.Unmap().WithZone(""), uint16(a.Port)), nil
}

// conflicts is true if a listener keeps one at want from being opened. An
// unspecified IPv6 address is taken to mean IPv4 as well, as it does where
// nobody says otherwise.
func conflicts(network string, listener, want netip.AddrPort) bool {
	l, w := listener.Addr().Unmap(), want.Addr()
	if listener.Port() != want.Port() {
		return false
	}
	if network == "tcp6" && l.Is4() || network == "tcp4" && l.Is6() && !l.IsUnspecified() {
		return false
	}
	switch {
	case !w.IsValid() || w.IsUnspecified() && (w.Is6() || l.Is4()):
		return true
	case l.IsUnspecified():
		return l.Is6() || w.Is4()
	}
	return l == w
}

// unknownAccount is how an account without a name is written.
func unknownAccount(uid uint32) string { return "number " + strconv.FormatUint(uint64(uid), 10) }
