package caretaker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/pki/vet"
)

// metrics are read when they are asked for, so that they are never behind.
type metrics struct {
	c *Caretaker

	notAfter, left, level, next, stapled *prometheus.Desc

	renewals, failures, revoked prometheus.Counter
}

func newMetrics(c *Caretaker) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		c:        c,
		notAfter: prometheus.NewDesc("larder_tls_not_after_seconds", "When the certificate in use ends, seconds since 1970; 0 without one.", nil, nil),
		left:     prometheus.NewDesc("larder_tls_life_left_ratio", "Share of its life that the certificate in use has left, 0 to 1; 0 without one.", nil, nil),
		level: prometheus.NewDesc("larder_tls_warning_state",
			"How urgent the end of the certificate in use is: 0 not, 1 notice, 2 warning, 3 urgent, 4 critical, 5 expired.", nil, nil),
		next:     prometheus.NewDesc("larder_tls_next_attempt_timestamp_seconds", "When the certificate will be renewed by itself, seconds since 1970; 0 if it will not.", nil, nil),
		stapled:  prometheus.NewDesc("larder_tls_stapled_info", "1 if an OCSP answer goes with the certificate in use.", nil, nil),
		renewals: counter("larder_tls_renewals_total", "Certificates that were got without hands and put in use."),
		failures: counter("larder_tls_renewal_failures_total", "Attempts to get a certificate without hands that failed."),
		revoked:  counter("larder_tls_revocations_total", "Times the certificate in use was found to be revoked."),
	}
}

// Describe is prometheus.Collector's.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.notAfter, m.left, m.level, m.next, m.stapled, m.renewals.Desc(), m.failures.Desc(), m.revoked.Desc()} {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	var notAfter, left, level, stapled float64
	now := time.Now()
	if m.c.o.Cert.Has() {
		s := m.c.o.Cert.Status()
		notAfter = float64(s.NotAfter.Unix())
		if life := s.NotAfter.Sub(s.NotBefore); life > 0 {
			left = max(0, min(1, s.NotAfter.Sub(now).Seconds()/life.Seconds()))
		}
		level = float64(vet.Left(s.NotBefore, s.NotAfter, now))
		if s.Stapled {
			stapled = 1
		}
	}
	var next float64
	if plan, _, err := m.c.o.Renewer.Plan(now); err == nil && plan.Off == "" {
		next = float64(plan.At.Unix())
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	gauge(m.notAfter, notAfter)
	gauge(m.left, left)
	gauge(m.level, level)
	gauge(m.next, next)
	gauge(m.stapled, stapled)
	ch <- m.renewals
	ch <- m.failures
	ch <- m.revoked
}
