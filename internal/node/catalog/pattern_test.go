package catalog

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Patterns do what the regular expression they stand for does.
func TestPatternIsItsRegularExpression(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[aB/*]{0,8}`).Draw(t, "pattern")
		s := rapid.StringMatching(`[abAB/]{0,10}`).Draw(t, "path")
		fold := rapid.Bool().Draw(t, "fold")
		expr := "^" + strings.ReplaceAll(regexp.QuoteMeta(text), `\*`, ".*") + "$"
		if fold {
			expr = "(?i)" + expr
		}
		p := newPattern(text, fold)
		if got, want := p.match(s), regexp.MustCompile(expr).MatchString(s); got != want {
			t.Errorf("pattern %q (fold %v) on %q: got %v, want %v", text, fold, s, got, want)
		}
	})
}

func TestNormalHost(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct {
		host string
		kind hostKind
	}{
		"example.com":             {"example.com", nameHost},
		"EXAMPLE.com.":            {"example.com", nameHost},
		"a_b.example":             {"a_b.example", nameHost},
		"bücher.example":          {"xn--bcher-kva.example", nameHost},
		"BÜCHER。example":          {"xn--bcher-kva.example", nameHost},
		"packages":                {"packages", nameHost},
		"7-zip.example":           {"7-zip.example", nameHost},
		"10.1.2.3":                {"10.1.2.3", ipHost},
		"10.1.2.3.":               {"10.1.2.3", ipHost},
		"１０.1.2.3":                {"10.1.2.3", ipHost},
		"::1":                     {"::1", ipHost},
		"[2001:DB8::0:1]":         {"2001:db8::1", ipHost},
		"::ffff:10.1.2.3":         {"10.1.2.3", ipHost},
		"127.1":                   {"", badHost},
		"2130706433":              {"", badHost},
		"0x7f000001":              {"", badHost},
		"0177.0.0.1":              {"", badHost},
		"10.1.2":                  {"", badHost},
		"a.0x1f":                  {"", badHost},
		"":                        {"", badHost},
		".":                       {"", badHost},
		".example.com":            {"", badHost},
		"a..b":                    {"", badHost},
		"example.com..":           {"", badHost},
		"a b":                     {"", badHost},
		"a/b":                     {"", badHost},
		"user@example.com":        {"", badHost},
		"example.com\x00":         {"", badHost},
		"*.example.com":           {"", badHost},
		"example.com:80":          {"", badHost},
		"[::1":                    {"", badHost},
		"fe80::1%eth0":            {"", badHost},
		"\xff.example":            {"", badHost},
		strings.Repeat("a", 64):   {"", badHost},
		strings.Repeat("a.", 130): {"", badHost},
	} {
		host, kind := normalHost(in)
		if host != want.host && kind != badHost || kind != want.kind {
			t.Errorf("normalHost(%q) = %q, %d; want %q, %d", in, host, kind, want.host, want.kind)
		}
		if kind != badHost {
			if again, k := normalHost(host); again != host || k != kind {
				t.Errorf("normalHost(%q) = %q is not stable: %q", in, host, again)
			}
		}
	}
}

func TestNormalPath(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/":                  "/",
		"/a/b.c":             "/a/b.c",
		"/a//b/":             "/a//b/",
		"/%61%7e%2d%5F":      "/a~-_",
		"/a%2fb;c=1/d+e%20f": "/a%2Fb;c=1/d+e%20f",
		"/%c3%a4":            "/%C3%A4",
		"/\xc3\xa4":          "/%C3%A4",
		"/a|b\"":             "/a%7Cb%22",
		"/%25":               "/%25",
		"/%2561":             "/%2561",
		"/.hidden/...":       "/.hidden/...",
		"/a%3fb":             "/a%3Fb",
		"/..a":               "/..a",
		"/@:!$&'()*+,;=":     "/@:!$&'()*+,;=",
		"":                   "!does not begin with a slash",
		"*":                  "!does not begin with a slash",
		"a":                  "!does not begin with a slash",
		"/a b":               "!holds a character that no path may hold",
		"/a\nb":              "!holds a character that no path may hold",
		"/a\\b":              "!holds a character that no path may hold",
		"/a#b":               "!holds a character that no path may hold",
		"/a?b":               "!holds a character that no path may hold",
		"/a%00":              "!holds a character that no path may hold",
		"/a%0D%0Ab":          "!holds a character that no path may hold",
		"/a%5c..":            "!holds a character that no path may hold",
		"/a%7F":              "!holds a character that no path may hold",
		"/a%zz":              "!holds a broken percent-encoding",
		"/a%":                "!holds a broken percent-encoding",
		"/a%4":               "!holds a broken percent-encoding",
		"/.":                 "!holds a dot segment",
		"/a/./b":             "!holds a dot segment",
		"/a/..":              "!holds a dot segment",
		"/a/%2e%2E/b":        "!holds a dot segment",
		"/a/..%2fb":          "!holds a dot segment",
		"/a%2f../b":          "!holds a dot segment",
		"/a%2F%2e%2e":        "!holds a dot segment",
		"/a/..;x=1/b":        "!holds a dot segment",
		"/a/..%3bx/b":        "!holds a dot segment",
	} {
		path, reason := normalPath(in)
		got := path
		if reason != "" {
			got = "!" + reason
		}
		if got != want {
			t.Errorf("normalPath(%q) = %q, want %q", in, got, want)
		}
		if reason == "" {
			if again, _ := normalPath(path); again != path {
				t.Errorf("normalPath(%q) = %q is not stable: %q", in, path, again)
			}
		}
	}
}

func TestAllowedQuery(t *testing.T) {
	t.Parallel()
	allow := []string{"v", "lang"}
	for in, want := range map[string]string{
		"v=1":                "v=1",
		"a=1&v=2&b=3&lang=x": "v=2&lang=x",
		"lang=x&v=2&v=3":     "lang=x&v=2&v=3",
		"%76=1&x=2":          "%76=1", // the origin reads v
		"V=1":                "V=1",
		"a=1;v=2":            "a=1;v=2", // to some origins that is v
		"vv=1&&=":            "",
		"v":                  "v",
		"%zz=1&v=1":          "v=1",
	} {
		if got := allowed(in, allow); got != want {
			t.Errorf("allowed(%q) = %q, want %q", in, got, want)
		}
	}
}
