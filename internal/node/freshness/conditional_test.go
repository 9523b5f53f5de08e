package freshness

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestEvaluate is RFC 9110, 13.1 and 13.2.2.
func TestEvaluate(t *testing.T) {
	t.Parallel()
	const (
		etag    = `"v1"`
		lm      = "Wed, 04 Mar 2026 04:56:07 GMT"
		earlier = "Wed, 04 Mar 2026 04:56:06 GMT"
		later   = "Wed, 04 Mar 2026 04:56:08 GMT"
	)
	tests := []struct {
		name      string
		req       *Request
		etag, mod string
		want      Outcome
	}{
		{"none", get(), etag, lm, Proceed},
		{"13.1.1: match", get(`If-Match: "v1"`), etag, lm, Proceed},
		{"13.1.1: no match", get(`If-Match: "v2"`), etag, lm, PreconditionFailed},
		{"13.1.1: any", get("If-Match: *"), "", "", Proceed},
		{"13.1.1: a weak tag does not match", get(`If-Match: W/"v1"`), `W/"v1"`, lm, PreconditionFailed},
		{"13.1.1: no tag", get(`If-Match: "v1"`), "", lm, PreconditionFailed},
		{"13.1.1: not a tag", get("If-Match: v1"), etag, lm, PreconditionFailed},
		{"13.1.2: match", get(`If-None-Match: "v1"`), etag, lm, NotModified},
		{"13.1.2: one of many", get(`If-None-Match: "v0", "v1" , W/"v2"`), etag, lm, NotModified},
		{"13.1.2: the last of many with empty elements", get(`If-None-Match: ,"v0",, W/"v1",`), etag, lm, NotModified},
		{"13.1.2: weak comparison", get(`If-None-Match: W/"v1"`), etag, lm, NotModified},
		{"13.1.2: weak comparison the other way", get(`If-None-Match: "v1"`), `W/"v1"`, lm, NotModified},
		{"13.1.2: no match", get(`If-None-Match: "v2"`), etag, lm, Proceed},
		{"13.1.2: any", get("If-None-Match: *"), etag, lm, NotModified},
		{"13.1.2: any, no tag", get("If-None-Match: *"), "", "", NotModified},
		{"13.1.2: unsafe method", request("PUT", "If-None-Match: *"), etag, lm, PreconditionFailed},
		{"13.1.2: HEAD", request("HEAD", `If-None-Match: "v1"`), etag, lm, NotModified},
		{"13.1.2: a comma inside", get(`If-None-Match: "v0,v1", "x"`), `"v0,v1"`, lm, NotModified},
		{"13.1.2: a part of a tag", get(`If-None-Match: "v0,v1"`), `"v1"`, lm, Proceed},
		{"13.1.2: not quoted", get("If-None-Match: v1"), etag, lm, Proceed},
		{"13.1.2: lower-case mark", get(`If-None-Match: w/"v1"`), etag, lm, Proceed},
		{"13.1.2: letters behind it", get(`If-None-Match: "v1"x`), etag, lm, Proceed},
		{"13.1.2: obs-text", get("If-None-Match: \"v\u00fc\""), "\"v\u00fc\"", lm, NotModified},
		{"13.1.2: no tag stored", get(`If-None-Match: ""`), "", lm, Proceed},
		{"13.1.3: same", get("If-Modified-Since: " + lm), etag, lm, NotModified},
		{"13.1.3: later", get("If-Modified-Since: " + later), etag, lm, NotModified},
		{"13.1.3: earlier", get("If-Modified-Since: " + earlier), etag, lm, Proceed},
		{"13.1.3: RFC 850", get("If-Modified-Since: Wednesday, 04-Mar-26 04:56:07 GMT"), etag, lm, NotModified},
		{"13.1.3: asctime", get("If-Modified-Since: Wed Mar  4 04:56:07 2026"), etag, lm, NotModified},
		{"13.1.3: not a date", get("If-Modified-Since: x"), etag, lm, Proceed},
		{"13.1.3: two dates", get("If-Modified-Since: "+lm, "If-Modified-Since: "+later), etag, lm, Proceed},
		{"13.1.3: unsafe method", request("POST", "If-Modified-Since: "+lm), etag, lm, Proceed},
		{"13.1.3: no date stored", get("If-Modified-Since: " + lm), etag, "", Proceed},
		{"13.1.3: the tag decides", get(`If-None-Match: "v2"`, "If-Modified-Since: "+later), etag, lm, Proceed},
		{"13.1.3: the tag decides the other way", get(`If-None-Match: "v1"`, "If-Modified-Since: "+earlier), etag, lm, NotModified},
		{"13.1.4: not since", get("If-Unmodified-Since: " + lm), etag, lm, Proceed},
		{"13.1.4: since", get("If-Unmodified-Since: " + earlier), etag, lm, PreconditionFailed},
		{"13.1.4: not a date", get("If-Unmodified-Since: x"), etag, lm, Proceed},
		{"13.1.4: no date stored", get("If-Unmodified-Since: " + earlier), etag, "", Proceed},
		{"13.1.4: the tag decides", get(`If-Match: "v1"`, "If-Unmodified-Since: "+earlier), etag, lm, Proceed},
		{"13.2.2: a failure before a 304", get(`If-Match: "v2"`, `If-None-Match: "v1"`), etag, lm, PreconditionFailed},
		{"13.2.2: a 304 after a success", get(`If-Match: "v1"`, `If-None-Match: "v1"`), etag, lm, NotModified},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := Evaluate(tt.req, tt.etag, tt.mod, ""); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// Date stands in for Last-Modified in If-Modified-Since, and there alone.
func TestDateStandsIn(t *testing.T) {
	t.Parallel()
	const date = "Tue, 15 Nov 1994 12:45:26 GMT"
	for field, want := range map[string]Outcome{
		"If-Modified-Since: " + date:                                NotModified,
		"If-Modified-Since: Tue, 15 Nov 1994 12:45:25 GMT":          Proceed,
		"If-Unmodified-Since: Tue, 15 Nov 1994 12:45:25 GMT":        Proceed,
		"If-Modified-Since: not a date, and none may be made of it": Proceed,
	} {
		if got := Evaluate(get(field), "", "", date); got != want {
			t.Errorf("%s: %v, want %v", field, got, want)
		}
	}
	if got := Evaluate(get("If-Modified-Since: "+date), "", "", ""); got != Proceed {
		t.Errorf("without any date: %v", got)
	}
}

// TestIfRange is RFC 9110, 13.1.5.
func TestIfRange(t *testing.T) {
	t.Parallel()
	const lm = "Wed, 04 Mar 2026 04:56:07 GMT"
	tests := []struct {
		value, etag, mod string
		want             bool
	}{
		{"", `"a"`, lm, true},
		{`"a"`, `"a"`, "", true},
		{`"a"`, `"b"`, lm, false},
		{`W/"a"`, `W/"a"`, lm, false},
		{`"a"`, `W/"a"`, lm, false},
		{`"a"`, "", lm, false},
		{`"`, `"`, lm, false},
		{lm, `"a"`, lm, true},
		{"Wednesday, 04-Mar-26 04:56:07 GMT", "", lm, true},
		{"Wed, 04 Mar 2026 04:56:08 GMT", "", lm, false}, // later is not the same
		{"Wed, 04 Mar 2026 04:56:06 GMT", "", lm, false},
		{lm, `"a"`, "", false},
		{"x", `"a"`, lm, false},
		{`"a", "b"`, `"a"`, "", false},
	}
	for _, tt := range tests {
		if got := IfRange(tt.value, tt.etag, tt.mod); got != tt.want {
			t.Errorf("IfRange(%q, %q, %q) = %v, want %v", tt.value, tt.etag, tt.mod, got, tt.want)
		}
	}
}

// TestTagLists compares a list with the tags it was written from.
func TestTagLists(t *testing.T) {
	t.Parallel()
	tag := rapid.StringMatching(`(W/)?"[!#-~]{0,5}"`)
	rapid.Check(t, func(t *rapid.T) {
		tags := rapid.SliceOfN(tag, 1, 6).Draw(t, "tags")
		separator := rapid.SampledFrom([]string{",", ", ", " ,\t", ",,", ", ,"}).Draw(t, "separator")
		want := rapid.OneOf(tag, rapid.SampledFrom(tags)).Draw(t, "stored")
		var weak, strict bool
		for _, x := range tags {
			weak = weak || strings.TrimPrefix(x, "W/") == strings.TrimPrefix(want, "W/")
			strict = strict || x == want && !strings.HasPrefix(x, "W/")
		}
		list := strings.Join(tags, separator)
		if got := Evaluate(get("If-None-Match: "+list), want, "", "") == NotModified; got != weak {
			t.Fatalf("If-None-Match: %s against %s: %v, want %v", list, want, got, weak)
		}
		if got := Evaluate(get("If-Match: "+list), want, "", "") == Proceed; got != strict {
			t.Fatalf("If-Match: %s against %s: %v, want %v", list, want, got, strict)
		}
	})
}

func FuzzEvaluate(f *testing.F) {
	f.Add(`"a", W/"b"`, `"b"`)
	f.Add(`*`, ``)
	f.Add(`"a`, `"a"`)
	f.Fuzz(func(t *testing.T, list, etag string) {
		r := &Request{Method: "GET", Header: func(name string) string {
			if name == "If-None-Match" {
				return list
			}
			return ""
		}}
		if Evaluate(r, etag, "", "") == NotModified && strings.Trim(list, " \t") != "*" {
			if opaque := strings.TrimPrefix(etag, "W/"); !wellFormed(etag) || !strings.Contains(list, opaque) {
				t.Fatalf("%q is said to contain %q", list, etag)
			}
		}
		if IfRange(list, etag, "") && strings.Trim(list, " \t") != "" && strings.Trim(list, " \t") != etag {
			t.Fatalf("If-Range %q is said to be %q", list, etag)
		}
	})
}
