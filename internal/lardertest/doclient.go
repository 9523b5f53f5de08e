package lardertest

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// The numbers of the real client.
const (
	banTime          = 15 * time.Minute
	maxRetryDelay    = 30 * time.Second
	progressCheck    = 10 * time.Second
	progressPatience = 30 // checks without a byte
	cacheConnectTime = 3 * time.Second
	cdnConnectTime   = 15 * time.Second
	lowSpeedTime     = 20 * time.Second
	lowSpeedBytes    = 4000 // per second
	maxRedirects     = 10
	liteUserAgent    = "Microsoft-Delivery-Optimization-Lite/10.0.0.1"
)

// ErrorCode is the HRESULT that a client reports.
type ErrorCode uint32

// The codes that the model gives besides those of curlCode and statusCode.
const (
	NoError             ErrorCode = 0
	ErrInvalidURL       ErrorCode = 0x800C0002
	ErrNotSet           ErrorCode = 0x80070490 // a header that must be there is not
	ErrUnhandled        ErrorCode = 0x8007023E // a header that cannot be read
	ErrTimeout          ErrorCode = 0x80072EE2
	ErrNameNotResolved  ErrorCode = 0x80072EE7
	ErrCannotConnect    ErrorCode = 0x80072EFD
	ErrNoProgress       ErrorCode = 0x80D02002
	ErrUntrusted        ErrorCode = 0xC0D0003C // curl 60
	ErrShortBody        ErrorCode = 0xC0D00012 // curl 18
	ErrStatusUnexpected ErrorCode = 0x80190001
	ErrStatusForbidden  ErrorCode = 0x80190193
	ErrStatusNotFound   ErrorCode = 0x80190194
	ErrStatusServer     ErrorCode = 0x801901F4
	ErrStatusGateway    ErrorCode = 0x801901F6
)

// String writes the code as the client's log does.
func (e ErrorCode) String() string { return fmt.Sprintf("0x%08X", uint32(e)) }

// Fallback is the client's policy of leaving the cache for the CDN
// (DODelayCacheServerFallback…). The zero value: no policy is set.
type Fallback struct {
	set   bool
	never bool
	after time.Duration
}

// FallbackAfter is the policy of d from the start of a download.
func FallbackAfter(d time.Duration) Fallback { return Fallback{set: true, after: d} }

// FallbackNever is the policy -1.
func FallbackNever() Fallback { return Fallback{set: true, never: true} }

// DOClient is a model of the open-source Delivery Optimization agent for
// Linux (microsoft/do-client at 8362e36), which takes one cache host and is
// the pickiest client a node meets: header names in their usual letter case,
// 206 to every range, no HTTP/2. It holds what the agent holds: bans and
// connections. Set the fields before the first download; downloads may run
// side by side.
//
// With Wait set its time is virtual and the same on every machine: pauses and
// the client's own time-outs take as long as the real client would need, and
// everything else takes none. Without, time is real, times Hurry.
type DOClient struct {
	CacheHost string         // DOCacheHost: host or host:port; "" none
	Fallback  Fallback       // of the policy
	Roots     *x509.CertPool // trusted for https; nil: the system's

	// Connect says where names lead: "host:port" to a real address, or to ""
	// for a name that does not resolve. Others are resolved by the system.
	Connect map[string]string

	// Wait makes the pauses between tries. Tests pass a function that returns
	// at once. nil: a timer.
	Wait func(ctx context.Context, d time.Duration) error

	// Hurry shortens the client's own time-outs (connect, low speed) so many
	// times, and the pauses of a nil Wait; 0: 1.
	Hurry int

	mu      sync.Mutex
	started time.Time              // guarded by mu; real; the first use
	skipped time.Duration          // guarded by mu; time that passed without being waited for
	banned  map[string]time.Time   // guarded by mu; by original host, "" all; in the client's time
	idle    map[string][]*wireConn // guarded by mu; by scheme and address
}

// State is how a download ended.
type State string

// The states. Crashed is not one of the real client's: its process dies.
const (
	Transferred State = "Transferred"
	Paused      State = "Paused"
	Crashed     State = "Crashed"
)

// Result is a download that ended.
type Result struct {
	State      State
	Bytes      int64 // written to the file
	BytesTotal int64 // what the client believes; 0: it found no length
	Corrupted  bool  // a 200 to a range was appended: Transferred, and wrong
	ErrorCode  ErrorCode
	Attempts   []Attempt
	Bans       []Ban // in force at the end
}

// Attempt is one request of a download, redirects included.
type Attempt struct {
	To     string        // "cache" or "cdn"
	At     time.Duration // in the client's time, since the start of the download
	URL    string
	Range  string // "bytes=a-b"; "" none
	Status int    // of the last answer; 0: no answer came
	Err    ErrorCode
	Cause  error // in Go's words; nil when Err is NoError or from a status
	Bytes  int64 // of the body

	Proto     string // "HTTP/1.1" or "HTTP/2.0"
	Reused    bool   // the first hop went over a connection used before
	Redirects []string
	Fields    []Field // of all heads of this attempt, in order
}

// Ban keeps the client from the cache.
type Ban struct {
	Host string        // the original host it is for; "": all
	Left time.Duration // in the client's time
}

func (c *DOClient) hurry() time.Duration { return time.Duration(max(1, c.Hurry)) }

// now returns the client's time.
func (c *DOClient) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started.IsZero() {
		c.started = time.Now()
	}
	if c.Wait != nil {
		return c.started.Add(c.skipped)
	}
	return c.started.Add(time.Since(c.started)*c.hurry() + c.skipped)
}

// Skip lets time pass for the client, for bans to end.
func (c *DOClient) Skip(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skipped += d
}

// wait makes a pause of the client's d.
func (c *DOClient) wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	if c.Wait != nil {
		c.Skip(d)
		return c.Wait(ctx, d)
	}
	timer := time.NewTimer(d / c.hurry())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the idle connections.
func (c *DOClient) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conns := range c.idle {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}
	c.idle = nil
}

// isBanned reports whether the cache must not be asked for content of host.
func (c *DOClient) isBanned(host string) bool {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Before(c.banned[""]) || now.Before(c.banned[host])
}

func (c *DOClient) ban(host string) {
	until := c.now().Add(banTime)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.banned == nil {
		c.banned = map[string]time.Time{}
	}
	c.banned[host] = until
}

// Bans returns the bans in force, the one for all hosts first.
func (c *DOClient) Bans() []Ban {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	var bans []Ban
	for host, until := range c.banned {
		left := until.Sub(now)
		switch {
		case left <= 0:
		case host == "":
			bans = append([]Ban{{Left: left}}, bans...)
		default:
			bans = append(bans, Ban{host, left})
		}
	}
	return bans
}

// download is one download while it runs.
type download struct {
	c      *DOClient
	raw    string // the URL as given
	origin string // its host
	file   io.Writer
	start  time.Time // in the client's time

	onCache     bool // the connection type of the last try
	tries       int  // with this connection type in a row
	cdnTried    bool
	cacheOff    bool      // the fallback policy's time is over
	fallbackDue time.Time // zero: no policy or never
	retryDelay  time.Duration

	nextCheck time.Time // in the client's time
	unmoved   int       // checks in a row without a new byte
	checked   int64     // bytes at the last check

	res Result
}

// Download fetches url into file (nil: nowhere) as the agent does, and
// returns when the agent would be done or would have given up. The error is
// ctx's only.
func (c *DOClient) Download(ctx context.Context, url string, file io.Writer) (*Result, error) {
	if file == nil {
		file = io.Discard
	}
	d := &download{c: c, raw: url, file: file, start: c.now(), retryDelay: time.Second}
	d.nextCheck = d.start.Add(progressCheck)
	u, err := parseURL(url)
	if err != nil {
		return d.end(Paused, ErrInvalidURL), nil
	}
	d.origin = u.host
	if c.Fallback.set && !c.Fallback.never {
		d.fallbackDue = d.start.Add(c.Fallback.after)
	}
	return d.run(ctx)
}

func (d *download) end(s State, code ErrorCode) *Result {
	d.res.State, d.res.ErrorCode, d.res.Bans = s, code, d.c.Bans()
	return &d.res
}

func (d *download) run(ctx context.Context) (*Result, error) {
	for first := true; ; first = false {
		target, err := d.choose(first)
		if err != nil {
			return d.end(Paused, ErrInvalidURL), nil
		}
		before := d.res.Bytes
		if before > 0 && d.res.BytesTotal == 0 {
			// The agent subtracts one from a total of nothing and dies.
			return d.end(Crashed, NoError), nil
		}
		a, fatal := d.try(ctx, target)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("download of %s: %w", d.raw, err)
		}
		d.res.Attempts = append(d.res.Attempts, a)
		if a.Err == NoError {
			return d.end(Transferred, NoError), nil
		}

		clientError := a.Status >= 400 && a.Status < 500
		if d.onCache {
			d.report(a, clientError)
		}
		if fatal || clientError && (!d.onCache || d.c.Fallback.never) || a.Err == ErrInvalidURL {
			return d.end(Paused, a.Err), nil
		}

		d.retryDelay = min(2*d.retryDelay, maxRetryDelay)
		delay := d.retryDelay
		if d.onCache && d.leavesCache(clientError) {
			delay, d.retryDelay = 0, time.Second
		}
		if stuck := d.noProgress(delay); stuck >= 0 {
			if err := d.c.wait(ctx, stuck); err != nil {
				return nil, fmt.Errorf("download of %s: %w", d.raw, err)
			}
			return d.end(Paused, ErrNoProgress), nil
		}
		if err := d.c.wait(ctx, delay); err != nil {
			return nil, fmt.Errorf("download of %s: %w", d.raw, err)
		}
	}
}

// report bans the cache if the failure says that it is of no use.
func (d *download) report(a Attempt, clientError bool) {
	switch {
	case clientError: // there, but not for this host
		d.c.ban(d.origin)
	case a.Err == ErrTimeout || a.Err == ErrNameNotResolved || a.Err == ErrCannotConnect:
		d.c.ban("")
	}
}

// leavesCache reports whether a failure at the cache sends the client to the
// CDN without delay.
func (d *download) leavesCache(clientError bool) bool {
	switch {
	case clientError:
		return true
	case d.c.Fallback.set:
		return d.policyOver()
	default:
		return !d.cdnTried
	}
}

func (d *download) policyOver() bool {
	return !d.fallbackDue.IsZero() && !d.c.now().Before(d.fallbackDue)
}

// choose decides between cache and CDN and returns the URL to ask.
func (d *download) choose(first bool) (string, error) {
	cache := d.onCache
	stuck := d.tries >= 2 && !d.moved()
	switch {
	case first:
		cache = true
	case d.c.Fallback.set:
		if d.policyOver() {
			d.cacheOff, cache = true, false
		}
	case d.onCache && !d.cdnTried:
		cache = false
	case stuck:
		cache = !cache
	}
	cache = cache && !d.cacheOff && d.c.CacheHost != "" && !d.c.isBanned(d.origin)
	if cache != d.onCache || first {
		d.tries = 0
	}
	d.onCache = cache
	d.tries++
	if !cache {
		d.cdnTried = true
		return d.raw, nil
	}
	return swapHost(d.raw, d.c.CacheHost)
}

// moved reports whether the last try brought any bytes.
func (d *download) moved() bool {
	n := len(d.res.Attempts)
	return n > 0 && d.res.Attempts[n-1].Bytes > 0
}

// noProgress makes up for the checks that fell due since the last call and
// looks ahead over a pause. It returns how far into the pause the agent gives
// up, or a negative value if it does not.
func (d *download) noProgress(pause time.Duration) time.Duration {
	now := d.c.now()
	for ; !d.nextCheck.After(now.Add(pause)); d.nextCheck = d.nextCheck.Add(progressCheck) {
		if d.res.Bytes > d.checked {
			d.checked, d.unmoved = d.res.Bytes, 0
			continue
		}
		if d.unmoved++; d.unmoved >= progressPatience {
			return max(0, d.nextCheck.Sub(now))
		}
	}
	return -1
}

// errUnresolved is the answer of a resolver that knows no such name.
var errUnresolved = errors.New("no such host")
