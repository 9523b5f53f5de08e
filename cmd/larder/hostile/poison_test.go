package hostile

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// What one request holds besides its key changes nothing for those who come
// after it: the origin here says all that it was told, the way careless ones do,
// and lets everybody keep it.
func TestPoisoning(t *testing.T) {
	t.Parallel()
	n := site(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Cache-Control", "max-age=600")
		host, _, _ := strings.Cut(r.Host, ":")
		fmt.Fprintf(w, "%s %s of %s\n", r.Method, r.RequestURI, host)
		for _, name := range []string{
			"X-Forwarded-Host", "X-Forwarded-Scheme", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Ssl", "X-Forwarded-Path", "X-Host", "X-Original-Host",
			"X-Original-Url", "X-Original-Uri", "X-Rewrite-Url", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "Forwarded", "Front-End-Https", "X-Url-Scheme", "If-Range", "Te", "Upgrade", "Proxy", "X-Hop",
		} {
			for _, v := range r.Header.Values(name) {
				fmt.Fprintf(w, "%s: %s\n", name, v)
			}
		}
		w.Write(body)
	})
	const origin = "127.0.0.1" // the publisher's own, whatever a client says
	for i, attack := range []string{
		"X-Forwarded-Host: evil.test", "X-Forwarded-Scheme: evil", "X-Forwarded-Proto: evil", "X-Forwarded-Port: 666evil", "X-Forwarded-Prefix: /evil", "X-Forwarded-Server: evil.test", "X-Forwarded-Ssl: evil",
		"X-Forwarded-Path: /evil", "X-Host: evil.test", "X-Original-Host: evil.test", "X-Original-URL: /evil", "X-Original-URI: /evil", "X-Rewrite-URL: /evil", "X-HTTP-Method-Override: EVIL", "X-HTTP-Method: EVIL",
		"X-Method-Override: EVIL", "Forwarded: host=evil.test", "Front-End-Https: evil", "X-Url-Scheme: evil", "Range: bytes=0-1", "Range: evil", "If-Range: evil", "TE: evil", "Upgrade: evil", "Proxy: evil",
		"Connection: X-Hop\r\nX-Hop: evil", "Connection: Host, Cache-Control\r\nX-Forwarded-Host: evil", "Content-Length: 4\r\n\r\nevil", "Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0",
		"Cookie: evil=1", "x-forwarded-HOST: evil.test\r\nX-Forwarded-Host: evil.test",
	} {
		path := fmt.Sprintf("/page-%d", i)
		request := "GET " + path + " HTTP/1.1\r\nHost: a.test\r\n" + attack
		say(t, n.HTTP, request+"\r\n\r\n")
		victim := say(t, n.HTTP, "GET "+path+" HTTP/1.1\r\nHost: a.test\r\n\r\n")
		if victim == nil || victim.status != 200 || victim.body != "GET "+path+" of "+origin+"\n" {
			t.Errorf("after %q: %v", attack, victim)
		}
	}
	// Hosts and targets that look like another's.
	for i, attack := range []string{
		"GET %s HTTP/1.1\r\nHost: evil.test\r\n\r\n",
		"GET %s HTTP/1.1\r\nHost: a.test.evil.test\r\n\r\n",
		"GET %s HTTP/1.1\r\nHost: a.test:666\r\n\r\n",
		"GET %s HTTP/1.1\r\nHost: a.test@evil.test\r\n\r\n",
		"GET %s HTTP/1.1\r\nHost: a.test\r\nHost: evil.test\r\n\r\n",
		"GET %s HTTP/1.1\r\nHost: a.test, evil.test\r\n\r\n",
		"GET http://evil.test%s HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET http://a.test@evil.test%s HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET %s?cacheHostOrigin=evil.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET %s HTTP/1.0\r\n\r\n",
		"GET %s#evil HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET %s?evil HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET %s\\evil HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET %s/../evil HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET /evil/..%s HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET /evil/%%2e%%2e%s HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET /evil/..%%2f%s HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET %s%%00evil HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET %s%%0d%%0aX-Evil:%%20evil HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET %s;evil HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET %s/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET /%s HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"HEAD %s HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Host: evil.test\r\n\r\n",
		"POST %s HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nevil",
		"get %s HTTP/1.1\r\nHost: a.test\r\n\r\n",
	} {
		path := fmt.Sprintf("/host-%d", i)
		bad := say(t, n.HTTP, fmt.Sprintf(attack, path))
		if bad != nil && strings.Contains(bad.header.Get("X-Evil"), "evil") {
			t.Errorf("%q splits an answer: %v", attack, bad)
		}
		victim := say(t, n.HTTP, "GET "+path+" HTTP/1.1\r\nHost: a.test\r\n\r\n")
		if victim == nil || victim.status != 200 || victim.body != "GET "+path+" of "+origin+"\n" {
			t.Errorf("after %q (%v): %v", attack, bad, victim)
		}
	}
}

// Whoever sends a victim to a path that looks like a picture does not find the
// victim's page there afterwards.
func TestDeception(t *testing.T) {
	t.Parallel()
	n := site(t, func(w http.ResponseWriter, r *http.Request) {
		switch how := r.URL.Query().Get("how"); how {
		case "nothing":
		case "heuristic":
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		default:
			w.Header().Set("Cache-Control", how)
		}
		if c, err := r.Cookie("session"); err == nil {
			fmt.Fprintf(w, "secret of %s", c.Value)
			return
		}
		if a := r.Header.Get("Authorization"); a != "" {
			fmt.Fprintf(w, "secret of %s", a)
			return
		}
		io.WriteString(w, "sign in")
	})
	for _, path := range []string{"/account", "/account/x.css", "/account.css", "/account;x.css", "/account%2Fx.css", "/account%3Bx.css", "/account%3Fx.css", "/account%23x.css"} {
		for _, how := range []string{"nothing", "private", "no-store", "no-cache", "private,%20max-age=600", "heuristic"} {
			for _, own := range []string{"Cookie: session=victim", "Authorization: Basic victim"} {
				target := fmt.Sprintf("%s?how=%s&%s", path, how, own[:4])
				get := "GET " + target + " HTTP/1.1\r\nHost: a.test\r\n"
				if a := say(t, n.HTTP, get+own+"\r\n\r\n"); a == nil || !strings.Contains(a.body, "secret of") {
					t.Fatalf("%s, the victim: %v", target, a)
				}
				if a := say(t, n.HTTP, get+"\r\n"); a == nil || strings.Contains(a.body, "secret") {
					t.Errorf("%s, the attacker: %v", target, a)
				}
			}
		}
	}
}
