package freshness

import (
	"net/http"
	"slices"

	"larder/internal/byterange"
)

// The reasons a Storage gives: a closed list, safe as metric labels.
const (
	StorePolicy        = "policy"           // kept: the catalogue's word
	StoreExplicit      = "explicit"         // kept: the origin said how long it is fresh
	StoreHeuristic     = "heuristic"        // kept: fresh for a tenth of its age
	StoreValidator     = "validator"        // kept: can be asked about
	NotMethod          = "method"           // not a GET
	NotStatus          = "status"           // of no use for other requests, or not final
	NotUnderstood      = "must-understand"  // a status unknown here (RFC 9111, 5.2.2.3)
	NotWanted          = "no-store"         // the origin forbids it
	NotWantedByClient  = "request-no-store" // the client forbids it
	NotShared          = "private"          // for one user only
	NotWithCredentials = "authorization"    // RFC 9111, 3.5
	NotOneOfMany       = "vary"             // Vary: *
	NotForAll          = "cookie"           // comes or goes with a cookie, and nobody said that it may be kept
	NotCacheable       = "not-cacheable"    // RFC 9111, 3: nothing says that it may be
	NotUseful          = "no-use"           // stale at once, and nothing to ask with
)

// Storage says whether an answer may be kept, and why.
type Storage struct {
	Store  bool
	Reason string // one of the Store or Not constants
}

// Storable says whether s, the answer to r, may be kept in this shared cache
// for other clients (RFC 9111, section 3).
//
// A 206 may be kept if it has one valid Content-Range; what to make of a part
// is the caller's business. For Immutable and Revalidate only content is kept,
// 200 and its parts, and only the answer to a request without credentials:
// the catalogue knows what does not change, not who may see it.
//
// For Standard, beyond the letter of the RFC:
//   - Vary: Accept-Encoding is as good as none: every request to an origin asks
//     for identity.
//   - RFC 9111, 7.3 has Set-Cookie not inhibit caching. It does here unless
//     the origin gave the answer an explicit lifetime or called it public: a
//     guess should not share a session. private="set-cookie" and
//     no-cache="set-cookie" are obeyed by Kept. The same goes for answers to
//     requests with a Cookie.
//   - Statuses that speak of one request rather than of the resource are not
//     kept even with an explicit lifetime: a client could provoke them for
//     all others, or they would answer who asked otherwise.
func Storable(p Policy, r *Request, s *Stored) Storage {
	if r.Method != http.MethodGet {
		return Storage{false, NotMethod}
	}
	res := parseResponse(s.Header)
	authorized := r.Header("Authorization") != "" && !res.forAll()
	if p != Standard {
		switch {
		case s.Status != 200 && !part(s):
			return Storage{false, NotStatus}
		case authorized:
			return Storage{false, NotWithCredentials}
		}
		return Storage{true, StorePolicy}
	}
	switch {
	case !reusable(s):
		return Storage{false, NotStatus}
	case res.mustUnderstand && http.StatusText(s.Status) == "":
		return Storage{false, NotUnderstood}
	case res.noStore && !res.mustUnderstand:
		return Storage{false, NotWanted}
	case parseRequest(r).noStore:
		return Storage{false, NotWantedByClient}
	case res.private:
		return Storage{false, NotShared}
	case authorized:
		return Storage{false, NotWithCredentials}
	case !matchable(s.Header):
		return Storage{false, NotOneOfMany}
	}
	return worthwhile(r, s, &res)
}

// NoStore says whether the client forbids to keep the answer to its request (RFC
// 9111, 5.2.1.5).
func NoStore(r *Request) bool { return parseRequest(r).noStore }

// ForAll says whether an answer may be used for requests with
// credentials other than those it was given for (RFC 9111, 3.5).
func ForAll(s *Stored) bool {
	read := s.says()
	return read.directives.forAll()
}

func (r *responseDirectives) forAll() bool { return r.public || r.mustRevalidate || r.sMaxAge.set }

// worthwhile ends Storable: nothing forbids to keep s; does anything allow it,
// and is there a request that it could serve?
func worthwhile(r *Request, s *Stored, res *responseDirectives) Storage {
	life, from := lifetime(s, res)
	if !res.public {
		switch {
		case from != explicit && !heuristicStatus(s.Status):
			return Storage{false, NotCacheable}
		case from == explicit && life > 0:
		case len(s.Header["Set-Cookie"]) > 0 && !slices.Contains(res.fields, "Set-Cookie"), r.Header("Cookie") != "":
			return Storage{false, NotForAll}
		}
	}
	switch etag, modified := Validators(s.Header); {
	case life > 0 && !res.noCache:
		if from == heuristic {
			return Storage{true, StoreHeuristic}
		}
		return Storage{true, StoreExplicit}
	case etag != "" || modified != "":
		return Storage{true, StoreValidator}
	case !res.noCache && (res.staleIfError.d > 0 || res.staleWhileRevalidate.d > 0):
		return Storage{true, StoreExplicit}
	}
	return Storage{false, NotUseful}
}

// part says whether s is one part of a representation that tells its place.
func part(s *Stored) bool {
	values := s.Header["Content-Range"]
	if s.Status != http.StatusPartialContent || len(values) != 1 {
		return false
	}
	c, err := byterange.ParseContentRange(values[0])
	return err == nil && c.Satisfied
}

// reusable says whether an answer with this status says something about the
// resource that holds for other requests too.
func reusable(s *Stored) bool {
	switch s.Status {
	case http.StatusPartialContent:
		return part(s)
	case http.StatusNotModified, http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable, // answers to conditions and ranges
		http.StatusUnauthorized, http.StatusProxyAuthRequired, // to credentials
		http.StatusRequestTimeout, http.StatusLengthRequired, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusExpectationFailed, http.StatusMisdirectedRequest,
		http.StatusTooEarly, http.StatusUpgradeRequired, http.StatusRequestHeaderFieldsTooLarge: // to one message or connection
		return false
	}
	return s.Status >= 200 && s.Status <= 599
}

// matchable says whether any other request can match the answer (RFC 9111, 4.1).
func matchable(h http.Header) bool {
	_, ok := varying(h)
	return ok
}
