package alert

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// stage plays evaluations one after the other.
type stage struct {
	alerts   []*Alert
	silenced map[string]bool
	ids      int
}

func (s *stage) at(minute int, patience time.Duration, found ...Finding) string {
	var events []Event
	s.alerts, events = next(now.Add(time.Duration(minute)*time.Minute), s.alerts, found, func(string) time.Duration { return patience },
		func(a *Alert) bool { return s.silenced[a.Subject] }, func() string { s.ids++; return fmt.Sprint(s.ids) })
	var told []string
	for _, e := range events {
		told = append(told, fmt.Sprintf("%s %s %s", e.Kind, e.Alert.Subject, e.Alert.Severity))
	}
	return strings.Join(told, ", ")
}

func TestLifeOfAnAlert(t *testing.T) {
	t.Parallel()
	x := Finding{Rule: "r", Subject: "x", Severity: Warning, Title: "x"}
	worse, older := x, x
	worse.Severity = Error
	older.Step = 1
	type step struct {
		minute int
		found  []Finding
		silent bool
		want   string
	}
	for name, c := range map[string]struct {
		patience time.Duration
		steps    []step
		state    State
		rows     int
	}{
		"told once":       {0, []step{{0, []Finding{x}, false, "firing x warning"}, {1, []Finding{x}, false, ""}, {2, []Finding{x, x}, false, ""}}, Firing, 1},
		"told when over":  {0, []step{{0, []Finding{x}, false, "firing x warning"}, {1, nil, false, ""}, {2, nil, false, ""}, {3, nil, false, "resolved x warning"}, {4, nil, false, ""}}, Resolved, 1},
		"comes and goes":  {0, []step{{0, []Finding{x}, false, "firing x warning"}, {1, nil, false, ""}, {2, []Finding{x}, false, ""}, {3, nil, false, ""}, {4, []Finding{x}, false, ""}}, Firing, 1},
		"back soon":       {0, []step{{0, []Finding{x}, false, "firing x warning"}, {3, nil, false, "resolved x warning"}, {10, []Finding{x}, false, "firing x warning"}}, Firing, 1},
		"back later":      {0, []step{{0, []Finding{x}, false, "firing x warning"}, {3, nil, false, "resolved x warning"}, {30, []Finding{x}, false, "firing x warning"}}, Firing, 2},
		"not long enough": {5 * time.Minute, []step{{0, []Finding{x}, false, ""}, {4, []Finding{x}, false, ""}, {5, nil, false, ""}, {6, []Finding{x}, false, ""}}, Firing, 1},
		"long enough":     {5 * time.Minute, []step{{0, []Finding{x}, false, ""}, {4, []Finding{x}, false, ""}, {5, []Finding{x}, false, "firing x warning"}}, Firing, 1},
		"worse":           {0, []step{{0, []Finding{x}, false, "firing x warning"}, {1, []Finding{worse}, false, "worse x error"}, {2, []Finding{x}, false, ""}, {3, []Finding{worse}, false, ""}}, Firing, 1},
		"a step on":       {0, []step{{0, []Finding{x}, false, "firing x warning"}, {1, []Finding{older}, false, "worse x warning"}, {2, []Finding{older}, false, ""}}, Firing, 1},
		"silenced":        {0, []step{{0, []Finding{x}, true, ""}, {1, []Finding{x}, true, ""}, {2, []Finding{x}, false, "firing x warning"}}, Firing, 1},
		"silenced later":  {0, []step{{0, []Finding{x}, false, "firing x warning"}, {1, []Finding{worse}, true, ""}, {2, []Finding{worse}, false, "worse x error"}}, Firing, 1},
		"over in silence": {0, []step{{0, []Finding{x}, false, "firing x warning"}, {1, nil, true, ""}, {5, nil, true, ""}}, Resolved, 1},
		"never told":      {0, []step{{0, []Finding{x}, true, ""}, {5, nil, false, ""}}, Resolved, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &stage{silenced: map[string]bool{}}
			for _, st := range c.steps {
				s.silenced["x"] = st.silent
				if got := s.at(st.minute, c.patience, st.found...); got != st.want {
					t.Errorf("minute %d: told %q, want %q", st.minute, got, st.want)
				}
			}
			if name == "not long enough" {
				if a := s.alerts[len(s.alerts)-1]; a.State != Pending {
					t.Errorf("it is %s", a.State)
				}
				return
			}
			if len(s.alerts) != c.rows || s.alerts[c.rows-1].State != c.state {
				t.Errorf("%d alerts, the last is %s; want %d and %s", len(s.alerts), s.alerts[len(s.alerts)-1].State, c.rows, c.state)
			}
		})
	}
}

// Whatever comes and goes: of one thing there is one open alert; people hear of
// a beginning before its end, and never twice of the same without a change.
func TestPeopleHearEachThingOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := &stage{silenced: map[string]bool{}}
		heard := map[string]Severity{}
		for minute := range rapid.IntRange(1, 60).Draw(t, "minutes") {
			var found []Finding
			for _, subject := range []string{"x", "y"} {
				s.silenced[subject] = rapid.IntRange(0, 5).Draw(t, "silence") == 0
				if sev := rapid.IntRange(0, 3).Draw(t, subject); sev > 0 {
					found = append(found, Finding{Rule: "r", Subject: subject, Severity: Severity(sev)})
				}
			}
			var events []Event
			at := now.Add(time.Duration(minute) * time.Minute)
			s.alerts, events = next(at, s.alerts, found, func(string) time.Duration { return 2 * time.Minute }, func(a *Alert) bool { return s.silenced[a.Subject] }, func() string { s.ids++; return fmt.Sprint(s.ids) })
			for _, e := range events {
				a := e.Alert
				switch {
				case s.silenced[a.Subject]:
					t.Fatalf("told of %s in silence", a.Subject)
				case e.Kind == Began && heard[a.Subject] != 0 && !ended(s.alerts, a.Subject, a.ID):
					t.Fatalf("told twice that %s began", a.Subject)
				case e.Kind == Worse && a.Severity <= heard[a.Subject]:
					t.Fatalf("told that %s is worse: %s after %s", a.Subject, a.Severity, heard[a.Subject])
				case e.Kind == Over && heard[a.Subject] == 0:
					t.Fatalf("told that %s is over, of which nobody had heard", a.Subject)
				}
				heard[a.Subject] = a.Severity
				if e.Kind == Over {
					heard[a.Subject] = 0
				}
			}
			open := map[string]int{}
			for _, a := range s.alerts {
				if a.State != Resolved {
					open[a.Subject]++
				}
			}
			for subject, n := range open {
				if n > 1 {
					t.Fatalf("%d open alerts of %s", n, subject)
				}
			}
			// As the database does: what was never more than pending goes.
			s.alerts = slices.DeleteFunc(s.alerts, func(a *Alert) bool {
				return a.State == Resolved && (a.Fired.IsZero() || at.Sub(a.Ended) > again)
			})
		}
	})
}

// ended says whether an earlier alert of a subject ended without a word, in
// silence.
func ended(all []*Alert, subject, id string) bool {
	return slices.ContainsFunc(all, func(a *Alert) bool { return a.Subject == subject && (a.ID == id || a.State == Resolved) })
}

func TestSilences(t *testing.T) {
	t.Parallel()
	berlin := &Weekly{Days: []time.Weekday{time.Thursday}, From: "22:00", To: "04:00", Zone: "Europe/Berlin"}
	at := func(text string) time.Time {
		x, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for name, c := range map[string]struct {
		s    Silence
		at   string
		want bool
	}{
		"before":                {Silence{From: at("2026-11-26T12:00:00Z"), Until: at("2026-11-26T14:00:00Z")}, "2026-11-26T11:59:59Z", false},
		"within":                {Silence{From: at("2026-11-26T12:00:00Z"), Until: at("2026-11-26T14:00:00Z")}, "2026-11-26T12:00:00Z", true},
		"over":                  {Silence{From: at("2026-11-26T12:00:00Z"), Until: at("2026-11-26T14:00:00Z")}, "2026-11-26T14:00:00Z", false},
		"Thursday evening":      {Silence{Weekly: berlin}, "2026-11-26T21:00:00Z", true},
		"Thursday too early":    {Silence{Weekly: berlin}, "2026-11-26T20:59:00Z", false},
		"past midnight":         {Silence{Weekly: berlin}, "2026-11-27T02:59:00Z", true},
		"past its end":          {Silence{Weekly: berlin}, "2026-11-27T03:00:00Z", false},
		"another day":           {Silence{Weekly: berlin}, "2026-11-27T21:30:00Z", false},
		"in summer an hour off": {Silence{Weekly: berlin}, "2026-07-02T20:00:00Z", true},
		"within a day":          {Silence{Weekly: &Weekly{Days: []time.Weekday{4}, From: "08:00", To: "09:30"}}, "2026-11-26T09:29:00Z", true},
		"weekly, not yet":       {Silence{Weekly: berlin, From: at("2026-12-01T00:00:00Z")}, "2026-11-26T21:00:00Z", false},
	} {
		if got := c.s.active(at(c.at)); got != c.want {
			t.Errorf("%s: active is %v, want %v", name, got, c.want)
		}
	}
	g, h := "/subscriptions/s/resourcegroups/g", "/subscriptions/s/resourcegroups/h"
	one := &Alert{ID: "1", Rule: "clock", Members: []Member{{"a", "a", "north", g}}}
	both := &Alert{ID: "2", Rule: "origin", Members: []Member{{"a", "a", "north", g}, {"b", "b", "south", h}}}
	own := &Alert{ID: "3", Rule: "ending"}
	for name, c := range map[string]struct {
		s    Silence
		want string
	}{
		"everything":         {Silence{scopes: []string{"/"}}, "123"},
		"a node":             {Silence{Node: "A", scopes: []string{"/"}}, "1"},
		"a site":             {Silence{Site: "south", scopes: []string{"/"}}, ""},
		"a rule":             {Silence{Rule: "origin", scopes: []string{"/"}}, "2"},
		"one alert":          {Silence{Alert: "3", scopes: []string{"/"}}, "3"},
		"a group's operator": {Silence{scopes: []string{g}}, "1"},
		"both groups'":       {Silence{scopes: []string{g, h}}, "12"},
		"nobody's":           {Silence{}, ""},
	} {
		got := ""
		for _, a := range []*Alert{one, both, own} {
			if c.s.covers(a) {
				got += a.ID
			}
		}
		if got != c.want {
			t.Errorf("%s covers %q, want %q", name, got, c.want)
		}
	}
	for field, s := range map[string]Silence{
		"until":       {From: now},
		"rule":        {Rule: "no-such", Until: now.Add(1)},
		"weekly.days": {Weekly: &Weekly{From: "08:00", To: "09:00"}},
		"weekly.from": {Weekly: &Weekly{Days: []time.Weekday{1}, From: "8", To: "09:00"}},
		"weekly.to":   {Weekly: &Weekly{Days: []time.Weekday{1}, From: "08:00", To: "08:00"}},
		"weekly.zone": {Weekly: &Weekly{Days: []time.Weekday{1}, From: "08:00", To: "09:00", Zone: "Mars/Base"}},
	} {
		if got, problem := s.check(); got != field || problem == "" {
			t.Errorf("%+v: got %q %q, want a problem with %s", s, got, problem, field)
		}
	}
}
