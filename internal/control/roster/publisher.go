package roster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"larder/internal/control/db"
)

// Publisher is one of an organisation's own publisher files.
type Publisher struct {
	Name    string    `json:"name"`
	File    string    `json:"file"` // YAML, the format of docs/operating/node.md
	Version int64     `json:"version"`
	Changed time.Time `json:"changed"`
}

// Publishers lists those of a customer by name.
func (r *Roster) Publishers(ctx context.Context, q db.Queryer, customer string) ([]*Publisher, error) {
	rows, err := q.QueryContext(ctx, `SELECT name, file, version, changed FROM publishers WHERE customer = $1 ORDER BY name`, strings.ToLower(customer))
	if err != nil {
		return nil, fmt.Errorf("listing publishers: %w", err)
	}
	return collect(rows, func(row interface{ Scan(...any) error }) (*Publisher, error) {
		var p Publisher
		var changed int64
		err := row.Scan(&p.Name, &p.File, &p.Version, &changed)
		p.Changed = db.Time(changed)
		return &p, err
	})
}

// PutPublisher adds or replaces a publisher file. The documents of all of the
// customer's nodes are numbered anew.
func (r *Roster) PutPublisher(ctx context.Context, q db.Queryer, customer, name, file string, now time.Time) error {
	_, err := q.ExecContext(ctx, `INSERT INTO publishers (customer, name, file, version, changed) VALUES ($1, $2, $3, 1, $4)
		ON CONFLICT (customer, name) DO UPDATE SET file = excluded.file, version = publishers.version + 1, changed = excluded.changed`, strings.ToLower(customer), name, file, db.Micros(now))
	if err != nil {
		return fmt.Errorf("writing publisher %s: %w", name, err)
	}
	return r.desireAll(ctx, q, customer)
}

// DeletePublisher removes a publisher file. Errors: ErrNotFound.
func (r *Roster) DeletePublisher(ctx context.Context, q db.Queryer, customer, name string) error {
	if err := one(q.ExecContext(ctx, `DELETE FROM publishers WHERE customer = $1 AND name = $2`, strings.ToLower(customer), name)); err != nil {
		return err
	}
	return r.desireAll(ctx, q, customer)
}

// desireAll brings the documents of a customer's nodes up to date.
func (r *Roster) desireAll(ctx context.Context, q db.Queryer, customer string) error {
	rows, err := q.QueryContext(ctx, nodeColumns+` WHERE n.customer = $1 ORDER BY n.node_id`, strings.ToLower(customer))
	if err != nil {
		return err
	}
	nodes, err := collect(rows, scanNode)
	if err != nil || len(nodes) == 0 {
		return err
	}
	revision, err := turn(ctx, q)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if err := r.desire(ctx, q, n, revision); err != nil {
			return err
		}
	}
	return nil
}
