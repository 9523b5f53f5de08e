package roster

import (
	"cmp"
	"fmt"
	"time"

	"larder/internal/control/words"
	"larder/internal/fleet"
)

// Word is a node's state in one word (facts, peers 4.2).
type Word string

// The states.
const (
	NotConfigured      Word = "Not configured"
	NotProvisioned     Word = "Not provisioned" // configured, waits for its registration
	Registering        Word = "Registering"     // registered, has not reported yet
	Healthy            Word = "Healthy"
	Degraded           Word = "Degraded"
	Offline            Word = "Offline"
	Draining           Word = "Draining"
	Updating           Word = "Updating" // an update is installed, and not yet run; nothing else is wrong
	CertificateProblem Word = "Certificate problem"
)

// Silence is how long a node may say nothing before it is offline.
const Silence = 5 * time.Minute

// Drift is how long a node may run another document than the desired one.
const Drift = 15 * time.Minute

// Condition is a node's state with the reasons for it, the weightiest first.
// Healthy has none.
type Condition struct {
	Word    Word     `json:"state"`
	Reasons []string `json:"reasons"`
}

// Condition says how a node is. Every reason is found, so that a node that is
// degraded for three of them says so; the word is of the weightiest.
func (n *Node) Condition(now time.Time) Condition {
	c := Condition{Reasons: []string{}}
	because := func(w Word, format string, args ...any) {
		if c.Word == "" {
			c.Word = w
		}
		c.Reasons = append(c.Reasons, fmt.Sprintf(format, args...))
	}
	switch {
	case n.Line == 0 && !n.Configured:
		because(NotConfigured, "it has no drives yet")
		return c
	case n.Line == 0:
		because(NotProvisioned, "no machine has registered as this node yet")
		return c
	case !n.Revoked.IsZero():
		because(Offline, "its identity was revoked at %s; it can register again with a new key", words.Moment(n.Revoked))
		return c
	case n.LastSeen.IsZero():
		because(Registering, "it has registered and not reported yet")
		return c
	}
	if silent := now.Sub(n.LastSeen); silent > Silence {
		because(Offline, "no report for %s, the last was at %s", words.Span(silent), words.Moment(n.LastSeen))
	}
	s := n.State
	if now.Sub(n.Copied) < time.Hour {
		because(Degraded, "two machines use its identity, last seen at %s: take the copy down and enrol one of them anew", words.Moment(n.Copied))
	}
	if !s.Ready && !s.Draining {
		because(Degraded, "it is not ready to serve")
	}
	for _, cert := range s.Certificates {
		if cert.Active && (cert.Severity == "error" || !now.Before(cert.NotAfter)) {
			because(CertificateProblem, "certificate %s: %s", cert.File, cmp.Or(cert.Action, "it has expired"))
		}
	}
	for _, d := range s.Drives {
		if d.State != "ok" {
			because(Degraded, "drive %s is %s: %s", d.Path, d.State, cmp.Or(d.Error, "no more is known"))
		}
	}
	if s.Draining {
		because(Draining, "it was asked to take itself out of rotation")
	}
	switch {
	case s.Refused > s.Running && s.Refused == n.Desired:
		because(Degraded, "it cannot apply document %d: %s", s.Refused, s.Why)
	case s.Running < n.Desired && now.Sub(n.DesiredAt) > Drift:
		because(Degraded, "it runs document %d, %d is desired since %s", s.Running, n.Desired, words.Moment(n.DesiredAt))
	}
	for _, i := range s.Issues {
		if !shown[i.Type] {
			because(wordOf(i), "%s", i.Text)
		}
	}
	if !s.Replaced.IsZero() {
		because(Updating, "an update was installed at %s and waits for its restart", words.Moment(s.Replaced))
	}
	if c.Word == "" {
		c.Word = Healthy
	}
	return c
}

// shown are issues that other parts of the state already say.
var shown = map[string]bool{"drive-failed": true, "drive-read-only": true, "unready": true}

func wordOf(i fleet.Issue) Word {
	switch i.Type {
	case "certificate", "https-closed":
		return CertificateProblem
	}
	return Degraded
}
