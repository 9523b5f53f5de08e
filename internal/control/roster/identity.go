package roster

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"larder/internal/control/db"
)

// Identity is a certificate that a node got to prove itself by.
type Identity struct {
	Serial    string // hexadecimal
	Node      string
	Line      int64
	SPKI      string
	NotBefore time.Time
	NotAfter  time.Time
	Issued    time.Time
	Used      time.Time // when a node first came with it
	Revoked   time.Time
	Reason    string // of Revoked
	Approved  time.Time
}

var (
	// ErrRevoked: the identity was revoked, its node was deleted or enrolled again.
	ErrRevoked = errors.New("identity is no longer good")
	// ErrSucceeded: a later identity of the same line is in use, so whoever
	// shows this one is a copy of the node, or a restored back-up.
	ErrSucceeded = errors.New("a later identity of this node is in use")
)

// AddIdentity writes down what was issued.
func (r *Roster) AddIdentity(ctx context.Context, q db.Queryer, i Identity) error {
	_, err := q.ExecContext(ctx, `INSERT INTO identities (serial, node_id, line, spki, not_before, not_after, issued) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		i.Serial, i.Node, i.Line, i.SPKI, db.Micros(i.NotBefore), db.Micros(i.NotAfter), db.Micros(i.Issued))
	if err != nil {
		return fmt.Errorf("writing down an identity of node %s: %w", i.Node, err)
	}
	return nil
}

const identityColumns = `SELECT serial, node_id, line, spki, not_before, not_after, issued, used, revoked, reason, approved FROM identities`

func scanIdentity(row interface{ Scan(...any) error }) (*Identity, error) {
	var i Identity
	var from, until, issued, used, revoked, approved int64
	if err := row.Scan(&i.Serial, &i.Node, &i.Line, &i.SPKI, &from, &until, &issued, &used, &revoked, &i.Reason, &approved); err != nil {
		return nil, err
	}
	i.NotBefore, i.NotAfter, i.Issued, i.Used, i.Revoked, i.Approved = db.Time(from), db.Time(until), db.Time(issued), db.Time(used), db.Time(revoked), db.Time(approved)
	return &i, nil
}

// Identities lists those of a node, the latest first.
func (r *Roster) Identities(ctx context.Context, q db.Queryer, node string) ([]*Identity, error) {
	rows, err := q.QueryContext(ctx, identityColumns+` WHERE node_id = $1 ORDER BY line DESC, issued DESC, serial`, strings.ToLower(node))
	if err != nil {
		return nil, fmt.Errorf("listing identities: %w", err)
	}
	return collect(rows, scanIdentity)
}

// Renewable looks whether an identity may have a successor: it is of the node's
// present line, was not revoked, and none of its line after it was used. A
// successor that never arrived does not count. Errors: ErrRevoked, ErrSucceeded.
func (r *Roster) Renewable(ctx context.Context, q db.Queryer, serial string) (*Identity, error) {
	i, err := scanIdentity(q.QueryRowContext(ctx, identityColumns+` WHERE serial = $1`, serial))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrRevoked
	}
	if err != nil {
		return nil, err
	}
	var line, revoked int64
	err = q.QueryRowContext(ctx, `SELECT line, revoked FROM nodes WHERE node_id = $1`, i.Node).Scan(&line, &revoked)
	if errors.Is(err, sql.ErrNoRows) || err == nil && (line != i.Line || revoked != 0 || !i.Revoked.IsZero()) {
		return nil, ErrRevoked
	}
	if err != nil {
		return nil, err
	}
	var later int
	if err := q.QueryRowContext(ctx, `SELECT count(*) FROM identities WHERE node_id = $1 AND line = $2 AND issued > $3 AND used <> 0`, i.Node, i.Line, db.Micros(i.Issued)).Scan(&later); err != nil {
		return nil, err
	}
	if later > 0 {
		return i, ErrSucceeded
	}
	return i, nil
}

// UseIdentity notes that a node came with an identity.
func (r *Roster) UseIdentity(ctx context.Context, serial string, now time.Time) error {
	_, err := r.d.ExecContext(ctx, `UPDATE identities SET used = $1 WHERE serial = $2 AND used = 0`, db.Micros(now), serial)
	return err
}

// NoteCopy notes that a second machine came with a node's identity.
func (r *Roster) NoteCopy(ctx context.Context, node string, now time.Time) error {
	_, err := r.d.ExecContext(ctx, `UPDATE nodes SET copied = $1 WHERE node_id = $2`, db.Micros(now), node)
	return err
}

// Revoke makes a node's identities worth nothing: it is lost, or was stolen. A
// new registration key brings it back. Errors: ErrNotFound.
func (r *Roster) Revoke(ctx context.Context, q db.Queryer, node, reason string, now time.Time) error {
	revision, err := turn(ctx, q)
	if err != nil {
		return err
	}
	if err := one(q.ExecContext(ctx, `UPDATE nodes SET revoked = $1, revision = $2 WHERE node_id = $3`, db.Micros(now), revision, node)); err != nil {
		return err
	}
	_, err = q.ExecContext(ctx, `UPDATE identities SET revoked = $1, reason = $2 WHERE node_id = $3 AND revoked = 0`, db.Micros(now), reason, node)
	return err
}

// Approve lets a node's latest identity renew once although it expired longer
// ago than the authority allows by itself. Errors: ErrNotFound.
func (r *Roster) Approve(ctx context.Context, q db.Queryer, node string, now time.Time) error {
	return one(q.ExecContext(ctx, `UPDATE identities SET approved = $1 WHERE node_id = $2 AND revoked = 0 AND line = (SELECT line FROM nodes WHERE node_id = $2)`, db.Micros(now), node))
}
