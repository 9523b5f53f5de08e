package node

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/node/front"
)

// stats counts what the node did, by content type: for /metrics and /summary.
type stats struct {
	requests *prometheus.CounterVec
	sent     *prometheus.CounterVec
	fetched  *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	unstored prometheus.Counter
	cut      prometheus.Counter

	mu    sync.RWMutex
	types map[string]*typeStats // guarded by mu; by content type
}

// typeStats are the counters of one content type.
type typeStats struct {
	hit, missed, fetched atomic.Int64 // bytes
	requests, hits       atomic.Int64

	sentHit, sentMiss, up prometheus.Counter
	outcomes              sync.Map // outcomeKey → *outcome
	firstByte             prometheus.Observer
}

func newStats(r prometheus.Registerer) *stats {
	s := &stats{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_node_requests_total",
			Help: "Requests answered, by content type, what the cache did and the status class.",
		}, []string{"content_type", "outcome", "status"}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_node_sent_bytes_total",
			Help: "Body bytes sent to clients, by content type and whether they had to be fetched for this request (hit or miss).",
		}, []string{"content_type", "source"}),
		fetched: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_node_fetched_bytes_total",
			Help: "Body bytes received from upstream, by content type.",
		}, []string{"content_type"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "larder_node_first_byte_seconds",
			Help:    "From the request to the first byte of the answer, by content type.",
			Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 3, 10},
		}, []string{"content_type"}),
		unstored: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_node_unstored_objects_total",
			Help: "Objects that were delivered without being stored because no drive took them.",
		}),
		cut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_node_cut_answers_total",
			Help: "Answers that broke off after their head was out.",
		}),
		types: map[string]*typeStats{},
	}
	r.MustRegister(s.requests, s.sent, s.fetched, s.seconds, s.unstored, s.cut)
	return s
}

// noType is the content type of requests that no publisher serves.
const noType = "none"

func (s *stats) of(contentType string) *typeStats {
	s.mu.RLock()
	t := s.types[contentType]
	s.mu.RUnlock()
	if t != nil {
		return t
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t = s.types[contentType]; t == nil {
		t = &typeStats{
			sentHit:   s.sent.WithLabelValues(contentType, "hit"),
			sentMiss:  s.sent.WithLabelValues(contentType, "miss"),
			up:        s.fetched.WithLabelValues(contentType),
			firstByte: s.seconds.WithLabelValues(contentType),
		}
		s.types[contentType] = t
	}
	return t
}

// upstream returns what counts bytes received for a content type.
func (s *stats) upstream(contentType string) func(n int) {
	t := s.of(contentType)
	return func(n int) {
		t.fetched.Add(int64(n))
		t.up.Add(float64(n))
	}
}

// answered counts one answer.
func (s *stats) answered(j *job, out front.Outcome) {
	kind := noType
	if j.match != nil {
		kind = j.match.Publisher.ContentType
	}
	t := s.of(kind)
	t.requests.Add(1)
	class := out.Status / 100
	k := outcomeKey{j.how, class}
	c, ok := t.outcomes.Load(k)
	if !ok {
		c, _ = t.outcomes.LoadOrStore(k, &outcome{counter: s.requests.WithLabelValues(kind, string(j.how), strconv.Itoa(class)+"xx")})
	}
	c.(*outcome).n.Add(1)
	c.(*outcome).counter.Inc()
	if out.Err != nil {
		s.cut.Inc()
	}
	if j.match == nil || out.Status >= 400 {
		return
	}
	if j.how != miss && j.how != passed {
		t.hits.Add(1)
	}
	// What was really sent counts; of an answer that broke off the fetched part first.
	missed := min(j.missed, out.Bytes)
	hitBytes := out.Bytes - missed
	t.missed.Add(missed)
	t.hit.Add(hitBytes)
	t.sentMiss.Add(float64(missed))
	t.sentHit.Add(float64(hitBytes))
	t.firstByte.Observe(out.FirstByte.Seconds())
}

// outcome counts requests that ended alike, for reports and for /metrics.
type outcome struct {
	n       atomic.Int64
	counter prometheus.Counter
}

type outcomeKey struct {
	how   how
	class int
}

// Totals are byte and request counts since the node started.
type Totals struct {
	HitBytes      int64   `json:"hitBytes"`
	MissBytes     int64   `json:"missBytes"`
	EgressBytes   int64   `json:"egressBytes"`
	EggressBytes  int64   `json:"eggressBytes"` // the spelling existing scripts read
	HitRatioBytes float64 `json:"hitRatioBytes"`
	FetchedBytes  int64   `json:"fetchedBytes"`
	Requests      int64   `json:"requests"`
	Hits          int64   `json:"hits"`
}

func (t Totals) minus(o Totals) Totals {
	d := Totals{
		HitBytes: t.HitBytes - o.HitBytes, MissBytes: t.MissBytes - o.MissBytes,
		FetchedBytes: t.FetchedBytes - o.FetchedBytes, Requests: t.Requests - o.Requests, Hits: t.Hits - o.Hits,
	}
	return d.derive()
}

func (t Totals) derive() Totals {
	t.EgressBytes = t.HitBytes + t.MissBytes
	t.EggressBytes = t.EgressBytes
	t.HitRatioBytes = 0
	if t.EgressBytes > 0 {
		t.HitRatioBytes = float64(t.HitBytes) / float64(t.EgressBytes)
	}
	return t
}

// snapshot returns the totals of every content type.
func (s *stats) snapshot() map[string]Totals {
	s.mu.RLock()
	defer s.mu.RUnlock()
	m := make(map[string]Totals, len(s.types))
	for name, t := range s.types {
		if name == noType {
			continue
		}
		m[name] = Totals{
			HitBytes: t.hit.Load(), MissBytes: t.missed.Load(), FetchedBytes: t.fetched.Load(),
			Requests: t.requests.Load(), Hits: t.hits.Load(),
		}.derive()
	}
	return m
}

func sum(m map[string]Totals) Totals {
	var t Totals
	for _, x := range m {
		t.HitBytes += x.HitBytes
		t.MissBytes += x.MissBytes
		t.FetchedBytes += x.FetchedBytes
		t.Requests += x.Requests
		t.Hits += x.Hits
	}
	return t.derive()
}

// SummaryPeriod is how long one period of the summary is (docs/protocol.md).
const SummaryPeriod = 15 * time.Second

// Summary is what /summary shows: the last whole period, and all since start.
type Summary struct {
	Totals                           // of the last period
	Period         string            `json:"period"`
	Generated      time.Time         `json:"generated"`
	Lifetime       Totals            `json:"lifetime"`
	LifetimeByType map[string]Totals `json:"lifetimeByContentType"`
	ByType         map[string]Totals `json:"byContentType"`
	Started        time.Time         `json:"started"`
	Version        string            `json:"version"`
}

// periods turns totals into periods.
type periods struct {
	mu         sync.Mutex
	last, prev map[string]Totals // at the ends of the last two periods; guarded by mu
	at         time.Time         // guarded by mu
}

// turn begins the next period.
func (p *periods) turn(now time.Time, m map[string]Totals) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prev, p.last, p.at = p.last, m, now
}

// period returns what happened in the last whole period, by content type.
func (p *periods) period() (map[string]Totals, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := make(map[string]Totals, len(p.last))
	for name, t := range p.last {
		d[name] = t.minus(p.prev[name])
	}
	return d, p.at
}
