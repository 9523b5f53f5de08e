package alert

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"larder/internal/control/words"
	"larder/internal/fleet"
)

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
	x := Finding{Subject: c.SHA256, Step: step, Title: fmt.Sprintf("The certificate of %s ends in %s", n.Name, words.Span(left)), Severity: Info,
		Reason: fmt.Sprintf("%s, for %s, is good until %s.", c.File, namesText(c.Names), words.Moment(c.NotAfter)),
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
		next = "It is tried again at " + words.Moment(c.NextAttempt) + "."
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
	return []Finding{{Title: fmt.Sprintf("%s has not renewed its identity", n.Name), Reason: fmt.Sprintf("It ends at %s; the node should have renewed it at two thirds of its life.", words.Moment(n.Identity)),
		Fix: "Look at the node's log for why renewal fails; larder node status says when it is tried again."}}
}

func identityCopied(f *Facts, n *Node, _ limits) []Finding {
	if n.Copied.IsZero() || f.Now.Sub(n.Copied) > time.Hour {
		return nil
	}
	return []Finding{{Title: "Two machines use the identity of " + n.Name, Reason: "They delivered in turns, last seen at " + words.Moment(n.Copied) + ".",
		Fix: "Take the copy down and enrol one of them as a node of its own; if you do not know it, revoke the identity."}}
}

func ending(f *Facts, _ []brief, l limits) []Finding {
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
		x := Finding{Subject: e.What, Title: fmt.Sprintf("%s ends in %s", upper(e.What), words.Span(left)), Reason: "It is good until " + words.Moment(e.At) + ".", Fix: e.Fix}
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
