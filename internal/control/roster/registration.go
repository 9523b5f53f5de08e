package roster

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"larder/internal/control/db"
)

// KeyLife is how long a registration key may wait for its node.
const KeyLife = 24 * time.Hour

// Again is how long after its use a registration key is still taken from the
// same public key: the answer may have been lost on its way.
const Again = time.Hour

var (
	// ErrKeyInvalid: the registration names no node, or shows a wrong key.
	ErrKeyInvalid = errors.New("customer, node or key is not right")
	// ErrKeyUsed: the registration key was used.
	ErrKeyUsed = errors.New("registration key was used")
	// ErrKeyExpired: the registration key waited too long.
	ErrKeyExpired = errors.New("registration key has expired")
)

// RegistrationKey returns the key that a node can register with, and until
// when. It makes one if there is none that is still good for an hour.
func (r *Roster) RegistrationKey(ctx context.Context, q db.Queryer, node string, now time.Time) (key string, expires time.Time, err error) {
	node = strings.ToLower(node)
	var sealed []byte
	var until int64
	err = q.QueryRowContext(ctx, `SELECT registration_sealed, registration_expires FROM nodes WHERE node_id = $1`, node).Scan(&sealed, &until)
	if errors.Is(err, sql.ErrNoRows) {
		return "", time.Time{}, ErrNotFound
	}
	if err != nil {
		return "", time.Time{}, err
	}
	if len(sealed) > 0 && db.Time(until).Sub(now) > time.Hour {
		plain, err := r.key.Open(sealed, registrationContext(node))
		if err != nil {
			return "", time.Time{}, fmt.Errorf("registration key of node %s: %w", node, err)
		}
		return string(plain), db.Time(until), nil
	}
	key, expires = newSecret(), now.Add(KeyLife).UTC().Truncate(time.Microsecond)
	if sealed, err = r.key.Seal([]byte(key), registrationContext(node)); err != nil {
		return "", time.Time{}, err
	}
	hash := sha256.Sum256([]byte(key))
	_, err = q.ExecContext(ctx, `UPDATE nodes SET registration_hash = $1, registration_sealed = $2, registration_expires = $3 WHERE node_id = $4`, hash[:], sealed, db.Micros(expires), node)
	return key, expires, err
}

func registrationContext(node string) []byte { return []byte("nodes.registration " + node) }

// Proof is what a node shows to register.
type Proof struct {
	CustomerID, Node, CustomerKey, RegistrationKey string
	SPKI                                           string // SHA-256 of its public key, hexadecimal
}

// Redeem checks a proof and uses its registration key up: the node's line grows
// by one, and the identities of lines before it are revoked. The same proof for
// the same public key is taken again for an hour, with the same line. Errors:
// ErrKeyInvalid, and for those who show the customer's key ErrKeyUsed and
// ErrKeyExpired.
func (r *Roster) Redeem(ctx context.Context, q db.Queryer, p Proof, now time.Time) (n *Node, err error) {
	n, err = r.Node(ctx, q, p.Node)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrKeyInvalid
	}
	if err != nil {
		return nil, err
	}
	c, err := r.Customer(ctx, q, n.Customer)
	if err != nil {
		return nil, err
	}
	primary, secondary, err := r.CustomerKeys(ctx, q, n.Customer)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(c.CustomerID, p.CustomerID) || !equal(primary, p.CustomerKey) && !equal(secondary, p.CustomerKey) {
		return nil, ErrKeyInvalid
	}
	var good, last []byte
	var spki string
	var expires, used int64
	if err := q.QueryRowContext(ctx, `SELECT registration_hash, registration_expires, registration_last, registration_used, registration_spki FROM nodes WHERE node_id = $1`, n.NodeID).
		Scan(&good, &expires, &last, &used, &spki); err != nil {
		return nil, err
	}
	hash := sha256.Sum256([]byte(p.RegistrationKey))
	switch {
	case subtle.ConstantTimeCompare(hash[:], good) == 1 && now.After(db.Time(expires)):
		return nil, ErrKeyExpired
	case subtle.ConstantTimeCompare(hash[:], good) == 1:
	case subtle.ConstantTimeCompare(hash[:], last) == 1 && spki == p.SPKI && now.Sub(db.Time(used)) < Again:
		return n, nil
	case subtle.ConstantTimeCompare(hash[:], last) == 1:
		return nil, ErrKeyUsed
	default:
		return nil, ErrKeyInvalid
	}
	revision, err := turn(ctx, q)
	if err != nil {
		return nil, err
	}
	n.Line++
	n.KeyExpires = time.Time{}
	// The minutes of the new line are counted from the start.
	if _, err := q.ExecContext(ctx, `UPDATE nodes SET registration_hash = NULL, registration_sealed = NULL, registration_expires = 0, registration_last = $1, registration_used = $2, registration_spki = $3,
		line = $4, revoked = 0, seq = 0, instance = '', copied = 0, revision = $5 WHERE node_id = $6`, hash[:], db.Micros(now), p.SPKI, n.Line, revision, n.NodeID); err != nil {
		return nil, err
	}
	_, err = q.ExecContext(ctx, `UPDATE identities SET revoked = $1, reason = 'enrolled again' WHERE node_id = $2 AND line < $3 AND revoked = 0`, db.Micros(now), n.NodeID, n.Line)
	return n, err
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
