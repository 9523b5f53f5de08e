package freshness

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKept(t *testing.T) {
	t.Parallel()
	received := header("Content-Type: a/b", `ETag: "v"`, "Connection: close, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "Proxy-Authenticate: Basic",
		"Proxy-Authentication-Info: x", "Proxy-Connection: close", "TE: trailers", "Trailer: X", "Transfer-Encoding: chunked", "Upgrade: h2c",
		`Cache-Control: max-age=5, private="x-user", no-cache="x-once, x-twice"`, "X-User: me", "X-Once: 1", "X-Twice: 2",
		"Set-Cookie: a=b", "Vary: Accept-Encoding", "Alt-Svc: h3", "Strict-Transport-Security: max-age=5", "X-Many: 1", "X-Many: 2")
	cacheControl := `Cache-Control: max-age=5, private="x-user", no-cache="x-once, x-twice"`
	before := received.Clone()
	want := header("Content-Type: a/b", `ETag: "v"`, cacheControl, "X-Many: 1", "X-Many: 2")
	for _, p := range []Policy{Immutable, Revalidate} {
		if diff := cmp.Diff(want, Kept(p, received)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", p, diff)
		}
	}
	want = header("Content-Type: a/b", `ETag: "v"`, cacheControl, "X-Many: 1", "X-Many: 2",
		"Set-Cookie: a=b", "Vary: Accept-Encoding", "Alt-Svc: h3", "Strict-Transport-Security: max-age=5")
	got := Kept(Standard, received)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("standard (-want +got):\n%s", diff)
	}
	got["X-Many"][0] = "changed"
	if diff := cmp.Diff(before, received); diff != "" {
		t.Errorf("the original changed:\n%s", diff)
	}
}

// TestMerge304 is RFC 9111, 3.2 and 4.3.4.
func TestMerge304(t *testing.T) {
	t.Parallel()
	stored := header("Content-Type: text/plain", "Content-Length: 100", "Content-Encoding: gzip", `ETag: "v"`, "Date: "+baseDate, "Age: 50",
		"Cache-Control: max-age=1", "X-Old: stays", "X-Both: old", "X-Both: older", "Content-Digest: sha-256=:aaaa:")
	fresh := header("Content-Type: text/html", "Content-Length: 0", "Content-Encoding: br", "Content-Range: bytes 0-1/2", `ETag: "v"`,
		"Date: Wed, 04 Mar 2026 06:00:00 GMT", "Cache-Control: max-age=2", "X-Both: new", "X-New: 1", "Connection: x-hop", "X-Hop: 1", "Content-Digest: sha-256=:bbbb:")
	want := header("Content-Type: text/html", "Content-Length: 100", "Content-Encoding: gzip", `ETag: "v"`, "Date: Wed, 04 Mar 2026 06:00:00 GMT",
		"Cache-Control: max-age=2", "X-Old: stays", "X-Both: new", "X-New: 1", "Content-Digest: sha-256=:aaaa:")
	storedBefore, freshBefore := stored.Clone(), fresh.Clone()
	got := Merge304(stored, fresh)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got["X-New"][0] = "changed"
	got["X-Old"][0] = "changed"
	if diff := cmp.Diff([]http.Header{storedBefore, freshBefore}, []http.Header{stored, fresh}); diff != "" {
		t.Errorf("an argument changed:\n%s", diff)
	}
	if diff := cmp.Diff(header("X-Old: stays"), Merge304(header("X-Old: stays", "Date: "+baseDate, "Age: 5"), nil)); diff != "" {
		t.Errorf("Age and Date of the old message (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(header("X: 1"), Merge304(nil, header("X: 1"))); diff != "" {
		t.Errorf("nothing stored (-want +got):\n%s", diff)
	}
}

// TestConfirmedAnswerIsYoung: an answer that grew old here is fresh again
// after a 304 that names neither Date nor Age.
func TestConfirmedAnswerIsYoung(t *testing.T) {
	t.Parallel()
	s := answer("Cache-Control: max-age=60", "Age: 40", `ETag: "v"`)
	if d := Decide(after(100), Standard, 0, s, get()); d.Action != Validate {
		t.Fatalf("got %v, want it asked", d.Action)
	}
	s = &Stored{Status: 200, Header: Merge304(s.Header, header(`ETag: "v"`)), RequestTime: after(100), ResponseTime: after(100)}
	if d := Decide(after(159), Standard, 0, s, get()); d.Action != Use {
		t.Errorf("got %v because of %s at age %v, want use", d.Action, d.Reason, d.Age)
	}
}

func TestConfirms(t *testing.T) {
	t.Parallel()
	const lm1, lm2 = "Last-Modified: Wed, 04 Mar 2026 04:56:07 GMT", "Last-Modified: Wed, 04 Mar 2026 04:56:08 GMT"
	tests := []struct {
		name          string
		stored, fresh []string
		want          bool
	}{
		{"same strong tag", []string{`ETag: "a"`}, []string{`ETag: "a"`}, true},
		{"another strong tag", []string{`ETag: "a"`}, []string{`ETag: "b"`}, false},
		{"strong tag for a weak one", []string{`ETag: W/"a"`}, []string{`ETag: "a"`}, false},
		{"weak tag for a strong one", []string{`ETag: "a"`}, []string{`ETag: W/"a"`}, true},
		{"another weak tag", []string{`ETag: W/"a"`}, []string{`ETag: W/"b"`}, false},
		{"a tag from nowhere", []string{lm1}, []string{`ETag: "a"`, lm1}, false},
		{"the tag decides, not the date", []string{`ETag: "a"`, lm1}, []string{`ETag: "a"`, lm2}, true},
		{"same date", []string{lm1}, []string{lm1}, true},
		{"another date", []string{lm1}, []string{lm2}, false},
		{"nothing said", []string{`ETag: "a"`, lm1}, nil, true},
	}
	for _, tt := range tests {
		if got := Confirms(header(tt.stored...), header(tt.fresh...)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestValidators(t *testing.T) {
	t.Parallel()
	const lm, old = "Wed, 04 Mar 2026 05:06:06 GMT", "Date: " + baseDate
	tests := []struct {
		name                 string
		header               []string
		none, since          string
		strongTag, strongMod string
	}{
		{"nothing", nil, "", "", "", ""},
		{"a strong tag", []string{`ETag: "a"`, "Last-Modified: " + lm, old}, `"a"`, lm, `"a"`, ""},
		{"a weak tag keeps the date from being used", []string{`ETag: W/"a"`, "Last-Modified: " + lm, old}, `W/"a"`, lm, "", ""},
		{"a tag that is none", []string{"ETag: a"}, "", "", "", ""},
		{"half a tag", []string{`ETag: "a`}, "", "", "", ""},
		{"a lower-case mark of weakness", []string{`ETag: w/"a"`}, "", "", "", ""},
		{"a date, one second old", []string{"Last-Modified: " + lm, old}, "", lm, "", lm},
		{"a date, not old enough", []string{"Last-Modified: " + baseDate, old}, "", baseDate, "", ""},
		{"a date, nobody knows how old", []string{"Last-Modified: " + lm}, "", lm, "", ""},
		{"a date in the future", []string{"Last-Modified: Thu, 05 Mar 2026 05:06:06 GMT", old}, "", "Thu, 05 Mar 2026 05:06:06 GMT", "", ""},
		{"a date that is none", []string{"Last-Modified: now", old}, "", "", "", ""},
		{"the empty tag is one", []string{`ETag: ""`}, `""`, "", `""`, ""},
	}
	for _, tt := range tests {
		h := header(tt.header...)
		if none, since := Validators(h); none != tt.none || since != tt.since {
			t.Errorf("%s: Validators %q, %q; want %q, %q", tt.name, none, since, tt.none, tt.since)
		}
		if tag, modified := StrongValidator(h); tag != tt.strongTag || modified != tt.strongMod {
			t.Errorf("%s: StrongValidator %q, %q; want %q, %q", tt.name, tag, modified, tt.strongTag, tt.strongMod)
		}
	}
}
