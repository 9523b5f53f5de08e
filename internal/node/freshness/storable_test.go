package freshness

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestStorable(t *testing.T) {
	t.Parallel()
	const (
		etag     = `ETag: "v"`
		modified = "Last-Modified: Wed, 04 Mar 2026 04:56:07 GMT"
		fresh    = "Cache-Control: max-age=60"
	)
	auth := get("Authorization: Basic eDp5")
	tests := []struct {
		name   string
		policy Policy
		req    *Request
		status int
		header []string
		reason string // Store… is kept, Not… is not
	}{
		{"3: explicitly fresh", Standard, get(), 200, []string{fresh}, StoreExplicit},
		{"3: Expires", Standard, get(), 200, []string{"Expires: Wed, 04 Mar 2026 05:07:07 GMT"}, StoreExplicit},
		{"3: s-maxage", Standard, get(), 200, []string{"Cache-Control: s-maxage=60"}, StoreExplicit},
		{"3: heuristically fresh", Standard, get(), 200, []string{modified}, StoreHeuristic},
		{"3: a validator only", Standard, get(), 200, []string{etag}, StoreValidator},
		{"3: stale with a validator", Standard, get(), 200, []string{"Cache-Control: max-age=0", etag}, StoreValidator},
		{"3: stale with nothing", Standard, get(), 200, []string{"Cache-Control: max-age=0"}, NotUseful},
		{"3: nothing at all", Standard, get(), 200, nil, NotUseful},
		{"3: no-cache with a validator", Standard, get(), 200, []string{"Cache-Control: max-age=60, no-cache", etag}, StoreValidator},
		{"3: no-cache with nothing", Standard, get(), 200, []string{"Cache-Control: max-age=60, no-cache"}, NotUseful},
		{"RFC 5861: only stale", Standard, get(), 200, []string{"Cache-Control: max-age=0, stale-while-revalidate=60"}, StoreExplicit},
		{"HEAD", Standard, request("HEAD"), 200, []string{fresh}, NotMethod},
		{"POST", Standard, request("POST"), 200, []string{fresh}, NotMethod},

		{"5.2.2.5: no-store", Standard, get(), 200, []string{"Cache-Control: max-age=60, No-Store"}, NotWanted},
		{"5.2.2.5: no-store with an argument", Standard, get(), 200, []string{"Cache-Control: max-age=60, no-store =1"}, NotWanted},
		{"5.2.2.5: no-store behind a string that does not end", Standard, get(), 200, []string{`Cache-Control: max-age=60, x="a, no-store`, etag}, NotWanted},
		{"5.2.2.5: no-store inside a string", Standard, get(), 200, []string{`Cache-Control: max-age=60, x="a, no-store"`}, StoreExplicit},
		{"5.2.1.5: the client's no-store", Standard, get("Cache-Control: no-store"), 200, []string{fresh}, NotWantedByClient},
		{"5.2.2.7: private", Standard, get(), 200, []string{"Cache-Control: max-age=60, private"}, NotShared},
		{"5.2.2.7: private with fields", Standard, get(), 200, []string{`Cache-Control: max-age=60, private="x-user, set-cookie"`}, StoreExplicit},
		{"5.2.2.7: private with a token", Standard, get(), 200, []string{"Cache-Control: max-age=60, private=x-user"}, StoreExplicit},
		{"5.2.2.7: private with something else", Standard, get(), 200, []string{`Cache-Control: max-age=60, private="a;b"`}, NotShared},
		{"5.2.2.7: private with letters after the string", Standard, get(), 200, []string{`Cache-Control: max-age=60, private="a"b`}, NotShared},
		{"5.2.2.7: private with a space before the equals sign", Standard, get(), 200, []string{`Cache-Control: max-age=60, private ="a"`}, NotShared},
		{"5.2.2.3: must-understand, known", Standard, get(), 200, []string{"Cache-Control: max-age=60, no-store, must-understand"}, StoreExplicit},
		{"5.2.2.3: must-understand, unknown", Standard, get(), 599, []string{"Cache-Control: max-age=60, no-store, must-understand"}, NotUnderstood},
		{"5.2.2.3: must-understand, unknown, without no-store", Standard, get(), 299, []string{"Cache-Control: max-age=60, must-understand"}, NotUnderstood},

		{"3.5: Authorization", Standard, auth, 200, []string{fresh}, NotWithCredentials},
		{"3.5: public", Standard, auth, 200, []string{"Cache-Control: max-age=60, public"}, StoreExplicit},
		{"3.5: public with an argument", Standard, auth, 200, []string{"Cache-Control: max-age=60, public=1"}, NotWithCredentials},
		{"3.5: must-revalidate", Standard, auth, 200, []string{"Cache-Control: max-age=60, must-revalidate"}, StoreExplicit},
		{"3.5: s-maxage", Standard, auth, 200, []string{"Cache-Control: s-maxage=60"}, StoreExplicit},
		{"3.5: proxy-revalidate does not do", Standard, auth, 200, []string{"Cache-Control: max-age=60, proxy-revalidate"}, NotWithCredentials},
		{"3.5: public of the field that counts", Standard, auth, 200, []string{"Cache-Control: public", "CDN-Cache-Control: max-age=60"}, NotWithCredentials},

		{"4.1: Vary", Standard, get(), 200, []string{fresh, "Vary: Accept"}, StoreExplicit},
		{"4.1: Vary: *", Standard, get(), 200, []string{fresh, "Vary: Accept-Encoding, *"}, NotOneOfMany},
		{"4.1: Vary in a second line", Standard, get(), 200, []string{fresh, "Vary: Accept-Encoding", "Vary: Cookie, *"}, NotOneOfMany},
		{"4.1: Vary on what is always asked alike", Standard, get(), 200, []string{fresh, "Vary: accept-encoding, "}, StoreExplicit},

		{"7.3: Set-Cookie, explicit", Standard, get(), 200, []string{fresh, "Set-Cookie: a=b"}, StoreExplicit},
		{"7.3: Set-Cookie, stale at once", Standard, get(), 200, []string{etag, "Cache-Control: max-age=0", "Set-Cookie: a=b"}, NotForAll},
		{"7.3: Set-Cookie, public", Standard, get(), 200, []string{modified, "Cache-Control: public", "Set-Cookie: a=b"}, StoreHeuristic},
		{"7.3: Set-Cookie, guessed", Standard, get(), 200, []string{modified, "Set-Cookie: a=b"}, NotForAll},
		{"7.3: Set-Cookie, a validator only", Standard, get(), 200, []string{etag, "Set-Cookie: a=b"}, NotForAll},
		{"7.3: Set-Cookie, withheld", Standard, get(), 200, []string{modified, `Cache-Control: no-cache="set-cookie"`, "Set-Cookie: a=b"}, StoreHeuristic},

		{"15.1: 404, guessed", Standard, get(), 404, []string{modified}, StoreHeuristic},
		{"15.1: 201 is not guessed", Standard, get(), 201, []string{modified}, NotCacheable},
		{"15.1: 403 is not guessed", Standard, get(), 403, []string{modified, etag}, NotCacheable},
		{"15.1: 403, explicit", Standard, get(), 403, []string{fresh}, StoreExplicit},
		{"15.1: unknown, explicit", Standard, get(), 299, []string{fresh}, StoreExplicit},
		{"15.1: unknown, public", Standard, get(), 599, []string{modified, "Cache-Control: public"}, StoreHeuristic},
		{"15.1: unknown, guessed", Standard, get(), 599, []string{modified}, NotCacheable},
		{"302, explicit", Standard, get(), 302, []string{fresh}, StoreExplicit},
		{"interim", Standard, get(), 103, []string{fresh}, NotStatus},
		{"304", Standard, get(), 304, []string{fresh}, NotStatus},
		{"412", Standard, get(), 412, []string{fresh}, NotStatus},
		{"416", Standard, get(), 416, []string{fresh}, NotStatus},
		{"401", Standard, get(), 401, []string{fresh}, NotStatus},
		{"431, which a client can provoke", Standard, get(), 431, []string{fresh}, NotStatus},
		{"3.3: 206", Standard, get(), 206, []string{fresh, "Content-Range: bytes 0-9/100"}, StoreExplicit},
		{"3.3: 206 without its place", Standard, get(), 206, []string{fresh}, NotStatus},
		{"3.3: 206 with a wrong place", Standard, get(), 206, []string{fresh, "Content-Range: bytes 0-100/100"}, NotStatus},
		{"3.3: 206 with two places", Standard, get(), 206, []string{fresh, "Content-Range: bytes 0-9/100", "Content-Range: bytes 0-8/100"}, NotStatus},

		{"RFC 9213: max-age beside no-store", Standard, get(), 200, []string{"Cache-Control: no-store", "CDN-Cache-Control: max-age=60"}, StoreExplicit},
		{"RFC 9213: no-store beside max-age", Standard, get(), 200, []string{fresh, "CDN-Cache-Control: no-store"}, NotWanted},
		{"RFC 9213: private", Standard, get(), 200, []string{fresh, "CDN-Cache-Control: private"}, NotShared},
		{"RFC 9213: private with fields", Standard, get(), 200, []string{`CDN-Cache-Control: max-age=60, private="a"`}, StoreExplicit},
		{"RFC 9213: wrong type, ignored", Standard, get(), 200, []string{"Cache-Control: no-store", `CDN-Cache-Control: max-age="60"`}, NotWanted},

		{"immutable, whatever the origin says", Immutable, get("Cache-Control: no-store"), 200, []string{"Cache-Control: no-store, private", "Vary: *", "Set-Cookie: a=b"}, StorePolicy},
		{"immutable, with nothing", Immutable, get(), 200, nil, StorePolicy},
		{"immutable, a part", Immutable, get(), 206, []string{"Content-Range: bytes 0-9/100"}, StorePolicy},
		{"immutable, several parts", Immutable, get(), 206, []string{"Content-Type: multipart/byteranges; boundary=x"}, NotStatus},
		{"immutable, 404", Immutable, get(), 404, []string{fresh}, NotStatus},
		{"immutable, 301", Immutable, get(), 301, []string{fresh}, NotStatus},
		{"immutable, 204", Immutable, get(), 204, nil, NotStatus},
		{"immutable, HEAD", Immutable, request("HEAD"), 200, nil, NotMethod},
		{"immutable, with credentials", Immutable, auth, 200, []string{fresh}, NotWithCredentials},
		{"immutable, with credentials and public", Immutable, auth, 200, []string{"Cache-Control: public"}, StorePolicy},
		{"revalidate", Revalidate, get(), 200, []string{"Cache-Control: no-cache"}, StorePolicy},
		{"revalidate, 503", Revalidate, get(), 503, nil, NotStatus},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := answer(tt.header...)
			s.Status = tt.status
			got := Storable(tt.policy, tt.req, s)
			kept := slices.Contains([]string{StorePolicy, StoreExplicit, StoreHeuristic, StoreValidator}, tt.reason)
			if got.Reason != tt.reason || got.Store != kept {
				t.Errorf("got %+v, want %s", got, tt.reason)
			}
		})
	}
}

// TestHeuristicStatuses is the list of RFC 9110, 15.1.
func TestHeuristicStatuses(t *testing.T) {
	t.Parallel()
	want := "200 203 204 206 300 301 308 404 405 410 414 501"
	for status := 100; status < 600; status++ {
		listed := strings.Contains(want, strconv.Itoa(status))
		if heuristicStatus(status) != listed {
			t.Errorf("%d: %v", status, !listed)
		}
	}
}
