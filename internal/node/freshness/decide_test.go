package freshness

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// base is when the stored answers of the tests came, and what their Date says.
var base = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

const baseDate = "Wed, 04 Mar 2026 05:06:07 GMT"

// header makes a header of lines such as "Cache-Control: max-age=5".
func header(lines ...string) http.Header {
	h := make(http.Header)
	for _, l := range lines {
		name, value, ok := strings.Cut(l, ": ")
		if !ok {
			panic("not a field: " + l)
		}
		h.Add(name, value)
	}
	return h
}

// answer is a 200 that took no time.
func answer(lines ...string) *Stored {
	h := header(lines...)
	if h.Get("Date") == "" {
		h.Set("Date", baseDate)
	}
	return &Stored{Status: 200, Header: h, RequestTime: base, ResponseTime: base}
}

func request(method string, lines ...string) *Request {
	h := header(lines...)
	return &Request{Method: method, Header: func(name string) string { return strings.Join(h.Values(name), ", ") }}
}

func get(lines ...string) *Request { return request("GET", lines...) }

func after(seconds int) time.Time { return base.Add(time.Duration(seconds) * time.Second) }

func TestDecideStandard(t *testing.T) {
	t.Parallel()
	const etag = `ETag: "v1"`
	tests := []struct {
		name   string
		stored *Stored
		req    *Request
		at     int // seconds after it came
		action Action
		reason string
	}{
		{"nothing stored", nil, get(), 0, Fetch, ReasonMiss},
		{"4: HEAD is answered by a stored GET", answer("Cache-Control: max-age=60"), request("HEAD"), 5, Use, ReasonFresh},
		{"4: POST goes through", answer("Cache-Control: max-age=60"), request("POST"), 5, Fetch, ReasonMethod},

		{"4.2: fresh", answer("Cache-Control: max-age=60"), get(), 59, Use, ReasonFresh},
		{"4.2: stale at the very second", answer("Cache-Control: max-age=60", etag), get(), 60, Validate, ReasonStale},
		{"4.2: stale without validator", answer("Cache-Control: max-age=60"), get(), 61, Fetch, ReasonNoValidator},
		{"4.2.1: s-maxage before max-age", answer("Cache-Control: max-age=1, s-maxage=60", etag), get(), 30, Use, ReasonFresh},
		{"4.2.1: short s-maxage", answer("Cache-Control: max-age=60, s-maxage=1", etag), get(), 30, Validate, ReasonStale},
		{"4.2.1: max-age before Expires", answer("Cache-Control: max-age=60", "Expires: 0"), get(), 30, Use, ReasonFresh},
		{"4.2.1: max-age=0 before Expires", answer("Cache-Control: max-age=0", "Expires: Wed, 04 Mar 2026 06:06:07 GMT", etag), get(), 1, Validate, ReasonStale},
		{"4.2.1: Expires", answer("Expires: Wed, 04 Mar 2026 05:07:07 GMT"), get(), 59, Use, ReasonFresh},
		{"4.2.1: Expires over", answer("Expires: Wed, 04 Mar 2026 05:07:07 GMT", etag), get(), 60, Validate, ReasonStale},
		{"4.2.1: two equal values", answer("Cache-Control: max-age=60, max-age=60"), get(), 5, Use, ReasonFresh},
		{"4.2.1: two values that differ", answer("Cache-Control: max-age=60", "Cache-Control: max-age=50", etag), get(), 5, Validate, ReasonStale},
		{"4.2.1: not a number", answer("Cache-Control: max-age=a60", etag), get(), 5, Validate, ReasonStale},
		{"4.2.1: trailing letter", answer("Cache-Control: max-age=60a", etag), get(), 5, Validate, ReasonStale},
		{"4.2.1: negative", answer("Cache-Control: max-age=-60", etag), get(), 5, Validate, ReasonStale},
		{"4.2.1: decimal", answer("Cache-Control: max-age=60.0", etag), get(), 5, Validate, ReasonStale},
		{"4.2.1: no number at all, Expires does not help", answer("Cache-Control: max-age", "Expires: Wed, 04 Mar 2026 06:06:07 GMT", etag), get(), 5, Validate, ReasonStale},
		{"1.2.2: leading zeros", answer("Cache-Control: max-age=0060"), get(), 59, Use, ReasonFresh},
		{"1.2.2: larger than 31 bits", answer("Cache-Control: max-age=99999999999999999999999"), get(), 59, Use, ReasonFresh},
		{"5.2: any case", answer("Cache-Control: MaX-aGe=60"), get(), 59, Use, ReasonFresh},
		{"5.2: quoted", answer(`Cache-Control: max-age="60"`), get(), 59, Use, ReasonFresh},
		{"5.2: single quotes are not quotes", answer("Cache-Control: max-age='60'", etag), get(), 5, Validate, ReasonStale},
		{"5.2: inside another directive's string", answer(`Cache-Control: ext="a, max-age=3600", max-age=1`, etag), get(), 5, Validate, ReasonStale},
		{"5.2: no-cache inside a string", answer(`Cache-Control: max-age=60, ext="a\", no-cache"`), get(), 5, Use, ReasonFresh},
		{"5.2: a string that does not end", answer(`Cache-Control: max-age=60, ext="a`, etag), get(), 5, Validate, ReasonStale},
		{"5.2: a string that does not end may hide no-cache", answer(`Cache-Control: max-age=60, ext="a, no-cache`, etag), get(), 5, Validate, ReasonNoCache},
		{"5.2: space before the equals sign", answer("Cache-Control: max-age =60", etag), get(), 5, Validate, ReasonStale},
		{"5.2: space after the equals sign", answer("Cache-Control: max-age= 60", etag), get(), 5, Validate, ReasonStale},
		{"5.2: space before the equals sign of a restriction", answer("Cache-Control: max-age=60, no-cache =1", etag), get(), 5, Validate, ReasonNoCache},
		{"5.2: letters after the string", answer(`Cache-Control: max-age="60"0`, etag), get(), 5, Validate, ReasonStale},

		{"4.2.2: a tenth of the age", answer("Last-Modified: Wed, 04 Mar 2026 04:56:07 GMT"), get(), 59, Use, ReasonFresh},
		{"4.2.2: not longer", answer("Last-Modified: Wed, 04 Mar 2026 04:56:07 GMT"), get(), 60, Validate, ReasonStale},
		{"4.2.2: at most a day", answer("Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT"), get(), 24*3600 - 1, Use, ReasonFresh},
		{"4.2.2: not longer than a day", answer("Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT"), get(), 24 * 3600, Validate, ReasonStale},
		{"4.2.2: modified in the future", answer("Last-Modified: Fri, 01 Jan 2100 00:00:00 GMT"), get(), 1, Validate, ReasonStale},
		{"4.2.2: not beside explicit times", answer("Cache-Control: max-age=1", "Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT"), get(), 5, Validate, ReasonStale},

		{"4.2.3: Age", answer("Cache-Control: max-age=60", "Age: 58"), get(), 1, Use, ReasonFresh},
		{"4.2.3: Age over", answer("Cache-Control: max-age=60", "Age: 58", etag), get(), 2, Validate, ReasonStale},
		{"4.2.3: Date in the past", answer("Cache-Control: max-age=60", "Date: Wed, 04 Mar 2026 05:05:00 GMT", etag), get(), 0, Validate, ReasonStale},
		{"4.2.3: Date in the future", answer("Cache-Control: max-age=60", "Date: Wed, 04 Mar 2026 06:05:00 GMT"), get(), 59, Use, ReasonFresh},
		{"4.2.3: Date that is none", answer("Cache-Control: max-age=60", "Date: yesterday"), get(), 59, Use, ReasonFresh},
		{"5.1: Age that is none", answer("Cache-Control: max-age=60", "Age: -100"), get(), 59, Use, ReasonFresh},
		{"5.1: Age with decimals is none", answer("Cache-Control: max-age=60", "Age: 100.0"), get(), 59, Use, ReasonFresh},
		{"5.1: of a list the first", answer("Cache-Control: max-age=60", "Age: 0, 100"), get(), 59, Use, ReasonFresh},
		{"5.1: of a list the first, old", answer("Cache-Control: max-age=60", "Age: 100, 0", etag), get(), 1, Validate, ReasonStale},
		{"5.1: of two lines the first", answer("Cache-Control: max-age=60", "Age: 100", "Age: 0", etag), get(), 1, Validate, ReasonStale},
		{"5.1: Age larger than 31 bits", answer("Cache-Control: max-age=99999999999", "Age: 99999999999", etag), get(), 1, Validate, ReasonStale},
		{"clock set back a little", answer("Cache-Control: max-age=60"), get(), -59, Use, ReasonFresh},
		{"clock set back a lot", answer("Cache-Control: max-age=60", etag), get(), -61, Validate, ReasonStale},

		{"5.3: Expires: 0", answer("Expires: 0", etag), get(), 0, Validate, ReasonStale},
		{"5.3: Expires in UTC", answer("Expires: Thu, 18 Aug 2050 02:01:18 UTC", etag), get(), 0, Validate, ReasonStale},
		{"5.3: Expires in RFC 850", answer("Expires: Thursday, 18-Aug-50 02:01:18 GMT"), get(), 9, Use, ReasonFresh},
		{"5.3: Expires by asctime", answer("Expires: Thu Aug 18 02:01:18 2050"), get(), 9, Use, ReasonFresh},
		{"5.3: Expires before Date, both in the future", answer("Date: Wed, 04 Mar 2026 05:16:07 GMT", "Expires: Wed, 04 Mar 2026 05:15:07 GMT", etag), get(), 0, Validate, ReasonStale},
		{"5.3: Expires without a valid Date", answer("Date: foo", "Expires: Wed, 04 Mar 2026 05:07:07 GMT"), get(), 59, Use, ReasonFresh},
		{"5.3: two Expires that differ", answer("Expires: Thu, 18 Aug 2050 02:01:18 GMT", "Expires: Thu, 18 Aug 2050 02:01:19 GMT", etag), get(), 0, Validate, ReasonStale},
		{"5.3: two equal Expires", answer("Expires: Thu, 18 Aug 2050 02:01:18 GMT", "Expires: Thu, 18 Aug 2050 02:01:18 GMT"), get(), 0, Use, ReasonFresh},

		{"5.2.1.1: max-age", answer("Cache-Control: max-age=60"), get("Cache-Control: max-age=30"), 30, Use, ReasonFresh},
		{"5.2.1.1: older than max-age", answer("Cache-Control: max-age=60", etag), get("Cache-Control: max-age=30"), 31, Validate, ReasonRequest},
		{"5.2.1.1: max-age=0 is a reload", answer("Cache-Control: max-age=60", etag), get("Cache-Control: max-age=0"), 0, Validate, ReasonRequest},
		{"5.2.1.1: max-age that is none", answer("Cache-Control: max-age=60", etag), get("Cache-Control: max-age=x"), 1, Validate, ReasonRequest},
		{"5.2.1.1: max-age larger than the lifetime does not prolong it", answer("Cache-Control: max-age=60", etag), get("Cache-Control: max-age=90"), 61, Validate, ReasonStale},
		{"5.2.1.2: max-stale", answer("Cache-Control: max-age=60", etag), get("Cache-Control: max-stale=10"), 70, Use, ReasonMaxStale},
		{"5.2.1.2: staler", answer("Cache-Control: max-age=60", etag), get("Cache-Control: max-stale=10"), 71, Validate, ReasonStale},
		{"5.2.1.2: any", answer("Cache-Control: max-age=60", etag), get("Cache-Control: max-stale"), 99999, Use, ReasonMaxStale},
		{"5.2.1.2: max-stale that is none", answer("Cache-Control: max-age=60", etag), get("Cache-Control: max-stale=x"), 71, Validate, ReasonStale},
		{"5.2.1.2: both forms: the bound", answer("Cache-Control: max-age=60", etag), get("Cache-Control: max-stale, max-stale=5"), 70, Validate, ReasonStale},
		{"5.2.2.2: must-revalidate before max-stale", answer("Cache-Control: max-age=60, must-revalidate", etag), get("Cache-Control: max-stale"), 61, Validate, ReasonStale},
		{"5.2.2.8: proxy-revalidate before max-stale", answer("Cache-Control: max-age=60, proxy-revalidate", etag), get("Cache-Control: max-stale"), 61, Validate, ReasonStale},
		{"5.2.2.10: s-maxage before max-stale", answer("Cache-Control: s-maxage=60", etag), get("Cache-Control: max-stale"), 61, Validate, ReasonStale},
		{"5.2.2.2: must-revalidate while fresh", answer("Cache-Control: max-age=60, must-revalidate", etag), get(), 59, Use, ReasonFresh},
		{"5.2.1.3: min-fresh", answer("Cache-Control: max-age=60"), get("Cache-Control: min-fresh=10"), 50, Use, ReasonFresh},
		{"5.2.1.3: not fresh enough", answer("Cache-Control: max-age=60", etag), get("Cache-Control: min-fresh=10"), 51, Validate, ReasonRequest},
		{"5.2.1.3: min-fresh that is none", answer("Cache-Control: max-age=60", etag), get("Cache-Control: min-fresh=x"), 1, Validate, ReasonRequest},
		{"5.2.1.4: no-cache", answer("Cache-Control: max-age=60", etag), get("Cache-Control: no-cache"), 1, Validate, ReasonRequest},
		{"5.2.1.4: no-cache before max-stale", answer("Cache-Control: max-age=60", etag), get("Cache-Control: max-stale, no-cache"), 1, Validate, ReasonRequest},
		{"5.2.1.5: no-store is about storing", answer("Cache-Control: max-age=60"), get("Cache-Control: no-store"), 1, Use, ReasonFresh},
		{"5.2.1.7: only-if-cached, fresh", answer("Cache-Control: max-age=60"), get("Cache-Control: only-if-cached"), 1, Use, ReasonFresh},
		{"5.2.1.7: only-if-cached, stale", answer("Cache-Control: max-age=60", etag), get("Cache-Control: only-if-cached"), 61, GatewayTimeout, ReasonOnlyIfCached},
		{"5.2.1.7: only-if-cached, nothing", nil, get("Cache-Control: only-if-cached"), 61, GatewayTimeout, ReasonOnlyIfCached},
		{"5.2.1.7: only-if-cached with max-stale", answer("Cache-Control: max-age=60"), get("Cache-Control: only-if-cached, max-stale"), 99, Use, ReasonMaxStale},
		{"5.4: Pragma", answer("Cache-Control: max-age=60", etag), get("Pragma: x, no-cache"), 1, Validate, ReasonRequest},
		{"5.4: Pragma beside Cache-Control", answer("Cache-Control: max-age=60"), get("Pragma: no-cache", "Cache-Control: max-age=30"), 1, Use, ReasonFresh},
		{"5.4: another Pragma", answer("Cache-Control: max-age=60"), get("Pragma: x"), 1, Use, ReasonFresh},
		{"5.4: Pragma of a response", answer("Cache-Control: max-age=60", "Pragma: no-cache"), get(), 1, Use, ReasonFresh},
		{"5.2: malformed directives of a client", answer("Cache-Control: max-age=60", etag), get(`Cache-Control: x="no-cache`), 1, Validate, ReasonRequest},

		{"5.2.2.4: no-cache", answer("Cache-Control: max-age=60, no-cache", etag), get(), 1, Validate, ReasonNoCache},
		{"5.2.2.4: no-cache without validator", answer("Cache-Control: max-age=60, no-cache"), get("Cache-Control: max-stale"), 1, Fetch, ReasonNoCache},
		{"5.2.2.4: no-cache with fields", answer(`Cache-Control: max-age=60, no-cache="set-cookie"`), get(), 1, Use, ReasonFresh},
		{"5.2.2.4: both forms of no-cache", answer(`Cache-Control: max-age=60, no-cache, no-cache="set-cookie"`, etag), get(), 1, Validate, ReasonNoCache},
		{"5.2.2.4: no-cache with something else", answer(`Cache-Control: max-age=60, no-cache="a b"`, etag), get(), 1, Validate, ReasonNoCache},
		{"5.2.2.4: no-cache with no fields", answer(`Cache-Control: max-age=60, no-cache=""`, etag), get(), 1, Validate, ReasonNoCache},
		{"RFC 8246: immutable and a reload", answer("Cache-Control: max-age=60, immutable", etag), get("Cache-Control: no-cache"), 1, Validate, ReasonRequest},

		{"RFC 5861: while asking", answer("Cache-Control: max-age=60, stale-while-revalidate=10", etag), get(), 70, Use, ReasonRefreshing},
		{"RFC 5861: no longer", answer("Cache-Control: max-age=60, stale-while-revalidate=10", etag), get(), 71, Validate, ReasonStale},
		{"RFC 5861: not against must-revalidate", answer("Cache-Control: max-age=60, must-revalidate, stale-while-revalidate=10", etag), get(), 65, Validate, ReasonStale},
		{"RFC 5861: not against the client", answer("Cache-Control: max-age=60, stale-while-revalidate=10", etag), get("Cache-Control: max-age=30"), 65, Validate, ReasonRequest},
		{"RFC 5861: not a number", answer("Cache-Control: max-age=60, stale-while-revalidate=x", etag), get(), 61, Validate, ReasonStale},

		{"RFC 9213: longer", answer("Cache-Control: max-age=1", "CDN-Cache-Control: max-age=60"), get(), 30, Use, ReasonFresh},
		{"RFC 9213: shorter", answer("Cache-Control: max-age=60", "CDN-Cache-Control: max-age=1", etag), get(), 30, Validate, ReasonStale},
		{"RFC 9213: Expires does not count", answer("CDN-Cache-Control: public", "Expires: Thu, 18 Aug 2050 02:01:18 GMT", etag), get(), 30, Validate, ReasonStale},
		{"RFC 9213: no-cache does not count", answer("Cache-Control: no-cache", "CDN-Cache-Control: foo, max-age=60;x=y"), get(), 30, Use, ReasonFresh},
		{"RFC 9213: its no-cache does", answer("Cache-Control: max-age=60", "CDN-Cache-Control: no-cache", etag), get(), 30, Validate, ReasonNoCache},
		{"RFC 9213: no-cache is false", answer("CDN-Cache-Control: no-cache=?0, max-age=60"), get(), 30, Use, ReasonFresh},
		{"RFC 9213: no-cache with fields", answer(`CDN-Cache-Control: no-cache="a, b", max-age=60`), get(), 30, Use, ReasonFresh},
		{"RFC 9213: Age", answer("CDN-Cache-Control: max-age=60", "Age: 61", etag), get(), 0, Validate, ReasonStale},
		{"RFC 9213: negative", answer("CDN-Cache-Control: max-age=-60", etag), get(), 0, Validate, ReasonStale},
		{"RFC 9213: two lines", answer("CDN-Cache-Control: foo", "CDN-Cache-Control: max-age=60"), get(), 30, Use, ReasonFresh},
		{"RFC 9213: the last of two", answer("CDN-Cache-Control: max-age=1, max-age=60"), get(), 30, Use, ReasonFresh},
		{"RFC 9213: not parsed, so ignored", answer("Cache-Control: max-age=1", "CDN-Cache-Control: max-age=60, &&&", etag), get(), 30, Validate, ReasonStale},
		{"RFC 9213: wrong type, so ignored", answer("Cache-Control: max-age=1", `CDN-Cache-Control: max-age="60"`, etag), get(), 30, Validate, ReasonStale},
		{"RFC 9213: empty, so ignored", answer("Cache-Control: max-age=60", "CDN-Cache-Control: "), get(), 30, Use, ReasonFresh},

		{"4.3.2: If-Match that holds", answer("Cache-Control: max-age=60", etag), get(`If-Match: "v0", "v1"`), 1, Use, ReasonFresh},
		{"4.3.2: If-Match that does not", answer("Cache-Control: max-age=60", etag), get(`If-Match: "v2"`), 1, Validate, ReasonRequest},
		{"4.3.2: If-Unmodified-Since that does not hold", answer("Cache-Control: max-age=60", "Last-Modified: Wed, 04 Mar 2026 04:56:07 GMT"), get("If-Unmodified-Since: Wed, 04 Mar 2026 04:56:06 GMT"), 1, Validate, ReasonRequest},
		{"4.3.2: If-None-Match is no reason", answer("Cache-Control: max-age=60", etag), get(`If-None-Match: "v1"`), 1, Use, ReasonFresh},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := Decide(after(tt.at), Standard, 0, tt.stored, tt.req)
			if d.Action != tt.action || d.Reason != tt.reason {
				t.Errorf("got %v because of %s (age %v, lifetime %v), want %v because of %s", d.Action, d.Reason, d.Age, d.Lifetime, tt.action, tt.reason)
			}
			if d.Refresh != (tt.reason == ReasonRefreshing) {
				t.Errorf("Refresh = %v", d.Refresh)
			}
		})
	}
}

// TestStaleWhenTheOriginFails: RFC 9111, 4.2.4 and RFC 5861, 4.
func TestStaleWhenTheOriginFails(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name                 string
		cacheControl         string
		req                  *Request
		at                   int
		onError, unreachable bool
	}{
		{"nobody said anything", "max-age=60", get(), 61, false, true},
		{"stale-if-error", "max-age=60, stale-if-error=10", get(), 70, true, true},
		{"stale-if-error over", "max-age=60, stale-if-error=10", get(), 71, false, false},
		{"stale-if-error=0", "max-age=60, stale-if-error=0", get(), 61, false, false},
		{"the client's stale-if-error", "max-age=60", get("Cache-Control: stale-if-error=10"), 70, true, true},
		{"the client's stale-if-error over", "max-age=60", get("Cache-Control: stale-if-error=10"), 71, false, false},
		{"the client's stale-if-error beside its max-age", "max-age=60", get("Cache-Control: max-age=0, stale-if-error=10"), 5, true, true},
		{"must-revalidate", "max-age=60, stale-if-error=10, must-revalidate", get(), 61, false, false},
		{"proxy-revalidate", "max-age=60, proxy-revalidate", get(), 61, false, false},
		{"no-cache", "max-age=60, no-cache", get(), 1, false, false},
		{"s-maxage", "s-maxage=60, stale-if-error=10", get(), 61, false, false},
		{"the client wants it asked", "max-age=60, stale-if-error=10", get("Cache-Control: no-cache"), 1, false, false},
		{"the client wants it younger", "max-age=60", get("Cache-Control: max-age=5"), 6, false, false},
		{"the clock was set back: only without an answer", "max-age=60", get(), -120, false, true},
		{"the clock was set back: not with a bound", "max-age=60, stale-if-error=10", get(), -120, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := Decide(after(tt.at), Standard, 0, answer("Cache-Control: "+tt.cacheControl, `ETag: "v"`), tt.req)
			if d.Action != Validate {
				t.Fatalf("got %v, want it asked", d.Action)
			}
			if d.StaleIfError != tt.onError || d.StaleIfUnreachable != tt.unreachable {
				t.Errorf("on error %v, unreachable %v; want %v, %v", d.StaleIfError, d.StaleIfUnreachable, tt.onError, tt.unreachable)
			}
		})
	}
}

// TestPolicies: publisher content does not listen to the directives of
// origins and clients.
func TestPolicies(t *testing.T) {
	t.Parallel()
	hostile := []string{"Cache-Control: no-store, no-cache, max-age=0, private", "Expires: 0", "Vary: *", "Set-Cookie: a=b", "Pragma: no-cache"}
	pushy := get("Cache-Control: no-cache, no-store, max-age=0, min-fresh=99", "Pragma: no-cache", `If-Match: "other"`)
	etag := append([]string{`ETag: W/"1"`}, hostile...)
	tests := []struct {
		name   string
		policy Policy
		stored *Stored
		req    *Request
		at     int
		maxAge time.Duration
		action Action
		reason string
		left   time.Duration // Lifetime - Age; 0: not looked at
	}{
		{"immutable", Immutable, answer(hostile...), pushy, 1e9, 0, Use, ReasonImmutable, 0},
		{"immutable, HEAD", Immutable, answer(), request("HEAD"), 0, 0, Use, ReasonImmutable, 0},
		{"immutable, POST", Immutable, answer(), request("POST"), 0, 0, Fetch, ReasonMethod, 0},
		{"immutable, nothing", Immutable, nil, get(), 0, 0, Fetch, ReasonMiss, 0},
		{"immutable, only if cached", Immutable, nil, get("Cache-Control: only-if-cached"), 0, 0, GatewayTimeout, ReasonOnlyIfCached, 0},
		{"immutable, the clock set back", Immutable, answer(), get(), -99999, 0, Use, ReasonImmutable, 0},
		{"confirmed lately", Revalidate, answer(etag...), pushy, 59, time.Minute, Use, ReasonConfirmed, time.Second},
		{"confirmed too long ago", Revalidate, answer(etag...), get("Cache-Control: max-stale"), 60, time.Minute, Validate, ReasonStale, 0},
		{"long ago", Revalidate, answer(etag...), get(), 80, time.Minute, Validate, ReasonStale, -20 * time.Second},
		{"an old Date does not count", Revalidate, answer("Date: Sun, 01 Mar 2020 00:00:00 GMT", "Age: 999999"), get(), 10, time.Minute, Use, ReasonConfirmed, 50 * time.Second},
		{"nothing to ask with", Revalidate, answer(hostile...), get(), 61, time.Minute, Fetch, ReasonNoValidator, 0},
		{"asked each time", Revalidate, answer(etag...), get(), 0, 0, Validate, ReasonStale, 0},
		{"asked each time, the clock set back", Revalidate, answer(etag...), get(), -5, 0, Validate, ReasonStale, 0},
		{"the clock set back a little", Revalidate, answer(etag...), get(), -5, time.Minute, Use, ReasonConfirmed, time.Minute},
		{"the clock set back a lot", Revalidate, answer(etag...), get(), -3600, time.Hour, Validate, ReasonStale, 0},
		{"a negative maximum", Revalidate, answer(etag...), get(), 0, -time.Hour, Validate, ReasonStale, 0},
		{"only if cached", Revalidate, answer(etag...), get("Cache-Control: only-if-cached"), 61, time.Minute, GatewayTimeout, ReasonOnlyIfCached, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := Decide(after(tt.at), tt.policy, tt.maxAge, tt.stored, tt.req)
			if d.Action != tt.action || d.Reason != tt.reason {
				t.Errorf("got %v because of %s, want %v because of %s", d.Action, d.Reason, tt.action, tt.reason)
			}
			if left := d.Lifetime - d.Age; tt.left != 0 && left != tt.left {
				t.Errorf("%v left, want %v", left, tt.left)
			}
			if asks := d.Action == Validate || d.Reason == ReasonNoValidator; asks != d.StaleIfError || asks != d.StaleIfUnreachable {
				t.Errorf("may be used when the origin fails: %v, %v; want %v", d.StaleIfError, d.StaleIfUnreachable, asks)
			}
		})
	}
}

// TestAge is RFC 9111, 4.2.3.
func TestAge(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		s    *Stored
		at   time.Time
		want time.Duration
	}{
		{"just came", answer(), base, 0},
		{"parts of a second that Date has not", &Stored{Header: header("Date: " + baseDate), RequestTime: base.Add(900 * time.Millisecond), ResponseTime: base.Add(900 * time.Millisecond)}, base.Add(900 * time.Millisecond), 0},
		{"here for a while", answer(), after(7), 7 * time.Second},
		{"on the way for a while", &Stored{Header: header("Date: "+baseDate, "Age: 10"), RequestTime: after(-3), ResponseTime: base}, after(7), 20 * time.Second},
		{"Date says more than Age", answer("Date: Wed, 04 Mar 2026 05:05:07 GMT", "Age: 10"), after(7), 67 * time.Second},
		{"Age says more than Date", answer("Age: 90"), after(7), 97 * time.Second},
		{"year one", answer("Date: Mon, 01 Jan 0001 00:00:00 GMT"), after(7), maxDelta + 7*time.Second},
		{"everything at its worst", &Stored{Header: header("Age: 99999999999"), RequestTime: time.Time{}, ResponseTime: base}, base.AddDate(5000, 0, 0), 3 * maxDelta},
	}
	for _, tt := range tests {
		if got := tt.s.age(tt.at); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestDecisionsHold draws answers, requests and times, and checks what no
// combination may break.
func TestDecisionsHold(t *testing.T) {
	t.Parallel()
	some := func(values ...string) *rapid.Generator[[]string] {
		return rapid.SliceOfN(rapid.SampledFrom(values), 0, 4)
	}
	responses := some("Cache-Control: max-age=10", "Cache-Control: s-maxage=20", "Cache-Control: no-cache", "Cache-Control: must-revalidate",
		"Cache-Control: stale-while-revalidate=5", "Cache-Control: stale-if-error=5", "Cache-Control: public", "CDN-Cache-Control: max-age=15",
		"Expires: Wed, 04 Mar 2026 05:06:37 GMT", "Expires: 0", "Age: 5", "Age: x", `ETag: "v"`, "Last-Modified: Wed, 04 Mar 2026 05:01:07 GMT", "Vary: Accept")
	requests := some("Cache-Control: no-cache", "Cache-Control: max-age=5", "Cache-Control: max-stale", "Cache-Control: max-stale=5",
		"Cache-Control: min-fresh=5", "Cache-Control: only-if-cached", "Cache-Control: stale-if-error=5", "Pragma: no-cache", `If-Match: "v"`)
	rapid.Check(t, func(t *rapid.T) {
		s := answer(responses.Draw(t, "response")...)
		r := get(requests.Draw(t, "request")...)
		now := base.Add(time.Duration(rapid.Int64Range(-200, 200).Draw(t, "at")) * time.Second)
		p := rapid.SampledFrom([]Policy{Immutable, Revalidate, Standard}).Draw(t, "policy")
		d := Decide(now, p, 30*time.Second, s, r)

		line := strings.Join(s.Header["Cache-Control"], ",")
		asks := r.Header("Cache-Control")
		never := strings.Contains(line, "no-cache") || strings.Contains(line, "must-revalidate") || strings.Contains(line, "s-maxage")
		if s.Header.Get("CDN-Cache-Control") != "" {
			never = false
		}
		stale := d.Lifetime <= d.Age
		switch {
		case d.Age < 0:
			t.Fatalf("negative age: %+v", d)
		case d.StaleIfError && !d.StaleIfUnreachable:
			t.Fatalf("an error is worse than no answer: %+v", d)
		case p == Immutable && d.Action != Use:
			t.Fatalf("immutable content was not used: %+v", d)
		case p != Standard:
		case d.Action == Use && stale && d.Reason != ReasonMaxStale && d.Reason != ReasonRefreshing:
			t.Fatalf("stale and used: %+v", d)
		case d.Action == Use && stale && never, d.StaleIfUnreachable && never:
			t.Fatalf("stale, used and forbidden: %+v", d)
		case d.Action == Use && strings.Contains(asks, "no-cache"):
			t.Fatalf("used against the client's no-cache: %+v", d)
		case d.Action == Validate && s.Header.Get("ETag") == "" && s.Header.Get("Last-Modified") == "":
			t.Fatalf("to be asked about with nothing: %+v", d)
		case d.Action != Use && d.Action != GatewayTimeout && strings.Contains(asks, "only-if-cached"):
			t.Fatalf("the client wanted no question: %+v", d)
		}
	})
}

func TestForever(t *testing.T) {
	t.Parallel()
	d := Decide(base, Immutable, 0, answer(), get())
	if d.Lifetime != Forever || Forever != math.MaxInt64 {
		t.Errorf("lifetime of immutable content: %v", d.Lifetime)
	}
}

// TestDecideDoesNotAllocate: every request for a stored object is decided on.
func TestDecideDoesNotAllocate(t *testing.T) {
	s := answer("Cache-Control: public, max-age=3600, must-revalidate", "Age: 3", `ETag: "v"`)
	plain := &Request{Method: "GET", Header: func(string) string { return "" }}
	for _, p := range []Policy{Immutable, Revalidate, Standard} {
		if n := testing.AllocsPerRun(100, func() { Decide(after(5), p, time.Hour, s, plain) }); n != 0 {
			t.Errorf("%v: %v allocations, want none", p, n)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	s := answer("Cache-Control: public, max-age=3600, must-revalidate", `ETag: "v"`, "Last-Modified: Wed, 04 Mar 2026 04:56:07 GMT")
	plain := &Request{Method: "GET", Header: func(string) string { return "" }}
	for _, p := range []Policy{Immutable, Revalidate, Standard} {
		b.Run(p.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := Decide(after(5), p, time.Hour, s, plain); d.Action != Use {
					b.Fatal(d.Action)
				}
			}
		})
	}
}
