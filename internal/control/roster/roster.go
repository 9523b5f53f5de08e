// Package roster keeps the fleet: organisations, their nodes, what each node is
// to be, and a snapshot in memory of what every request asks, that readers
// never wait for.
//
// Functions that take a db.Queryer work inside the caller's transaction, so
// that the audit's entry and the change are one. After its commit the caller
// calls Kick; other replicas see the change within Follow.
package roster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"larder/internal/control/db"
	"larder/internal/control/seal"
)

var (
	// ErrNotFound: there is no such resource.
	ErrNotFound = errors.New("not found")
	// ErrExists: there is one of this name.
	ErrExists = errors.New("exists already")
	// ErrChanged: the resource is not the version that was expected (If-Match).
	ErrChanged = errors.New("changed since it was read")
	// ErrNotEmpty: there are resources inside it.
	ErrNotEmpty = errors.New("still holds resources")
)

// Names of resources: facts, connected-cache 4.2.
var nameForm = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,90}$`)

// CheckName says what is wrong with the name of a customer or node.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("name: found %q, expected 1 to 90 letters, digits, - or _", name)
	}
	return nil
}

// SystemData is ARM's note of who made and changed a resource.
type SystemData struct {
	CreatedBy          string    `json:"createdBy"`
	CreatedByType      string    `json:"createdByType"` // User, Application or Key
	CreatedAt          time.Time `json:"createdAt"`
	LastModifiedBy     string    `json:"lastModifiedBy"`
	LastModifiedByType string    `json:"lastModifiedByType"`
	LastModifiedAt     time.Time `json:"lastModifiedAt"`
}

// Touch notes a change.
func (s *SystemData) Touch(by, byType string, now time.Time) {
	now = now.UTC().Truncate(time.Microsecond)
	if s.CreatedAt.IsZero() {
		s.CreatedBy, s.CreatedByType, s.CreatedAt = by, byType, now
	}
	s.LastModifiedBy, s.LastModifiedByType, s.LastModifiedAt = by, byType, now
}

// ETag is the entity tag of a version.
func ETag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// Roster is the fleet of one database.
type Roster struct {
	d    *db.DB
	key  *seal.Key
	log  *slog.Logger
	kick chan struct{} // holds one

	cur atomic.Pointer[Snapshot]

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of cur; guarded by mu
}

// Open loads the snapshot. Run must follow for changes to be seen.
func Open(ctx context.Context, d *db.DB, key *seal.Key, log *slog.Logger) (*Roster, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Roster{d: d, key: key, log: log, kick: make(chan struct{}, 1), changed: make(chan struct{})}
	r.cur.Store(&Snapshot{members: map[string]Member{}})
	return r, r.Refresh(ctx)
}

// Member is what requests ask of a node.
type Member struct {
	Node     string // GUID
	ID       string // lower-case ARM id
	Customer string // lower-case ARM id
	Name     string
	Line     int64
	Revoked  bool // the identities of this line
	Desired  int64
}

// Snapshot is the fleet at one moment. It does not change.
type Snapshot struct {
	revision int64
	members  map[string]Member // by lower-case GUID
}

// Member returns a node by its GUID.
func (s *Snapshot) Member(node string) (Member, bool) {
	m, ok := s.members[strings.ToLower(node)]
	return m, ok
}

// Len is how many nodes there are.
func (s *Snapshot) Len() int { return len(s.members) }

// Now is the snapshot in use.
func (r *Roster) Now() *Snapshot { return r.cur.Load() }

// Changed returns a channel that is closed when the snapshot is replaced. Ask
// for it before looking at Now.
func (r *Roster) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Follow is how often other replicas' changes are looked for.
const Follow = time.Second

// Run follows the database until ctx ends.
func (r *Roster) Run(ctx context.Context) error {
	tick := time.NewTicker(Follow)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-tick.C:
		case <-r.kick:
		case <-ctx.Done():
			return nil
		}
		err := r.Refresh(ctx)
		switch {
		case err != nil && !failing && ctx.Err() == nil:
			r.log.ErrorContext(ctx, "roster not refreshed, going on with what is known", "err", err)
		case err == nil && failing:
			r.log.InfoContext(ctx, "roster refreshed again")
		}
		failing = err != nil
	}
}

// Kick has Run look at the database now.
func (r *Roster) Kick() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Refresh brings the snapshot up to date with the database.
func (r *Roster) Refresh(ctx context.Context) error {
	old := r.cur.Load()
	next := &Snapshot{revision: old.revision}
	var members map[string]Member
	own := func() map[string]Member { // copied once it must change
		if members == nil {
			members = maps.Clone(old.members)
		}
		return members
	}
	// Departures first: a node that is made anew under the same GUID has the
	// higher revision and is read after it.
	rows, err := r.d.QueryContext(ctx, `SELECT node_id, revision FROM departures WHERE revision > $1`, old.revision)
	if err != nil {
		return fmt.Errorf("reading departures: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var node string
		var revision int64
		if err := rows.Scan(&node, &revision); err != nil {
			return err
		}
		delete(own(), node)
		next.revision = max(next.revision, revision)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows, err = r.d.QueryContext(ctx, `SELECT node_id, id, customer, name, line, revoked <> 0, desired, revision FROM nodes WHERE revision > $1`, old.revision)
	if err != nil {
		return fmt.Errorf("reading nodes: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var m Member
		var revision int64
		if err := rows.Scan(&m.Node, &m.ID, &m.Customer, &m.Name, &m.Line, &m.Revoked, &m.Desired, &revision); err != nil {
			return err
		}
		own()[m.Node] = m
		next.revision = max(next.revision, revision)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if members == nil {
		return nil
	}
	next.members = members
	// Two refreshes at once: the one that has seen more stays.
	for {
		if r.cur.CompareAndSwap(old, next) {
			break
		}
		if old = r.cur.Load(); old.revision >= next.revision {
			return nil
		}
	}
	r.mu.Lock()
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	return nil
}

// turn gives out the next revision. Its row stays locked until the transaction
// ends, so revisions become visible in their order.
func turn(ctx context.Context, q db.Queryer) (int64, error) {
	var n int64
	err := q.QueryRowContext(ctx, `UPDATE counters SET value = value + 1 WHERE name = 'revision' RETURNING value`).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("taking the next revision: %w", err)
	}
	return n, nil
}

func toJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

func tagsJSON(tags map[string]string) (string, error) {
	if tags == nil {
		tags = map[string]string{}
	}
	return toJSON(tags)
}
