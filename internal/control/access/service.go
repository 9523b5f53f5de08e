package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"larder/internal/control/db"
)

// Refusal is an error that knows its answer.
type Refusal struct {
	Status     int
	Code       string
	Message    string
	RetryAfter time.Duration
	Who        string // whom it refuses, where that was proven; for the audit
	Err        error  // for the log
}

func (r *Refusal) Error() string { return r.Message }
func (r *Refusal) Unwrap() error { return r.Err }

func refuse(status int, code, format string, args ...any) *Refusal {
	return &Refusal{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

func invalid(field, format string, args ...any) *Refusal {
	return refuse(http.StatusBadRequest, "InvalidParameter", "%s: %s", field, fmt.Sprintf(format, args...))
}

// Sealer encrypts what must be read again.
type Sealer interface {
	Seal(plain, context []byte) ([]byte, error)
	Open(sealed, context []byte) ([]byte, error)
}

// Options are what a Service works with. DB and Sealer must be given.
type Options struct {
	DB     *db.DB
	Sealer Sealer
	OIDC   *OIDC // nil: people sign in with passwords only
	Now    func() time.Time
	Log    *slog.Logger
}

// Service knows who may what.
type Service struct {
	d       *db.DB
	o       Options
	now     func() time.Time
	log     *slog.Logger
	known   cache
	hash    chan struct{} // bounds how many passwords are hashed at once
	hashing atomic.Int32  // how many are or wait for it
	oidc    provider
}

// New makes a Service.
func New(o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{d: o.DB, o: o, now: o.Now, log: o.Log, known: cache{m: map[[32]byte]cached{}}, hash: make(chan struct{}, hashers), oidc: provider{turn: make(chan struct{}, 1)}}
}

// Prefixes say what a secret is, so that people and scanners recognise one that
// leaked.
const (
	tokenPrefix  = "ldr_"
	accessPrefix = "lda_"
)

// newSecret is a prefix, 256 random bits, and a checksum by which a typing error
// is told from a wrong secret without asking the database.
func newSecret(prefix string) string {
	var raw [36]byte
	rand.Read(raw[:32])
	sum := crc32.ChecksumIEEE(append([]byte(prefix), raw[:32]...))
	raw[32], raw[33], raw[34], raw[35] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
	return prefix + base64.RawURLEncoding.EncodeToString(raw[:])
}

// wellFormed reports whether a text can be a secret of newSecret.
func wellFormed(text string) bool {
	for _, prefix := range []string{tokenPrefix, accessPrefix} {
		body, ok := strings.CutPrefix(text, prefix)
		if !ok {
			continue
		}
		raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
		if err != nil || len(raw) != 36 {
			return false
		}
		sum := crc32.ChecksumIEEE(append([]byte(prefix), raw[:32]...))
		return raw[32] == byte(sum>>24) && raw[33] == byte(sum>>16) && raw[34] == byte(sum>>8) && raw[35] == byte(sum)
	}
	return false
}

// APIToken is a bearer token without its secret.
type APIToken struct {
	ID       string    `json:"id"` // also the client id of OAuth
	Name     string    `json:"name"`
	Role     Role      `json:"role"`
	Scopes   []string  `json:"scopes"`
	Created  time.Time `json:"created"`
	By       string    `json:"createdBy"`
	Expires  time.Time `json:"expires,omitzero"`
	LastUsed time.Time `json:"lastUsed,omitzero"`
	Revoked  time.Time `json:"revoked,omitzero"`
}

// NewToken says what a token is to be.
type NewToken struct {
	Name   string        `json:"name"`
	Role   Role          `json:"role"`
	Scopes []string      `json:"scopes"` // none: everything
	Life   time.Duration `json:"-"`      // 0: without end
}

// CreateToken makes a token. Nobody gives out more than they have. The secret is
// returned here and never again.
func (s *Service) CreateToken(ctx context.Context, q db.Queryer, n NewToken, by *Principal) (APIToken, string, error) {
	n.Name = strings.TrimSpace(n.Name)
	if n.Name == "" || len(n.Name) > 100 {
		return APIToken{}, "", invalid("name", "expected 1 to 100 characters")
	}
	role, err := ParseRole(string(n.Role))
	if err != nil {
		return APIToken{}, "", invalid("role", "found %q, expected owner, operator or reader", n.Role)
	}
	scopes, err := cleanScopes(n.Scopes)
	if err != nil {
		return APIToken{}, "", err
	}
	if err := within(by, role, scopes); err != nil {
		return APIToken{}, "", err
	}
	if n.Life < 0 {
		return APIToken{}, "", invalid("expires", "found a time that is past")
	}
	now := s.now()
	secret := newSecret(tokenPrefix)
	t := APIToken{ID: uuid.NewString(), Name: n.Name, Role: role, Scopes: scopes, Created: now.UTC(), By: by.Name}
	if n.Life > 0 {
		t.Expires = now.Add(n.Life).UTC()
	}
	list, err := json.Marshal(scopes)
	if err != nil {
		return APIToken{}, "", err
	}
	hash := sha256.Sum256([]byte(secret))
	_, err = q.ExecContext(ctx, `INSERT INTO tokens (id, name, hash, role, scopes, created, by_whom, expires) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		t.ID, t.Name, hash[:], string(t.Role), string(list), db.Micros(t.Created), t.By, db.Micros(t.Expires))
	if err != nil {
		return APIToken{}, "", fmt.Errorf("writing a token: %w", err)
	}
	return t, secret, nil
}

// cleanScopes brings scopes into the form of GroupScope; none is everything.
func cleanScopes(scopes []string) ([]string, error) {
	if len(scopes) == 0 {
		return []string{Everything}, nil
	}
	out := []string{}
	for i, sc := range scopes {
		parts := strings.Split(strings.Trim(strings.ToLower(strings.TrimSpace(sc)), "/"), "/")
		switch {
		case len(parts) == 1 && parts[0] == "":
			out = append(out, Everything)
		case len(parts) == 2 && parts[0] == "subscriptions" && parts[1] != "":
			out = append(out, SubscriptionScope(parts[1]))
		case len(parts) == 4 && parts[0] == "subscriptions" && parts[1] != "" && parts[2] == "resourcegroups" && parts[3] != "":
			out = append(out, GroupScope(parts[1], parts[3]))
		default:
			return nil, invalid(fmt.Sprintf("scopes[%d]", i), "found %q, expected /, /subscriptions/ID or /subscriptions/ID/resourceGroups/NAME", sc)
		}
	}
	return out, nil
}

// rank orders the roles of people and tokens.
var rank = map[Role]int{Reader: 1, Operator: 2, Owner: 3}

// within refuses what is above the giver's own rights.
func within(by *Principal, role Role, scopes []string) error {
	if by.Kind == Local {
		return nil
	}
	if rank[role] > rank[by.Role] {
		return refuse(http.StatusForbidden, "AuthorizationFailed", "role: found %s, expected at most your own, %s.", role, by.Role)
	}
	for _, sc := range scopes {
		if !by.Sees(sc) {
			return refuse(http.StatusForbidden, "AuthorizationFailed", "scopes: %s is not within your own.", sc)
		}
	}
	return nil
}

const tokenColumns = `SELECT id, name, role, scopes, created, by_whom, expires, last_used, revoked FROM tokens`

func scanToken(row interface{ Scan(...any) error }) (*APIToken, error) {
	var t APIToken
	var scopes string
	var created, expires, used, revoked int64
	if err := row.Scan(&t.ID, &t.Name, &t.Role, &scopes, &created, &t.By, &expires, &used, &revoked); err != nil {
		return nil, err
	}
	t.Created, t.Expires, t.LastUsed, t.Revoked = db.Time(created), db.Time(expires), db.Time(used), db.Time(revoked)
	return &t, json.Unmarshal([]byte(scopes), &t.Scopes)
}

// Tokens lists all tokens, the newest first.
func (s *Service) Tokens(ctx context.Context) ([]*APIToken, error) {
	rows, err := s.d.QueryContext(ctx, tokenColumns+` ORDER BY created DESC, id`)
	if err != nil {
		return nil, fmt.Errorf("listing tokens: %w", err)
	}
	defer rows.Close()
	list := []*APIToken{}
	for rows.Next() {
		t, err := scanToken(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, rows.Err()
}

// RevokeToken ends a token and the access tokens that were got for it. On other
// replicas it is worth nothing within remember.
func (s *Service) RevokeToken(ctx context.Context, q db.Queryer, id string) error {
	res, err := q.ExecContext(ctx, `UPDATE tokens SET revoked = $1 WHERE id = $2 AND revoked = 0`, db.Micros(s.now()), strings.ToLower(id))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, refuse(http.StatusNotFound, "ResourceNotFound", "There is no token %q that is good.", id))
	}
	_, err = q.ExecContext(ctx, `DELETE FROM access_tokens WHERE token = $1`, strings.ToLower(id))
	s.known.clear()
	return err
}

// remember is how long a replica takes what it knows of a secret for true.
const remember = 5 * time.Second

// cache keeps what was found out about secrets, for a moment.
type cache struct {
	mu sync.Mutex
	m  map[[32]byte]cached // by SHA-256 of the secret; guarded by mu
}

type cached struct {
	p     *Principal
	until time.Time
}

func (c *cache) get(h [32]byte, now time.Time) (*Principal, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.m[h]
	return v.p, ok && now.Before(v.until)
}

func (c *cache) put(h [32]byte, p *Principal, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.m) > 10_000 {
		clear(c.m)
	}
	c.m[h] = cached{p, until}
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.m)
}

// Authenticate recognises the caller of a request by its bearer token or its
// session. Who presents nothing is nil and no error.
func (s *Service) Authenticate(r *http.Request) (*Principal, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		scheme, secret, _ := strings.Cut(h, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return nil, refuse(http.StatusUnauthorized, "AuthenticationFailed", "Authorization: found the scheme %q, expected Bearer.", clip(scheme))
		}
		return s.bearer(r.Context(), strings.TrimSpace(secret))
	}
	c, err := r.Cookie(cookieName)
	if err != nil {
		return nil, nil
	}
	return s.session(r.Context(), c.Value)
}

func clip(s string) string {
	if len(s) > 20 {
		return s[:20] + "…"
	}
	return s
}

var errBearer = refuse(http.StatusUnauthorized, "AuthenticationFailed", "The bearer token is not good: it is wrong, has expired, or was revoked.")

func (s *Service) bearer(ctx context.Context, secret string) (*Principal, error) {
	if !wellFormed(secret) {
		return nil, errBearer
	}
	now := s.now()
	hash := sha256.Sum256([]byte(secret))
	if p, ok := s.known.get(hash, now); ok {
		return p, nil
	}
	until := now.Add(remember)
	var row *sql.Row
	if strings.HasPrefix(secret, accessPrefix) {
		row = s.d.QueryRowContext(ctx, tokenColumns+` WHERE id = (SELECT token FROM access_tokens WHERE hash = $1 AND expires > $2) AND revoked = 0 AND (expires = 0 OR expires > $2)`, hash[:], db.Micros(now))
	} else {
		row = s.d.QueryRowContext(ctx, tokenColumns+` WHERE hash = $1 AND revoked = 0 AND (expires = 0 OR expires > $2)`, hash[:], db.Micros(now))
	}
	t, err := scanToken(row)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errBearer
	}
	if err != nil {
		return nil, fmt.Errorf("looking a token up: %w", err)
	}
	if !t.Expires.IsZero() && t.Expires.Before(until) {
		until = t.Expires
	}
	p := &Principal{Kind: Token, ID: t.ID, Name: t.Name, Role: t.Role, Scopes: t.Scopes}
	s.known.put(hash, p, until)
	if now.Sub(t.LastUsed) > time.Minute {
		if _, err := s.d.ExecContext(ctx, `UPDATE tokens SET last_used = $1 WHERE id = $2`, db.Micros(now), t.ID); err != nil {
			s.log.WarnContext(ctx, "use of a token not noted", "token", t.ID, "err", err)
		}
	}
	return p, nil
}

// Clean removes what has ended. It is for one replica at a time.
func (s *Service) Clean(ctx context.Context) error {
	now := s.now()
	for _, q := range []struct {
		text string
		arg  int64
	}{
		{`DELETE FROM access_tokens WHERE expires < $1`, db.Micros(now)},
		{`DELETE FROM sessions WHERE used < $1`, db.Micros(now.Add(-sessionIdle))},
		{`DELETE FROM sessions WHERE created < $1`, db.Micros(now.Add(-sessionLife))},
		{`DELETE FROM login_failures WHERE last < $1`, db.Micros(now.Add(-24 * time.Hour))},
		{`DELETE FROM once WHERE expires < $1`, db.Micros(now)},
	} {
		if _, err := s.d.ExecContext(ctx, q.text, q.arg); err != nil {
			return fmt.Errorf("removing what has ended: %w", err)
		}
	}
	return nil
}
