package telemetry

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"
)

// Azure Monitor's shapes (the names are of facts, connected-cache 3.3).

// MetricsResponse answers …/providers/microsoft.insights/metrics.
type MetricsResponse struct {
	Cost           int      `json:"cost"`
	Timespan       string   `json:"timespan"`
	Interval       string   `json:"interval"`
	Value          []Metric `json:"value"`
	Namespace      string   `json:"namespace"`
	ResourceRegion string   `json:"resourceregion"`
}

// Metric is one metric's series.
type Metric struct {
	ID          string       `json:"id"`
	Type        string       `json:"type"`
	Name        Localizable  `json:"name"`
	Description string       `json:"displayDescription"`
	Unit        string       `json:"unit"`
	Timeseries  []Timeseries `json:"timeseries"`
	ErrorCode   string       `json:"errorCode"`
}

// Localizable is a name and what people read.
type Localizable struct {
	Value          string `json:"value"`
	LocalizedValue string `json:"localizedValue"`
}

// Timeseries is a series of one node, or of all together.
type Timeseries struct {
	Metadata []Metadata `json:"metadatavalues"`
	Data     []Datum    `json:"data"`
}

// Metadata says which value of a dimension a series is of.
type Metadata struct {
	Name  Localizable `json:"name"`
	Value string      `json:"value"`
}

// Datum is one span. What is not known is left out, so that charts show a gap.
type Datum struct {
	TimeStamp time.Time `json:"timeStamp"`
	Average   *float64  `json:"average,omitempty"`
	Minimum   *float64  `json:"minimum,omitempty"`
	Maximum   *float64  `json:"maximum,omitempty"`
	Total     *float64  `json:"total,omitempty"`
	Count     *float64  `json:"count,omitempty"`
}

// Definitions answers …/metricDefinitions.
type Definitions struct {
	Value []Definition `json:"value"`
}

// Definition describes a metric.
type Definition struct {
	ID                        string         `json:"id"`
	ResourceID                string         `json:"resourceId"`
	Namespace                 string         `json:"namespace"`
	Name                      Localizable    `json:"name"`
	Description               string         `json:"displayDescription"`
	Unit                      string         `json:"unit"`
	PrimaryAggregationType    string         `json:"primaryAggregationType"`
	SupportedAggregationTypes []string       `json:"supportedAggregationTypes"`
	Dimensions                []Localizable  `json:"dimensions"`
	MetricAvailabilities      []Availability `json:"metricAvailabilities"`
	IsDimensionRequired       bool           `json:"isDimensionRequired"`
}

// Availability says how long a grain is kept.
type Availability struct {
	TimeGrain string `json:"timeGrain"`
	Retention string `json:"retention"`
}

// metric is how one is made of counts.
type metric struct {
	name, title, about, unit, primary string
	rate                              func(c Counts, seconds float64) float64
	total                             func(c Counts) float64 // nil: there is no sense in a sum
}

func bps(bytes func(c Counts) int64) func(c Counts, seconds float64) float64 {
	return func(c Counts, seconds float64) float64 { return float64(bytes(c)) * 8 / seconds }
}

func count(n func(c Counts) int64) func(c Counts, _ float64) float64 {
	return func(c Counts, _ float64) float64 { return float64(n(c)) }
}

var metrics = []metric{
	{"egressbps", "Egress", "What clients got", "BitsPerSecond", "Average", bps(Counts.EgressBytes), nil},
	{"hitRatio", "Hit ratio", "The share of what clients got that did not have to be fetched", "Percent", "Average", func(c Counts, _ float64) float64 { return 100 * c.HitRatio() }, nil},
	{"hits", "Hits", "Requests answered from the cache", "Count", "Total", count(func(c Counts) int64 { return c.Hits }), func(c Counts) float64 { return float64(c.Hits) }},
	{"hitsbps", "Hit throughput", "What clients got from the cache", "BitsPerSecond", "Average", bps(func(c Counts) int64 { return c.HitBytes }), nil},
	{"inboundbps", "Inbound", "What came from upstream", "BitsPerSecond", "Average", bps(func(c Counts) int64 { return c.FetchedBytes }), nil},
	{"misses", "Misses", "Requests that had to be fetched for", "Count", "Total", count(func(c Counts) int64 { return c.Requests - c.Hits }), func(c Counts) float64 { return float64(c.Requests - c.Hits) }},
	{"missesbps", "Miss throughput", "What clients got that had to be fetched", "BitsPerSecond", "Average", bps(func(c Counts) int64 { return c.MissBytes }), nil},
	{"outboundbps", "Outbound", "What left the nodes", "BitsPerSecond", "Average", bps(Counts.EgressBytes), nil},
}

const namespace = "microsoft.connectedcache/enterprisemcccustomers"

// dimension is how series are told apart.
var dimension = Localizable{"cachenodeid", "Cache node ID"}

// MetricsQuery is what a dashboard asks.
type MetricsQuery struct {
	Resource     string   // ARM id, for the answer
	Region       string   // likewise
	Names        []string // none: egressbps
	From, To     time.Time
	Interval     time.Duration // 0: one span from From to To
	Aggregations []string      // average, minimum, maximum, total, count; none: the metric's own
	Filter       Filter
	Split        bool     // a series for each of Nodes, instead of one for Filter
	Nodes        []string // GUIDs
	Now          time.Time
}

// Metrics answers a dashboard. Errors: ErrInvalid.
func (s *Service) Metrics(ctx context.Context, q MetricsQuery) (*MetricsResponse, error) {
	if len(q.Names) == 0 {
		q.Names = []string{metrics[0].name}
	}
	var wanted []metric
	for _, name := range q.Names {
		i := slices.IndexFunc(metrics, func(m metric) bool { return strings.EqualFold(m.name, strings.TrimSpace(name)) })
		if i < 0 {
			return nil, fmt.Errorf("%w: metricnames: found %q, expected some of %s", ErrInvalid, name, metricNames())
		}
		wanted = append(wanted, metrics[i])
	}
	for _, a := range q.Aggregations {
		if !slices.Contains(aggregations, strings.ToLower(strings.TrimSpace(a))) {
			return nil, fmt.Errorf("%w: aggregation: found %q, expected some of %s", ErrInvalid, a, strings.Join(aggregations, ", "))
		}
	}
	filters := []Filter{q.Filter}
	if q.Split {
		filters = nil
		for _, node := range q.Nodes {
			filters = append(filters, Filter{Nodes: []string{node}})
		}
	}
	var all []chart
	for _, f := range filters {
		c, err := s.chart(ctx, f, &q)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	out := &MetricsResponse{
		Timespan: q.From.UTC().Format(time.RFC3339) + "/" + q.To.UTC().Format(time.RFC3339), Interval: q.intervalText(all),
		Namespace: namespace, ResourceRegion: q.Region, Value: []Metric{},
	}
	for _, m := range wanted {
		v := Metric{
			ID: q.Resource + "/providers/Microsoft.Insights/metrics/" + m.name, Type: "Microsoft.Insights/metrics",
			Name: Localizable{m.name, m.title}, Description: m.about, Unit: m.unit, Timeseries: []Timeseries{}, ErrorCode: "Success",
		}
		as := q.Aggregations
		if len(as) == 0 {
			as = []string{m.primary}
		}
		for i, x := range all {
			t := Timeseries{Metadata: []Metadata{}, Data: make([]Datum, 0, len(x.points))}
			if q.Split {
				t.Metadata = append(t.Metadata, Metadata{dimension, q.Nodes[i]})
			}
			for _, p := range x.points {
				t.Data = append(t.Data, m.datum(p, x.span(p.At), x.grain, as))
			}
			v.Timeseries = append(v.Timeseries, t)
		}
		out.Value = append(out.Value, v)
	}
	return out, nil
}

var aggregations = []string{"average", "minimum", "maximum", "total", "count"}

// chart is a series, with the finer one that its extremes are of.
type chart struct {
	points []Point
	grain  time.Duration
	fine   []Point
}

func (s *Service) chart(ctx context.Context, f Filter, q *MetricsQuery) (c chart, err error) {
	if q.Interval > 0 {
		if c.points, c.grain, err = s.Series(ctx, f, q.From, q.To, q.Interval, q.Now); err != nil {
			return c, err
		}
		c.fine = c.points
		if !slices.ContainsFunc(q.Aggregations, func(a string) bool {
			a = strings.ToLower(strings.TrimSpace(a))
			return a == "minimum" || a == "maximum"
		}) {
			return c, nil
		}
	}
	finest := time.Duration(s.stored(time.Minute, q.From, q.Now)) * time.Second
	if q.Interval == 0 || finest < c.grain {
		if c.fine, _, err = s.series(ctx, f, q.From, q.To, finest, q.Now); err != nil {
			return c, err
		}
	}
	if q.Interval == 0 {
		whole := Point{At: q.From.UTC(), Gap: true}
		for _, p := range c.fine {
			if !p.Gap {
				whole.Gap = false
				whole.add(p.Counts)
			}
		}
		c.points, c.grain = []Point{whole}, q.To.Sub(q.From)
	}
	return c, nil
}

// span are the fine points of the point that begins at a time.
func (c *chart) span(from time.Time) []Point {
	if len(c.points) == 1 {
		return c.fine
	}
	i := sort.Search(len(c.fine), func(i int) bool { return !c.fine[i].At.Before(from) })
	j := sort.Search(len(c.fine), func(i int) bool { return !c.fine[i].At.Before(from.Add(c.grain)) })
	return c.fine[i:j]
}

func (q *MetricsQuery) intervalText(all []chart) string {
	switch {
	case q.Interval == 0:
		return "FULL"
	case len(all) == 0:
		return GrainText(q.Interval)
	}
	return GrainText(all[0].grain)
}

// rateOf is the metric's figure of a span: for counts that of a minute of it.
func (m metric) rateOf(p Point, grain time.Duration) float64 {
	v := m.rate(p.Counts, grain.Seconds())
	if m.total != nil {
		v /= grain.Minutes()
	}
	return v
}

// datum is a point in the aggregations asked for. Its minimum and maximum are
// those of fine, the finest spans in it that are known.
func (m metric) datum(p Point, fine []Point, grain time.Duration, as []string) Datum {
	d := Datum{TimeStamp: p.At}
	if p.Gap {
		return d
	}
	minutes := grain.Minutes()
	v := m.rateOf(p, grain)
	low, high := v, v
	if len(fine) > 1 {
		low, high = math.Inf(1), math.Inf(-1)
		each := fine[1].At.Sub(fine[0].At)
		for _, f := range fine {
			if !f.Gap {
				x := m.rateOf(f, each)
				low, high = min(low, x), max(high, x)
			}
		}
	}
	for _, a := range as {
		switch strings.ToLower(strings.TrimSpace(a)) {
		case "average":
			d.Average = &v
		case "minimum":
			d.Minimum = &low
		case "maximum":
			d.Maximum = &high
		case "total":
			t := v * minutes
			if m.total != nil {
				t = m.total(p.Counts)
			}
			d.Total = &t
		case "count":
			d.Count = &minutes
		}
	}
	return d
}

func metricNames() string {
	var names []string
	for _, m := range metrics {
		names = append(names, m.name)
	}
	return strings.Join(names, ", ")
}

// MetricDefinitions describes the metrics of a resource.
func (s *Service) MetricDefinitions(resource string) Definitions {
	out := Definitions{}
	iso := func(d time.Duration) string { return fmt.Sprintf("P%dD", int(d.Hours()/24)) }
	keep := []Availability{{"PT1M", iso(s.o.Minutes)}, {"PT5M", iso(s.o.Minutes)}, {"PT15M", iso(s.o.Quarters)}, {"PT30M", iso(s.o.Quarters)},
		{"PT1H", iso(s.o.Quarters)}, {"PT6H", iso(s.o.Quarters)}, {"PT12H", iso(s.o.Quarters)}, {"P1D", iso(s.o.Days)}}
	for _, m := range metrics {
		out.Value = append(out.Value, Definition{
			ID: resource + "/providers/microsoft.insights/metricdefinitions/" + m.name, ResourceID: resource, Namespace: namespace,
			Name: Localizable{m.name, m.title}, Description: m.about, Unit: m.unit, PrimaryAggregationType: m.primary,
			SupportedAggregationTypes: []string{"Average", "Minimum", "Maximum", "Total", "Count"},
			Dimensions:                []Localizable{dimension}, MetricAvailabilities: keep,
		})
	}
	return out
}
