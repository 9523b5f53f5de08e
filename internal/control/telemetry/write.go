package telemetry

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"larder/internal/control/db"
	"larder/internal/fleet"
)

// write writes deliveries in one transaction, and each by itself if that fails:
// one that cannot be written does not keep the others out.
func (s *Service) write(ctx context.Context, ts []*take) {
	err := s.writeAll(ctx, ts)
	if err != nil && len(ts) > 1 {
		for _, t := range ts {
			s.write(ctx, []*take{t})
		}
		return
	}
	for _, t := range ts {
		if t.err == nil {
			t.err = err
		}
		close(t.done)
	}
}

func (s *Service) writeAll(ctx context.Context, ts []*take) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	// Rows are touched in one order by all replicas, so that none waits for
	// another that waits for it.
	slices.SortStableFunc(ts, func(a, b *take) int { return strings.Compare(a.node, b.node) })
	var taken, repeated, passed int
	err := s.o.DB.TxLocked(ctx, func(tx *sql.Tx) error {
		taken, repeated, passed = 0, 0, 0
		sums := newSums()
		before, err := s.nodes(ctx, tx, ts)
		if err != nil {
			return err
		}
		var updates []*nodeRow
		for _, t := range ts {
			t.err, t.seq = nil, 0
			n := before[t.node]
			if n == nil || n.line != t.line {
				t.err = fmt.Errorf("%w: the node's is %d by now", ErrOldLine, lineOf(n))
				continue
			}
			for i := range t.d.Minutes {
				m := &t.d.Minutes[i]
				if m.Seq <= n.seq {
					repeated++
					continue
				}
				n.seq = m.Seq
				if err := checkMinute(fmt.Sprintf("minutes[%d]", i), m); err != nil {
					passed++
					s.log.WarnContext(ctx, "minute of a node passed over", "node", t.node, "seq", m.Seq, "err", err)
					continue
				}
				taken++
				s.add(sums, t, m)
			}
			t.seq = n.seq
			if !n.touched {
				n.touched = true
				updates = append(updates, n)
			}
			if err := s.delivered(ctx, tx, n, t); err != nil {
				return err
			}
		}
		for _, n := range updates {
			if err := n.save(ctx, tx); err != nil {
				return err
			}
		}
		return sums.save(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("writing reports: %w", err)
	}
	s.taken.Add(float64(taken))
	s.repeated.Add(float64(repeated))
	s.passed.Add(float64(passed))
	return nil
}

// nodeRow is what deliveries change of a node.
type nodeRow struct {
	id       string
	line     int64
	seq      int64
	instance string
	copied   int64
	touched  bool

	seen, off int64
	protocol  int
	state     string
}

func lineOf(n *nodeRow) int64 {
	if n == nil {
		return 0
	}
	return n.line
}

// nodes reads and locks the rows of all deliveries' nodes.
func (s *Service) nodes(ctx context.Context, tx *sql.Tx, ts []*take) (map[string]*nodeRow, error) {
	var ids []string
	for _, t := range ts {
		if len(ids) == 0 || ids[len(ids)-1] != t.node {
			ids = append(ids, t.node)
		}
	}
	query := `SELECT node_id, line, seq, instance, copied FROM nodes WHERE node_id IN (` + params(1, len(ids)) + `) ORDER BY node_id`
	if s.o.DB.Engine() == db.PostgreSQL {
		query += ` FOR UPDATE` // SQLite has one writer at a time anyway
	}
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := make(map[string]*nodeRow, len(ids))
	for rows.Next() {
		n := new(nodeRow)
		if err := rows.Scan(&n.id, &n.line, &n.seq, &n.instance, &n.copied); err != nil {
			return nil, err
		}
		found[n.id] = n
	}
	return found, rows.Err()
}

// delivered notes the state and whose process it is from. One that was there
// before and comes back, after another took its place, is a second machine.
func (s *Service) delivered(ctx context.Context, tx *sql.Tx, n *nodeRow, t *take) error {
	state, err := json.Marshal(&t.d.State)
	if err != nil {
		return err
	}
	n.state, n.seen, n.protocol = string(state), db.Micros(t.received), t.d.Protocol
	n.off = t.d.Sent.Sub(t.received).Microseconds()
	if t.d.Sent.IsZero() {
		n.off = 0
	}
	if n.instance == t.d.Instance {
		return nil
	}
	var last int64
	err = tx.QueryRowContext(ctx, `SELECT last FROM instances WHERE node_id = $1 AND instance = $2 AND line = $3`, n.id, t.d.Instance, n.line).Scan(&last)
	switch {
	case err == nil:
		n.copied = db.Micros(t.received)
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO instances (node_id, line, instance, first, last) VALUES ($1, $2, $3, $4, $4)
		ON CONFLICT (node_id, instance) DO UPDATE SET last = excluded.last, line = excluded.line`, n.id, n.line, t.d.Instance, db.Micros(t.received)); err != nil {
		return err
	}
	n.instance = t.d.Instance
	return nil
}

func (n *nodeRow) save(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `UPDATE nodes SET seq = $1, instance = $2, copied = $3, last_seen = $4, clock_off = $5, protocol = $6, state = $7 WHERE node_id = $8`,
		n.seq, n.instance, n.copied, n.seen, n.off, n.protocol, n.state, n.id)
	return err
}

// The spans that are kept, in seconds.
const (
	minute  = 60
	quarter = 900
	day     = 86400
)

// skew is how far a node's clock may be off before its times are corrected.
const skew = time.Minute

// add puts a minute's counts into the sums of all spans.
func (s *Service) add(sums *sums, t *take, m *fleet.Minute) {
	start := m.Start
	if off := t.d.Sent.Sub(t.received); !t.d.Sent.IsZero() && off.Abs() > skew {
		start = start.Add(-off)
	}
	// Nobody counts what is to come, and nobody asks for what was before all
	// that is kept.
	start = clampTime(start, t.received.Add(-s.o.Days), t.received)
	spans := []int64{minute, quarter, day}
	switch age := t.received.Sub(start); {
	case age > s.o.Quarters:
		spans = spans[2:]
	case age > s.o.Minutes:
		spans = spans[1:]
	}
	at := start.Unix()
	for _, span := range spans {
		bucket := at - at%span
		total := sums.total(totalKey{span, bucket, t.customer})
		total.minutes++
		for i := range m.Traffic {
			x := &m.Traffic[i]
			sums.usage(usageKey{span, bucket, t.customer, t.node, x.ContentType}).add(x)
			total.add(x)
		}
	}
	bucket := at - at%quarter
	sums.minutes[minutesKey{bucket, t.node}]++
	for i := range m.Traffic {
		x := &m.Traffic[i]
		for _, o := range x.Outcomes {
			sums.outcomes[outcomeKey{bucket, t.customer, t.node, x.ContentType, o.Outcome, o.Status}] += o.Requests
		}
	}
	for _, o := range m.Origins {
		k := originKey{bucket, t.customer, t.node, o.Host}
		v := sums.origins[k]
		sums.origins[k] = [2]int64{v[0] + o.OK, v[1] + o.Failures}
	}
}

func clampTime(t, low, high time.Time) time.Time {
	if t.Before(low) {
		return low
	}
	if t.After(high) {
		return high
	}
	return t
}

type counts struct{ minutes, requests, hits, hit, miss, fetched int64 }

func (c *counts) add(x *fleet.Traffic) {
	c.requests += x.Requests
	c.hits += x.Hits
	c.hit += x.HitBytes
	c.miss += x.MissBytes
	c.fetched += x.Fetched
}

type (
	usageKey struct {
		span, bucket         int64
		customer, node, kind string
	}
	totalKey struct {
		span, bucket int64
		customer     string
	}
	minutesKey struct {
		bucket int64
		node   string
	}
	outcomeKey struct {
		bucket                                int64
		customer, node, kind, outcome, status string
	}
	originKey struct {
		bucket               int64
		customer, node, host string
	}
)

// sums are what a transaction adds, each row once.
type sums struct {
	usages   map[usageKey]*counts
	totals   map[totalKey]*counts
	minutes  map[minutesKey]int64
	outcomes map[outcomeKey]int64
	origins  map[originKey][2]int64
}

func newSums() *sums {
	return &sums{map[usageKey]*counts{}, map[totalKey]*counts{}, map[minutesKey]int64{}, map[outcomeKey]int64{}, map[originKey][2]int64{}}
}

func (s *sums) usage(k usageKey) *counts {
	c := s.usages[k]
	if c == nil {
		c = new(counts)
		s.usages[k] = c
	}
	return c
}

func (s *sums) total(k totalKey) *counts {
	c := s.totals[k]
	if c == nil {
		c = new(counts)
		s.totals[k] = c
	}
	return c
}

func (s *sums) save(ctx context.Context, tx *sql.Tx) error {
	var rows [][]any
	for k, c := range s.usages {
		rows = append(rows, []any{k.span, k.bucket, k.customer, k.node, k.kind, c.requests, c.hits, c.hit, c.miss, c.fetched})
	}
	if err := upsert(ctx, tx, "usage", []string{"span", "node_id", "bucket", "kind"}, rows,
		"span", "bucket", "customer", "node_id", "kind", "+requests", "+hits", "+hit", "+miss", "+fetched"); err != nil {
		return err
	}
	rows = nil
	for k, c := range s.totals {
		rows = append(rows, []any{k.span, k.bucket, k.customer, c.minutes, c.requests, c.hits, c.hit, c.miss, c.fetched})
	}
	if err := upsert(ctx, tx, "usage_total", []string{"span", "customer", "bucket"}, rows,
		"span", "bucket", "customer", "+minutes", "+requests", "+hits", "+hit", "+miss", "+fetched"); err != nil {
		return err
	}
	rows = nil
	for k, n := range s.minutes {
		rows = append(rows, []any{k.bucket, k.node, n})
	}
	if err := upsert(ctx, tx, "usage_minutes", []string{"node_id", "bucket"}, rows, "bucket", "node_id", "+minutes"); err != nil {
		return err
	}
	rows = nil
	for k, n := range s.outcomes {
		rows = append(rows, []any{k.bucket, k.customer, k.node, k.kind, k.outcome, k.status, n})
	}
	if err := upsert(ctx, tx, "outcomes", []string{"node_id", "bucket", "kind", "outcome", "status"}, rows, "bucket", "customer", "node_id", "kind", "outcome", "status", "+requests"); err != nil {
		return err
	}
	rows = nil
	for k, v := range s.origins {
		rows = append(rows, []any{k.bucket, k.customer, k.node, k.host, v[0], v[1]})
	}
	return upsert(ctx, tx, "origins", []string{"node_id", "bucket", "host"}, rows, "bucket", "customer", "node_id", "host", "+ok", "+failures")
}

// maxParams is how many parameters one statement has at most: PostgreSQL takes
// 65535, SQLite 32766.
const maxParams = 10_000

// upsert adds rows to those that are there: columns with + are added up, the
// others are the row's name.
func upsert(ctx context.Context, tx *sql.Tx, table string, key []string, rows [][]any, columns ...string) error {
	if len(rows) == 0 {
		return nil
	}
	slices.SortFunc(rows, func(a, b []any) int { // see writeAll
		for i := range a {
			var c int
			switch x := a[i].(type) {
			case int64:
				c = cmp.Compare(x, b[i].(int64))
			case string:
				c = strings.Compare(x, b[i].(string))
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
	var names, adds []string
	for _, c := range columns {
		name, plus := strings.CutPrefix(c, "+")
		names = append(names, name)
		if plus {
			adds = append(adds, name+" = "+table+"."+name+" + excluded."+name)
		}
	}
	for part := range slices.Chunk(rows, maxParams/len(columns)) {
		var b strings.Builder
		args := make([]any, 0, len(part)*len(columns))
		for i, r := range part {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString("(" + params(len(args)+1, len(r)) + ")")
			args = append(args, r...)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO `+table+` (`+strings.Join(names, ", ")+`) VALUES `+b.String()+
			` ON CONFLICT (`+strings.Join(key, ", ")+`) DO UPDATE SET `+strings.Join(adds, ", "), args...)
		if err != nil {
			return fmt.Errorf("%s: %w", table, err)
		}
	}
	return nil
}

// params are n parameters from $first on.
func params(first, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", first+i)
	}
	return b.String()
}

// trimRows is how many rows one statement removes: writers wait for no longer.
const trimRows = 20_000

// Trim removes what is older than it is kept. It is for one replica at a time.
func (s *Service) Trim(ctx context.Context, now time.Time) error {
	old := func(d time.Duration) int64 { return now.Add(-d).Unix() }
	for _, t := range []struct {
		table, where string
		args         []any
	}{
		{"usage", "span = $1 AND bucket < $2", []any{int64(minute), old(s.o.Minutes)}},
		{"usage", "span = $1 AND bucket < $2", []any{int64(quarter), old(s.o.Quarters)}},
		{"usage", "span = $1 AND bucket < $2", []any{int64(day), old(s.o.Days)}},
		{"usage_total", "span = $1 AND bucket < $2", []any{int64(minute), old(s.o.Minutes)}},
		{"usage_total", "span = $1 AND bucket < $2", []any{int64(quarter), old(s.o.Quarters)}},
		{"usage_total", "span = $1 AND bucket < $2", []any{int64(day), old(s.o.Days)}},
		{"usage_minutes", "bucket < $1", []any{old(s.o.Quarters)}},
		{"outcomes", "bucket < $1", []any{old(s.o.Quarters)}},
		{"origins", "bucket < $1", []any{old(s.o.Quarters)}},
		{"instances", "last < $1", []any{db.Micros(now.Add(-s.o.Quarters))}},
	} {
		if err := s.remove(ctx, t.table, t.where, t.args...); err != nil {
			return err
		}
	}
	return nil
}

// Forget removes all that nodes of a customer ever reported, or of all customers
// of a group. id is its lower-case ARM id.
func (s *Service) Forget(ctx context.Context, id string) error {
	for _, table := range []string{"usage", "usage_total", "outcomes", "origins"} {
		// '0' follows '/'.
		if err := s.remove(ctx, table, "(customer = $1 OR customer >= $2 AND customer < $3)", id, id+"/", id+"0"); err != nil {
			return err
		}
	}
	return nil
}

// remove removes rows, some at a time.
func (s *Service) remove(ctx context.Context, table, where string, args ...any) error {
	// ctid and rowid name rows; the engines differ only in the word.
	row := "rowid"
	if s.o.DB.Engine() == db.PostgreSQL {
		row = "ctid"
	}
	statement := fmt.Sprintf(`DELETE FROM %s WHERE %s IN (SELECT %s FROM %s WHERE %s LIMIT %d)`, table, row, row, table, where, trimRows)
	for {
		res, err := s.o.DB.ExecContext(ctx, statement, args...)
		if err != nil {
			return fmt.Errorf("removing from %s: %w", table, err)
		}
		if n, err := res.RowsAffected(); err != nil || n < trimRows {
			return err
		}
	}
}
