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
	"unicode"
	"unicode/utf8"

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

// mayTry returns how long an address must wait before the next try, 0 for not
// at all. A client's secret cannot be guessed, and its id is no secret, so that
// counting by it would let anybody lock it out: only the address counts.
func (s *Service) mayTry(ctx context.Context, from netip.Addr) (time.Duration, error) {
	return s.wait(ctx, s.d, fromSubject(from))
}

func fromSubject(from netip.Addr) string { return "from " + from.String() }

func (s *Service) wait(ctx context.Context, q db.Queryer, subject string) (time.Duration, error) {
	var until int64
	err := q.QueryRowContext(ctx, `SELECT until FROM login_failures WHERE subject = $1`, subject).Scan(&until)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("looking at failed log-ins: %w", err)
	}
	return max(0, db.Time(until).Sub(s.now())), nil
}

// try counts a try of a user and of an address as a failure, before anything is
// checked, so that tries at the same time are no way around the count; undo takes
// it back. From the sixth in a row, or the 21st of an address, each wait is twice
// the one before, up to 15 minutes. It is in the database, so a restart or
// another replica is no way around it either. While there is a wait nothing is
// counted, and wait says how long it is. who may be "".
func (s *Service) try(ctx context.Context, who string, from netip.Addr) (wait time.Duration, err error) {
	refused := errors.New("must wait")
	err = s.d.Tx(ctx, func(tx *sql.Tx) error {
		now := s.now()
		for _, f := range []struct {
			subject string
			free    int64
		}{{who, freeFailures}, {fromSubject(from), freeFromAddress}} {
			if f.subject == "" {
				continue
			}
			var count int64
			err := tx.QueryRowContext(ctx, `INSERT INTO login_failures (subject, count, until, last) VALUES ($1, 1, 0, $2)
				ON CONFLICT (subject) DO UPDATE SET count = CASE WHEN login_failures.last < $3 THEN 1 ELSE login_failures.count + 1 END, last = $2
				WHERE login_failures.until <= $2 RETURNING count`, f.subject, db.Micros(now), db.Micros(now.Add(-time.Hour))).Scan(&count)
			if errors.Is(err, sql.ErrNoRows) {
				if wait, err = s.wait(ctx, tx, f.subject); err != nil {
					return err
				}
				wait = max(wait, time.Millisecond)
				return refused // what was counted of the user is not
			}
			if err != nil || count < f.free {
				if err != nil {
					return err
				}
				continue
			}
			until := now.Add(min(time.Second<<min(count-f.free, 20), longestWait))
			if _, err := tx.ExecContext(ctx, `UPDATE login_failures SET until = $1 WHERE subject = $2`, db.Micros(until), f.subject); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, refused) {
		return wait, nil
	}
	if err != nil {
		return 0, fmt.Errorf("counting a log-in: %w", err)
	}
	return 0, nil
}

// undo takes a try back that was no failure; right forgets all of the user's.
func (s *Service) undo(ctx context.Context, who string, from netip.Addr, right bool) error {
	err := s.d.Tx(ctx, func(tx *sql.Tx) error {
		for _, subject := range []string{who, fromSubject(from)} {
			query := `UPDATE login_failures SET count = count - 1, until = 0 WHERE subject = $1`
			if right && subject == who {
				query = `DELETE FROM login_failures WHERE subject = $1`
			}
			if _, err := tx.ExecContext(ctx, query, subject); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("taking back the count of a log-in: %w", err)
	}
	return nil
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
	ctx, from, who := r.Context(), RemoteOf(r), ""
	if isName(l.Name) {
		who = "user " + strings.ToLower(l.Name)
	}
	if wait, err := s.try(ctx, who, from); err != nil {
		return nil, nil, err
	} else if wait > 0 {
		return nil, nil, &Refusal{Status: http.StatusTooManyRequests, Code: "TooManyRequests", Message: fmt.Sprintf("Too many failures; try again in %s.", wait.Round(time.Second)), RetryAfter: wait}
	}
	a, err := s.check(ctx, l)
	if err == errLogin {
		return nil, nil, err
	}
	// The browser may be gone, and the count must be right all the same.
	if err := s.undo(context.WithoutCancel(ctx), who, from, err == nil); err != nil {
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	c, err := s.Begin(ctx, a, from)
	return a, c, err
}

// isName says whether somebody could have this name; databases refuse others.
func isName(name string) bool {
	return len(name) <= 256 && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// check returns whose name, password and code these are. Errors: errLogin and
// ErrCodeNeeded; others say nothing about them.
func (s *Service) check(ctx context.Context, l LoginRequest) (*Account, error) {
	var a *Account
	if isName(l.Name) {
		var err error
		var no *Refusal
		if a, err = s.User(ctx, s.d, l.Name); err != nil && !errors.As(err, &no) {
			return nil, err
		}
	}
	hash := ""
	if a != nil && !a.Disabled {
		hash = a.password
	}
	ok, err := s.isPassword(ctx, hash, l.Password)
	if err != nil {
		return nil, err
	}
	if ok && a.TOTP {
		if l.Code == "" {
			return nil, ErrCodeNeeded
		}
		if ok, err = s.useCode(ctx, a, l.Code); err != nil {
			return nil, err
		}
	}
	if !ok {
		return nil, errLogin
	}
	return a, nil
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
