package alert

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"larder/internal/control/roster"
)

// Rule is one thing that is looked for (facts, peers 4.5).
type Rule struct {
	Name string `json:"name"`
	Does string `json:"description"`
	// Severity is that of its findings; some are worse by what they found, never
	// better.
	Severity Severity `json:"severity"`
	// After is how long a finding must hold before it is an alert, in seconds.
	After int `json:"afterSeconds"`
	// Limits are its numbers by name, such as "hours".
	Limits   map[string]float64 `json:"limits,omitempty"`
	Disabled bool               `json:"disabled,omitempty"`

	node  func(f *Facts, n *Node, l limits) []Finding // for each node that is not dark
	dark  bool                                        // for those that are dark, too
	fleet func(f *Facts, all []brief, l limits) []Finding
	// fold, if not nil, says what findings of several nodes with one subject are
	// together: one cause.
	fold func(subject string, of []Finding) Finding
}

type limits map[string]float64

func (l limits) duration(name string, unit time.Duration) time.Duration {
	return time.Duration(l[name] * float64(unit))
}

// rules are all there are, in the order in which they are shown.
var rules = []Rule{
	{Name: "node-offline", Does: "A node has not reported for `minutes`; from `errorHours` on it is an error. A whole site, or the whole fleet, is one alert.", Severity: Warning,
		Limits: map[string]float64{"minutes": 5, "errorHours": 24}, fleet: offline},
	{Name: "certificate-expiry", Does: "A serving certificate has a third, a sixth, or 14, 7, 3 or 1 days of its life left; from `errorDays` on it is an error.", Severity: Info,
		Limits: map[string]float64{"errorDays": 3}, dark: true, node: certificateExpiry, fold: foldExpiry},
	{Name: "certificate-renewal", Does: "The automatic renewal of a serving certificate failed.", Severity: Warning, node: renewalFailed, fold: sameReason("the renewal of serving certificates failed")},
	{Name: "certificate-problem", Does: "The certificate that is served is not the one that should be: another than stored, with a wrong key, an incomplete chain, or HTTPS is closed because its port is taken.", Severity: Error,
		After: 120, node: certificateProblem},
	{Name: "client-name", Does: "A name that clients are told to use is not in the node's certificate.", Severity: Error, After: 120, node: clientName},
	{Name: "identity-expiry", Does: "A node's identity ends within `days`: it should have been renewed at two thirds of its life.", Severity: Warning, Limits: map[string]float64{"days": 7}, node: identityExpiry},
	{Name: "identity-copied", Does: "Two machines use one node's identity.", Severity: Error, node: identityCopied},
	{Name: "clock", Does: "A node's clock is off by more than `seconds`.", Severity: Warning, After: 300, Limits: map[string]float64{"seconds": 120}, node: clockOff},
	{Name: "drive", Does: "A drive failed or is read-only.", Severity: Error, node: drive},
	{Name: "drive-space", Does: "A drive's file system has less than `reservePercent` or `reserveGB` left, or is full within `days` before the drive has used its budget.", Severity: Warning, After: 300,
		Limits: map[string]float64{"reservePercent": 2, "reserveGB": 1, "days": 7}, node: driveSpace},
	{Name: "integrity", Does: "A node found rotten bytes on a drive.", Severity: Warning, node: issueOf("integrity", "rotten bytes were found at %s")},
	{Name: "not-ready", Does: "A node cannot serve.", Severity: Error, After: 120, node: notReady},
	{Name: "document-refused", Does: "A node cannot apply what is desired of it.", Severity: Error, node: documentRefused},
	{Name: "drift", Does: "A node runs another document than the desired one.", Severity: Warning, After: int(roster.Drift / time.Second), node: drift},
	{Name: "catalogue", Does: "A node's own catalogue files hold a mistake.", Severity: Warning, node: issueOf("catalog-invalid", "the catalogue files of %s hold a mistake")},
	{Name: "origin", Does: "An origin has not answered for `minutes`, or fails for more than `percent` of the requests of half an hour. It is one alert for all nodes; a node none of whose origins answers has lost its uplink.", Severity: Error,
		After: 120, Limits: map[string]float64{"minutes": 5, "percent": 50}, node: originFails, fold: foldOrigin},
	{Name: "refused-requests", Does: "More than `percent` of a content type's requests of half an hour ended with a 4xx: expired signatures, or clients that ask for what is not there.", Severity: Warning, After: 600,
		Limits: map[string]float64{"percent": 50}, node: refusedRequests, fold: foldRefused},
	{Name: "hit-ratio", Does: "The share of bytes from the cache fell by more than `points` percent points, yesterday against the week before.", Severity: Info,
		Limits: map[string]float64{"points": 25, "leastGB": 5}, node: hitRatio},
	{Name: "no-traffic", Does: "Nobody has asked a node for anything for `days`, and did before: its clients may have lost their policy.", Severity: Info, Limits: map[string]float64{"days": 3}, node: noTraffic},
	{Name: "limit", Does: "A node fetched at more than `percent` of its limit for a quarter of an hour: downloads wait for it.", Severity: Info, After: 1800, Limits: map[string]float64{"percent": 95}, node: limitReached},
	{Name: "reports-dropped", Does: "A node threw reports away because it could not deliver them for days.", Severity: Warning, node: dropped},
	{Name: "version", Does: "Nodes run another version of Larder than the control plane.", Severity: Info, After: 6 * 3600, node: version, fold: foldVersion},
	{Name: "update", Does: "An update was installed on a node, which was not started anew since.", Severity: Warning, After: 6 * 3600, node: updateWaits},
	{Name: "ending", Does: "A token, a root or the portal's certificate ends within `days`; from `errorDays` on it is an error.", Severity: Warning, Limits: map[string]float64{"days": 14, "errorDays": 3}, fleet: ending},
	{Name: "issue", Does: "A node reports something that no other rule is about.", Severity: Warning, After: 120, node: otherIssue},
}

// evaluation looks at one node after the other, so that not all of a fleet need
// be in memory at once.
type evaluation struct {
	f      *Facts
	rules  []Rule
	found  [][]Finding // by rule
	briefs []brief
}

// brief is what is kept of a node for those rules that look at all of them.
type brief struct {
	Member
	seen    time.Time
	watched bool // it has reported and should go on
	dark    bool
	lately  int               // origins it asked within the last hour
	why     map[string]string // what origins failed with
}

func newEvaluation(f *Facts, rules []Rule) *evaluation {
	return &evaluation{f: f, rules: rules, found: make([][]Finding, len(rules))}
}

// node looks at one.
func (e *evaluation) node(n *Node) {
	f := e.f
	b := brief{Member: n.member(), seen: n.LastSeen, watched: n.Line > 0 && n.Revoked.IsZero() && !n.LastSeen.IsZero(), dark: f.dark(n), lately: lately(f, n)}
	for _, o := range n.State.Origins {
		if o.LastError != "" {
			if b.why == nil {
				b.why = map[string]string{}
			}
			b.why[o.Host] = o.LastError
		}
	}
	e.briefs = append(e.briefs, b)
	if !b.watched {
		return
	}
	for i := range e.rules {
		r := &e.rules[i]
		if r.Disabled || r.node == nil || b.dark && !r.dark {
			continue // what a dark node said last does not say how it is
		}
		for _, x := range r.node(f, n, r.Limits) {
			x.Members = []Member{b.Member}
			if x.Subject == "" || r.fold == nil {
				x.Subject = strings.TrimSuffix(n.NodeID+" "+x.Subject, " ")
			}
			e.found[i] = append(e.found[i], x)
		}
	}
}

// findings are what was found, each cause once.
func (e *evaluation) findings() []Finding {
	var all []Finding
	for i := range e.rules {
		r := &e.rules[i]
		if r.Disabled {
			continue
		}
		found := e.found[i]
		if r.fleet != nil {
			found = append(found, r.fleet(e.f, e.briefs, r.Limits)...)
		}
		for k := range found {
			found[k].Rule = r.Name
			found[k].Severity = max(found[k].Severity, r.Severity)
			found[k].Fix = cmp.Or(found[k].Fix, "larder node status on the node's machine says more.")
		}
		if r.fold != nil {
			found = r.folded(found)
		}
		all = append(all, found...)
	}
	return foldUplinks(e.briefs, all)
}

// folded makes one finding of those with one subject.
func (r *Rule) folded(found []Finding) []Finding {
	groups := map[string][]Finding{}
	for _, x := range found {
		groups[x.Subject] = append(groups[x.Subject], x)
	}
	var folded []Finding
	for _, subject := range slices.Sorted(maps.Keys(groups)) {
		g := groups[subject]
		x := g[0]
		if len(g) > 1 {
			x = r.fold(subject, g)
			x.Rule, x.Subject, x.Members, x.Severity = r.Name, subject, nil, r.Severity
			for _, y := range g {
				x.Members = append(x.Members, y.Members...)
				x.Severity = max(x.Severity, y.Severity)
			}
		}
		folded = append(folded, x)
	}
	return folded
}
