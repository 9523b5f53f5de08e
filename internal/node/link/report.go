package link

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"larder/internal/fleet"
)

// counters are cumulative counts, by name, at one moment.
type counters struct {
	traffic map[string]fleet.Traffic
	origins map[string]fleet.Upstream
}

func read(n Node) counters {
	c := counters{traffic: map[string]fleet.Traffic{}, origins: map[string]fleet.Upstream{}}
	ts, us := n.Counters()
	for _, t := range ts {
		c.traffic[t.ContentType] = t
	}
	for _, u := range us {
		c.origins[u.Host] = u
	}
	return c
}

// since is what happened from before to now. A count that is lower than before
// began again at zero.
func (c counters) since(before counters) ([]fleet.Traffic, []fleet.Upstream) {
	d := func(now, then int64) int64 {
		if now < then {
			return now
		}
		return now - then
	}
	var ts []fleet.Traffic
	for name, n := range c.traffic {
		b := before.traffic[name]
		t := fleet.Traffic{
			ContentType: name, Requests: d(n.Requests, b.Requests), Hits: d(n.Hits, b.Hits),
			HitBytes: d(n.HitBytes, b.HitBytes), MissBytes: d(n.MissBytes, b.MissBytes), Fetched: d(n.Fetched, b.Fetched),
		}
		type key struct{ outcome, status string }
		was := map[key]int64{}
		for _, o := range b.Outcomes {
			was[key{o.Outcome, o.Status}] = o.Requests
		}
		for _, o := range n.Outcomes {
			if n := d(o.Requests, was[key{o.Outcome, o.Status}]); n > 0 {
				t.Outcomes = append(t.Outcomes, fleet.Outcome{Outcome: o.Outcome, Status: o.Status, Requests: n})
			}
		}
		if t.Requests != 0 || t.HitBytes != 0 || t.MissBytes != 0 || t.Fetched != 0 || len(t.Outcomes) > 0 {
			ts = append(ts, t)
		}
	}
	var us []fleet.Upstream
	for host, n := range c.origins {
		b := before.origins[host]
		if u := (fleet.Upstream{Host: host, OK: d(n.OK, b.OK), Failures: d(n.Failures, b.Failures)}); u.OK != 0 || u.Failures != 0 {
			us = append(us, u)
		}
	}
	return foldTraffic(ts), foldOrigins(us)
}

// foldTraffic puts the smallest of too many content types into one.
func foldTraffic(ts []fleet.Traffic) []fleet.Traffic {
	if len(ts) <= fleet.MaxContentTypes {
		return ts
	}
	slices.SortFunc(ts, func(a, b fleet.Traffic) int {
		return cmp.Or(cmp.Compare(b.HitBytes+b.MissBytes, a.HitBytes+a.MissBytes), cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.ContentType, b.ContentType))
	})
	others := fleet.Traffic{ContentType: fleet.Others}
	for _, t := range ts[fleet.MaxContentTypes-1:] {
		others.Requests += t.Requests
		others.Hits += t.Hits
		others.HitBytes += t.HitBytes
		others.MissBytes += t.MissBytes
		others.Fetched += t.Fetched
		for _, o := range t.Outcomes {
			if i := slices.IndexFunc(others.Outcomes, func(x fleet.Outcome) bool { return x.Outcome == o.Outcome && x.Status == o.Status }); i >= 0 {
				others.Outcomes[i].Requests += o.Requests
			} else {
				others.Outcomes = append(others.Outcomes, o)
			}
		}
	}
	return append(ts[:fleet.MaxContentTypes-1], others)
}

// foldOrigins puts those of too many origins that were asked least into one;
// those that failed are the last to go.
func foldOrigins(us []fleet.Upstream) []fleet.Upstream {
	if len(us) <= fleet.MaxOrigins {
		return us
	}
	slices.SortFunc(us, func(a, b fleet.Upstream) int {
		return cmp.Or(cmp.Compare(b.Failures, a.Failures), cmp.Compare(b.OK, a.OK), cmp.Compare(a.Host, b.Host))
	})
	others := fleet.Upstream{Host: fleet.Others}
	for _, u := range us[fleet.MaxOrigins-1:] {
		others.OK += u.OK
		others.Failures += u.Failures
	}
	return append(us[:fleet.MaxOrigins-1], others)
}

// cut ends the minute: what was counted since the last cut waits to be
// delivered.
func (l *Link) cut(now time.Time) error {
	c := read(l.cfg.Node)
	l.mu.Lock()
	m := fleet.Minute{Start: l.cutAt.UTC().Truncate(time.Millisecond), End: now.UTC().Truncate(time.Millisecond)}
	if m.End.Before(m.Start) || m.End.Sub(m.Start) > time.Hour {
		// The clock was set, or the machine slept. The counts are of the last
		// minute that it was awake for, as far as anybody can tell.
		m.Start = m.End.Add(-l.cfg.Interval)
	}
	m.Traffic, m.Origins = c.since(l.prev)
	l.prev, l.cutAt = c, now
	l.mu.Unlock()
	if len(m.Traffic)+len(m.Origins) == 0 && m.End.Sub(m.Start) < l.cfg.Interval/2 {
		return nil // a process that ends right after a cut
	}
	return l.buffer.add(m, now)
}

// minutes cuts one at the end of each minute of the wall clock, until ctx ends.
func (l *Link) minutes(ctx context.Context) {
	for sleep(ctx, l.untilMinute()) {
		if err := l.cut(l.cfg.Now()); err != nil {
			l.cfg.Log.ErrorContext(ctx, "minute kept in memory alone", "err", err)
		}
	}
}

func (l *Link) untilMinute() time.Duration {
	return l.cfg.Interval - time.Duration(l.cfg.Now().UnixNano())%l.cfg.Interval
}

// talk delivers what waits once a minute, and holds a poll for the document in
// between: one connection is enough for both, which halves what a node costs the
// control plane. The moment in the minute differs by node: ten thousand must not
// come in the same second.
func (l *Link) talk(ctx context.Context) {
	offset := time.Duration(l.share(0) * float64(l.cfg.Interval))
	var next time.Time // of the next delivery; now at the start, for the control plane to know it is there
	failures := 0
	call := ""
	for ctx.Err() == nil {
		l.takeAgain(ctx)
		var err error
		prompted := l.prompted()
		switch wait := time.Until(next); {
		case wait <= 0 || prompted:
			call = "reports"
			if err = l.deliver(ctx); err == nil {
				next = time.Now().Add(l.untilMinute() + offset)
			}
		case failures > 0:
			l.rest(ctx, wait)
			continue
		default:
			call = "desired"
			err = l.poll(ctx, wait)
		}
		if ctx.Err() != nil {
			return
		}
		l.heard(ctx, err)
		if err == nil {
			failures = 0
			continue
		}
		l.metrics.failures.WithLabelValues(call).Inc()
		failures++
		// Whatever failed, a delivery is what is tried next.
		next = time.Now().Add(l.backoff(failures, err))
	}
}

// prompted takes the wish for a delivery, if there is one.
func (l *Link) prompted() bool {
	select {
	case <-l.prompt:
		return true
	default:
		return false
	}
}

// rest waits, until somebody wishes for a delivery or ctx ends at most.
func (l *Link) rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.prompt:
		l.Deliver() // talk takes it
	case <-ctx.Done():
	}
}

// deliver sends the state and all minutes that wait.
func (l *Link) deliver(ctx context.Context) error {
	for {
		minutes := l.buffer.next(fleet.MaxMinutes)
		d := &fleet.Delivery{Protocol: l.cfg.Protocol, Instance: l.instance, State: l.state(), Minutes: minutes, Sent: l.cfg.Now().UTC()}
		_, c := l.current()
		cctx, cancel := context.WithTimeout(ctx, time.Minute)
		var a fleet.Accepted
		err := c.deliver(cctx, d, &a)
		cancel()
		if err != nil {
			return err
		}
		before, _ := l.buffer.waiting()
		if err := l.buffer.acknowledged(a.Seq); err != nil {
			return err
		}
		left, _ := l.buffer.waiting()
		l.metrics.minutes.Add(float64(max(0, before-left)))
		if err := l.trust(ctx, a.Roots); err != nil {
			return err
		}
		if left == 0 || left >= before && len(minutes) > 0 {
			return nil // all is delivered, or the control plane takes nothing now
		}
	}
}

func (l *Link) state() fleet.State {
	s := l.cfg.Node.FleetState()
	if l.cfg.System != nil {
		s.System = l.cfg.System()
	}
	_, dropped := l.buffer.waiting()
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Running, s.Refused, s.Why, s.Dropped = l.running, l.refused, l.why, dropped
	return s
}

// trust keeps the roots that the control plane names, if they are others.
func (l *Link) trust(ctx context.Context, roots string) error {
	if id, _ := l.current(); roots == "" || roots == id.Roots {
		return nil
	}
	err := l.change(func(now *identity) (*identity, error) {
		next := *now
		next.Roots = roots
		if err := next.complete(); err != nil {
			return nil, fmt.Errorf("roots of the control plane: %w", err)
		}
		return &next, nil
	})
	if err == nil {
		l.cfg.Log.InfoContext(ctx, "roots of the control plane changed")
	}
	return err
}
