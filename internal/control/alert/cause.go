package alert

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// offline finds silent nodes: each by itself, or, when all nodes of a site, or
// nearly all there are, went silent, the site or the fleet, for that is one
// cause.
func offline(f *Facts, l limits) []Finding {
	limit := l.duration("minutes", time.Minute)
	var silent []*Node
	bySite := map[string]int{}
	watched := 0
	for _, n := range f.Nodes {
		if n.Line == 0 || !n.Revoked.IsZero() || n.LastSeen.IsZero() {
			continue
		}
		watched++
		bySite[n.Spec.Site]++
		if f.silent(n) > limit {
			silent = append(silent, n)
		}
	}
	severity := func(ns []*Node) (Severity, int, time.Time) {
		first := ns[0].LastSeen
		for _, n := range ns {
			if n.LastSeen.Before(first) {
				first = n.LastSeen
			}
		}
		if f.Now.Sub(first) > l.duration("errorHours", time.Hour) {
			return Error, 1, first
		}
		return 0, 0, first
	}
	together := func(subject, title, fix string, ns []*Node) Finding {
		s, step, first := severity(ns)
		x := Finding{Subject: subject, Severity: s, Step: step, Title: title, Reason: "The first of them was last heard of at " + timeText(first) + ".", Fix: fix}
		for _, n := range ns {
			x.Members = append(x.Members, n.member())
		}
		return x
	}
	// Nodes of more than one site, and nine of ten of all: what they share is
	// the control plane's own network.
	sites := map[string][]*Node{}
	for _, n := range silent {
		sites[n.Spec.Site] = append(sites[n.Spec.Site], n)
	}
	if watched >= 5 && len(sites) > 1 && len(silent)*10 >= watched*9 {
		x := together("the fleet", fmt.Sprintf("%d of %d nodes have stopped reporting", len(silent), watched), "So many at once share a cause: look at the control plane's own network, its name in DNS, and what stands before it. Nodes serve on meanwhile.", silent)
		x.Severity = Error
		return []Finding{x}
	}
	var all []Finding
	for _, site := range slices.Sorted(maps.Keys(sites)) {
		ns := sites[site]
		if site != "" && len(ns) > 1 && len(ns) == bySite[site] {
			all = append(all, together("site "+site, fmt.Sprintf("Site %s is offline: all its %d nodes have stopped reporting", site, len(ns)), "All nodes of the site share a cause: look at its uplink and its power. They serve on meanwhile if they run.", ns))
			continue
		}
		for _, n := range ns {
			all = append(all, together(n.NodeID, n.Name+" has stopped reporting", "See that the machine runs, that larder runs on it (larder node status), and that it reaches the control plane.", []*Node{n}))
			all[len(all)-1].Reason = "It was last heard of at " + timeText(n.LastSeen) + "."
		}
	}
	return all
}

// foldUplinks takes failures of origins of a node none of whose origins answers
// together: its uplink is gone, or its site's.
func foldUplinks(f *Facts, found []Finding) []Finding {
	failing := map[string]int{} // origins by node
	for _, x := range found {
		if x.Rule == "origin" {
			for _, m := range x.Members {
				failing[m.NodeID]++
			}
		}
	}
	cut := map[string]*Node{}
	bySite, cutBySite := map[string]int{}, map[string]int{}
	for _, n := range f.Nodes {
		if f.dark(n) || n.LastSeen.IsZero() {
			continue
		}
		bySite[n.Spec.Site]++
		if k := failing[n.NodeID]; k >= 3 && k >= lately(f, n) {
			cut[n.NodeID] = n
			cutBySite[n.Spec.Site]++
		}
	}
	if len(cut) == 0 {
		return found
	}
	var all []Finding
	groups := map[string]*Finding{}
	var order []string
	for _, x := range found {
		if x.Rule != "origin" {
			all = append(all, x)
			continue
		}
		left := slices.DeleteFunc(slices.Clone(x.Members), func(m Member) bool { return cut[m.NodeID] != nil })
		for _, m := range x.Members {
			n := cut[m.NodeID]
			if n == nil {
				continue
			}
			site := n.Spec.Site
			subject, title := "uplink of "+n.NodeID, n.Name+" reaches none of its origins"
			if site != "" && cutBySite[site] > 1 && cutBySite[site] == bySite[site] {
				subject, title = "uplink of site "+site, fmt.Sprintf("Site %s reaches no origin: none of its %d nodes does", site, bySite[site])
			}
			g := groups[subject]
			if g == nil {
				g = &Finding{Rule: x.Rule, Subject: subject, Severity: x.Severity, Title: title, Reason: "For example " + x.Subject + ": " + reasonOf(n, x.Subject),
					Fix: "Look at the uplink, the DNS servers and the proxy there: what is in the cache is served on, the rest clients fetch themselves."}
				groups[subject] = g
				order = append(order, subject)
			}
			if !slices.Contains(g.Members, m) {
				g.Members = append(g.Members, m)
			}
		}
		switch {
		case len(left) == len(x.Members), len(left) > 1:
			x.Members = left
			if len(left) > 1 {
				x.Title = fmt.Sprintf("%s fails for %d nodes", x.Subject, len(left))
			}
			all = append(all, x)
		case len(left) == 1:
			x.Members = left
			x.Title = fmt.Sprintf("%s does not answer %s", strings.TrimPrefix(x.Subject, left[0].NodeID+" "), left[0].Name)
			all = append(all, x)
		}
	}
	for _, s := range order {
		all = append(all, *groups[s])
	}
	return all
}

// lately is how many origins a node has asked within the last hour.
func lately(f *Facts, n *Node) int {
	k := 0
	for _, o := range n.State.Origins {
		last := o.LastOKAt
		if o.LastErrorAt.After(last) {
			last = o.LastErrorAt
		}
		if f.Now.Add(n.ClockOff).Sub(last) < time.Hour {
			k++
		}
	}
	return k
}

func reasonOf(n *Node, host string) string {
	for _, o := range n.State.Origins {
		if o.Host == host && o.LastError != "" {
			return o.LastError
		}
	}
	return "no more is known"
}
