// Package firewall lets clients through the machine's firewall to the node's ports.
//
// Windows' firewall is told so by netsh, which every edition has, Server Core
// too, and which no execution policy forbids. Other firewalls belong to whoever
// administers the machine: for those there is the exact command to call.
package firewall

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Rule lets connections to some TCP ports in.
type Rule struct {
	Name    string
	Ports   []int
	Program string // only to this one; "" for any. Windows only.
}

// Names are those of all rules that Rules may give, whatever the ports: what
// there is to remove when the configuration has changed meanwhile, or is gone.
var Names = [...]string{"Larder HTTP", "Larder HTTPS"}

// Rules is what the listeners of a configuration need, as host:port: one for
// HTTP and one for HTTPS. Listeners on loopback need none, and one whose port
// the system chooses cannot have one.
func Rules(program string, http, https []string) ([]Rule, error) {
	var rules []Rule
	for i, addrs := range [...][]string{http, https} {
		r := Rule{Name: Names[i], Program: program}
		for _, addr := range addrs {
			host, service, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			port, err := strconv.ParseUint(service, 10, 16)
			if err != nil {
				return nil, fmt.Errorf("%s: port: found %q, expected a number", addr, service)
			}
			if ip, err := netip.ParseAddr(host); port == 0 || host == "localhost" || err == nil && ip.IsLoopback() {
				continue
			}
			if !slices.Contains(r.Ports, int(port)) {
				r.Ports = append(r.Ports, int(port))
			}
		}
		if len(r.Ports) > 0 {
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// PortList is the ports with something between them.
func (r Rule) PortList(between string) string {
	texts := make([]string, 0, len(r.Ports))
	for _, p := range r.Ports {
		texts = append(texts, strconv.Itoa(p))
	}
	return strings.Join(texts, between)
}

func checkName(name string) error {
	if name == "" || strings.ContainsAny(name, "\"\r\n\x00") || strings.EqualFold(name, "all") {
		return fmt.Errorf("name of a firewall rule: found %q, expected some words without quotation marks", name)
	}
	return nil
}

func (r Rule) check() error {
	if err := checkName(r.Name); err != nil {
		return err
	}
	switch {
	case len(r.Ports) == 0 || slices.Min(r.Ports) < 1 || slices.Max(r.Ports) > 65535:
		return fmt.Errorf("ports of a firewall rule: found %d, expected some from 1 to 65535", r.Ports)
	case strings.ContainsAny(r.Program, "\"\r\n\x00"):
		return fmt.Errorf("program of a firewall rule: found %q, expected a path", r.Program)
	}
	return nil
}

// arguments is what netsh is called with.
func arguments(add bool, r Rule) []string {
	if !add {
		return []string{"advfirewall", "firewall", "delete", "rule", "name=" + r.Name, "dir=in"}
	}
	args := []string{"advfirewall", "firewall", "add", "rule", "name=" + r.Name, "dir=in", "action=allow",
		"protocol=TCP", "localport=" + r.PortList(",")}
	if r.Program != "" {
		args = append(args, "program="+r.Program)
	}
	return args
}

// Command is how Windows is told, as one would type it.
func Command(add bool, r Rule) string {
	line := "netsh"
	for _, a := range arguments(add, r) {
		if key, value, ok := strings.Cut(a, "="); ok && (key == "name" || key == "program") {
			a = key + `="` + value + `"`
		}
		line += " " + a
	}
	return line
}

// Runner runs a program and returns what it printed. The error is also for an
// exit code that is not 0.
type Runner func(ctx context.Context, program string, args ...string) (output string, err error)

// Add makes a rule in Windows' firewall. One of the same name is replaced:
// netsh would make a second.
func Add(ctx context.Context, r Rule) error { return add(ctx, system, r) }

// Remove removes the rules of that name from Windows' firewall, whatever their
// ports. None is fine.
func Remove(ctx context.Context, name string) error { return remove(ctx, system, name) }

func add(ctx context.Context, run Runner, r Rule) error {
	if err := r.check(); err != nil {
		return err
	}
	if err := remove(ctx, run, r.Name); err != nil {
		return err
	}
	return netsh(ctx, run, true, r)
}

func remove(ctx context.Context, run Runner, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	// Asked first: deleting fails alike for a rule that is not there and for
	// want of rights, and says which only in the language of the machine.
	_, err := run(ctx, "netsh", "advfirewall", "firewall", "show", "rule", "name="+name, "dir=in")
	var exit interface{ ExitCode() int }
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &exit): // none
		return nil
	default:
		return err
	}
	return netsh(ctx, run, false, Rule{Name: name})
}

func netsh(ctx context.Context, run Runner, add bool, r Rule) error {
	out, err := run(ctx, "netsh", arguments(add, r)...)
	if err != nil {
		return fmt.Errorf("%s: %w: %s; next: call it as an administrator", Command(add, r), err, oneLine(out))
	}
	return nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
