package alert

import (
	"context"
	"fmt"
	"time"

	"larder/internal/control/db"
	"larder/internal/control/roster"
	"larder/internal/control/telemetry"
)

// Facts are what rules look at.
type Facts struct {
	Now time.Time
	// Listening is since when the control plane takes reports without a gap: a
	// node's silence before it says nothing about the node.
	Listening time.Time
	Version   string
	Ends      []End // things of the control plane's own that end
}

// Node is one with what the rules want to know of it.
type Node struct {
	*roster.Node
	Scope    string
	Identity time.Time // when its newest identity ends; zero if it has none
	Figures
}

// Figures are sums of what a node reported. They are gathered less often than
// the rest.
type Figures struct {
	Yesterday telemetry.Counts // the last whole day, UTC
	Week      telemetry.Counts // the seven days before it
	LastDay   time.Time        // the latest day (UTC) of the last 30 with a request; zero: none
	Fetched   int64            // bytes in the last whole quarter of an hour
	Origins   []Ratio          // by host, the last half to three quarters of an hour
	Refused   []Ratio          // by content type: requests that ended 4xx, of the same span
}

// Ratio says how many of how many.
type Ratio struct {
	Name      string
	Bad, Good int64
}

// End is something that ends: a token, a root, a certificate.
type End struct {
	What string // "token ci", "the portal's certificate"
	At   time.Time
	Life time.Duration // how long it was good in all; 0 if not known
	Fix  string
}

// dark is true for a node that was there, and has said nothing for so long that
// what it said last does not describe it.
func (f *Facts) dark(n *Node) bool { return f.silent(n) > roster.Silence }

// silent is how long a node that should report has not, as far as the control
// plane can know.
func (f *Facts) silent(n *Node) time.Duration {
	if n.Line == 0 || !n.Revoked.IsZero() || n.LastSeen.IsZero() {
		return 0
	}
	return f.since(n.LastSeen)
}

// since is how long ago something was, of the time in which the control plane
// listened.
func (f *Facts) since(seen time.Time) time.Duration {
	if f.Listening.After(seen) {
		seen = f.Listening
	}
	return f.Now.Sub(seen)
}

func (n *Node) member() Member { return Member{n.NodeID, n.Name, n.Spec.Site, n.Scope} }

func (s *Service) identities(ctx context.Context) (map[string]time.Time, error) {
	rows, err := s.o.DB.QueryContext(ctx, `SELECT i.node_id, max(i.not_after) FROM identities i JOIN nodes n ON n.node_id = i.node_id AND n.line = i.line WHERE i.revoked = 0 GROUP BY i.node_id`)
	if err != nil {
		return nil, fmt.Errorf("reading identities: %w", err)
	}
	defer rows.Close()
	all := map[string]time.Time{}
	for rows.Next() {
		var id string
		var end int64
		if err := rows.Scan(&id, &end); err != nil {
			return nil, err
		}
		all[id] = db.Time(end)
	}
	return all, rows.Err()
}

// The spans of telemetry's tables, in seconds.
const (
	quarter = 900
	day     = 86400
)

// figures sums up what nodes reported. With 10,000 nodes it reads some hundred
// thousand rows, so it is for every few minutes.
func (s *Service) figures(ctx context.Context, now time.Time) (map[string]Figures, error) {
	all := map[string]Figures{}
	read := func(query string, args []any, scan func(scan func(...any) error) (string, func(*Figures), error)) error {
		rows, err := s.o.DB.QueryContext(ctx, query, args...)
		if err != nil {
			return fmt.Errorf("reading figures: %w", err)
		}
		defer rows.Close()
		for rows.Next() {
			id, set, err := scan(rows.Scan)
			if err != nil {
				return err
			}
			f := all[id]
			set(&f)
			all[id] = f
		}
		return rows.Err()
	}
	today := now.Unix() - now.Unix()%day
	const sums = `SELECT node_id, sum(requests), sum(hits), sum(hit), sum(miss), sum(fetched) FROM usage WHERE span = 86400 AND bucket >= $1 AND bucket < $2 GROUP BY node_id`
	counts := func(put func(*Figures, telemetry.Counts)) func(func(...any) error) (string, func(*Figures), error) {
		return func(scan func(...any) error) (string, func(*Figures), error) {
			var id string
			var c telemetry.Counts
			err := scan(&id, &c.Requests, &c.Hits, &c.HitBytes, &c.MissBytes, &c.FetchedBytes)
			return id, func(f *Figures) { put(f, c) }, err
		}
	}
	if err := read(sums, []any{today - day, today}, counts(func(f *Figures, c telemetry.Counts) { f.Yesterday = c })); err != nil {
		return nil, err
	}
	if err := read(sums, []any{today - 8*day, today - day}, counts(func(f *Figures, c telemetry.Counts) { f.Week = c })); err != nil {
		return nil, err
	}
	err := read(`SELECT node_id, max(bucket) FROM usage WHERE span = 86400 AND bucket >= $1 AND requests > 0 GROUP BY node_id`, []any{today - 30*day},
		func(scan func(...any) error) (string, func(*Figures), error) {
			var id string
			var last int64
			err := scan(&id, &last)
			return id, func(f *Figures) { f.LastDay = time.Unix(last, 0).UTC() }, err
		})
	if err != nil {
		return nil, err
	}
	this := now.Unix() - now.Unix()%quarter
	err = read(`SELECT node_id, sum(fetched) FROM usage WHERE span = 900 AND bucket = $1 GROUP BY node_id`, []any{this - quarter},
		func(scan func(...any) error) (string, func(*Figures), error) {
			var id string
			var n int64
			err := scan(&id, &n)
			return id, func(f *Figures) { f.Fetched = n }, err
		})
	if err != nil {
		return nil, err
	}
	ratio := func(add func(*Figures, Ratio)) func(func(...any) error) (string, func(*Figures), error) {
		return func(scan func(...any) error) (string, func(*Figures), error) {
			var id string
			var r Ratio
			err := scan(&id, &r.Name, &r.Bad, &r.Good)
			return id, func(f *Figures) { add(f, r) }, err
		}
	}
	err = read(`SELECT node_id, host, sum(failures), sum(ok) FROM origins WHERE bucket >= $1 GROUP BY node_id, host HAVING sum(failures) >= 10 ORDER BY node_id, host`, []any{this - 2*quarter},
		ratio(func(f *Figures, r Ratio) { f.Origins = append(f.Origins, r) }))
	if err != nil {
		return nil, err
	}
	err = read(`SELECT node_id, kind, sum(CASE WHEN status = '4xx' THEN requests ELSE 0 END), sum(CASE WHEN status = '4xx' THEN 0 ELSE requests END)
		FROM outcomes WHERE bucket >= $1 AND kind <> 'none' GROUP BY node_id, kind HAVING sum(CASE WHEN status = '4xx' THEN requests ELSE 0 END) >= 20 ORDER BY node_id, kind`, []any{this - 2*quarter},
		ratio(func(f *Figures, r Ratio) { f.Refused = append(f.Refused, r) }))
	return all, err
}
