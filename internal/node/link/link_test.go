package link

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/fleet"
	"larder/internal/lardertest"
	"larder/internal/pki/authority"
)

const nodeID = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"

// plane is a control plane that keeps to the protocol, and fails as it is told.
type plane struct {
	t   *testing.T
	ca  *authority.CA
	a   *authority.Authority
	srv *httptest.Server

	handshakes atomic.Int64

	mu       sync.Mutex
	keys     map[string]string // registration keys that are good → ""; or the public key that used one; guarded by mu
	seq      int64             // guarded by mu
	sum      int64             // of requests in minutes that were taken; guarded by mu
	doc      *fleet.Desired    // guarded by mu
	fail     func(path string) int
	lose     func(path string) bool // the answer is lost after all was done
	state    fleet.State
	renewals int
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	ca, err := authority.Create("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{t: t, ca: ca, a: authority.New(ca), keys: map[string]string{"key": ""}}
	server := authority.NewServer(p.a, func() []string { return []string{fleet.ServerName} }, 0)
	p.srv = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.srv.TLS = &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		p.handshakes.Add(1)
		return server.GetCertificate(h)
	}, ClientAuth: tls.RequestClientCert}
	// httptest would show a certificate of its own to those who ask for no name.
	p.srv.StartTLS()
	p.srv.TLS.Certificates = nil
	t.Cleanup(p.srv.Close)
	return p
}

func (p *plane) enrolment() Enrolment {
	return Enrolment{URL: p.srv.URL, Fingerprint: authority.Fingerprint(p.ca.Certificate()), CustomerID: "c", CacheNodeID: nodeID, CustomerKey: "secret-customer-key", RegistrationKey: "key"}
}

func (p *plane) refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error":{"code":%q,"message":"No: %s."}}`, code, code)
}

func (p *plane) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		if status := p.fail(r.URL.Path); status != 0 {
			p.refuse(w, status, "Failing")
			return
		}
	}
	var answer any
	switch r.URL.Path {
	case fleet.PathRegister:
		var req fleet.Registration
		json.NewDecoder(r.Body).Decode(&req)
		i, err := p.a.IssueNode(req.CSR, nodeID, 1, time.Now())
		if err != nil {
			p.refuse(w, 400, "BadRequest")
			return
		}
		used, ok := p.keys[req.RegistrationKey]
		if !ok || used != "" && used != i.SPKI {
			p.refuse(w, 403, "RegistrationKeyUsed")
			return
		}
		p.keys[req.RegistrationKey] = i.SPKI
		answer = fleet.Identity{CacheNodeID: nodeID, Certificate: i.PEM(), Roots: p.a.RootsPEM(), Line: 1}
	case fleet.PathRenew:
		if _, err := p.a.Verify(r.TLS.PeerCertificates, time.Now()); err != nil {
			p.refuse(w, 401, "IdentityUnknown")
			return
		}
		var req fleet.Renewal
		json.NewDecoder(r.Body).Decode(&req)
		i, err := p.a.IssueNode(req.CSR, nodeID, 1, time.Now())
		if err != nil {
			p.refuse(w, 400, "BadRequest")
			return
		}
		p.renewals++
		answer = fleet.Identity{CacheNodeID: nodeID, Certificate: i.PEM(), Roots: p.a.RootsPEM(), Line: 1}
	case fleet.PathDesired:
		var after int64
		fmt.Sscan(r.URL.Query().Get("after"), &after)
		if p.doc == nil || p.doc.Number <= after {
			p.mu.Unlock()
			select {
			case <-time.After(20 * time.Millisecond):
			case <-r.Context().Done():
			}
			p.mu.Lock()
			w.WriteHeader(204)
			return
		}
		answer = p.doc
	case fleet.PathReports:
		if c, err := p.a.Verify(r.TLS.PeerCertificates, time.Now()); err != nil || c.Expired {
			p.refuse(w, 401, "IdentityExpired")
			return
		}
		var d fleet.Delivery
		z, err := gzip.NewReader(r.Body)
		if err == nil {
			err = json.NewDecoder(z).Decode(&d)
		}
		if err != nil {
			p.refuse(w, 400, "BadRequest")
			return
		}
		for i, m := range d.Minutes {
			if i > 0 && m.Seq <= d.Minutes[i-1].Seq {
				p.t.Errorf("minute %d after minute %d", m.Seq, d.Minutes[i-1].Seq)
			}
			if m.Seq > p.seq {
				p.seq = m.Seq
				for _, x := range m.Traffic {
					if x.Requests < 0 {
						p.t.Errorf("a negative count: %+v", x)
					}
					p.sum += x.Requests
				}
			}
		}
		p.state = d.State
		answer = fleet.Accepted{Seq: p.seq, Roots: p.a.RootsPEM(), Time: time.Now()}
	}
	if p.lose != nil && p.lose(r.URL.Path) {
		panic(http.ErrAbortHandler)
	}
	json.NewEncoder(w).Encode(answer)
}

func (p *plane) with(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// counter is a node that counts.
type counter struct {
	mu      sync.Mutex
	n       int64
	applied []int64
	refuse  map[int64]string
}

func (c *counter) Apply(_ context.Context, d *fleet.Desired) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if why := c.refuse[d.Number]; why != "" {
		return errors.New(why)
	}
	c.applied = append(c.applied, d.Number)
	return nil
}

// allow has a document that was refused be taken.
func (c *counter) allow(number int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.refuse, number)
}

func (c *counter) FleetState() fleet.State { return fleet.State{Ready: true} }

func (c *counter) Counters() ([]fleet.Traffic, []fleet.Upstream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return []fleet.Traffic{{ContentType: "x", Requests: c.n}}, nil
}

func (c *counter) serve(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
}

func enrol(t *testing.T, p *plane, dir string) {
	t.Helper()
	if _, err := Enrol(t.Context(), dir, p.enrolment(), fleet.System{OS: "test"}); err != nil {
		t.Fatal(err)
	}
}

// run runs a link of quick minutes until the returned function is called.
func run(t *testing.T, dir string, n Node) (*Link, func()) {
	t.Helper()
	l, err := Open(Config{Dir: dir, Node: n, Interval: 100 * time.Millisecond, Retry: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return l, stop
}

func TestALostAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	dir := t.TempDir()
	p.lose = func(string) bool { return true }
	if _, err := Enrol(t.Context(), dir, p.enrolment(), fleet.System{}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Fatalf("got %v, want an error without secrets", err)
	}
	if _, _, err := Whose(dir); !errors.Is(err, ErrNotEnrolled) {
		t.Errorf("half an enrolment counts: %v", err)
	}
	p.lose = nil
	enrol(t, p, dir)
	if id, url, err := Whose(dir); err != nil || id != nodeID || url != p.srv.URL {
		t.Errorf("got %s at %s, %v", id, url, err)
	}
	// Another machine with the same words is refused, and keeps what it had.
	other := t.TempDir()
	_, err := Enrol(t.Context(), other, p.enrolment(), fleet.System{})
	var no *Refusal
	if !errors.As(err, &no) || no.Code != "RegistrationKeyUsed" {
		t.Errorf("got %v, want RegistrationKeyUsed", err)
	}
	wrong := p.enrolment()
	wrong.Fingerprint = "sha256:" + strings.Repeat("00", 32)
	if _, err := Enrol(t.Context(), other, wrong, fleet.System{}); err == nil || !strings.Contains(err.Error(), "not the control plane") {
		t.Errorf("another root: got %v", err)
	}
}

// Whatever fails on the way, in the end all that was counted is delivered once.
func TestNothingIsLostOrCountedTwice(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	dir := t.TempDir()
	enrol(t, p, dir)
	var turn int
	p.with(func() {
		p.fail = func(path string) int { turn++; return []int{0, 0, 503, 0, 500}[turn%5] }
		p.lose = func(path string) bool { return turn%3 == 0 }
	})
	var total int64
	for restart := range 3 {
		c := &counter{}
		l, stop := run(t, dir, c)
		for i := range 8 {
			n := int64(restart*10 + i + 1)
			c.serve(n)
			total += n
			before := l.cutTime()
			lardertest.Eventually(t, "a minute passes", func() bool { return l.cutTime().After(before) })
		}
		stop()
	}
	p.with(func() { p.fail, p.lose = nil, nil })
	_, stop := run(t, dir, &counter{})
	lardertest.Eventually(t, "all is delivered", func() bool {
		ok := false
		p.with(func() { ok = p.sum == total })
		return ok
	})
	stop()
	p.with(func() {
		if p.sum != total {
			t.Errorf("%d requests were delivered of %d", p.sum, total)
		}
	})
}

func (l *Link) cutTime() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cutAt
}

func TestDocumentsAreAppliedKeptAndRefused(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	dir := t.TempDir()
	enrol(t, p, dir)
	c := &counter{refuse: map[int64]string{3: "drives[0]: no such disk"}}
	p.with(func() { p.doc = &fleet.Desired{Node: nodeID, Number: 2, ClientNames: []string{"cache"}} })
	l, stop := run(t, dir, c)
	lardertest.Eventually(t, "document 2 runs and is told", func() bool {
		ok := false
		p.with(func() { ok = p.state.Running == 2 })
		return ok
	})
	p.with(func() { p.doc = &fleet.Desired{Node: nodeID, Number: 3} })
	lardertest.Eventually(t, "document 3 is refused and why is told", func() bool {
		ok := false
		p.with(func() { ok = p.state.Refused == 3 && p.state.Running == 2 && p.state.Why == "drives[0]: no such disk" })
		return ok
	})
	p.with(func() { p.doc = &fleet.Desired{Node: "another", Number: 9} })
	lardertest.Eventually(t, "another node's document is not taken", func() bool { return strings.Contains(l.Status().Error, "another") })
	stop()
	p.srv.Close()
	again := &counter{}
	l, _ = run(t, dir, again)
	if len(again.applied) != 1 || again.applied[0] != 2 || l.Status().Running != 2 {
		t.Errorf("without the control plane it applied %v, want document 2", again.applied)
	}
}

// A disk that is mounted late is in use when it is there: nobody has to write
// the document anew, or to restart the node.
func TestRefusedDocumentsAreTriedAgain(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	dir := t.TempDir()
	enrol(t, p, dir)
	c := &counter{refuse: map[int64]string{2: "drives[0]: no such disk"}}
	p.with(func() { p.doc = &fleet.Desired{Node: nodeID, Number: 2} })
	l, stop := run(t, dir, c)
	lardertest.Eventually(t, "document 2 is refused", func() bool { return l.Status().Refused == 2 })
	c.allow(2)
	lardertest.Eventually(t, "document 2 runs", func() bool { s := l.Status(); return s.Running == 2 && s.Refused == 0 && s.Why == "" })
	stop()
	// The same at a start, with the control plane gone.
	p.srv.Close()
	c = &counter{refuse: map[int64]string{2: "drives[0]: no such disk"}}
	l, _ = run(t, dir, c)
	if s := l.Status(); s.Running != 0 || s.Refused != 2 || s.Why != "drives[0]: no such disk" {
		t.Errorf("at the start: %+v", s)
	}
	c.allow(2)
	lardertest.Eventually(t, "document 2 runs again", func() bool { return l.Status().Running == 2 })
}

// However many content types and origins there are, a minute is one that the
// control plane takes, and nothing of it is lost.
func TestMinutesHaveTheirMeasure(t *testing.T) {
	t.Parallel()
	now := counters{traffic: map[string]fleet.Traffic{}, origins: map[string]fleet.Upstream{}}
	var requests, failures int64
	for i := range int64(1000) {
		name := fmt.Sprintf("type-%d", i)
		now.traffic[name] = fleet.Traffic{ContentType: name, Requests: i + 1, HitBytes: i, Outcomes: []fleet.Outcome{{Outcome: "hit", Status: "2xx", Requests: i + 1}}}
		now.origins[name] = fleet.Upstream{Host: name, OK: 1, Failures: i % 7}
		requests += i + 1
		failures += i % 7
	}
	ts, us := now.since(counters{})
	if len(ts) != fleet.MaxContentTypes || len(us) != fleet.MaxOrigins || ts[0].ContentType != "type-999" {
		t.Fatalf("%d content types from %s, %d origins", len(ts), ts[0].ContentType, len(us))
	}
	for _, x := range ts {
		requests -= x.Requests
		if len(x.Outcomes) != 1 || x.Outcomes[0].Requests != x.Requests {
			t.Errorf("%s: outcomes %+v of %d requests", x.ContentType, x.Outcomes, x.Requests)
		}
	}
	for _, u := range us {
		failures -= u.Failures
	}
	if requests != 0 || failures != 0 {
		t.Errorf("%d requests and %d failures are lost", requests, failures)
	}
}

// Where the control plane is reached through a proxy alone, enrolment and all
// that follows go through it; where the proxy leads nowhere, they do without.
func TestTheWayThatWorksIsTaken(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	var through atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "CONNECT" || r.Host != "control.invalid:8440" {
			http.Error(w, "not here", http.StatusForbidden)
			return
		}
		up, err := net.Dial("tcp", p.srv.Listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		through.Add(1)
		down, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			io.Copy(up, down)
			up.Close()
		}()
		io.Copy(down, up)
		down.Close()
	}))
	t.Cleanup(proxy.Close)
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	via := func(host string) *url.URL { return u }
	start := func(p *plane, dir, address string) *Link {
		e := p.enrolment()
		e.URL, e.Proxy = address, via
		if _, err := Enrol(t.Context(), dir, e, fleet.System{}); err != nil {
			t.Fatal(err)
		}
		l, err := Open(Config{Dir: dir, Node: &counter{}, Interval: 100 * time.Millisecond, Retry: 5 * time.Millisecond, Proxy: via})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return l
	}
	l := start(p, t.TempDir(), "https://control.invalid:8440")
	lardertest.Eventually(t, "it is connected through the proxy", func() bool { return l.Status().Connected })
	if through.Load() == 0 {
		t.Error("nothing went through the proxy")
	}
	before := through.Load()
	near := newPlane(t)
	l = start(near, t.TempDir(), near.srv.URL)
	lardertest.Eventually(t, "it is connected directly", func() bool { return l.Status().Connected })
	if n := through.Load(); n != before {
		t.Errorf("%d connections went through the proxy, which were not needed", n-before)
	}
	// Neither way leads there: both are told, and no password is.
	e := p.enrolment()
	secret := &url.URL{Scheme: "http", Host: u.Host, User: url.UserPassword("u", "hunter2")}
	e.URL, e.Proxy = "https://elsewhere.invalid:1", func(string) *url.URL { return secret }
	if _, err := Enrol(t.Context(), t.TempDir(), e, fleet.System{}); err == nil || !strings.Contains(err.Error(), "directly: ") || !strings.Contains(err.Error(), "through the proxy: ") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestRootsFollowEachOther(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	dir := t.TempDir()
	enrol(t, p, dir)
	next, err := authority.Create("next", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, _ := run(t, dir, &counter{})
	has := func(n int) bool {
		id, _ := l.current()
		return strings.Count(id.Roots, "BEGIN CERTIFICATE") == n
	}
	lardertest.Eventually(t, "it reports", func() bool { return l.Status().Connected })
	p.a.Replace(p.ca, next.Certificate())
	lardertest.Eventually(t, "it trusts the root that is announced", func() bool { return has(2) })
	p.a.Replace(next, p.ca.Certificate())
	if err := l.renewOnce(t.Context()); err != nil {
		t.Fatalf("renewing by the new root: %v", err)
	}
	p.a.Replace(next)
	lardertest.Eventually(t, "it lets go of the old root", func() bool { return has(1) })
	lardertest.Eventually(t, "and is connected", func() bool { return l.Status().Connected })
}

// A renewal and the news of other roots meet: each keeps what the other brought.
func TestChangesDoNotUndoEachOther(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	dir := t.TempDir()
	enrol(t, p, dir)
	l, err := Open(Config{Dir: dir, Node: &counter{}})
	if err != nil {
		t.Fatal(err)
	}
	first, _ := l.current()
	next, err := authority.Create("next", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	both := authority.New(p.ca, next.Certificate()).RootsPEM()
	renewed := *first
	renewed.Certificate += "\n"
	inside, met := make(chan struct{}), make(chan error, 1)
	go func() {
		<-inside
		met <- l.trust(t.Context(), both)
	}()
	err = l.change(func(now *identity) (*identity, error) {
		close(inside)
		for range 1000 { // for trust to read what is about to be old
			runtime.Gosched()
		}
		return &renewed, renewed.complete()
	})
	if err = errors.Join(err, <-met); err != nil {
		t.Fatal(err)
	}
	for what, id := range map[string]func() (*identity, error){
		"in use":  func() (*identity, error) { id, _ := l.current(); return id, nil },
		"on disk": func() (*identity, error) { return readIdentity(dir) },
	} {
		if id, err := id(); err != nil || id.Certificate != renewed.Certificate || id.Roots != both {
			t.Errorf("%s: %v, the renewed certificate %v, both roots %v", what, err, id.Certificate == renewed.Certificate, id.Roots == both)
		}
	}
}

func TestTheBufferSurvivesWhatHappensToIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now().UTC()
	minute := func(i int) fleet.Minute {
		at := now.Add(time.Duration(i) * time.Minute)
		return fleet.Minute{Start: at, End: at.Add(time.Minute), Traffic: []fleet.Traffic{{ContentType: "x", Requests: int64(i)}}}
	}
	open := func() *buffer {
		t.Helper()
		b, err := openBuffer(dir, nodeID, time.Hour, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	add := func(b *buffer, from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if err := b.add(minute(i), now.Add(time.Duration(i)*time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := open()
	add(b, 0, 5)
	f, err := os.OpenFile(bufferFile(dir), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"seq":6,"sta`) // killed while it wrote
	f.Close()
	b = open()
	if ms := b.next(10); len(ms) != 5 || ms[0].Seq != 1 || ms[4].Seq != 5 {
		t.Fatalf("got %d minutes", len(ms))
	}
	if err := b.acknowledged(5); err != nil {
		t.Fatal(err)
	}
	b = open()
	add(b, 5, 6)
	if ms := b.next(10); len(ms) != 1 || ms[0].Seq != 6 {
		t.Errorf("after all was acknowledged the numbers go on: got %+v", ms)
	}
	add(b, 6, 120) // an hour is kept
	if n, dropped := b.waiting(); n > 62 || dropped < 50 {
		t.Errorf("%d wait and %d were dropped, want an hour's", n, dropped)
	}
	// The directory was put back from a back-up: what it holds was delivered, and
	// numbers go on above what the control plane has.
	b = open()
	if err := b.acknowledged(1000); err != nil {
		t.Fatal(err)
	}
	add(b, 120, 121)
	if ms := b.next(10); len(ms) != 1 || ms[0].Seq != 1001 {
		t.Errorf("after a back-up was put back: got %+v", ms)
	}
	if other, err := openBuffer(dir, "another", time.Hour, 1<<20); err != nil || len(other.minutes) != 0 || other.seq != 0 {
		t.Errorf("another node's minutes are taken for one's own: %v", err)
	}
}

func FuzzBuffer(f *testing.F) {
	f.Add([]byte(`{"node":"` + nodeID + `","seq":3}` + "\n" + `{"seq":4,"start":"2026-11-26T00:00:00Z","end":"2026-11-26T00:01:00Z"}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b := &buffer{node: nodeID}
		b.read(data)
		last := int64(0)
		for _, m := range b.minutes {
			if m.Seq <= last || m.Seq > b.seq {
				t.Errorf("minute %d after %d, the last is %d", m.Seq, last, b.seq)
			}
			last = m.Seq
		}
	})
}

// Polls and deliveries share one connection; a document arrives at once, and is
// reported at once, however long the minutes are.
func TestOneConnectionIsEnough(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	dir := t.TempDir()
	enrol(t, p, dir)
	before := p.handshakes.Load()
	n := &counter{}
	l, err := Open(Config{Dir: dir, Node: n, Interval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	for number := int64(1); number <= 3; number++ {
		p.with(func() { p.doc = &fleet.Desired{Protocol: fleet.Protocol, Node: nodeID, Number: number} })
		lardertest.Eventually(t, "the document runs and is told", func() bool {
			said := int64(0)
			p.with(func() { said = p.state.Running })
			return said == number
		})
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := p.handshakes.Load() - before; got != 1 {
		t.Errorf("%d connections were made", got)
	}
}
