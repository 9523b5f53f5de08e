package portal

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/api"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/control/telemetry"
)

// overview is what the first page shows.
type overview struct {
	Me        *access.Principal
	Version   string
	Now       time.Time
	Nodes     []node
	States    []state
	Usage     telemetry.Overview
	Kinds     []kind
	Certs     []certificate
	Attention []attention
	API       string
}

type node struct {
	Name, Site, ID string
	roster.Condition
	Seen    time.Time
	Version string
	Running string
}

type state struct {
	Word  roster.Word
	Count int
}

type kind struct {
	Name  string
	Bytes int64
	Ratio float64
	Share int // percent of the largest
}

type certificate struct {
	Node, File, Names string
	Days              int
	Action            string
}

type attention struct {
	Node, What, Link string
}

func (p *Portal) overview(w http.ResponseWriter, r *http.Request) error {
	me, err := p.o.Access.Authenticate(r)
	if err != nil {
		return asError(err)
	}
	if me == nil || !me.May(access.Read) {
		http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
		return nil
	}
	now := time.Now().UTC()
	o := overview{Me: me, Version: p.o.Version, Now: now, API: route.OpenAPIPath}
	counts := map[roster.Word]int{}
	var customers []string
	for after := ""; ; {
		nodes, err := p.o.Roster.Nodes(r.Context(), "", after, 500)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			after = n.ID
			if me.Sees(api.ScopeOf(n.ID)) {
				o.add(n, now, counts)
				if !slices.Contains(customers, n.Customer) {
					customers = append(customers, n.Customer)
				}
			}
		}
		if len(nodes) < 500 {
			break
		}
	}
	for w, n := range counts {
		o.States = append(o.States, state{w, n})
	}
	slices.SortFunc(o.States, func(a, b state) int { return b.Count - a.Count })
	slices.SortFunc(o.Certs, func(a, b certificate) int { return a.Days - b.Days })
	if len(customers) == 0 {
		customers = []string{"none"}
	}
	f := telemetry.Filter{Customers: customers}
	if o.Usage, err = p.o.Usage.Overview(r.Context(), f, now); err != nil {
		return err
	}
	kinds, err := p.o.Usage.ByContentType(r.Context(), f, now.Add(-24*time.Hour), now, now)
	if err != nil {
		return err
	}
	for _, k := range kinds {
		if k.EgressBytes() == 0 {
			continue
		}
		share := 100
		if len(o.Kinds) > 0 && o.Kinds[0].Bytes > 0 {
			share = int(100 * k.EgressBytes() / o.Kinds[0].Bytes)
		}
		o.Kinds = append(o.Kinds, kind{k.Name, k.EgressBytes(), k.HitRatio(), share})
	}
	return p.render(w, http.StatusOK, "overview.html", o)
}

func (o *overview) add(n *roster.Node, now time.Time, counts map[roster.Word]int) {
	c := n.Condition(now)
	counts[c.Word]++
	running := "–"
	if n.Line > 0 {
		running = fmt.Sprintf("%d of %d", n.State.Running, n.Desired)
	}
	o.Nodes = append(o.Nodes, node{n.Name, n.Spec.Site, n.NodeID, c, n.LastSeen, n.State.System.Version, running})
	for _, reason := range c.Reasons {
		o.Attention = append(o.Attention, attention{Node: n.Name, What: reason, Link: "/api/larder/v1/nodes/" + n.NodeID})
	}
	for _, x := range n.State.Certificates {
		if x.Active {
			names := ""
			if len(x.Names) > 0 {
				names = x.Names[0]
			}
			o.Certs = append(o.Certs, certificate{n.Name, x.File, names, int(x.NotAfter.Sub(now).Hours() / 24), x.Action})
		}
	}
}

// bytesText writes bytes with three digits and an SI prefix.
func bytesText(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"kB", "MB", "GB", "TB", "PB"} {
		if f < 1000 {
			break
		}
		f, unit = f/1000, u
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %s", f, unit)
}

func agoText(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	switch d := now.Sub(t); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", max(0, d/time.Second))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	default:
		return fmt.Sprintf("%d days ago", d/(24*time.Hour))
	}
}
