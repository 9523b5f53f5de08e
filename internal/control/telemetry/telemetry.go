// Package telemetry keeps what nodes report: it takes each minute once, rolls
// minutes up, and answers what charts ask.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/control/db"
	"larder/internal/fleet"
)

var (
	// ErrInvalid: the delivery holds something that no node counts.
	ErrInvalid = errors.New("not a delivery")
	// ErrOldLine: the delivery is of an enrolment that was succeeded.
	ErrOldLine = errors.New("of an earlier enrolment")
)

// Options are what a Service works with. DB must be given.
type Options struct {
	DB         *db.DB
	Log        *slog.Logger
	Registerer prometheus.Registerer

	// How long figures are kept; 0: two days, 35 days, 1100 days.
	Minutes, Quarters, Days time.Duration
}

// Service keeps what nodes report. Run must be running for Take to return.
type Service struct {
	o       Options
	log     *slog.Logger
	work    chan *take
	stopped chan struct{}
	once    sync.Once

	taken, repeated, passed prometheus.Counter
	batch, seconds          prometheus.Histogram
}

// New makes a Service.
func New(o Options) *Service {
	const day = 24 * time.Hour
	for _, d := range []struct {
		at  *time.Duration
		own time.Duration
	}{{&o.Minutes, 2 * day}, {&o.Quarters, 35 * day}, {&o.Days, 1100 * day}} {
		if *d.at == 0 {
			*d.at = d.own
		}
	}
	s := &Service{o: o, log: o.Log, work: make(chan *take, maxBatch), stopped: make(chan struct{})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.taken = prometheus.NewCounter(prometheus.CounterOpts{Name: "larder_telemetry_taken_minutes_total", Help: "Minutes of nodes that were taken."})
	s.repeated = prometheus.NewCounter(prometheus.CounterOpts{Name: "larder_telemetry_repeated_minutes_total", Help: "Minutes that were delivered again and not taken twice."})
	s.passed = prometheus.NewCounter(prometheus.CounterOpts{Name: "larder_telemetry_passed_minutes_total", Help: "Minutes of nodes that made no sense and were passed over."})
	s.batch = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "larder_telemetry_batch_deliveries", Help: "Deliveries written in one transaction.", Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200}})
	s.seconds = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "larder_telemetry_commit_seconds", Help: "Time to write one batch of deliveries.", Buckets: prometheus.ExponentialBuckets(.001, 3, 9)})
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.taken, s.repeated, s.passed, s.batch, s.seconds)
	}
	return s
}

const (
	maxBatch = 200
	maxCount = 1 << 50 // of requests or bytes in one minute: a petabyte
	maxWord  = 64

	maxOutcomes = 64 // of one content type
)

// check says what is wrong with a delivery as a whole.
func check(d *fleet.Delivery) error {
	if !isWord(d.Instance, maxWord) {
		return wrong("instance", "found %d characters, expected 1 to %d that can be printed", len(d.Instance), maxWord)
	}
	if len(d.Minutes) > fleet.MaxMinutes {
		return wrong("minutes", "found %d, expected %d at most", len(d.Minutes), fleet.MaxMinutes)
	}
	for i := range d.Minutes {
		if m := &d.Minutes[i]; m.Seq < 1 || m.Seq > maxCount || i > 0 && m.Seq <= d.Minutes[i-1].Seq {
			return wrong(fmt.Sprintf("minutes[%d].seq", i), "found %d, expected one above that of the minute before", m.Seq)
		}
	}
	return nil
}

// isWord says whether a database takes s as a name of that many bytes at most.
func isWord(s string, most int) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, unicode.IsControl)
}

func wrong(field, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalid, field, fmt.Sprintf(format, args...))
}

// checkMinute says what is wrong with a minute. at is where it is.
func checkMinute(at string, m *fleet.Minute) error {
	if m.Start.IsZero() || m.End.Before(m.Start) || m.End.Sub(m.Start) > time.Hour {
		return wrong(at, "found a span from %s to %s, expected one of about a minute", m.Start.Format(time.RFC3339), m.End.Format(time.RFC3339))
	}
	if len(m.Traffic) > fleet.MaxContentTypes {
		return wrong(at+".traffic", "found %d content types, expected %d at most", len(m.Traffic), fleet.MaxContentTypes)
	}
	if len(m.Origins) > fleet.MaxOrigins {
		return wrong(at+".origins", "found %d hosts, expected %d at most", len(m.Origins), fleet.MaxOrigins)
	}
	for k := range m.Traffic {
		if err := checkTraffic(fmt.Sprintf("%s.traffic[%d]", at, k), &m.Traffic[k]); err != nil {
			return err
		}
	}
	for k, o := range m.Origins {
		if !isWord(o.Host, 255) || o.OK < 0 || o.OK > maxCount || o.Failures < 0 || o.Failures > maxCount {
			return wrong(fmt.Sprintf("%s.origins[%d]", at, k), "expected a host and counts from 0")
		}
	}
	return nil
}

func checkTraffic(at string, t *fleet.Traffic) error {
	if !isWord(t.ContentType, maxWord) {
		return wrong(at+".contentType", "found %d characters, expected 1 to %d that can be printed", len(t.ContentType), maxWord)
	}
	for _, n := range []int64{t.Requests, t.Hits, t.HitBytes, t.MissBytes, t.Fetched} {
		if n < 0 || n > maxCount {
			return wrong(at, "found a count of %d, expected 0 to %d", n, int64(maxCount))
		}
	}
	if len(t.Outcomes) > maxOutcomes {
		return wrong(at+".outcomes", "found %d, expected %d at most", len(t.Outcomes), maxOutcomes)
	}
	for i, o := range t.Outcomes {
		if !isWord(o.Outcome, maxWord) || o.Status != "" && !isWord(o.Status, 8) || o.Requests < 0 || o.Requests > maxCount {
			return wrong(fmt.Sprintf("%s.outcomes[%d]", at, i), "expected a word, a status class and a count from 0")
		}
	}
	return nil
}

// take is a delivery that waits for its transaction.
type take struct {
	node, customer string
	line           int64
	d              *fleet.Delivery
	received       time.Time

	seq  int64 // written before done is closed
	err  error // likewise
	done chan struct{}
}

// Take takes the minutes of a delivery that were not taken yet, and the state,
// in one transaction, and returns the highest minute of the node's line. It
// returns when that is durable. A minute that makes no sense is passed over, for
// good: nodes send what was not taken again, and those after it would wait for
// ever. Several replicas may take deliveries of one node
// at the same time. Errors: ErrInvalid, ErrOldLine.
func (s *Service) Take(ctx context.Context, node, customer string, line int64, d *fleet.Delivery, received time.Time) (int64, error) {
	if err := check(d); err != nil {
		return 0, err
	}
	t := &take{node: node, customer: customer, line: line, d: d, received: received, done: make(chan struct{})}
	select {
	case s.work <- t:
	case <-s.stopped:
		return 0, errors.New("the control plane stops")
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	select {
	case <-t.done:
		return t.seq, t.err
	case <-ctx.Done():
		return 0, context.Cause(ctx) // it may be taken: the node asks again
	}
}

// Run writes deliveries, as many in one transaction as wait, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	defer s.once.Do(func() { close(s.stopped) })
	for {
		var ts []*take
		select {
		case t := <-s.work:
			ts = append(ts, t)
		case <-ctx.Done():
			return nil
		}
	more:
		for len(ts) < maxBatch {
			select {
			case t := <-s.work:
				ts = append(ts, t)
			default:
				break more
			}
		}
		start := time.Now()
		s.write(ctx, ts)
		s.batch.Observe(float64(len(ts)))
		s.seconds.Observe(time.Since(start).Seconds())
	}
}
