package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The pattern of a Delivery Optimization client: first two bytes to learn the
// size, then pieces of 1 MiB over a few connections.
const (
	pieceSize   = 1 << 20
	userAgent   = "Microsoft-Delivery-Optimization/10.1"
	maxBurst    = 2 << 30
	defaultTime = 8 * time.Second
)

// BurstConfig says what the simulated clients do. Only NodeURL must be set.
type BurstConfig struct {
	NodeURL     string        // where the node listens: "http://127.0.0.1:8080"
	Host        string        // whose files are asked for; default Host
	Clients     int           // machines at once; default 16
	Connections int           // of each client; default 2
	Files       []File        // what every client wants; default all up to 16 MiB
	Timeout     time.Duration // the burst ends after that, whole or not; default 8 s
	MaxBytes    int64         // and never asks for more than that; default and limit 2 GiB
	Seed        uint64        // of the random order; the same seed, the same order
	TLS         *tls.Config   // for an https NodeURL; nil: the system's roots

	// UpstreamBytes returns how many bytes were fetched upstream so far. The
	// difference over the burst is its share. nil: not known.
	UpstreamBytes func() int64
}

// Result is what a burst came to.
type Result struct {
	Clients    int
	Files      int           // different ones
	Requests   int64         // answered with the bytes asked for
	Asked      int64         // bytes the clients got
	Upstream   int64         // bytes fetched from the origin meanwhile; -1 not known
	Wrong      int64         // bytes that were not those of the file; must be 0
	Failures   int64         // requests with another answer than the one due
	Failure    string        // the first of them, in words
	Elapsed    time.Duration // from the first request to the last byte
	Incomplete bool          // time or MaxBytes ran out before everybody had everything
}

// HitRatio returns the share of bytes that did not come from upstream, 0 to 1.
func (r Result) HitRatio() float64 {
	if r.Asked <= 0 || r.Upstream < 0 {
		return 0
	}
	return max(0, 1-float64(r.Upstream)/float64(r.Asked))
}

// Throughput returns what all clients together received, in bytes per second.
func (r Result) Throughput() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Asked) / r.Elapsed.Seconds()
}

// OK reports whether every request was answered as it should be.
func (r Result) OK() bool { return r.Requests > 0 && r.Wrong == 0 && r.Failures == 0 }

// String returns the result as a small table without a newline at the end.
func (r Result) String() string {
	upstream, ratio := "not known", "not known"
	if r.Upstream >= 0 {
		upstream = bytesText(r.Upstream)
		ratio = fmt.Sprintf("%.1f %%", 100*r.HitRatio())
	}
	right := "all right"
	if r.Wrong > 0 {
		right = fmt.Sprintf("%d WRONG BYTES", r.Wrong)
	}
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "  %-22s %s\n", name, value) }
	line("clients", fmt.Sprintf("%d, each wanting %d files", r.Clients, r.Files))
	line("requests", fmt.Sprintf("%d in %.2f s", r.Requests, r.Elapsed.Seconds()))
	line("bytes asked", bytesText(r.Asked))
	line("bytes from upstream", upstream)
	line("hit ratio by bytes", ratio)
	line("throughput", fmt.Sprintf("%s/s", bytesText(int64(r.Throughput()))))
	line("bytes checked", right)
	if r.Failures > 0 {
		line("failed requests", fmt.Sprintf("%d, the first: %s", r.Failures, r.Failure))
	}
	if r.Incomplete {
		line("note", "stopped at its limit of time or traffic")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Burst lets simulated clients fetch files through a node and checks every
// byte. It returns when all have everything, or at the limits of cfg. The
// error is about cfg or ctx; what nodes did wrong is in the result.
func Burst(ctx context.Context, cfg BurstConfig) (Result, error) {
	node, err := url.Parse(cfg.NodeURL)
	if err != nil || node.Host == "" || (node.Scheme != "http" && node.Scheme != "https") {
		return Result{}, fmt.Errorf("node URL %q: expected http://host:port or https://host:port", cfg.NodeURL)
	}
	cfg.fillIn()

	limited, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	b := &burst{cfg: cfg, base: node.Scheme + "://" + node.Host}
	b.budget.Store(cfg.MaxBytes)

	before := b.upstream()
	start := time.Now()
	var wg sync.WaitGroup
	for i := range cfg.Clients {
		wg.Go(func() { b.client(limited, i) })
	}
	wg.Wait()

	r := b.result()
	r.Elapsed = time.Since(start)
	r.Upstream = -1
	if before >= 0 {
		r.Upstream = b.upstream() - before
	}
	if err := ctx.Err(); err != nil {
		return r, fmt.Errorf("burst of clients: %w", context.Cause(ctx))
	}
	return r, nil
}

func (c *BurstConfig) fillIn() {
	if c.Host == "" {
		c.Host = Host
	}
	if c.Clients <= 0 {
		c.Clients = 16
	}
	if c.Connections <= 0 {
		c.Connections = 2
	}
	if c.Files == nil {
		for _, f := range Files() {
			if f.Size <= 16<<20 {
				c.Files = append(c.Files, f)
			}
		}
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTime
	}
	if c.MaxBytes <= 0 || c.MaxBytes > maxBurst {
		c.MaxBytes = maxBurst
	}
}

type burst struct {
	cfg  BurstConfig
	base string // scheme and authority of the node

	budget     atomic.Int64 // bytes that may still be asked for
	requests   atomic.Int64
	asked      atomic.Int64
	wrong      atomic.Int64
	incomplete atomic.Bool

	mu       sync.Mutex
	failures int64  // guarded by mu
	failure  string // guarded by mu
}

func (b *burst) upstream() int64 {
	if b.cfg.UpstreamBytes == nil {
		return -1
	}
	return b.cfg.UpstreamBytes()
}

func (b *burst) result() Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Result{
		Clients: b.cfg.Clients, Files: len(b.cfg.Files),
		Requests: b.requests.Load(), Asked: b.asked.Load(), Wrong: b.wrong.Load(),
		Failures: b.failures, Failure: b.failure, Incomplete: b.incomplete.Load(),
	}
}

// piece is a part of a file, [start, end).
type piece struct {
	file       File
	start, end int64
}

// client is one machine: it takes the files in an order of its own.
func (b *burst) client(ctx context.Context, id int) {
	tr := &http.Transport{
		MaxConnsPerHost:     b.cfg.Connections,
		MaxIdleConnsPerHost: b.cfg.Connections,
		DisableCompression:  true,
		TLSClientConfig:     b.cfg.TLS,
		ReadBufferSize:      64 << 10,
	}
	defer tr.CloseIdleConnections()
	hc := &http.Client{Transport: tr}
	random := rand.New(rand.NewPCG(b.cfg.Seed, uint64(id)))

	for _, i := range random.Perm(len(b.cfg.Files)) {
		f := b.cfg.Files[i]
		if f.Size == 0 {
			continue // there is no range of nothing
		}
		if !b.fetch(ctx, hc, piece{f, 0, min(2, f.Size)}) {
			continue
		}
		var pieces []piece
		for at := int64(0); at < f.Size; at += pieceSize {
			pieces = append(pieces, piece{f, at, min(at+pieceSize, f.Size)})
		}
		random.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })

		var next atomic.Int64
		var wg sync.WaitGroup
		for range b.cfg.Connections {
			wg.Go(func() {
				for {
					n := int(next.Add(1)) - 1
					if n >= len(pieces) {
						return
					}
					b.fetch(ctx, hc, pieces[n])
				}
			})
		}
		wg.Wait()
	}
}

// fetch asks for one piece and checks it. False: it did not come whole.
func (b *burst) fetch(ctx context.Context, hc *http.Client, p piece) bool {
	if ctx.Err() != nil || b.budget.Add(p.start-p.end) < 0 {
		b.incomplete.Store(true)
		return false
	}
	err := b.get(ctx, hc, p)
	switch {
	case err == nil:
		b.requests.Add(1)
		return true
	case ctx.Err() != nil:
		b.incomplete.Store(true) // the burst ended, which is nobody's failure
	default:
		b.mu.Lock()
		if b.failures++; b.failures == 1 {
			b.failure = err.Error()
		}
		b.mu.Unlock()
	}
	return false
}

func (b *burst) get(ctx context.Context, hc *http.Client, p piece) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		b.base+p.file.Path+"?cacheHostOrigin="+url.QueryEscape(b.cfg.Host), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", p.start, p.end-1))
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()

	if resp.StatusCode != http.StatusPartialContent {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 120)) // only to be quoted
		return fmt.Errorf("%s: %s instead of 206: %s", p.file.Path, resp.Status, strings.TrimSpace(string(said)))
	}
	due := fmt.Sprintf("bytes %d-%d/%d", p.start, p.end-1, p.file.Size)
	if got := resp.Header.Get("Content-Range"); got != due {
		return fmt.Errorf("%s: Content-Range %q instead of %q", p.file.Path, got, due)
	}
	return b.check(resp.Body, p)
}

var buffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

// check reads a body and counts it, and the bytes in it that are wrong.
func (b *burst) check(body io.Reader, p piece) error {
	buf := buffers.Get().(*[128 << 10]byte)
	defer buffers.Put(buf)
	content := p.file.Content()
	at := p.start
	for {
		n, err := body.Read(buf[:])
		b.asked.Add(int64(n))
		b.wrong.Add(content.Wrong(buf[:n], at))
		at += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s at byte %d: %w", p.file.Path, at, err)
		}
	}
	if at != p.end {
		return fmt.Errorf("%s: %d bytes instead of %d", p.file.Path, at-p.start, p.end-p.start)
	}
	return nil
}
