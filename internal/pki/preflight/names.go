package preflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Name is a name or an address by which clients may reach this node.
type Name struct {
	Name      string       `json:"name"`
	Source    string       `json:"source"`    // FromConfiguration, FromHost, FromDNS or "address of eth0"
	Addresses []netip.Addr `json:"addresses"` // that it leads to
	Ours      bool         `json:"ours"`      // all of Addresses are this machine's
	LinkLocal bool         `json:"linkLocal"` // an address that is of use on one network only
	Problem   string       `json:"problem"`   // why clients may not get here by it; "" nothing

	do        string // what to do about Problem
	elsewhere bool   // Problem is that it leads to other addresses
}

// Where names come from, besides "address of" an interface.
const (
	FromConfiguration = "configuration"
	FromHost          = "host name"
	FromDNS           = "full host name"
)

// Names returns the names and addresses by which clients may reach this node:
// those of the configuration, this machine's host name, its full name if DNS
// has one, and the addresses of its interfaces that are up.
func Names(ctx context.Context, o Options) []Name { return findNames(ctx, o.withDefaults()) }

func findNames(ctx context.Context, o Options) []Name {
	var names []Name
	add := func(name, source string) {
		name = strings.TrimSuffix(strings.Trim(strings.TrimSpace(name), "[]"), ".")
		known := slices.ContainsFunc(names, func(n Name) bool { return strings.EqualFold(n.Name, name) })
		if name != "" && !known {
			names = append(names, Name{Name: name, Source: source})
		}
	}
	for _, n := range o.Names {
		add(n, FromConfiguration)
	}
	if h := strings.ToLower(o.machine.host); h != "localhost" && !strings.HasPrefix(h, "localhost.") {
		add(o.machine.host, FromHost)
		for _, full := range fullNames(ctx, o) {
			add(full, FromDNS)
		}
	}
	for _, a := range o.machine.addresses {
		add(a.String(), "address of "+a.on)
	}
	someAtOnce(len(names), func(i int) { names[i].lookUp(ctx, o) })
	return names
}

// fullNames asks DNS for the machine's full names: what its host name stands
// for, and what its addresses are called if that leads back to it. Addresses
// often have names that nobody gave them.
func fullNames(ctx context.Context, o Options) []string {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	var canonical string
	back := make([][]string, len(o.machine.addresses))
	var wg sync.WaitGroup
	wg.Go(func() {
		if o.machine.host != "" {
			canonical, _ = o.Resolver.LookupCNAME(ctx, o.machine.host) // no answer, no name
		}
	})
	for i, a := range o.machine.addresses {
		if a.IsLinkLocalUnicast() {
			continue
		}
		wg.Go(func() {
			found, _ := o.Resolver.LookupAddr(ctx, a.String()) // likewise
			for _, name := range found[:min(len(found), 4)] {
				addrs, err := o.Resolver.LookupNetIP(ctx, "ip", name)
				if err == nil && slices.ContainsFunc(addrs, func(x netip.Addr) bool { return x.Unmap() == a.Addr }) {
					back[i] = append(back[i], name)
				}
			}
		})
	}
	wg.Wait()
	var full []string
	for _, name := range append([]string{canonical}, slices.Concat(back...)...) {
		if name = strings.TrimSuffix(name, "."); strings.Contains(name, ".") && !strings.HasPrefix(name, "localhost.") {
			full = append(full, name)
		}
	}
	return full
}

// lookUp finds out where n leads.
func (n *Name) lookUp(ctx context.Context, o Options) {
	if a, err := netip.ParseAddr(n.Name); err == nil {
		a = a.Unmap()
		n.Addresses, n.LinkLocal = []netip.Addr{a}, a.IsLinkLocalUnicast()
		n.judge(o.machine)
		return
	}
	if strings.ContainsAny(n.Name, "*/: ") {
		n.Problem = "no host name that a client could ask for"
		n.do = "tell clients one whole host name or address of this node, without a port"
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	found, err := o.Resolver.LookupNetIP(ctx, "ip", n.Name)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		n.Problem = "does not resolve"
		n.do = "make a DNS record for it that leads here (" + o.machine.text() + "), or stop telling clients to use it"
		return
	case err != nil:
		n.Problem = fmt.Sprintf("where it leads could not be learnt: %v", err)
		n.do = "see that this machine reaches its DNS server, then look again"
		return
	}
	for _, a := range found {
		if a = a.Unmap(); !slices.Contains(n.Addresses, a) {
			n.Addresses = append(n.Addresses, a)
		}
	}
	slices.SortFunc(n.Addresses, netip.Addr.Compare)
	n.judge(o.machine)
}

// judge compares where n leads with where this machine is.
func (n *Name) judge(m *machine) {
	var foreign, local []string
	for _, a := range n.Addresses {
		switch {
		case m.has(a):
		case a.IsLoopback():
			local = append(local, a.String())
		default:
			foreign = append(foreign, a.String())
		}
	}
	n.Ours = len(foreign) == 0
	n.elsewhere = !n.Ours
	switch all := len(n.Addresses); {
	case len(local) == all:
		n.Problem = "leads to this machine itself only here: " + strings.Join(local, ", ") + " is loopback, most likely from the hosts file"
		n.do = "ask a client where it leads (nslookup " + n.Name + "); it should be here (" + m.text() + ")"
	case len(foreign) == 0:
	case len(foreign) == all:
		n.Problem = "not an address of this machine"
		n.do = "correct it if what is there is neither a load balancer nor an address translation that leads here (" + m.text() + ")"
	default:
		n.Problem = "some are not addresses of this machine: " + strings.Join(foreign, ", ")
		n.do = "correct its DNS records if what is there is no other node with a certificate for this name"
	}
}

// namesCheck is the report on names. What was reached by a name, though it
// leads elsewhere by its addresses, is no problem.
func namesCheck(names []Name, reached map[string]bool) Check {
	c := Check{ID: IDNames, Title: "Names and addresses that clients use", Result: OK,
		Why: "a client takes the certificate only if it has the very name or address that the client was told to use, and that must lead here"}
	if len(names) == 0 {
		c.Result, c.Found = Warning, "none: no name is configured, and no interface has an address"
		c.Do = "connect this machine to the network of its clients, then look again"
		return c
	}
	configured := slices.ContainsFunc(names, func(n Name) bool { return n.Source == FromConfiguration })
	var found, do []string
	good := false // a host name leads here
	for _, n := range names {
		if n.elsewhere && reached[n.Name] {
			n.Problem = ""
		}
		found = append(found, n.text())
		switch {
		case n.Problem == "":
			good = good || !n.isAddress()
		case n.Source == FromConfiguration:
			c.Result = Warning
			do = append(do, n.Name+": "+n.do)
		case !configured: // otherwise clients use other names
			do = append(do, n.Name+": "+n.do)
		}
	}
	if !configured {
		c.Result = Info
		if !good {
			c.Result = Warning
			found = append(found, "no host name leads here")
		}
		do = append(do, "decide which of these clients shall use, and give all of them to the certificate: --san-dns for names, --san-ip for addresses")
	}
	c.Found, c.Do = strings.Join(found, "\n"), strings.Join(do, "\n")
	return c
}

func (n *Name) isAddress() bool {
	_, err := netip.ParseAddr(n.Name)
	return err == nil
}

// text is n in one line.
func (n *Name) text() string {
	var parts []string
	if len(n.Addresses) > 0 && !n.isAddress() {
		parts = append(parts, joined(n.Addresses))
	}
	switch {
	case n.Problem != "":
		parts = append(parts, n.Problem)
	case n.elsewhere:
		parts = append(parts, "not of this machine, but it leads here: the certificate seen there is this node's")
	case n.LinkLocal:
		parts = append(parts, "link-local, of use on that network only")
	case len(parts) > 0:
		parts = append(parts, "this machine")
	}
	text := n.Name + " (" + n.Source + ")"
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return text
}

func joined(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}
