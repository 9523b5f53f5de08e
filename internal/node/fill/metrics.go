package fill

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	fetched   prometheus.Counter
	fetches   *prometheus.CounterVec
	overtaken prometheus.Counter
	changed   prometheus.Counter
	unstored  prometheus.Counter
	runs      prometheus.Gauge
	coalesced prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	m := &metrics{
		fetched: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_fill_fetched_bytes_total",
			Help: "Body bytes brought in from upstream for objects that are kept.",
		}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_fill_fetches_total",
			Help: "Upstream requests of the filler, by how they ended.",
		}, []string{"outcome"}),
		overtaken: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_fill_overtaken_total",
			Help: "Fetches that made no progress and were overtaken by another.",
		}),
		changed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_fill_changed_total",
			Help: "Objects that changed upstream while they were being filled.",
		}),
		unstored: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_fill_unstored_chunks_total",
			Help: "Chunks that were delivered but could not be stored.",
		}),
		runs: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "larder_fill_active_runs",
			Help: "Upstream fetches under way.",
		}),
		coalesced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_fill_coalesced_total",
			Help: "Requests that shared the first answer to another.",
		}),
	}
	r.MustRegister(m.fetched, m.fetches, m.overtaken, m.changed, m.unstored, m.runs, m.coalesced)
	return m
}
