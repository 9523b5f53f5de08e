package alert

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/roster"
	"larder/internal/control/telemetry"
	"larder/internal/fleet"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

const day24 = 24 * time.Hour

// fine is a node with nothing wrong.
func fine(name, site string) *Node {
	return &Node{
		Node: &roster.Node{
			NodeID: name + "-id", Name: name, Line: 1, LastSeen: now.Add(-30 * time.Second), Desired: 3, DesiredAt: now.Add(-time.Hour), Configured: true, Spec: roster.Spec{Site: site, ClientNames: []string{"cache.school.example"}},
			State: fleet.State{
				Ready: true, Running: 3, System: fleet.System{Version: "1.0"},
				Drives:       []fleet.DriveState{{Path: "/srv", Budget: 100e9, Used: 50e9, Free: 80e9, State: "ok"}},
				Certificates: []fleet.Certificate{{File: "a.crt", Active: true, Names: []string{"*.school.example"}, NotBefore: now.Add(-10 * day24), NotAfter: now.Add(80 * day24), Source: "csr"}},
				Origins: []fleet.OriginState{
					{Host: "a.example", LastOKAt: now.Add(-time.Minute)}, {Host: "b.example", LastOKAt: now.Add(-time.Minute)}, {Host: "c.example", LastOKAt: now.Add(-time.Minute)},
				},
			},
		},
		Scope: access.GroupScope("s", "g"), Identity: now.Add(20 * day24),
		Figures: Figures{LastDay: now.Truncate(day24), Yesterday: telemetry.Counts{HitBytes: 80e9, MissBytes: 20e9, FetchedBytes: 20e9}, Week: telemetry.Counts{HitBytes: 560e9, MissBytes: 140e9}},
	}
}

func facts() *Facts { return &Facts{Now: now, Listening: now.Add(-10 * day24), Version: "1.0"} }

// look evaluates all these nodes.
func look(f *Facts, rules []Rule, ns ...*Node) []Finding {
	e := newEvaluation(f, rules)
	for _, n := range ns {
		e.node(n)
	}
	return e.findings()
}

// show writes findings in the form that tests expect them in.
func show(found []Finding) string {
	var lines []string
	for _, f := range found {
		lines = append(lines, fmt.Sprintf("%s %s [%s] x%d", f.Severity, f.Rule, f.Subject, len(f.Members)))
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

// down makes an origin fail.
func down(n *Node, host, why string) {
	for i := range n.State.Origins {
		if o := &n.State.Origins[i]; o.Host == host {
			o.LastOKAt, o.LastErrorAt, o.LastError = now.Add(-20*time.Minute), now.Add(-time.Minute), why
		}
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	cert := func(n *Node) *fleet.Certificate { return &n.State.Certificates[0] }
	for name, c := range map[string]struct {
		do   func(f *Facts, n *Node)
		want string
		says string // in the finding's words
	}{
		"nothing is wrong":           {func(f *Facts, n *Node) {}, "", ""},
		"not heard of for 4 minutes": {func(f *Facts, n *Node) { n.LastSeen = now.Add(-4 * time.Minute) }, "", ""},
		"not heard of for 6 minutes": {func(f *Facts, n *Node) { n.LastSeen = now.Add(-6 * time.Minute) }, "warning node-offline [a-id] x1", "2026-11-26 11:54 UTC"},
		"not heard of for 25 hours":  {func(f *Facts, n *Node) { n.LastSeen = now.Add(-25 * time.Hour) }, "error node-offline [a-id] x1", ""},
		"the control plane was away": {func(f *Facts, n *Node) { n.LastSeen, f.Listening = now.Add(-time.Hour), now.Add(-2*time.Minute) }, "", ""},
		"never enrolled":             {func(f *Facts, n *Node) { n.Line, n.LastSeen = 0, time.Time{} }, "", ""},
		"revoked":                    {func(f *Facts, n *Node) { n.Revoked, n.LastSeen = now.Add(-day24), now.Add(-day24) }, "", ""},
		"what a dark node said":      {func(f *Facts, n *Node) { n.LastSeen, n.State.Ready = now.Add(-time.Hour), false }, "warning node-offline [a-id] x1", ""},
		"a third of its life": {func(f *Facts, n *Node) {
			cert(n).NotAfter = now.Add(30 * day24)
			cert(n).NotBefore = now.Add(-60 * day24)
		}, "info certificate-expiry [a-id] x1", "30 days"},
		"a third, renews itself": {func(f *Facts, n *Node) {
			cert(n).NotAfter, cert(n).NotBefore, cert(n).Source = now.Add(30*day24), now.Add(-60*day24), "acme"
		}, "", ""},
		"a sixth, renews itself": {func(f *Facts, n *Node) {
			cert(n).NotAfter, cert(n).NotBefore, cert(n).Source = now.Add(14*day24), now.Add(-76*day24), "acme"
		}, "warning certificate-expiry [a-id] x1", ""},
		"two days left": {func(f *Facts, n *Node) { cert(n).NotAfter = now.Add(2 * day24) }, "error certificate-expiry [a-id] x1", "48 hours|2 days"},
		"two days of six": {func(f *Facts, n *Node) {
			cert(n).NotAfter, cert(n).NotBefore = now.Add(50*time.Hour), now.Add(-2*day24)
		}, "", ""},
		"it has ended":         {func(f *Facts, n *Node) { cert(n).NotAfter = now.Add(-time.Hour) }, "error certificate-expiry [a-id] x1", "has ended"},
		"ended at a dark node": {func(f *Facts, n *Node) { cert(n).NotAfter, n.LastSeen = now.Add(-time.Hour), now.Add(-time.Hour) }, "error certificate-expiry [a-id] x1; warning node-offline [a-id] x1", ""},
		"renewal failed":       {func(f *Facts, n *Node) { cert(n).LastError = "the authority says no" }, "warning certificate-renewal [the authority says no] x1", "the authority says no"},
		"another is served": {func(f *Facts, n *Node) {
			n.State.Issues = []fleet.Issue{{Type: "certificate", Text: "the served certificate is not the stored one"}}
		}, "error certificate-problem [a-id certificate] x1", "not the stored one"},
		"the port is taken": {func(f *Facts, n *Node) {
			n.State.Issues = []fleet.Issue{{Type: "https-closed", Text: "port 443 is taken"}}
		}, "error certificate-problem [a-id https-closed] x1", "443"},
		"the chain is incomplete":      {func(f *Facts, n *Node) { cert(n).Severity, cert(n).Action = "error", "send the chain" }, "error certificate-problem [a-id action] x1", "send the chain"},
		"a client's name is missing":   {func(f *Facts, n *Node) { n.Spec.ClientNames = []string{"cache.office.example", "cache.school.example"} }, "error client-name [a-id] x1", "cache.office.example"},
		"a star is one label":          {func(f *Facts, n *Node) { n.Spec.ClientNames = []string{"a.cache.school.example"} }, "error client-name [a-id] x1", ""},
		"the identity was not renewed": {func(f *Facts, n *Node) { n.Identity = now.Add(5 * day24) }, "warning identity-expiry [a-id] x1", ""},
		"two machines":                 {func(f *Facts, n *Node) { n.Copied = now.Add(-time.Minute) }, "error identity-copied [a-id] x1", ""},
		"the clock is behind":          {func(f *Facts, n *Node) { n.ClockOff = -5 * time.Minute }, "warning clock [a-id] x1", "5m0s behind"},
		"the clock is hours ahead":     {func(f *Facts, n *Node) { n.ClockOff = 2 * time.Hour }, "error clock [a-id] x1", "ahead of"},
		"a drive failed":               {func(f *Facts, n *Node) { n.State.Drives[0].State, n.State.Ready = "failed", false }, "error drive [a-id /srv] x1", ""},
		"a drive is read-only":         {func(f *Facts, n *Node) { n.State.Drives[0].State = "read-only" }, "error drive [a-id /srv] x1", ""},
		"others fill the disk":         {func(f *Facts, n *Node) { n.State.Drives[0].Free = 500e6 }, "error drive-space [a-id /srv] x1", "500 MB"},
		"full in two days":             {func(f *Facts, n *Node) { n.State.Drives[0].Free = 40e9 }, "warning drive-space [a-id /srv] x1", "2 days"},
		"a budget that is used":        {func(f *Facts, n *Node) { n.State.Drives[0].Used, n.State.Drives[0].Free = 100e9, 5e9 }, "", ""},
		"rotten bytes":                 {func(f *Facts, n *Node) { n.State.Issues = []fleet.Issue{{Type: "integrity", Text: "3 chunks"}} }, "warning integrity [a-id] x1", "3 chunks"},
		"it cannot serve":              {func(f *Facts, n *Node) { n.State.Ready = false }, "error not-ready [a-id] x1", ""},
		"it drains":                    {func(f *Facts, n *Node) { n.State.Ready, n.State.Draining = false, true }, "", ""},
		"it refuses a document":        {func(f *Facts, n *Node) { n.Desired, n.State.Refused, n.State.Why = 4, 4, "drives[0].path: not there" }, "error document-refused [a-id] x1", "drives[0].path"},
		"it is behind":                 {func(f *Facts, n *Node) { n.Desired = 4 }, "warning drift [a-id] x1", "document 3; 4 is desired"},
		"its catalogue is wrong":       {func(f *Facts, n *Node) { n.State.Issues = []fleet.Issue{{Type: "catalog-invalid", Text: "line 3"}} }, "warning catalogue [a-id] x1", "line 3"},
		"an origin is down":            {func(f *Facts, n *Node) { down(n, "a.example", "no such host") }, "error origin [a.example] x1", "DNS"},
		"an origin failed long ago": {func(f *Facts, n *Node) {
			n.State.Origins[0].LastErrorAt, n.State.Origins[0].LastOKAt = now.Add(-time.Hour), now.Add(-2*time.Hour)
		}, "", ""},
		"an origin fails in part":      {func(f *Facts, n *Node) { n.Figures.Origins = []Ratio{{"b.example", 60, 40}} }, "error origin [b.example] x1", "60 %"},
		"an origin fails now and then": {func(f *Facts, n *Node) { n.Figures.Origins = []Ratio{{"b.example", 40, 60}} }, "", ""},
		"all origins are down": {func(f *Facts, n *Node) {
			down(n, "a.example", "x")
			down(n, "b.example", "x")
			down(n, "c.example", "x")
		}, "error origin [uplink of a-id] x1", "none of its origins"},
		"requests are refused":    {func(f *Facts, n *Node) { n.Refused = []Ratio{{"office", 80, 20}} }, "warning refused-requests [office] x1", "80 %"},
		"the hit ratio fell":      {func(f *Facts, n *Node) { n.Yesterday = telemetry.Counts{HitBytes: 20e9, MissBytes: 80e9} }, "info hit-ratio [a-id] x1", "20 % of yesterday's bytes, 80 %"},
		"the hit ratio of little": {func(f *Facts, n *Node) { n.Yesterday = telemetry.Counts{HitBytes: 2e6, MissBytes: 8e6} }, "", ""},
		"nobody asks":             {func(f *Facts, n *Node) { n.LastDay = now.Truncate(day24).Add(-5 * day24) }, "info no-traffic [a-id] x1", "2026-11-21"},
		"nobody ever asked":       {func(f *Facts, n *Node) { n.LastDay = time.Time{} }, "", ""},
		"at its limit":            {func(f *Facts, n *Node) { n.Spec.Limit, n.Fetched = &fleet.Limit{Rate: 1e6}, 899e6 }, "info limit [a-id] x1", "8.0 Mbit/s"},
		"at one of its limits": {func(f *Facts, n *Node) {
			n.Spec.Limit, n.Fetched = &fleet.Limit{Rate: 1e6, Schedule: []fleet.Window{{Rate: 2e6}}}, 899e6
		}, "", ""},
		"reports are lost":     {func(f *Facts, n *Node) { n.State.Dropped = 7 }, "warning reports-dropped [a-id] x1", "7 minutes"},
		"another version":      {func(f *Facts, n *Node) { n.State.System.Version = "0.9" }, "info version [0.9] x1", ""},
		"an update waits":      {func(f *Facts, n *Node) { n.State.Replaced = now.Add(-time.Hour) }, "warning update [a-id] x1", "Larder 1.0 still runs"},
		"a token ends":         {func(f *Facts, n *Node) { f.Ends = []End{{What: "token ci", At: now.Add(10 * day24)}} }, "warning ending [token ci] x0", "Token ci ends in 10 days"},
		"a token of two weeks": {func(f *Facts, n *Node) { f.Ends = []End{{What: "token ci", At: now.Add(10 * day24), Life: 14 * day24}} }, "", ""},
		"a token has ended":    {func(f *Facts, n *Node) { f.Ends = []End{{What: "token ci", At: now.Add(-day24)}} }, "error ending [token ci] x0", "has ended"},
		"something new": {func(f *Facts, n *Node) {
			n.State.Issues = []fleet.Issue{{Type: "fan", Subject: "2", Text: "a fan stands still"}}
		}, "warning issue [a-id fan 2] x1", "a fan stands still"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := fine("a", "")
			f := facts()
			c.do(f, n)
			found := look(f, rules, n)
			if got := show(found); got != c.want {
				t.Fatalf("found %q, want %q", got, c.want)
			}
			for _, x := range found {
				if x.Title == "" || x.Reason == "" || x.Fix == "" {
					t.Errorf("%s lacks a title, a reason or a fix: %+v", x.Rule, x)
				}
			}
			ok := false
			for alternative := range strings.SplitSeq(c.says, "|") {
				ok = ok || len(found) == 0 && alternative == "" || len(found) > 0 && strings.Contains(found[0].Title+" "+found[0].Reason+" "+found[0].Fix, alternative)
			}
			if !ok {
				t.Errorf("%+v does not say %q", found[0], c.says)
			}
		})
	}
}

// Every rule is found by some case above and has words for people.
func TestRulesAreDescribed(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, r := range rules {
		if r.Does == "" || r.Severity == 0 || names[r.Name] || (r.node == nil) == (r.fleet == nil) {
			t.Errorf("rule %q lacks words, a severity or one way to look, or is there twice", r.Name)
		}
		names[r.Name] = true
		for limit := range r.Limits {
			if limit != "reserveGB" && !strings.Contains(r.Does, "`"+limit+"`") && limit != "leastGB" {
				t.Errorf("rule %s does not say what its limit %s is", r.Name, limit)
			}
		}
	}
}

// A cause that many nodes feel is one finding.
func TestOneCauseIsOneFinding(t *testing.T) {
	t.Parallel()
	fleetOf := func(sites, each int) []*Node {
		var ns []*Node
		for s := range sites {
			for i := range each {
				ns = append(ns, fine(fmt.Sprintf("n%d-%d", s, i), fmt.Sprintf("site%d", s)))
			}
		}
		return ns
	}
	silent := func(ns []*Node, site string) {
		for _, n := range ns {
			if site == "" || n.Spec.Site == site {
				n.LastSeen = now.Add(-10 * time.Minute)
				// What it said last is bad as well, and no news.
				down(n, "a.example", "x")
				n.State.Ready = false
			}
		}
	}
	for name, c := range map[string]struct {
		do   func(ns []*Node)
		want string
	}{
		"a site goes dark":        {func(ns []*Node) { silent(ns, "site1") }, "warning node-offline [site site1] x20"},
		"two sites go dark":       {func(ns []*Node) { silent(ns, "site1"); silent(ns, "site2") }, "warning node-offline [site site1] x20; warning node-offline [site site2] x20"},
		"all go dark":             {func(ns []*Node) { silent(ns, "") }, "error node-offline [the fleet] x100"},
		"one of a site goes dark": {func(ns []*Node) { ns[3].LastSeen = now.Add(-time.Hour) }, "warning node-offline [n0-3-id] x1"},
		"an origin fails everywhere": {func(ns []*Node) {
			for _, n := range ns {
				down(n, "a.example", "refused")
			}
		}, "error origin [a.example] x100"},
		"a site has no uplink": {func(ns []*Node) {
			for _, n := range ns[:20] {
				for _, h := range []string{"a.example", "b.example", "c.example"} {
					down(n, h, "timeout")
				}
			}
		}, "error origin [uplink of site site0] x20"},
		"an uplink, and an origin for all": {func(ns []*Node) {
			for _, h := range []string{"a.example", "b.example", "c.example"} {
				down(ns[0], h, "timeout")
			}
			for _, n := range ns[1:4] {
				down(n, "a.example", "refused")
			}
		}, "error origin [a.example] x3; error origin [uplink of n0-0-id] x1"},
		"an uplink, and an origin for one more": {func(ns []*Node) {
			for _, h := range []string{"a.example", "b.example", "c.example"} {
				down(ns[0], h, "timeout")
			}
			down(ns[1], "a.example", "refused")
		}, "error origin [a.example] x1; error origin [uplink of n0-0-id] x1"},
		"an old version everywhere": {func(ns []*Node) {
			for _, n := range ns {
				n.State.System.Version = "0.9"
			}
		}, "info version [0.9] x100"},
		"one certificate for all": {func(ns []*Node) {
			for _, n := range ns {
				n.State.Certificates[0].NotAfter, n.State.Certificates[0].SHA256 = now.Add(2*day24), "abc"
			}
		}, "error certificate-expiry [abc] x100"},
		"an authority is away": {func(ns []*Node) {
			for _, n := range ns[:50] {
				n.State.Certificates[0].LastError = "ca.example: connection refused"
			}
		}, "warning certificate-renewal [ca.example: connection refused] x50"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := fleetOf(5, 20)
			c.do(ns)
			if got := show(look(facts(), rules, ns...)); got != c.want {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

// What is set of a rule counts.
func TestRulesCanBeSet(t *testing.T) {
	t.Parallel()
	n := fine("a", "")
	n.LastSeen, n.ClockOff = now.Add(-6*time.Minute), time.Hour/2
	own := slices.Clone(rules)
	for i := range own {
		switch own[i].Name {
		case "node-offline":
			own[i].Limits = limits{"minutes": 10, "errorHours": 24}
		case "clock":
			own[i].Severity = Error
		}
	}
	n.LastSeen = now.Add(-4 * time.Minute)
	if got := show(look(facts(), own, n)); got != "error clock [a-id] x1" {
		t.Errorf("found %q", got)
	}
	for i := range own {
		own[i].Disabled = own[i].Name == "clock"
	}
	if got := show(look(facts(), own, n)); got != "" {
		t.Errorf("found %q though the rule is off", got)
	}
}
