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

// Rule lets connections to one TCP port in.
type Rule struct {
	Name    string
	Port    int
	Program string // only to this one; "" for any. Windows only.
}

// Rules is what the listeners of a configuration need, as host:port. Listeners
// on loopback need none, and one whose port the system chooses cannot have one.
func Rules(program string, http, https []string) ([]Rule, error) {
	var rules []Rule
	for _, of := range []struct {
		what  string
		addrs []string
	}{{"HTTP", http}, {"HTTPS", https}} {
		for _, addr := range of.addrs {
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
			r := Rule{Name: fmt.Sprintf("Larder %s %d", of.what, port), Port: int(port), Program: program}
			if !slices.Contains(rules, r) {
				rules = append(rules, r)
			}
		}
	}
	return rules, nil
}

func (r Rule) check() error {
	switch {
	case r.Name == "" || strings.ContainsAny(r.Name, "\"\r\n\x00") || strings.EqualFold(r.Name, "all"):
		return fmt.Errorf("name of a firewall rule: found %q, expected some words without quotation marks", r.Name)
	case r.Port < 1 || r.Port > 65535:
		return fmt.Errorf("port of a firewall rule: found %d, expected 1 to 65535", r.Port)
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
		"protocol=TCP", "localport=" + strconv.Itoa(r.Port)}
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

// Remove removes a rule of that name from Windows' firewall. None is fine.
func Remove(ctx context.Context, r Rule) error { return remove(ctx, system, r) }

func add(ctx context.Context, run Runner, r Rule) error {
	if err := remove(ctx, run, r); err != nil {
		return err
	}
	return netsh(ctx, run, true, r)
}

func remove(ctx context.Context, run Runner, r Rule) error {
	if err := r.check(); err != nil {
		return err
	}
	// Asked first: deleting fails alike for a rule that is not there and for
	// want of rights, and says which only in the language of the machine.
	_, err := run(ctx, "netsh", "advfirewall", "firewall", "show", "rule", "name="+r.Name, "dir=in")
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
	return netsh(ctx, run, false, r)
}

func netsh(ctx context.Context, run Runner, add bool, r Rule) error {
	out, err := run(ctx, "netsh", arguments(add, r)...)
	if err != nil {
		return fmt.Errorf("%s: %w: %s; next: call it as an administrator", Command(add, r), err, oneLine(out))
	}
	return nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
