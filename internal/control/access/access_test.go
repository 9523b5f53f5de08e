package access_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"larder/internal/control/access"
	"larder/internal/control/db"
	"larder/internal/control/seal"
	"larder/internal/lardertest/dbtest"
)

// world is a service with a clock that tests set.
type world struct {
	*access.Service
	t   *testing.T
	d   *db.DB
	now time.Time
}

func newWorld(t *testing.T, d *db.DB, change ...func(o *access.Options)) *world {
	t.Helper()
	key, err := seal.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, d: d, now: time.Now().UTC().Truncate(time.Second)}
	o := access.Options{DB: d, Sealer: key, Now: func() time.Time { return w.now }}
	for _, f := range change {
		f(&o)
	}
	w.Service = access.New(o)
	return w
}

var local = &access.Principal{Kind: access.Local, Name: "test", Role: access.Owner, Scopes: []string{access.Everything}}

const password = "correct horse battery"

func (w *world) token(n access.NewToken, by *access.Principal) (access.APIToken, string, error) {
	return w.CreateToken(w.t.Context(), w.d, n, by)
}

// who authenticates a request with these fields.
func (w *world) who(fields ...string) (*access.Principal, error) {
	r := httptest.NewRequest("GET", "https://control.example/", nil)
	for _, f := range fields {
		k, v, _ := strings.Cut(f, ": ")
		r.Header.Set(k, v)
	}
	return w.Authenticate(r)
}

func status(err error) int {
	var no *access.Refusal
	if errors.As(err, &no) {
		return no.Status
	}
	return 0
}

func TestTokensAreGoodUntilTheyEnd(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		group := access.GroupScope("S", "Schools")
		made, secret, err := w.token(access.NewToken{Name: "ci", Role: "operator", Scopes: []string{"/subscriptions/S/resourceGroups/Schools/"}, Life: time.Hour}, local)
		if err != nil {
			t.Fatal(err)
		}
		p, err := w.who("Authorization: Bearer " + secret)
		if err != nil || p.Name != "ci" || p.Role != access.Operator || p.ID != made.ID {
			t.Fatalf("got %+v, %v", p, err)
		}
		if !p.Can(access.Operate, group) || p.Can(access.Operate, access.GroupScope("S", "Schools2")) || p.Can(access.Manage, group) || p.Can(access.AsNode, group) {
			t.Errorf("rights of %+v are not an operator's of %s", p, group)
		}
		last := "x"
		if strings.HasSuffix(secret, last) {
			last = "y"
		}
		for name, field := range map[string]string{
			"wrong": "Authorization: Bearer " + secret[:len(secret)-1] + last, "another scheme": "Authorization: Basic " + secret, "empty": "Authorization: Bearer", "of another kind": "Authorization: Bearer lda_" + secret[4:],
		} {
			if p, err := w.who(field); status(err) != 401 || p != nil || strings.Contains(err.Error(), secret[8:20]) {
				t.Errorf("%s: got %+v, %v, want 401", name, p, err)
			}
		}
		if p, err := w.who(); p != nil || err != nil {
			t.Errorf("nothing presented: got %+v, %v", p, err)
		}
		w.now = w.now.Add(2 * time.Hour)
		if _, err := w.who("Authorization: Bearer " + secret); status(err) != 401 {
			t.Errorf("expired: got %v, want 401", err)
		}
		second, secret, err := w.token(access.NewToken{Name: "x", Role: "reader"}, local)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.who("Authorization: Bearer " + secret); err != nil {
			t.Fatal(err)
		}
		if err := w.RevokeToken(t.Context(), d, second.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := w.who("Authorization: Bearer " + secret); status(err) != 401 {
			t.Errorf("revoked: got %v, want 401 at once", err)
		}
		var kept int
		if err := d.QueryRowContext(t.Context(), `SELECT count(*) FROM tokens WHERE name LIKE '%ldr_%'`).Scan(&kept); err != nil || kept != 0 {
			t.Errorf("a secret lies in the database (%v)", err)
		}
	})
}

func TestNobodyGivesOutMoreThanTheyHave(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	by := &access.Principal{Kind: access.User, Name: "op", Role: access.Operator, Scopes: []string{access.GroupScope("s", "a")}}
	for name, n := range map[string]access.NewToken{
		"a higher role": {Name: "x", Role: "owner", Scopes: []string{"/subscriptions/s/resourceGroups/a"}},
		"a wider scope": {Name: "x", Role: "reader"},
		"another group": {Name: "x", Role: "reader", Scopes: []string{"/subscriptions/s/resourceGroups/b"}},
	} {
		if _, _, err := w.token(n, by); status(err) != 403 {
			t.Errorf("%s: got %v, want 403", name, err)
		}
	}
	for name, n := range map[string]access.NewToken{
		"no name": {Role: "reader"}, "no role": {Name: "x"}, "the role of nodes": {Name: "x", Role: "node"}, "no scope": {Name: "x", Role: "reader", Scopes: []string{"schools"}},
	} {
		if _, _, err := w.token(n, local); status(err) != 400 {
			t.Errorf("%s: got %v, want 400", name, err)
		}
	}
	if _, _, err := w.token(access.NewToken{Name: "x", Role: "operator", Scopes: by.Scopes}, by); err != nil {
		t.Error(err)
	}
}

func (w *world) user(name string, role access.Role) *access.Account {
	w.t.Helper()
	u, err := w.CreateUser(w.t.Context(), w.d, access.NewUser{Name: name, Password: password, Role: role}, local)
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

func (w *world) login(name, password, code, from string) (*http.Cookie, error) {
	r := httptest.NewRequest("POST", "https://control.example/sign-in", nil)
	r.RemoteAddr = from + ":1000"
	_, c, err := w.Login(r, access.LoginRequest{Name: name, Password: password, Code: code})
	return c, err
}

func TestSessionsBeginAndEnd(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		u := w.user("Ada", "owner")
		c, err := w.login("ADA", password, "", "192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || !strings.HasPrefix(c.Name, "__Host-") || c.Path != "/" {
			t.Errorf("the cookie is %+v", c)
		}
		field := "Cookie: " + c.Name + "=" + c.Value
		if p, err := w.who(field); err != nil || p == nil || p.ID != u.ID || p.Kind != access.User {
			t.Errorf("got %+v, %v", p, err)
		}
		w.now = w.now.Add(13 * time.Hour)
		if p, err := w.who(field); p != nil || err != nil {
			t.Errorf("idle for 13 hours: got %+v, %v, want nobody", p, err)
		}
		if c, err = w.login("Ada", password, "", "192.0.2.1"); err != nil {
			t.Fatal(err)
		}
		next := "another long password"
		if _, err := w.ChangeUser(t.Context(), d, u.ID, access.UserChange{Password: &next}, local); err != nil {
			t.Fatal(err)
		}
		if p, _ := w.who("Cookie: " + c.Name + "=" + c.Value); p != nil {
			t.Error("a session outlives the password it was begun with")
		}
		if _, err := w.login("Ada", password, "", "192.0.2.1"); status(err) != 401 {
			t.Errorf("the old password: got %v", err)
		}
		if _, err := w.login("Ada", next, "", "192.0.2.1"); err != nil {
			t.Errorf("the new password: %v", err)
		}
	})
}

// Whoever guesses many at a time has no more tries than who guesses one after
// the other.
func TestGuessingAtOnceIsSlow(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w, other := newWorld(t, d), newWorld(t, d)
		other.now = w.now
		w.user("Ada", "owner")
		var wg sync.WaitGroup
		var wrong, wait atomic.Int32
		for i := range 40 {
			wg.Go(func() {
				at := []*world{w, other}[i%2]
				switch _, err := at.login("Ada", "wrong password", "", fmt.Sprintf("192.0.2.%d", i)); status(err) {
				case 401:
					wrong.Add(1)
				case 429:
					wait.Add(1)
				default:
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if wrong.Load() != 5 || wait.Load() != 35 {
			t.Errorf("%d passwords were looked at and %d not, want 5 and 35", wrong.Load(), wait.Load())
		}
		// People of one school who sign in at the same time are no guessers.
		w.now = w.now.Add(time.Hour)
		for i := range 15 {
			w.user(fmt.Sprintf("u%d", i), "reader")
		}
		for range 3 {
			for i := range 15 {
				wg.Go(func() {
					if _, err := w.login(fmt.Sprintf("u%d", i), password, "", "198.51.100.1"); err != nil {
						t.Errorf("u%d: %v", i, err)
					}
				})
			}
			wg.Wait()
		}
		// Names that no database takes are wrong, not a failure of ours.
		for _, name := range []string{"a\x00b", "\xff", strings.Repeat("x", 300), ""} {
			if _, err := w.login(name, "wrong password", "", "198.51.100.2"); status(err) != 401 {
				t.Errorf("%q: got %v, want 401", name, err)
			}
		}
	})
}

// Guessing becomes slow for a name and for an address, whichever replica is
// asked, and whether there is such a name is not told.
func TestGuessingIsSlow(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w, other := newWorld(t, d), newWorld(t, d)
		other.now = w.now
		w.user("Ada", "owner")
		var known, unknown string
		for range 5 {
			_, err := w.login("Ada", "wrong password", "", "192.0.2.1")
			known = err.Error()
			_, err = w.login("Eve", "wrong password", "", "192.0.2.2")
			unknown = err.Error()
		}
		if known != unknown {
			t.Errorf("a known name gets %q, an unknown one %q", known, unknown)
		}
		if _, err := other.login("Ada", password, "", "198.51.100.7"); status(err) != 429 {
			t.Errorf("the right password after five wrong ones, elsewhere: got %v, want 429", err)
		}
		w.now = w.now.Add(2 * time.Second)
		if _, err := w.login("Ada", password, "", "198.51.100.7"); err != nil {
			t.Errorf("a moment later: %v", err)
		}
		if _, err := w.login("Ada", "wrong password", "", "198.51.100.7"); status(err) != 401 {
			t.Errorf("after a success the count begins anew: got %v", err)
		}
		for i := range 25 {
			if _, err := w.login("nobody"+strings.Repeat("x", i), "wrong password", "", "203.0.113.9"); i < 20 && status(err) != 401 {
				t.Fatalf("try %d from one address: %v", i, err)
			}
		}
		if _, err := w.login("Ada", password, "", "203.0.113.9"); status(err) != 429 {
			t.Errorf("an address that tries many names: got %v, want 429", err)
		}
	})
}

func TestSecondFactorsAreGoodOnce(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		u := w.user("Ada", "owner")
		begun, err := w.StartTOTP(t.Context(), u.ID)
		if err != nil {
			t.Fatal(err)
		}
		code := func() string {
			c, err := totp.GenerateCode(begun.Secret, w.now)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		if _, err := w.login("Ada", password, "", "192.0.2.1"); err != nil {
			t.Errorf("before it is confirmed nobody asks for it: %v", err)
		}
		if _, err := w.ConfirmTOTP(t.Context(), w.d, u.ID, "000000"); status(err) != 400 {
			t.Errorf("a wrong code: got %v", err)
		}
		codes, err := w.ConfirmTOTP(t.Context(), w.d, u.ID, code())
		if err != nil || len(codes) != 10 {
			t.Fatalf("%d codes, %v", len(codes), err)
		}
		if _, err := w.login("Ada", password, "", "192.0.2.1"); !errors.Is(err, access.ErrCodeNeeded) {
			t.Errorf("without a code: got %v", err)
		}
		if _, err := w.login("Ada", password, code(), "192.0.2.1"); status(err) != 401 {
			t.Errorf("the code that was used to confirm: got %v, want 401", err)
		}
		w.now = w.now.Add(time.Minute)
		c := code()
		if _, err := w.login("Ada", password, c, "192.0.2.1"); err != nil {
			t.Errorf("a fresh code: %v", err)
		}
		if _, err := w.login("Ada", password, c, "192.0.2.1"); status(err) != 401 {
			t.Errorf("the same code again: got %v, want 401", err)
		}
		if _, err := w.login("Ada", password, strings.ToUpper(codes[3]), "192.0.2.1"); err != nil {
			t.Errorf("a recovery code: %v", err)
		}
		if _, err := w.login("Ada", password, codes[3], "192.0.2.1"); status(err) != 401 {
			t.Errorf("the same recovery code: got %v, want 401", err)
		}
	})
}

func TestTheFirstLinkIsGoodOnce(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		old, err := w.FirstLink(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		link, err := w.FirstLink(t.Context())
		if err != nil || link == old {
			t.Fatalf("%q, %v", link, err)
		}
		redeem := func(link string) error {
			_, code, _ := strings.Cut(link, "code=")
			return d.Tx(t.Context(), func(tx *sql.Tx) error {
				_, err := w.RedeemFirst(t.Context(), tx, code, "Ada", password)
				return err
			})
		}
		if err := redeem(old); status(err) != 403 {
			t.Errorf("one that was replaced: got %v", err)
		}
		if err := redeem(link); err != nil {
			t.Fatal(err)
		}
		if err := redeem(link); status(err) != 403 {
			t.Errorf("twice: got %v", err)
		}
		if link, err := w.FirstLink(t.Context()); link != "" || err != nil {
			t.Errorf("with an owner there: %q, %v", link, err)
		}
	})
}

func TestTheLastOwnerStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	u := w.user("Ada", "owner")
	reader, yes := access.Reader, true
	scopes := []string{"/subscriptions/s"}
	for name, c := range map[string]access.UserChange{"demoted": {Role: &reader}, "disabled": {Disabled: &yes}, "kept to a subscription": {Scopes: &scopes}} {
		err := w.d.Tx(t.Context(), func(tx *sql.Tx) error {
			_, err := w.ChangeUser(t.Context(), tx, u.ID, c, local)
			return err
		})
		if status(err) != 409 {
			t.Errorf("%s: got %v, want 409", name, err)
		}
	}
	if err := w.d.Tx(t.Context(), func(tx *sql.Tx) error { return w.DeleteUser(t.Context(), tx, u.ID, local) }); status(err) != 409 {
		t.Errorf("deleted: got %v, want 409", err)
	}
	w.user("Eve", "owner")
	if err := w.d.Tx(t.Context(), func(tx *sql.Tx) error { return w.DeleteUser(t.Context(), tx, u.ID, local) }); err != nil {
		t.Errorf("with another owner: %v", err)
	}
}

// The audit's entries are numbered without gaps whoever writes at the same time,
// hold no secrets, and whoever changes one is found out.
func TestTheAuditIsAChain(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 5 {
					err := w.RecordNow(context.Background(), access.Entry{Actor: local, Remote: "192.0.2.1", Action: "node.settings", Target: "/x/Node", After: map[string]any{
						"password": "hunter2", "nested": []any{map[string]any{"registrationKey": "hunter2"}}, "proxy": "http://u:hunter2@proxy:1/", "site": "north", "keyType": "RSA",
						"purge": []any{map[string]any{"key": "intranet\n/setup.exe?v=2&sig=hunter2"}},
					}})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if n, err := w.VerifyAudit(t.Context()); n != 20 || err != nil {
			t.Fatalf("%d entries, %v", n, err)
		}
		var out bytes.Buffer
		if err := w.ExportAudit(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), "hunter2") || !strings.Contains(out.String(), "north") || !strings.Contains(out.String(), "RSA") || !strings.Contains(out.String(), "/setup.exe?v=2") {
			t.Errorf("a secret, or too little, is in\n%s", out.String())
		}
		if got := strings.Count(out.String(), "\n"); got != 20 {
			t.Errorf("%d lines, want 20", got)
		}
		if list, err := w.Audit(t.Context(), access.AuditFilter{Target: "/X"}, 5); err != nil || len(list) != 5 || list[0].Seq != 20 {
			t.Errorf("the latest below a target: %d, %v", len(list), err)
		}
		for _, statement := range []string{`UPDATE audit SET actor = 'Eve' WHERE seq = 7`, `DELETE FROM audit WHERE seq = 20`, `DELETE FROM audit WHERE seq = 12`} {
			tx, err := d.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if _, err := w.VerifyAudit(t.Context()); !errors.Is(err, access.ErrAuditBroken) {
				t.Errorf("%s: got %v, want ErrAuditBroken", statement, err)
			}
		}
	})
}

func TestTokenEndpointRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	made, secret, err := w.token(access.NewToken{Name: "ci", Role: "reader"}, local)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(kind, body string) (int, map[string]any) {
		r := httptest.NewRequest("POST", "https://c/x/oauth2/v2.0/token", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		rec := httptest.NewRecorder()
		if err := w.TokenEndpoint(rec, r); err != nil {
			t.Fatal(err)
		}
		var v map[string]any
		if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		return rec.Code, v
	}
	const form = "application/x-www-form-urlencoded"
	good := "grant_type=client_credentials&scope=x/.default&client_id=" + made.ID + "&client_secret=" + secret
	for _, tt := range []struct {
		kind, body, want string
		status           int
	}{
		{"application/json", "{}", "invalid_request", 400},
		{form, "grant_type=password", "unsupported_grant_type", 400},
		{form, "grant_type=client_credentials&client_id=x&client_secret=y", "invalid_scope", 400},
		{form, "grant_type=client_credentials&scope=x&client_id=" + made.ID + "&client_secret=y", "invalid_client", 401},
		{form, strings.Replace(good, made.ID, "another", 1), "invalid_client", 401},
	} {
		if code, v := ask(tt.kind, tt.body); code != tt.status || v["error"] != tt.want {
			t.Errorf("%s: got %d %v, want %d %s", tt.body, code, v["error"], tt.status, tt.want)
		}
	}
	code, v := ask(form, good)
	if code != 200 || v["token_type"] != "Bearer" || v["expires_in"] != 3600.0 {
		t.Fatalf("got %d %v", code, v)
	}
	got := v["access_token"].(string)
	if p, err := w.who("Authorization: Bearer " + got); err != nil || p.ID != made.ID {
		t.Errorf("the access token: %+v, %v", p, err)
	}
	if err := w.RevokeToken(t.Context(), w.d, made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.who("Authorization: Bearer " + got); status(err) != 401 {
		t.Errorf("its client was revoked: got %v, want 401", err)
	}
}

// What is no secret of ours is nobody, and does not even reach the database:
// there is none.
func FuzzBearer(f *testing.F) {
	w := access.New(access.Options{})
	f.Add("ldr_AAAA")
	f.Add("lda_")
	f.Fuzz(func(t *testing.T, secret string) {
		r := httptest.NewRequest("GET", "https://c/", nil)
		r.Header["Authorization"] = []string{"Bearer " + secret}
		if p, err := w.Authenticate(r); p != nil || err == nil {
			t.Errorf("%q is somebody: %+v", secret, p)
		}
	})
}
