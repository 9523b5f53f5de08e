package alert

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/control/access"
	"larder/internal/control/db"
	"larder/internal/control/roster"
	"larder/internal/control/seal"
	"larder/internal/fleet"
	"larder/internal/lardertest/dbtest"
)

// world is a Service on a database with nodes, and a clock that the test moves.
type world struct {
	*Service
	t   *testing.T
	d   *db.DB
	reg *prometheus.Registry
	now time.Time
}

func newWorld(t *testing.T, d *db.DB) *world {
	t.Helper()
	key, err := seal.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	r, err := roster.Open(t.Context(), d, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, d: d, now: now, reg: prometheus.NewRegistry()}
	w.Service = New(Options{DB: d, Roster: r, Sealer: key, Registerer: w.reg, Version: "1.0", Now: func() time.Time { return w.now }})
	for _, g := range []string{"g", "h"} {
		w.exec(`INSERT INTO resource_groups (subscription, key, name, location, created) VALUES ('s', $1, $1, 'l', 1)`, g)
		w.exec(`INSERT INTO customers (id, subscription, group_key, name, location, customer_id, provisioning, version, primary_key, secondary_key) VALUES ($1, 's', $2, 'c', 'l', $2, 'Succeeded', 1, $3, $3)`, customerOf(g), g, []byte{1})
	}
	return w
}

// Evaluate looks at all nodes once.
func (w *world) Evaluate(ctx context.Context) error {
	p, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	for n, err := range w.o.Roster.All(ctx) {
		if err != nil {
			return err
		}
		p.Node(n)
	}
	return p.End(ctx)
}

func (w *world) exec(query string, args ...any) {
	w.t.Helper()
	if _, err := w.d.ExecContext(w.t.Context(), query, args...); err != nil {
		w.t.Fatal(err)
	}
}

func customerOf(group string) string {
	return "/subscriptions/s/resourcegroups/" + group + "/providers/microsoft.connectedcache/enterprisemcccustomers/c"
}

// node adds one that is well.
func (w *world) node(name, group, site string) {
	w.t.Helper()
	state, err := json.Marshal(fleet.State{Ready: true, System: fleet.System{Version: "1.0"}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.exec(`INSERT INTO nodes (node_id, id, customer, name, location, settings, provisioning, version, created, line, last_seen, state) VALUES ($1, $2, $3, $4, 'l', $5, 'Succeeded', 1, 1, 1, $6, $7)`,
		name, customerOf(group)+"/enterprisemcccachenodes/"+name, customerOf(group), name, `{"site":"`+site+`"}`, db.Micros(w.now), string(state))
}

// seen has all but these nodes report now.
func (w *world) seen(but ...string) {
	w.t.Helper()
	w.exec(`UPDATE nodes SET last_seen = $1 WHERE name <> $2 AND name <> $3`, db.Micros(w.now), append(but, "", "")[0], append(but, "", "")[1])
}

// pass lets minutes go by, with an evaluation and a delivery in each.
func (w *world) pass(minutes int, but ...string) {
	w.t.Helper()
	for range minutes {
		w.now = w.now.Add(time.Minute)
		w.seen(but...)
		if err := errors.Join(w.Evaluate(w.t.Context()), w.Deliver(w.t.Context())); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) put(id string, c Channel) (Channel, error) {
	var after Channel
	err := w.d.Tx(w.t.Context(), func(tx *sql.Tx) error {
		var err error
		_, after, err = w.PutChannel(w.t.Context(), tx, id, c)
		return err
	})
	return after, err
}

// listener is a webhook that answers with what status says.
func listener(t *testing.T) (url string, status *atomic.Int64, got chan notice) {
	t.Helper()
	status, got = new(atomic.Int64), make(chan notice, 100)
	status.Store(200)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n notice
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
			t.Error(err)
		}
		w.WriteHeader(int(status.Load()))
		got <- n
	}))
	t.Cleanup(s.Close)
	return s.URL, status, got
}

// told is all that a webhook was told up to now.
func told(got chan notice) string {
	var all []string
	for len(got) > 0 {
		for _, e := range (<-got).Events {
			all = append(all, fmt.Sprintf("%s %s %s x%d", e.Kind, e.Alert.Rule, e.Alert.Subject, len(e.Alert.Members)))
		}
	}
	return strings.Join(all, "; ")
}

func TestFromReportsToMessages(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		w.node("a", "g", "north")
		w.node("b", "g", "north")
		w.node("c", "h", "south")
		url, status, got := listener(t)
		if _, err := w.put("", Channel{Name: "hook", Kind: "webhook", Webhook: &Webhook{URL: url}}); err != nil {
			t.Fatal(err)
		}
		w.pass(5)
		if s := told(got); s != "" {
			t.Fatalf("all is well, and told %q", s)
		}
		// The site goes dark: one message, for one cause.
		w.pass(7, "a", "b")
		if s := told(got); s != "firing node-offline site north x2" {
			t.Errorf("told %q", s)
		}
		// It is seen by those whose nodes they are.
		for who, want := range map[string]int{"/": 1, access.GroupScope("s", "g"): 1, access.GroupScope("s", "h"): 0} {
			all, err := w.List(t.Context(), &access.Principal{Scopes: []string{who}}, Filter{}, 10)
			if err != nil || len(all) != want {
				t.Errorf("%s sees %d alerts, %v; want %d", who, len(all), err, want)
			}
			for _, a := range all {
				if got, err := w.Get(t.Context(), &access.Principal{Scopes: []string{access.GroupScope("s", "h")}}, a.ID); !errors.Is(err, ErrNotFound) {
					t.Errorf("another group's operator got %+v, %v", got, err)
				}
			}
		}
		ms, err := w.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		shown := 0
		for _, m := range ms {
			if m.GetName() == "larder_alert_firing_state" {
				shown = len(m.GetMetric())
			}
		}
		if shown != 1 {
			t.Errorf("Prometheus sees %d alerts, want 1", shown)
		}
		// The channel fails; what happens meanwhile arrives in its order.
		status.Store(503)
		w.pass(4) // all are back
		if s := told(got); !strings.HasPrefix(s, "resolved node-offline site north x2") {
			t.Errorf("told %q", s)
		}
		w.pass(7, "c") // another goes
		told(got)
		status.Store(200)
		w.pass(20, "c")
		if s := told(got); s != "resolved node-offline site north x2; firing node-offline c x1" {
			t.Errorf("told %q", s)
		}
		cs, err := w.Channels(t.Context())
		if err != nil || len(cs) != 1 || cs[0].Error != "" || cs[0].Waiting != 0 || cs[0].Arrived.IsZero() {
			t.Errorf("the channel says %+v, %v", cs, err)
		}
		// What was refused for good is dropped, and said.
		status.Store(410)
		w.pass(5)
		if s := told(got); s != "resolved node-offline c x1" {
			t.Errorf("told %q", s)
		}
		if cs, err = w.Channels(t.Context()); err != nil || !strings.Contains(cs[0].Error, "410") || cs[0].Waiting != 0 {
			t.Errorf("the channel says %+v, %v", cs, err)
		}
		all, err := w.List(t.Context(), &access.Principal{Scopes: []string{"/"}}, Filter{State: "all"}, 10)
		if err != nil || len(all) != 2 || all[0].State != Resolved || all[0].Ended.IsZero() {
			t.Errorf("%d alerts are known, %v", len(all), err)
		}
	})
}

// While nobody listened, nobody was silent.
func TestAnAbsenceOfTheControlPlaneIsNoAlert(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	for i := range 6 {
		w.node(fmt.Sprint("n", i), "g", fmt.Sprint("s", i))
	}
	w.pass(3)
	w.now = w.now.Add(2 * time.Hour)
	for minute := range 8 {
		w.now = w.now.Add(time.Minute)
		if minute == 3 {
			w.seen("n1")
		}
		if err := w.Evaluate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	all, err := w.List(t.Context(), &access.Principal{Scopes: []string{"/"}}, Filter{State: "all"}, 10)
	if err != nil || len(all) != 1 || all[0].Subject != "n1" {
		t.Errorf("%d alerts, %v; want the one of the node that did not come back: %+v", len(all), err, all)
	}
}

func TestSilencesAndRulesAreKept(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		w.node("a", "g", "north")
		url, _, got := listener(t)
		if _, err := w.put("", Channel{Name: "hook", Kind: "webhook", Webhook: &Webhook{URL: url}}); err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		owner := &access.Principal{Name: "o", Scopes: []string{"/"}}
		mine := &access.Principal{Name: "p", Scopes: []string{access.GroupScope("s", "g")}}
		other := &access.Principal{Name: "q", Scopes: []string{access.GroupScope("s", "h")}}
		s, err := w.AddSilence(ctx, d, mine, Silence{Site: "north", Until: w.now.Add(time.Hour)}, w.now)
		if err != nil {
			t.Fatal(err)
		}
		var bad *Invalid
		if _, err := w.AddSilence(ctx, d, mine, Silence{}, w.now); !errors.As(err, &bad) || bad.Field != "until" {
			t.Errorf("got %v", err)
		}
		for who, want := range map[*access.Principal]int{owner: 1, mine: 1, other: 0} {
			if all, err := w.Silences(ctx, d, who, w.now); err != nil || len(all) != want {
				t.Errorf("%s sees %d silences, %v; want %d", who.Name, len(all), err, want)
			}
		}
		w.pass(10, "a")
		if s := told(got); s != "" {
			t.Errorf("told %q in silence", s)
		}
		all, err := w.List(ctx, owner, Filter{}, 10)
		if err != nil || len(all) != 1 || !all[0].Silenced {
			t.Fatalf("got %+v, %v, want a silenced alert", all, err)
		}
		if _, err := w.RemoveSilence(ctx, d, other, s.ID, w.now); !errors.Is(err, ErrNotFound) {
			t.Errorf("another removed it: %v", err)
		}
		if _, err := w.RemoveSilence(ctx, d, mine, s.ID, w.now); err != nil {
			t.Fatal(err)
		}
		w.pass(1, "a")
		if s := told(got); s != "firing node-offline a x1" {
			t.Errorf("told %q", s)
		}
		// A rule that is switched off ends its alerts.
		set := func(name string, c RuleChange) error {
			return d.Tx(ctx, func(tx *sql.Tx) error { _, _, err := w.SetRule(ctx, tx, name, c); return err })
		}
		off, severity, minus := true, Info, -1
		if err := set("node-offline", RuleChange{Disabled: &off, Severity: &severity, Limits: map[string]float64{"minutes": 30}}); err != nil {
			t.Fatal(err)
		}
		rs, err := w.Rules(ctx, d)
		if err != nil || !rs[0].Disabled || rs[0].Severity != Info || rs[0].Limits["minutes"] != 30 || rs[0].Limits["errorHours"] != 24 {
			t.Errorf("the rule is %+v, %v", rs[0], err)
		}
		if rules[0].Limits["minutes"] != 5 {
			t.Error("the rule as it comes was changed")
		}
		w.pass(4, "a")
		if s := told(got); s != "resolved node-offline a x1" {
			t.Errorf("told %q", s)
		}
		for field, c := range map[string]RuleChange{"limits.hours": {Limits: map[string]float64{"hours": 1}}, "limits.minutes": {Limits: map[string]float64{"minutes": -1}}, "afterSeconds": {After: &minus}} {
			if err := set("node-offline", c); !errors.As(err, &bad) || bad.Field != field {
				t.Errorf("got %v, want a mistake in %s", err, field)
			}
		}
		if err := set("no-such", RuleChange{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

// Secrets are sealed in the database, masked to those who read, and stay when
// what was read is written.
func TestChannelsKeepTheirSecrets(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		made, err := w.put("", Channel{Name: "mail", Kind: "email", Email: &Email{Server: "mail.example:587", User: "u", Password: "hunter2", From: "a@b.example", To: []string{"c@d.example"}}})
		if err != nil {
			t.Fatal(err)
		}
		slack, err := w.put("", Channel{Name: "slack", Kind: "slack", Webhook: &Webhook{URL: "https://hooks.example/services/hunter2"}})
		if err != nil {
			t.Fatal(err)
		}
		cs, err := w.Channels(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal([]any{cs, made, slack})
		if err != nil || strings.Contains(string(text), "hunter2") || !strings.Contains(string(text), masked) {
			t.Errorf("shown: %s, %v", text, err)
		}
		rows, err := d.QueryContext(t.Context(), `SELECT sealed FROM alert_channels`)
		sealed, err := collect(rows, err, func(scan func(...any) error) ([]byte, error) {
			var b []byte
			return b, scan(&b)
		})
		if err != nil || len(sealed) != 2 || strings.Contains(string(sealed[0])+string(sealed[1]), "example") {
			t.Errorf("kept: %q, %v", sealed, err)
		}
		for _, c := range []Channel{made, slack} {
			c.Name += " too"
			if _, err := w.put(c.ID, c); err != nil {
				t.Fatal(err)
			}
			kept, err := w.channel(t.Context(), d, c.ID)
			if err != nil || kept.Name != c.Name {
				t.Fatalf("got %+v, %v", kept, err)
			}
			if kept.Email != nil && kept.Email.Password != "hunter2" || kept.Webhook != nil && kept.Webhook.URL != "https://hooks.example/services/hunter2" {
				t.Errorf("the secret of %s is gone", c.Name)
			}
		}
		var bad *Invalid
		if _, err := w.put("", Channel{Name: "mail too", Kind: "syslog", Syslog: &Syslog{Address: "l:514"}}); !errors.As(err, &bad) || bad.Field != "name" {
			t.Errorf("a second of the name: %v", err)
		}
		// A masked URL of another host is no URL.
		slack.Webhook.URL = "https://evil.example/" + masked
		if _, err := w.put(slack.ID, slack); !errors.As(err, &bad) || bad.Field != "webhook.url" {
			t.Errorf("got %v", err)
		}
		if err := d.Tx(t.Context(), func(tx *sql.Tx) error { _, err := w.RemoveChannel(t.Context(), tx, made.ID); return err }); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Channel(t.Context(), made.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

func TestTestMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	url, status, got := listener(t)
	c, err := w.put("", Channel{Name: "hook", Kind: "webhook", Severity: Error, Webhook: &Webhook{URL: url}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.TestChannel(t.Context(), c.ID, "olga"); err != nil {
		t.Fatal(err)
	}
	if s := told(got); s != "test test  x0" {
		t.Errorf("told %q", s)
	}
	status.Store(500)
	var u *Undelivered
	if err := w.TestChannel(t.Context(), c.ID, "olga"); !errors.As(err, &u) {
		t.Errorf("got %v", err)
	}
	if c, err := w.Channel(t.Context(), c.ID); err != nil || !strings.Contains(c.Error, "500") {
		t.Errorf("the channel says %+v, %v", c, err)
	}
	if err := w.TestChannel(t.Context(), "none", "olga"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// The figures are those of the database, on both engines.
func TestFigures(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		w.node("a", "g", "north")
		use := func(span, bucket int64, requests, hit, fetched int64) {
			w.exec(`INSERT INTO usage (span, bucket, customer, node_id, kind, requests, hits, hit, miss, fetched) VALUES ($1, $2, $3, 'a', 'office', $4, 1, $5, 10, $6)`, span, bucket, customerOf("g"), requests, hit, fetched)
		}
		today := w.now.Unix() - w.now.Unix()%day
		use(day, today, 0, 0, 0)
		use(day, today-day, 5, 100, 7)
		use(day, today-2*day, 5, 200, 7)
		use(day, today-8*day, 5, 300, 7)
		use(day, today-9*day, 5, 400, 7)
		this := w.now.Unix() - w.now.Unix()%quarter
		use(quarter, this-quarter, 5, 1, 99)
		use(quarter, this, 5, 1, 1)
		origin := func(bucket int64, host string, ok, failures int64) {
			w.exec(`INSERT INTO origins (bucket, customer, node_id, host, ok, failures) VALUES ($1, $2, 'a', $3, $4, $5)`, bucket, customerOf("g"), host, ok, failures)
		}
		origin(this-quarter, "x.example", 1, 6)
		origin(this, "x.example", 2, 6)
		origin(this, "y.example", 2, 6)
		origin(this-3*quarter, "z.example", 2, 60)
		ended := func(kind, status string, n int64) {
			w.exec(`INSERT INTO outcomes (bucket, customer, node_id, kind, outcome, status, requests) VALUES ($1, $2, 'a', $3, 'miss', $4, $5)`, this, customerOf("g"), kind, status, n)
		}
		ended("office", "4xx", 30)
		ended("office", "2xx", 10)
		ended("teams", "4xx", 3)
		ended("none", "4xx", 300)
		all, err := w.figures(t.Context(), w.now)
		if err != nil {
			t.Fatal(err)
		}
		f := all["a"]
		if f.Yesterday.HitBytes != 100 || f.Yesterday.FetchedBytes != 7 || f.Week.HitBytes != 500 || f.Week.MissBytes != 20 || !f.LastDay.Equal(time.Unix(today-day, 0)) || f.Fetched != 99 {
			t.Errorf("got %+v", f)
		}
		if fmt.Sprint(f.Origins, f.Refused) != "[{x.example 12 3}] [{office 30 10}]" {
			t.Errorf("got %v %v", f.Origins, f.Refused)
		}
	})
}

// Run works until it is told to end.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Error(err)
	}
}
