package main

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"larder/internal/fleet"
	"larder/internal/lardertest"
)

func TestMain(m *testing.M) { lardertest.Main(m) }

// TestNothingIsLostOrDoubled runs a small fleet with quick minutes, whose
// connections end often, on the real control plane and both engines.
func TestNothingIsLostOrDoubled(t *testing.T) {
	if testing.Short() {
		t.Skip("a control plane under load disturbs the tests beside it that measure time; the plain run has it")
	}
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	for _, engine := range []string{"PostgreSQL", "SQLite"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			s := settings{minutes: 2, every: 2 * time.Second, spread: 1, poll: true, reconnect: .3, binary: lardertest.Binary(t)}
			if engine == "SQLite" {
				s.database = "sqlite"
			} else if _, err := findInitdb(); err != nil && os.Getenv("CI") == "" {
				t.Skip(err)
			}
			const nodes = 50
			r, err := simulate(t.Context(), s, nodes, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			for _, err := range r.losses() {
				t.Error(err)
			}
			if len(r.Errors) > 0 || len(r.Said) > 0 {
				t.Errorf("errors of nodes: %v; complaints of the control plane: %v; want none", r.Errors, r.Said)
			}
			if r.Taken.minutes != nodes*2 || r.Taken.requests == 0 || len(r.latencies) != nodes*2 {
				t.Errorf("taken %d minutes with %d requests, %d latencies; want %d minutes, some requests, a latency for each minute", r.Taken.minutes, r.Taken.requests, len(r.latencies), nodes*2)
			}
			// Each node is given its document, and waits for the next after each report.
			if r.Polls <= nodes {
				t.Errorf("%d polls answered, want more than one of each of %d nodes", r.Polls, nodes)
			}
			if r.Cores <= 0 || r.MaxCores < r.Cores || r.Peak < 10 || r.Resident > r.Peak || engine == "PostgreSQL" && r.PostgresCores <= 0 {
				t.Errorf("cores %g, at most %g, PostgreSQL %g, MB %g, at most %g: want more than zero, and no average above the most", r.Cores, r.MaxCores, r.PostgresCores, r.Resident, r.Peak)
			}
			// It is asked when the last report is due; some may be late.
			if n := r.Metrics["larder_telemetry_taken_minutes_total"]; n <= 0 || n > nodes*2 {
				t.Errorf("the control plane counts %g minutes, want some, and %d at most", n, nodes*2)
			}
			var out bytes.Buffer
			write(&out, s, []*result{r})
			if want := fmt.Sprintf("| %d | %d | %d |\n", nodes*2, nodes*2, nodes*2); !strings.Contains(r.Database, engine) || !strings.Contains(out.String(), want) {
				t.Errorf("database %q, table\n%s\nwant %s and a row that ends %q", r.Database, &out, engine, want)
			}
		})
	}
}

func TestADatabaseWithNodesIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, err := configure(dir, filepath.Join(dir, "control.db"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := enrol(t.Context(), file, nodesPerCustomer+1)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, id := range all.identities {
		seen[id.node+id.cert.Leaf.SerialNumber.String()] = true
	}
	if len(seen) != nodesPerCustomer+1 {
		t.Errorf("%d identities, want %d different ones", len(seen), nodesPerCustomer+1)
	}
	if _, err := enrol(t.Context(), file, 1); err == nil || !strings.Contains(err.Error(), "101 nodes, expected an empty one") {
		t.Errorf("a second time: %v, want that it has nodes", err)
	}
}

// TestWhatIsNotTakenWaits has a control plane that refuses a report and cuts the
// connection of another.
func TestWhatIsNotTakenWaits(t *testing.T) {
	t.Parallel()
	var got []fleet.Delivery
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var d fleet.Delivery
		z, err := gzip.NewReader(r.Body)
		if err == nil {
			err = json.NewDecoder(z).Decode(&d)
		}
		if err != nil {
			t.Error(err)
		}
		switch got = append(got, d); len(got) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"error":{"code":"Busy"}}`)
		case 2:
			panic(http.ErrAbortHandler)
		default:
			json.NewEncoder(w).Encode(fleet.Accepted{Seq: d.Minutes[len(d.Minutes)-1].Seq})
		}
	}))
	ts.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	ts.Config.ErrorLog = log.New(io.Discard, "", 0)
	ts.StartTLS()
	defer ts.Close()
	trust := ts.Client().Transport.(*http.Transport).TLSClientConfig
	f := &flock{
		s: settings{minutes: 3, every: time.Second, spread: 1}, tls: &tls.Config{RootCAs: trust.RootCAs, ServerName: "example.com"}, first: time.Now(), errors: map[string]int{},
		dial: dialer{ts.Listener.Addr().String(), func() net.Addr { return nil }},
	}
	n := newNode(f, identity{"some-node", ts.TLS.Certificates[0]}, 0, 0)
	n.report(t.Context())
	n.hangUp()
	if want := (map[string]int{"report: answered 503 Busy": 1, "report: cut": 1}); fmt.Sprint(f.errors) != fmt.Sprint(want) {
		t.Errorf("errors %v, want %v", f.errors, want)
	}
	if n.sent.minutes != 3 || n.taken != n.sent || len(n.latencies) != 3 {
		t.Fatalf("sent %+v, taken %+v, latencies %v; want all of three minutes", n.sent, n.taken, n.latencies)
	}
	// A second after the first failure and two after the next; the second minute
	// waited as well.
	if n.latencies[0] < 3*time.Second || n.latencies[1] < 2*time.Second {
		t.Errorf("latencies %v: want that they begin when a report was due", n.latencies)
	}
	if last := got[2].Minutes; len(last) != 3 && len(last) != 4 || last[0].Seq != 1 {
		t.Errorf("the third delivery holds %d minutes, want all that waited", len(last))
	}
}

func TestMistakesOfFlags(t *testing.T) {
	t.Parallel()
	good := settings{minutes: 1, every: time.Minute, spread: 1}
	for _, tt := range []struct {
		name  string
		nodes int
		sizes string
		with  func(s *settings)
		want  string // "" for none
	}{
		{"one size", 10, "", func(s *settings) {}, ""},
		{"two sizes and a line", 0, "10, 20", func(s *settings) { s.project = 100 }, ""},
		{"no nodes", 0, "", func(s *settings) {}, "found 0"},
		{"no number", 0, "10,x", func(s *settings) {}, `found "10,x"`},
		{"a line through one point", 10, "", func(s *settings) { s.project = 100 }, "two different -sizes"},
		{"one database for two", 0, "1,2", func(s *settings) { s.database = "postgres://x/y" }, "serves one size"},
		{"no minutes", 1, "", func(s *settings) { s.minutes = 0 }, "-minutes"},
		{"quick", 1, "", func(s *settings) { s.every = time.Millisecond }, "-every"},
		{"spread over nothing", 1, "", func(s *settings) { s.spread = 0 }, "-spread"},
		{"more than all", 1, "", func(s *settings) { s.reconnect = 2 }, "-reconnect"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOOS != "linux" {
				t.Skip("reads /proc")
			}
			s := good
			tt.with(&s)
			err := s.complete(tt.nodes, tt.sizes, nil)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestWhatIsLostIsFound(t *testing.T) {
	t.Parallel()
	all := sums{10, 100}
	whole := func() *result {
		return &result{Sent: all, Taken: all, kept: kept{total: all, single: 100, quarters: 10}}
	}
	if found := whole().losses(); len(found) > 0 {
		t.Errorf("nothing is lost: got %v", found)
	}
	// What was cut off may be there or not.
	r := whole()
	r.Taken = sums{9, 90}
	if found := r.losses(); len(found) != 1 {
		t.Errorf("one not acknowledged: got %v, want that alone", found)
	}
	for name, change := range map[string]func(k *kept){
		"a minute is lost":            func(k *kept) { k.total.minutes-- },
		"a minute counts twice":       func(k *kept) { k.quarters++ },
		"requests are lost":           func(k *kept) { k.single-- },
		"requests count twice":        func(k *kept) { k.total.requests++ },
		"another number was the last": func(k *kept) { k.behind = 1 },
	} {
		r := whole()
		change(&r.kept)
		if found := r.losses(); len(found) != 1 {
			t.Errorf("%s: got %v, want one error", name, found)
		}
	}
}

func TestFigures(t *testing.T) {
	t.Parallel()
	r := new(result)
	for i := range 100 {
		r.latencies = append(r.latencies, time.Duration(i+1))
	}
	for p, want := range map[float64]time.Duration{0: 1, .5: 50, .99: 99, 1: 100} {
		if got := r.percentile(p); got != want {
			t.Errorf("percentile %g: got %d, want %d", p, got, want)
		}
	}
	// Half a processor, but for ten seconds in the middle that use a whole one;
	// what is before and after does not count, but for the peak.
	start := time.Unix(1000, 0)
	u := usage{at: start.Add(-time.Second), peak: 300e6}
	var seen []usage
	for i := range 62 {
		seen = append(seen, u)
		used := 500 * time.Millisecond
		if i > 20 && i <= 30 {
			used = time.Second
		}
		u.at, u.plane, u.pg, u.resident = u.at.Add(time.Second), u.plane+used, u.pg+100*time.Millisecond, 100e6
	}
	r.usage(seen, start, start.Add(60*time.Second))
	if fmt.Sprintf("%.3f %.3f %.3f %.0f %.0f", r.Cores, r.MaxCores, r.PostgresCores, r.Peak, r.Resident) != "0.583 1.000 0.100 300 100" {
		t.Errorf("got %.3f cores, %.3f at most, PostgreSQL %.3f, %.0f MB at most, %.0f on average", r.Cores, r.MaxCores, r.PostgresCores, r.Peak, r.Resident)
	}
	bounds := settings{maxCores: .5, maxMB: 200, maxP99: 50}
	if found := r.over(bounds); len(found) != 3 {
		t.Errorf("over three bounds: got %v", found)
	}
	if found := r.over(settings{maxCores: 1, maxMB: 512, maxP99: time.Second}); len(found) > 0 || len(r.over(settings{})) > 0 {
		t.Errorf("within the bounds: got %v", found)
	}
	if l := lineThrough(1000, 30, 10_000, 210); l.at(0) != 10 || l.at(100_000) != 2010 {
		t.Errorf("a line through 30 at 1000 and 210 at 10000: got %g at 0 and %g at 100000, want 10 and 2010", l.at(0), l.at(100_000))
	}
}

func TestADeliveryIsAboutFourKilobytes(t *testing.T) {
	t.Parallel()
	n := newNode(&flock{s: settings{every: time.Minute}}, identity{node: "some-node"}, 7, 0)
	n.step(time.Now())
	b, err := json.Marshal(&fleet.Delivery{Protocol: fleet.Protocol, Instance: n.instance, Sent: time.Now(), State: n.state, Minutes: []fleet.Minute{n.minute(time.Now())}})
	if err != nil || len(b) < 3500 || len(b) > 5500 {
		t.Errorf("%d bytes, %v; want about 4000", len(b), err)
	}
}
