package main_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// Who is asked for, over the wire, and what answers say.

// keepPublisher keeps the query in the key.
const keepPublisher = labPublisher + "query: keep\n"

func TestTargetForms(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{publisher: keepPublisher})
	port := l.HTTP[strings.LastIndexByte(l.HTTP, ':')+1:]
	for i, tt := range []struct {
		target, host string
		upstream     string // target at the origin, %d the number of the case
		at           string // Host at the origin
	}{
		{"/f%d?cacheHostOrigin=cdn.test", "node", "/f%d", "cdn.test"},
		{"/f%d?cacheHostOrigin=CDN.Test", "node", "/f%d", "cdn.test"},
		{"/f%d?cacheHostOrigin=cdn%%2Etest", "node", "/f%d", "cdn.test"},
		{"/f%d?cacheHostOrigin=eu.cdn.test.", "node", "/f%d", "eu.cdn.test"},
		{"/f%d?CACHEHOSTORIGIN=cdn.test", "node", "/f%d", "cdn.test"},
		{"/f%d?cacheHostOrigin=evil.example&cacheHostOrigin=cdn.test", "node", "/f%d", "cdn.test"},
		{"/f%d?cacheHostOrigin=evil.example&a=1&cacheHostOrigin=eu.cdn.test&b=2", "node", "/f%d?a=1&b=2", "eu.cdn.test"},
		{"/f%d?x=%%25&y=a+b&z=%%c3%%BC&&=&q=?/:@!$'()*,;&cacheHostOrigin=cdn.test", "node", "/f%d?x=%%25&y=a+b&z=%%c3%%BC&&=&q=?/:@!$'()*,;", "cdn.test"},
		{"/f%d?a=1&cacheHostOriginal=x&cacheHostOrigin=cdn.test", "node", "/f%d?a=1&cacheHostOriginal=x", "cdn.test"},
		{"/f%d?cacheHostOrigin=cdn.test:80", "node", "/f%d", "cdn.test"},
		{"/f%d?cacheHostOrigin=cdn.test", "evil.example", "/f%d", "cdn.test"},
		{"/f%d/%%7e%%2F%%2f/a;b=c//d", "cdn.test", "/f%d/%%7e%%2F%%2f/a;b=c//d", "cdn.test"},
		{"/f%d/(a)[b]{c}'d'|e^f`g\"h", "cdn.test", "/f%d/(a)[b]{c}'d'|e^f`g\"h", "cdn.test"},
		{"/f%d/更新/ü.bin?ä=ö", "cdn.test", "/f%d/更新/ü.bin?ä=ö", "cdn.test"},
		{"/f%d?", "cdn.test", "/f%d?", "cdn.test"},
		{"/f%d", "CDN.TEST:" + port, "/f%d", "cdn.test"},
		{"http://cdn.test/f%d?a=b", "node", "/f%d?a=b", "cdn.test"},
		{"HTTP://cdn.test:80/f%d", "node", "/f%d", "cdn.test"},
		{"http://evil.example/f%d?cacheHostOrigin=cdn.test", "node", "/f%d", "cdn.test"},
		{"http://cdn.test/f%d", "evil.example", "/f%d", "cdn.test"},
	} {
		target, upstream := fmt.Sprintf(tt.target, i), fmt.Sprintf(tt.upstream, i)
		t.Run(target, func(t *testing.T) {
			path, _, _ := strings.Cut(upstream, "?")
			l.origin.Add(path, 1000)
			r := ask(t, question{addr: l.HTTP, target: target, host: tt.host})
			r.wantContent(t, path, 1, 1000, 0, 1000)
			q := l.origin.RequestsFor(path)
			if len(q) != 1 || q[0].Target != upstream || q[0].Host != tt.at {
				t.Fatalf("the origin was asked for\n%s, the last at %s; want %s at %s", l.askedFor(path), q[len(q)-1].Host, upstream, tt.at)
			}
			if ae := q[0].Header.Get("Accept-Encoding"); ae != "identity" || q[0].Header.Get("X-Forwarded-For") != "" {
				t.Errorf("sent upstream:\n%s", q[0].Head)
			}
		})
	}
}

func TestTargetRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{})
	for _, tt := range []struct {
		target, host string
		status       int
	}{
		{"/a", "elsewhere.test", 403},
		{"/a?cacheHostOrigin=elsewhere.test", cdnHost, 403},
		{"/a?cacheHostOrigin=cdn.test&cacheHostOrigin=elsewhere.test", "node", 403},
		{"http://elsewhere.test/a", cdnHost, 403},
		{"/a", "127.0.0.1", 403},
		{"/a?cacheHostOrigin=127.0.0.1", "node", 403},
		{"/a?cacheHostOrigin=169.254.169.254", "node", 403},
		{"/a?cacheHostOrigin=[::1]", "node", 403},
		{"/a?cacheHostOrigin=[::ffff:127.0.0.1]", "node", 403},
		{"/a?cacheHostOrigin=2130706433", "node", 403},
		{"/a?cacheHostOrigin=0x7f.1", "node", 403},
		{"/a?cacheHostOrigin=localhost", "node", 403},
		{"/a?cacheHostOrigin=", "node", 400},
		{"/a?cacheHostOrigin=a b", "node", 400},
		{"/a?cacheHostOrigin=cdn.test%00.evil", "node", 400},
		{"/a?cacheHostOrigin=cdn.test%0d%0aX:y", "node", 400},
		{"/a?cacheHostOrigin=me@cdn.test", "node", 400},
		{"http://me:pw@cdn.test/a", "node", 400},
		{"ftp://cdn.test/a", "node", 400},
		{"/a/../b", cdnHost, 403},
		{"/a/%2e%2E/b", cdnHost, 403},
		{"/a/..%2fb", cdnHost, 403},
		{"/a\\b", cdnHost, 403},
		{"/a%00b", cdnHost, 403},
		{"/a%zz", cdnHost, 403},
		{"/a#b", cdnHost, 400},
		{"*", cdnHost, 400},
	} {
		t.Run(tt.target+" at "+tt.host, func(t *testing.T) {
			r := ask(t, question{addr: l.HTTP, target: tt.target, host: tt.host})
			if r.status != tt.status {
				t.Errorf("got %d, want %d: %s", r.status, tt.status, r.body)
			}
			r.wantSentence(t)
			if cs := r.header.Get("Cache-Status"); tt.status == 403 && cs != "Larder; detail=refused" {
				t.Errorf("Cache-Status %q", cs)
			}
			r.wantQuick(t, time.Second)
		})
	}
	if q := l.origin.Requests(); len(q) != 0 {
		t.Errorf("the origin was asked %d times, first for %s", len(q), q[0].Target)
	}
}

func TestTargetOtherPortsAndMethods(t *testing.T) {
	t.Parallel()
	// The file names an address, so the port of the request does not lead anywhere.
	l := newLab(t, labOptions{files: map[string]string{
		"catalog.d/dns.yaml": `{name: dns, hosts: [dns.test], freshness: immutable}`,
	}})
	for _, target := range []string{"/a?cacheHostOrigin=dns.test:8080", "http://dns.test:22/a"} {
		r := ask(t, question{addr: l.HTTP, target: target, host: "node"})
		r.want(t, http.StatusForbidden)
		r.wantSentence(t)
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PURGE"} {
		target := "/a"
		if method == "CONNECT" {
			target = "cdn.test:443"
		}
		r := ask(t, question{addr: l.HTTP, method: method, target: target})
		if r.status != http.StatusMethodNotAllowed && !(method == "CONNECT" && r.status == http.StatusBadRequest) {
			t.Errorf("%s: got %d", method, r.status)
		}
	}
	if q := l.origin.Requests(); len(q) != 0 {
		t.Errorf("the origin was asked %d times", len(q))
	}
}

// wrapped returns a program that runs the node in a name space of its own in
// which prepare was done first, or skips the test.
func wrapped(t *testing.T, dir, prepare string) string {
	t.Helper()
	needRoot(t, "a mount name space")
	check := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-c", prepare)
	if out, err := check.CombinedOutput(); err != nil {
		t.Skipf("this machine has no mount name spaces: %v: %s", err, out)
	}
	name := filepath.Join(dir, "larder-wrapped")
	script := fmt.Sprintf("#!/bin/sh\nexec unshare -m sh -c '%s && exec \"$0\" \"$@\"' %q \"$@\"\n", prepare, lardertest.Binary(t))
	if err := os.WriteFile(name, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

// Names of the catalogue whose addresses are private, as after DNS rebinding.
func TestTargetPrivateAddressesAfterResolution(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hosts := "127.0.0.1 localhost\n127.0.0.1 loop.rebind.example\n10.0.0.1 ten.rebind.example\n169.254.169.254 link.rebind.example\n" +
		"100.64.0.1 cgnat.rebind.example\n::1 six.rebind.example\n::ffff:127.0.0.1 mapped.rebind.example\nfd00::1 ula.rebind.example\n0.0.0.0 zero.rebind.example\n"
	if err := os.WriteFile(filepath.Join(dir, "hosts"), []byte(hosts), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, labOptions{
		dir:    dir,
		binary: wrapped(t, dir, "mount --bind \""+dir+"/hosts\" /etc/hosts"),
		files:  map[string]string{"catalog.d/rebind.yaml": `{name: rebind, hosts: ["*.rebind.example"], freshness: immutable}`},
	})
	for _, name := range []string{"loop", "ten", "link", "cgnat", "six", "mapped", "ula", "zero"} {
		r := ask(t, question{addr: l.HTTP, host: name + ".rebind.example", target: "/" + name})
		r.want(t, http.StatusBadGateway)
		r.wantQuick(t, time.Second)
		r.wantSentence(t)
	}
	if got := l.Metric("larder_origin_requests_total", "outcome", "forbidden"); got != 8 {
		t.Errorf("%v requests were forbidden, want 8", got)
	}
}

func TestLoopGuard(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{})
	l.origin.Add("/a", 1000)
	via := l.get(t, "/a").header.Get("Via")
	for _, received := range []string{
		via, "1.1 other, " + via, via + ", 1.0 other (a, b)", strings.ToUpper(via), strings.Replace(via, "1.1 ", "HTTP/1.1 ", 1), "1.1 x (, " + via,
	} {
		r := l.get(t, "/a", "Via: "+received)
		r.want(t, http.StatusLoopDetected)
		r.wantSentence(t)
	}
	l.get(t, "/a", "Via: 1.1 larder-0000000000000000").wantContent(t, "/a", 1, 1000, 0, 1000)
	l.get(t, "/a", "Via: 1.1 other, 1.1 another").wantContent(t, "/a", 1, 1000, 0, 1000)
}

func TestLoopOfTwoNodes(t *testing.T) {
	t.Parallel()
	for _, freshness := range []string{"immutable", "standard"} {
		t.Run(freshness, func(t *testing.T) {
			t.Parallel()
			loop := func(to string) string {
				return fmt.Sprintf("{name: loop, hosts: [loop.test], freshness: %s, origin: {scheme: http, address: %q}}", freshness, to)
			}
			a := newLab(t, labOptions{plain: true})
			b := newLab(t, labOptions{plain: true, origin: a.origin, files: map[string]string{"catalog.d/loop.yaml": loop(a.HTTP)}})
			if err := os.WriteFile(a.Dir+"/catalog.d/loop.yaml", []byte(loop(b.HTTP)), 0o600); err != nil {
				t.Fatal(err)
			}
			lardertest.Eventually(t, "the catalogue is reloaded", func() bool { return a.Metric("larder_node_catalog_publishers") == 2 })
			for _, l := range []*lab{a, b} {
				r := ask(t, question{addr: l.HTTP, host: "loop.test", target: "/round"})
				if want := map[string]int{"immutable": http.StatusBadGateway, "standard": http.StatusLoopDetected}[freshness]; r.status != want {
					t.Errorf("got %d, want %d: %s", r.status, want, r.body)
				}
				r.wantQuick(t, 3*time.Second)
			}
			if n := a.Metric("larder_node_requests_total") + b.Metric("larder_node_requests_total"); n > 8 {
				t.Errorf("%v requests for two that went round", n)
			}
		})
	}
}

func TestLoopToItself(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{plain: true})
	self := fmt.Sprintf("{name: self, hosts: [self.test], freshness: immutable, origin: {scheme: http, address: %q}}", l.HTTP)
	if err := os.WriteFile(l.Dir+"/catalog.d/self.yaml", []byte(self), 0o600); err != nil {
		t.Fatal(err)
	}
	lardertest.Eventually(t, "the catalogue is reloaded", func() bool { return l.Metric("larder_node_catalog_publishers") == 2 })
	r := ask(t, question{addr: l.HTTP, host: "self.test", target: "/round"})
	r.want(t, http.StatusLoopDetected)
	r.wantSentence(t)
}

func TestCurlAsProxy(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl here")
	}
	l := newLab(t, labOptions{})
	l.origin.Add("/pool/x.deb", 2*mib)
	out, err := exec.CommandContext(t.Context(), curl, "-sS", "--fail", "--noproxy", "", "-x", "http://"+l.HTTP, "http://cdn.test/pool/x.deb").Output()
	if err != nil || len(out) != 2*mib || lardertest.Content("/pool/x.deb", 1, 2*mib).Wrong(out, 0) != 0 {
		t.Errorf("curl -x: %v, %d bytes", err, len(out))
	}
	out, err = exec.CommandContext(t.Context(), curl, "-sS", "--noproxy", "*", "--cacert", l.Dir+"/none", "-k", "-H", "Host: cdn.test",
		"-w", "%{http_version} %{http_code}", "-o", "/dev/null", "https://"+l.HTTPS+"/pool/x.deb").Output()
	if err != nil || string(out) != "1.1 200" {
		t.Errorf("curl to HTTPS: %v, %q", err, out)
	}
}
