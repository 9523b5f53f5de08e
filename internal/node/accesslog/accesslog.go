// Package accesslog writes one line of JSON per request, without making the
// request wait and without the secrets of its query.
package accesslog

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxPending bounds what waits for the writer, in bytes: some ten thousand
	// lines. What comes when it is full is dropped and counted.
	maxPending = 4 << 20

	// linger is how long a line may wait for others, so that a busy node does
	// not wake the writer for each; enough bytes to write go at once.
	linger = 200 * time.Millisecond
	enough = 256 << 10
)

// Options say where the log lies.
type Options struct {
	Path    string // of the file; its directory is made if need be
	MaxSize int64  // bytes after which the file is put aside as Path.1; 0: never
	Keep    int    // how many files put aside are kept, Path.1 the newest

	Log        *slog.Logger          // for trouble with the file; nil: discarded
	Registerer prometheus.Registerer // nil: a private registry
}

// Log is an access log. A nil *Log drops everything, so that a node without
// one needs no second way.
type Log struct {
	log     *slog.Logger
	metrics *metrics
	file    rotating // the writer's alone

	wake  chan struct{}       // of capacity 1: there is something to write
	hurry chan struct{}       // of capacity 1: and it should be written now
	calls chan func()         // run by the writer, between writes
	stop  chan struct{}       // closed by Close
	done  chan struct{}       // closed when the writer ended
	lines sync.Pool           // of *line
	once  sync.Once           // Close
	state func(failing error) // logs changes; the writer's alone
	stuck func(failing error) // the same for putting files aside

	mu      sync.Mutex
	pending []byte // whole lines; guarded by mu
	spare   []byte // what pending was before the last write; guarded by mu
	count   int    // lines in pending; guarded by mu
	closed  bool   // guarded by mu
}

// line is what one Write needs, kept between calls.
type line struct {
	json   []byte
	redact []byte
}

type metrics struct {
	dropped *prometheus.CounterVec
	written prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	m := &metrics{
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_accesslog_dropped_records_total",
			Help: "Records that are not in the access log, by why: the buffer was full, or the file could not be written.",
		}, []string{"reason"}),
		written: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_accesslog_written_bytes_total",
			Help: "Bytes written to the access log.",
		}),
	}
	m.dropped.WithLabelValues("buffer")
	m.dropped.WithLabelValues("file")
	r.MustRegister(m.dropped, m.written)
	return m
}

// Open opens the log for appending and starts its writer, which Close ends.
func Open(o Options) (*Log, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o750); err != nil {
		return nil, fmt.Errorf("opening the access log: %w", err)
	}
	l := &Log{
		log:   o.Log,
		file:  rotating{path: o.Path, maxSize: o.MaxSize, keep: o.Keep},
		wake:  make(chan struct{}, 1),
		hurry: make(chan struct{}, 1),
		calls: make(chan func()),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	l.lines.New = func() any { return &line{json: make([]byte, 0, 1024), redact: make([]byte, 0, 256)} }
	if err := l.file.open(); err != nil {
		return nil, fmt.Errorf("opening the access log: %w", err)
	}
	l.metrics = newMetrics(o.Registerer)
	l.state = l.changes("the access log cannot be written, records are dropped", "the access log is written again")
	l.stuck = l.changes("the access log cannot be put aside and grows beyond its size", "the access log is put aside again")
	go l.run()
	return l, nil
}

// Write hands a record to the writer. It never waits for the disk and keeps
// nothing of r, whose strings may be gone after it returns.
func (l *Log) Write(r *Record) {
	if l == nil {
		return
	}
	n := l.lines.Get().(*line)
	n.json = n.appendRecord(n.json[:0], r)
	l.mu.Lock()
	if l.closed || len(l.pending)+len(n.json) > maxPending {
		l.mu.Unlock()
		l.metrics.dropped.WithLabelValues("buffer").Inc()
	} else {
		first := len(l.pending) == 0
		full := len(l.pending) < enough && len(l.pending)+len(n.json) >= enough
		l.pending = append(l.pending, n.json...)
		l.count++
		l.mu.Unlock()
		if first {
			signal(l.wake)
		}
		if full {
			signal(l.hurry)
		}
	}
	if cap(n.json) <= 64<<10 { // an odd giant need not be kept
		l.lines.Put(n)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Flush returns when every record written before it was called is in the file,
// or says why one is not.
func (l *Log) Flush() error {
	return l.call(l.write)
}

// Reopen closes the file and opens its path again: for SIGHUP, after logrotate
// renamed it. When that fails the old file stays in use.
func (l *Log) Reopen() error {
	return l.call(func() error {
		writing := l.write() // what came before belongs into the old file
		if err := l.file.reopen(); err != nil {
			return fmt.Errorf("reopening the access log: %w", err)
		}
		return writing
	})
}

// Close writes what is pending and closes the file. Records that come later
// are dropped.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	var err error
	l.once.Do(func() {
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		close(l.stop)
		<-l.done
		err = errors.Join(l.write(), l.file.close())
	})
	return err
}

// call runs f in the writer. A log that is closed has nothing to do.
func (l *Log) call(f func() error) error {
	if l == nil {
		return nil
	}
	result := make(chan error, 1)
	select {
	case l.calls <- func() { result <- f() }:
		return <-result
	case <-l.done:
		return nil
	}
}

// run is the writer.
func (l *Log) run() {
	defer close(l.done)
	timer := time.NewTimer(linger)
	timer.Stop()
	for {
		select {
		case <-l.wake:
			timer.Reset(linger)
		case <-timer.C:
			_ = l.write() // state has logged it
		case <-l.hurry:
			_ = l.write()
		case f := <-l.calls:
			f()
		case <-l.stop:
			return
		}
	}
}

// write moves what is pending into the file. Only the writer calls it, and
// Close once the writer ended.
func (l *Log) write() error {
	l.mu.Lock()
	batch, count := l.pending, l.count
	l.pending, l.spare, l.count = l.spare[:0], nil, 0
	l.mu.Unlock()

	var err error
	if len(batch) > 0 {
		var lost int
		var written int64
		written, lost, err = l.file.write(batch, count)
		l.metrics.written.Add(float64(written))
		l.metrics.dropped.WithLabelValues("file").Add(float64(lost))
		l.state(err)
		l.stuck(l.file.stuck)
	}
	if cap(batch) <= 4*enough { // the memory of a rare burst is given back
		l.mu.Lock()
		l.spare = batch[:0]
		l.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("writing the access log: %w", err)
	}
	return nil
}

// changes returns a function that logs when something begins to fail and when
// it works again, not every failure: a full disk has one every moment.
func (l *Log) changes(fails, works string) func(error) {
	failing := false
	return func(err error) {
		switch {
		case err != nil && !failing:
			l.log.Error(fails, "path", l.file.path, "err", err)
		case err == nil && failing:
			l.log.Info(works, "path", l.file.path)
		}
		failing = err != nil
	}
}
