package firewall

import (
	"context"
	"fmt"
	"runtime"
	"strings"
)

// Kind is a program that decides who gets through.
type Kind string

// The kinds there are commands for. None is a machine on which nothing was
// found: it may have no firewall, or one that only root may look at.
const (
	None      Kind = ""
	Windows   Kind = "Windows Firewall"
	Firewalld Kind = "firewalld"
	UFW       Kind = "ufw"
	Nftables  Kind = "nftables"
)

// Detect asks which firewall is active.
func Detect(ctx context.Context) Kind {
	if runtime.GOOS == "windows" {
		return Windows
	}
	return detect(ctx, system)
}

// detect asks the programs on top first: firewalld and ufw write tables of
// nftables, and would write over what is added beside them.
func detect(ctx context.Context, run Runner) Kind {
	if out, err := run(ctx, "firewall-cmd", "--state"); err == nil && strings.Contains(out, "running") {
		return Firewalld
	}
	if out, err := run(ctx, "ufw", "status"); err == nil && strings.Contains(out, "Status: active") {
		return UFW
	}
	if out, err := run(ctx, "nft", "list", "ruleset"); err == nil && strings.Contains(out, "hook input") {
		return Nftables
	}
	return None
}

// CommandFor is the exact command for a kind of firewall, to be called as
// root or as an administrator; "" for None. That of nftables assumes the names
// of table and chain that distributions begin with.
func CommandFor(k Kind, add bool, r Rule) string {
	switch k {
	case Windows:
		return Command(add, r)
	case Firewalld:
		verb := "add"
		if !add {
			verb = "remove"
		}
		each := fmt.Sprintf(" --%s-port=", verb)
		return "firewall-cmd --permanent" + each + r.PortList("/tcp"+each) + "/tcp && firewall-cmd --reload"
	case UFW:
		if !add {
			return fmt.Sprintf("ufw delete allow %s/tcp", r.PortList(","))
		}
		return fmt.Sprintf("ufw allow %s/tcp comment '%s'", r.PortList(","), strings.ReplaceAll(r.Name, "'", ""))
	case Nftables:
		ports := r.PortList(", ")
		inShell := ports
		if len(r.Ports) > 1 {
			ports = "{ " + ports + " }"
			inShell = "'" + ports + "'"
		}
		if !add {
			return fmt.Sprintf("nft -a list chain inet filter input | grep 'dport %s accept'   # then: nft delete rule inet filter input handle N", ports)
		}
		return fmt.Sprintf("nft insert rule inet filter input tcp dport %s accept   # and into /etc/nftables.conf, to outlive a restart", inShell)
	}
	return ""
}
