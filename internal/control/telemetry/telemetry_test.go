package telemetry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"larder/internal/control/db"
	"larder/internal/control/telemetry"
	"larder/internal/fleet"
	"larder/internal/lardertest/dbtest"
)

const customer = "/subscriptions/s/resourcegroups/g/providers/microsoft.connectedcache/enterprisemcccustomers/c"

func guid(i int) string { return fmt.Sprintf("aaaaaaaa-0000-0000-0000-%012d", i) }

// records writes a customer with n nodes of line 1, as the roster would.
func records(t testing.TB, d *db.DB, n int) {
	t.Helper()
	exec := func(q string, args ...any) {
		t.Helper()
		if _, err := d.ExecContext(t.Context(), q, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO resource_groups (subscription, key, name, location, created) VALUES ('s', 'g', 'g', 'l', 1)`)
	exec(`INSERT INTO customers (id, subscription, group_key, name, location, customer_id, provisioning, version, primary_key, secondary_key) VALUES ($1, 's', 'g', 'c', 'l', 'cid', 'Succeeded', 1, $2, $2)`, customer, []byte{1})
	for i := range n {
		exec(`INSERT INTO nodes (node_id, id, customer, name, location, provisioning, version, created, line) VALUES ($1, $2, $3, $4, 'l', 'Succeeded', 1, 1, 1)`,
			guid(i), customer+"/enterprisemcccachenodes/n"+fmt.Sprint(i), customer, fmt.Sprintf("n%d", i))
	}
}

func run(t testing.TB, d *db.DB) *telemetry.Service {
	t.Helper()
	s := telemetry.New(telemetry.Options{DB: d})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// noon is a whole quarter of an hour well within all that is kept.
var noon = time.Now().UTC().Truncate(time.Hour).Add(-3 * time.Hour)

func minuteOf(seq int64, at time.Time, n int64) fleet.Minute {
	return fleet.Minute{Seq: seq, Start: at, End: at.Add(time.Minute), Traffic: []fleet.Traffic{
		{ContentType: "windows-update", Requests: 2 * n, Hits: n, HitBytes: 100 * n, MissBytes: 10 * n, Fetched: 10 * n,
			Outcomes: []fleet.Outcome{{Outcome: "hit", Status: "2xx", Requests: n}, {Outcome: "miss", Status: "2xx", Requests: n}}},
		{ContentType: "office", Requests: n, HitBytes: n},
	}, Origins: []fleet.Upstream{{Host: "cdn.example", OK: n, Failures: 1}}}
}

// Whatever is lost on the way back, repeated, or delivered to two replicas at
// once: in the end every minute is counted once, in all spans.
func TestEveryMinuteIsCountedOnce(t *testing.T) {
	t.Parallel()
	dbtest.EachURL(t, func(t *testing.T, url string) {
		open := func() *db.DB {
			d, err := db.Open(t.Context(), url, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { d.Close() })
			return d
		}
		a := open()
		if _, err := a.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		const nodes, minutes = 6, 90
		records(t, a, nodes)
		replicas := []*telemetry.Service{run(t, a), run(t, open())}
		var want int64
		var wg sync.WaitGroup
		for i := range nodes {
			var ms []fleet.Minute
			for m := range minutes {
				n := int64(i*minutes + m)
				want += n
				ms = append(ms, minuteOf(int64(m+1), noon.Add(time.Duration(m)*time.Minute), n))
			}
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			wg.Go(func() {
				var acked int64
				for acked < minutes {
					first := acked
					if rng.IntN(3) == 0 && acked > 0 { // an answer was lost: older ones come again
						first -= rng.Int64N(acked)
					}
					last := min(first+1+rng.Int64N(30), minutes)
					d := &fleet.Delivery{Protocol: 1, Instance: "i", Sent: noon.Add(3 * time.Hour), Minutes: ms[first:last]}
					var both sync.WaitGroup
					for _, r := range replicas[:1+rng.IntN(2)] {
						both.Go(func() {
							seq, err := r.Take(t.Context(), guid(i), customer, 1, d, noon.Add(3*time.Hour))
							if err != nil {
								t.Error(err)
								return
							}
							if seq < last {
								t.Errorf("acknowledged %d of %d", seq, last)
							}
						})
					}
					both.Wait()
					acked = max(acked, last)
				}
			})
		}
		wg.Wait()
		s := replicas[0]
		now := noon.Add(3 * time.Hour)
		for _, grain := range []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 24 * time.Hour} {
			for _, f := range []telemetry.Filter{{}, {Customers: []string{strings.ToUpper(customer)}}, {Nodes: []string{guid(0), guid(1), guid(2), guid(3), guid(4), guid(5)}}} {
				points, _, err := s.Series(t.Context(), f, noon.Add(-25*time.Hour), now, grain, now)
				if err != nil {
					t.Fatal(err)
				}
				var c telemetry.Counts
				for _, p := range points {
					c.Requests += p.Requests
					c.Hits += p.Hits
					c.HitBytes += p.HitBytes
					c.MissBytes += p.MissBytes
					c.FetchedBytes += p.FetchedBytes
				}
				if w := (telemetry.Counts{Requests: 3 * want, Hits: want, HitBytes: 101 * want, MissBytes: 10 * want, FetchedBytes: 10 * want}); c != w {
					t.Errorf("grain %s, filter %+v: got %+v, want %+v", grain, f, c, w)
				}
			}
		}
		kinds, err := s.ByContentType(t.Context(), telemetry.Filter{}, noon, now, now)
		if err != nil || len(kinds) != 2 || kinds[0].Name != "windows-update" || kinds[1].Requests != want {
			t.Errorf("by content type: %+v, %v", kinds, err)
		}
		ends, err := s.Outcomes(t.Context(), telemetry.Filter{}, noon, now)
		if err != nil || len(ends) != 2 || ends[0].Requests != want {
			t.Errorf("outcomes: %+v, %v", ends, err)
		}
		origins, err := s.Origins(t.Context(), telemetry.Filter{}, noon, now)
		if err != nil || len(origins) != 1 || origins[0].OK != want || origins[0].Failures != nodes*minutes || origins[0].Nodes != nodes {
			t.Errorf("origins: %+v, %v", origins, err)
		}
		top, err := s.ByNode(t.Context(), telemetry.Filter{}, noon, now, now, 2)
		if err != nil || len(top) != 2 || top[0].Name != guid(nodes-1) {
			t.Errorf("by node: %+v, %v", top, err)
		}
	})
}

func TestGapsAreNotZeros(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		records(t, d, 2)
		s := run(t, d)
		now := noon.Add(time.Hour)
		quiet := fleet.Minute{Seq: 1, Start: noon, End: noon.Add(time.Minute)}
		if _, err := s.Take(t.Context(), guid(0), customer, 1, &fleet.Delivery{Instance: "i", Sent: now, Minutes: []fleet.Minute{quiet}}, now); err != nil {
			t.Fatal(err)
		}
		for _, f := range []telemetry.Filter{{}, {Nodes: []string{guid(0)}}} {
			points, _, err := s.Series(t.Context(), f, noon, now, 15*time.Minute, now)
			if err != nil || len(points) != 4 || points[0].Gap || !points[1].Gap || !points[3].Gap {
				t.Errorf("filter %+v: got %+v (%v), want one quiet point and three gaps", f, points, err)
			}
		}
		if points, _, err := s.Series(t.Context(), telemetry.Filter{Nodes: []string{guid(1)}}, noon, now, 15*time.Minute, now); err != nil || !points[0].Gap {
			t.Errorf("another node: got %+v (%v), want gaps", points, err)
		}
	})
}

func TestClocksThatAreOffAreCorrected(t *testing.T) {
	t.Parallel()
	d := dbtest.SQLite(t)
	records(t, d, 1)
	s := run(t, d)
	off := 26 * time.Hour
	received := noon.Add(2 * time.Minute)
	del := &fleet.Delivery{Instance: "i", Sent: received.Add(off), Minutes: []fleet.Minute{minuteOf(1, noon.Add(off), 5)}}
	if _, err := s.Take(t.Context(), guid(0), customer, 1, del, received); err != nil {
		t.Fatal(err)
	}
	points, _, err := s.Series(t.Context(), telemetry.Filter{}, noon, noon.Add(time.Minute), time.Minute, noon.Add(time.Hour))
	if err != nil || points[0].Requests != 15 {
		t.Errorf("got %+v (%v), want the minute where it belongs", points, err)
	}
	var micros int64
	if err := d.QueryRowContext(t.Context(), `SELECT clock_off FROM nodes`).Scan(&micros); err != nil || micros != off.Microseconds() {
		t.Errorf("the clock is noted as off by %d µs (%v)", micros, err)
	}
}

// A restart is a new process; a process that comes back after another took its
// place is a copy of the machine.
func TestCopiesAreToldFromRestarts(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		records(t, d, 1)
		s := run(t, d)
		now := noon
		copied := func(instance string) bool {
			t.Helper()
			now = now.Add(time.Minute)
			if _, err := s.Take(t.Context(), guid(0), customer, 1, &fleet.Delivery{Instance: instance, Sent: now}, now); err != nil {
				t.Fatal(err)
			}
			var at int64
			if err := d.QueryRowContext(t.Context(), `SELECT copied FROM nodes`).Scan(&at); err != nil {
				t.Fatal(err)
			}
			return at == db.Micros(now)
		}
		for _, tt := range []struct {
			instance string
			want     bool
		}{{"a", false}, {"a", false}, {"b", false}, {"c", false}, {"c", false}, {"b", true}, {"b", false}, {"c", true}} {
			if got := copied(tt.instance); got != tt.want {
				t.Errorf("after %s: copied %v, want %v", tt.instance, got, tt.want)
			}
		}
	})
}

// What is no delivery is refused. A minute that makes no sense is passed over,
// and stands in the way of nothing: not of the other, not of the state, not of
// those to come.
func TestWhatMakesNoSenseIsPassedOver(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		records(t, d, 1)
		s := run(t, d)
		seq := int64(0)
		good := func() *fleet.Delivery {
			return &fleet.Delivery{Instance: "i", Sent: noon, Minutes: []fleet.Minute{minuteOf(seq+1, noon, 1), minuteOf(seq+2, noon.Add(time.Minute), 1)}, State: fleet.State{Running: seq + 2}}
		}
		for name, tt := range map[string]struct {
			change func(d *fleet.Delivery)
			want   string
		}{
			"no instance":      {func(d *fleet.Delivery) { d.Instance = "" }, "instance"},
			"no word":          {func(d *fleet.Delivery) { d.Instance = "\x00" }, "instance"},
			"backwards":        {func(d *fleet.Delivery) { d.Minutes[1].Seq = 1 }, "minutes[1].seq"},
			"seq 0":            {func(d *fleet.Delivery) { d.Minutes[0].Seq = 0 }, "minutes[0].seq"},
			"too many minutes": {func(d *fleet.Delivery) { d.Minutes = make([]fleet.Minute, fleet.MaxMinutes+1) }, "minutes"},
		} {
			del := good()
			tt.change(del)
			if _, err := s.Take(t.Context(), guid(0), customer, 1, del, noon); !errors.Is(err, telemetry.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want one that names %s", name, err, tt.want)
			}
		}
		if _, err := s.Take(t.Context(), guid(0), customer, 2, good(), noon); !errors.Is(err, telemetry.ErrOldLine) {
			t.Errorf("another line: got %v, want ErrOldLine", err)
		}
		requests := func() (n int64) {
			if err := d.QueryRowContext(t.Context(), `SELECT coalesce(sum(requests), 0) FROM usage WHERE span = 60`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		for name, change := range map[string]func(m *fleet.Minute){
			"a day":            func(m *fleet.Minute) { m.End = noon.Add(24 * time.Hour) },
			"ends before":      func(m *fleet.Minute) { m.End = noon.Add(-time.Second) },
			"no beginning":     func(m *fleet.Minute) { m.Start = time.Time{} },
			"negative":         func(m *fleet.Minute) { m.Traffic[0].HitBytes = -1 },
			"absurd":           func(m *fleet.Minute) { m.Traffic[1].Requests = 1 << 60 },
			"long word":        func(m *fleet.Minute) { m.Traffic[0].ContentType = strings.Repeat("x", 65) },
			"a NUL":            func(m *fleet.Minute) { m.Traffic[0].ContentType = "a\x00b" },
			"a NUL in a host":  func(m *fleet.Minute) { m.Origins[0].Host = "a\x00b" },
			"origin":           func(m *fleet.Minute) { m.Origins[0].OK = -1 },
			"too many types":   func(m *fleet.Minute) { m.Traffic = make([]fleet.Traffic, 65) },
			"outcome negative": func(m *fleet.Minute) { m.Traffic[0].Outcomes[0].Requests = -1 },
		} {
			del := good()
			change(&del.Minutes[0])
			before := requests()
			got, err := s.Take(t.Context(), guid(0), customer, 1, del, noon)
			if err != nil || got != seq+2 || requests()-before != 3 {
				t.Errorf("%s: seq %d (%v), %d requests; want %d and those of the good minute, 3", name, got, err, requests()-before, seq+2)
			}
			var state string
			if err := d.QueryRowContext(t.Context(), `SELECT state FROM nodes WHERE node_id = $1`, guid(0)).Scan(&state); err != nil || !strings.Contains(state, fmt.Sprintf(`"running":%d`, seq+2)) {
				t.Errorf("%s: the state is %s (%v)", name, state, err)
			}
			seq += 2
		}
	})
}

func TestTrimKeepsWhatIsKept(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		records(t, d, 1)
		s := run(t, d)
		if _, err := s.Take(t.Context(), guid(0), customer, 1, &fleet.Delivery{Instance: "i", Sent: noon, Minutes: []fleet.Minute{minuteOf(1, noon, 1)}}, noon); err != nil {
			t.Fatal(err)
		}
		rows := func() (n [3]int) {
			for i, span := range []int{60, 900, 86400} {
				if err := d.QueryRowContext(t.Context(), `SELECT count(*) FROM usage WHERE span = $1`, span).Scan(&n[i]); err != nil {
					t.Fatal(err)
				}
			}
			return n
		}
		for _, tt := range []struct {
			after time.Duration
			want  [3]int
		}{{time.Hour, [3]int{2, 2, 2}}, {72 * time.Hour, [3]int{0, 2, 2}}, {40 * 24 * time.Hour, [3]int{0, 0, 2}}, {1200 * 24 * time.Hour, [3]int{}}} {
			if err := s.Trim(t.Context(), noon.Add(tt.after)); err != nil {
				t.Fatal(err)
			}
			if got := rows(); got != tt.want {
				t.Errorf("after %s: %v rows are left, want %v", tt.after, got, tt.want)
			}
		}
	})
}

func TestMetricsHaveAzureMonitorsShape(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		records(t, d, 2)
		s := run(t, d)
		now := noon.Add(time.Hour)
		if _, err := s.Take(t.Context(), guid(0), customer, 1, &fleet.Delivery{Instance: "i", Sent: noon, Minutes: []fleet.Minute{minuteOf(1, noon, 600)}}, noon); err != nil {
			t.Fatal(err)
		}
		q := telemetry.MetricsQuery{Resource: "/x", Names: []string{"egressbps", "hitRatio", "HITS"}, From: noon, To: noon.Add(2 * time.Minute), Interval: time.Minute, Split: true, Nodes: []string{guid(0)}, Now: now, Aggregations: []string{"Average", "Total"}}
		r, err := s.Metrics(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`"interval":"PT1M"`, `"unit":"BitsPerSecond"`, `"name":{"value":"egressbps"`, `"metadatavalues":[{"name":{"value":"cachenodeid"`, `"value":"` + guid(0) + `"`,
			`"average":8880`, // (101+10)*600 bytes * 8 / 60 s
			`"total":600`,
		} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s is not in\n%s", want, b)
			}
		}
		// Extremes are of minutes, however coarse the span; FULL is one span; a
		// series each of no node is no series.
		if _, err := s.Take(t.Context(), guid(0), customer, 1, &fleet.Delivery{Instance: "i", Sent: noon.Add(16 * time.Minute), Minutes: []fleet.Minute{minuteOf(2, noon.Add(2*time.Minute), 60), minuteOf(3, noon.Add(15*time.Minute), 6)}}, noon.Add(16*time.Minute)); err != nil {
			t.Fatal(err)
		}
		q = telemetry.MetricsQuery{Names: []string{"egressbps", "misses"}, From: noon, To: noon.Add(30 * time.Minute), Interval: 15 * time.Minute, Filter: telemetry.Filter{Customers: []string{customer}},
			Now: now, Aggregations: []string{"average", "minimum", "maximum", "total"}}
		for name, tt := range map[string]struct {
			interval time.Duration
			text     string
			want     []string // of each datum of egressbps: average minimum maximum
			misses   []string // total minimum maximum
		}{
			"a quarter": {15 * time.Minute, "PT15M", []string{"651.2 888 8880", "5.92 88.8 88.8"}, []string{"1320 120 1200", "12 12 12"}},
			"full":      {0, "FULL", []string{"328.56 88.8 8880"}, []string{"1332 12 1200"}},
		} {
			q.Interval = tt.interval
			r, err := s.Metrics(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			var got, misses []string
			for i, d := range r.Value[0].Timeseries[0].Data {
				got = append(got, fmt.Sprintf("%.5g %.5g %.5g", *d.Average, *d.Minimum, *d.Maximum))
				m := r.Value[1].Timeseries[0].Data[i]
				misses = append(misses, fmt.Sprintf("%.5g %.5g %.5g", *m.Total, *m.Minimum, *m.Maximum))
			}
			if r.Interval != tt.text || !slices.Equal(got, tt.want) || !slices.Equal(misses, tt.misses) {
				t.Errorf("%s: %s of %q and %q, want %q and %q", name, r.Interval, got, misses, tt.want, tt.misses)
			}
		}
		q.Split = true
		if r, err := s.Metrics(t.Context(), q); err != nil || len(r.Value) != 2 || len(r.Value[0].Timeseries) != 0 {
			t.Errorf("a series each of no node: %+v, %v", r, err)
		}
		if _, err := s.Metrics(t.Context(), telemetry.MetricsQuery{Names: []string{"cpu"}, From: noon, To: now, Interval: time.Minute, Now: now}); !errors.Is(err, telemetry.ErrInvalid) || !strings.Contains(err.Error(), "hitRatio") {
			t.Errorf("an unknown name: got %v, want one that lists those there are", err)
		}
		o, err := s.Overview(t.Context(), telemetry.Filter{Customers: []string{customer}}, now)
		if err != nil || !o.EgressMaxAt.Equal(noon) || o.Efficiency < 90 || o.EgressMax < 0.0088 {
			t.Errorf("overview: %+v, %v", o, err)
		}
	})
}

// A chart of a million rows is read in a tenth of a second; the short form
// takes a tenth of them.
func TestChartsOfManyRowsAreFast(t *testing.T) {
	t.Parallel()
	rows := 1_000_000
	if testing.Short() {
		rows = 100_000
	}
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		const nodes = 200
		records(t, d, nodes)
		per := rows / nodes / 2 // two content types
		now := time.Now().UTC().Truncate(time.Minute)
		seq := `WITH RECURSIVE s(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM s WHERE i < $1 - 1)`
		if _, err := d.ExecContext(t.Context(), seq+` INSERT INTO usage (span, bucket, customer, node_id, kind, requests, hits, hit, miss, fetched)
			SELECT 60, $2 - s.i * 60, n.customer, n.node_id, k.kind, 10, 9, 900, 100, 100 FROM s, nodes n, (SELECT 'a' AS kind UNION ALL SELECT 'b') k WHERE TRUE`, int64(per), now.Unix()-60); err != nil {
			t.Fatal(err)
		}
		if _, err := d.ExecContext(t.Context(), `INSERT INTO usage_total (span, bucket, customer, minutes, requests, hits, hit, miss, fetched)
			SELECT span, bucket, customer, 1, sum(requests), sum(hits), sum(hit), sum(miss), sum(fetched) FROM usage GROUP BY span, bucket, customer`); err != nil {
			t.Fatal(err)
		}
		if _, err := d.ExecContext(t.Context(), `ANALYZE`); err != nil {
			t.Fatal(err)
		}
		s := telemetry.New(telemetry.Options{DB: d})
		from := now.Add(-24 * time.Hour)
		for name, f := range map[string]telemetry.Filter{"fleet": {}, "customer": {Customers: []string{customer}}, "node": {Nodes: []string{guid(7)}}} {
			best := time.Hour
			for range 3 {
				start := time.Now()
				points, _, err := s.Series(t.Context(), f, from, now, 5*time.Minute, now)
				if err != nil || len(points) < 288 || points[len(points)-2].Requests == 0 {
					t.Fatalf("%d points, %v", len(points), err)
				}
				best = min(best, time.Since(start))
			}
			t.Logf("%s: 24 h by 5 min of %d rows in %s", name, 2*per*nodes, best.Round(100*time.Microsecond))
			// The aim is 100 ms; a machine that does much else gets time.
			if best > time.Second {
				t.Errorf("%s took %s", name, best)
			}
		}
	})
}

func FuzzTimespan(f *testing.F) {
	f.Add("2026-11-26T08:00:00Z/2026-11-26T09:00:00Z")
	f.Add("/")
	f.Fuzz(func(t *testing.T, text string) {
		from, to, err := telemetry.ParseTimespan(text, noon)
		if err == nil && !from.Before(to) {
			t.Errorf("%q: from %s to %s", text, from, to)
		}
	})
}
