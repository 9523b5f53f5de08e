package gate

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"

	"larder/internal/control/db"
	"larder/internal/control/seal"
	"larder/internal/pki/authority"
)

// Authorities keeps the control plane's own CA in the database, sealed, and the
// replicas' copies of it together.
type Authorities struct {
	d   *db.DB
	key *seal.Key
	ca  *authority.Authority
	now func() time.Time

	mu     sync.Mutex // held while ca is replaced
	loaded string     // ids of what ca holds, the active one first; guarded by mu

	verified verified
}

// verified remembers certificates that were found good: a node shows the same
// one with each request, and looking at its signature is a tenth of what a
// request costs.
type verified struct {
	mu sync.RWMutex
	m  map[[sha256.Size]byte]*remembered // guarded by mu
	n  int                               // how often all was forgotten; guarded by mu
}

type remembered struct {
	claim authority.Claim
	until time.Time // it is looked at anew
}

const (
	rememberFor  = 10 * time.Minute
	rememberMost = 100_000
)

// Verify is the authority's, remembering for a while what it found good.
func (a *Authorities) Verify(certs []*x509.Certificate, now time.Time) (*authority.Claim, error) {
	key := sha256.Sum256(certs[0].Raw)
	a.verified.mu.RLock()
	known, before := a.verified.m[key], a.verified.n
	a.verified.mu.RUnlock()
	if known != nil && now.Before(known.until) {
		c := known.claim
		return &c, nil
	}
	c, err := a.ca.Verify(certs, now)
	if err != nil || c.Expired || now.Before(c.NotBefore) {
		return c, err
	}
	until := now.Add(rememberFor)
	if c.NotAfter.Before(until) {
		until = c.NotAfter
	}
	a.verified.mu.Lock()
	defer a.verified.mu.Unlock()
	if before != a.verified.n {
		return c, nil // the roots have changed meanwhile; this request was just in time
	}
	if len(a.verified.m) >= rememberMost || a.verified.m == nil {
		a.verified.m = map[[sha256.Size]byte]*remembered{}
	}
	a.verified.m[key] = &remembered{*c, until}
	return c, nil
}

// forget has everything looked at anew: other roots are trusted.
func (v *verified) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.m = nil
	v.n++
}

// OpenAuthorities loads the authority, making one with a new database. name is
// what people read in its certificate.
func OpenAuthorities(ctx context.Context, d *db.DB, key *seal.Key, name string, now func() time.Time) (*Authorities, error) {
	a := &Authorities{d: d, key: key, now: now}
	err := d.Tx(ctx, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM authorities`).Scan(&n); err != nil || n > 0 {
			return err
		}
		// Two replicas that start on a new database must not make one each: the
		// row of the counter is what they wait for one another at.
		if _, err := tx.ExecContext(ctx, `UPDATE counters SET value = value + 1 WHERE name = 'revision'`); err != nil {
			return err
		}
		return a.add(ctx, tx, name, true)
	})
	if err != nil {
		return nil, fmt.Errorf("making the authority: %w", err)
	}
	return a, a.Load(ctx)
}

// Authority is the one in use.
func (a *Authorities) Authority() *authority.Authority { return a.ca }

func (a *Authorities) add(ctx context.Context, q db.Queryer, name string, active bool) error {
	ca, err := authority.Create(name, a.now())
	if err != nil {
		return err
	}
	der, err := ca.Key()
	if err != nil {
		return err
	}
	id := idOf(ca.Certificate())
	sealed, err := a.key.Seal(der, []byte("authorities "+id))
	if err != nil {
		return err
	}
	_, err = q.ExecContext(ctx, `INSERT INTO authorities (id, certificate, sealed_key, created, active) VALUES ($1, $2, $3, $4, $5)`, id, ca.Certificate().Raw, sealed, db.Micros(a.now()), active)
	return err
}

func idOf(c *x509.Certificate) string { return authority.Fingerprint(c)[len("sha256:"):] }

// Load reads what the database has, and swaps it in if it is not in use yet.
func (a *Authorities) Load(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	rows, err := a.d.QueryContext(ctx, `SELECT id, certificate, sealed_key, active FROM authorities WHERE retired = 0 ORDER BY created DESC, id`)
	if err != nil {
		return fmt.Errorf("reading the authorities: %w", err)
	}
	defer rows.Close()
	var active *authority.CA
	var trusted []*x509.Certificate
	ids := ""
	for rows.Next() {
		var id string
		var cert, sealed []byte
		var signs bool
		if err := rows.Scan(&id, &cert, &sealed, &signs); err != nil {
			return err
		}
		if !signs {
			c, err := x509.ParseCertificate(cert)
			if err != nil {
				return fmt.Errorf("authority %s: %w", id, err)
			}
			trusted = append(trusted, c)
			ids += " " + id
			continue
		}
		key, err := a.key.Open(sealed, []byte("authorities "+id))
		if err != nil {
			return fmt.Errorf("the key of authority %s: %w", id, err)
		}
		if active, err = authority.Load(cert, key); err != nil {
			return fmt.Errorf("authority %s: %w", id, err)
		}
		ids = id + ids
	}
	if err := rows.Err(); err != nil {
		return err
	}
	switch {
	case active == nil:
		return fmt.Errorf("the database has no authority that signs")
	case a.ca == nil:
		a.ca = authority.New(active, trusted...)
	case ids != a.loaded:
		a.ca.Replace(active, trusted...)
		a.verified.forget()
	}
	a.loaded = ids
	return nil
}

// Change runs f, which goes a step from one root to the next, in a transaction,
// and has this replica use what came of it; the others follow when they load.
func (a *Authorities) Change(ctx context.Context, f func(tx *sql.Tx) error) error {
	if err := a.d.Tx(ctx, f); err != nil {
		return err
	}
	return a.Load(ctx)
}

// Announce makes a root that is to follow the active one: nodes get to trust it
// with their next report, and it signs nothing before Activate.
func (a *Authorities) Announce(ctx context.Context, tx *sql.Tx, name string) error {
	var waiting int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM authorities WHERE retired = 0`).Scan(&waiting); err != nil {
		return err
	}
	if waiting > 1 {
		return fmt.Errorf("there are two roots already: activate the newer one, or retire the older one first")
	}
	return a.add(ctx, tx, name, false)
}

// LeftError says that a step would cut nodes off.
type LeftError struct {
	Nodes []string // names, the first few
	Count int
	Why   string
}

func (e *LeftError) Error() string {
	names := strings.Join(e.Nodes, ", ")
	if e.Count > len(e.Nodes) {
		names += ", …"
	}
	return fmt.Sprintf("%d nodes would be cut off (%s): %s", e.Count, names, e.Why)
}

// following is how long other replicas may go on with the roots before a step.
const following = time.Minute

// Activate lets the newest root sign; the one before it is still trusted. Nodes
// that have not reported since it was announced do not trust it: while there are
// some, and without force, nothing is changed. Errors: *LeftError.
func (a *Authorities) Activate(ctx context.Context, tx *sql.Tx, force bool) error {
	var newest string
	var announced int64
	if err := tx.QueryRowContext(ctx, `SELECT id, created FROM authorities WHERE retired = 0 ORDER BY created DESC, active, id LIMIT 1`).Scan(&newest, &announced); err != nil {
		return err
	}
	if newest == idOf(a.ca.Roots()[0]) {
		return fmt.Errorf("the newest root signs already: announce the next one first")
	}
	if !force {
		err := left(ctx, tx, `n.last_seen < $1`, announced+following.Microseconds(),
			"they have not been told of the next root. Wait until they report, delete them, or step with force and enrol them anew")
		if err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `UPDATE authorities SET active = (id = $1), activated = CASE WHEN id = $1 THEN $2 ELSE activated END WHERE retired = 0`, newest, db.Micros(a.now()))
	return err
}

// Retire ends the trust in roots that no longer sign. Nodes that have no
// identity of the one that signs must enrol anew then: while there are some, and
// without force, nothing is changed. Errors: *LeftError.
func (a *Authorities) Retire(ctx context.Context, tx *sql.Tx, force bool) error {
	if !force {
		var since int64
		if err := tx.QueryRowContext(ctx, `SELECT CASE WHEN activated = 0 THEN created ELSE activated END FROM authorities WHERE active AND retired = 0`).Scan(&since); err != nil {
			return err
		}
		err := left(ctx, tx, `NOT EXISTS (SELECT 1 FROM identities i WHERE i.node_id = n.node_id AND i.line = n.line AND i.used <> 0 AND i.revoked = 0 AND i.issued >= $1)`, since+following.Microseconds(),
			"their identities are of the root before. They renew within 20 days by themselves; wait, delete them, or step with force and enrol them anew")
		if err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `UPDATE authorities SET retired = $1 WHERE retired = 0 AND NOT active`, db.Micros(a.now()))
	return err
}

// left is a LeftError if there are enrolled nodes that a condition holds for.
func left(ctx context.Context, tx *sql.Tx, where string, arg int64, why string) error {
	const enrolled = ` FROM nodes n WHERE n.line > 0 AND n.revoked = 0 AND `
	e := &LeftError{Why: why}
	if err := tx.QueryRowContext(ctx, `SELECT count(*)`+enrolled+where, arg).Scan(&e.Count); err != nil || e.Count == 0 {
		return err
	}
	rows, err := tx.QueryContext(ctx, `SELECT n.name`+enrolled+where+` ORDER BY n.name LIMIT 5`, arg)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		e.Nodes = append(e.Nodes, name)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return e
}

// Fingerprint is what a node's command pins: that of the root that signs.
func (a *Authorities) Fingerprint() string { return authority.Fingerprint(a.ca.Roots()[0]) }

// spkiOf is how a public key is written down.
func spkiOf(sum [32]byte) string { return hex.EncodeToString(sum[:]) }
