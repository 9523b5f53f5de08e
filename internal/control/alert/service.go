package alert

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/control/access"
	"larder/internal/control/db"
	"larder/internal/control/lease"
	"larder/internal/control/roster"
)

// Sealer keeps the channels' secrets; seal.Key is one.
type Sealer interface {
	Seal(plain, context []byte) ([]byte, error)
	Open(sealed, context []byte) ([]byte, error)
}

// Options are what a Service works with. DB, Roster and Sealer must be given.
type Options struct {
	DB         *db.DB
	Roster     *roster.Roster
	Sealer     Sealer
	Log        *slog.Logger
	Registerer prometheus.Registerer
	Version    string
	Portal     string // URL that messages point at; "" for none
	// Ends returns what of the control plane's own ends some day; nil: nothing.
	Ends func(ctx context.Context) ([]End, error)
	Now  func() time.Time
}

// Service keeps alerts and tells people. Its methods may be called at the same
// time; passes and Deliver are for one replica at a time.
type Service struct {
	o        Options
	figured  time.Time // when figures were gathered
	lastFigs map[string]Figures

	evaluations prometheus.Histogram
	messages    *prometheus.CounterVec
}

// New makes a Service.
func New(o Options) *Service {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Service{o: o}
	s.evaluations = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "larder_alert_evaluation_seconds", Help: "Time to look at the whole fleet once.", Buckets: prometheus.ExponentialBuckets(.01, 3, 8)})
	s.messages = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "larder_alert_messages_total", Help: "Messages to channels, by how they ended: arrived, failed (tried again) or dropped."}, []string{"outcome"})
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.evaluations, s.messages, &states{s: s})
	}
	return s
}

// The pace of figures and deliveries.
const (
	figureSpan = 5 * time.Minute
	glance     = 5 * time.Second
)

// Run delivers until ctx ends. It is for the replica that holds the lease.
func (s *Service) Run(ctx context.Context) error {
	return lease.Every(ctx, s.o.Log, "telling people of alerts", glance, s.Deliver)
}

// listening is what is kept of when somebody evaluated.
type listening struct {
	Since time.Time `json:"since"`
	Last  time.Time `json:"last"`
}

// gap is how long nobody may have evaluated before nodes' silence in that time
// says nothing about them.
const gap = 3 * time.Minute

func (s *Service) listening(ctx context.Context, now time.Time) (time.Time, error) {
	const name = "alerts.listening"
	var l listening
	var text []byte
	err := s.o.DB.QueryRowContext(ctx, `SELECT value FROM settings WHERE name = $1`, name).Scan(&text)
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return now, fmt.Errorf("reading %s: %w", name, err)
	}
	if now.Sub(l.Last) > gap {
		l.Since = now
	}
	l.Last = now
	text, err = json.Marshal(l)
	if err != nil {
		return now, err
	}
	_, err = s.o.DB.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, string(text))
	return l.Since, err
}

// Pass looks at everything there is, once.
type Pass struct {
	s       *Service
	e       *evaluation
	now     time.Time
	start   time.Time
	figures map[string]Figures
	ends    map[string]time.Time // of identities
}

// Begin begins a pass, of which there is one a minute, on one replica at a time.
func (s *Service) Begin(ctx context.Context) (*Pass, error) {
	p := &Pass{s: s, now: s.o.Now().UTC().Truncate(time.Microsecond), start: time.Now()}
	if p.now.Sub(s.figured) >= figureSpan || s.lastFigs == nil {
		figs, err := s.figures(ctx, p.now)
		if err != nil {
			return nil, err
		}
		s.figured, s.lastFigs = p.now, figs
	}
	p.figures = s.lastFigs
	f := &Facts{Now: p.now, Version: s.o.Version}
	var err error
	if p.ends, err = s.identities(ctx); err != nil {
		return nil, err
	}
	if s.o.Ends != nil {
		if f.Ends, err = s.o.Ends(ctx); err != nil {
			return nil, err
		}
	}
	if f.Listening, err = s.listening(ctx, p.now); err != nil {
		return nil, err
	}
	rules, err := s.Rules(ctx, s.o.DB)
	if err != nil {
		return nil, err
	}
	p.e = newEvaluation(f, rules)
	return p, nil
}

// Node looks at a node.
func (p *Pass) Node(n *roster.Node) {
	p.e.node(&Node{Node: n, Scope: access.ScopeOf(n.ID), Identity: p.ends[n.NodeID], Figures: p.figures[n.NodeID]})
}

// End writes down what changed, together with the messages about it.
func (p *Pass) End(ctx context.Context) error {
	s, now := p.s, p.now
	defer func() { s.evaluations.Observe(time.Since(p.start).Seconds()) }()
	found := p.e.findings()
	return s.o.DB.Tx(ctx, func(tx *sql.Tx) error {
		known, err := s.open(ctx, tx, now.Add(-again))
		if err != nil {
			return err
		}
		silences, err := s.Silences(ctx, tx, nil, now)
		if err != nil {
			return err
		}
		channels, err := s.channels(ctx, tx)
		if err != nil {
			return err
		}
		after := map[string]time.Duration{}
		for _, r := range p.e.rules {
			after[r.Name] = time.Duration(r.After) * time.Second
		}
		silenced := func(a *Alert) bool {
			return slices.ContainsFunc(silences, func(x *Silence) bool { return x.active(now) && x.covers(a) })
		}
		all, events := next(now, known, found, func(rule string) time.Duration { return after[rule] }, silenced, uuid.NewString)
		if err := s.save(ctx, tx, all, now); err != nil {
			return err
		}
		for _, c := range channels {
			var told []Event
			for i := range events {
				if c.wants(&events[i]) {
					told = append(told, events[i])
				}
			}
			if len(told) == 0 {
				continue
			}
			text, err := json.Marshal(told)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO alert_messages (id, channel, events, created, due) VALUES ($1, $2, $3, $4, $4)`, uuid.NewString(), c.ID, string(text), db.Micros(now)); err != nil {
				return fmt.Errorf("writing a message: %w", err)
			}
		}
		return nil
	})
}

// giveUp is how long a message is tried.
const giveUp = 24 * time.Hour

// queued is a message that waits for its turn.
type queued struct {
	message
	attempts int
	due      time.Time
}

// Deliver sends what is due, to all channels at the same time: one that hangs
// does not keep the others waiting longer than its time is. A channel is told in
// order: what failed goes before what came later.
func (s *Service) Deliver(ctx context.Context) error {
	var waiting bool
	if err := s.o.DB.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM alert_messages WHERE due <= $1)`, db.Micros(s.o.Now())).Scan(&waiting); err != nil || !waiting {
		return err
	}
	channels, err := s.channels(ctx, s.o.DB)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(channels))
	for i, c := range channels {
		wg.Go(func() { errs[i] = s.deliver(ctx, c) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// deliver sends one channel what waits for it, up to the first that fails.
func (s *Service) deliver(ctx context.Context, c *Channel) error {
	rows, err := s.o.DB.QueryContext(ctx, `SELECT id, events, created, attempts, due FROM alert_messages WHERE channel = $1 ORDER BY created, id LIMIT 100`, c.ID)
	all, err := collect(rows, err, func(scan func(...any) error) (*queued, error) {
		q := new(queued)
		var text []byte
		var created, due int64
		if err := scan(&q.id, &text, &created, &q.attempts, &due); err != nil {
			return nil, err
		}
		q.at, q.due = db.Time(created), db.Time(due)
		return q, json.Unmarshal(text, &q.events)
	})
	if err != nil {
		return fmt.Errorf("reading messages: %w", err)
	}
	for _, q := range all {
		now := s.o.Now()
		if q.due.After(now) {
			return nil
		}
		problem := s.send(ctx, c, &q.message)
		if ctx.Err() != nil {
			return nil // it was cut off; the next holder of the lease sends it
		}
		if err := errors.Join(s.noteChannel(ctx, c.ID, now, problem), s.sent(ctx, q, now, c, problem)); err != nil || problem != nil {
			return err
		}
	}
	return nil
}

// sent writes down how a message went.
func (s *Service) sent(ctx context.Context, q *queued, now time.Time, c *Channel, problem error) error {
	var u *Undelivered
	attempts := q.attempts + 1
	over := errors.As(problem, &u) && u.final || now.Sub(q.at) > giveUp
	switch {
	case problem == nil:
		s.messages.WithLabelValues("arrived").Inc()
	case over:
		s.messages.WithLabelValues("dropped").Inc()
		s.o.Log.ErrorContext(ctx, "message about alerts given up", "channel", c.Name, "attempts", attempts, "err", problem)
	default:
		s.messages.WithLabelValues("failed").Inc()
		s.o.Log.WarnContext(ctx, "message about alerts not delivered, trying again", "channel", c.Name, "attempts", attempts, "err", problem)
		wait := min(15*time.Minute, 30*time.Second<<min(attempts-1, 5))
		_, err := s.o.DB.ExecContext(ctx, `UPDATE alert_messages SET attempts = $1, due = $2 WHERE id = $3`, attempts, db.Micros(now.Add(wait)), q.id)
		return err
	}
	_, err := s.o.DB.ExecContext(ctx, `DELETE FROM alert_messages WHERE id = $1`, q.id)
	return err
}

// kept is how long alerts that are over are kept.
const kept = 400 * 24 * time.Hour

// Clean removes what is over for long.
func (s *Service) Clean(ctx context.Context) error {
	now := s.o.Now()
	_, err := s.o.DB.ExecContext(ctx, `DELETE FROM alerts WHERE state = 'resolved' AND ended < $1`, db.Micros(now.Add(-kept)))
	_, serr := s.o.DB.ExecContext(ctx, `DELETE FROM silences WHERE ends <> 0 AND ends < $1`, db.Micros(now))
	return errors.Join(err, serr)
}

// states shows the alerts there are to Prometheus, the same from each replica.
type states struct{ s *Service }

var stateDesc = prometheus.NewDesc("larder_alert_firing_state", "Alerts that are firing: 1, or 0 if they are silenced.", []string{"rule", "severity", "subject", "title"}, nil)

func (c *states) Describe(ch chan<- *prometheus.Desc) { ch <- stateDesc }

func (c *states) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	rows, err := c.s.o.DB.QueryContext(ctx, alertColumns+` WHERE state = 'firing' ORDER BY severity DESC, first_seen LIMIT 2000`)
	all, err := collect(rows, err, scanAlert)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(stateDesc, err)
		return
	}
	for _, a := range all {
		v := 1.0
		if a.Silenced {
			v = 0
		}
		ch <- prometheus.MustNewConstMetric(stateDesc, prometheus.GaugeValue, v, a.Rule, a.Severity.String(), a.Subject, a.Title)
	}
}
