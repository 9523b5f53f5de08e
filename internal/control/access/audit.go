package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"larder/internal/control/db"
)

// Entry is something that was done, or tried.
type Entry struct {
	Actor   *Principal // nil: nobody who was recognised
	Remote  string     // address it came from
	Action  string     // noun.verb: "node.settings", "user.create"
	Target  string
	Before  any    // written as JSON with its secrets taken out; nil for none
	After   any    // likewise
	Outcome string // "" for done
}

// Audited is an entry as it was written down.
type Audited struct {
	Seq     int64           `json:"seq"`
	At      time.Time       `json:"at"`
	Actor   string          `json:"actor"`
	ActorID string          `json:"actorId"`
	Kind    Kind            `json:"kind"`
	Remote  string          `json:"remote"`
	Action  string          `json:"action"`
	Target  string          `json:"target"`
	Outcome string          `json:"outcome"`
	Before  json.RawMessage `json:"before,omitempty"`
	After   json.RawMessage `json:"after,omitempty"`
	Hash    string          `json:"hash"` // SHA-256 over the hash before it and all the above
}

// sum is the entry's hash after the one before.
func (a *Audited) sum(before string) string {
	h := sha256.New()
	// Lengths keep two different rows from having the same bytes.
	for _, part := range []string{before, fmt.Sprint(a.Seq), fmt.Sprint(db.Micros(a.At)), a.Actor, a.ActorID, string(a.Kind), a.Remote, a.Action, a.Target, a.Outcome, string(a.Before), string(a.After)} {
		fmt.Fprintf(h, "%d:%s\n", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Record writes an entry in the transaction of what it is about. Entries are
// numbered without gaps: whoever writes one waits for the writer before.
func (s *Service) Record(ctx context.Context, q db.Queryer, e Entry) error {
	a := Audited{At: s.now().UTC().Truncate(time.Microsecond), Remote: e.Remote, Action: e.Action, Target: e.Target, Outcome: e.Outcome}
	if a.Outcome == "" {
		a.Outcome = "done"
	}
	if e.Actor != nil {
		a.Actor, a.ActorID, a.Kind = e.Actor.Name, e.Actor.ID, e.Actor.Kind
	}
	var err error
	if a.Before, err = redacted(e.Before); err != nil {
		return err
	}
	if a.After, err = redacted(e.After); err != nil {
		return err
	}
	if err := q.QueryRowContext(ctx, `UPDATE counters SET value = value + 1 WHERE name = 'audit' RETURNING value`).Scan(&a.Seq); err != nil {
		return fmt.Errorf("numbering an audit entry: %w", err)
	}
	before := ""
	if a.Seq > 1 {
		if err := q.QueryRowContext(ctx, `SELECT hash FROM audit WHERE seq = $1`, a.Seq-1).Scan(&before); err != nil {
			return fmt.Errorf("reading the audit entry before %d: %w", a.Seq, err)
		}
	}
	a.Hash = a.sum(before)
	_, err = q.ExecContext(ctx, `INSERT INTO audit (seq, at, actor, actor_id, kind, remote, action, target, outcome, before, after, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		a.Seq, db.Micros(a.At), a.Actor, a.ActorID, string(a.Kind), a.Remote, a.Action, a.Target, a.Outcome, string(a.Before), string(a.After), a.Hash)
	if err != nil {
		return fmt.Errorf("writing an audit entry: %w", err)
	}
	return nil
}

// RecordNow writes an entry about something that had no transaction.
func (s *Service) RecordNow(ctx context.Context, e Entry) error {
	return s.d.Tx(ctx, func(tx *sql.Tx) error { return s.Record(ctx, tx, e) })
}

// secretWords are in the names of fields whose values nobody may read.
var secretWords = []string{"password", "secret", "token", "key", "code", "credential", "authorization", "passphrase", "webhook", "pem"}

// innocent are names with such a word that hold no secret. A "key" alone is that
// of an object of the cache, of purges.
var innocent = map[string]bool{"key": true, "keytype": true, "keyexpires": true, "publickey": true}

// redacted writes v as JSON without its secrets.
func redacted(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("writing an audit entry: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, fmt.Errorf("writing an audit entry: %w", err)
	}
	return json.Marshal(redact(tree, ""))
}

func redact(v any, name string) any {
	name = strings.ToLower(name)
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			x[k] = redact(e, k)
		}
		return x
	case []any:
		for i, e := range x {
			x[i] = redact(e, name)
		}
		return x
	case string:
		for _, w := range secretWords {
			if x != "" && strings.Contains(name, w) && !innocent[name] {
				return "(secret)"
			}
		}
		return withoutUserinfo(signed.ReplaceAllString(x, "$1(secret)"))
	}
	return v
}

// signed are the parameters of a URL that let in whoever has it.
var signed = regexp.MustCompile(`(?i)([?&](?:[a-z0-9_-]*(?:sig|signature|token|secret|password|apikey|credential)[a-z0-9_-]*)=)[^&\s]+`)

// withoutUserinfo takes a password out of a URL.
func withoutUserinfo(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return s
	}
	host, path, _ := strings.Cut(rest, "/")
	at := strings.LastIndex(host, "@")
	if at < 0 {
		return s
	}
	out := scheme + "://(secret)@" + host[at+1:]
	if path != "" {
		out += "/" + path
	}
	return out
}

const auditColumns = `SELECT seq, at, actor, actor_id, kind, remote, action, target, outcome, before, after, hash FROM audit`

func scanAudit(row interface{ Scan(...any) error }) (*Audited, error) {
	var a Audited
	var at int64
	var before, after string
	if err := row.Scan(&a.Seq, &at, &a.Actor, &a.ActorID, &a.Kind, &a.Remote, &a.Action, &a.Target, &a.Outcome, &before, &after, &a.Hash); err != nil {
		return nil, err
	}
	a.At = db.Time(at)
	if before != "" {
		a.Before = json.RawMessage(before)
	}
	if after != "" {
		a.After = json.RawMessage(after)
	}
	return &a, nil
}

// AuditFilter says which entries are asked for; what is zero leaves all in.
type AuditFilter struct {
	From, To time.Time
	Actor    string // name
	Target   string // and what is below it
	Before   int64  // only entries with a lower number
}

// Audit lists entries, the latest first.
func (s *Service) Audit(ctx context.Context, f AuditFilter, limit int) ([]*Audited, error) {
	to := db.Micros(f.To)
	if to == 0 {
		to = 1 << 62
	}
	before := f.Before
	if before == 0 {
		before = 1 << 62
	}
	rows, err := s.d.QueryContext(ctx, auditColumns+` WHERE seq < $1 AND at >= $2 AND at <= $3 AND ($4 = '' OR actor = $4) AND ($5 = '' OR lower(target) = lower($5) OR lower(substr(target, 1, length($5) + 1)) = lower($5) || '/')
		ORDER BY seq DESC LIMIT $6`, before, db.Micros(f.From), to, f.Actor, f.Target, limit)
	if err != nil {
		return nil, fmt.Errorf("listing the audit: %w", err)
	}
	defer rows.Close()
	list := []*Audited{}
	for rows.Next() {
		a, err := scanAudit(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, rows.Err()
}

// ErrAuditBroken: an entry was changed, removed or put in by somebody else.
var ErrAuditBroken = errors.New("the audit was tampered with")

// each calls f with all entries in their order.
func (s *Service) each(ctx context.Context, f func(a *Audited) error) error {
	for after := int64(0); ; {
		rows, err := s.d.QueryContext(ctx, auditColumns+` WHERE seq > $1 ORDER BY seq LIMIT 1000`, after)
		if err != nil {
			return fmt.Errorf("reading the audit: %w", err)
		}
		n := 0
		for rows.Next() {
			a, err := scanAudit(rows)
			if err == nil {
				err = f(a)
			}
			if err != nil {
				rows.Close()
				return err
			}
			after = a.Seq
			n++
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		if n < 1000 {
			return nil
		}
	}
}

// VerifyAudit goes through all entries and says how many there are. Errors:
// ErrAuditBroken, with the first entry that is not as it was written. Whoever
// cut entries off the end and set the counter back is found by comparing with a
// head that was written down elsewhere (AuditHead).
func (s *Service) VerifyAudit(ctx context.Context) (int64, error) {
	var n int64
	before := ""
	err := s.each(ctx, func(a *Audited) error {
		n++
		if a.Seq != n {
			return fmt.Errorf("%w: entry %d is missing", ErrAuditBroken, n)
		}
		if a.sum(before) != a.Hash {
			return fmt.Errorf("%w: entry %d is not as it was written", ErrAuditBroken, n)
		}
		before = a.Hash
		return nil
	})
	if err != nil {
		return n, err
	}
	var last int64
	if err := s.d.QueryRowContext(ctx, `SELECT value FROM counters WHERE name = 'audit'`).Scan(&last); err != nil {
		return n, err
	}
	if last != n {
		return n, fmt.Errorf("%w: there are %d entries, %d were written", ErrAuditBroken, n, last)
	}
	return n, nil
}

// AuditHead is the number and hash of the last entry.
func (s *Service) AuditHead(ctx context.Context) (seq int64, hash string, err error) {
	err = s.d.QueryRowContext(ctx, `SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1`).Scan(&seq, &hash)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, "", nil
	}
	return seq, hash, err
}

// ExportAudit writes all entries, a JSON object a line.
func (s *Service) ExportAudit(ctx context.Context, w io.Writer) error {
	e := json.NewEncoder(w)
	return s.each(ctx, func(a *Audited) error { return e.Encode(a) })
}
