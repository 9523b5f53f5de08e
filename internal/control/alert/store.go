package alert

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"larder/internal/control/access"
	"larder/internal/control/db"
)

// ErrNotFound: there is no such alert, silence, rule or channel.
var ErrNotFound = errors.New("not found")

// Invalid is a mistake in what a caller sent.
type Invalid struct{ Field, Problem string }

func (e *Invalid) Error() string { return e.Field + ": " + e.Problem }

// stored is a Member as it is kept.
type stored struct {
	Member
	Scope string `json:"scope"`
}

const alertColumns = `SELECT id, rule, subject, state, severity, step, title, reason, fix, members, first_seen, last_seen, fired, ended, told, told_step, silenced FROM alerts`

func scanAlert(scan func(...any) error) (*Alert, error) {
	a := new(Alert)
	var members []byte
	var first, last, fired, ended int64
	if err := scan(&a.ID, &a.Rule, &a.Subject, &a.State, &a.Severity, &a.step, &a.Title, &a.Reason, &a.Fix, &members, &first, &last, &fired, &ended, &a.told, &a.toldStep, &a.Silenced); err != nil {
		return nil, err
	}
	a.First, a.Last, a.Fired, a.Ended = db.Time(first), db.Time(last), db.Time(fired), db.Time(ended)
	var ms []stored
	if err := json.Unmarshal(members, &ms); err != nil {
		return nil, err
	}
	for _, m := range ms {
		m.Member.Scope = m.Scope
		a.Members = append(a.Members, m.Member)
	}
	return a, nil
}

func collect[T any](rows *sql.Rows, err error, scan func(func(...any) error) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := []T{}
	for rows.Next() {
		v, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// open returns alerts that are not over, and those that ended after since.
func (s *Service) open(ctx context.Context, q db.Queryer, since time.Time) ([]*Alert, error) {
	rows, err := q.QueryContext(ctx, alertColumns+` WHERE state <> 'resolved' OR ended > $1 ORDER BY first_seen, id`, db.Micros(since))
	all, err := collect(rows, err, scanAlert)
	if err != nil {
		return nil, fmt.Errorf("reading alerts: %w", err)
	}
	return all, nil
}

// save writes what next changed.
func (s *Service) save(ctx context.Context, tx *sql.Tx, all []*Alert, now time.Time) error {
	var seen []any
	for _, a := range all {
		if !a.changed {
			if a.State != Resolved && a.Last.Equal(now) {
				seen = append(seen, a.ID)
			}
			continue
		}
		if a.State == Resolved && a.Fired.IsZero() { // it was never more than pending
			if _, err := tx.ExecContext(ctx, `DELETE FROM alerts WHERE id = $1`, a.ID); err != nil {
				return fmt.Errorf("removing an alert: %w", err)
			}
			continue
		}
		ms := []stored{}
		for _, m := range a.Members {
			ms = append(ms, stored{m, m.Scope})
		}
		members, err := json.Marshal(ms)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO alerts (id, rule, subject, state, severity, step, title, reason, fix, members, first_seen, last_seen, fired, ended, told, told_step, silenced)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
			ON CONFLICT (id) DO UPDATE SET state = excluded.state, severity = excluded.severity, step = excluded.step, title = excluded.title, reason = excluded.reason, fix = excluded.fix, members = excluded.members,
			last_seen = excluded.last_seen, fired = excluded.fired, ended = excluded.ended, told = excluded.told, told_step = excluded.told_step, silenced = excluded.silenced`,
			a.ID, a.Rule, a.Subject, string(a.State), int64(a.Severity), a.step, a.Title, a.Reason, a.Fix, string(members), db.Micros(a.First), db.Micros(a.Last), db.Micros(a.Fired), db.Micros(a.Ended),
			int64(a.told), a.toldStep, a.Silenced); err != nil {
			return fmt.Errorf("writing an alert: %w", err)
		}
	}
	for part := range slices.Chunk(seen, 500) {
		marks := make([]string, len(part))
		for i := range part {
			marks[i] = fmt.Sprintf("$%d", i+2)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE alerts SET last_seen = $1 WHERE id IN (`+strings.Join(marks, ", ")+`)`, append([]any{db.Micros(now)}, part...)...); err != nil {
			return fmt.Errorf("writing when alerts were seen: %w", err)
		}
	}
	return nil
}

// Filter says which alerts are asked for. Zero fields do not matter.
type Filter struct {
	State    State // Firing if empty; "all" for any
	Severity Severity
	Rule     string
	Node     string // GUID
	Site     string
}

// List returns alerts that the principal may see, those with the weightiest and
// latest first. Of an alert of several resource groups it shows the nodes that
// are the principal's.
func (s *Service) List(ctx context.Context, p *access.Principal, f Filter, most int) ([]*Alert, error) {
	if f.State == "" {
		f.State = Firing
	}
	rows, err := s.o.DB.QueryContext(ctx, alertColumns+` WHERE ($1 = 'all' OR state = $1) AND severity >= $2 AND ($3 = '' OR rule = $3) ORDER BY CASE WHEN state = 'resolved' THEN 1 ELSE 0 END, severity DESC, first_seen DESC, id LIMIT 10000`,
		string(f.State), int64(f.Severity), f.Rule)
	all, err := collect(rows, err, scanAlert)
	if err != nil {
		return nil, fmt.Errorf("listing alerts: %w", err)
	}
	list := []*Alert{}
	for _, a := range all {
		of := func(m Member) bool {
			return (f.Node == "" || strings.EqualFold(f.Node, m.NodeID)) && (f.Site == "" || f.Site == m.Site)
		}
		if (f.Node != "" || f.Site != "") && !slices.ContainsFunc(a.Members, of) {
			continue
		}
		if a.visible(p) && len(list) < most {
			list = append(list, a)
		}
	}
	return list, nil
}

// visible says whether the principal may see the alert, and leaves out what it
// may not see of it.
func (a *Alert) visible(p *access.Principal) bool {
	if len(a.Members) == 0 {
		a.Members = []Member{}
		return p.Sees(access.Everything)
	}
	a.Members = slices.DeleteFunc(a.Members, func(m Member) bool { return !p.Sees(m.Scope) })
	return len(a.Members) > 0
}

// Get returns one that the principal may see. Errors: ErrNotFound.
func (s *Service) Get(ctx context.Context, p *access.Principal, id string) (*Alert, error) {
	a, err := scanAlert(s.o.DB.QueryRowContext(ctx, alertColumns+` WHERE id = $1`, strings.ToLower(id)).Scan)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, ErrNotFound
	case err != nil:
		return nil, fmt.Errorf("reading alert %s: %w", id, err)
	case !a.visible(p):
		return nil, ErrNotFound
	}
	return a, nil
}

// Rules returns all rules as they are set.
func (s *Service) Rules(ctx context.Context, q db.Queryer) ([]Rule, error) {
	rows, err := q.QueryContext(ctx, `SELECT name, settings FROM alert_rules`)
	set, err := collect(rows, err, func(scan func(...any) error) (Rule, error) {
		var r Rule
		var name string
		var text []byte
		if err := scan(&name, &text); err != nil {
			return r, err
		}
		err := json.Unmarshal(text, &r)
		r.Name = name
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading rules of alerts: %w", err)
	}
	all := slices.Clone(rules)
	for i := range all {
		r := &all[i]
		own := limits{}
		for k, v := range r.Limits {
			own[k] = v
		}
		for _, o := range set {
			if o.Name != r.Name {
				continue
			}
			r.Severity, r.After, r.Disabled = o.Severity, o.After, o.Disabled
			for k, v := range o.Limits {
				if _, ok := own[k]; ok {
					own[k] = v
				}
			}
		}
		if len(own) > 0 {
			r.Limits = own
		}
	}
	return all, nil
}

// RuleChange says how a rule is to be; nil leaves a part as it is.
type RuleChange struct {
	Severity *Severity          `json:"severity,omitempty"`
	After    *int               `json:"afterSeconds,omitempty"`
	Limits   map[string]float64 `json:"limits,omitempty"`
	Disabled *bool              `json:"disabled,omitempty"`
}

// SetRule changes a rule and returns it as it was and is. Errors: ErrNotFound,
// *Invalid.
func (s *Service) SetRule(ctx context.Context, tx *sql.Tx, name string, c RuleChange) (before, after Rule, err error) {
	all, err := s.Rules(ctx, tx)
	if err != nil {
		return before, after, err
	}
	i := slices.IndexFunc(all, func(r Rule) bool { return r.Name == name })
	if i < 0 {
		return before, after, ErrNotFound
	}
	before, after = all[i], all[i]
	if c.Severity != nil {
		after.Severity = *c.Severity
	}
	if c.After != nil {
		if *c.After < 0 || *c.After > 7*day {
			return before, after, &Invalid{"afterSeconds", fmt.Sprintf("found %d, expected 0 to %d", *c.After, 7*day)}
		}
		after.After = *c.After
	}
	if c.Disabled != nil {
		after.Disabled = *c.Disabled
	}
	after.Limits = map[string]float64{}
	for k, v := range before.Limits {
		after.Limits[k] = v
	}
	for k, v := range c.Limits {
		if _, ok := after.Limits[k]; !ok {
			return before, after, &Invalid{"limits." + k, "the rule has no such limit"}
		}
		if v < 0 || v > 1e9 {
			return before, after, &Invalid{"limits." + k, fmt.Sprintf("found %g, expected a number from 0", v)}
		}
		after.Limits[k] = v
	}
	text, err := json.Marshal(after)
	if err != nil {
		return before, after, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO alert_rules (name, settings) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET settings = excluded.settings`, name, string(text))
	return before, after, err
}

// Silences returns those that may be about alerts the principal sees, all for
// nil, without those that are over.
func (s *Service) Silences(ctx context.Context, q db.Queryer, p *access.Principal, now time.Time) ([]*Silence, error) {
	rows, err := q.QueryContext(ctx, `SELECT id, settings, scopes FROM silences WHERE ends = 0 OR ends > $1 ORDER BY id`, db.Micros(now))
	all, err := collect(rows, err, func(scan func(...any) error) (*Silence, error) {
		x := new(Silence)
		var id string
		var text, scopes []byte
		if err := scan(&id, &text, &scopes); err != nil {
			return nil, err
		}
		err := errors.Join(json.Unmarshal(text, x), json.Unmarshal(scopes, &x.scopes))
		x.ID = id
		return x, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading silences: %w", err)
	}
	return slices.DeleteFunc(all, func(x *Silence) bool { return p != nil && !x.concerns(p) }), nil
}

// concerns says whether a silence may be about alerts that the principal sees.
func (s *Silence) concerns(p *access.Principal) bool {
	by := &access.Principal{Scopes: s.scopes}
	return slices.ContainsFunc(s.scopes, p.Sees) || slices.ContainsFunc(p.Scopes, by.Sees)
}

// AddSilence adds one by a principal, for alerts within its scopes. Errors:
// *Invalid.
func (s *Service) AddSilence(ctx context.Context, q db.Queryer, p *access.Principal, x Silence, now time.Time) (*Silence, error) {
	if x.From.IsZero() {
		x.From = now
	}
	if field, problem := x.check(); field != "" {
		return nil, &Invalid{field, problem}
	}
	x.ID, x.By, x.Created, x.scopes = uuid.NewString(), p.Name, now, p.Scopes
	text, err := json.Marshal(x)
	if err != nil {
		return nil, err
	}
	scopes, err := json.Marshal(p.Scopes)
	if err != nil {
		return nil, err
	}
	if _, err := q.ExecContext(ctx, `INSERT INTO silences (id, settings, scopes, ends) VALUES ($1, $2, $3, $4)`, x.ID, string(text), string(scopes), db.Micros(x.Until)); err != nil {
		return nil, fmt.Errorf("writing a silence: %w", err)
	}
	return &x, nil
}

// RemoveSilence ends one whose scopes are all the principal's. Errors:
// ErrNotFound.
func (s *Service) RemoveSilence(ctx context.Context, q db.Queryer, p *access.Principal, id string, now time.Time) (*Silence, error) {
	all, err := s.Silences(ctx, q, p, now)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(x *Silence) bool {
		return strings.EqualFold(x.ID, id) && !slices.ContainsFunc(x.scopes, func(scope string) bool { return !p.Sees(scope) })
	})
	if i < 0 {
		return nil, ErrNotFound
	}
	_, err = q.ExecContext(ctx, `DELETE FROM silences WHERE id = $1`, all[i].ID)
	return all[i], err
}

// Hush marks an alert as silenced right away; the next evaluation decides.
func (s *Service) Hush(ctx context.Context, id string) error {
	_, err := s.o.DB.ExecContext(ctx, `UPDATE alerts SET silenced = TRUE WHERE id = $1 AND state = 'firing'`, id)
	return err
}
