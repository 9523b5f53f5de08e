package freshness

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestParseDate is RFC 9110, 5.6.7 and RFC 9111, 4.2.
func TestParseDate(t *testing.T) {
	t.Parallel()
	want := time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC)
	good := []string{
		"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun Nov 06 08:49:37 1994",
		"SUN, 06 nOV 1994 08:49:37 gmt", "sunday, 06-NOV-94 08:49:37 Gmt", " Sun, 06 Nov 1994 08:49:37 GMT\t",
		"Mon, 06 Nov 1994 08:49:37 GMT", // the wrong day of the week does not matter
	}
	for _, v := range good {
		if got, ok := ParseDate(v, base); !ok || !got.Equal(want) {
			t.Errorf("ParseDate(%q) = %v, %v; want %v", v, got, ok, want)
		}
	}
	bad := []string{
		"", "0", "-1", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 Nov 1994 08:49:37 AEST", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 94 08:49:37 GMT",
		"Sun 06 Nov 1994 08:49:37 GMT", "Sun, 06  Nov 1994 08:49:37 GMT", "Sun, 06-Nov-1994 08:49:37 GMT", "Sun, 06 Nov 1994 08.49.37 GMT",
		"Sun, 06 Nov 1994 8:49:37 GMT", "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 31 Nov 1994 08:49:37 GMT", "Sun, 29 Feb 1993 08:49:37 GMT",
		"Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "Foo, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:00:00 GMT",
		"Sun, 06 Nov 1994 08:60:37 GMT", "Sun, 06 Nov 1994 08:49:61 GMT", "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
		"Sun, 06-Nov-94 08:49:37 GMT", "Sunday, 06 Nov 94 08:49:37 GMT", "1994-11-06T08:49:37Z", "Sun, +6 Nov 1994 08:49:37 GMT",
	}
	for _, v := range bad {
		if got, ok := ParseDate(v, base); ok {
			t.Errorf("ParseDate(%q) = %v, want none", v, got)
		}
	}
	years := map[string]int{"76": 2076, "77": 1977, "00": 2000, "26": 2026, "99": 1999}
	for yy, year := range years { // seen from March 2026: 50 years ahead at most
		if got, ok := ParseDate("Sunday, 01-Jan-"+yy+" 00:00:00 GMT", base); !ok || got.Year() != year {
			t.Errorf("year %s: %v, %v; want %d", yy, got, ok, year)
		}
	}
	if got, ok := ParseDate("Wednesday, 05-Mar-76 00:00:00 GMT", base); !ok || got.Year() != 1976 {
		t.Errorf("more than 50 years ahead by a day: %v, %v; want 1976", got, ok)
	}
	if got, ok := ParseDate("Sunday, 05-Mar-40 00:00:00 GMT", base.AddDate(60, 0, 0)); !ok || got.Year() != 2040 {
		t.Errorf("seen from 2086, which reaches to 2136: %v, %v; want 2040", got, ok)
	}
	if got, ok := ParseDate("Tuesday, 29-Feb-00 00:00:00 GMT", time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC)); !ok || got.Year() != 2000 {
		t.Errorf("a day that 2100 has not: %v, %v; want 2000", got, ok)
	}
}

// TestParseDateAsTheStandardLibrary: what time writes is read back.
func TestParseDateAsTheStandardLibrary(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := time.Unix(rapid.Int64Range(-62135596800, 253402300799).Draw(t, "unix"), 0).UTC() // years 1 to 9999
		for _, layout := range []string{http.TimeFormat, time.ANSIC} {
			if got, ok := ParseDate(want.Format(layout), base); !ok || !got.Equal(want) {
				t.Fatalf("ParseDate(%q) = %v, %v", want.Format(layout), got, ok)
			}
		}
		text := want.Format("Monday, 02-Jan-06 15:04:05 GMT")
		if got, ok := ParseDate(text, want); !ok || !got.Equal(want) {
			t.Fatalf("ParseDate(%q) = %v, %v; want %v", text, got, ok, want)
		}
	})
}

func FuzzParseDate(f *testing.F) {
	for _, v := range []string{"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "0", "Tuesday, 29-Feb-00 00:00:00 gmt"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		got, ok := ParseDate(v, base)
		if !ok {
			// Stricter than the standard library, but not in what it writes.
			if std, err := http.ParseTime(v); err == nil && std.Format(http.TimeFormat) == v {
				t.Fatalf("%q was not read", v)
			}
			return
		}
		if strings.Contains(v, ":60") {
			return // a leap second, which time does not know
		}
		std, err := http.ParseTime(strings.ToUpper(strings.Trim(v, " \t")))
		if err != nil {
			t.Fatalf("%q is %v here and nothing to the standard library: %v", v, got, err)
		}
		if !std.Equal(got) && got.Sub(std).Abs() < 99*365*24*time.Hour {
			t.Fatalf("%q is %v here and %v to the standard library", v, got, std)
		}
	})
}

type found struct {
	name, arg string
	has       bool
}

func directives(line string) (all []found, whole bool) {
	whole = eachDirective(line, func(name, arg string, has bool) { all = append(all, found{name, arg, has}) })
	return all, whole
}

func TestDirectives(t *testing.T) {
	t.Parallel()
	tests := []struct {
		line  string
		want  []found
		whole bool
	}{
		{"", nil, true},
		{" , ,", nil, true},
		{"a", []found{{"a", "", false}}, true},
		{"A=B , c", []found{{"a", "B", true}, {"c", "", false}}, true},
		{`a="x,y=z" ,b`, []found{{"a", "x,y=z", true}, {"b", "", false}}, true},
		{`a="x\"y\\"`, []found{{"a", `x"y\`, true}}, true},
		{`a=""`, []found{{"a", "", true}}, true},
		{"a=", []found{{"a", "", true}}, true},
		{"a=b=c", []found{{"a", "b=c", true}}, true},
		{"a =1", []found{{"a", "=1", true}}, true},
		{"a= 1", []found{{"a", " 1", true}}, true},
		{`a="1"2,b`, []found{{"a", "=1", true}, {"b", "", false}}, true},
		{`a="1,b`, []found{{"a", "1", true}, {"b", "", false}}, false},
		{`a="1\`, []found{{"a", `1\`, true}}, false},
		{"=1,b", []found{{"b", "", false}}, true},
	}
	for _, tt := range tests {
		if got, whole := directives(tt.line); !slices.Equal(got, tt.want) || whole != tt.whole {
			t.Errorf("%q: %+v, %v; want %+v, %v", tt.line, got, whole, tt.want, tt.whole)
		}
	}
}

// TestDirectivesRoundTrip: what is written by the grammar is read back.
func TestDirectivesRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var want []found
		var parts []string
		for range rapid.IntRange(0, 6).Draw(t, "n") {
			d := found{name: rapid.StringMatching("[a-z!#$%&'*+.^_`|~-]{1,8}").Draw(t, "name")}
			text := d.name
			switch rapid.IntRange(0, 2).Draw(t, "form") {
			case 1:
				d.has, d.arg = true, rapid.StringMatching("[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,8}").Draw(t, "token")
				text += "=" + d.arg
			case 2:
				d.has, d.arg = true, rapid.StringMatching(`[ -~]{0,8}`).Draw(t, "string")
				text += `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(d.arg) + `"`
			}
			want, parts = append(want, d), append(parts, text)
		}
		line := strings.Join(parts, rapid.SampledFrom([]string{",", ", ", " ,\t", ",,"}).Draw(t, "separator"))
		if got, whole := directives(line); !slices.Equal(got, want) || !whole {
			t.Fatalf("%q: %+v, %v; want %+v", line, got, whole, want)
		}
	})
}

// FuzzCacheControl: whatever stands around them, restrictions outside of
// quoted strings are seen, and nothing panics.
func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{"max-age=5", `private="a`, `x="\`, "no-cache =", "max-age=99999999999999999999", `a="b"c`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h := http.Header{"Cache-Control": {s}, "Cdn-Cache-Control": {s}}
		res := parseResponse(h)
		for _, d := range []delta{res.maxAge, res.sMaxAge, res.staleIfError, res.staleWhileRevalidate} {
			if d.d < 0 || d.d > maxDelta || !d.set && d.d != 0 {
				t.Fatalf("%q: %v", s, d)
			}
		}
		for _, name := range res.fields {
			if name == "" || http.CanonicalHeaderKey(name) != name {
				t.Fatalf("%q names the field %q", s, name)
			}
		}
		for _, line := range []string{"no-store," + s, "x, no-store ," + s} {
			if !parseResponse(http.Header{"Cache-Control": {line}}).noStore {
				t.Fatalf("no-store of %q was not seen", line)
			}
		}
		if !strings.Contains(s, `"`) {
			if r := parseResponse(http.Header{"Cache-Control": {s + ",private"}}); !r.private {
				t.Fatalf("private after %q was not seen", s)
			}
			if q := parseRequest(get("Cache-Control: " + s + ",no-cache")); !q.noCache {
				t.Fatalf("a client's no-cache after %q was not seen", s)
			}
		}
	})
}

// TestTargeted is RFC 9213, 2.1 over RFC 9651, 4.2.2: what parses, and what
// is to be ignored as a whole.
func TestTargeted(t *testing.T) {
	t.Parallel()
	good := []string{
		"max-age=5", "max-age=5;a;b=1", " max-age=5 , x ", "a=1.5, max-age=5", `a="x,\"y\\", max-age=5`, "a=tok/en:x, max-age=5", "a=*x, max-age=5",
		"a=:aGk=:, max-age=5", "a=?1, max-age=5", "a=@17, max-age=5", `a=%"f%c3%bc", max-age=5`, `a=(1 "b" c;d=1);e, max-age=5`, "a=(), max-age=5", "a=( 1 ), max-age=5",
		"max-age=1,max-age=5", "*a.b-c_d=1,\tmax-age=5", "a; b, max-age=5", "a=-1, max-age=5", "max-age=000000000000005",
	}
	for _, line := range good {
		if r, ok := parseTargeted(line); !ok || r.maxAge != (delta{5 * time.Second, true}) || !r.targeted {
			t.Errorf("%q: %+v, %v; want a lifetime of 5 s", line, r.maxAge, ok)
		}
	}
	bad := []string{
		"", " ", ",", "max-age=5,", "max-age=5 x", "Max-Age=5", "max-age =5", "max-age= 5", "max-age", "max-age=", "max-age=5.0", `max-age="5"`, "max-age=five", "max-age=?1",
		"max-age=(5)", "max-age=@5", "max-age=5, a=1.", "max-age=5, a=.5", "max-age=5, a=1.2345", "max-age=5, a=1234567890123456", "max-age=5, a=1234567890123.1",
		`max-age=5, a="x`, `max-age=5, a="\x"`, `max-age=5, a="\`, "max-age=5, a=\"\u00fc\"", "max-age=5, a=:aGk=", "max-age=5, a=?2", "max-age=5, a=?", "max-age=5, a=@x", "max-age=5, a=%x",
		"max-age=5, a=(1", "max-age=5, a=(1,2)", "max-age=5, a=(1;)", "max-age=5;", "max-age=5;A", "max-age=5;a=", "max-age=5, -", "max-age=5, a=-", `max-age=5, a=("x"1)`, "max-age=5, a=%\"x",
		"s-maxage=a", "stale-while-revalidate", `stale-if-error="1"`, "1=2", "max-age=5, &&&",
	}
	for _, line := range bad {
		if r, ok := parseTargeted(line); ok {
			t.Errorf("%q: %+v, want it ignored", line, r)
		}
	}
	r, ok := parseTargeted(`no-store, no-cache, private="x-a, b", public, must-revalidate, proxy-revalidate, must-understand, s-maxage=1, stale-while-revalidate=2, stale-if-error=3`)
	if !ok || !r.noStore || !r.noCache || r.private || !r.public || !r.mustRevalidate || !r.proxyRevalidate || !r.mustUnderstand ||
		r.sMaxAge.d != time.Second || r.staleWhileRevalidate.d != 2*time.Second || r.staleIfError.d != 3*time.Second || !slices.Equal(r.fields, []string{"X-A", "B"}) {
		t.Errorf("all directives: %+v, %v", r, ok)
	}
	if r, ok := parseTargeted("no-store=1, private=tok, public=1, must-revalidate=?0"); !ok || !r.noStore || !r.private || r.public || r.mustRevalidate {
		t.Errorf("flags with values: %+v, %v", r, ok)
	}
}

func TestCacheStatus(t *testing.T) {
	t.Parallel()
	tests := []struct {
		status CacheStatus
		want   string
	}{
		{CacheStatus{Hit: true}, "Larder; hit"},
		{CacheStatus{Hit: true, TTL: 376*time.Second + time.Millisecond, HasTTL: true}, "Larder; hit; ttl=376"},
		{CacheStatus{Hit: true, TTL: -412 * time.Second, HasTTL: true, Detail: ReasonMaxStale}, "Larder; hit; ttl=-412; detail=max-stale"},
		{CacheStatus{Forward: ForwardStale, ForwardStatus: 304, Stored: true, Collapsed: true}, "Larder; fwd=stale; fwd-status=304; stored; collapsed"},
		{CacheStatus{Forward: ForwardMiss, Detail: "no such \"thing\"\r\nX: \\ü"}, `Larder; fwd=uri-miss; detail="no such \"thing\"X: \\"`},
		{CacheStatus{Detail: "9"}, `Larder; detail="9"`},
		{CacheStatus{Detail: "a/b:c"}, "Larder; detail=a/b:c"},
	}
	for _, tt := range tests {
		if got := string(tt.status.Append([]byte("x, "))); got != "x, "+tt.want {
			t.Errorf("%+v: %s, want %s", tt.status, got, "x, "+tt.want)
		}
	}
}

func TestCacheStatusDoesNotAllocate(t *testing.T) {
	c := CacheStatus{Forward: ForwardStale, ForwardStatus: 304, Stored: true, Collapsed: true, Detail: "two words"}
	buf := make([]byte, 0, 200)
	if n := testing.AllocsPerRun(100, func() { buf = c.Append(buf[:0]) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func TestCacheStatusOfDecisions(t *testing.T) {
	t.Parallel()
	const etag = `ETag: "v"`
	tests := []struct {
		d    Decision
		want string
	}{
		{Decide(after(5), Standard, 0, answer("Cache-Control: max-age=60"), get()), "Larder; hit; ttl=55"},
		{Decide(after(65), Standard, 0, answer("Cache-Control: max-age=60"), get("Cache-Control: max-stale")), "Larder; hit; ttl=-5; detail=max-stale"},
		{Decide(after(65), Standard, 0, answer("Cache-Control: max-age=60, stale-while-revalidate=60", etag), get()), "Larder; hit; ttl=-5; detail=stale-while-revalidate"},
		{Decide(after(65), Standard, 0, answer("Cache-Control: max-age=60", etag), get()), "Larder; fwd=stale"},
		{Decide(after(65), Standard, 0, answer("Cache-Control: max-age=60"), get()), "Larder; fwd=stale; detail=no-validator"},
		{Decide(after(5), Standard, 0, answer("Cache-Control: no-cache", etag), get()), "Larder; fwd=stale; detail=no-cache"},
		{Decide(after(5), Standard, 0, answer("Cache-Control: max-age=60", etag), get("Cache-Control: no-cache")), "Larder; fwd=request"},
		{Decide(after(5), Standard, 0, nil, get()), "Larder; fwd=uri-miss"},
		{Decide(after(5), Standard, 0, nil, request("POST")), "Larder; fwd=method"},
		{Decide(after(5), Standard, 0, nil, get("Cache-Control: only-if-cached")), "Larder; detail=only-if-cached"},
		{Decide(after(5), Immutable, 0, answer(), get()), "Larder; hit"},
		{Decide(after(5), Revalidate, time.Minute, answer(), get()), "Larder; hit; ttl=55"},
		{Decide(after(65), Revalidate, time.Minute, answer(etag), get()), "Larder; fwd=stale"},
	}
	for i, tt := range tests {
		c := tt.d.CacheStatus()
		if got := string(c.Append(nil)); got != tt.want {
			t.Errorf("%d: %+v: %s, want %s", i, tt.d, got, tt.want)
		}
	}
}
