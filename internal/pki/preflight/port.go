package preflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// What Windows calls these errors; elsewhere there are none of these numbers.
const (
	wsaAccess       = syscall.Errno(10013)
	wsaInUse        = syscall.Errno(10048)
	wsaNotAvailable = syscall.Errno(10049)
)

// port is what was found at one listener.
type port struct {
	check  Check
	addr   string // as configured
	byNode bool   // the running node has it open
	taken  bool   // somebody has it open
}

func checksOf(ports []port) []Check {
	checks := make([]Check, len(ports))
	for i, p := range ports {
		checks[i] = p.check
	}
	return checks
}

const whyPort = "HTTPS opens when there is a certificate, and only if this port can be had then; without it clients go past the node"

// portChecks tries to open what the configuration names, as the node would.
func portChecks(ctx context.Context, o Options) ([]port, *holds) {
	h := newHolds()
	if len(o.HTTPS) == 0 {
		return []port{{check: Check{ID: IDPort, Title: "HTTPS port", Result: Failed, Why: whyPort,
			Found: "no listener for HTTPS in the configuration", Do: `set listen.https, such as [":443"]`}}}, h
	}
	var ports []port
	for i, addr := range o.HTTPS {
		ports = append(ports, portCheck(ctx, o, addr, o.HTTPS[:i], h))
	}
	clients := strconv.Itoa(o.Port)
	right := func(addr string) bool {
		_, number, err := net.SplitHostPort(addr)
		return err == nil && number == clients
	}
	if !slices.ContainsFunc(o.HTTPS, right) && !(o.Node.Running && slices.ContainsFunc(o.Node.HTTPS, right)) {
		c := &ports[0].check
		c.Result = worse(c.Result, Warning)
		c.Found += fmt.Sprintf("\nclients come to port %d, and no listener is on it", o.Port)
		c.Do = joinLines(c.Do, fmt.Sprintf("set listen.https to [\":%d\"], or see that what is before the node leads from %[1]d to here", o.Port))
	}
	return ports, h
}

func joinLines(lines ...string) string {
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return l == "" }), "\n")
}

func portCheck(ctx context.Context, o Options, addr string, before []string, h *holds) port {
	p := port{addr: addr, check: Check{ID: IDPort, Title: "HTTPS port " + addr, Result: OK, Why: whyPort}}
	c := &p.check
	host, text, err := net.SplitHostPort(addr)
	number, errNumber := strconv.ParseUint(text, 10, 16)
	if err != nil || errNumber != nil {
		c.Result, c.Found, c.Do = Failed, "an address that cannot be read", `write it as host:port, such as ":443" or "192.0.2.10:443"`
		return p
	}
	if number == 0 {
		c.Result, c.Found = Info, "the system will choose a port"
		return p
	}
	open := slices.IndexFunc(o.Node.HTTPS, func(open string) bool { return o.Node.Running && overlap(open, addr) })
	byNode := open >= 0
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	switch {
	case err == nil && byNode:
		// Some systems give away one address of a port beside all of them.
		_ = l.Close() // nothing was written
		if answers(ctx, local(o.Node.HTTPS[open])) {
			p.taken, p.byNode = true, true
			p.heldBy(o, before, text)
			break
		}
		c.Result, c.Found = Warning, "free, although the node says that it has it open"
		c.Do = "ask the node again (larder node status); if it says the same, restart it"
	case err == nil:
		h.listeners = append(h.listeners, l)
		c.Found = "free, and this account may open it"
		if o.machine.privileged && int(number) < o.machine.unprivileged {
			c.Found = "free; this was tried with all privileges, the node needs CAP_NET_BIND_SERVICE for it"
		}
	case errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, wsaInUse) || runtime.GOOS == "windows" && errors.Is(err, wsaAccess):
		p.taken, p.byNode = true, byNode
		p.heldBy(o, before, text)
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		c.Result, c.Found = Failed, "this account may not open it"
		if o.Node.Running {
			// Whoever asks may be less than the node.
			c.Result, c.Found = Warning, "this account may not open it; whether the node's may is not known"
		}
		c.Do = mayOpen(text)
	case errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, wsaNotAvailable):
		c.Result, c.Found = Failed, host+" is not an address of this machine"
		c.Do = fmt.Sprintf("correct listen.https; it can be %s, or all addresses: %q", o.machine.text(), ":"+text)
	default:
		c.Result, c.Found = Failed, fmt.Sprintf("it cannot be opened: %v", err)
		c.Do = "correct listen.https, or what the system complains about"
	}
	return p
}

// heldBy says who has the port.
func (p *port) heldBy(o Options, before []string, number string) {
	c := &p.check
	if p.byNode {
		c.Found = "open; this node serves HTTPS here"
		return
	}
	c.Result = Failed
	if i := slices.IndexFunc(before, func(b string) bool { return overlap(b, p.addr) }); i >= 0 {
		p.taken = false // by ourselves, just now
		c.Found, c.Do = "listen.https names the same port a second time, after "+before[i], "leave one of the two"
		return
	}
	c.Found = "held by another program"
	if o.Holder != nil {
		who, err := o.Holder(p.addr)
		switch {
		case err != nil:
			c.Found += fmt.Sprintf("; which one could not be learnt: %v", err)
		case who != "":
			c.Found = "held by " + who
		}
	}
	c.Do = "stop that program or let it use another port, or set listen.https to an address that it does not use; to see it: " + whoHolds(number)
}

func answers(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was written
	return true
}

// whoHolds is the command that shows who has a port.
func whoHolds(number string) string {
	switch runtime.GOOS {
	case "windows":
		return "netstat -abno | findstr :" + number +
			"; process 4 (System) is HTTP.sys, whose users netsh http show servicestate names (IIS, WinRM, BranchCache, Work Folders); ranges kept by the system: netsh int ipv4 show excludedportrange protocol=tcp"
	case "linux":
		return "ss -ltnp 'sport = :" + number + "'"
	}
	return "lsof -nP -iTCP:" + number + " -sTCP:LISTEN"
}

func mayOpen(number string) string {
	if runtime.GOOS == "linux" {
		return "give the service AmbientCapabilities=CAP_NET_BIND_SERVICE (systemd), or the program setcap cap_net_bind_service=+ep, or everybody sysctl net.ipv4.ip_unprivileged_port_start=" +
			number + "; to look with all privileges, run this as root"
	}
	return "run the node under an account that may open port " + number + ", or look again with more privileges"
}

// overlap reports whether two addresses cannot both be listened to. A host name
// may stand for any address.
func overlap(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB {
		return false
	}
	return hostA == hostB || everywhere(hostA) || everywhere(hostB) || net.ParseIP(hostA) == nil || net.ParseIP(hostB) == nil
}

func everywhere(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// local is how to come to a listener of this machine from itself.
func local(addr string) string {
	host, number, err := net.SplitHostPort(addr)
	if err == nil && everywhere(host) {
		if host == "::" {
			return "localhost:" + number // both of its addresses: it may be for IPv6 alone
		}
		return "127.0.0.1:" + number
	}
	return addr
}
