package portal

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/alert"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/control/telemetry"
)

// overview is what the first page shows.
type overview struct {
	Me       *access.Principal
	Version  string
	Now      time.Time
	Nodes    []node
	States   []state
	Usage    telemetry.Overview
	Kinds    []kind
	Certs    []certificate
	Alerts   []*alert.Alert
	Silenced int // alerts that people are not told of
	Channels []alert.Channel
	MayAct   bool // may silence
	Owner    bool // may see and test channels
	API      string
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
			if me.Sees(access.ScopeOf(n.ID)) {
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
	if err := p.attention(r, me, &o); err != nil {
		return err
	}
	return p.render(w, http.StatusOK, "overview.html", o)
}

// attention is what needs somebody: the alerts, and whether channels work.
func (p *Portal) attention(r *http.Request, me *access.Principal, o *overview) error {
	all, err := p.o.Alerts.List(r.Context(), me, alert.Filter{}, 1000)
	if err != nil {
		return err
	}
	for _, a := range all {
		if a.Silenced {
			o.Silenced++
			continue
		}
		if len(o.Alerts) < 100 {
			o.Alerts = append(o.Alerts, a)
		}
	}
	o.MayAct, o.Owner = me.May(access.Operate), me.Can(access.Manage, access.Everything)
	if o.Owner {
		o.Channels, err = p.o.Alerts.Channels(r.Context())
	}
	return err
}

// silence is the button beside an alert: nobody is told of it for a day.
func (p *Portal) silence(w http.ResponseWriter, r *http.Request) error {
	me := access.From(r.Context())
	a, err := p.o.Alerts.Get(r.Context(), me, r.PathValue("alertId"))
	if errors.Is(err, alert.ErrNotFound) {
		return route.NotFound(fmt.Sprintf("Alert %q", r.PathValue("alertId")))
	}
	if err != nil {
		return err
	}
	now := time.Now()
	err = p.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		s, err := p.o.Alerts.AddSilence(r.Context(), tx, me, alert.Silence{Alert: a.ID, Until: now.Add(24 * time.Hour), Comment: "from the overview: " + a.Title}, now)
		if err != nil {
			return err
		}
		return p.o.Audit(r.Context(), tx, r, access.Entry{Actor: me, Action: "silence.create", Target: "silence " + s.ID, After: s})
	})
	if err != nil {
		return err
	}
	if err := p.o.Alerts.Hush(r.Context(), a.ID); err != nil {
		return err
	}
	http.Redirect(w, r, "/#attention", http.StatusSeeOther)
	return nil
}

// testChannel is the button beside a channel; how it went is in the table.
func (p *Portal) testChannel(w http.ResponseWriter, r *http.Request) error {
	me := access.From(r.Context())
	err := p.o.Alerts.TestChannel(r.Context(), r.PathValue("channelId"), me.Name)
	var lost *alert.Undelivered
	switch {
	case errors.Is(err, alert.ErrNotFound):
		return route.NotFound(fmt.Sprintf("Channel %q", r.PathValue("channelId")))
	case err != nil && !errors.As(err, &lost):
		return err
	}
	if err := p.audit(r, access.Entry{Actor: me, Action: "channel.test", Target: "channel " + r.PathValue("channelId")}); err != nil {
		return err
	}
	http.Redirect(w, r, "/#channels", http.StatusSeeOther)
	return nil
}

func (o *overview) add(n *roster.Node, now time.Time, counts map[roster.Word]int) {
	c := n.Condition(now)
	counts[c.Word]++
	running := "–"
	if n.Line > 0 {
		running = fmt.Sprintf("%d of %d", n.State.Running, n.Desired)
	}
	o.Nodes = append(o.Nodes, node{n.Name, n.Spec.Site, n.NodeID, c, n.LastSeen, n.State.System.Version, running})
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
