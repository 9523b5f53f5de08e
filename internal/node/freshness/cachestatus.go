package freshness

import (
	"strconv"
	"time"
)

// Why a request went forward, as RFC 9211, 2.2 names it.
const (
	ForwardBypass  = "bypass"    // the cache does not handle such requests
	ForwardMethod  = "method"    // its method wants it
	ForwardMiss    = "uri-miss"  // nothing stored under the URI
	ForwardVary    = "vary-miss" // stored for other request fields only
	ForwardRequest = "request"   // its directives want it
	ForwardStale   = "stale"     // what is stored is stale
	ForwardPartial = "partial"   // not all of the bytes asked for are stored
)

// CacheStatus is this cache's member of the Cache-Status field (RFC 9211).
type CacheStatus struct {
	Hit           bool          // answered from what is stored, nobody was asked
	Forward       string        // one of the Forward constants; "" for a hit and for an answer of the cache's own
	ForwardStatus int           // of the answer that came back; 0: not told
	TTL           time.Duration // freshness left, whole seconds are sent; only with HasTTL
	HasTTL        bool
	Stored        bool   // the answer was stored
	Collapsed     bool   // it was got together with other requests
	Detail        string // further words
}

// Append appends the member: "Larder; hit; ttl=376".
func (c *CacheStatus) Append(dst []byte) []byte {
	dst = append(dst, "Larder"...)
	switch {
	case c.Hit:
		dst = append(dst, "; hit"...)
	case c.Forward != "":
		dst = append(dst, "; fwd="...)
		dst = append(dst, c.Forward...)
		if c.ForwardStatus != 0 {
			dst = append(dst, "; fwd-status="...)
			dst = strconv.AppendInt(dst, int64(c.ForwardStatus), 10)
		}
	}
	if c.HasTTL {
		dst = append(dst, "; ttl="...)
		dst = strconv.AppendInt(dst, int64(c.TTL/time.Second), 10)
	}
	if c.Stored {
		dst = append(dst, "; stored"...)
	}
	if c.Collapsed {
		dst = append(dst, "; collapsed"...)
	}
	if c.Detail != "" {
		dst = append(dst, "; detail="...)
		dst = appendItem(dst, c.Detail)
	}
	return dst
}

// appendItem appends s as a Token if it is one, else as a String, without the
// bytes that neither can hold (RFC 9651, 3.3).
func appendItem(dst []byte, s string) []byte {
	token := alpha(s[0]) || s[0] == '*'
	for i := 1; token && i < len(s); i++ {
		token = tchar(s[i]) || s[i] == ':' || s[i] == '/'
	}
	if token {
		return append(dst, s...)
	}
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ' && c < 0x7f:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// CacheStatus is what d says as far as it knows: whether it is a hit, why not,
// how long it stays fresh. The caller adds how the request ended.
func (d Decision) CacheStatus() CacheStatus {
	c := CacheStatus{Hit: d.Action == Use}
	switch d.Reason {
	case ReasonMiss:
		c.Forward = ForwardMiss
	case ReasonMethod:
		c.Forward = ForwardMethod
	case ReasonRequest:
		c.Forward = ForwardRequest
	case ReasonStale, ReasonNoCache, ReasonNoValidator:
		c.Forward = ForwardStale
	}
	switch d.Reason {
	case ReasonMaxStale, ReasonRefreshing, ReasonNoCache, ReasonNoValidator, ReasonOnlyIfCached:
		c.Detail = d.Reason
	}
	if d.Action == Use && d.Lifetime != Forever {
		c.TTL, c.HasTTL = d.Lifetime-d.Age, true
	}
	return c
}
