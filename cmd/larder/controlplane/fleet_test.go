package controlplane_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"larder/internal/fleet"
	"larder/internal/lardertest"
	"larder/internal/lardertest/dbtest"
	"larder/internal/node/link"
)

// fleetSize is how many nodes there are; minute how long their minutes are.
const (
	fleetSize = 100
	groups    = 10
	minute    = time.Second
)

// outage is how long PostgreSQL is away. LARDER_OUTAGE=60s makes it what users
// are promised.
func outage(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("LARDER_OUTAGE")
	if text == "" {
		return 5 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// member is a node of the fleet: the real control loop, and something that
// counts in place of a cache.
type member struct {
	t        *testing.T
	n        int
	id       string
	dir      string
	skew     time.Duration
	protocol int
	link     *link.Link
	stop     func() error

	mu      sync.Mutex
	still   bool           // counts no more; guarded by mu
	count   int64          // of this process; guarded by mu
	before  int64          // of those before it; guarded by mu
	applied *fleet.Desired // guarded by mu
}

func (m *member) Apply(_ context.Context, d *fleet.Desired) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied = d
	return nil
}

func (m *member) FleetState() fleet.State {
	return fleet.State{Ready: true, System: fleet.System{Version: "test"}, Drives: []fleet.DriveState{{Path: "/x", State: "ok", Budget: 1 << 30, Free: 1 << 40}}}
}

// Counters serves some requests whenever somebody looks.
func (m *member) Counters() ([]fleet.Traffic, []fleet.Upstream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.still {
		m.count += rand.Int64N(50)
	}
	n := m.count
	return []fleet.Traffic{{ContentType: "windows-update", Requests: n, Hits: n, HitBytes: 1000 * n, Outcomes: []fleet.Outcome{{Outcome: "hit", Status: "2xx", Requests: n}}}},
		[]fleet.Upstream{{Host: "dl.example", OK: n}}
}

// start begins the node's process.
func (m *member) start() {
	m.t.Helper()
	l, err := link.Open(link.Config{Dir: m.dir, Node: m, Interval: minute, Retry: 50 * time.Millisecond, Protocol: m.protocol, Now: func() time.Time { return time.Now().Add(m.skew) }})
	if err == nil {
		err = l.Start(m.t.Context())
	}
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	m.link = l
	m.stop = sync.OnceValue(func() error {
		cancel()
		err := <-done
		m.mu.Lock()
		defer m.mu.Unlock()
		m.before, m.count = m.before+m.count, 0
		return err
	})
}

func (m *member) restart() {
	m.t.Helper()
	if err := m.stop(); err != nil {
		m.t.Error(err)
	}
	m.start()
}

// freeze ends the counting and returns all that was counted.
func (m *member) freeze() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.still = true
	return m.before + m.count
}

// nextVersion builds the binary of a version to come: one protocol number
// higher, with fields that this one does not know in all that is sent.
func nextVersion(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	replace := map[string]string{}
	for _, name := range []string{"fleet.go", "report.go", "desired.go"} {
		file := filepath.Join(root, "internal", "fleet", name)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(b), fmt.Sprintf("const Protocol = %d\n", fleet.Protocol), fmt.Sprintf("const Protocol = %d\n", fleet.Protocol+1), 1)
		text = regexp.MustCompile(`(?m)^type (Desired|Accepted|Delivery|State|Identity) struct \{$`).ReplaceAllString(text, "${0}\n\tNovelty struct{ Kind, Words []string } `json:\"novelty\"`")
		if text == string(b) {
			t.Fatalf("%s has nothing to renew", name)
		}
		replace[file] = filepath.Join(dir, name)
		if err := os.WriteFile(replace[file], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "larder-next")
	if out, err := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "larder/cmd/larder").CombinedOutput(); err != nil {
		t.Fatalf("building the next version: %v\n%s", err, out)
	}
	return binary
}

// replica starts a second control plane beside p, on the same database.
func (p *plane) replica(dir, url string) *plane {
	p.t.Helper()
	q := &plane{t: p.t, dir: dir, token: p.token, client: p.client, sub: p.sub}
	text := fmt.Sprintf("listen: \"127.0.0.1:0\"\nnames: [localhost, 127.0.0.1]\nstate: %q\nkey_file: %q\ndatabase: {url: %q}\n", filepath.Join(dir, "state"), filepath.Join(p.dir, "state", "control.key"), url)
	if err := os.WriteFile(filepath.Join(dir, "control.yaml"), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	q.run()
	return q
}

func (p *plane) address() string { return strings.TrimPrefix(p.url, "https://") }

// again kills a replica as kill -9 does and starts it, of a binary.
func (p *plane) again(binary string) {
	p.t.Helper()
	p.kill()
	if err := os.Remove(filepath.Join(p.dir, "state", "addresses.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	p.binary = binary
	p.run()
}

// enrolFleet makes the records of a fleet and enrols its members.
func (p *plane) enrolFleet(roads []*road) []*member {
	t := p.t
	t.Helper()
	if a := p.do("PUT", p.arm("")+"?api-version=2022-09-01", `{"location":"westeurope"}`); a.status != 201 {
		t.Fatalf("group: %d %s", a.status, a.body)
	}
	p.settle(p.do("PUT", p.arm(customerPath)+"?"+armVersion, `{"location":"westeurope"}`))
	fingerprint := p.fingerprint()
	all := make([]*member, fleetSize)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range all {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			path := p.arm(customerPath) + fmt.Sprintf("/enterpriseMccCacheNodes/node-%03d", i)
			made := p.do("PUT", path+"?"+armVersion, `{"location":"westeurope","properties":{"additionalCacheNodeProperties":{"osType":"Linux","driveConfiguration":[{"physicalPath":"/x","sizeInGb":100}]}}}`)
			p.settle(made)
			var d struct {
				Properties struct{ CustomerID, CacheNodeID, PrimaryAccountKey, RegistrationKey string }
			}
			p.do("POST", path+"/getCacheNodeInstallDetails?"+armVersion, "").into(t, &d)
			m := &member{t: t, n: i, id: d.Properties.CacheNodeID, dir: t.TempDir()}
			all[i] = m
			_, err := link.Enrol(t.Context(), m.dir, link.Enrolment{
				URL: roads[i%groups].url(), Fingerprint: fingerprint, CustomerID: d.Properties.CustomerID, CacheNodeID: m.id,
				CustomerKey: d.Properties.PrimaryAccountKey, RegistrationKey: d.Properties.RegistrationKey,
			}, fleet.System{OS: "linux", Version: "test"})
			if err != nil {
				t.Errorf("node %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return all
}

func (p *plane) fingerprint() string {
	p.t.Helper()
	var roots struct {
		Value []struct{ Fingerprint string }
	}
	p.get("/api/larder/v1/roots", &roots)
	return roots.Value[0].Fingerprint
}

// counted is what the control plane knows of requests.
func (p *plane) counted() int64 {
	p.t.Helper()
	var o struct{ Requests int64 }
	p.get("/api/larder/v1/usage/overview", &o)
	return o.Requests
}

// want changes what all nodes are to be, and waits until all those given run
// it.
func (p *plane) want(rate int64, all, reachable []*member) {
	t := p.t
	t.Helper()
	for _, m := range all {
		if a := p.do("PATCH", "/api/larder/v1/nodes/"+m.id+"/settings", fmt.Sprintf(`{"limit":{"rate":%d}}`, rate)); a.status != 200 {
			t.Fatalf("settings of node %d: %d %s", m.n, a.status, a.body)
		}
	}
	runs(t, rate, reachable)
}

func runs(t *testing.T, rate int64, ms []*member) {
	t.Helper()
	for _, m := range ms {
		lardertest.Eventually(t, fmt.Sprintf("node %d runs the document with rate %d", m.n, rate), func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.applied != nil && m.applied.Limit != nil && m.applied.Limit.Rate == rate
		})
	}
}

// connected waits until all nodes have had an answer again.
func connected(t *testing.T, ms []*member, limit time.Duration) {
	t.Helper()
	over := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, m := range ms {
		for !m.link.Status().Connected {
			select {
			case <-tick.C:
			case <-over:
				t.Fatalf("node %d has had no answer for %s: %s", m.n, limit, m.link.Status().Error)
			}
		}
	}
}

// A hundred nodes and two replicas on one PostgreSQL go through what a year
// brings: roads are cut, clocks are wrong, nodes and replicas are killed and
// started, the database is away, and all of them are upgraded one by one to a
// version that speaks another protocol. In the end every request was counted
// once, and every node runs what is desired of it.
func TestAFleetThroughAYear(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	server := dbtest.NewServer(t)
	url := server.Database(t)
	a := start(t, t.TempDir(), url)
	b := a.replica(t.TempDir(), url)
	next := nextVersion(t)
	roads := make([]*road, groups)
	for i := range roads {
		roads[i] = newRoad(t, a.address(), b.address())
	}
	lead := func() {
		for _, r := range roads {
			r.lead(a.address(), b.address())
		}
	}
	all := a.enrolFleet(roads)
	for i, m := range all {
		switch i / 10 {
		case 8:
			m.skew = 25 * time.Minute
		case 9:
			m.skew = -25 * time.Minute
		}
		m.start()
		t.Cleanup(func() { m.stop() })
	}
	a.want(1000, all, all)

	t.Log("three of ten roads are cut while documents change")
	var near, far []*member
	for i, m := range all {
		if i%groups < 3 {
			far = append(far, m)
		} else {
			near = append(near, m)
		}
	}
	for _, r := range roads[:3] {
		r.close()
	}
	a.want(2000, all, near)
	for _, r := range roads[:3] {
		r.open()
	}
	runs(t, 2000, far)

	t.Log("a replica is killed and comes back elsewhere")
	a.kill()
	b.want(3000, all, all)
	a.again("")
	lead()

	t.Log("nodes are restarted")
	for _, m := range all[:20] {
		m.restart()
	}

	t.Log("PostgreSQL is away")
	server.Stop(t)
	back := time.After(outage(t))
	lardertest.Eventually(t, "a replica says that it is not ready", func() bool { return a.do("GET", "/readyz", "").status == 503 })
	for _, m := range all[20:30] { // nodes start meanwhile, with what they had
		m.restart()
	}
	<-back
	server.Start(t)
	lardertest.Eventually(t, "both replicas are ready again", func() bool {
		return a.do("GET", "/readyz", "").status == 200 && b.do("GET", "/readyz", "").status == 200
	})
	connected(t, all, 30*time.Second+2*outage(t)) // nodes wait longer the longer nobody answers
	a.want(4000, all, all)

	t.Log("replicas and nodes are upgraded one after the other")
	a.again(next)
	lead()
	b.want(5000, all, all)
	for _, m := range all[:50] {
		m.protocol = fleet.Protocol + 1
		m.restart()
	}
	a.want(6000, all, all)
	b.again(next)
	lead()
	for _, m := range all[50:] {
		m.protocol = fleet.Protocol + 1
		m.restart()
	}
	b.want(7000, all, all)

	var want int64
	for _, m := range all {
		want += m.freeze()
	}
	got := int64(-1)
	lardertest.Eventually(t, "everything is delivered", func() bool {
		got = a.counted()
		return got >= want
	})
	if got != want {
		t.Errorf("%d requests were counted, %d were served", got, want)
	}
	var list struct {
		Value []struct {
			Name             string
			State            string
			Reasons          []string
			Running, Desired int64
			ClockOffMs       int64
			Protocol         int
			Enrolments       int
		}
	}
	lardertest.Eventually(t, "all nodes say that they run what is desired", func() bool {
		a.get("/api/larder/v1/nodes", &list)
		for _, n := range list.Value {
			if n.Running != n.Desired {
				return false
			}
		}
		return true
	})
	if len(list.Value) != fleetSize {
		t.Fatalf("%d nodes are known", len(list.Value))
	}
	for i, n := range list.Value {
		if n.State != "Healthy" || n.Enrolments != 1 || n.Protocol != fleet.Protocol+1 {
			t.Errorf("%+v", n)
		}
		if off := time.Duration(n.ClockOffMs) * time.Millisecond; (off - all[i].skew).Abs() > 5*time.Second {
			t.Errorf("the clock of %s is %s off, found %s", n.Name, all[i].skew, off)
		}
	}
	t.Logf("%d requests of %d nodes, counted once", got, fleetSize)
}
