package alert

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"larder/internal/control/words"
)

// offline finds silent nodes: each by itself, or, when all nodes of a site, or
// nearly all there are, went silent, the site or the fleet, for that is one
// cause.
func offline(f *Facts, all []brief, l limits) []Finding {
	limit := l.duration("minutes", time.Minute)
	var silent []brief
	bySite := map[string]int{}
	watched := 0
	for _, b := range all {
		if !b.watched {
			continue
		}
		watched++
		bySite[b.Site]++
		if f.since(b.seen) > limit {
			silent = append(silent, b)
		}
	}
	together := func(subject, title, fix string, bs []brief) Finding {
		first := bs[0].seen
		for _, b := range bs {
			if b.seen.Before(first) {
				first = b.seen
			}
		}
		x := Finding{Subject: subject, Title: title, Reason: "The first of them was last heard of at " + words.Moment(first) + ".", Fix: fix}
		if f.Now.Sub(first) > l.duration("errorHours", time.Hour) {
			x.Severity, x.Step = Error, 1
		}
		for _, b := range bs {
			x.Members = append(x.Members, b.Member)
		}
		return x
	}
	// Nodes of more than one site, and nine of ten of all: what they share is
	// the control plane's own network.
	sites := map[string][]brief{}
	for _, b := range silent {
		sites[b.Site] = append(sites[b.Site], b)
	}
	if watched >= 5 && len(sites) > 1 && len(silent)*10 >= watched*9 {
		x := together("the fleet", fmt.Sprintf("%d of %d nodes have stopped reporting", len(silent), watched), "So many at once share a cause: look at the control plane's own network, its name in DNS, and what stands before it. Nodes serve on meanwhile.", silent)
		x.Severity = Error
		return []Finding{x}
	}
	var found []Finding
	for _, site := range slices.Sorted(maps.Keys(sites)) {
		bs := sites[site]
		if site != "" && len(bs) > 1 && len(bs) == bySite[site] {
			found = append(found, together("site "+site, fmt.Sprintf("Site %s is offline: all its %d nodes have stopped reporting", site, len(bs)), "All nodes of the site share a cause: look at its uplink and its power. They serve on meanwhile if they run.", bs))
			continue
		}
		for _, b := range bs {
			x := together(b.NodeID, b.Name+" has stopped reporting", "See that the machine runs, that larder runs on it (larder node status), and that it reaches the control plane.", []brief{b})
			x.Reason = "It was last heard of at " + words.Moment(b.seen) + "."
			found = append(found, x)
		}
	}
	return found
}

// foldUplinks takes failures of origins of a node none of whose origins answers
// together: its uplink is gone, or its site's.
func foldUplinks(briefs []brief, found []Finding) []Finding {
	failing := map[string]int{} // origins by node
	for _, x := range found {
		if x.Rule == "origin" {
			for _, m := range x.Members {
				failing[m.NodeID]++
			}
		}
	}
	if len(failing) == 0 {
		return found
	}
	cut := map[string]brief{}
	bySite, cutBySite := map[string]int{}, map[string]int{}
	for _, b := range briefs {
		if b.dark || b.seen.IsZero() {
			continue
		}
		bySite[b.Site]++
		if k := failing[b.NodeID]; k >= 3 && k >= b.lately {
			cut[b.NodeID] = b
			cutBySite[b.Site]++
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
		left := slices.DeleteFunc(slices.Clone(x.Members), func(m Member) bool { _, gone := cut[m.NodeID]; return gone })
		for _, m := range x.Members {
			b, gone := cut[m.NodeID]
			if !gone {
				continue
			}
			site := b.Site
			subject, title := "uplink of "+b.NodeID, b.Name+" reaches none of its origins"
			if site != "" && cutBySite[site] > 1 && cutBySite[site] == bySite[site] {
				subject, title = "uplink of site "+site, fmt.Sprintf("Site %s reaches no origin: none of its %d nodes does", site, bySite[site])
			}
			g := groups[subject]
			if g == nil {
				g = &Finding{Rule: x.Rule, Subject: subject, Severity: x.Severity, Title: title, Reason: "For example " + x.Subject + ": " + cmp.Or(b.why[x.Subject], "no more is known"),
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
