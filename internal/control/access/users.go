package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"larder/internal/control/db"
)

// Account is a person who may sign in.
type Account struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      Role      `json:"role"`
	Scopes    []string  `json:"scopes"`
	Provider  bool      `json:"provider"` // signs in with the organisation's account
	TOTP      bool      `json:"totp"`     // a second factor is asked for
	Disabled  bool      `json:"disabled"`
	Created   time.Time `json:"created"`
	LastLogin time.Time `json:"lastLogin,omitzero"`

	password, subject string
	totp              []byte // sealed
	step              int64
	recovery          []string
}

func (a *Account) principal() *Principal {
	return &Principal{Kind: User, ID: a.ID, Name: a.Name, Role: a.Role, Scopes: a.Scopes}
}

var userForm = regexp.MustCompile(`^[\pL\pN][\pL\pN ._@+-]{0,99}$`)

// NewUser says what an account is to be.
type NewUser struct {
	Name     string   `json:"name"`
	Password string   `json:"password"` // secret
	Role     Role     `json:"role"`
	Scopes   []string `json:"scopes"` // none: everything
}

// CreateUser makes an account with a password. Nobody gives out more than they
// have.
func (s *Service) CreateUser(ctx context.Context, q db.Queryer, n NewUser, by *Principal) (*Account, error) {
	if err := checkPassword(n.Password); err != nil {
		return nil, err
	}
	a, err := s.newAccount(n, by)
	if err != nil {
		return nil, err
	}
	if a.password, err = s.hashPassword(ctx, n.Password); err != nil {
		return nil, err
	}
	return a, s.insertUser(ctx, q, a)
}

func (s *Service) newAccount(n NewUser, by *Principal) (*Account, error) {
	n.Name = strings.TrimSpace(n.Name)
	if !userForm.MatchString(n.Name) {
		return nil, invalid("name", "found %q, expected 1 to 100 letters, digits, blanks or . _ @ + -", n.Name)
	}
	role, err := ParseRole(string(n.Role))
	if err != nil {
		return nil, invalid("role", "found %q, expected owner, operator or reader", n.Role)
	}
	scopes, err := cleanScopes(n.Scopes)
	if err != nil {
		return nil, err
	}
	if err := within(by, role, scopes); err != nil {
		return nil, err
	}
	return &Account{ID: uuid.NewString(), Name: n.Name, Role: role, Scopes: scopes, Created: s.now().UTC()}, nil
}

func (s *Service) insertUser(ctx context.Context, q db.Queryer, a *Account) error {
	scopes, err := json.Marshal(a.Scopes)
	if err != nil {
		return err
	}
	_, err = q.ExecContext(ctx, `INSERT INTO users (id, key, name, role, scopes, password, subject, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		a.ID, strings.ToLower(a.Name), a.Name, string(a.Role), string(scopes), a.password, a.subject, db.Micros(a.Created))
	if db.IsDuplicate(err) {
		return refuse(http.StatusConflict, "UserExists", "name: there is a user %q already.", a.Name)
	}
	if err != nil {
		return fmt.Errorf("writing a user: %w", err)
	}
	return nil
}

const userColumns = `SELECT id, name, role, scopes, password, subject, totp, totp_on, totp_step, recovery, disabled, created, last_login FROM users`

func scanUser(row interface{ Scan(...any) error }) (*Account, error) {
	var a Account
	var scopes, recovery string
	var created, login int64
	if err := row.Scan(&a.ID, &a.Name, &a.Role, &scopes, &a.password, &a.subject, &a.totp, &a.TOTP, &a.step, &recovery, &a.Disabled, &created, &login); err != nil {
		return nil, err
	}
	a.Created, a.LastLogin, a.Provider = db.Time(created), db.Time(login), a.subject != ""
	return &a, errors.Join(json.Unmarshal([]byte(scopes), &a.Scopes), json.Unmarshal([]byte(recovery), &a.recovery))
}

// User returns an account by its id or its name.
func (s *Service) User(ctx context.Context, q db.Queryer, id string) (*Account, error) {
	a, err := scanUser(q.QueryRowContext(ctx, userColumns+` WHERE id = $1 OR key = $1`, strings.ToLower(id)))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refuse(http.StatusNotFound, "ResourceNotFound", "There is no user %q.", id)
	}
	return a, err
}

// Users lists all accounts by name.
func (s *Service) Users(ctx context.Context) ([]*Account, error) {
	rows, err := s.d.QueryContext(ctx, userColumns+` ORDER BY key`)
	if err != nil {
		return nil, fmt.Errorf("listing users: %w", err)
	}
	defer rows.Close()
	list := []*Account{}
	for rows.Next() {
		a, err := scanUser(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, rows.Err()
}

// UserChange is what of an account is to change; nil stays.
type UserChange struct {
	Role     *Role     `json:"role,omitempty"`
	Scopes   *[]string `json:"scopes,omitempty"`
	Password *string   `json:"password,omitempty"` // secret
	Disabled *bool     `json:"disabled,omitempty"`
	TOTP     *bool     `json:"totp,omitempty"` // false: takes the second factor away
}

// ChangeUser changes an account and ends its sessions. The last owner of
// everything stays one.
func (s *Service) ChangeUser(ctx context.Context, q db.Queryer, id string, c UserChange, by *Principal) (*Account, error) {
	a, err := s.User(ctx, q, id)
	if err != nil {
		return nil, err
	}
	if err := within(by, a.Role, a.Scopes); err != nil {
		return nil, err
	}
	if c.Role != nil {
		if a.Role, err = ParseRole(string(*c.Role)); err != nil {
			return nil, invalid("role", "found %q, expected owner, operator or reader", *c.Role)
		}
	}
	if c.Scopes != nil {
		if a.Scopes, err = cleanScopes(*c.Scopes); err != nil {
			return nil, err
		}
	}
	if err := within(by, a.Role, a.Scopes); err != nil {
		return nil, err
	}
	if c.Disabled != nil {
		a.Disabled = *c.Disabled
	}
	if c.Password != nil {
		if a.Provider {
			return nil, invalid("password", "%s signs in with the organisation's account", a.Name)
		}
		if err := checkPassword(*c.Password); err != nil {
			return nil, err
		}
		if a.password, err = s.hashPassword(ctx, *c.Password); err != nil {
			return nil, err
		}
	}
	if c.TOTP != nil {
		if *c.TOTP {
			return nil, invalid("totp", "only the person can set a second factor up, at POST /api/larder/v1/me/totp")
		}
		a.TOTP, a.totp, a.recovery = false, nil, []string{}
	}
	scopes, err1 := json.Marshal(a.Scopes)
	recovery, err2 := json.Marshal(a.recovery)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if _, err := q.ExecContext(ctx, `UPDATE users SET role = $1, scopes = $2, password = $3, disabled = $4, totp_on = $5, totp = $6, recovery = $7 WHERE id = $8`,
		string(a.Role), string(scopes), a.password, a.Disabled, a.TOTP, a.totp, string(recovery), a.ID); err != nil {
		return nil, fmt.Errorf("changing a user: %w", err)
	}
	if err := s.ownerStays(ctx, q); err != nil {
		return nil, err
	}
	return a, s.endSessions(ctx, q, a.ID)
}

// DeleteUser removes an account. The last owner of everything stays.
func (s *Service) DeleteUser(ctx context.Context, q db.Queryer, id string, by *Principal) error {
	a, err := s.User(ctx, q, id)
	if err != nil {
		return err
	}
	if err := within(by, a.Role, a.Scopes); err != nil {
		return err
	}
	if err := s.endSessions(ctx, q, a.ID); err != nil {
		return err
	}
	if _, err := q.ExecContext(ctx, `DELETE FROM users WHERE id = $1`, a.ID); err != nil {
		return fmt.Errorf("deleting a user: %w", err)
	}
	return s.ownerStays(ctx, q)
}

// ownerStays refuses a change after which nobody could undo it.
func (s *Service) ownerStays(ctx context.Context, q db.Queryer) error {
	var n int
	if err := q.QueryRowContext(ctx, `SELECT count(*) FROM users WHERE role = 'owner' AND scopes = '["/"]' AND NOT disabled`).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		return refuse(http.StatusConflict, "LastOwner", "This would leave nobody who owns everything; make somebody else an owner first.")
	}
	return nil
}

func (s *Service) endSessions(ctx context.Context, q db.Queryer, user string) error {
	_, err := q.ExecContext(ctx, `DELETE FROM sessions WHERE user_id = $1`, user)
	s.known.clear()
	return err
}

// firstLife is how long the link of the first start is good.
const firstLife = 24 * time.Hour

// FirstLink makes the one-time link by which the first owner is made, as long as
// there is neither a user nor a token: "/first?code=…". It replaces an earlier
// one. Without need it is "".
func (s *Service) FirstLink(ctx context.Context) (string, error) {
	link := ""
	err := s.d.Tx(ctx, func(tx *sql.Tx) error {
		link = ""
		if there, err := anybody(ctx, tx); err != nil || there {
			return err
		}
		code := newSecret("")
		hash := sha256.Sum256([]byte(code))
		link = "/first?code=" + code
		_, err := tx.ExecContext(ctx, `INSERT INTO once (purpose, hash, expires) VALUES ('first', $1, $2) ON CONFLICT (purpose) DO UPDATE SET hash = excluded.hash, expires = excluded.expires`,
			hash[:], db.Micros(s.now().Add(firstLife)))
		return err
	})
	return link, err
}

func anybody(ctx context.Context, q db.Queryer) (bool, error) {
	var n int
	err := q.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM tokens WHERE role = 'owner' AND revoked = 0)`).Scan(&n)
	return n > 0, err
}

// RedeemFirst makes the first owner, once.
func (s *Service) RedeemFirst(ctx context.Context, q db.Queryer, code, name, password string) (*Account, error) {
	no := refuse(http.StatusForbidden, "LinkNotGood", "This link is not good: it was used, it is older than %s, or there is an owner already. The control plane prints a new one when it starts without any.", firstLife)
	var hash []byte
	var expires int64
	err := q.QueryRowContext(ctx, `SELECT hash, expires FROM once WHERE purpose = 'first'`).Scan(&hash, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, no
	}
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(code))
	if subtle.ConstantTimeCompare(sum[:], hash) != 1 || s.now().After(db.Time(expires)) {
		return nil, no
	}
	if there, err := anybody(ctx, q); err != nil || there {
		return nil, errors.Join(err, no)
	}
	a, err := s.CreateUser(ctx, q, NewUser{Name: name, Password: password, Role: Owner}, &Principal{Kind: Local})
	if err != nil {
		return nil, err
	}
	_, err = q.ExecContext(ctx, `DELETE FROM once WHERE purpose = 'first'`)
	return a, err
}
