package store

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the store tells about itself. The label drive is the number
// of the drive in the configuration, from 0.
type metrics struct {
	reg prometheus.Registerer
	all []prometheus.Collector

	mu     sync.Mutex
	drives map[*slot][]prometheus.Collector // guarded by mu

	evictedObjects, evictedBytes      prometheus.Counter
	readErrors, putErrors             prometheus.Counter
	checksumFailures                  prometheus.CounterFunc
	rotten                            atomic.Int64 // chunks; checksumFailures shows it
	droppedRows, orphans, indexResets prometheus.Counter
	driveFailures, scrubbedBytes      prometheus.Counter
	batchSeconds                      prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	m := &metrics{reg: reg, drives: map[*slot][]prometheus.Collector{}}
	counter := func(o prometheus.CounterOpts) prometheus.Counter {
		c := prometheus.NewCounter(o)
		m.all = append(m.all, c)
		return c
	}
	m.evictedObjects = counter(prometheus.CounterOpts{Name: "larder_store_evicted_objects_total",
		Help: "Objects evicted to make room."})
	m.evictedBytes = counter(prometheus.CounterOpts{Name: "larder_store_evicted_bytes_total",
		Help: "Bytes on disk freed by evicting."})
	m.checksumFailures = prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "larder_store_checksum_failures_total",
		Help: "Chunks found different from what was written; they are fetched again."}, func() float64 { return float64(m.rotten.Load()) })
	m.all = append(m.all, m.checksumFailures)
	m.readErrors = counter(prometheus.CounterOpts{Name: "larder_store_read_errors_total",
		Help: "Reads of chunks that the drive refused."})
	m.putErrors = counter(prometheus.CounterOpts{Name: "larder_store_put_errors_total",
		Help: "Chunks that could not be stored, for whatever reason."})
	m.droppedRows = counter(prometheus.CounterOpts{Name: "larder_store_dropped_objects_total",
		Help: "Objects dropped because the index or the file of one made no sense."})
	m.orphans = counter(prometheus.CounterOpts{Name: "larder_store_orphans_removed_total",
		Help: "Files removed that no object belonged to."})
	m.indexResets = counter(prometheus.CounterOpts{Name: "larder_store_index_resets_total",
		Help: "Damaged indexes moved aside; their drives began empty."})
	m.driveFailures = counter(prometheus.CounterOpts{Name: "larder_store_drive_failures_total",
		Help: "Times a drive was taken out of use."})
	m.scrubbedBytes = counter(prometheus.CounterOpts{Name: "larder_store_scrubbed_bytes_total",
		Help: "Bytes read back to see whether they are right."})
	m.batchSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "larder_store_batch_duration_seconds",
		Help:    "Time to write one batch of changes to an index.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
	})
	m.all = append(m.all, m.batchSeconds)
	return m, m.register()
}

func (m *metrics) register() error {
	for i, c := range m.all {
		if err := m.reg.Register(c); err != nil {
			for _, c := range m.all[:i] {
				m.reg.Unregister(c)
			}
			m.all = nil
			return err
		}
	}
	return nil
}

// watch adds the gauges of a drive.
func (m *metrics) watch(sl *slot) error {
	labels := prometheus.Labels{"drive": strconv.Itoa(sl.number)}
	var err error
	gauge := func(o prometheus.GaugeOpts, value func(DriveStatus) float64) {
		o.ConstLabels = labels
		c := prometheus.NewGaugeFunc(o, func() float64 { return value(sl.status()) })
		if e := m.reg.Register(c); e != nil {
			err = errors.Join(err, e)
			return
		}
		m.mu.Lock()
		m.drives[sl] = append(m.drives[sl], c)
		m.mu.Unlock()
	}
	gauge(prometheus.GaugeOpts{Name: "larder_store_objects",
		Help: "Objects on the drive."}, func(d DriveStatus) float64 { return float64(d.Objects) })
	gauge(prometheus.GaugeOpts{Name: "larder_store_used_bytes",
		Help: "Bytes on disk the objects take."}, func(d DriveStatus) float64 { return float64(d.Used) })
	gauge(prometheus.GaugeOpts{Name: "larder_store_budget_bytes",
		Help: "Bytes on disk the objects may take."}, func(d DriveStatus) float64 { return float64(d.Budget) })
	gauge(prometheus.GaugeOpts{Name: "larder_store_free_bytes",
		Help: "Bytes free on the drive's file system."}, func(d DriveStatus) float64 { return float64(d.Free) })
	gauge(prometheus.GaugeOpts{Name: "larder_store_usable_drives",
		Help: "1 while the drive is used, 0 while it is taken out."}, func(d DriveStatus) float64 {
		if d.State == stateOK {
			return 1
		}
		return 0
	})
	return err
}

// unwatch takes the gauges of a drive away.
func (m *metrics) unwatch(sl *slot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.drives[sl] {
		m.reg.Unregister(c)
	}
	delete(m.drives, sl)
}

// close lets another store register the same names.
func (m *metrics) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, cs := range m.drives {
		for _, c := range cs {
			m.reg.Unregister(c)
		}
	}
	clear(m.drives)
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}
