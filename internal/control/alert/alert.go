// Package alert says what needs somebody: it looks at what nodes reported by
// rules, makes one alert of one cause, keeps alerts from their first to their
// last moment, and tells people through channels.
//
// The way of the data, once a minute on one replica: Facts are gathered from
// the database; rules make Findings of them; findings with one cause are folded
// into one; next compares them with the alerts there are; what changed is
// written together with the messages about it, which are then sent and tried
// again until they arrive. All but the first and the last step are pure
// functions.
package alert

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Severity is how bad something is.
type Severity int

// The severities. Error is what users notice now, or will within days.
const (
	Info Severity = iota + 1
	Warning
	Error
)

var severityNames = []string{Info: "info", Warning: "warning", Error: "error"}

func (s Severity) String() string {
	if s < Info || s > Error {
		return "none"
	}
	return severityNames[s]
}

// ParseSeverity reads info, warning or error.
func ParseSeverity(text string) (Severity, error) {
	for s := Info; s <= Error; s++ {
		if strings.EqualFold(strings.TrimSpace(text), s.String()) {
			return s, nil
		}
	}
	return 0, fmt.Errorf("found %q, expected info, warning or error", text)
}

// MarshalText writes a severity's word.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads it.
func (s *Severity) UnmarshalText(b []byte) (err error) {
	*s, err = ParseSeverity(string(b))
	return err
}

// Member is a node that an alert is about.
type Member struct {
	NodeID string `json:"nodeId"`
	Name   string `json:"name"`
	Site   string `json:"site,omitempty"`
	Scope  string `json:"-"` // resource group, as access.GroupScope writes it
}

// Finding is that a rule holds of something now.
type Finding struct {
	Rule     string
	Subject  string // with Rule: what makes it the same finding a minute later
	Severity Severity
	// Step counts what gets worse without another severity, such as the days a
	// certificate has left: people are told again when it grows.
	Step    int
	Title   string // one line that names what it is about
	Reason  string // what was seen
	Fix     string // what to do
	Members []Member
}

// Key is the identity of the thing found.
func (f *Finding) Key() string { return f.Rule + "|" + f.Subject }

// State is where an alert is in its life.
type State string

// The states. A pending alert has not held for as long as its rule wants; nobody
// is told of it.
const (
	Pending  State = "pending"
	Firing   State = "firing"
	Resolved State = "resolved"
)

// Alert is a finding over time.
type Alert struct {
	ID       string    `json:"id"` // GUID
	Rule     string    `json:"rule"`
	Subject  string    `json:"subject"`
	State    State     `json:"state"`
	Severity Severity  `json:"severity"`
	Title    string    `json:"title"`
	Reason   string    `json:"reason"`
	Fix      string    `json:"fix"`
	Members  []Member  `json:"nodes"`
	First    time.Time `json:"firstSeen"`
	Last     time.Time `json:"lastSeen"`
	Fired    time.Time `json:"firedAt,omitzero"`
	Ended    time.Time `json:"resolvedAt,omitzero"`
	Silenced bool      `json:"silenced"` // nobody is told of it just now

	step     int
	told     Severity // what people were told last; 0: nothing
	toldStep int
	changed  bool // other than in Last
	fresh    bool // not in the database yet
}

// Key is the identity of the thing the alert is about.
func (a *Alert) Key() string { return a.Rule + "|" + a.Subject }

// Scopes are the resource groups of the nodes it is about; none: it is about the
// control plane.
func (a *Alert) Scopes() []string {
	var all []string
	for _, m := range a.Members {
		if !slices.Contains(all, m.Scope) {
			all = append(all, m.Scope)
		}
	}
	return all
}

// Kind is what an Event tells.
type Kind string

// The kinds of events.
const (
	Began Kind = "firing"
	Worse Kind = "worse"
	Over  Kind = "resolved"
	Test  Kind = "test"
)

// Event is something that people are told.
type Event struct {
	Kind  Kind  `json:"kind"`
	Alert Alert `json:"alert"`
}

// hold is how long a finding must be gone before its alert ends, so that what
// comes and goes is one alert.
const hold = 3 * time.Minute

// again is how long after its end an alert comes back as the same one.
const again = 15 * time.Minute

// next brings the alerts there are (open ones, and those that ended less than
// again ago) up to what was found now. It changes and returns those alerts, new
// ones among them, and says what people must be told. pending says how long a
// rule's findings must hold, silenced who must not be told.
func next(now time.Time, known []*Alert, found []Finding, pending func(rule string) time.Duration, silenced func(*Alert) bool, newID func() string) ([]*Alert, []Event) {
	byKey := map[string]*Alert{}
	for _, a := range known { // an open one wins over one that ended
		if old := byKey[a.Key()]; old == nil || old.State == Resolved && (a.State != Resolved || a.Ended.After(old.Ended)) {
			byKey[a.Key()] = a
		}
	}
	all := slices.Clone(known)
	seen := map[string]bool{}
	for i := range found {
		f := &found[i]
		if seen[f.Key()] {
			continue
		}
		seen[f.Key()] = true
		a := byKey[f.Key()]
		switch {
		case a == nil || a.State == Resolved && (a.Fired.IsZero() || now.Sub(a.Ended) > again):
			a = &Alert{ID: newID(), Rule: f.Rule, Subject: f.Subject, State: Pending, First: now, fresh: true, changed: true}
			all = append(all, a)
		case a.State == Resolved: // it was not over
			a.State, a.Ended, a.changed = Firing, time.Time{}, true
		}
		a.Last = now
		a.take(f)
		if a.State == Pending && now.Sub(a.First) >= pending(a.Rule) {
			a.State, a.Fired, a.changed = Firing, now, true
		}
	}
	var events []Event
	kept := all[:0]
	for _, a := range all {
		if a.State != Resolved && !seen[a.Key()] {
			switch {
			case a.State == Pending:
				a.State, a.Ended, a.changed = Resolved, now, true // it was nothing; the row goes
			case now.Sub(a.Last) >= hold:
				a.State, a.Ended, a.changed = Resolved, now, true
				if a.told > 0 && !silenced(a) {
					events = append(events, Event{Over, *a})
				}
				a.told, a.toldStep = 0, 0
			}
		}
		quiet := a.State == Firing && silenced(a)
		if quiet != a.Silenced {
			a.Silenced, a.changed = quiet, true
		}
		if a.State == Firing && !quiet && (a.Severity > a.told || a.Severity == a.told && a.step > a.toldStep) {
			kind := Began
			if a.told > 0 {
				kind = Worse
			}
			a.told, a.toldStep, a.changed = a.Severity, a.step, true
			events = append(events, Event{kind, *a})
		}
		kept = append(kept, a)
	}
	slices.SortStableFunc(events, func(a, b Event) int { return int(b.Alert.Severity - a.Alert.Severity) })
	return kept, events
}

// take takes over what a finding says now.
func (a *Alert) take(f *Finding) {
	if a.Severity != f.Severity || a.step != f.Step || a.Title != f.Title || a.Reason != f.Reason || a.Fix != f.Fix || !slices.Equal(a.Members, f.Members) {
		a.changed = true
	}
	a.Severity, a.step, a.Title, a.Reason, a.Fix, a.Members = f.Severity, f.Step, f.Title, f.Reason, f.Fix, f.Members
}
