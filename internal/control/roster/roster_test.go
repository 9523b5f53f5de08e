package roster_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"larder/internal/control/db"
	"larder/internal/control/roster"
	"larder/internal/control/seal"
	"larder/internal/fleet"
	"larder/internal/lardertest/dbtest"
)

const (
	subscription = "11111111-2222-3333-4444-555555555555"
	nodeID       = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	customerID   = "99999999-8888-7777-6666-555555555555"
)

func newKey(t *testing.T) *seal.Key {
	t.Helper()
	k, err := seal.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// fleetOf opens a roster on d with one organisation and one node.
func fleetOf(t *testing.T, d *db.DB) (*roster.Roster, *roster.Customer, *roster.Node) {
	t.Helper()
	ctx := t.Context()
	r, err := roster.Open(ctx, d, newKey(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &roster.Customer{Subscription: subscription, Group: "Schools", Name: "North", Location: "westeurope", CustomerID: customerID, Properties: json.RawMessage(`{}`), Provisioning: "Succeeded"}
	n := &roster.Node{NodeID: nodeID, Path: c.Path() + "/enterpriseMccCacheNodes/Room-1", Customer: strings.ToLower(c.Path()), Name: "Room-1", Location: "westeurope",
		Properties: json.RawMessage(`{}`), Provisioning: "Succeeded", Created: time.Now()}
	err = d.Tx(ctx, func(tx *sql.Tx) error {
		if _, err := r.PutGroup(ctx, tx, roster.Group{Subscription: subscription, Name: "Schools", Location: "westeurope", Created: time.Now()}); err != nil {
			return err
		}
		if err := r.InsertCustomer(ctx, tx, c); err != nil {
			return err
		}
		return r.InsertNode(ctx, tx, n)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	return r, c, n
}

func TestResourcesAreFoundWithoutCaseAndKeepTheirSpelling(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		r, c, n := fleetOf(t, d)
		got, err := r.Node(ctx, d, strings.ToUpper(n.Path))
		if err != nil {
			t.Fatal(err)
		}
		if got.Path != n.Path || got.Name != "Room-1" || got.NodeID != nodeID {
			t.Errorf("got %+v, want the path %s", got, n.Path)
		}
		if got, err := r.Node(ctx, d, strings.ToUpper(nodeID)); err != nil || got.Path != n.Path {
			t.Errorf("by GUID: %v", err)
		}
		if got, err := r.Customer(ctx, d, strings.ToUpper(c.Path())); err != nil || got.Group != "Schools" || got.Path() != c.Path() {
			t.Errorf("customer: %+v, %v", got, err)
		}
		if _, err := r.Node(ctx, d, n.Path+"x"); !errors.Is(err, roster.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
		list, err := r.Nodes(ctx, c.ID, "", 10)
		if err != nil || len(list) != 1 {
			t.Errorf("%d nodes are listed (%v), want 1", len(list), err)
		}
		again := *n
		if err := r.InsertNode(ctx, d, &again); !errors.Is(err, roster.ErrExists) {
			t.Errorf("the same once more: got %v, want ErrExists", err)
		}
	})
}

func TestOnlyTheVersionThatWasReadIsWritten(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		r, _, _ := fleetOf(t, d)
		a, err := r.Node(ctx, d, nodeID)
		if err != nil {
			t.Fatal(err)
		}
		b := *a
		a.Tags = map[string]string{"who": "a"}
		if err := d.Tx(ctx, func(tx *sql.Tx) error { return r.UpdateNode(ctx, tx, a) }); err != nil {
			t.Fatal(err)
		}
		b.Tags = map[string]string{"who": "b"}
		if err := d.Tx(ctx, func(tx *sql.Tx) error { return r.UpdateNode(ctx, tx, &b) }); !errors.Is(err, roster.ErrChanged) {
			t.Errorf("got %v, want ErrChanged", err)
		}
		got, err := r.Node(ctx, d, nodeID)
		if err != nil || got.Tags["who"] != "a" || got.Version != a.Version {
			t.Errorf("got %+v (%v), want what a wrote", got, err)
		}
	})
}

// Only what a node is to be gives its document a new number, and whoever waits
// on another replica hears of it.
func TestDocumentsAreNumbered(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		r, _, _ := fleetOf(t, d)
		other, err := roster.Open(ctx, d, newKey(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		run, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- other.Run(run) }()
		defer func() { stop(); <-done }()

		changed := other.Changed()
		change := func(f func(n *roster.Node)) *roster.Node {
			t.Helper()
			n, err := r.Node(ctx, d, nodeID)
			if err != nil {
				t.Fatal(err)
			}
			f(n)
			if err := d.Tx(ctx, func(tx *sql.Tx) error { return r.UpdateNode(ctx, tx, n) }); err != nil {
				t.Fatal(err)
			}
			return n
		}
		if n := change(func(n *roster.Node) { n.Tags = map[string]string{"floor": "2"} }); n.Desired != 0 {
			t.Errorf("a tag gave the document the number %d", n.Desired)
		}
		if n := change(func(n *roster.Node) { n.Spec.Drives = []fleet.Drive{{Path: "/srv/cache", Size: 100e9}} }); n.Desired != 1 {
			t.Errorf("drives gave the document the number %d, want 1", n.Desired)
		}
		if n := change(func(n *roster.Node) { n.Spec.Drain = true }); n.Desired != 2 {
			t.Errorf("drain gave the document the number %d, want 2", n.Desired)
		}
		if n := change(func(n *roster.Node) { n.Spec.Site = "north" }); n.Desired != 2 {
			t.Errorf("a site, which is none of the node's business, gave the number %d", n.Desired)
		}
		doc, err := r.Document(ctx, nodeID)
		if err != nil || doc.Number != 2 || !doc.Drain || len(doc.Drives) != 1 || doc.Node != nodeID {
			t.Errorf("got %+v (%v), want document 2", doc, err)
		}
		for {
			m, ok := other.Now().Member(strings.ToUpper(nodeID))
			if ok && m.Desired == 2 {
				break
			}
			select {
			case <-changed:
				changed = other.Changed()
			case <-time.After(20 * time.Second):
				t.Fatalf("the other replica knows %+v, want document 2", m)
			}
		}
	})
}

func TestPublishersAreInEveryNodesDocument(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		r, c, _ := fleetOf(t, d)
		put := func(file string) *fleet.Desired {
			t.Helper()
			if err := d.Tx(ctx, func(tx *sql.Tx) error { return r.PutPublisher(ctx, tx, c.ID, "intranet", file, time.Now()) }); err != nil {
				t.Fatal(err)
			}
			doc, err := r.Document(ctx, nodeID)
			if err != nil {
				t.Fatal(err)
			}
			return doc
		}
		if doc := put("name: intranet"); doc.Number != 1 || doc.Catalog == nil || len(doc.Catalog.Publishers) != 1 || doc.Catalog.Publishers[0].File != "name: intranet" {
			t.Errorf("got %+v, want document 1 with the publisher", doc)
		}
		if doc := put("name: intranet"); doc.Number != 1 {
			t.Errorf("the same file again gave number %d", doc.Number)
		}
		if doc := put("name: other"); doc.Number != 2 {
			t.Errorf("another file gave number %d, want 2", doc.Number)
		}
		if err := d.Tx(ctx, func(tx *sql.Tx) error { return r.DeletePublisher(ctx, tx, c.ID, "intranet") }); err != nil {
			t.Fatal(err)
		}
		if doc, err := r.Document(ctx, nodeID); err != nil || doc.Number != 3 || doc.Catalog != nil {
			t.Errorf("got %+v (%v), want document 3 without a catalogue", doc, err)
		}
		if one, other, err := r.Documents(ctx, nodeID, 1, 3); err != nil || one.Catalog == nil || other.Catalog != nil {
			t.Errorf("documents 1 and 3: %v", err)
		}
		if err := r.DeletePublisher(ctx, d, c.ID, "intranet"); !errors.Is(err, roster.ErrNotFound) {
			t.Errorf("deleted twice: got %v, want ErrNotFound", err)
		}
	})
}

func TestADeletedNodeIsForgottenEverywhere(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		r, c, n := fleetOf(t, d)
		if err := r.DeleteCustomer(ctx, d, c.ID); !errors.Is(err, roster.ErrNotEmpty) {
			t.Errorf("deleting a customer with a node: got %v, want ErrNotEmpty", err)
		}
		now := time.Now()
		if err := r.AddIdentity(ctx, d, roster.Identity{Serial: "ab", Node: nodeID, Line: 1, SPKI: "cd", NotBefore: now, NotAfter: now.Add(30 * 24 * time.Hour), Issued: now}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.ExecContext(ctx, `INSERT INTO history (node_id, kind, name, began, detail) VALUES ($1, 'issue', 'x', 1, '{}')`, nodeID); err != nil {
			t.Fatal(err)
		}
		if err := d.Tx(ctx, func(tx *sql.Tx) error { return r.DeleteNode(ctx, tx, n, time.Now()) }); err != nil {
			t.Fatal(err)
		}
		if err := r.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		if _, ok := r.Now().Member(nodeID); ok {
			t.Error("the snapshot still knows it")
		}
		left := func() (n int) {
			t.Helper()
			if err := d.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM history WHERE ended = 0) + (SELECT count(*) FROM identities) + (SELECT count(*) FROM departures)`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		if err := r.Clean(ctx, time.Now()); err != nil || left() != 2 {
			t.Errorf("right after: %v, %d rows; want its identity, which is not expired, and its departure", err, left())
		}
		if err := r.Clean(ctx, time.Now().Add(60*24*time.Hour)); err != nil || left() != 0 {
			t.Errorf("two months later: %v, %d rows are left", err, left())
		}
		if err := r.DeleteCustomer(ctx, d, c.ID); err != nil {
			t.Error(err)
		}
		if err := r.DeleteGroup(ctx, d, subscription, "SCHOOLS"); err != nil {
			t.Error(err)
		}
	})
}

func TestARegistrationKeyIsGoodOnce(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		r, c, _ := fleetOf(t, d)
		primary, secondary, err := r.CustomerKeys(ctx, d, c.ID)
		if err != nil || primary == secondary || len(primary) < 40 {
			t.Fatalf("keys %d and %d characters long, %v", len(primary), len(secondary), err)
		}
		now := time.Now()
		key, expires, err := r.RegistrationKey(ctx, d, nodeID, now)
		if err != nil {
			t.Fatal(err)
		}
		if got := expires.Sub(now).Round(time.Minute); got != roster.KeyLife {
			t.Errorf("it is good for %v, want %v", got, roster.KeyLife)
		}
		if again, _, err := r.RegistrationKey(ctx, d, nodeID, now); err != nil || again != key {
			t.Errorf("asked again it is another one (%v)", err)
		}
		redeem := func(p roster.Proof, at time.Time) (int64, error) {
			var line int64
			err := d.Tx(ctx, func(tx *sql.Tx) error {
				n, err := r.Redeem(ctx, tx, p, at)
				if err == nil {
					line = n.Line
				}
				return err
			})
			return line, err
		}
		good := roster.Proof{CustomerID: strings.ToUpper(customerID), Node: nodeID, CustomerKey: secondary, RegistrationKey: key, SPKI: "one"}
		for name, tt := range map[string]struct {
			change func(p *roster.Proof)
			at     time.Time
			want   error
		}{
			"another customer":     {func(p *roster.Proof) { p.CustomerID = nodeID }, now, roster.ErrKeyInvalid},
			"another node":         {func(p *roster.Proof) { p.Node = customerID }, now, roster.ErrKeyInvalid},
			"wrong customer key":   {func(p *roster.Proof) { p.CustomerKey = key }, now, roster.ErrKeyInvalid},
			"no customer key":      {func(p *roster.Proof) { p.CustomerKey = "" }, now, roster.ErrKeyInvalid},
			"wrong key":            {func(p *roster.Proof) { p.RegistrationKey = primary }, now, roster.ErrKeyInvalid},
			"no registration key":  {func(p *roster.Proof) { p.RegistrationKey = "" }, now, roster.ErrKeyInvalid},
			"a day and a bit late": {func(p *roster.Proof) {}, now.Add(roster.KeyLife + time.Second), roster.ErrKeyExpired},
		} {
			p := good
			tt.change(&p)
			if _, err := redeem(p, tt.at); !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v, want %v", name, err, tt.want)
			}
		}
		if line, err := redeem(good, now); err != nil || line != 1 {
			t.Fatalf("got line %d, %v, want line 1", line, err)
		}
		if line, err := redeem(good, now.Add(time.Minute)); err != nil || line != 1 {
			t.Errorf("after a lost answer: got line %d, %v, want line 1 again", line, err)
		}
		if _, err := redeem(good, now.Add(roster.Again+time.Second)); !errors.Is(err, roster.ErrKeyUsed) {
			t.Errorf("long after: got %v, want ErrKeyUsed", err)
		}
		thief := good
		thief.SPKI = "two"
		if _, err := redeem(thief, now.Add(time.Minute)); !errors.Is(err, roster.ErrKeyUsed) {
			t.Errorf("another machine: got %v, want ErrKeyUsed", err)
		}
		next, _, err := r.RegistrationKey(ctx, d, nodeID, now)
		if err != nil || next == key {
			t.Errorf("a used key is given out again (%v)", err)
		}
	})
}

// Copies of a node, lost nodes and nodes that enrolled anew are told apart.
func TestIdentitiesHaveALine(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		r, c, _ := fleetOf(t, d)
		now := time.Now().Truncate(time.Microsecond)
		primary, _, err := r.CustomerKeys(ctx, d, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		enrol := func(spki string) int64 {
			t.Helper()
			key, _, err := r.RegistrationKey(ctx, d, nodeID, now)
			if err != nil {
				t.Fatal(err)
			}
			n, err := r.Redeem(ctx, d, roster.Proof{CustomerID: customerID, Node: nodeID, CustomerKey: primary, RegistrationKey: key, SPKI: spki}, now)
			if err != nil {
				t.Fatal(err)
			}
			return n.Line
		}
		issue := func(serial string, line int64, at time.Time) {
			t.Helper()
			if err := r.AddIdentity(ctx, d, roster.Identity{Serial: serial, Node: nodeID, Line: line, SPKI: serial, NotBefore: at, NotAfter: at.Add(time.Hour), Issued: at}); err != nil {
				t.Fatal(err)
			}
		}
		renewable := func(serial string, want error) {
			t.Helper()
			if _, err := r.Renewable(ctx, d, serial); !errors.Is(err, want) {
				t.Errorf("identity %s: got %v, want %v", serial, err, want)
			}
		}
		line := enrol("first")
		issue("01", line, now)
		renewable("01", nil)
		issue("02", line, now.Add(time.Second))
		renewable("01", nil) // the answer with 02 may have been lost
		if err := r.UseIdentity(ctx, "02", now); err != nil {
			t.Fatal(err)
		}
		renewable("01", roster.ErrSucceeded)
		renewable("02", nil)
		renewable("ff", roster.ErrRevoked)

		line = enrol("second")
		issue("03", line, now)
		renewable("02", roster.ErrRevoked)
		renewable("03", nil)
		if line != 2 {
			t.Errorf("enrolled again it has line %d, want 2", line)
		}
		if err := r.Revoke(ctx, d, nodeID, "stolen", now); err != nil {
			t.Fatal(err)
		}
		if err := r.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		if m, _ := r.Now().Member(nodeID); !m.Revoked || m.Line != 2 {
			t.Errorf("the snapshot has %+v, want a revoked line 2", m)
		}
		renewable("03", roster.ErrRevoked)
		list, err := r.Identities(ctx, d, nodeID)
		if err != nil || len(list) != 3 || list[0].Serial != "03" || list[0].Reason != "stolen" || list[2].Reason != "enrolled again" {
			t.Errorf("got %d identities (%v), want 03 stolen first and 01 enrolled again last", len(list), err)
		}
		if line = enrol("third"); line != 3 {
			t.Errorf("after the theft it has line %d, want 3", line)
		}
	})
}

func TestCondition(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	ready := func() *roster.Node {
		return &roster.Node{Line: 1, Configured: true, LastSeen: now.Add(-time.Minute), State: fleet.State{Ready: true, Running: 3}, Desired: 3, DesiredAt: now.Add(-time.Hour)}
	}
	tests := []struct {
		name   string
		change func(n *roster.Node)
		word   roster.Word
		reason string
	}{
		{"all is well", func(n *roster.Node) {}, roster.Healthy, ""},
		{"never configured", func(n *roster.Node) { n.Line, n.Configured = 0, false }, roster.NotConfigured, "no drives"},
		{"never registered", func(n *roster.Node) { n.Line = 0 }, roster.NotProvisioned, "registered"},
		{"not reported yet", func(n *roster.Node) { n.LastSeen = time.Time{} }, roster.Registering, "not reported"},
		{"silent", func(n *roster.Node) { n.LastSeen = now.Add(-3 * time.Hour) }, roster.Offline, "3 hours"},
		{"revoked", func(n *roster.Node) { n.Revoked = now }, roster.Offline, "revoked"},
		{"copied", func(n *roster.Node) { n.Copied = now.Add(-time.Minute) }, roster.Degraded, "two machines"},
		{"a drive failed", func(n *roster.Node) {
			n.State.Drives = []fleet.DriveState{{Path: "/srv/1", State: "ok"}, {Path: "/srv/2", State: "failed", Error: "input/output error"}}
		}, roster.Degraded, "/srv/2 is failed: input/output error"},
		{"not ready", func(n *roster.Node) { n.State.Ready = false }, roster.Degraded, "not ready"},
		{"draining", func(n *roster.Node) { n.State.Ready, n.State.Draining = false, true }, roster.Draining, "rotation"},
		{"certificate expired", func(n *roster.Node) {
			n.State.Certificates = []fleet.Certificate{{File: "a.crt", Active: true, NotAfter: now.Add(-time.Hour)}, {File: "old.crt", NotAfter: now.Add(-time.Hour)}}
		}, roster.CertificateProblem, "a.crt"},
		{"document refused", func(n *roster.Node) { n.Desired, n.State.Refused, n.State.Why = 4, 4, "drives[0].path: not absolute" }, roster.Degraded, "drives[0].path"},
		{"document not yet applied", func(n *roster.Node) { n.Desired, n.DesiredAt = 4, now.Add(-time.Minute) }, roster.Healthy, ""},
		{"document never applied", func(n *roster.Node) { n.Desired = 4 }, roster.Degraded, "document 3, 4 is desired"},
		{"an issue", func(n *roster.Node) {
			n.State.Issues = []fleet.Issue{{Type: "port-in-use", Text: "port 80 is nginx's"}}
		}, roster.Degraded, "nginx"},
		{"a certificate's issue", func(n *roster.Node) { n.State.Issues = []fleet.Issue{{Type: "certificate", Text: "wrong name"}} }, roster.CertificateProblem, "wrong name"},
		{"an update waits", func(n *roster.Node) { n.State.Replaced = now.Add(-time.Minute) }, roster.Updating, "installed at 2026-11-26 11:59 UTC"},
		{"an update waits, and more is wrong", func(n *roster.Node) { n.State.Replaced, n.State.Ready = now, false }, roster.Degraded, "waits for its restart"},
	}
	for _, tt := range tests {
		n := ready()
		tt.change(n)
		c := n.Condition(now)
		if c.Word != tt.word {
			t.Errorf("%s: got %s (%q), want %s", tt.name, c.Word, c.Reasons, tt.word)
		}
		all := strings.Join(c.Reasons, "\n")
		if !strings.Contains(all, tt.reason) || tt.reason == "" && all != "" {
			t.Errorf("%s: got the reasons %q, want one with %q", tt.name, all, tt.reason)
		}
	}
}
