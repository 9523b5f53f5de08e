package link

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/fleet"
	"larder/internal/pki/authority"
)

// Node is what a Link needs of the node it speaks for.
type Node interface {
	// Apply makes the node what the document says, or leaves it as it was and
	// says why.
	Apply(ctx context.Context, d *fleet.Desired) error
	// FleetState is how the node is now.
	FleetState() fleet.State
	// Counters are what it did since it was started: counts that only grow.
	Counters() ([]fleet.Traffic, []fleet.Upstream)
}

// Config is what a Link is made of. Dir and Node must be given.
type Config struct {
	Dir        string // see the package's comment
	Node       Node
	System     func() fleet.System
	Log        *slog.Logger
	Registerer prometheus.Registerer
	Keep       time.Duration // how long minutes wait at most; 0: 7 days
	MaxBuffer  int64         // and how many bytes of them; 0: 64 MiB

	// Proxy is the proxy for a host where it cannot be reached directly, at this
	// moment; nil, or nil for a host: none.
	Proxy func(host string) *url.URL

	// What tests set, to have quick minutes, wrong clocks and neighbouring versions.
	Interval time.Duration    // of deliveries; 0: a minute
	Retry    time.Duration    // first pause after a failure; 0: 1 s
	Now      func() time.Time // the machine's clock; nil: time.Now
	Protocol int              // 0: fleet.Protocol
}

// Link is a node's tie to its control plane.
type Link struct {
	cfg      Config
	instance string
	buffer   *buffer
	prompt   chan struct{} // holds one: deliver now
	metrics  *metrics

	changing sync.Mutex // held by change; before mu

	mu        sync.Mutex
	id        *identity      // guarded by mu
	client    *client        // guarded by mu; of id
	prev      counters       // at the last cut; guarded by mu
	cutAt     time.Time      // guarded by mu
	running   int64          // number of the document in use; guarded by mu
	refused   int64          // number of one that was not taken; guarded by mu
	why       string         // guarded by mu
	pending   *fleet.Desired // the one that was not taken; guarded by mu
	pendingAt time.Time      // when it is tried again; guarded by mu
	tries     int            // of pending; guarded by mu
	contact   time.Time      // last answer of the control plane; guarded by mu
	trouble   error          // since then; guarded by mu
	renewFail int            // in a row; guarded by mu
}

// Open reads what the directory holds. Errors: ErrNotEnrolled.
func Open(cfg Config) (*Link, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Keep == 0 {
		cfg.Keep = 7 * 24 * time.Hour
	}
	if cfg.MaxBuffer == 0 {
		cfg.MaxBuffer = 64 << 20
	}
	if cfg.Interval == 0 {
		cfg.Interval = time.Minute
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Protocol == 0 {
		cfg.Protocol = fleet.Protocol
	}
	id, err := readIdentity(cfg.Dir)
	if err != nil {
		return nil, err
	}
	var raw [8]byte
	rand.Read(raw[:])
	l := &Link{cfg: cfg, instance: hex.EncodeToString(raw[:]), prompt: make(chan struct{}, 1), cutAt: cfg.Now(), prev: counters{}}
	if l.buffer, err = openBuffer(cfg.Dir, id.CacheNodeID, cfg.Keep, cfg.MaxBuffer); err != nil {
		return nil, err
	}
	l.metrics = newMetrics(cfg.Registerer, l)
	return l, l.use(id)
}

// use makes id the identity of all calls from now on.
func (l *Link) use(id *identity) error {
	cfg, err := authority.TrustRoots(id.Roots)
	if err != nil {
		return err
	}
	cfg.Time = l.cfg.Now
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id.pair, nil }
	c := newClient(id.URL, cfg, l.cfg.Proxy)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil {
		l.client.close() // calls under way keep their connections
	}
	l.id, l.client = id, c
	return nil
}

// change makes another identity of the present one, writes it down, and only
// then uses it. New certificates and new roots come by calls that know nothing
// of each other: neither may write over what the other has just brought.
func (l *Link) change(to func(now *identity) (*identity, error)) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	now, _ := l.current()
	next, err := to(now)
	if err != nil {
		return err
	}
	if err := next.write(l.cfg.Dir); err != nil {
		return err
	}
	return l.use(next)
}

func (l *Link) current() (*identity, *client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id, l.client
}

// Start has the node apply the document that worked last, before anything is
// asked of the network. One that does not apply any more is said and tried again
// while the node runs by its file.
func (l *Link) Start(ctx context.Context) error {
	id, _ := l.current()
	d, err := readDesired(l.cfg.Dir, id.CacheNodeID)
	if err != nil {
		l.cfg.Log.ErrorContext(ctx, "last document not read: the node runs by its file until the control plane sends one", "err", err)
		return nil
	}
	if d == nil {
		return nil
	}
	l.take(ctx, d)
	return nil
}

// note keeps what came of a document, and has it delivered soon.
func (l *Link) note(running, refused int64, why string) {
	l.mu.Lock()
	if running != 0 {
		l.running, l.pending = running, nil
	}
	l.refused, l.why = refused, why
	l.mu.Unlock()
	l.Deliver()
}

// Deliver has the next delivery made now.
func (l *Link) Deliver() {
	select {
	case l.prompt <- struct{}{}:
	default:
	}
}

// Run keeps the tie until ctx ends, then cuts the last minute.
func (l *Link) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { l.minutes(ctx) })
	wg.Go(func() { l.talk(ctx) })
	wg.Go(func() { l.renew(ctx) })
	<-ctx.Done()
	wg.Wait()
	_, c := l.current()
	c.close()
	return l.cut(l.cfg.Now())
}

// heard notes how a call went, and says in the log when the control plane goes
// and comes back, not at every call.
func (l *Link) heard(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	before := l.trouble
	l.trouble = err
	var r *Refusal
	if err == nil || errors.As(err, &r) {
		l.contact = l.cfg.Now()
	}
	url := l.id.URL
	l.mu.Unlock()
	switch {
	case err != nil && before == nil:
		l.cfg.Log.WarnContext(ctx, "control plane does not help: the node goes on with what it has", "url", url, "err", err)
	case err == nil && before != nil:
		l.cfg.Log.InfoContext(ctx, "control plane is back", "url", url)
	}
}

// Status is what there is to know about the tie.
type Status struct {
	URL         string    `json:"url"`
	CacheNodeID string    `json:"cacheNodeId"`
	Connected   bool      `json:"connected"`
	LastContact time.Time `json:"lastContact,omitzero"`
	Error       string    `json:"error,omitempty"`
	NotAfter    time.Time `json:"identityNotAfter"`
	Waiting     int       `json:"minutesWaiting"`
	Dropped     int64     `json:"minutesDropped,omitempty"`
	Running     int64     `json:"runningDocument"`
	Refused     int64     `json:"refusedDocument,omitempty"`
	Why         string    `json:"why,omitempty"`
}

// Status returns how the tie is now.
func (l *Link) Status() Status {
	waiting, dropped := l.buffer.waiting()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{
		URL: l.id.URL, CacheNodeID: l.id.CacheNodeID, Connected: l.trouble == nil && !l.contact.IsZero(), LastContact: l.contact,
		NotAfter: l.id.leaf().NotAfter, Waiting: waiting, Dropped: dropped, Running: l.running, Refused: l.refused, Why: l.why,
	}
	if l.trouble != nil {
		s.Error = l.trouble.Error()
	}
	return s
}

// backoff is the pause after so many failures in a row, at least the time the
// control plane asked for: 1 s, twice as long each time, up to two minutes;
// hourly for what a person must mend. It differs by node and try.
func (l *Link) backoff(failures int, err error) time.Duration {
	if final(err) {
		return l.spread(time.Hour, failures)
	}
	pause := min(l.cfg.Retry<<min(failures-1, 10), 2*time.Minute)
	var r *Refusal
	if errors.As(err, &r) {
		pause = max(pause, r.RetryAfter)
	}
	return l.spread(pause, failures)
}

// spread lengthens a pause by up to a fifth that the node and n decide.
func (l *Link) spread(d time.Duration, n int) time.Duration {
	return d + time.Duration(l.share(n)*float64(d/5))
}

// share is a number from 0 to 1 that differs by node and n.
func (l *Link) share(n int) float64 {
	id, _ := l.current()
	h := fnv.New32a()
	fmt.Fprintf(h, "%s %d", id.CacheNodeID, n)
	return float64(h.Sum32()) / (1 << 32)
}

// sleep waits and is false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

type metrics struct {
	minutes  prometheus.Counter
	failures *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, l *Link) *metrics {
	m := &metrics{
		minutes:  prometheus.NewCounter(prometheus.CounterOpts{Name: "larder_link_delivered_minutes_total", Help: "Minutes that the control plane acknowledged."}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "larder_link_failures_total", Help: "Calls to the control plane that failed, by what they were for."}, []string{"call"}),
	}
	if r == nil {
		return m
	}
	r.MustRegister(m.minutes, m.failures,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "larder_link_waiting_minutes", Help: "Minutes that the control plane has not acknowledged."}, func() float64 { n, _ := l.buffer.waiting(); return float64(n) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "larder_link_connected_info", Help: "1 if the last call to the control plane succeeded, else 0."}, func() float64 {
			if l.Status().Connected {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "larder_link_identity_not_after_timestamp_seconds", Help: "When the node's identity ends."}, func() float64 { id, _ := l.current(); return float64(id.leaf().NotAfter.Unix()) }),
	)
	return m
}
