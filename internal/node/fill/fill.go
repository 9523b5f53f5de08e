// Package fill brings missing chunks in, each of them once, whoever asks.
//
// An object that is being filled has one [Content], shared by everybody who
// reads it. Readers ask their Content for bytes; what is not there yet is
// fetched by runs: goroutines that each bring one stretch of neighbouring
// chunks with one upstream request. A chunk lies in memory while it arrives,
// so readers stream with it, and goes to the object in one piece when it is
// whole; a disk that refuses it harms nobody who is reading.
//
// Runs belong to the Filler, not to the reader that caused them: a reader who
// leaves takes nothing with them. A run ends early only when nobody wants the
// next chunk, or somebody else already brought it.
package fill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/byterange"
)

// ChunkSize is the unit of presence, waiting and coalescing, in bytes.
const ChunkSize = 1 << 20

// Object is where the chunks of one generation are kept.
type Object interface {
	Generation() uint64
	// Has says that chunk i is there and is known to be right.
	Has(i int64) bool
	// Put keeps all of chunk i, or nothing.
	Put(i int64, data []byte) error
	// SetSize says how long the object is, once, if it was not known before.
	SetSize(n int64) error
	Doom()
	Doomed() bool // it is not what its key stands for any more
	Retain()
	Release()
}

// Ask is one request to a source.
type Ask struct {
	Resource any // what the caller of Open named; only the source looks inside

	Ranged bool            // ask for Range only
	Range  byterange.Range // bytes wanted, when Ranged

	// IfRange is the strong validator that an answer in part must match;
	// empty: none is known.
	IfRange string
	// Revalidate asks whether what is stored (known to the source through
	// Resource) is still good: a 304 says yes.
	Revalidate bool
}

// Reply is what a source answered. Body is never nil and is closed by fill,
// except in a Reply that Open hands out.
type Reply struct {
	Status int
	Header http.Header
	Size   int64           // of the whole representation, bytes; -1 unknown
	Range  byterange.Range // what Body holds, when Status is 206
	Strong string          // a validator that may bind parts together; "" if there is none
	Body   io.ReadCloser
	// Trailer returns the fields that came after Body, once that has ended. Nil:
	// there are none.
	Trailer func() http.Header
}

// Source fetches from upstream.
type Source interface {
	Fetch(ctx context.Context, a *Ask) (*Reply, error)
	// NoRanges reports that the origin of this resource is known to ignore
	// Range, and LearnNoRanges remembers it for a day.
	NoRanges(resource any) bool
	LearnNoRanges(resource any)
}

// Keeper decides what becomes of a reply.
type Keeper interface {
	// Begin returns the object, retained, that keeps the bytes of a 200 or 206,
	// ErrPass when this answer goes to one client only and is not kept, ErrOutdated
	// when that says nothing of others, or the error that an answer without content
	// stands for (*StatusError).
	Begin(resource any, r *Reply) (Object, error)
	// Shared reports whether Begin would keep the answer for all.
	Shared(resource any, r *Reply) bool
	// Stored reports whether there is an object for the resource by now, or a
	// newer one than the resource knows: it may have come about between the
	// caller's look and its Open.
	Stored(resource any) bool
	// Renew takes note of a 304 for the stored object of the resource.
	Renew(resource any, r *Reply) error
	// Remember says how long this failure answers further requests, so that a
	// dead origin is not asked again by everybody; 0: not at all.
	Remember(resource any, err error) time.Duration
	// Own reports whether requests for the resource carry fields of the one who
	// asks, for whom alone the answer may turn out to be: their failures say nothing
	// to others, and nobody goes on in another's name. who are their credentials,
	// "" if they have none: nobody else shares their first answer.
	Own(resource any) (who string, own bool)
	// Route names the way upstream. Several may lead to the same content, and
	// what fails on one may work on another.
	Route(resource any) string
}

// ErrPass is returned by a Keeper for an answer that must not be kept.
var ErrPass = errors.New("not to be kept")

// ErrOutdated says that an answer was asked for before something that made it
// old, or by somebody who forbids to keep it: it goes to the one who asked, says
// nothing of what others will get, and they ask again.
var ErrOutdated = errors.New("older than what is stored")

// ErrChanged says that the representation changed upstream while it was being
// read: what is missing of the old one can never be had again.
var ErrChanged = errors.New("the content changed upstream")

// ErrUnaskedPart says that the origin answers in part what it is asked for whole.
var ErrUnaskedPart = errors.New("the origin answered in part to a request for the whole")

// A StatusError is an answer of the origin that is neither content nor a
// redirect that may be followed.
type StatusError struct {
	Status int
	Header http.Header
}

func (e *StatusError) Error() string { return fmt.Sprintf("the origin answered %d", e.Status) }

// An UnsatisfiedError says that the range asked for lies behind the end.
type UnsatisfiedError struct{ Size int64 }

func (e *UnsatisfiedError) Error() string {
	return fmt.Sprintf("the range lies behind the end of %d bytes", e.Size)
}

// A TimeoutError says that nothing came for too long.
type TimeoutError struct{ After time.Duration }

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("the origin was silent for %s", e.After)
}

// Config is what a Filler is made of.
type Config struct {
	Source Source
	Keeper Keeper

	// Stall is how long a fetch may make no progress before another overtakes
	// it; default 5 s. Silence is how long a reader waits for a byte; default 10 s.
	Stall, Silence time.Duration
	// Buffers is how many chunks may be in memory at once; default 80.
	Buffers int
	// RunChunks is how many chunks one upstream request brings at most when the
	// origin can give ranges; default 16.
	RunChunks int64

	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Filler shares fetches among all who ask.
type Filler struct {
	cfg Config
	m   *metrics
	log *slog.Logger

	ctx    context.Context // ends at Close; runs and heads live under it
	cancel context.CancelFunc
	wg     sync.WaitGroup // runs, heads, and their requests
	bufs   *buffers

	life   sync.Mutex // innermost, as is that of buffers
	closed bool       // guarded by life

	mu       sync.Mutex           // before any Content.mu
	live     map[string]*Content  // by key, the current generation; guarded by mu
	contents map[uint64]*Content  // by generation; guarded by mu
	heads    map[headKey]*head    // first answers under way; guarded by mu
	failed   map[string]failure   // remembered failures by failKey; guarded by mu
	private  map[string]time.Time // until when a key's answers are known not to be shared; guarded by mu
	swept    time.Time            // when the two above were last looked through; guarded by mu
}

// A failure is how a fetch failed, which answers everybody for a while.
type failure struct {
	err   error
	until time.Time
	run   uint64 // which run of a Content it was
	of    any    // the resource in whose name that was asked for, if only that is meant
}

// New returns a Filler that must be closed.
func New(cfg Config) *Filler {
	if cfg.Stall == 0 {
		cfg.Stall = 5 * time.Second
	}
	if cfg.Silence == 0 {
		cfg.Silence = 10 * time.Second
	}
	if cfg.Buffers == 0 {
		cfg.Buffers = 80
	}
	if cfg.RunChunks == 0 {
		cfg.RunChunks = 16
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f := &Filler{
		cfg: cfg, log: cfg.Log, m: newMetrics(cfg.Registerer),
		bufs:     &buffers{left: cfg.Buffers},
		live:     map[string]*Content{},
		contents: map[uint64]*Content{},
		heads:    map[headKey]*head{},
		failed:   map[string]failure{},
		private:  map[string]time.Time{},
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// Close ends every run and waits for them. Readers that still wait get an error.
func (f *Filler) Close() {
	f.life.Lock()
	f.closed = true
	f.life.Unlock()
	f.cancel()
	f.wg.Wait()
}

// start runs fn as a goroutine that Close waits for; false after Close.
func (f *Filler) start(fn func()) bool {
	f.life.Lock()
	defer f.life.Unlock()
	if f.closed {
		return false
	}
	f.wg.Go(fn)
	return true
}

// guard turns a panic in code that was called, which reads what strangers send,
// into an error of this one fetch. It is deferred around the call.
func (f *Filler) guard(err *error) {
	if p := recover(); p != nil {
		f.log.Error("fetching panicked", "panic", p, "stack", string(debug.Stack()))
		*err = fmt.Errorf("panic: %v", p)
	}
}

// Attach returns the Content of a stored object that lacks chunks, joining
// whoever fills it already. The Content must be closed.
func (f *Filler) Attach(key string, resource any, obj Object, size int64, strong string) *Content {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.contents[obj.Generation()] == nil {
		h := f.makingLocked(key)
		if h == nil {
			break
		}
		// The object was seen before its Content is there, which is a moment.
		f.mu.Unlock()
		<-h.done
		f.mu.Lock()
	}
	if c := f.contents[obj.Generation()]; c != nil {
		c.join(resource)
		return c
	}
	obj.Retain()
	c := f.newContentLocked(key, resource, obj, size, strong)
	c.users = 1
	if f.live[key] == nil && !obj.Doomed() { // else this one may be an older generation
		f.live[key] = c
	}
	c.failed = f.failed[f.failKey(key, resource)]
	c.failed.run = 0
	return c
}

// makingLocked returns a head of which an object of the key is being made, or nil.
func (f *Filler) makingLocked(key string) *head {
	for k, h := range f.heads {
		if k.key == key && h.making {
			return h
		}
	}
	return nil
}

// Coming reports whether chunks of a generation are on their way, or about to be.
func (f *Filler) Coming(key string, generation uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.contents[generation]
	if c == nil {
		return f.makingLocked(key) != nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.runs) > 0
}

// newContentLocked takes over one reference to obj. The Content is returned
// with one reference.
func (f *Filler) newContentLocked(key string, resource any, obj Object, size int64, strong string) *Content {
	c := &Content{
		f: f, key: key, resource: resource, obj: obj, strong: strong, refs: 1,
		size: size, flying: map[int64]*chunk{}, readers: map[*Reader]struct{}{}, wake: make(chan struct{}),
	}
	f.contents[obj.Generation()] = c
	return c
}

// ForgetAll is Forget for all keys, and drops what is remembered of failures:
// before a purge. What is stored after it was asked for later.
func (f *Filler) ForgetAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.failed)
	clear(f.private)
	clear(f.live)
	for _, h := range f.heads {
		h.void = true
	}
	clear(f.heads)
}

// Forget drops what is remembered of a key, and leaves what is being filled to
// those who read it, and an answer under way to the one who asked for it: who comes
// now, or waits for that answer, asks the origin. Call it before what is stored is
// dropped: an answer that is stored in between is dropped with it.
func (f *Filler) Forget(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.private, key)
	delete(f.live, key)
	for k, h := range f.heads {
		if k.key == key {
			h.void = true
			delete(f.heads, k)
		}
	}
}

// failKey is what a failure is remembered under: an origin that fails must not
// answer for another that does not, though both have the same content.
func (f *Filler) failKey(key string, resource any) string {
	return key + "\x00" + f.cfg.Keeper.Route(resource)
}

// remember lets a failure answer further requests for a failKey, if it has a time.
func (f *Filler) remember(key string, fl failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Before(fl.until) {
		f.failed[key] = fl
		f.sweepLocked(now)
	}
}

// sweepLocked drops what was remembered and is over, when there is a lot of it.
func (f *Filler) sweepLocked(now time.Time) {
	if len(f.failed)+len(f.private) < 10_000 || now.Sub(f.swept) < time.Second {
		return
	}
	f.swept = now
	maps.DeleteFunc(f.failed, func(_ string, fl failure) bool { return now.After(fl.until) || len(f.failed) > 20_000 })
	maps.DeleteFunc(f.private, func(_ string, until time.Time) bool { return now.After(until) || len(f.private) > 20_000 })
}
