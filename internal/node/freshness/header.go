package freshness

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Fields that are about a connection, a hop or a proxy: never kept (RFC 9111,
// 3.1; RFC 9110, 7.6.1).
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization",
	"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// Fields that speak for the origin's host as a whole, or to one user. From
// publisher content they would speak for the cache node: pin its name to
// HTTPS, send clients past it, give everybody one cookie. Vary is settled by
// policy, and a Content-Range would be believed by clients that ask for parts.
var hostWide = []string{
	"Alt-Svc", "Clear-Site-Data", "Content-Range", "Set-Cookie", "Set-Cookie2", "Strict-Transport-Security", "Vary",
}

// Fields that belong to the stored bytes or to the message of a 304 itself:
// a 304 does not change them (RFC 9111, 3.2; Content-Digest is of the 304's own
// empty content, RFC 9530, 2).
var boundToBody = []string{"Content-Digest", "Content-Md5", "Content-Encoding", "Content-Length", "Content-Range"}

// first is h.Get for a name that is canonical, without making sure of it.
func first(h http.Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Kept is the part of an answer's header that may be stored and replayed: not
// what is about the connection or named by Connection, and not what
// private="…" or no-cache="…" withhold. The latter might be replayed after
// asking; leaving it out is always allowed. For Immutable and Revalidate,
// neither fields that speak for the origin's host or to one user.
//
// The result is a copy that shares no value slices with h.
func Kept(p Policy, h http.Header) http.Header {
	kept := make(http.Header, len(h))
	drop := excluded(h)
	for name, values := range h {
		if !slices.Contains(drop, name) && (p == Standard || !slices.Contains(hostWide, name)) {
			kept[name] = slices.Clone(values)
		}
	}
	return kept
}

// excluded is the names of the fields of h that are not stored.
func excluded(h http.Header) []string {
	drop := slices.Clone(hopByHop)
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			drop = append(drop, http.CanonicalHeaderKey(trim(name)))
		}
	}
	res := parseResponse(h)
	return append(drop, res.fields...)
}

// Merge304 is the stored header, freshened by that of a 304 which Confirms it:
// each field that the 304 has replaces the stored one, except what is never
// stored and what belongs to the bytes (RFC 9111, 3.2 and 4.3.4). Neither
// argument is changed. What is to be stored is Kept of the result: the 304 may
// withhold other fields than the answer did.
//
// Age and Date belong to the message, not to the content: without them in the
// 304 the stored ones go too. Kept, they would count the time before the
// confirmation once more.
func Merge304(stored, fresh http.Header) http.Header {
	merged := stored.Clone()
	if merged == nil {
		merged = make(http.Header, len(fresh))
	}
	delete(merged, "Age")
	delete(merged, "Date")
	drop := append(excluded(fresh), boundToBody...)
	for name, values := range fresh {
		if !slices.Contains(drop, name) {
			merged[name] = slices.Clone(values)
		}
	}
	return merged
}

// Confirms says whether a 304 with the header fresh, got in answer to the
// Validators of stored, is about the stored answer (RFC 9111, 4.3.4). If not,
// the 304 must not update it, and the content has to be fetched.
func Confirms(stored, fresh http.Header) bool {
	if etag := first(fresh, "Etag"); etag != "" {
		have := first(stored, "Etag")
		if strong(etag) {
			return have == etag
		}
		return weakly(have, etag)
	}
	modified, ok := ParseDate(first(fresh, "Last-Modified"), time.Time{})
	if !ok {
		return true
	}
	have, ok := ParseDate(first(stored, "Last-Modified"), time.Time{})
	return !ok || have.Equal(modified)
}

// SameContent says whether the answer to a HEAD with the header fresh and the
// Content-Length size, -1 for none, is about the stored content of the size have:
// its validators and length are not others (RFC 9111, 4.3.5).
func SameContent(stored, fresh http.Header, have, size int64) bool {
	for _, name := range []string{"Etag", "Last-Modified"} {
		if v := first(fresh, name); v != "" && v != first(stored, name) {
			return false
		}
	}
	return size < 0 || size == have
}

// Validators is what to ask the origin with (RFC 9111, 4.3.1): the values of
// If-None-Match and of If-Modified-Since, each "" if there is none. Both are
// sent if both are there.
func Validators(h http.Header) (ifNoneMatch, ifModifiedSince string) {
	if etag := first(h, "Etag"); wellFormed(etag) {
		ifNoneMatch = etag
	}
	if modified := first(h, "Last-Modified"); modified != "" {
		if _, ok := ParseDate(modified, time.Time{}); ok {
			ifModifiedSince = modified
		}
	}
	return ifNoneMatch, ifModifiedSince
}

// StrongValidator is what a request for more bytes of the same representation
// may say in If-Range: the entity tag if it is strong; without an entity tag,
// Last-Modified if it was at least a second old when the answer was made (RFC
// 9110, 8.8.2.2). At most one is not "". Beside a weak entity tag the date may
// not be used, however old (RFC 9110, 13.1.5).
func StrongValidator(h http.Header) (etag, lastModified string) {
	if etag = first(h, "Etag"); etag != "" {
		if strong(etag) {
			return etag, ""
		}
		return "", ""
	}
	lastModified = first(h, "Last-Modified")
	modified, ok := ParseDate(lastModified, time.Time{})
	if !ok {
		return "", ""
	}
	date, ok := ParseDate(first(h, "Date"), time.Time{})
	if !ok || date.Sub(modified) < time.Second {
		return "", ""
	}
	return "", lastModified
}
