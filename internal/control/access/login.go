package access

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"larder/internal/control/db"
)

const (
	cookieName  = "__Host-larder"
	sessionIdle = 12 * time.Hour
	sessionLife = 7 * 24 * time.Hour

	// After so many failures in a row a user, or an address, waits.
	freeFailures    = 5
	freeFromAddress = 20 // a school is behind one address
	longestWait     = 15 * time.Minute
)

// mayTry returns how long somebody must wait before the next try, 0 for not at
// all. who is "user NAME"; "" where only the address counts: a client's secret
// cannot be guessed, and its id is no secret, so counting by it would let anybody
// lock it out.
func (s *Service) mayTry(ctx context.Context, who string, from netip.Addr) (time.Duration, error) {
	var until int64
	err := s.d.QueryRowContext(ctx, `SELECT max(until) FROM login_failures WHERE subject = $1 OR subject = $2 HAVING count(*) > 0`, strings.ToLower(who), "from "+from.String()).Scan(&until)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("looking at failed log-ins: %w", err)
	}
	return max(0, db.Time(until).Sub(s.now())), nil
}

// failed counts a failure of a user and of an address: from the sixth in a row,
// or the 21st of an address, each wait is twice the one before, up to 15
// minutes. It is in the database, so a restart or another replica is no way
// around it.
func (s *Service) failed(ctx context.Context, who string, from netip.Addr) error {
	now := s.now()
	for _, f := range []struct {
		subject string
		free    int64
	}{{strings.ToLower(who), freeFailures}, {"from " + from.String(), freeFromAddress}} {
		if f.subject == "" {
			continue
		}
		err := s.d.Tx(ctx, func(tx *sql.Tx) error {
			var count, last int64
			err := tx.QueryRowContext(ctx, `SELECT count, last FROM login_failures WHERE subject = $1`, f.subject).Scan(&count, &last)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			if now.Sub(db.Time(last)) > time.Hour {
				count = 0
			}
			count++
			var until time.Time
			if count >= f.free {
				until = now.Add(min(time.Second<<min(count-f.free, 20), longestWait))
			}
			_, err = tx.ExecContext(ctx, `INSERT INTO login_failures (subject, count, until, last) VALUES ($1, $2, $3, $4)
				ON CONFLICT (subject) DO UPDATE SET count = excluded.count, until = excluded.until, last = excluded.last`, f.subject, count, db.Micros(until), db.Micros(now))
			return err
		})
		if err != nil {
			return fmt.Errorf("counting a failed log-in: %w", err)
		}
	}
	return nil
}

func (s *Service) succeeded(ctx context.Context, who string) error {
	_, err := s.d.ExecContext(ctx, `DELETE FROM login_failures WHERE subject = $1`, strings.ToLower(who))
	return err
}

// LoginRequest is a try to sign in.
type LoginRequest struct {
	Name     string `json:"name"`
	Password string `json:"password"`       // secret
	Code     string `json:"code,omitempty"` // of the second factor, or a recovery code
}

// ErrCodeNeeded: the password is right, and the account has a second factor.
var ErrCodeNeeded = refuse(http.StatusUnauthorized, "CodeNeeded", "The code of your second factor is needed, too.")

var errLogin = refuse(http.StatusUnauthorized, "AuthenticationFailed", "Name, password or code are not right.")

// Login signs a person in and returns the cookie of a new session. Whether the
// name, the password or the code was wrong is not told.
func (s *Service) Login(r *http.Request, l LoginRequest) (*Account, *http.Cookie, error) {
	ctx, from, who := r.Context(), RemoteOf(r), "user "+l.Name
	if wait, err := s.mayTry(ctx, who, from); err != nil {
		return nil, nil, err
	} else if wait > 0 {
		return nil, nil, &Refusal{Status: http.StatusTooManyRequests, Code: "TooManyRequests", Message: fmt.Sprintf("Too many failures; try again in %s.", wait.Round(time.Second)), RetryAfter: wait}
	}
	a, err := s.User(ctx, s.d, l.Name)
	var no *Refusal
	if err != nil && !errors.As(err, &no) {
		return nil, nil, err
	}
	hash := ""
	if a != nil && !a.Disabled {
		hash = a.password
	}
	ok, err := s.isPassword(ctx, hash, l.Password)
	if err != nil {
		return nil, nil, err
	}
	if ok && a.TOTP {
		if l.Code == "" {
			return nil, nil, ErrCodeNeeded
		}
		if ok, err = s.useCode(ctx, a, l.Code); err != nil {
			return nil, nil, err
		}
	}
	if !ok {
		if err := s.failed(ctx, who, from); err != nil {
			return nil, nil, err
		}
		return nil, nil, errLogin
	}
	if err := s.succeeded(ctx, who); err != nil {
		return nil, nil, err
	}
	c, err := s.Begin(ctx, a, from)
	return a, c, err
}

// Begin makes a session for somebody who was recognised.
func (s *Service) Begin(ctx context.Context, a *Account, from netip.Addr) (*http.Cookie, error) {
	secret := newSecret("")
	hash := sha256.Sum256([]byte(secret))
	now := db.Micros(s.now())
	err := s.d.Tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO sessions (hash, user_id, created, used, remote) VALUES ($1, $2, $3, $3, $4)`, hash[:], a.ID, now, from.String()); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE users SET last_login = $1 WHERE id = $2`, now, a.ID)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("beginning a session: %w", err)
	}
	return cookie(secret, int(sessionLife/time.Second)), nil
}

func cookie(value string, age int) *http.Cookie {
	return &http.Cookie{Name: cookieName, Value: value, Path: "/", MaxAge: age, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// Logout ends the session of a request and returns the cookie that forgets it.
func (s *Service) Logout(r *http.Request) (*http.Cookie, error) {
	if c, err := r.Cookie(cookieName); err == nil {
		hash := sha256.Sum256([]byte(c.Value))
		if _, err := s.d.ExecContext(r.Context(), `DELETE FROM sessions WHERE hash = $1`, hash[:]); err != nil {
			return nil, fmt.Errorf("ending a session: %w", err)
		}
		s.known.clear()
	}
	return cookie("", -1), nil
}

// session recognises a person by the session's secret. One that has ended is
// nobody, not an error: the page then asks to sign in.
func (s *Service) session(ctx context.Context, secret string) (*Principal, error) {
	now := s.now()
	hash := sha256.Sum256([]byte(secret))
	if p, ok := s.known.get(hash, now); ok {
		return p, nil
	}
	var user string
	var used int64
	err := s.d.QueryRowContext(ctx, `SELECT user_id, used FROM sessions WHERE hash = $1 AND used > $2 AND created > $3`,
		hash[:], db.Micros(now.Add(-sessionIdle)), db.Micros(now.Add(-sessionLife))).Scan(&user, &used)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking a session up: %w", err)
	}
	a, err := s.User(ctx, s.d, user)
	if err != nil {
		return nil, err
	}
	if a.Disabled {
		return nil, nil
	}
	p := a.principal()
	s.known.put(hash, p, now.Add(remember))
	if now.Sub(db.Time(used)) > time.Minute {
		if _, err := s.d.ExecContext(ctx, `UPDATE sessions SET used = $1 WHERE hash = $2`, db.Micros(now), hash[:]); err != nil {
			s.log.WarnContext(ctx, "use of a session not noted", "err", err)
		}
	}
	return p, nil
}
