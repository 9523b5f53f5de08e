package gate

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
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
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
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
	noted []string         // what was audited; guarded by mu
	mute  error            // what auditing fails with; guarded by mu
}

// Audit notes what happened.
func (w *world) Audit(_ context.Context, _ db.Queryer, _ *http.Request, actor *access.Principal, action, target string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mute == nil {
		w.noted = append(w.noted, strings.Join([]string{actor.ID, action, target}, " "))
	}
	return w.mute
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
		Audit: w.Audit,
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

// replica is another control plane on the same database. What the others do it
// learns when it looks.
func (w *world) replica() *world {
	w.t.Helper()
	r, err := roster.Open(w.t.Context(), w.d, mustKey(w.t), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	other := &world{t: w.t, d: w.d, r: r, a: w.a, now: w.clock()}
	other.table = other.gate(w.d)
	return other
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
func newKeyed(t testing.TB) (*machine, *ecdsa.PrivateKey) {
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
		if k == "from" {
			r.RemoteAddr = v
			continue
		}
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

// A registration and the audit's word of it are one: without the other, neither
// is there, and the key is as good as before.
func TestRegistrationsAreAudited(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		m := newMachine(t)
		good := w.proof(m, nodeID)
		w.mu.Lock()
		w.mute = errors.New("db01.example: the audit is full")
		w.mu.Unlock()
		if rec := w.ask(nil, "POST", fleet.PathRegister, good); rec.Code != 500 || strings.Contains(rec.Body.String(), "db01") {
			t.Errorf("without the audit: %d %s", rec.Code, rec.Body)
		}
		if ids, err := w.r.Identities(t.Context(), d, nodeID); err != nil || len(ids) != 0 {
			t.Errorf("%d identities were written down, %v", len(ids), err)
		}
		w.mu.Lock()
		w.mute = nil
		w.mu.Unlock()
		if id := m.identity(t, w.ask(nil, "POST", fleet.PathRegister, good)); id.Line != 1 {
			t.Errorf("the line is %d", id.Line)
		}
		want := nodeID + " node.register /subscriptions/s/resourceGroups/g/providers/Microsoft.ConnectedCache/enterpriseMccCustomers/c/enterpriseMccCacheNodes/a"
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.noted) != 1 || w.noted[0] != want {
			t.Errorf("noted was %q, want %q", w.noted, want)
		}
	})
}

// A lost answer is asked for again for an hour, by whoever has the key of the
// request; what a person did in between counts.
func TestAskingAgain(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		m := newMachine(t)
		good := w.proof(m, nodeID)
		first := m.identity(t, w.ask(nil, "POST", fleet.PathRegister, good))
		w.pass(roster.Again - time.Minute)
		again := m.identity(t, w.ask(nil, "POST", fleet.PathRegister, good))
		if again.Line != first.Line || again.Certificate == first.Certificate {
			t.Errorf("the line is %d, as before %d; the certificate must be another", again.Line, first.Line)
		}
		if rec := w.report(m); rec.Code != 200 {
			t.Errorf("its report: %d %s", rec.Code, rec.Body)
		}
		if err := w.r.Revoke(t.Context(), d, nodeID, "stolen", w.clock()); err != nil {
			t.Fatal(err)
		}
		if err := w.r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rec := w.ask(nil, "POST", fleet.PathRegister, good); rec.Code == 200 {
			m.identity(t, rec)
		}
		for what, rec := range map[string]*httptest.ResponseRecorder{"reports": w.report(m), "renews": w.renew(m)} {
			if rec.Code != 403 || code(rec) != "IdentityRevoked" {
				t.Errorf("revoked within the hour, it %s: %d %s", what, rec.Code, rec.Body)
			}
		}
		w.pass(2 * time.Minute)
		if rec := w.ask(nil, "POST", fleet.PathRegister, good); rec.Code != 403 || code(rec) != "RegistrationKeyUsed" {
			t.Errorf("after the hour: %d %s", rec.Code, rec.Body)
		}
		// Several machines with one key at the same time: it is good once.
		machines := []*machine{newMachine(t), newMachine(t), newMachine(t), newMachine(t)}
		good = w.proof(m, nodeID)
		recs := make([]*httptest.ResponseRecorder, len(machines))
		var wg sync.WaitGroup
		for i, m := range machines {
			req := good
			req.CSR = m.csr
			wg.Go(func() { recs[i] = w.ask(nil, "POST", fleet.PathRegister, req) })
		}
		wg.Wait()
		taken := 0
		for _, rec := range recs {
			if rec.Code == 200 {
				taken++
			} else if rec.Code != 403 || code(rec) != "RegistrationKeyUsed" {
				t.Errorf("at the same time: %d %s", rec.Code, rec.Body)
			}
		}
		if taken != 1 {
			t.Errorf("%d machines registered with one key", taken)
		}
	})
}

// requestOf makes a PKCS#10 request as a broken or mean machine does.
func requestOf(t *testing.T, key crypto.Signer, kind string, spoil bool) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	if spoil {
		der[len(der)-1] ^= 1 // of the signature
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// What is no registration or renewal is refused in words, by its field, and
// costs neither the key nor the identity.
func TestGarbage(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		m := newMachine(t)
		good := w.proof(m, nodeID)
		ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		odd, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		type refused struct {
			body         any
			want         int
			code, target string
		}
		bodies := map[string]refused{
			"nothing":       {"", 400, "InvalidRequestContent", ""},
			"null":          {"null", 400, "ProtocolTooOld", "protocol"},
			"a list":        {"[]", 400, "InvalidRequestContent", ""},
			"a word":        {`"x"`, 400, "InvalidRequestContent", ""},
			"no JSON":       {"\x00\xff{", 400, "InvalidRequestContent", ""},
			"half":          {`{"protocol":1,"csr":"`, 400, "InvalidRequestContent", ""},
			"two":           {"{}{}", 400, "InvalidRequestContent", ""},
			"a wrong type":  {`{"protocol":"1"}`, 400, "InvalidRequestContent", "protocol"},
			"a list of csr": {`{"protocol":1,"csr":["x"]}`, 400, "InvalidRequestContent", "csr"},
			"much":          {`{"csr":"` + strings.Repeat("x", route.MaxBody) + `"}`, 413, "RequestBodyTooLarge", ""},
		}
		requests := map[string]string{
			"none":                    "",
			"no PEM":                  "MIIB",
			"PEM of nothing":          "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n",
			"another kind":            requestOf(t, ec, "PRIVATE KEY", false),
			"not signed by its key":   requestOf(t, ec, "CERTIFICATE REQUEST", true),
			"of another kind of key":  requestOf(t, odd, "CERTIFICATE REQUEST", false),
			"longer than any request": requestOf(t, ec, "CERTIFICATE REQUEST", false) + strings.Repeat("\n", 100_000),
		}
		check := func(m *machine, path string, all map[string]refused) {
			t.Helper()
			for name, c := range all {
				rec := w.ask(m, "POST", path, c.body)
				var e route.Envelope
				if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil || rec.Code != c.want || e.Error.Code != c.code || e.Error.Target != c.target || e.Error.Message == "" {
					t.Errorf("%s, %s: %d %s, want %d %s %q", path, name, rec.Code, rec.Body, c.want, c.code, c.target)
				}
				if strings.Contains(rec.Body.String(), good.RegistrationKey) || strings.Contains(rec.Body.String(), good.CustomerKey) {
					t.Errorf("%s, %s: the answer has a key: %s", path, name, rec.Body)
				}
			}
		}
		registrations, renewals := map[string]refused{}, map[string]refused{}
		for name, csr := range requests {
			req := good
			req.CSR = csr
			registrations[name] = refused{req, 400, "InvalidParameter", "csr"}
			renewals[name] = refused{fleet.Renewal{Protocol: fleet.Protocol, CSR: csr}, 400, "InvalidParameter", "csr"}
		}
		check(nil, fleet.PathRegister, bodies)
		check(nil, fleet.PathRegister, registrations)
		if id := m.identity(t, w.ask(nil, "POST", fleet.PathRegister, good)); id.Line != 1 {
			t.Errorf("after all that the line is %d", id.Line)
		}
		check(m, fleet.PathRenew, bodies)
		check(m, fleet.PathRenew, renewals)
		before := m.certs[0].SerialNumber
		m.identity(t, w.renew(m))
		if m.certs[0].SerialNumber.Cmp(before) == 0 {
			t.Error("the renewed identity is the old one")
		}
		if ids, err := w.r.Identities(t.Context(), d, nodeID); err != nil || len(ids) != 2 {
			t.Errorf("%d identities were written down, %v", len(ids), err)
		}
	})
}

// from posts to path from an address.
func (w *world) from(addr string, m *machine, path string, body any) *httptest.ResponseRecorder {
	w.t.Helper()
	return w.ask(m, "POST", path, body, "from: "+addr)
}

// The failures of one address keep no other from registering; while it waits it
// may not register with a good key either, and is told until when.
func TestFailuresAreOfTheirAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	m := newMachine(t)
	good := w.proof(m, nodeID)
	wrong := good
	wrong.CustomerKey = "wrong"
	const bad, fine = "198.51.100.1:1", "198.51.100.2:1"
	for i := range triesAtOnce {
		body := any(wrong)
		if i%2 == 0 {
			body = "{" // what is no registration counts as well
		}
		if rec := w.from(bad, nil, fleet.PathRegister, body); rec.Code != 403 && rec.Code != 400 {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
	}
	rec := w.from(bad, nil, fleet.PathRegister, good)
	after, err := strconv.Atoi(rec.Header().Get("Retry-After"))
	if rec.Code != 429 || code(rec) != "TooManyRequests" || err != nil || after < 1 {
		t.Errorf("the right key after %d failures: %d %v %s", triesAtOnce, rec.Code, rec.Header(), rec.Body)
	}
	if id := m.identity(t, w.from(fine, nil, fleet.PathRegister, good)); id.Line != 1 {
		t.Errorf("elsewhere: the line is %d", id.Line)
	}
	w.pass(time.Duration(after) * time.Second)
	if rec := w.from(bad, nil, fleet.PathRegister, good); rec.Code != 200 {
		t.Errorf("when it has waited: %d %s", rec.Code, rec.Body)
	}
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

// An identity renews by itself until 180 days after its end; after that once, if
// a person said so after it had ended.
func TestHowLongIdentitiesRenew(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		after    time.Duration // its end
		approved time.Duration // likewise; 0: never
		want     string        // "": renewed
	}{
		"fresh":                   {time.Minute - authority.NodeLife, 0, ""},
		"about to end":            {-time.Minute, 0, ""},
		"ended":                   {time.Minute, 0, ""},
		"ended in spring":         {authority.RenewLimit - time.Minute, 0, ""},
		"too long ago":            {authority.RenewLimit + time.Minute, 0, "IdentityTooOld"},
		"years ago":               {5 * 365 * 24 * time.Hour, 0, "IdentityTooOld"},
		"approved":                {authority.RenewLimit + time.Hour, authority.RenewLimit + time.Minute, ""},
		"approved before its end": {authority.RenewLimit + time.Hour, -time.Minute, "IdentityTooOld"},
		"long before it begins":   {-authority.NodeLife - 26*time.Hour, 0, "IdentityUnknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, dbtest.SQLite(t))
			m := newMachine(t)
			w.register(m, nodeID)
			end := m.certs[0].NotAfter
			if c.approved != 0 {
				if err := w.r.Approve(t.Context(), w.d, nodeID, end.Add(c.approved)); err != nil {
					t.Fatal(err)
				}
			}
			w.pass(end.Add(c.after).Sub(w.clock()))
			old := *m
			rec := w.renew(m)
			if c.want != "" {
				if rec.Code < 400 || code(rec) != c.want {
					t.Errorf("%d %s, want %s", rec.Code, rec.Body, c.want)
				}
				return
			}
			if id := m.identity(t, rec); id.Line != 1 || id.CacheNodeID != nodeID {
				t.Errorf("got %+v", id)
			}
			// The answer may be lost: it is asked for again until it was used.
			m.identity(t, w.renew(&old))
			if rec := w.report(m); rec.Code != 200 {
				t.Errorf("it reports: %d %s", rec.Code, rec.Body)
			}
			if rec := w.renew(&old); rec.Code != 403 || code(rec) != "IdentityCopied" {
				t.Errorf("the one before: %d %s", rec.Code, rec.Body)
			}
			if c.approved == 0 {
				return
			}
			// The approval was for that one.
			w.pass(m.certs[0].NotAfter.Add(authority.RenewLimit + time.Minute).Sub(w.clock()))
			if rec := w.renew(m); rec.Code != 403 || code(rec) != "IdentityTooOld" {
				t.Errorf("the next time: %d %s", rec.Code, rec.Body)
			}
		})
	}
}

// A replica that has not heard yet of what another did renews nothing that is no
// longer good: it asks the database.
func TestRenewalAsksTheDatabase(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(w *world){
		"enrolled again": func(w *world) { w.register(newMachine(w.t), nodeID) },
		"revoked": func(w *world) {
			if err := w.r.Revoke(w.t.Context(), w.d, nodeID, "stolen", w.clock()); err != nil {
				w.t.Fatal(err)
			}
		},
		"deleted": func(w *world) {
			err := w.d.Tx(w.t.Context(), func(tx *sql.Tx) error {
				n, err := w.r.Node(w.t.Context(), tx, nodeID)
				if err != nil {
					return err
				}
				return w.r.DeleteNode(w.t.Context(), tx, n, w.clock())
			})
			if err != nil {
				w.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dbtest.Each(t, func(t *testing.T, d *db.DB) {
				w := newWorld(t, d)
				m := newMachine(t)
				w.register(m, nodeID)
				other := w.replica()
				if rec := other.report(m); rec.Code != 200 {
					t.Fatalf("%d %s", rec.Code, rec.Body)
				}
				do(w)
				if rec := other.renew(m); rec.Code != 403 || code(rec) != "IdentityRevoked" {
					t.Errorf("it renews: %d %s", rec.Code, rec.Body)
				}
				if err := other.r.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
				if rec := other.report(m); rec.Code != 403 || code(rec) != "IdentityRevoked" {
					t.Errorf("it reports when the replica knows: %d %s", rec.Code, rec.Body)
				}
			})
		})
	}
}

// A replica takes nodes, and lines, that it has not heard of yet.
func TestReplicasLearnFromIdentities(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		other := w.replica()
		const thirdID = "cccccccc-bbbb-cccc-dddd-eeeeeeeeeeee"
		err := d.Tx(t.Context(), func(tx *sql.Tx) error {
			n, err := w.r.Node(t.Context(), tx, nodeID)
			if err != nil {
				return err
			}
			n.NodeID, n.Name, n.Path = thirdID, "third", n.Path+"-third"
			return w.r.InsertNode(t.Context(), tx, n)
		})
		if err != nil {
			t.Fatal(err)
		}
		third := newMachine(t)
		w.register(third, thirdID)
		if rec := other.report(third); rec.Code != 200 {
			t.Errorf("a node that is new: %d %s", rec.Code, rec.Body)
		}
		for line := int64(1); line <= 2; line++ {
			m := newMachine(t)
			if id := w.register(m, nodeID); id.Line != line {
				t.Fatalf("the line is %d", id.Line)
			}
			if rec := other.report(m); rec.Code != 200 {
				t.Errorf("line %d: %d %s", line, rec.Code, rec.Body)
			}
		}
	})
}

// overTLS is a client with an identity, as a node is one, that talks to srv.
func overTLS(t *testing.T, srv *httptest.Server, key crypto.PrivateKey, chain ...*x509.Certificate) func(method, path string, body any) (int, string, error) {
	t.Helper()
	tr := srv.Client().Transport.(*http.Transport).Clone()
	if len(chain) > 0 {
		pair := tls.Certificate{PrivateKey: key}
		for _, c := range chain {
			pair.Certificate = append(pair.Certificate, c.Raw)
		}
		// Whatever the server asks for: it takes ones of authorities it does not name.
		tr.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	t.Cleanup(tr.CloseIdleConnections)
	client := &http.Client{Transport: tr}
	return func(method, path string, body any) (int, string, error) {
		t.Helper()
		text, ok := body.(string)
		if !ok {
			b, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
}

// Over TLS: who a node is, is what its connection proves, and nothing that it
// says.
func TestNodesAreTheirConnections(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		srv := httptest.NewUnstartedServer(w.table)
		srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshakes that fail
		srv.StartTLS()
		t.Cleanup(srv.Close)
		stranger := overTLS(t, srv, nil)
		a, aKey := newKeyed(t)
		b, bKey := newKeyed(t)
		for m, node := range map[*machine]string{a: nodeID, b: otherID} {
			status, body, err := stranger("POST", fleet.PathRegister, w.proof(m, node))
			if err != nil || status != 200 {
				t.Fatalf("%d %s, %v", status, body, err)
			}
			rec := httptest.NewRecorder()
			rec.WriteString(body)
			if id := m.identity(t, rec); id.CacheNodeID != node {
				t.Errorf("got %+v", id)
			}
		}
		report := fleet.Delivery{Protocol: fleet.Protocol, Instance: "i"}
		asA, asB := overTLS(t, srv, aKey, a.certs...), overTLS(t, srv, bKey, b.certs...)
		for _, ask := range []func(string, string, any) (int, string, error){asA, asB} {
			if status, body, err := ask("POST", fleet.PathReports, report); err != nil || status != 200 {
				t.Errorf("a report: %d %s, %v", status, body, err)
			}
		}
		// A body, or a query, that names the other node changes nothing.
		if status, body, err := asB("POST", fleet.PathReports+"?node="+nodeID, `{"protocol":1,"instance":"i","node":"`+nodeID+`","cacheNodeId":"`+nodeID+`"}`); err != nil || status != 200 {
			t.Errorf("a report: %d %s, %v", status, body, err)
		}
		w.drive(true) // of the first node
		if status, body, err := asA("GET", fleet.PathDesired, ""); err != nil || status != 200 || !strings.Contains(body, nodeID) {
			t.Errorf("its document: %d %s, %v", status, body, err)
		}
		if status, body, err := asB("GET", fleet.PathDesired+"?node="+nodeID, ""); err != nil || status != 204 || body != "" {
			t.Errorf("the other node gets %d %s, %v", status, body, err)
		}
		// The other's certificate is no secret. Without its key, it opens nothing; and
		// behind the own one, it is not looked at.
		if status, body, err := overTLS(t, srv, bKey, a.certs...)("POST", fleet.PathReports, report); err == nil {
			t.Errorf("with the other's certificate: %d %s", status, body)
		}
		if status, body, err := overTLS(t, srv, bKey, b.certs[0], a.certs[0])("POST", fleet.PathReports, report); err != nil || status != 200 {
			t.Errorf("with the other's behind its own: %d %s, %v", status, body, err)
		}
		server, err := w.a.Authority().IssueServer(bKey.Public(), []string{fleet.ServerName}, 0, w.clock())
		if err == nil {
			t.Errorf("a certificate without a life: %v", server.NotAfter)
		}
		if server, err = w.a.Authority().IssueServer(bKey.Public(), []string{fleet.ServerName}, time.Hour, w.clock()); err != nil {
			t.Fatal(err)
		}
		for what, ask := range map[string]func(string, string, any) (int, string, error){
			"nobody": stranger, "the control plane's own": overTLS(t, srv, bKey, server.Chain...), "self-signed": overTLS(t, srv, bKey, selfSigned(t, bKey)),
		} {
			for _, path := range []string{fleet.PathReports, fleet.PathRenew} {
				status, body, err := ask("POST", path, report)
				if err != nil || status != 401 || !strings.Contains(body, `"code":"AuthenticationFailed"`) && !strings.Contains(body, `"code":"IdentityUnknown"`) {
					t.Errorf("%s at %s: %d %s, %v", what, path, status, body, err)
				}
			}
		}
		// It was off for months, and comes with a new key.
		w.pass(authority.NodeLife + 100*24*time.Hour)
		if status, body, err := asA("POST", fleet.PathReports, report); err != nil || status != 401 || !strings.Contains(body, "IdentityExpired") {
			t.Errorf("an expired one reports: %d %s, %v", status, body, err)
		}
		next, nextKey := newKeyed(t)
		status, body, err := asA("POST", fleet.PathRenew, fleet.Renewal{Protocol: fleet.Protocol, CSR: next.csr})
		if err != nil || status != 200 {
			t.Fatalf("an expired one renews: %d %s, %v", status, body, err)
		}
		rec := httptest.NewRecorder()
		rec.WriteString(body)
		next.identity(t, rec)
		if status, body, err := overTLS(t, srv, nextKey, next.certs...)("POST", fleet.PathReports, report); err != nil || status != 200 {
			t.Errorf("with the new key: %d %s, %v", status, body, err)
		}
		if status, body, err := asA("POST", fleet.PathRenew, fleet.Renewal{Protocol: fleet.Protocol, CSR: a.csr}); err != nil || status != 403 || !strings.Contains(body, "IdentityCopied") {
			t.Errorf("the old one renews again: %d %s, %v", status, body, err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if got, want := strings.Join(w.of, " "), strings.Join([]string{nodeID, otherID, otherID, otherID, nodeID}, " "); got != want {
			t.Errorf("the reports were of %s, want %s", got, want)
		}
	})
}

// selfSigned is what a machine says of itself: that it is the first node.
func selfSigned(t *testing.T, key crypto.Signer) *x509.Certificate {
	t.Helper()
	ca, err := authority.Create("own", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: ca.Certificate().Subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{{Scheme: "urn", Opaque: "uuid:" + nodeID}, {Scheme: "larder", Opaque: "line:1"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A poll is held until the node's own document changes, or its time is over.
func TestPollsWait(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		m, other := newMachine(t), newMachine(t)
		w.register(m, nodeID)
		w.register(other, otherID)
		// None of the long ones below comes to its end; if one does, all do.
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		// held begins a poll, and returns when it is with the gate.
		held := func(m *machine, query string) <-chan *httptest.ResponseRecorder {
			arrived, answer := make(chan struct{}), make(chan *httptest.ResponseRecorder, 1)
			r := httptest.NewRequest("GET", "https://control.example"+fleet.PathDesired+query, nil)
			r = r.WithContext(&noticing{Context: ctx, asked: arrived})
			r.TLS = &tls.ConnectionState{PeerCertificates: m.certs}
			rec := httptest.NewRecorder()
			go func() {
				w.table.ServeHTTP(rec, r)
				answer <- rec
			}()
			<-arrived
			return answer
		}
		start := time.Now()
		if rec := <-held(m, "?after=0&wait=0.2"); rec.Code != 204 || rec.Body.Len() != 0 || time.Since(start) < 200*time.Millisecond {
			t.Errorf("nothing happens: %d %q after %s", rec.Code, rec.Body, time.Since(start))
		}
		first, second := held(m, "?after=0&wait=50"), held(other, "?after=0&wait=1")
		w.drive(true)
		for _, c := range []struct {
			what   string
			answer <-chan *httptest.ResponseRecorder
			want   int
			number int64
		}{
			{"the one that waits", first, 200, 1},
			{"one that comes later", held(m, "?after=0&wait=50"), 200, 1},
			{"one without a number", held(m, "?wait=50"), 200, 1},
			{"another node", second, 204, 0},
		} {
			rec := <-c.answer
			var doc fleet.Desired
			if c.number != 0 {
				if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || doc.Node != nodeID {
					t.Errorf("%s: %v, %s", c.what, err, rec.Body)
				}
			}
			if rec.Code != c.want || doc.Number != c.number {
				t.Errorf("%s: %d %s", c.what, rec.Code, rec.Body)
			}
		}
		third := held(m, "?after=1&wait=50")
		w.drive(false)
		if rec := <-third; rec.Code != 200 || !strings.Contains(rec.Body.String(), `"number":2`) {
			t.Errorf("the next change: %d %s", rec.Code, rec.Body)
		}
		// A change of another kind wakes it for nothing; it goes on waiting.
		fourth := held(m, "?after=2&wait=50")
		w.register(newMachine(t), otherID)
		if err := w.r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.drive(true)
		if rec := <-fourth; rec.Code != 200 || !strings.Contains(rec.Body.String(), `"number":3`) {
			t.Errorf("after a change of another node: %d %s", rec.Code, rec.Body)
		}
		// A node that is deleted is told so at once.
		fifth := held(m, "?after=3&wait=50")
		err := d.Tx(t.Context(), func(tx *sql.Tx) error {
			n, err := w.r.Node(t.Context(), tx, nodeID)
			if err != nil {
				return err
			}
			return w.r.DeleteNode(t.Context(), tx, n, w.clock())
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rec := <-fifth; rec.Code != 403 || code(rec) != "IdentityRevoked" {
			t.Errorf("a deleted node: %d %s", rec.Code, rec.Body)
		}
	})
}

// noticing is a context that says when somebody first waits for its end.
type noticing struct {
	context.Context
	once  sync.Once
	asked chan struct{}
}

func (n *noticing) Done() <-chan struct{} {
	n.once.Do(func() { close(n.asked) })
	return n.Context.Done()
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
		seen := func() {
			if _, err := d.ExecContext(t.Context(), `UPDATE nodes SET last_seen = $1 WHERE line > 0`, db.Micros(w.clock())); err != nil {
				t.Fatal(err)
			}
		}
		step := func(f func(tx *sql.Tx) error) error { return w.a.Change(t.Context(), f) }
		activate := func(force bool) error {
			return step(func(tx *sql.Tx) error { return w.a.Activate(t.Context(), tx, force) })
		}
		retire := func(force bool) error {
			return step(func(tx *sql.Tx) error { return w.a.Retire(t.Context(), tx, force) })
		}
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
		if err := activate(false); err == nil {
			t.Error("activated what signs already")
		}
		if err := step(func(tx *sql.Tx) error { return w.a.Announce(t.Context(), tx, "next") }); err != nil {
			t.Fatal(err)
		}
		if n := roots(); n != 2 {
			t.Errorf("%d roots after the announcement", n)
		}
		seen()
		var left *LeftError
		if err := activate(false); !errors.As(err, &left) || left.Count != 1 || len(left.Nodes) != 1 {
			t.Errorf("activated while a node may not know the root: %v", err)
		}
		w.pass(2 * time.Minute)
		roots()
		seen()
		if err := activate(false); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Minute)
		fresh := newMachine(t)
		w.register(fresh, otherID)
		for _, m := range []*machine{old, fresh} {
			if rec := w.report(m); rec.Code != 200 {
				t.Errorf("%d %s", rec.Code, rec.Body)
			}
		}
		if err := retire(false); !errors.As(err, &left) || left.Count != 1 {
			t.Errorf("retired while a node has an identity of the root: %v", err)
		}
		old.identity(t, w.renew(old)) // it is of the next root now
		if rec := w.report(old); rec.Code != 200 {
			t.Errorf("with the new identity: %d %s", rec.Code, rec.Body)
		}
		if err := retire(false); err != nil {
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
// its keys. The database is closed: what gets that far has a protocol and a
// request that are good, and fails; the rest is refused before, in words.
func FuzzRegister(f *testing.F) {
	m, _ := newKeyed(f)
	whole, err := json.Marshal(fleet.Registration{Protocol: fleet.Protocol, CustomerID: customerID, CacheNodeID: nodeID, CustomerKey: "k", RegistrationKey: "r",
		CSR: m.csr})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"protocol":1,"customerId":"c","cacheNodeId":"n","customerKey":"k","registrationKey":"r","csr":"x","system":{"os":"linux"}}`))
	f.Add([]byte(`{"protocol":0}`))
	f.Add([]byte(`{"csr":"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n","protocol":1}`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`{"protocol":1} {}`))
	gone, err := sql.Open("sqlite", "file:"+f.TempDir()+"/none/none.db?mode=ro") // opens nothing yet
	if err != nil {
		f.Fatal(err)
	}
	gone.Close()
	g := New(Options{DB: &db.DB{DB: gone}})
	table, err := route.New(nil, nil, g.Routes()...)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("POST", "https://control.example"+fleet.PathRegister, bytes.NewReader(body))
		r.RemoteAddr = "@" // is never told to wait
		rec := httptest.NewRecorder()
		table.ServeHTTP(rec, r)
		if rec.Code == 500 {
			var req fleet.Registration
			if err := json.Unmarshal(body, &req); err != nil || req.Protocol < fleet.Oldest {
				t.Fatalf("%q got as far as the database", body)
			}
			block, _ := pem.Decode([]byte(req.CSR))
			if block == nil {
				t.Fatalf("%q got as far as the database", body)
			}
			if _, err := x509.ParseCertificateRequest(block.Bytes); err != nil {
				t.Fatalf("%q got as far as the database", body)
			}
			return
		}
		var e route.Envelope
		if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil || rec.Code != 400 && rec.Code != 413 || e.Error.Code == "" || e.Error.Message == "" {
			t.Fatalf("%q: %d %s", body, rec.Code, rec.Body)
		}
	})
}

// After a restore from an older back-up nodes have later documents than the
// database. They get what it says all the same.
func TestNodesAheadOfTheDatabase(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		m := newMachine(t)
		w.register(m, nodeID)
		late := w.replica()
		w.drive(true)
		// A replica that has not looked yet does not take its own delay for that.
		if rec := late.ask(m, "GET", fleet.PathDesired+"?after=1&wait=0", nil); rec.Code != 204 {
			t.Errorf("on another replica: %d %s", rec.Code, rec.Body)
		}
		if rec := w.ask(m, "GET", fleet.PathDesired+"?after=1&wait=0", nil); rec.Code != 204 {
			t.Errorf("the number it has: %d %s", rec.Code, rec.Body)
		}
		for _, after := range []int64{41, 43, 1000} {
			var doc fleet.Desired
			rec := w.ask(m, "GET", fmt.Sprintf("%s?after=%d&wait=0", fleet.PathDesired, after), nil)
			if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || rec.Code != 200 || doc.Number != after+1 || !doc.Drain {
				t.Errorf("after %d: %d %s, %v", after, rec.Code, rec.Body, err)
			}
		}
		// What is changed later comes after that, on every replica.
		w.drive(false)
		if err := late.r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rec := late.ask(m, "GET", fleet.PathDesired+"?after=1001&wait=0", nil); rec.Code != 200 || !strings.Contains(rec.Body.String(), `"number":1002`) {
			t.Errorf("the next: %d %s", rec.Code, rec.Body)
		}
		if rec := w.ask(m, "GET", fmt.Sprintf("%s?after=%d&wait=0", fleet.PathDesired, int64(maxNumber+1)), nil); rec.Code != 400 || !strings.Contains(rec.Body.String(), "after") {
			t.Errorf("a number that is none: %d %s", rec.Code, rec.Body)
		}
	})
}

// A root that has expired is not the node's mistake, and not one of its csr.
func TestTheRootHasExpired(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	m := newMachine(t)
	w.pass(authority.RootLife + time.Hour)
	for range 30 { // no failures that count
		rec := w.ask(m, "POST", fleet.PathRegister, w.proof(m, nodeID))
		if rec.Code != 503 || !strings.Contains(rec.Body.String(), "RootExpired") || strings.Contains(rec.Body.String(), "csr") {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
	}
	for _, step := range []func(tx *sql.Tx) error{
		func(tx *sql.Tx) error { return w.a.Announce(t.Context(), tx, "next") },
		func(tx *sql.Tx) error { return w.a.Activate(t.Context(), tx, false) },
	} {
		if err := w.a.Change(t.Context(), step); err != nil {
			t.Fatal(err)
		}
	}
	w.register(m, nodeID)
}
