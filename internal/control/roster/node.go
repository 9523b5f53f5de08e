package roster

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"time"

	"larder/internal/control/db"
	"larder/internal/fleet"
)

// Node is a node's record: a Microsoft.ConnectedCache/…/enterpriseMccCacheNodes
// resource, what the node is to be, and what it said of itself last.
type Node struct {
	NodeID       string // GUID, cacheNodeId
	ID           string // lower-case ARM id
	Customer     string // lower-case ARM id
	Path         string // the ARM id as it is shown
	Name         string
	Location     string
	Tags         map[string]string
	Properties   json.RawMessage // what a client wrote, in ARM's names
	Spec         Spec
	Provisioning string
	Configured   bool // drives were given
	Version      int64
	System       SystemData
	Created      time.Time

	KeyExpires time.Time // of the registration key that is good now; zero if there is none

	Line     int64     // enrolments so far; 0: never
	Revoked  time.Time // when a person revoked the identities of this line
	LastSeen time.Time
	ClockOff time.Duration // the node's clock minus ours
	Copied   time.Time     // when a second machine was last seen with this identity
	Protocol int
	State    fleet.State // as delivered last; zero before that

	Desired   int64
	DesiredAt time.Time
}

// Spec is what a node is to be: fleet.Desired without what the control plane
// adds, and what only the control plane needs.
type Spec struct {
	Drives      []fleet.Drive   `json:"drives,omitempty"`
	Proxy       *fleet.Proxy    `json:"proxy,omitempty"`
	Limit       *fleet.Limit    `json:"limit,omitempty"`
	Catalog     *fleet.Catalog  `json:"catalog,omitempty"`
	ClientNames []string        `json:"clientNames,omitempty"`
	Update      *fleet.Update   `json:"update,omitempty"`
	Prefill     []fleet.Prefill `json:"prefill,omitempty"`
	Purge       []fleet.Purge   `json:"purge,omitempty"`
	Drain       bool            `json:"drain,omitempty"`

	Site string `json:"site,omitempty"` // a name people give to a place; groups nodes and alerts
}

// Document is the desired document of a Spec, with the organisation's own
// publishers.
func (s *Spec) Document(node string, number int64, own []fleet.Publisher) *fleet.Desired {
	d := &fleet.Desired{
		Protocol: fleet.Protocol, Node: node, Number: number,
		Drives: s.Drives, Proxy: s.Proxy, Limit: s.Limit, Catalog: s.Catalog, ClientNames: s.ClientNames,
		Update: s.Update, Prefill: s.Prefill, Purge: s.Purge, Drain: s.Drain,
	}
	if len(own) > 0 {
		d.Catalog = new(fleet.Catalog)
		if s.Catalog != nil {
			d.Catalog.Builtin = s.Catalog.Builtin
		}
		d.Catalog.Publishers = own
	}
	return d
}

const nodeColumns = `SELECT n.node_id, n.id, n.customer, n.name, n.location, n.tags, n.properties, n.settings, n.provisioning, n.configured, n.version, n.system_data, n.created,
	n.registration_expires, n.registration_hash IS NOT NULL, n.line, n.revoked, n.last_seen, n.clock_off, n.copied, n.protocol, n.state, n.desired, n.desired_at,
	c.subscription, g.name, c.name
	FROM nodes n JOIN customers c ON c.id = n.customer JOIN resource_groups g ON g.subscription = c.subscription AND g.key = c.group_key`

func scanNode(row interface{ Scan(...any) error }) (*Node, error) {
	var n Node
	var tags, properties, spec, system, state, sub, group, customer string
	var created, expires, revoked, seen, off, copied, desiredAt int64
	var hasKey bool
	if err := row.Scan(&n.NodeID, &n.ID, &n.Customer, &n.Name, &n.Location, &tags, &properties, &spec, &n.Provisioning, &n.Configured, &n.Version, &system, &created,
		&expires, &hasKey, &n.Line, &revoked, &seen, &off, &copied, &n.Protocol, &state, &n.Desired, &desiredAt, &sub, &group, &customer); err != nil {
		return nil, err
	}
	n.Path = CustomerPath(sub, group, customer) + "/enterpriseMccCacheNodes/" + n.Name
	n.Revoked = db.Time(revoked)
	n.Properties, n.Created, n.LastSeen, n.Copied, n.DesiredAt = json.RawMessage(properties), db.Time(created), db.Time(seen), db.Time(copied), db.Time(desiredAt)
	n.ClockOff = time.Duration(off) * time.Microsecond
	if hasKey {
		n.KeyExpires = db.Time(expires)
	}
	errs := []error{json.Unmarshal([]byte(tags), &n.Tags), json.Unmarshal([]byte(system), &n.System), json.Unmarshal([]byte(spec), &n.Spec)}
	if state != "" {
		errs = append(errs, json.Unmarshal([]byte(state), &n.State))
	}
	return &n, errors.Join(errs...)
}

// Node returns one by its ARM id or its GUID. Errors: ErrNotFound.
func (r *Roster) Node(ctx context.Context, q db.Queryer, id string) (*Node, error) {
	n, err := scanNode(q.QueryRowContext(ctx, nodeColumns+` WHERE n.id = $1 OR n.node_id = $1`, strings.ToLower(id)))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading node %s: %w", id, err)
	}
	return n, nil
}

// Nodes lists those of a customer, "" for all, in the order of their ARM ids:
// up to limit of them after one id.
func (r *Roster) Nodes(ctx context.Context, customer, after string, limit int) ([]*Node, error) {
	rows, err := r.d.QueryContext(ctx, nodeColumns+` WHERE ($1 = '' OR n.customer = $1) AND n.id > $2 ORDER BY n.id LIMIT $3`, strings.ToLower(customer), after, limit)
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	// What a node said last takes a while to read. Those who wait to be answered
	// come first, or each step of theirs would wait for a time slice of this.
	return collect(rows, func(row interface{ Scan(...any) error }) (*Node, error) {
		runtime.Gosched()
		return scanNode(row)
	})
}

// All goes through all nodes there are, a few in memory at a time. It
// ends with the first error.
func (r *Roster) All(ctx context.Context) iter.Seq2[*Node, error] {
	const page = 50
	return func(yield func(*Node, error) bool) {
		for after := ""; ; {
			ns, err := r.Nodes(ctx, "", after, page)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, n := range ns {
				after = n.ID
				runtime.Gosched() // as in Nodes
				if !yield(n, nil) {
					return
				}
			}
			if len(ns) < page {
				return
			}
		}
	}
}

// InsertNode adds n to its customer, which is there. Errors: ErrExists.
func (r *Roster) InsertNode(ctx context.Context, q db.Queryer, n *Node) error {
	n.NodeID, n.ID, n.Version = strings.ToLower(n.NodeID), strings.ToLower(n.Path), 1
	revision, err := turn(ctx, q)
	if err != nil {
		return err
	}
	tags, err1 := tagsJSON(n.Tags)
	system, err2 := toJSON(n.System)
	spec, err3 := toJSON(n.Spec)
	document, err4 := toJSON(new(Spec).Document(n.NodeID, 0, nil))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	_, err = q.ExecContext(ctx, `INSERT INTO nodes (node_id, id, customer, name, location, tags, properties, settings, provisioning, configured, version, system_data, created, document, revision)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
		n.NodeID, n.ID, n.Customer, n.Name, n.Location, tags, string(n.Properties), spec, n.Provisioning, n.Configured, n.Version, system, db.Micros(n.Created), document, revision)
	if db.IsDuplicate(err) {
		return ErrExists
	}
	if err != nil {
		return err
	}
	return r.desire(ctx, q, n, revision)
}

// UpdateNode writes n back if it is still the version that was read, and gives
// its document the next number if that changed. Errors: ErrChanged.
func (r *Roster) UpdateNode(ctx context.Context, q db.Queryer, n *Node) error {
	tags, err1 := tagsJSON(n.Tags)
	system, err2 := toJSON(n.System)
	spec, err3 := toJSON(n.Spec)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	err := one(q.ExecContext(ctx, `UPDATE nodes SET tags = $1, properties = $2, settings = $3, provisioning = $4, configured = $5, version = version + 1, system_data = $6 WHERE node_id = $7 AND version = $8`,
		tags, string(n.Properties), spec, n.Provisioning, n.Configured, system, n.NodeID, n.Version))
	if errors.Is(err, ErrNotFound) {
		return ErrChanged
	}
	if err != nil {
		return err
	}
	n.Version++
	return r.desire(ctx, q, n, 0)
}

// SettleNode says that a node that was accepted is made. That is no change of
// what its clients wrote: the version stays, and so does the ETag they got. One
// that is gone or settled is left alone.
func (r *Roster) SettleNode(ctx context.Context, q db.Queryer, id string) error {
	_, err := q.ExecContext(ctx, `UPDATE nodes SET provisioning = 'Succeeded' WHERE id = $1 AND provisioning = 'Accepted'`, strings.ToLower(id))
	return err
}

// desire compares the document with the one that is written down, and numbers
// it anew if they differ. revision is 0 if none was taken yet.
func (r *Roster) desire(ctx context.Context, q db.Queryer, n *Node, revision int64) error {
	var old string
	var number int64
	if err := q.QueryRowContext(ctx, `SELECT document, desired FROM nodes WHERE node_id = $1`, n.NodeID).Scan(&old, &number); err != nil {
		return err
	}
	own, err := r.own(ctx, q, n.Customer)
	if err != nil {
		return err
	}
	same, err := toJSON(n.Spec.Document(n.NodeID, number, own))
	if err != nil || same == old {
		return err
	}
	if revision == 0 {
		if revision, err = turn(ctx, q); err != nil {
			return err
		}
	}
	return r.number(ctx, q, n, number+1, own, revision)
}

// number gives the document a number, and has whoever waits for it hear of it.
func (r *Roster) number(ctx context.Context, q db.Queryer, n *Node, number int64, own []fleet.Publisher, revision int64) error {
	document, err := toJSON(n.Spec.Document(n.NodeID, number, own))
	if err != nil {
		return err
	}
	n.Desired, n.DesiredAt = number, time.Now().UTC()
	if _, err = q.ExecContext(ctx, `UPDATE nodes SET document = $1, desired = $2, desired_at = $3, revision = $4 WHERE node_id = $5`,
		document, n.Desired, db.Micros(n.DesiredAt), revision, n.NodeID); err != nil {
		return err
	}
	if _, err = q.ExecContext(ctx, `INSERT INTO documents (node_id, number, document, at) VALUES ($1, $2, $3, $4)`, n.NodeID, n.Desired, document, db.Micros(n.DesiredAt)); err != nil {
		return err
	}
	_, err = q.ExecContext(ctx, `DELETE FROM documents WHERE node_id = $1 AND number < $2`, n.NodeID, n.Desired-keptDocuments)
	return err
}

// own are an organisation's publishers as documents have them.
func (r *Roster) own(ctx context.Context, q db.Queryer, customer string) ([]fleet.Publisher, error) {
	list, err := r.Publishers(ctx, q, customer)
	var own []fleet.Publisher
	for _, p := range list {
		own = append(own, fleet.Publisher{Name: p.Name, File: p.File})
	}
	return own, err
}

// Overtake gives a node's document a number above one that the node has, and
// says whether it had to: after the database was restored the node is ahead,
// and would take nothing for as long. Errors: ErrNotFound.
func (r *Roster) Overtake(ctx context.Context, node string, after int64) (ahead bool, err error) {
	err = r.d.Tx(ctx, func(tx *sql.Tx) error {
		n, err := r.Node(ctx, tx, node)
		if err != nil || n.Desired >= after {
			return err // what this replica has seen was old, nothing else
		}
		revision, err := turn(ctx, tx)
		if err != nil {
			return err
		}
		own, err := r.own(ctx, tx, n.Customer)
		if err != nil {
			return err
		}
		ahead = true
		return r.number(ctx, tx, n, after+1, own, revision)
	})
	return ahead, err
}

// keptDocuments is how many documents of a node before the newest are kept.
const keptDocuments = 50

// Documents returns two of a node's documents as they were sent. Errors:
// ErrNotFound for one that was never there or is too old; number 0 is an empty
// one.
func (r *Roster) Documents(ctx context.Context, node string, a, b int64) (one, other *fleet.Desired, err error) {
	read := func(number int64) (*fleet.Desired, error) {
		if number == 0 {
			return new(Spec).Document(node, 0, nil), nil
		}
		var text string
		err := r.d.QueryRowContext(ctx, `SELECT document FROM documents WHERE node_id = $1 AND number = $2`, strings.ToLower(node), number).Scan(&text)
		if errors.Is(err, sql.ErrNoRows) {
			return nil, ErrNotFound
		}
		if err != nil {
			return nil, fmt.Errorf("reading document %d of node %s: %w", number, node, err)
		}
		d := new(fleet.Desired)
		return d, json.Unmarshal([]byte(text), d)
	}
	if one, err = read(a); err != nil {
		return nil, nil, err
	}
	other, err = read(b)
	return one, other, err
}

// Document returns the desired document of a node. Errors: ErrNotFound.
func (r *Roster) Document(ctx context.Context, node string) (*fleet.Desired, error) {
	var text string
	err := r.d.QueryRowContext(ctx, `SELECT document FROM nodes WHERE node_id = $1`, strings.ToLower(node)).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading the document of node %s: %w", node, err)
	}
	var d fleet.Desired
	return &d, json.Unmarshal([]byte(text), &d)
}

// DeleteNode removes a node: its identity is worth nothing from then on. Errors:
// ErrNotFound.
func (r *Roster) DeleteNode(ctx context.Context, q db.Queryer, n *Node, now time.Time) error {
	revision, err := turn(ctx, q)
	if err != nil {
		return err
	}
	if err := one(q.ExecContext(ctx, `DELETE FROM nodes WHERE node_id = $1`, n.NodeID)); err != nil {
		return err
	}
	if _, err := q.ExecContext(ctx, `DELETE FROM documents WHERE node_id = $1`, n.NodeID); err != nil {
		return err
	}
	if _, err := q.ExecContext(ctx, `UPDATE identities SET revoked = $1, reason = 'node deleted' WHERE node_id = $2 AND revoked = 0`, db.Micros(now), n.NodeID); err != nil {
		return err
	}
	if _, err := q.ExecContext(ctx, `UPDATE history SET ended = $1 WHERE node_id = $2 AND ended = 0`, db.Micros(now), n.NodeID); err != nil {
		return err
	}
	_, err = q.ExecContext(ctx, `INSERT INTO departures (node_id, revision, at) VALUES ($1, $2, $3) ON CONFLICT (node_id) DO UPDATE SET revision = excluded.revision, at = excluded.at`,
		n.NodeID, revision, db.Micros(now))
	return err
}

// Clean forgets what is left of nodes that were deleted: identities that have
// expired, and, once all replicas have long seen it, that they left. It is for
// one replica at a time.
func (r *Roster) Clean(ctx context.Context, now time.Time) error {
	_, err := r.d.ExecContext(ctx, `DELETE FROM identities WHERE not_after < $1 AND node_id NOT IN (SELECT node_id FROM nodes)`, db.Micros(now))
	_, derr := r.d.ExecContext(ctx, `DELETE FROM departures WHERE at < $1`, db.Micros(now.Add(-30*24*time.Hour)))
	return errors.Join(err, derr)
}

// NodesIn lists some nodes of a customer within a transaction, up to limit.
func (r *Roster) NodesIn(ctx context.Context, q db.Queryer, customer string, limit int) ([]*Node, error) {
	rows, err := q.QueryContext(ctx, nodeColumns+` WHERE n.customer = $1 ORDER BY n.id LIMIT $2`, strings.ToLower(customer), limit)
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	return collect(rows, scanNode)
}

// CustomersIn lists all customers of a group within a transaction.
func (r *Roster) CustomersIn(ctx context.Context, q db.Queryer, subscription, group string) ([]*Customer, error) {
	rows, err := q.QueryContext(ctx, customerColumns+` WHERE c.subscription = $1 AND c.group_key = $2 ORDER BY c.id`, strings.ToLower(subscription), strings.ToLower(group))
	if err != nil {
		return nil, fmt.Errorf("listing customers: %w", err)
	}
	return collect(rows, scanCustomer)
}
