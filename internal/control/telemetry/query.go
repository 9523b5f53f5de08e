package telemetry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Filter says whose figures are asked for: nodes by GUID, or else all nodes of
// customers by lower-case ARM id, or else all there are.
type Filter struct {
	Customers []string
	Nodes     []string
}

// Counts are sums over a span. Bytes are of bodies.
type Counts struct {
	Requests     int64 `json:"requests"`
	Hits         int64 `json:"hits"` // of Requests
	HitBytes     int64 `json:"hitBytes"`
	MissBytes    int64 `json:"missBytes"`
	FetchedBytes int64 `json:"fetchedBytes"` // from upstream
}

// EgressBytes is what clients got.
func (c Counts) EgressBytes() int64 { return c.HitBytes + c.MissBytes }

// HitRatio is the share of bytes that did not have to be fetched, 0 to 1; 0 if
// there were none.
func (c Counts) HitRatio() float64 {
	if c.EgressBytes() == 0 {
		return 0
	}
	return float64(c.HitBytes) / float64(c.EgressBytes())
}

func (c *Counts) add(x Counts) {
	c.Requests += x.Requests
	c.Hits += x.Hits
	c.HitBytes += x.HitBytes
	c.MissBytes += x.MissBytes
	c.FetchedBytes += x.FetchedBytes
}

// Point is one span of a series. Where nobody reported it is a gap, which is not
// the same as nothing served.
type Point struct {
	At time.Time `json:"at"` // its beginning
	Counts
	Gap bool `json:"gap,omitempty"`
}

// stored is the coarsest span that makes up grain, and that still has what was
// at from.
func (s *Service) stored(grain time.Duration, from, now time.Time) int64 {
	age := now.Sub(from)
	switch {
	case grain%(day*time.Second) == 0 || age > s.o.Quarters:
		return day
	case grain%(quarter*time.Second) == 0 || age > s.o.Minutes:
		return quarter
	}
	return minute
}

// MaxPoints is how many points a series may have.
const MaxPoints = 10_000

// Series sums up what was done between from and to, in spans of grain that
// begin at whole multiples of it. What lies further back than minutes are kept
// is known in coarser spans only, and grain grows to them.
func (s *Service) Series(ctx context.Context, f Filter, from, to time.Time, grain time.Duration, now time.Time) ([]Point, time.Duration, error) {
	if grain < time.Minute || grain%time.Minute != 0 {
		return nil, 0, fmt.Errorf("%w: grain: found %s, expected whole minutes", ErrInvalid, grain)
	}
	if !from.Before(to) {
		return nil, 0, fmt.Errorf("%w: to: found %s, expected a time after %s", ErrInvalid, to.Format(time.RFC3339), from.Format(time.RFC3339))
	}
	grain = max(grain, time.Duration(s.stored(grain, from, now))*time.Second)
	if to.Sub(from)/grain >= MaxPoints {
		return nil, 0, fmt.Errorf("%w: grain: %s gives more than %d points, expected a coarser one", ErrInvalid, grain, MaxPoints)
	}
	return s.series(ctx, f, from, to, grain, now)
}

// series is Series of a grain that is known back to from, of any length.
func (s *Service) series(ctx context.Context, f Filter, from, to time.Time, grain time.Duration, now time.Time) ([]Point, time.Duration, error) {
	if !from.Before(to) {
		return nil, 0, fmt.Errorf("%w: to: found %s, expected a time after %s", ErrInvalid, to.Format(time.RFC3339), from.Format(time.RFC3339))
	}
	span := s.stored(grain, from, now)
	g := int64(grain / time.Second)
	first, last := from.Unix()-from.Unix()%g, to.Unix()
	points := map[int64]*Point{}
	at := func(bucket int64) *Point {
		b := bucket - bucket%g
		p := points[b]
		if p == nil {
			p = &Point{At: time.Unix(b, 0).UTC(), Gap: true}
			points[b] = p
		}
		return p
	}
	table, where, args := "usage", "", []any{span, first, last}
	minutes := "0"
	if len(f.Nodes) == 0 {
		table, minutes = "usage_total", "sum(minutes)"
	}
	where, args = f.where(args)
	rows, err := s.o.DB.QueryContext(ctx, `SELECT bucket - bucket % `+fmt.Sprint(g)+` AS b, sum(requests), sum(hits), sum(hit), sum(miss), sum(fetched), `+minutes+`
		FROM `+table+` WHERE span = $1 AND bucket >= $2 AND bucket < $3`+where+` GROUP BY b ORDER BY b`, args...)
	if err != nil {
		return nil, 0, fmt.Errorf("reading a series: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var b, n int64
		var c Counts
		if err := rows.Scan(&b, &c.Requests, &c.Hits, &c.HitBytes, &c.MissBytes, &c.FetchedBytes, &n); err != nil {
			return nil, 0, err
		}
		p := at(b)
		p.Counts, p.Gap = c, false
	}
	if err := rows.Err(); err != nil {
		return nil, 0, err
	}
	if len(f.Nodes) > 0 {
		if err := s.present(ctx, f, first, last, at); err != nil {
			return nil, 0, err
		}
	}
	var out []Point
	for b := first; b < last; b += g {
		out = append(out, *at(b))
	}
	return out, grain, nil
}

// present marks the points in which nodes reported, even if only that nothing
// happened. That is known by quarters of an hour.
func (s *Service) present(ctx context.Context, f Filter, first, last int64, at func(int64) *Point) error {
	where, args := f.where([]any{first - quarter, last})
	rows, err := s.o.DB.QueryContext(ctx, `SELECT DISTINCT bucket FROM usage_minutes WHERE bucket >= $1 AND bucket < $2`+where, args...)
	if err != nil {
		return fmt.Errorf("reading when nodes reported: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var b int64
		if err := rows.Scan(&b); err != nil {
			return err
		}
		for t := max(b, first); t < min(b+quarter, last); t += minute {
			at(t).Gap = false
		}
	}
	return rows.Err()
}

// where adds a filter to a query that has these arguments so far.
func (f Filter) where(args []any) (string, []any) {
	column, list := "node_id", f.Nodes
	if len(list) == 0 {
		column, list = "customer", f.Customers
	}
	if len(list) == 0 {
		return "", args
	}
	where := ` AND ` + column + ` IN (` + params(len(args)+1, len(list)) + `)`
	for _, v := range list {
		args = append(args, strings.ToLower(v))
	}
	return where, args
}

// Named are the counts of a content type, a node, or an origin.
type Named struct {
	Name string `json:"name"`
	Counts
}

// ByContentType sums up by content type, the largest first.
func (s *Service) ByContentType(ctx context.Context, f Filter, from, to, now time.Time) ([]Named, error) {
	return s.by(ctx, "kind", f, from, to, now, 1000)
}

// ByNode sums up by node (GUID), the most of them, the largest first.
func (s *Service) ByNode(ctx context.Context, f Filter, from, to, now time.Time, most int) ([]Named, error) {
	return s.by(ctx, "node_id", f, from, to, now, most)
}

func (s *Service) by(ctx context.Context, column string, f Filter, from, to, now time.Time, most int) ([]Named, error) {
	// Whole spans: the coarsest that a day or two can be told by.
	span := int64(quarter)
	switch d := to.Sub(from); {
	case now.Sub(from) > s.o.Quarters || d >= 60*day*time.Second:
		span = day
	case d <= 2*time.Hour && now.Sub(from) <= s.o.Minutes:
		span = minute
	}
	where, args := f.where([]any{span, from.Unix() - from.Unix()%span, to.Unix()})
	args = append(args, most)
	rows, err := s.o.DB.QueryContext(ctx, `SELECT `+column+`, sum(requests), sum(hits), sum(hit), sum(miss), sum(fetched) FROM usage
		WHERE span = $1 AND bucket >= $2 AND bucket < $3`+where+` GROUP BY `+column+` ORDER BY sum(hit) + sum(miss) DESC, `+column+` LIMIT $`+fmt.Sprint(len(args)), args...)
	if err != nil {
		return nil, fmt.Errorf("summing up by %s: %w", column, err)
	}
	defer rows.Close()
	list := []Named{}
	for rows.Next() {
		var n Named
		if err := rows.Scan(&n.Name, &n.Requests, &n.Hits, &n.HitBytes, &n.MissBytes, &n.FetchedBytes); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, rows.Err()
}

// Ended says how often requests ended in one way.
type Ended struct {
	ContentType string `json:"contentType"`
	Outcome     string `json:"outcome"` // hit, miss, refused, …
	Status      string `json:"status"`  // 2xx, …
	Requests    int64  `json:"requests"`
}

// Outcomes says how requests ended, by content type, the most frequent first.
// It is known by quarters of an hour.
func (s *Service) Outcomes(ctx context.Context, f Filter, from, to time.Time) ([]Ended, error) {
	where, args := f.where([]any{from.Unix() - from.Unix()%quarter, to.Unix()})
	rows, err := s.o.DB.QueryContext(ctx, `SELECT kind, outcome, status, sum(requests) FROM outcomes WHERE bucket >= $1 AND bucket < $2`+where+`
		GROUP BY kind, outcome, status ORDER BY sum(requests) DESC, kind, outcome, status LIMIT 1000`, args...)
	if err != nil {
		return nil, fmt.Errorf("reading outcomes: %w", err)
	}
	defer rows.Close()
	list := []Ended{}
	for rows.Next() {
		var e Ended
		if err := rows.Scan(&e.ContentType, &e.Outcome, &e.Status, &e.Requests); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, rows.Err()
}

// Origin is how an origin did.
type Origin struct {
	Host     string `json:"host"`
	Nodes    int64  `json:"nodes"` // that asked it
	OK       int64  `json:"ok"`
	Failures int64  `json:"failures"`
}

// Origins says how origins did, those that failed most first.
func (s *Service) Origins(ctx context.Context, f Filter, from, to time.Time) ([]Origin, error) {
	where, args := f.where([]any{from.Unix() - from.Unix()%quarter, to.Unix()})
	rows, err := s.o.DB.QueryContext(ctx, `SELECT host, count(DISTINCT node_id), sum(ok), sum(failures) FROM origins WHERE bucket >= $1 AND bucket < $2`+where+`
		GROUP BY host ORDER BY sum(failures) DESC, sum(ok) DESC, host LIMIT 500`, args...)
	if err != nil {
		return nil, fmt.Errorf("reading origins: %w", err)
	}
	defer rows.Close()
	list := []Origin{}
	for rows.Next() {
		var o Origin
		if err := rows.Scan(&o.Host, &o.Nodes, &o.OK, &o.Failures); err != nil {
			return nil, err
		}
		list = append(list, o)
	}
	return list, rows.Err()
}

// Overview are a customer's figures of the last 24 hours. Rates are in Mbit/s.
type Overview struct {
	Counts
	EgressMax   float64   `json:"egressMbpsMax"`
	EgressMaxAt time.Time `json:"egressMbpsMaxDateTime,omitzero"`
	Egress      float64   `json:"averageEgressMbps"`
	MissMax     float64   `json:"missMbpsMax"`
	MissMaxAt   time.Time `json:"missMbpsMaxDateTime,omitzero"`
	Miss        float64   `json:"averageMissMbps"`
	Efficiency  float64   `json:"cacheEfficiency"` // percent of bytes
}

// Overview returns the figures of the 24 hours before now. The highest rates are
// those of a minute.
func (s *Service) Overview(ctx context.Context, f Filter, now time.Time) (Overview, error) {
	points, _, err := s.Series(ctx, f, now.Add(-24*time.Hour), now, time.Minute, now)
	if err != nil {
		return Overview{}, err
	}
	var o Overview
	var seconds float64
	for _, p := range points {
		if p.Gap {
			continue
		}
		seconds += minute
		o.add(p.Counts)
		if r := mbps(p.EgressBytes(), minute); r > o.EgressMax {
			o.EgressMax, o.EgressMaxAt = r, p.At
		}
		if r := mbps(p.MissBytes, minute); r > o.MissMax {
			o.MissMax, o.MissMaxAt = r, p.At
		}
	}
	o.Egress, o.Miss = mbps(o.EgressBytes(), seconds), mbps(o.MissBytes, seconds)
	o.Efficiency = 100 * o.HitRatio()
	return o, nil
}

func mbps(bytes int64, seconds float64) float64 {
	if seconds == 0 {
		return 0
	}
	return float64(bytes) * 8 / seconds / 1e6
}

// Grains are the spans that charts may ask for, as ISO 8601 writes them.
var Grains = map[string]time.Duration{
	"PT1M": time.Minute, "PT5M": 5 * time.Minute, "PT15M": 15 * time.Minute, "PT30M": 30 * time.Minute,
	"PT1H": time.Hour, "PT6H": 6 * time.Hour, "PT12H": 12 * time.Hour, "P1D": 24 * time.Hour,
}

// ParseGrain reads one of Grains.
func ParseGrain(text string) (time.Duration, error) {
	if d, ok := Grains[strings.ToUpper(text)]; ok {
		return d, nil
	}
	names := []string{}
	for n := range Grains {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int { return int(Grains[a] - Grains[b]) })
	return 0, fmt.Errorf("%w: interval: found %q, expected one of %s", ErrInvalid, text, strings.Join(names, ", "))
}

// GrainText writes a span as ISO 8601 does.
func GrainText(d time.Duration) string {
	for n, g := range Grains {
		if g == d {
			return n
		}
	}
	return fmt.Sprintf("PT%dM", int(d.Minutes()))
}

// ParseTimespan reads a span of time as Azure Monitor takes it, two times with a
// slash between; "" is the hour before now.
func ParseTimespan(text string, now time.Time) (from, to time.Time, err error) {
	if text == "" {
		return now.Add(-time.Hour), now, nil
	}
	a, b, ok := strings.Cut(text, "/")
	if ok {
		from, err = parseTime(a)
		if err == nil {
			to, err = parseTime(b)
		}
	}
	if !ok || err != nil || !from.Before(to) {
		return from, to, fmt.Errorf("%w: timespan: found %q, expected two times such as 2026-11-26T08:00:00Z/2026-11-26T09:00:00Z", ErrInvalid, text)
	}
	return from, to, nil
}

// parseTime reads a time, with or without a zone; without it is UTC. A space
// where the + of a zone stood is what an unescaped query made of it.
func parseTime(text string) (time.Time, error) {
	text = strings.ReplaceAll(strings.TrimSpace(text), " ", "+")
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(form, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("not a time: %q", text)
}
