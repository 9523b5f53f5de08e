package alert

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"larder/internal/control/roster"
	"larder/internal/fleet"
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
	fleet func(f *Facts, l limits) []Finding
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
	{Name: "ending", Does: "A token, a root or the portal's certificate ends within `days`; from `errorDays` on it is an error.", Severity: Warning, Limits: map[string]float64{"days": 14, "errorDays": 3}, fleet: ending},
	{Name: "issue", Does: "A node reports something that no other rule is about.", Severity: Warning, After: 120, node: otherIssue},
}

// Evaluate returns what rules find, each cause once.
func Evaluate(f *Facts, rules []Rule) []Finding {
	var all []Finding
	for i := range rules {
		r := &rules[i]
		if r.Disabled {
			continue
		}
		all = append(all, r.evaluate(f)...)
	}
	return foldUplinks(f, all)
}

func (r *Rule) evaluate(f *Facts) []Finding {
	var found []Finding
	if r.fleet != nil {
		found = r.fleet(f, r.Limits)
	}
	if r.node != nil {
		for _, n := range f.Nodes {
			if n.Line == 0 || !n.Revoked.IsZero() || n.LastSeen.IsZero() || f.dark(n) && !r.dark {
				continue // what it said last does not say how it is
			}
			for _, x := range r.node(f, n, r.Limits) {
				x.Members = []Member{n.member()}
				if x.Subject == "" || r.fold == nil {
					x.Subject = strings.TrimSuffix(n.NodeID+" "+x.Subject, " ")
				}
				found = append(found, x)
			}
		}
	}
	for i := range found {
		found[i].Rule = r.Name
		found[i].Severity = max(found[i].Severity, r.Severity)
		found[i].Fix = cmp.Or(found[i].Fix, "larder node status on the node's machine says more.")
	}
	if r.fold == nil {
		return found
	}
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

// serving is the active certificate of a node, nil if it has none.
func serving(n *Node) *fleet.Certificate {
	i := slices.IndexFunc(n.State.Certificates, func(c fleet.Certificate) bool { return c.Active })
	if i < 0 {
		return nil
	}
	return &n.State.Certificates[i]
}

func certificateExpiry(f *Facts, n *Node, l limits) []Finding {
	c := serving(n)
	if c == nil {
		return nil
	}
	left, life := c.NotAfter.Sub(f.Now), c.NotAfter.Sub(c.NotBefore)
	step := expiryStep(left, life)
	if step == 0 {
		return nil
	}
	// One certificate that several nodes serve is one thing to renew.
	x := Finding{Subject: c.SHA256, Step: step, Title: fmt.Sprintf("The certificate of %s ends in %s", n.Name, spanText(left)), Severity: Info,
		Reason: fmt.Sprintf("%s, for %s, is good until %s.", c.File, namesText(c.Names), timeText(c.NotAfter)),
		Fix:    cmp.Or(c.Action, "Get a new one: larder tls csr and larder tls import on the node, or let it renew itself with larder tls auto.")}
	switch {
	case left <= 0:
		x.Title = fmt.Sprintf("The certificate of %s has ended", n.Name)
		x.Severity = Error
	case left <= l.duration("errorDays", 24*time.Hour):
		x.Severity = Error
	case step >= 2:
		x.Severity = Warning
	}
	// One that renews itself and has time for it is nobody's work yet.
	if automatic(c) && c.LastError == "" && x.Severity < Error && left > life/6 {
		return nil
	}
	return []Finding{x}
}

func foldExpiry(_ string, of []Finding) Finding {
	x := of[0]
	first := of[0].Members[0].Name
	x.Title = strings.Replace(x.Title, "The certificate of "+first, fmt.Sprintf("The certificate of %s and %d more", first, len(of)-1), 1)
	return x
}

func automatic(c *fleet.Certificate) bool {
	switch c.Source {
	case "acme", "est", "scep", "command":
		return true
	}
	return false
}

// expiryStep grows as a certificate nears its end: a third, a sixth of its life,
// 14, 7, 3, 1 and 0 days. Days that are more than a third of a short life say
// nothing.
func expiryStep(left, life time.Duration) int {
	const day = 24 * time.Hour
	third, sixth := life/3, life/6
	step := 0
	if left <= third {
		step = 1
	}
	if left <= sixth {
		step = 2
	}
	for i, d := range []time.Duration{14 * day, 7 * day, 3 * day, day} {
		if left <= d && d <= third {
			step = 3 + i
		}
	}
	if left <= 0 {
		step = 7
	}
	return step
}

func renewalFailed(_ *Facts, n *Node, _ limits) []Finding {
	c := serving(n)
	if c == nil || c.LastError == "" {
		return nil
	}
	next := "It is tried again."
	if !c.NextAttempt.IsZero() {
		next = "It is tried again at " + timeText(c.NextAttempt) + "."
	}
	return []Finding{{Subject: c.LastError, Title: fmt.Sprintf("The renewal of the certificate of %s failed", n.Name), Reason: c.LastError,
		Fix: cmp.Or(c.Action, next+" larder tls show on the node says more.")}}
}

// sameReason folds findings whose subject is what went wrong.
func sameReason(what string) func(subject string, of []Finding) Finding {
	return func(subject string, of []Finding) Finding {
		return Finding{Title: fmt.Sprintf("At %d nodes %s", len(of), what), Reason: subject, Fix: of[0].Fix}
	}
}

func certificateProblem(f *Facts, n *Node, _ limits) []Finding {
	var all []Finding
	for _, i := range n.State.Issues {
		if i.Type == "certificate" || i.Type == "https-closed" {
			all = append(all, Finding{Subject: i.Type + " " + i.Subject, Title: "HTTPS of " + n.Name + " has a problem", Reason: i.Text, Fix: i.Fix})
		}
	}
	// Its end has a rule of its own.
	if c := serving(n); c != nil && c.Severity == "error" && len(all) == 0 && expiryStep(c.NotAfter.Sub(f.Now), c.NotAfter.Sub(c.NotBefore)) == 0 {
		all = append(all, Finding{Subject: "action", Title: "The certificate of " + n.Name + " has a problem", Reason: c.File + ": " + c.Action, Fix: "larder tls show on the node says more."})
	}
	return all
}

func clientName(_ *Facts, n *Node, _ limits) []Finding {
	c := serving(n)
	if c == nil {
		return nil
	}
	var missing []string
	for _, name := range n.Spec.ClientNames {
		if !slices.ContainsFunc(c.Names, func(pattern string) bool { return matches(pattern, name) }) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return []Finding{{Title: fmt.Sprintf("The certificate of %s is not for %s", n.Name, strings.Join(missing, " and ")),
		Reason: fmt.Sprintf("Clients are told to use %s; the certificate is for %s.", strings.Join(missing, ", "), namesText(c.Names)),
		Fix:    "Get a certificate for all client names, or correct clientNames in the node's settings."}}
}

// matches says whether a name of a certificate is for a host (RFC 9525, section
// 6.3): a star stands for one whole label on the left.
func matches(pattern, host string) bool {
	pattern, host = strings.ToLower(strings.TrimSuffix(pattern, ".")), strings.ToLower(strings.TrimSuffix(host, "."))
	if rest, ok := strings.CutPrefix(pattern, "*."); ok {
		_, tail, found := strings.Cut(host, ".")
		return found && tail == rest
	}
	return pattern == host
}

func identityExpiry(f *Facts, n *Node, l limits) []Finding {
	left := n.Identity.Sub(f.Now)
	if n.Identity.IsZero() || left > l.duration("days", 24*time.Hour) {
		return nil
	}
	return []Finding{{Title: fmt.Sprintf("%s has not renewed its identity", n.Name), Reason: fmt.Sprintf("It ends at %s; the node should have renewed it at two thirds of its life.", timeText(n.Identity)),
		Fix: "Look at the node's log for why renewal fails; larder node status says when it is tried again."}}
}

func identityCopied(f *Facts, n *Node, _ limits) []Finding {
	if n.Copied.IsZero() || f.Now.Sub(n.Copied) > time.Hour {
		return nil
	}
	return []Finding{{Title: "Two machines use the identity of " + n.Name, Reason: "They delivered in turns, last seen at " + timeText(n.Copied) + ".",
		Fix: "Take the copy down and enrol one of them as a node of its own; if you do not know it, revoke the identity."}}
}

func clockOff(_ *Facts, n *Node, l limits) []Finding {
	off := n.ClockOff.Round(time.Second)
	if off.Abs() <= l.duration("seconds", time.Second) {
		return nil
	}
	x := Finding{Title: fmt.Sprintf("The clock of %s is off", n.Name), Reason: fmt.Sprintf("It is %s %s the control plane's.", off.Abs(), map[bool]string{true: "ahead of", false: "behind"}[off > 0]),
		Fix: "Let the machine follow a time server (chrony, w32time): certificates and Range validators depend on it."}
	if off.Abs() > time.Hour {
		x.Severity = Error
	}
	return []Finding{x}
}

var driveWords = map[string]string{"failed": "has failed", "out": "is out of use"}

func drive(_ *Facts, n *Node, _ limits) []Finding {
	var all []Finding
	for _, d := range n.State.Drives {
		if d.State != "ok" {
			all = append(all, Finding{Subject: d.Path, Title: fmt.Sprintf("Drive %s of %s %s", d.Path, n.Name, cmp.Or(driveWords[d.State], "is "+d.State)), Reason: cmp.Or(d.Error, "No more is known."),
				Fix: "Mend or replace the disk; the node takes the drive back by itself."})
		}
	}
	return all
}

func driveSpace(_ *Facts, n *Node, l limits) []Finding {
	var all []Finding
	for _, d := range n.State.Drives {
		if d.State != "ok" || d.Budget <= 0 {
			continue
		}
		wants := max(0, d.Budget-d.Used) // what it may still fill
		reserve := int64(min(l["reserveGB"]*1e9, l["reservePercent"]/100*float64(d.Budget)))
		x := Finding{Subject: d.Path, Title: fmt.Sprintf("Drive %s of %s has no room", d.Path, n.Name),
			Fix: "Free space on that file system, or give the drive a smaller size: objects are dropped when they must be, but what else is there is not Larder's."}
		switch perDay := n.Yesterday.FetchedBytes; {
		case d.Free < reserve:
			x.Severity = Error
			x.Reason = fmt.Sprintf("%s are free on its file system.", bytesText(d.Free))
		case d.Free < wants && perDay > 0 && float64(d.Free)/float64(perDay) < l["days"]:
			x.Title = fmt.Sprintf("Drive %s of %s is full before its size is used", d.Path, n.Name)
			x.Reason = fmt.Sprintf("%s are free and %s of its size are not used yet; at yesterday's %s a day that is %.0f days.", bytesText(d.Free), bytesText(wants), bytesText(perDay), math.Ceil(float64(d.Free)/float64(perDay)))
		default:
			continue
		}
		all = append(all, x)
	}
	return all
}

// issueOf finds issues of one type that nodes report.
func issueOf(kind, title string) func(*Facts, *Node, limits) []Finding {
	return func(_ *Facts, n *Node, _ limits) []Finding {
		var all []Finding
		for _, i := range n.State.Issues {
			if i.Type == kind {
				t := fmt.Sprintf(title, n.Name)
				all = append(all, Finding{Subject: i.Subject, Title: strings.ToUpper(t[:1]) + t[1:], Reason: i.Text, Fix: i.Fix})
			}
		}
		return all
	}
}

func notReady(_ *Facts, n *Node, _ limits) []Finding {
	if n.State.Ready || n.State.Draining || slices.ContainsFunc(n.State.Drives, func(d fleet.DriveState) bool { return d.State != "ok" }) {
		return nil // the drive is the cause
	}
	reason := "It says no more."
	for _, i := range n.State.Issues {
		if i.Type == "unready" {
			reason = i.Text
		}
	}
	return []Finding{{Title: n.Name + " cannot serve", Reason: reason, Fix: "larder node status on the machine says more."}}
}

func documentRefused(_ *Facts, n *Node, _ limits) []Finding {
	if s := &n.State; s.Refused > s.Running && s.Refused == n.Desired {
		return []Finding{{Title: fmt.Sprintf("%s cannot apply document %d", n.Name, s.Refused), Reason: s.Why, Fix: "Correct the node's settings; until then it runs document " + fmt.Sprint(s.Running) + "."}}
	}
	return nil
}

func drift(f *Facts, n *Node, _ limits) []Finding {
	if s := &n.State; s.Running < n.Desired && s.Refused != n.Desired {
		return []Finding{{Title: n.Name + " does not run what is desired", Reason: fmt.Sprintf("It runs document %d; %d is desired since %s.", s.Running, n.Desired, timeText(n.DesiredAt)),
			Fix: "Look at the node's log: it should have fetched the document within a minute."}}
	}
	return nil
}

func originFails(f *Facts, n *Node, l limits) []Finding {
	fix := func(why string) string {
		switch {
		case strings.Contains(why, "no such host"), strings.Contains(why, "server misbehaving"):
			return "Its name is not found: look at the DNS servers the node uses."
		case strings.Contains(why, "certificate"), strings.Contains(why, "x509"):
			return "Its certificate is not trusted: a proxy that opens TLS needs its root in the node's proxy settings."
		case strings.Contains(why, "proxyconnect"), strings.Contains(why, "Proxy Authentication"):
			return "The proxy refuses: look at the node's proxy settings."
		case strings.Contains(why, "refused"), strings.Contains(why, "timeout"), strings.Contains(why, "unreachable"):
			return "Nothing answers there: look at the uplink, and at the firewall's rules for this host."
		}
		return "Try to reach it from the node's machine; clients fetch from the origin themselves meanwhile."
	}
	var all []Finding
	down := map[string]bool{}
	for _, o := range n.State.Origins {
		// It failed lately, and has not answered since well before that.
		if o.LastErrorAt.IsZero() || f.Now.Add(n.ClockOff).Sub(o.LastErrorAt) > 15*time.Minute || o.LastErrorAt.Sub(o.LastOKAt) < l.duration("minutes", time.Minute) {
			continue
		}
		down[o.Host] = true
		since := "since the node started"
		if !o.LastOKAt.IsZero() {
			since = "since " + timeText(o.LastOKAt)
		}
		all = append(all, Finding{Subject: o.Host, Title: fmt.Sprintf("%s does not answer %s", o.Host, n.Name), Reason: fmt.Sprintf("No answer %s: %s", since, cmp.Or(o.LastError, "no more is known")), Fix: fix(o.LastError)})
	}
	for _, r := range n.Figures.Origins {
		if share := 100 * float64(r.Bad) / float64(r.Bad+r.Good); !down[r.Name] && share > l["percent"] {
			why := ""
			for _, o := range n.State.Origins {
				if o.Host == r.Name {
					why = o.LastError
				}
			}
			all = append(all, Finding{Subject: r.Name, Title: fmt.Sprintf("%s often fails for %s", r.Name, n.Name), Reason: fmt.Sprintf("%.0f %% of %d requests of the last half hour failed: %s", share, r.Bad+r.Good, cmp.Or(why, "no more is known")), Fix: fix(why)})
		}
	}
	return all
}

func foldOrigin(subject string, of []Finding) Finding {
	return Finding{Title: fmt.Sprintf("%s fails for %d nodes", subject, len(of)), Reason: "For example " + of[0].Members[0].Name + ": " + of[0].Reason,
		Fix: "It fails in several places, so it is most likely the origin itself, or what all of them share. Clients fetch from it themselves meanwhile."}
}

func refusedRequests(_ *Facts, n *Node, l limits) []Finding {
	var all []Finding
	for _, r := range n.Refused {
		if share := 100 * float64(r.Bad) / float64(r.Bad+r.Good); share > l["percent"] {
			all = append(all, Finding{Subject: r.Name, Title: fmt.Sprintf("Requests for %s at %s are refused", r.Name, n.Name), Reason: fmt.Sprintf("%.0f %% of %d requests of the last half hour ended with a 4xx.", share, r.Bad+r.Good),
				Fix: "The access log says which: a 403 of the origin is most often an expired signature, a 404 a client that asks for what is gone."})
		}
	}
	return all
}

func foldRefused(subject string, of []Finding) Finding {
	return Finding{Title: fmt.Sprintf("Requests for %s are refused at %d nodes", subject, len(of)), Reason: "For example " + of[0].Members[0].Name + ": " + of[0].Reason, Fix: of[0].Fix}
}

func hitRatio(_ *Facts, n *Node, l limits) []Finding {
	least := int64(l["leastGB"] * 1e9)
	if n.Yesterday.EgressBytes() < least || n.Week.EgressBytes() < least {
		return nil
	}
	was, is := 100*n.Week.HitRatio(), 100*n.Yesterday.HitRatio()
	if was-is <= l["points"] {
		return nil
	}
	return []Finding{{Title: fmt.Sprintf("%s answers less from its cache", n.Name), Reason: fmt.Sprintf("%.0f %% of yesterday's bytes, %.0f %% in the week before.", is, was),
		Fix: "A release of something new does this for a day. If it stays, look at the content types: a drive may be too small, or an origin may have changed its URLs."}}
}

func noTraffic(f *Facts, n *Node, l limits) []Finding {
	if n.LastDay.IsZero() || n.State.Draining || f.Now.Sub(n.LastDay.Add(24*time.Hour)) < l.duration("days", 24*time.Hour) {
		return nil
	}
	return []Finding{{Title: "Nobody asks " + n.Name + " for anything", Reason: "The last requests were on " + n.LastDay.Format("2006-01-02") + ".",
		Fix: "See that clients still have the policy DOCacheHost (Get-DeliveryOptimizationStatus on one of them), and that they reach the node."}}
}

func limitReached(_ *Facts, n *Node, l limits) []Finding {
	lim := n.Spec.Limit
	if lim == nil || lim.Rate == 0 {
		return nil
	}
	rate := lim.Rate
	for _, w := range lim.Schedule { // which of them holds now, only the node's clock knows
		if w.Rate == 0 {
			return nil
		}
		rate = max(rate, w.Rate)
	}
	if share := 100 * float64(n.Fetched) / float64(rate*quarter); share > l["percent"] {
		return []Finding{{Title: n.Name + " is at its limit", Reason: fmt.Sprintf("It fetched %s in a quarter of an hour, %.0f %% of what its limit of %.1f Mbit/s allows.", bytesText(n.Fetched), share, float64(rate)*8/1e6),
			Fix: "Raise the limit, give it hours with a higher one, or prefill at night what clients will want."}}
	}
	return nil
}

func dropped(_ *Facts, n *Node, _ limits) []Finding {
	if n.State.Dropped == 0 {
		return nil
	}
	return []Finding{{Title: n.Name + " lost reports", Reason: fmt.Sprintf("%d minutes waited longer than its buffer holds and were thrown away since it started.", n.State.Dropped),
		Fix: "Its figures of that time are missing for good; what was served is not concerned. The alert ends when the node starts anew."}}
}

func version(f *Facts, n *Node, _ limits) []Finding {
	if v := n.State.System.Version; v != "" && f.Version != "" && v != f.Version {
		return []Finding{{Subject: v, Title: fmt.Sprintf("%s runs Larder %s", n.Name, v), Reason: "The control plane runs " + f.Version + ".", Fix: "Update the node: versions one apart work together, more are not promised."}}
	}
	return nil
}

func foldVersion(subject string, of []Finding) Finding {
	return Finding{Title: fmt.Sprintf("%d nodes run Larder %s", len(of), subject), Reason: of[0].Reason, Fix: "Update the nodes: versions one apart work together, more are not promised."}
}

func ending(f *Facts, l limits) []Finding {
	const day = 24 * time.Hour
	var all []Finding
	for _, e := range f.Ends {
		left := e.At.Sub(f.Now)
		within := l.duration("days", day)
		if e.Life > 0 {
			within = min(within, e.Life/3)
		}
		if left > within || left < -30*day {
			continue
		}
		x := Finding{Subject: e.What, Title: fmt.Sprintf("%s ends in %s", upper(e.What), spanText(left)), Reason: "It is good until " + timeText(e.At) + ".", Fix: e.Fix}
		if left <= 0 {
			x.Title = upper(e.What) + " has ended"
		}
		if left <= l.duration("errorDays", day) {
			x.Severity, x.Step = Error, 1
		}
		all = append(all, x)
	}
	return all
}

// spoken are the types of issues that other rules are about.
var spoken = map[string]bool{"certificate": true, "https-closed": true, "integrity": true, "catalog-invalid": true, "unready": true, "drive-failed": true, "drive-read-only": true, "drive-out": true}

func otherIssue(_ *Facts, n *Node, _ limits) []Finding {
	var all []Finding
	for _, i := range n.State.Issues {
		if !spoken[i.Type] {
			all = append(all, Finding{Subject: i.Type + " " + i.Subject, Title: n.Name + ": " + i.Type, Reason: i.Text, Fix: i.Fix})
		}
	}
	return all
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func spanText(d time.Duration) string {
	switch {
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", max(0, d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

func namesText(names []string) string {
	switch {
	case len(names) == 0:
		return "no name"
	case len(names) > 5:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:5], ", "), len(names)-5)
	}
	return strings.Join(names, ", ")
}

func bytesText(n int64) string {
	f := float64(n)
	for _, u := range []string{"B", "kB", "MB", "GB", "TB"} {
		if f < 1000 || u == "TB" {
			return fmt.Sprintf("%.3g %s", f, u)
		}
		f /= 1000
	}
	panic("not reached")
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
