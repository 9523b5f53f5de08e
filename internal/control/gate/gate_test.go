package gate

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/db"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/control/seal"
	"larder/internal/fleet"
	"larder/internal/lardertest/dbtest"
	"larder/internal/pki/authority"
)

const (
	nodeID     = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	otherID    = "bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee"
	customerID = "99999999-8888-7777-6666-555555555555"
)

var errBad = errors.New("not a delivery")

// world is a gate with two nodes, and a clock that tests set.
type world struct {
	t     *testing.T
	d     *db.DB
	r     *roster.Roster
	a     *Authorities
	g     *Gate
	lot   *Lot
	table *route.Table

	mu    sync.Mutex
	now   time.Time        // guarded by mu
	taken []fleet.Delivery // guarded by mu
	of    []string         // whose; guarded by mu
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// Take keeps what the gate lets through.
func (w *world) Take(_ context.Context, node, _ string, _ int64, d *fleet.Delivery, _ time.Time) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d.Instance == "" {
		return 0, errBad
	}
	w.taken, w.of = append(w.taken, *d), append(w.of, node)
	return int64(len(w.taken)), nil
}

func newWorld(t *testing.T, d *db.DB) *world {
	t.Helper()
	ctx := t.Context()
	key, err := seal.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, d: d, now: time.Now()}
	if w.r, err = roster.Open(ctx, d, key, nil); err != nil {
		t.Fatal(err)
	}
	if w.a, err = OpenAuthorities(ctx, d, key, "test", w.clock); err != nil {
		t.Fatal(err)
	}
	c := &roster.Customer{Subscription: "s", Group: "g", Name: "c", Location: "l", CustomerID: customerID, Properties: json.RawMessage(`{}`), Provisioning: "Succeeded"}
	err = d.Tx(ctx, func(tx *sql.Tx) error {
		if _, err := w.r.PutGroup(ctx, tx, roster.Group{Subscription: "s", Name: "g", Location: "l", Created: time.Now()}); err != nil {
			return err
		}
		if err := w.r.InsertCustomer(ctx, tx, c); err != nil {
			return err
		}
		for name, id := range map[string]string{"a": nodeID, "b": otherID} {
			n := &roster.Node{NodeID: id, Path: c.Path() + "/enterpriseMccCacheNodes/" + name, Customer: strings.ToLower(c.Path()), Name: name, Location: "l", Properties: json.RawMessage(`{}`), Provisioning: "Succeeded", Created: time.Now()}
			if err := w.r.InsertNode(ctx, tx, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.r.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	w.table = w.gate(w.d)
	return w
}

func (w *world) gate(d *db.DB) *route.Table {
	w.t.Helper()
	g := New(Options{DB: d, Roster: w.r, Authorities: w.a, Taker: w, Lot: w.lot, Now: w.clock,
		Refused: func(err error) *route.Error {
			if errors.Is(err, errBad) {
				return &route.Error{Status: 400, Code: "InvalidReport", Message: err.Error()}
			}
			return nil
		},
		Audit: func(context.Context, db.Queryer, *http.Request, *access.Principal, string, string) error { return nil },
	})
	w.g = g
	table, err := route.New(nil, func(r *http.Request) (*http.Request, error) {
		p, err := g.Recognise(r)
		if err != nil || p == nil {
			return r, err
		}
		return r.WithContext(access.With(r.Context(), p)), nil
	}, g.Routes()...)
	if err != nil {
		w.t.Fatal(err)
	}
	return table
}

// machine is what would be a node.
type machine struct {
	csr   string
	certs []*x509.Certificate
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m, _ := newKeyed(t)
	return m
}

// newKeyed is newMachine with its key.
func newKeyed(t *testing.T) (*machine, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &machine{csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))}, key
}

// ask is a call of a machine, with its certificate if it has one.
func (w *world) ask(m *machine, method, path string, body any, fields ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	var b []byte
	switch v := body.(type) {
	case nil:
	case []byte:
		b = v
	case string:
		b = []byte(v)
	default:
		var err error
		if b, err = json.Marshal(v); err != nil {
			w.t.Fatal(err)
		}
	}
	r := httptest.NewRequest(method, "https://control.example"+path, bytes.NewReader(b)).WithContext(w.t.Context())
	if m != nil {
		r.TLS = &tls.ConnectionState{PeerCertificates: m.certs}
	}
	for _, f := range fields {
		k, v, _ := strings.Cut(f, ": ")
		r.Header.Set(k, v)
	}
	rec := httptest.NewRecorder()
	w.table.ServeHTTP(rec, r)
	return rec
}

// proof is what the command says of a node, with a key that is good.
func (w *world) proof(m *machine, node string) fleet.Registration {
	w.t.Helper()
	req := fleet.Registration{Protocol: fleet.Protocol, CustomerID: customerID, CacheNodeID: node, CSR: m.csr}
	err := w.d.Tx(w.t.Context(), func(tx *sql.Tx) error {
		n, err := w.r.Node(w.t.Context(), tx, node)
		if err != nil {
			return err
		}
		if req.CustomerKey, _, err = w.r.CustomerKeys(w.t.Context(), tx, n.Customer); err != nil {
			return err
		}
		req.RegistrationKey, _, err = w.r.RegistrationKey(w.t.Context(), tx, node, w.clock())
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return req
}

// code is the code of an answer that refuses.
func code(rec *httptest.ResponseRecorder) string {
	var e route.Envelope
	if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil {
		return "no envelope: " + rec.Body.String()
	}
	return e.Error.Code
}

// identity takes over what an answer gave.
func (m *machine) identity(t *testing.T, rec *httptest.ResponseRecorder) fleet.Identity {
	t.Helper()
	var id fleet.Identity
	if err := json.Unmarshal(rec.Body.Bytes(), &id); err != nil || rec.Code != 200 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	m.certs = nil
	for rest := []byte(id.Certificate); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return id
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		m.certs = append(m.certs, c)
	}
}

func (w *world) register(m *machine, node string) fleet.Identity {
	w.t.Helper()
	return m.identity(w.t, w.ask(m, "POST", fleet.PathRegister, w.proof(m, node)))
}

func (w *world) renew(m *machine) *httptest.ResponseRecorder {
	w.t.Helper()
	return w.ask(m, "POST", fleet.PathRenew, fleet.Renewal{Protocol: fleet.Protocol, CSR: m.csr})
}

func (w *world) report(m *machine) *httptest.ResponseRecorder {
	w.t.Helper()
	return w.ask(m, "POST", fleet.PathReports, fleet.Delivery{Protocol: fleet.Protocol, Instance: "i"})
}

func TestRegistration(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		m, thief := newMachine(t), newMachine(t)
		good := w.proof(m, nodeID)
		for name, c := range map[string]struct {
			change func(r *fleet.Registration)
			want   string
		}{
			"another registration key": {func(r *fleet.Registration) { r.RegistrationKey = "x" + r.RegistrationKey[1:] + "y" }, "RegistrationKeyInvalid"},
			"another customer's key":   {func(r *fleet.Registration) { r.CustomerKey += "x" }, "RegistrationKeyInvalid"},
			"another customer":         {func(r *fleet.Registration) { r.CustomerID = nodeID }, "RegistrationKeyInvalid"},
			"another node's key":       {func(r *fleet.Registration) { r.CacheNodeID = otherID }, "RegistrationKeyInvalid"},
			"no such node":             {func(r *fleet.Registration) { r.CacheNodeID = "x" }, "RegistrationKeyInvalid"},
			"no request":               {func(r *fleet.Registration) { r.CSR = "" }, "InvalidParameter"},
			"a broken request": {func(r *fleet.Registration) {
				r.CSR = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
			}, "InvalidParameter"},
			"an old protocol": {func(r *fleet.Registration) { r.Protocol = 0 }, "ProtocolTooOld"},
		} {
			req := good
			c.change(&req)
			rec := w.ask(nil, "POST", fleet.PathRegister, req)
			if rec.Code < 400 || code(rec) != c.want {
				t.Errorf("%s: %d %s, want %s", name, rec.Code, rec.Body, c.want)
			}
			if strings.Contains(rec.Body.String(), good.RegistrationKey) || strings.Contains(rec.Body.String(), good.CustomerKey) {
				t.Errorf("%s: the answer has a key: %s", name, rec.Body)
			}
		}
		id := m.identity(t, w.ask(nil, "POST", fleet.PathRegister, good))
		if id.CacheNodeID != nodeID || id.Line != 1 || !strings.Contains(id.Roots, "BEGIN CERTIFICATE") {
			t.Errorf("got %+v", id)
		}
		// A lost answer is asked for again; another machine is not answered.
		if again := m.identity(t, w.ask(nil, "POST", fleet.PathRegister, good)); again.Line != 1 {
			t.Errorf("asked again, the line is %d", again.Line)
		}
		good.CSR = thief.csr
		if rec := w.ask(nil, "POST", fleet.PathRegister, good); rec.Code != 403 || code(rec) != "RegistrationKeyUsed" {
			t.Errorf("another machine: %d %s", rec.Code, rec.Body)
		}
		if rec := w.report(m); rec.Code != 200 {
			t.Errorf("the node's report: %d %s", rec.Code, rec.Body)
		}
		// Enrolled again elsewhere, the first machine is nobody.
		second := newMachine(t)
		if id := w.register(second, nodeID); id.Line != 2 {
			t.Errorf("the second line is %d", id.Line)
		}
		if err := w.r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rec := w.report(m); rec.Code != 403 || code(rec) != "IdentityRevoked" {
			t.Errorf("the first machine: %d %s", rec.Code, rec.Body)
		}
		if rec := w.renew(m); rec.Code != 403 || code(rec) != "IdentityRevoked" {
			t.Errorf("the first machine renews: %d %s", rec.Code, rec.Body)
		}
		late := w.proof(thief, otherID)
		w.pass(25 * time.Hour)
		if rec := w.ask(nil, "POST", fleet.PathRegister, late); code(rec) != "RegistrationKeyExpired" {
			t.Errorf("a day later: %d %s", rec.Code, rec.Body)
		}
	})
}

// Whoever fails in a loop waits; whoever succeeds does not, however many are
// behind one address.
func TestFailuresAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	for range 2 * triesAtOnce {
		w.register(newMachine(t), nodeID)
	}
	wrong := w.proof(newMachine(t), nodeID)
	wrong.RegistrationKey = "wrong"
	for range triesAtOnce {
		if rec := w.ask(nil, "POST", fleet.PathRegister, wrong); rec.Code != 403 {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
	}
	rec := w.ask(nil, "POST", fleet.PathRegister, wrong)
	if rec.Code != 429 || rec.Header().Get("Retry-After") == "" {
		t.Errorf("after %d failures: %d %s", triesAtOnce, rec.Code, rec.Body)
	}
	w.pass(time.Hour)
	w.register(newMachine(t), nodeID)
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		m := newMachine(t)
		w.register(m, nodeID)
		if rec := w.renew(&machine{csr: m.csr}); rec.Code != 401 || code(rec) != "AuthenticationFailed" {
			t.Errorf("without a certificate: %d %s", rec.Code, rec.Body)
		}
		foreign, err := authority.Create("foreign", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		issued, err := authority.New(foreign).IssueNode(m.csr, nodeID, 1, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(issued.PEM()))
		stranger, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if rec := w.renew(&machine{m.csr, []*x509.Certificate{stranger}}); rec.Code != 401 || code(rec) != "IdentityUnknown" {
			t.Errorf("another authority's: %d %s", rec.Code, rec.Body)
		}
		first := *m
		w.pass(20 * 24 * time.Hour)
		m.identity(t, w.renew(m))
		if rec := w.report(m); rec.Code != 200 {
			t.Errorf("the renewed one reports: %d %s", rec.Code, rec.Body)
		}
		// A copy of the machine, made before, gives itself away when it renews.
		if rec := w.renew(&first); rec.Code != 403 || code(rec) != "IdentityCopied" {
			t.Errorf("the copy: %d %s", rec.Code, rec.Body)
		}
		if n, err := w.r.Node(t.Context(), d, nodeID); err != nil || n.Copied.IsZero() {
			t.Errorf("the copy was not written down: %v", err)
		}
		// It was off for months: it reports no more, and renews.
		w.pass(100 * 24 * time.Hour)
		if rec := w.report(m); rec.Code != 401 || code(rec) != "IdentityExpired" {
			t.Errorf("an expired one reports: %d %s", rec.Code, rec.Body)
		}
		m.identity(t, w.renew(m))
		// Too long, and a person must say so.
		w.pass(250 * 24 * time.Hour)
		if rec := w.renew(m); rec.Code != 403 || code(rec) != "IdentityTooOld" {
			t.Errorf("too old: %d %s", rec.Code, rec.Body)
		}
		if err := w.r.Approve(t.Context(), d, nodeID, w.clock()); err != nil {
			t.Fatal(err)
		}
		m.identity(t, w.renew(m))
		if err := w.r.Revoke(t.Context(), d, nodeID, "stolen", w.clock()); err != nil {
			t.Fatal(err)
		}
		if err := w.r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		for what, rec := range map[string]*httptest.ResponseRecorder{"renews": w.renew(m), "reports": w.report(m)} {
			if rec.Code != 403 || code(rec) != "IdentityRevoked" {
				t.Errorf("a revoked one %s: %d %s", what, rec.Code, rec.Body)
			}
		}
	})
}

func TestDocumentsArePolled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	m := newMachine(t)
	w.register(m, nodeID)
	poll := func(query string) *httptest.ResponseRecorder { return w.ask(m, "GET", fleet.PathDesired+query, nil) }
	if rec := poll("?after=0"); rec.Code != 204 {
		t.Errorf("nothing is desired: %d %s", rec.Code, rec.Body)
	}
	for _, q := range []string{"?after=-1", "?after=x", "?wait=1e3"} {
		if rec := poll(q); rec.Code != 400 {
			t.Errorf("%s: %d %s", q, rec.Code, rec.Body)
		}
	}
	if rec := w.ask(nil, "GET", fleet.PathDesired, nil); rec.Code != 401 {
		t.Errorf("nobody: %d", rec.Code)
	}
	held := make(chan *httptest.ResponseRecorder, 1)
	go func() { held <- poll("?after=0&wait=50") }()
	err := w.d.Tx(t.Context(), func(tx *sql.Tx) error {
		n, err := w.r.Node(t.Context(), tx, nodeID)
		if err != nil {
			return err
		}
		n.Spec.Drain = true
		return w.r.UpdateNode(t.Context(), tx, n)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	rec := <-held
	var doc fleet.Desired
	if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || doc.Number != 1 || doc.Node != nodeID || !doc.Drain {
		t.Errorf("the held poll: %d %s", rec.Code, rec.Body)
	}
	if rec := poll("?after=0"); rec.Code != 200 {
		t.Errorf("who is behind: %d", rec.Code)
	}
	if rec := poll("?after=1"); rec.Code != 204 {
		t.Errorf("who is not: %d", rec.Code)
	}
	if rec := poll("?after=99"); rec.Code != 204 {
		t.Errorf("who is ahead, of a restored back-up: %d", rec.Code)
	}
	// A client that leaves is no longer held.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest("GET", "https://control.example"+fleet.PathDesired+"?after=1&wait=50", nil).WithContext(ctx)
	r.TLS = &tls.ConnectionState{PeerCertificates: m.certs}
	w.table.ServeHTTP(httptest.NewRecorder(), r)
}

func TestReports(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	m := newMachine(t)
	w.register(m, nodeID)
	good := fleet.Delivery{Protocol: fleet.Protocol, Instance: "i", Minutes: []fleet.Minute{{Seq: 1}}}
	text, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	if _, err := zw.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	bomb := func() []byte {
		var b bytes.Buffer
		zw := gzip.NewWriter(&b)
		fmt.Fprintf(zw, `{"instance":%q}`, strings.Repeat("x", 2*maxDelivery))
		zw.Close()
		return b.Bytes()
	}()
	for name, c := range map[string]struct {
		body  any
		field string
		want  int
		code  string
	}{
		"as it is":              {good, "", 200, ""},
		"gzip":                  {z.Bytes(), "Content-Encoding: gzip", 200, ""},
		"of a version to come":  {strings.Replace(string(text), `{"protocol":1`, `{"novelty":{"a":[1]},"protocol":2`, 1), "", 200, ""},
		"of the version before": {strings.Replace(string(text), `{"protocol":1`, `{"protocol":0`, 1), "", 400, "ProtocolTooOld"},
		"not gzip":              {good, "Content-Encoding: gzip", 400, "InvalidRequestContent"},
		"another encoding":      {good, "Content-Encoding: br", 415, "UnsupportedEncoding"},
		"no JSON":               {"{", "", 400, "InvalidRequestContent"},
		"no delivery":           {fleet.Delivery{Protocol: 1}, "", 400, "InvalidReport"},
		"too large":             {fmt.Sprintf(`{"protocol":1,"instance":%q}`, strings.Repeat("x", maxDelivery)), "", 413, "RequestBodyTooLarge"},
		"too large, unpacked":   {bomb, "Content-Encoding: gzip", 413, "RequestBodyTooLarge"},
	} {
		var fields []string
		if c.field != "" {
			fields = append(fields, c.field)
		}
		rec := w.ask(m, "POST", fleet.PathReports, c.body, fields...)
		if rec.Code != c.want || c.code != "" && code(rec) != c.code {
			t.Errorf("%s: %d %s, want %d %s", name, rec.Code, rec.Body, c.want, c.code)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.taken) != 3 || w.of[0] != nodeID {
		t.Errorf("%d were taken, of %v", len(w.taken), w.of)
	}
}

// Two roots follow each other while nodes of both report.
func TestRootsOverlap(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		old := newMachine(t)
		w.register(old, nodeID)
		roots := func() int {
			var a fleet.Accepted
			rec := w.report(old)
			if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil || rec.Code != 200 {
				t.Fatalf("%d %s", rec.Code, rec.Body)
			}
			return strings.Count(a.Roots, "BEGIN CERTIFICATE")
		}
		if n := roots(); n != 1 {
			t.Errorf("%d roots", n)
		}
		if err := w.a.Announce(t.Context(), "next"); err != nil {
			t.Fatal(err)
		}
		if n := roots(); n != 2 {
			t.Errorf("%d roots after the announcement", n)
		}
		if err := w.a.Activate(t.Context()); err != nil {
			t.Fatal(err)
		}
		fresh := newMachine(t)
		w.register(fresh, otherID)
		for _, m := range []*machine{old, fresh} {
			if rec := w.report(m); rec.Code != 200 {
				t.Errorf("%d %s", rec.Code, rec.Body)
			}
		}
		old.identity(t, w.renew(old)) // it is of the next root now
		if err := w.a.Retire(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, m := range []*machine{old, fresh} {
			if rec := w.report(m); rec.Code != 200 {
				t.Errorf("after the old root: %d %s", rec.Code, rec.Body)
			}
		}
		if n := roots(); n != 1 {
			t.Errorf("%d roots after the old one", n)
		}
		// A second replica sees what this one did.
		again, err := OpenAuthorities(t.Context(), d, mustKey(t), "x", w.clock)
		if err != nil || again.Fingerprint() != w.a.Fingerprint() {
			t.Errorf("another replica has %v, %v", again, err)
		}
	})
}

func mustKey(t *testing.T) *seal.Key {
	t.Helper()
	k, err := seal.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// What is sent to register never breaks anything, and is never taken without
// its keys. The database is not there: what would reach it is refused before,
// or fails.
func FuzzRegister(f *testing.F) {
	f.Add([]byte(`{"protocol":1,"customerId":"c","cacheNodeId":"n","customerKey":"k","registrationKey":"r","csr":"x","system":{"os":"linux"}}`))
	f.Add([]byte(`{"protocol":0}`))
	f.Add([]byte(`{"csr":"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n","protocol":1}`))
	f.Add([]byte(`[]`))
	gone, err := sql.Open("sqlite", "file:"+f.TempDir()+"/none/none.db?mode=ro")
	if err != nil {
		f.Fatal(err)
	}
	gone.Close()
	g := New(Options{DB: &db.DB{DB: gone}})
	f.Fuzz(func(t *testing.T, body []byte) {
		rec := httptest.NewRecorder()
		err := g.admit(rec, httptest.NewRequest("POST", "https://control.example"+fleet.PathRegister, bytes.NewReader(body)))
		if err == nil || rec.Body.Len() != 0 {
			t.Fatalf("taken: %q", body)
		}
		var e *route.Error
		if errors.As(err, &e) && (e.Status < 400 || e.Status > 499 || e.Message == "") {
			t.Fatalf("refused with %+v", e)
		}
	})
}
