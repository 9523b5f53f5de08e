package preflight

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"larder/internal/sys/clock"
)

// machine is what the checks want to know of this one.
type machine struct {
	host      string
	addresses []address // of interfaces that are up; no loopback, link-local last

	synchronised func() (bool, error) // whether the clock is
	built        time.Time            // the program's source; zero: not known
	unprivileged int                  // the least port that anybody may open
	privileged   bool                 // this process may do anything
}

type address struct {
	netip.Addr
	on string // the interface
}

func thisMachine() *machine {
	return &machine{
		host:         hostName(),
		addresses:    interfaceAddresses(),
		synchronised: clock.Synchronised,
		built:        built(),
		unprivileged: unprivilegedPort(),
		privileged:   os.Geteuid() == 0,
	}
}

// unprivilegedPort is the least port that needs no privilege: 1024 by
// tradition, what is set on Linux, 0 on Windows and macOS.
func unprivilegedPort() int {
	switch runtime.GOOS {
	case "windows", "darwin":
		return 0
	}
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if n, errNumber := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && errNumber == nil {
		return n
	}
	return 1024
}

func (m *machine) has(a netip.Addr) bool {
	return slices.ContainsFunc(m.addresses, func(b address) bool { return b.Addr.WithZone("") == a.WithZone("") })
}

// text is where the machine can be reached, for people.
func (m *machine) text() string {
	var texts []string
	for _, a := range m.addresses {
		if !a.IsLinkLocalUnicast() && len(texts) < 4 {
			texts = append(texts, a.String())
		}
	}
	if len(texts) == 0 {
		return "a machine without an address"
	}
	return strings.Join(texts, " or ")
}

// interfaceAddresses are those of interfaces that are up.
func interfaceAddresses() []address {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil // then none is known, which the report says
	}
	var all []address
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() {
				all = append(all, address{p.Addr().Unmap(), i.Name})
			}
		}
	}
	rank := func(a address) int {
		switch {
		case a.IsLinkLocalUnicast():
			return 2
		case a.Is6():
			return 1
		}
		return 0
	}
	slices.SortStableFunc(all, func(a, b address) int { return rank(a) - rank(b) })
	return all
}

func hostName() string {
	host, err := os.Hostname()
	if err != nil {
		return "" // a machine without a name has addresses
	}
	return host
}
