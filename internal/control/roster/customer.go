package roster

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"larder/internal/control/db"
)

// Group is a resource group, the container that ARM's clients expect.
type Group struct {
	Subscription string
	Name         string // as it was written first
	Location     string
	Tags         map[string]string
	Created      time.Time
}

// PutGroup makes a resource group or changes its tags. created is for a group
// that was not there when the caller looked.
func (r *Roster) PutGroup(ctx context.Context, q db.Queryer, g Group) (created bool, err error) {
	tags, err := tagsJSON(g.Tags)
	if err != nil {
		return false, err
	}
	// Two at once make one group, and both are told that it is there.
	err = q.QueryRowContext(ctx, `INSERT INTO resource_groups (subscription, key, name, location, tags, created) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (subscription, key) DO UPDATE SET tags = excluded.tags RETURNING created = $6 AND name = $3`,
		strings.ToLower(g.Subscription), strings.ToLower(g.Name), g.Name, g.Location, tags, db.Micros(g.Created)).Scan(&created)
	if err != nil {
		return false, fmt.Errorf("writing resource group %s: %w", g.Name, err)
	}
	return created, nil
}

const groupColumns = `SELECT subscription, name, location, tags, created FROM resource_groups`

func scanGroup(row interface{ Scan(...any) error }) (*Group, error) {
	var g Group
	var tags string
	var created int64
	if err := row.Scan(&g.Subscription, &g.Name, &g.Location, &tags, &created); err != nil {
		return nil, err
	}
	g.Created = db.Time(created)
	return &g, json.Unmarshal([]byte(tags), &g.Tags)
}

// Group returns a resource group. Errors: ErrNotFound.
func (r *Roster) Group(ctx context.Context, q db.Queryer, subscription, name string) (*Group, error) {
	g, err := scanGroup(q.QueryRowContext(ctx, groupColumns+` WHERE subscription = $1 AND key = $2`, strings.ToLower(subscription), strings.ToLower(name)))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	return g, err
}

// Groups returns the resource groups of a subscription, "" for all, by name.
func (r *Roster) Groups(ctx context.Context, subscription string) ([]*Group, error) {
	rows, err := r.d.QueryContext(ctx, groupColumns+` WHERE $1 = '' OR subscription = $1 ORDER BY subscription, key`, strings.ToLower(subscription))
	if err != nil {
		return nil, fmt.Errorf("listing resource groups: %w", err)
	}
	return collect(rows, scanGroup)
}

// DeleteGroup removes an empty resource group. Errors: ErrNotFound, ErrNotEmpty.
func (r *Roster) DeleteGroup(ctx context.Context, q db.Queryer, subscription, name string) error {
	subscription, name = strings.ToLower(subscription), strings.ToLower(name)
	var n int
	if err := q.QueryRowContext(ctx, `SELECT count(*) FROM customers WHERE subscription = $1 AND group_key = $2`, subscription, name).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return ErrNotEmpty
	}
	return one(q.ExecContext(ctx, `DELETE FROM resource_groups WHERE subscription = $1 AND key = $2`, subscription, name))
}

// Customer is an organisation: a Microsoft.ConnectedCache/enterpriseMccCustomers
// resource.
type Customer struct {
	ID           string // lower-case ARM id
	Subscription string
	Group        string
	Name         string
	Location     string
	CustomerID   string // GUID
	Tags         map[string]string
	Properties   json.RawMessage // what a client wrote, in ARM's names
	Provisioning string          // ARM's provisioningState
	Version      int64
	System       SystemData
}

// CustomerPath is the ARM id of a customer as it is shown.
func CustomerPath(subscription, group, name string) string {
	return "/subscriptions/" + subscription + "/resourceGroups/" + group + "/providers/Microsoft.ConnectedCache/enterpriseMccCustomers/" + name
}

// Path is the ARM id as it is shown.
func (c *Customer) Path() string { return CustomerPath(c.Subscription, c.Group, c.Name) }

const customerColumns = `SELECT c.id, c.subscription, g.name, c.name, c.location, c.customer_id, c.tags, c.properties, c.provisioning, c.version, c.system_data
	FROM customers c JOIN resource_groups g ON g.subscription = c.subscription AND g.key = c.group_key`

func scanCustomer(row interface{ Scan(...any) error }) (*Customer, error) {
	var c Customer
	var tags, properties, system string
	if err := row.Scan(&c.ID, &c.Subscription, &c.Group, &c.Name, &c.Location, &c.CustomerID, &tags, &properties, &c.Provisioning, &c.Version, &system); err != nil {
		return nil, err
	}
	c.Properties = json.RawMessage(properties)
	return &c, errors.Join(json.Unmarshal([]byte(tags), &c.Tags), json.Unmarshal([]byte(system), &c.System))
}

// Customer returns one by its ARM id. Errors: ErrNotFound.
func (r *Roster) Customer(ctx context.Context, q db.Queryer, id string) (*Customer, error) {
	c, err := scanCustomer(q.QueryRowContext(ctx, customerColumns+` WHERE c.id = $1`, strings.ToLower(id)))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading customer %s: %w", id, err)
	}
	return c, nil
}

// Customers lists those of a subscription, or of a group in it, in the order of
// their ids: up to limit of them after one id. "" means all.
func (r *Roster) Customers(ctx context.Context, subscription, group, after string, limit int) ([]*Customer, error) {
	rows, err := r.d.QueryContext(ctx, customerColumns+` WHERE ($1 = '' OR c.subscription = $1) AND ($2 = '' OR c.group_key = $2) AND c.id > $3 ORDER BY c.id LIMIT $4`,
		strings.ToLower(subscription), strings.ToLower(group), after, limit)
	if err != nil {
		return nil, fmt.Errorf("listing customers: %w", err)
	}
	return collect(rows, scanCustomer)
}

// InsertCustomer adds c, whose group is there, with new keys. Errors: ErrExists.
func (r *Roster) InsertCustomer(ctx context.Context, q db.Queryer, c *Customer) error {
	c.ID, c.Version = strings.ToLower(c.Path()), 1
	primary, err := r.key.Seal([]byte(newSecret()), keyContext(c.ID, "primary"))
	if err != nil {
		return err
	}
	secondary, err := r.key.Seal([]byte(newSecret()), keyContext(c.ID, "secondary"))
	if err != nil {
		return err
	}
	tags, err1 := tagsJSON(c.Tags)
	system, err2 := toJSON(c.System)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	_, err = q.ExecContext(ctx, `INSERT INTO customers (id, subscription, group_key, name, location, customer_id, tags, properties, provisioning, version, system_data, primary_key, secondary_key)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		c.ID, strings.ToLower(c.Subscription), strings.ToLower(c.Group), c.Name, c.Location, c.CustomerID, tags, string(c.Properties), c.Provisioning, c.Version, system, primary, secondary)
	if db.IsDuplicate(err) {
		return ErrExists
	}
	return err
}

// UpdateCustomer writes c back if it is still the version that was read.
// Errors: ErrChanged.
func (r *Roster) UpdateCustomer(ctx context.Context, q db.Queryer, c *Customer) error {
	tags, err1 := tagsJSON(c.Tags)
	system, err2 := toJSON(c.System)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	err := one(q.ExecContext(ctx, `UPDATE customers SET tags = $1, properties = $2, provisioning = $3, version = version + 1, system_data = $4 WHERE id = $5 AND version = $6`,
		tags, string(c.Properties), c.Provisioning, system, c.ID, c.Version))
	if errors.Is(err, ErrNotFound) {
		return ErrChanged
	}
	if err == nil {
		c.Version++
	}
	return err
}

// SettleCustomer is SettleNode for an organisation.
func (r *Roster) SettleCustomer(ctx context.Context, q db.Queryer, id string) error {
	_, err := q.ExecContext(ctx, `UPDATE customers SET provisioning = 'Succeeded' WHERE id = $1 AND provisioning = 'Accepted'`, strings.ToLower(id))
	return err
}

// DeleteCustomer removes one without nodes. Errors: ErrNotFound, ErrNotEmpty.
func (r *Roster) DeleteCustomer(ctx context.Context, q db.Queryer, id string) error {
	id = strings.ToLower(id)
	var n int
	if err := q.QueryRowContext(ctx, `SELECT count(*) FROM nodes WHERE customer = $1`, id).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return ErrNotEmpty
	}
	return one(q.ExecContext(ctx, `DELETE FROM customers WHERE id = $1`, id))
}

// CustomerKeys returns the keys that a node's registration shows one of.
func (r *Roster) CustomerKeys(ctx context.Context, q db.Queryer, id string) (primary, secondary string, err error) {
	id = strings.ToLower(id)
	var p, s []byte
	err = q.QueryRowContext(ctx, `SELECT primary_key, secondary_key FROM customers WHERE id = $1`, id).Scan(&p, &s)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", ErrNotFound
	}
	if err != nil {
		return "", "", err
	}
	p, err1 := r.key.Open(p, keyContext(id, "primary"))
	s, err2 := r.key.Open(s, keyContext(id, "secondary"))
	if err := errors.Join(err1, err2); err != nil {
		return "", "", fmt.Errorf("customer keys of %s: %w", id, err)
	}
	return string(p), string(s), nil
}

func keyContext(id, which string) []byte { return []byte("customers." + which + "_key " + id) }

// newSecret is 256 random bits for people to copy.
func newSecret() string {
	var raw [32]byte
	rand.Read(raw[:])
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// one turns "no row" into ErrNotFound.
func one(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrNotFound)
	}
	return nil
}

func collect[T any](rows *sql.Rows, scan func(interface{ Scan(...any) error }) (*T, error)) ([]*T, error) {
	defer rows.Close()
	list := []*T{}
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}
