package origin

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests  *prometheus.CounterVec // by outcome
	redirects prometheus.Counter
	received  *prometheus.CounterVec // by scheme
	broken    prometheus.Counter
	open      prometheus.Gauge
	opened    prometheus.Counter
	head      prometheus.Histogram
	limited   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, b *bucket) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_origin_requests_total",
			Help: "Requests to origins, by status class of the answer or by kind of failure.",
		}, []string{"outcome"}),
		redirects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_origin_redirects_total",
			Help: "Redirects of origins that were followed.",
		}),
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_origin_received_bytes_total",
			Help: "Body bytes received from origins, by scheme.",
		}, []string{"scheme"}),
		broken: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_origin_broken_bodies_total",
			Help: "Answers of origins that ended before they were whole, callers who left not counted.",
		}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "larder_origin_open_connections",
			Help: "Connections to origins that are open, idle ones included.",
		}),
		opened: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_origin_opened_connections_total",
			Help: "Connections to origins that were opened.",
		}),
		head: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "larder_origin_head_seconds",
			Help:    "Time from sending a request to the head of its answer, connecting included.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		limited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_origin_limit_wait_seconds_total",
			Help: "Time that transfers waited for the bandwidth limit, all added up.",
		}),
	}
	// All series exist from the start, so that the first failure is seen as
	// an increase.
	for _, k := range kinds {
		m.requests.WithLabelValues(k)
	}
	for class := 2; class <= 5; class++ {
		m.requests.WithLabelValues(strconv.Itoa(class) + "xx")
	}
	m.received.WithLabelValues("http")
	m.received.WithLabelValues("https")
	reg.MustRegister(m.requests, m.redirects, m.received, m.broken, m.open, m.opened, m.head, m.limited,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "larder_origin_limit_bytes_per_second",
			Help: "The bandwidth limit in force now; 0 is none.",
		}, func() float64 { return float64(b.rate()) }))
	return m
}
