// Package freshness decides whether a stored answer may be used, must be asked about or has to be fetched: RFC 9111 and the conditional requests of RFC 9110 as pure functions.
package freshness

import (
	"math"
	"net/http"
	"time"
)

// Policy is whose word on freshness counts.
type Policy int

const (
	// Immutable content never changes under its name: what is stored is used,
	// whatever the origin's or the client's cache directives say.
	Immutable Policy = iota
	// Revalidate content is asked about when it was last confirmed too long
	// ago; how long is the catalogue's word, not the origin's.
	Revalidate
	// Standard content follows RFC 9111 to the letter, as a shared cache.
	Standard
)

func (p Policy) String() string {
	switch p {
	case Immutable:
		return "immutable"
	case Revalidate:
		return "revalidate"
	case Standard:
		return "standard"
	}
	return "unknown"
}

// Stored is an answer that was received: kept already, or about to be.
// Header has canonical names (http.CanonicalHeaderKey).
type Stored struct {
	Status int
	Header http.Header
	// When the exchange took place that brought the answer or, later, last
	// confirmed it with a 304: RequestTime just before the request was sent,
	// ResponseTime when its head was there.
	RequestTime, ResponseTime time.Time

	read *said // nil: not read ahead of time
}

// said is what an answer's header says of its freshness.
type said struct {
	directives responseDirectives
	life       time.Duration // see lifetime
	date       time.Time     // see Stored.date
	age        time.Duration // see ageField
}

// Prepare reads the header now and not at each decision, and returns s, which
// must not change any more.
func (s *Stored) Prepare() *Stored {
	read := s.says()
	s.read = &read
	return s
}

func (s *Stored) says() said {
	if s.read != nil {
		return *s.read
	}
	x := said{directives: parseResponse(s.Header), date: s.date(), age: ageField(s.Header)}
	x.life, _ = lifetime(s, &x.directives)
	return x
}

// Request is the part of a client's request that decisions look at.
type Request struct {
	Method string
	Header func(name string) string // the field's lines joined by ", "; "" when absent
}

// Action is what to do with a request.
type Action int

const (
	// Use the stored answer, without asking anybody.
	Use Action = iota
	// Validate the stored answer: a conditional request, see Validators.
	Validate
	// Fetch anew; nothing stored helps.
	Fetch
	// GatewayTimeout is a 504 for the client: it wants a stored answer or none.
	GatewayTimeout
)

func (a Action) String() string {
	switch a {
	case Use:
		return "use"
	case Validate:
		return "validate"
	case Fetch:
		return "fetch"
	case GatewayTimeout:
		return "gateway-timeout"
	}
	return "unknown"
}

// The reasons a Decision gives: a closed list, safe as metric labels.
const (
	ReasonImmutable    = "immutable"              // Use: the policy says it cannot change
	ReasonConfirmed    = "confirmed"              // Use: confirmed less than the policy's maximum age ago
	ReasonFresh        = "fresh"                  // Use: RFC 9111, 4.2
	ReasonMaxStale     = "max-stale"              // Use: stale, the client takes it (5.2.1.2)
	ReasonRefreshing   = "stale-while-revalidate" // Use: stale, the origin allows it while asking (RFC 5861, 3)
	ReasonStale        = "stale"                  // its time is over
	ReasonNoValidator  = "no-validator"           // its time is over and there is nothing to ask with
	ReasonNoCache      = "no-cache"               // the origin wants to be asked each time (5.2.2.4)
	ReasonRequest      = "request"                // the client's directives or preconditions want it asked
	ReasonMiss         = "uri-miss"               // nothing stored
	ReasonMethod       = "method"                 // neither GET nor HEAD
	ReasonOnlyIfCached = "only-if-cached"         // GatewayTimeout (5.2.1.7)
)

// Forever is the Lifetime of immutable content.
const Forever time.Duration = math.MaxInt64

// clockSlack is how far the clock may have been set back since an answer came
// before its age is no longer believed.
const clockSlack = time.Minute

// Decision is what to do with a request and why.
type Decision struct {
	Action   Action
	Age      time.Duration // of the stored answer now (RFC 9111, 4.2.3): the Age field when it is used
	Lifetime time.Duration // Lifetime - Age is how long it stays usable unasked; negative: how long not any more
	Reason   string        // one of the Reason constants
	// Refresh: use the answer and ask the origin in the background (RFC 5861).
	Refresh bool
	// If asking fails, may the stored answer be used all the same?
	StaleIfError       bool // the origin answers 500, 502, 503 or 504, or not at all
	StaleIfUnreachable bool // the origin does not answer at all; implied by StaleIfError
}

// Decide says what to do with r when s is stored, nil for nothing.
//
// maxAge is for the Revalidate policy: how long an answer may be used after
// s.ResponseTime without asking; zero or less asks each time.
//
// Immutable and Revalidate listen to one directive of the client,
// only-if-cached, which can harm nobody but itself. Everything else a client
// could say would let it spend the organisation's uplink for nothing.
func Decide(now time.Time, p Policy, maxAge time.Duration, s *Stored, r *Request) Decision {
	d := decide(now, p, maxAge, s, r)
	if d.Action != Use && parseRequest(r).onlyIfCached {
		return Decision{Action: GatewayTimeout, Age: d.Age, Lifetime: d.Lifetime, Reason: ReasonOnlyIfCached}
	}
	return d
}

func decide(now time.Time, p Policy, maxAge time.Duration, s *Stored, r *Request) Decision {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return Decision{Action: Fetch, Reason: ReasonMethod}
	case s == nil:
		return Decision{Action: Fetch, Reason: ReasonMiss}
	case p == Immutable:
		return Decision{Action: Use, Age: s.age(now), Lifetime: Forever, Reason: ReasonImmutable}
	case p == Revalidate:
		return confirmed(now, maxAge, s)
	default:
		return standard(now, s, r)
	}
}

// confirmed decides by when the origin last vouched for s.
func confirmed(now time.Time, maxAge time.Duration, s *Stored) Decision {
	d := Decision{Age: s.age(now)}
	since := now.Sub(s.ResponseTime)
	if since < -clockSlack {
		since = maxDelta // the clock was set back: nobody knows how long ago it was
	}
	left := max(maxAge, 0) - max(since, 0)
	d.Lifetime = d.Age + left
	if left > 0 {
		d.Action, d.Reason = Use, ReasonConfirmed
		return d
	}
	d.StaleIfError, d.StaleIfUnreachable = true, true
	return d.ask(s, ReasonStale)
}

// standard is RFC 9111, section 4.
func standard(now time.Time, s *Stored, r *Request) Decision {
	read, req := s.says(), parseRequest(r)
	res, life := &read.directives, read.life
	d := Decision{Age: s.age(now), Lifetime: life}
	staleness := d.Age - life // fresh while negative (4.2)
	if now.Sub(s.ResponseTime) < -clockSlack {
		staleness = maxDelta // the clock was set back: its age is a guess
	}
	// 4.2.4: what forbids to use a stale answer, whoever would take it.
	// s-maxage carries proxy-revalidate in it (5.2.2.10).
	mayBeStale := !res.noCache && !res.mustRevalidate && !res.proxyRevalidate && !res.sMaxAge.set
	// 5.2.1: what the client wants beyond that. max-age=0 is how a browser
	// says "reload": not to be met by an answer that just came.
	wants := req.noCache ||
		req.maxAge.set && (d.Age > req.maxAge.d || req.maxAge.d == 0) ||
		req.minFresh.set && -staleness < req.minFresh.d
	// If-Match and If-Unmodified-Since ask about the origin's representation,
	// not about a copy (4.3.2). Where the copy meets them they may pass; where
	// it does not, the origin has the word.
	if r.Header("If-Match") != "" || r.Header("If-Unmodified-Since") != "" {
		wants = wants || Evaluate(r, first(s.Header, "Etag"), first(s.Header, "Last-Modified"), "") == PreconditionFailed
	}

	bounded := res.staleIfError.set || req.staleIfError.set
	d.StaleIfError = mayBeStale &&
		(!wants && res.staleIfError.allows(staleness) || req.staleIfError.allows(staleness))
	// 4.2.4: disconnected. Nobody has to permit it, but a bound that somebody
	// gave is kept.
	d.StaleIfUnreachable = d.StaleIfError || mayBeStale && !wants && !bounded

	switch {
	case res.noCache:
		return d.ask(s, ReasonNoCache)
	case wants:
		return d.ask(s, ReasonRequest)
	case staleness < 0:
		return Decision{Action: Use, Age: d.Age, Lifetime: life, Reason: ReasonFresh}
	case mayBeStale && (req.maxStale.allows(staleness) || req.anyStale && !req.maxStale.set):
		return Decision{Action: Use, Age: d.Age, Lifetime: life, Reason: ReasonMaxStale}
	case mayBeStale && res.staleWhileRevalidate.allows(staleness):
		d.Action, d.Reason, d.Refresh = Use, ReasonRefreshing, true
		return d
	}
	return d.ask(s, ReasonStale)
}

// ask completes d: a conditional request if s can be asked about, else a
// fetch.
func (d Decision) ask(s *Stored, reason string) Decision {
	d.Action, d.Reason = Validate, reason
	if etag, modified := Validators(s.Header); etag == "" && modified == "" {
		d.Action = Fetch
		if reason == ReasonStale {
			d.Reason = ReasonNoValidator
		}
	}
	return d
}
