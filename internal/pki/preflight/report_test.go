package preflight

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
	"larder/internal/lardertest/golden"
)

// report is all that is said, with what differs from run to run replaced.
func report(checks []Check, replace ...string) string {
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&b, "[%s] %s: %s\n", c.ID, c.Title, c.Result)
		for _, part := range []struct{ name, text string }{{"found", c.Found}, {"why", c.Why}, {"do", c.Do}} {
			for line := range strings.Lines(part.text) {
				fmt.Fprintf(&b, "  %-6s%s\n", part.name, strings.TrimRight(line, "\n"))
				part.name = ""
			}
		}
	}
	text := strings.NewReplacer(replace...).Replace(b.String())
	text = regexp.MustCompile(`\b[0-9a-f]{64}\b`).ReplaceAllString(text, "SHA256")
	text = regexp.MustCompile(`\b[0-9A-F]{40}\b`).ReplaceAllString(text, "SHA1")
	return regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d UTC`).ReplaceAllString(text, "MOMENT")
}

func TestReportBeforeAnything(t *testing.T) {
	t.Parallel()
	addr, number := freePort(t)
	o := quiet(t, Options{
		HTTPS: []string{addr}, Port: number, Version: "v1.2.0",
		Resolver: resolver(t, map[string][]string{"node1": {"127.0.0.2"}, "node1.example": {"127.0.0.2"}, "2.0.0.127.in-addr.arpa": {"node1.example"}}),
		machine:  here("127.0.0.2", "fe80::1"),
	})
	checks := Run(t.Context(), o)
	golden.Check(t, "testdata/before.golden", report(checks, addr, "127.0.0.1:PORT", fmt.Sprint(number), "PORT", o.Dir, "DIR"))
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for late := time.After(10 * time.Second); ; { // see freePort
		l, err := net.Listen("tcp", addr)
		if err == nil {
			l.Close()
			break
		}
		select {
		case <-again.C:
			continue
		case <-late:
			t.Errorf("the port is not given back: %v", err)
		}
		break
	}
	if _, err := os.Stat(o.Dir); err == nil {
		t.Error("the TLS directory was made")
	}
}

func TestReportAllIsWell(t *testing.T) {
	t.Parallel()
	ca := lardertest.NewCA(t)
	pair := ca.LeafWith(t, lardertest.LeafOptions{NotAfter: time.Now().Add(30*24*time.Hour + time.Hour)}, "cache.example", "127.0.0.1")
	state, addr, number := node(t, pair)
	o := quiet(t, Options{
		HTTPS: []string{addr}, Port: number, Version: "v1.2.0", Node: state, Names: []string{"cache.example", "127.0.0.1"}, Roots: ca.Pool(),
		Resolver: resolver(t, map[string][]string{"cache.example": {"127.0.0.1"}}),
		Seen:     "Thumbprint: " + sha1Of(pair.Cert), Proxy: proxy{leads: map[string]string{fmt.Sprintf("cache.example:%d", number): addr}}.start(t),
	})
	pair.Install(t, o.Dir, "node")
	for _, sub := range []string{"logs", "credentials"} {
		if err := os.Mkdir(filepath.Join(o.Dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	checks := Run(t.Context(), o)
	u, _ := o.Proxy(nil)
	golden.Check(t, "testdata/well.golden", report(checks, addr, "127.0.0.1:PORT", fmt.Sprint(number), "PORT", o.Dir, "DIR", u.Host, "PROXY"))
	for _, c := range checks {
		if c.Result != OK {
			t.Errorf("%s: %s", c.Title, c.Result)
		}
	}
}

func TestReportNothingIsWell(t *testing.T) {
	t.Parallel()
	ca, foreign, trusted := lardertest.NewCA(t), lardertest.NewCA(t), lardertest.NewCA(t)
	pair := ca.LeafWith(t, lardertest.LeafOptions{NotAfter: time.Now().Add(-time.Hour), NotBefore: time.Now().Add(-48 * time.Hour)}, "cache.example")
	other := foreign.Leaf(t, "cache.example")
	state, addr, number := node(t, other)
	state.Version, state.ServedSHA256, state.Account = "v0.9.0", sha256Of(pair.Cert), "nobody-of-this-name"
	o := quiet(t, Options{
		HTTPS: []string{addr, "203.0.113.7:443", ":443x"}, Port: number, Version: "v1.2.0", MinVersion: "v1.0.0", Node: state,
		Names: []string{"cache.example", "gone.example", "*.example"}, Roots: trusted.Pool(), Connect: []string{"no port"},
		Resolver: resolver(t, map[string][]string{"cache.example": {"127.0.0.1", "192.0.2.77"}}),
		Seen:     string(other.CertPEM),
		machine:  &machine{host: "node1", addresses: here("127.0.0.1").addresses, built: time.Now().Add(24 * time.Hour), synchronised: func() (bool, error) { return false, nil }},
	})
	pair.Install(t, o.Dir, "node")
	if err := os.WriteFile(filepath.Join(o.Dir, "logs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/ill.golden", report(Run(t.Context(), o), addr, "127.0.0.1:PORT", fmt.Sprint(number), "PORT", o.Dir, "DIR", "belongs to "+currentAccount(), "belongs to ME"))
}

func TestReportAsJSON(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(Check{ID: IDClock, Title: "Clock", Result: Warning, Found: "f", Why: "w", Do: "d"})
	const want = `{"id":"clock","title":"Clock","result":"warning","found":"f","why":"w","do":"d"}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

// TestOrderDoesNotChange: two runs differ in nothing but what the world does.
func TestOrderDoesNotChange(t *testing.T) {
	t.Parallel()
	state, addr, number := node(t, lardertest.NewCA(t).Leaf(t, "127.0.0.1"))
	leads := map[string][]string{}
	var names []string
	for i := range 30 {
		name := fmt.Sprintf("cache%d.example", i)
		names = append(names, name)
		leads[name] = []string{"127.0.0.1"}
	}
	o := quiet(t, Options{HTTPS: []string{addr}, Node: state, Port: number, Names: names, Resolver: resolver(t, leads), Proxy: proxy{status: "403 Forbidden"}.start(t)})
	first, second := report(Run(t.Context(), o)), report(Run(t.Context(), o))
	if first != second {
		t.Errorf("first\n%s\nthen\n%s", first, second)
	}
	if n := strings.Count(first, "[intercept]"); n != 60 {
		t.Errorf("%d ways, want 60: each name directly and by the proxy", n)
	}
}

// TestWhoeverWaitsCanLeave: nothing waits for those that do not answer once
// the caller has gone.
func TestWhoeverWaitsCanLeave(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 100)
	accepting(t, mute, func(conn net.Conn) {
		asked <- struct{}{}
		_, _ = conn.Read(make([]byte, 1<<16))
		_, _ = conn.Read(make([]byte, 1)) // until the other side leaves
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan []Check, 1)
	o := quiet(t, Options{Connect: []string{mute.Addr().String()}})
	go func() { done <- Run(ctx, o) }()
	<-asked
	start := time.Now()
	cancel()
	c := one(t, <-done, IDIntercept)
	want(t, c, Skipped, "not looked at in time")
	if took := time.Since(start); took > fetchTime/2 {
		t.Errorf("left after %v", took)
	}
}
