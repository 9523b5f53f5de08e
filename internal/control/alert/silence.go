package alert

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // Windows has no time zones by name

	"larder/internal/control/access"
)

// Silence says of which alerts people are not told for a while. One that begins
// later, or comes back every week, is a maintenance window.
type Silence struct {
	ID      string    `json:"id,omitempty"`
	Alert   string    `json:"alert,omitempty"` // GUID of one alert
	Rule    string    `json:"rule,omitempty"`
	Node    string    `json:"node,omitempty"` // GUID
	Site    string    `json:"site,omitempty"`
	From    time.Time `json:"from,omitzero"`
	Until   time.Time `json:"until,omitzero"` // may be left out with weekly
	Weekly  *Weekly   `json:"weekly,omitempty"`
	Comment string    `json:"comment,omitempty"`
	By      string    `json:"by,omitempty"`
	Created time.Time `json:"created,omitzero"`

	scopes []string // only alerts that are wholly within these
}

// Weekly is a span of the week, in the local time of a zone. One that ends
// before it begins lasts past midnight.
type Weekly struct {
	Days []time.Weekday `json:"days"` // of its beginning; 0 is Sunday
	From string         `json:"from"` // hh:mm
	To   string         `json:"to"`   // hh:mm
	Zone string         `json:"zone"` // Europe/Berlin; UTC if empty
}

// check says what is wrong with a silence: the field, and what of it.
func (s *Silence) check() (field, problem string) {
	switch {
	case s.Until.IsZero() && s.Weekly == nil:
		return "until", "found nothing, expected when it ends, or weekly"
	case !s.Until.IsZero() && !s.From.Before(s.Until):
		return "until", fmt.Sprintf("found %s, expected a time after from, %s", s.Until.Format(time.RFC3339), s.From.Format(time.RFC3339))
	case len(s.Comment) > 1000:
		return "comment", fmt.Sprintf("found %d characters, expected 1000 at most", len(s.Comment))
	case s.Rule != "" && !slices.ContainsFunc(rules, func(r Rule) bool { return r.Name == s.Rule }):
		return "rule", fmt.Sprintf("found %q, expected the name of a rule", s.Rule)
	}
	if w := s.Weekly; w != nil {
		if len(w.Days) == 0 || slices.ContainsFunc(w.Days, func(d time.Weekday) bool { return d < 0 || d > 6 }) {
			return "weekly.days", fmt.Sprintf("found %v, expected some of 0 (Sunday) to 6", w.Days)
		}
		from, err := clockTime(w.From)
		if err != nil {
			return "weekly.from", err.Error()
		}
		to, err := clockTime(w.To)
		if err != nil {
			return "weekly.to", err.Error()
		}
		if from == to {
			return "weekly.to", fmt.Sprintf("found %q, expected another time than from", w.To)
		}
		if _, err := time.LoadLocation(w.Zone); err != nil || w.Zone == "Local" {
			return "weekly.zone", fmt.Sprintf("found %q, expected a time zone such as Europe/Berlin", w.Zone)
		}
	}
	return "", ""
}

// clockTime reads hh:mm as minutes since midnight.
func clockTime(text string) (int, error) {
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, fmt.Errorf("found %q, expected hh:mm", text)
	}
	return t.Hour()*60 + t.Minute(), nil
}

// active says whether people are not told now.
func (s *Silence) active(now time.Time) bool {
	if now.Before(s.From) || !s.Until.IsZero() && !now.Before(s.Until) {
		return false
	}
	w := s.Weekly
	if w == nil {
		return true
	}
	loc, err := time.LoadLocation(w.Zone)
	if err != nil {
		return false
	}
	from, ferr := clockTime(w.From)
	to, terr := clockTime(w.To)
	if ferr != nil || terr != nil {
		return false
	}
	local := now.In(loc)
	m, today := local.Hour()*60+local.Minute(), local.Weekday()
	if from < to {
		return slices.Contains(w.Days, today) && m >= from && m < to
	}
	yesterday := (today + 6) % 7
	return slices.Contains(w.Days, today) && m >= from || slices.Contains(w.Days, yesterday) && m < to
}

// covers says whether the silence is about an alert: about all of it, so that a
// silence of one node does not hide what others have as well.
func (s *Silence) covers(a *Alert) bool {
	if s.Alert != "" && !strings.EqualFold(s.Alert, a.ID) || s.Rule != "" && s.Rule != a.Rule {
		return false
	}
	p := &access.Principal{Scopes: s.scopes}
	if len(a.Members) == 0 {
		return s.Node == "" && s.Site == "" && p.Sees(access.Everything)
	}
	for _, m := range a.Members {
		if s.Node != "" && !strings.EqualFold(s.Node, m.NodeID) || s.Site != "" && s.Site != m.Site || !p.Sees(m.Scope) {
			return false
		}
	}
	return true
}
