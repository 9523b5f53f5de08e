package node

import (
	"net/url"
	"strings"
	"testing"
)

func TestParseAsked(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, target, host string
		tls                bool

		scheme, wantHost, port, upstream string
		named                            bool
		refused                          string
	}{
		{name: "Host", target: "/a/b?x=1", host: "CDN.example", scheme: "http", wantHost: "CDN.example", upstream: "/a/b?x=1"},
		{name: "Host with the node's own port", target: "/a", host: "cdn.example:8080", scheme: "http", wantHost: "cdn.example", upstream: "/a"},
		{name: "over TLS", target: "/a", host: "cdn.example", tls: true, scheme: "https", wantHost: "cdn.example", upstream: "/a"},
		{name: "cacheHostOrigin before Host", target: "/a?cacheHostOrigin=cdn.example", host: "10.0.0.1:80",
			scheme: "http", wantHost: "cdn.example", upstream: "/a", named: true},
		{name: "the last cacheHostOrigin wins and all go", target: "/a?cacheHostOrigin=x.example&b=1&cacheHostOrigin=y.example", host: "node",
			scheme: "http", wantHost: "y.example", upstream: "/a?b=1", named: true},
		{name: "all other bytes stay", target: "/ok/a%2Fb;c=1/d+e%20f?x=%25&y=a+b&&z&cacheHostOrigin=officecdn.microsoft.com", host: "node",
			scheme: "http", wantHost: "officecdn.microsoft.com", upstream: "/ok/a%2Fb;c=1/d+e%20f?x=%25&y=a+b&&z", named: true},
		{name: "in the middle of the query", target: "/a?b=1&cacheHostOrigin=cdn.example&c=2", host: "node",
			scheme: "http", wantHost: "cdn.example", upstream: "/a?b=1&c=2", named: true},
		{name: "case of the name", target: "/a?CACHEHOSTORIGIN=cdn.example", host: "node", scheme: "http", wantHost: "cdn.example", upstream: "/a", named: true},
		{name: "a parameter that only ends so", target: "/a?xcacheHostOrigin=evil.example", host: "cdn.example",
			scheme: "http", wantHost: "cdn.example", upstream: "/a?xcacheHostOrigin=evil.example"},
		{name: "encoded host", target: "/a?cacheHostOrigin=cdn%2Eexample", host: "node", scheme: "http", wantHost: "cdn.example", upstream: "/a", named: true},
		{name: "with a port", target: "/a?cacheHostOrigin=cdn.example:8443", host: "node", scheme: "http", wantHost: "cdn.example", port: "8443", upstream: "/a", named: true},
		{name: "empty query stays", target: "/a?", host: "cdn.example", scheme: "http", wantHost: "cdn.example", upstream: "/a?"},
		{name: "proxy", target: "http://deb.example/pool/x.deb?y", host: "other.example",
			scheme: "http", wantHost: "deb.example", upstream: "/pool/x.deb?y", named: true},
		{name: "proxy without a path", target: "http://deb.example?y", host: "deb.example", scheme: "http", wantHost: "deb.example", upstream: "/?y", named: true},
		{name: "proxy with a port", target: "http://deb.example:3142/x", host: "deb.example", scheme: "http", wantHost: "deb.example", port: "3142", upstream: "/x", named: true},
		{name: "IPv6", target: "/a", host: "[2001:db8::1]:80", scheme: "http", wantHost: "[2001:db8::1]", upstream: "/a"},

		{name: "no host", target: "/a", host: "", refused: "names no host"},
		{name: "star", target: "*", host: "cdn.example", refused: "must be a path"},
		{name: "authority", target: "cdn.example:443", host: "cdn.example", refused: "must be a path"},
		{name: "another scheme", target: "ftp://cdn.example/a", host: "cdn.example", refused: "Only http and https"},
		{name: "user information", target: "http://u@cdn.example/a", host: "cdn.example", refused: "user information"},
		{name: "fragment", target: "/a#b", host: "cdn.example", refused: "fragment"},
		{name: "a slash in cacheHostOrigin", target: "/a?cacheHostOrigin=cdn.example%2Fevil", host: "node", refused: "not a host name"},
		{name: "half an escape", target: "/a?cacheHostOrigin=cdn%2", host: "node", refused: "not a host name"},
		{name: "empty cacheHostOrigin", target: "/a?cacheHostOrigin=", host: "node", refused: "not a host name"},
		{name: "a port that is none", target: "/a?cacheHostOrigin=cdn.example:x", host: "node", refused: "not a host name"},
		{name: "two colons", target: "/a", host: "a:b:c", refused: "not a host name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, sentence, ok := parseAsked(tt.target, tt.host, tt.tls)
			if tt.refused != "" {
				if ok || !strings.Contains(sentence, tt.refused) {
					t.Fatalf("got %+v, %q, %v; want a refusal with %q", a, sentence, ok, tt.refused)
				}
				return
			}
			if !ok {
				t.Fatalf("refused: %s", sentence)
			}
			if a.scheme != tt.scheme || a.host != tt.wantHost || a.port != tt.port || a.target() != tt.upstream || a.named != tt.named {
				t.Errorf("got scheme %q host %q port %q upstream %q named %v; want %q %q %q %q %v",
					a.scheme, a.host, a.port, a.target(), a.named, tt.scheme, tt.wantHost, tt.port, tt.upstream, tt.named)
			}
		})
	}
}

// FuzzParseAsked holds routing against a second reading of the query: no
// cacheHostOrigin is left, what is left is what was there, and a host that
// passes holds nothing a URL parser would cut it at.
func FuzzParseAsked(f *testing.F) {
	for _, s := range []string{"/a?b=1&cacheHostOrigin=x.example", "http://h/p?q", "/a?cacheHostOrigin=%2e", "//x", "/a?&&", "*", "http://[::1]:80/x?cacheHostOrigin=a"} {
		f.Add(s, "cdn.example:80")
	}
	f.Fuzz(func(t *testing.T, target, host string) {
		a, sentence, ok := parseAsked(target, host, false)
		if !ok {
			if sentence == "" {
				t.Fatal("refused without a sentence")
			}
			return
		}
		if a.host == "" || strings.ContainsAny(a.host, "/?#@%\\ &=") {
			t.Fatalf("host %q from %q, %q", a.host, target, host)
		}
		for _, p := range strings.Split(a.query, "&") {
			name, value, found := strings.Cut(p, "=")
			if found && value != "" && strings.EqualFold(name, "cacheHostOrigin") {
				t.Fatalf("%q is left in %q of %q", p, a.query, target)
			}
		}
		var want []string
		_, query, _ := strings.Cut(target, "?")
		last := ""
		for _, p := range strings.Split(query, "&") {
			name, value, found := strings.Cut(p, "=")
			if found && strings.EqualFold(name, "cacheHostOrigin") {
				last = value
				continue
			}
			want = append(want, p)
		}
		if got := a.query; got != strings.Join(want, "&") {
			t.Fatalf("query %q of %q; want %q", got, target, strings.Join(want, "&"))
		}
		if last != "" {
			decoded, err := url.PathUnescape(last)
			if err == nil && !strings.HasPrefix(decoded, a.host) {
				t.Fatalf("host %q, but the last cacheHostOrigin of %q is %q", a.host, target, decoded)
			}
		}
		if !strings.HasPrefix(a.path, "/") {
			t.Fatalf("path %q of %q", a.path, target)
		}
	})
}
