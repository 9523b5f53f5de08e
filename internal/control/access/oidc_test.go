package access_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"larder/internal/control/access"
	"larder/internal/control/db"
	"larder/internal/lardertest/dbtest"
	"larder/internal/lardertest/issuer"
)

const base = "https://control.example"

// orWhy is a token, or why there is none, which nobody takes for one.
func orWhy(token string, err error) string {
	if err != nil {
		return err.Error()
	}
	return token
}

// organisation is a world with a provider.
func organisation(t *testing.T, d *db.DB) (*world, *issuer.Provider) {
	t.Helper()
	p := issuer.New(t, base)
	w := newWorld(t, d, func(o *access.Options) {
		o.OIDC = &access.OIDC{Issuer: p.URL, ClientID: issuer.ClientID, ClientSecret: issuer.Secret, RoleClaim: "groups", Roles: map[string]access.Role{"Cache admins": access.Owner, "Helpdesk": access.Reader}, Client: p.Client()}
	})
	return w, p
}

// begin starts a sign-in and returns the browser's cookie and where it was sent.
func (w *world) begin() (cookie *http.Cookie, location string) {
	w.t.Helper()
	rec := httptest.NewRecorder()
	if err := w.OIDCStart(rec, httptest.NewRequest("GET", base+"/sign-in/organisation", nil), base); err != nil {
		w.t.Fatal(err)
	}
	c := rec.Result().Cookies()[0]
	if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode {
		w.t.Errorf("the cookie is %+v", c)
	}
	return c, rec.Header().Get("Location")
}

// back is the browser coming back.
func (w *world) back(cookie *http.Cookie, query url.Values) (*access.Account, *http.Cookie, error) {
	r := httptest.NewRequest("GET", base+"/sign-in/callback?"+query.Encode(), nil)
	if cookie != nil {
		r.AddCookie(cookie)
	}
	return w.OIDCCallback(httptest.NewRecorder(), r, base)
}

func (w *world) through(p *issuer.Provider) (*access.Account, *http.Cookie, error) {
	w.t.Helper()
	cookie, location := w.begin()
	code, state := p.Authorize(location)
	return w.back(cookie, url.Values{"code": {code}, "state": {state}})
}

func TestPeopleSignInWithTheirOrganisation(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w, p := organisation(t, d)
		a, session, err := w.through(p)
		if err != nil || a.Name != "ada" || a.Role != access.Owner || !a.Provider {
			t.Fatalf("got %+v, %v", a, err)
		}
		who, err := w.who("Cookie: " + session.Name + "=" + session.Value)
		if err != nil || who.Name != "ada" || who.Role != access.Owner {
			t.Errorf("the session is %+v, %v", who, err)
		}
		// The second time it is the same account, with the role it has by now;
		// sessions of the old role end.
		p.With(func() { p.Claims["groups"], p.Claims["preferred_username"] = []any{"Others", "Helpdesk"}, "ada.new" })
		again, later, err := w.through(p)
		if err != nil || again.ID != a.ID || again.Role != access.Reader {
			t.Fatalf("got %+v, %v", again, err)
		}
		if who, err := w.who("Cookie: " + session.Name + "=" + session.Value); who != nil && err == nil {
			t.Errorf("the session of an owner lives on: %+v", who)
		}
		if who, err := w.who("Cookie: " + later.Name + "=" + later.Value); err != nil || who.Role != access.Reader {
			t.Errorf("the new session is %+v, %v", who, err)
		}
		// The provider changes its key; nothing else happens.
		p.With(p.Rotate)
		if _, _, err := w.through(p); err != nil {
			t.Errorf("after a change of keys: %v", err)
		}
		// A token for several audiences is taken if it was made for this one.
		p.With(func() {
			p.Change = func(c map[string]any) { c["aud"], c["azp"] = []any{issuer.ClientID, "others"}, issuer.ClientID }
		})
		if _, _, err := w.through(p); err != nil {
			t.Errorf("with two audiences: %v", err)
		}
		p.With(func() { p.Change = nil })
		// Somebody else of the same name is somebody else, and no account here is
		// taken over.
		p.With(func() { p.Claims["sub"], p.Claims["preferred_username"] = "43", "ADA" })
		other, _, err := w.through(p)
		if err == nil && other.ID == a.ID {
			t.Error("another subject got the account")
		}
		if err != nil && status(err) < 400 {
			t.Errorf("got %v, want an account of its own or a refusal", err)
		}
	})
}

func TestWhatProvidersSayIsChecked(t *testing.T) {
	t.Parallel()
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		do   func(p *issuer.Provider)
		want int
	}{
		"no role":            {func(p *issuer.Provider) { p.Claims["groups"] = "Others" }, 403},
		"no claim":           {func(p *issuer.Provider) { delete(p.Claims, "groups") }, 403},
		"a claim of numbers": {func(p *issuer.Provider) { p.Claims["groups"] = []any{1, 2} }, 403},
		"another nonce":      {func(p *issuer.Provider) { p.Change = func(c map[string]any) { c["nonce"] = "x" } }, 401},
		"no nonce":           {func(p *issuer.Provider) { p.Change = func(c map[string]any) { delete(c, "nonce") } }, 401},
		"another audience":   {func(p *issuer.Provider) { p.Change = func(c map[string]any) { c["aud"] = "others" } }, 401},
		"another issuer":     {func(p *issuer.Provider) { p.Change = func(c map[string]any) { c["iss"] = "https://evil.example" } }, 401},
		"expired": {func(p *issuer.Provider) {
			p.Change = func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }
		}, 401},
		"an unknown key": {func(p *issuer.Provider) {
			p.Sign = func(b []byte) string { s, _ := issuer.Signed(stranger, b); return s }
		}, 401},
		"not good yet": {func(p *issuer.Provider) {
			p.Change = func(c map[string]any) { c["nbf"] = time.Now().Add(time.Hour).Unix() }
		}, 401},
		"without an end":      {func(p *issuer.Provider) { p.Change = func(c map[string]any) { delete(c, "exp") } }, 401},
		"without an audience": {func(p *issuer.Provider) { p.Change = func(c map[string]any) { delete(c, "aud") } }, 401},
		"its own key":         {func(p *issuer.Provider) { p.Sign = withKeyInside }, 401},
		"another payload":     {func(p *issuer.Provider) { p.Sign = tamperedBy(p) }, 401},
		"no signature":        {func(p *issuer.Provider) { p.Sign = unsigned }, 401},
		"signed by a secret":  {func(p *issuer.Provider) { p.Sign = withSecret }, 401},
		"no token":            {func(p *issuer.Provider) { p.Sign = func([]byte) string { return "" } }, 401},
		"the provider breaks": {func(p *issuer.Provider) { p.Away = true }, 502},
		"its keys are gone": {func(p *issuer.Provider) {
			p.Rotate()
			p.InsteadAt, p.Instead = "/keys", func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "db01.example is down", http.StatusInternalServerError)
			}
		}, 502},
		"no such code": {func(p *issuer.Provider) { clear(p.Codes) }, 401},
		"for another, too": {func(p *issuer.Provider) {
			p.Change = func(c map[string]any) { c["aud"] = []any{issuer.ClientID, "others"} }
		}, 401},
		"made for another": {func(p *issuer.Provider) {
			p.Change = func(c map[string]any) { c["aud"], c["azp"] = []any{issuer.ClientID, "others"}, "others" }
		}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, p := organisation(t, dbtest.SQLite(t))
			cookie, location := w.begin()
			code, state := p.Authorize(location)
			p.With(func() { c.do(p) })
			a, session, err := w.back(cookie, url.Values{"code": {code}, "state": {state}})
			if a != nil || session != nil || status(err) != c.want {
				t.Fatalf("got %+v, %v, %v; want %d", a, session, err, c.want)
			}
			if strings.Contains(err.Error(), "db01") || strings.Contains(err.Error(), p.URL) || strings.Contains(err.Error(), "oidc:") {
				t.Errorf("the person reads %q", err)
			}
			if text := whole(err); strings.Contains(text, issuer.Secret) {
				t.Errorf("the client's secret is in %q", text)
			}
			if us, uerr := w.Users(t.Context()); uerr != nil || len(us) != 0 {
				t.Errorf("%d accounts were made, %v", len(us), uerr)
			}
		})
	}
}

// The role is that of the claim's values, whatever its shape, and the highest if
// there are several.
func TestClaimsGiveRoles(t *testing.T) {
	t.Parallel()
	w, p := organisation(t, dbtest.SQLite(t))
	for i, c := range []struct {
		claim any
		want  access.Role // "": nobody
	}{
		{"Helpdesk", access.Reader},
		{[]any{"Helpdesk"}, access.Reader},
		{[]any{"Others", "Helpdesk", "Cache admins"}, access.Owner},
		{[]any{"Cache admins", "Helpdesk"}, access.Owner},
		{[]any{7, nil, "Helpdesk"}, access.Reader},
		{"helpdesk", ""}, // claims are compared as they are
		{"Helpdesk Cache admins", ""},
		{"", ""},
		{[]any{}, ""},
		{[]any{[]any{"Helpdesk"}}, ""},
		{map[string]any{"Helpdesk": true}, ""},
		{true, ""},
		{nil, ""},
	} {
		sub := fmt.Sprint("person-", i)
		p.With(func() {
			p.Claims = map[string]any{"sub": sub, "preferred_username": sub, "groups": c.claim}
		})
		a, session, err := w.through(p)
		if c.want == "" {
			if a != nil || session != nil || status(err) != 403 || !strings.Contains(err.Error(), "groups") {
				t.Errorf("%v: got %+v, %v, want 403 that names the claim", c.claim, a, err)
			}
			if _, err := w.User(t.Context(), w.d, sub); status(err) != 404 {
				t.Errorf("%v: an account was made, %v", c.claim, err)
			}
			continue
		}
		if err != nil || a.Role != c.want || session == nil {
			t.Errorf("%v: got %+v, %v, want %s", c.claim, a, err, c.want)
		}
	}
}

// An account of this control plane is nobody else's, and one that was disabled
// here stays so whatever the provider says.
func TestProvidersTakeNoAccountOver(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w, p := organisation(t, d)
		u := w.user("ada", access.Reader)
		if a, session, err := w.through(p); a != nil || session != nil || status(err) != 409 {
			t.Errorf("a local account's name: got %+v, %v, want 409", a, err)
		}
		if now, err := w.User(t.Context(), d, u.ID); err != nil || now.Role != access.Reader || now.Provider {
			t.Errorf("the local account is %+v, %v", now, err)
		}
		if _, err := w.login("ada", password, "", "192.0.2.1"); err != nil {
			t.Errorf("its password: %v", err)
		}
		p.With(func() { p.Claims["preferred_username"] = "grace" })
		a, session, err := w.through(p)
		if err != nil {
			t.Fatal(err)
		}
		yes := true
		if _, err := w.ChangeUser(t.Context(), d, u.ID, access.UserChange{Role: &a.Role}, local); err != nil {
			t.Fatal(err) // another owner, so that one may go
		}
		if _, err := w.ChangeUser(t.Context(), d, a.ID, access.UserChange{Disabled: &yes}, local); err != nil {
			t.Fatal(err)
		}
		if who, err := w.who("Cookie: " + session.Name + "=" + session.Value); who != nil || err != nil {
			t.Errorf("the session of a disabled account: %+v, %v", who, err)
		}
		if a, session, err := w.through(p); a != nil || session != nil || status(err) != 403 {
			t.Errorf("a disabled account: got %+v, %v, want 403", a, err)
		}
	})
}

// unsigned is a token of the algorithm "none".
func unsigned(payload []byte) string {
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload) + "."
}

// whole is an error with all its causes, as a log shows them.
func whole(err error) string {
	text := ""
	for ; err != nil; err = errors.Unwrap(err) {
		text += fmt.Sprintf("%v; ", err)
	}
	return text
}

// withKeyInside is a token whose header has the key that is good for it.
func withKeyInside(payload []byte) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err.Error()
	}
	return orWhy(issuer.Sign(jose.SigningKey{Algorithm: jose.ES256, Key: key}, &jose.SignerOptions{EmbedJWK: true}, payload))
}

// tamperedBy is a token that p signed for another person.
func tamperedBy(p *issuer.Provider) func(payload []byte) string {
	return func(payload []byte) string {
		good, err := issuer.Signed(p.Keys[0], payload)
		if err != nil {
			return err.Error()
		}
		parts := strings.Split(good, ".")
		parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), `"sub":"42"`, `"sub":"43"`, 1)))
		return strings.Join(parts, ".")
	}
}

// withSecret is a token that the client's own secret signs.
func withSecret(payload []byte) string {
	return orWhy(issuer.Sign(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(strings.Repeat(issuer.Secret, 4))}, nil, payload))
}

func TestSignInsAreOfTheirBrowser(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w, p := organisation(t, d)
		refused := func(what string, cookie *http.Cookie, q url.Values) {
			t.Helper()
			if a, _, err := w.back(cookie, q); a != nil || status(err) != 401 {
				t.Errorf("%s: got %+v, %v, want 401", what, a, err)
			}
		}
		cookie, location := w.begin()
		code, state := p.Authorize(location)
		refused("without the cookie", nil, url.Values{"code": {code}, "state": {state}})
		refused("with another state", cookie, url.Values{"code": {code}, "state": {"x"}})
		refused("without a state", cookie, url.Values{"code": {code}})
		other, _ := w.begin()
		refused("in another browser", other, url.Values{"code": {code}, "state": {state}})
		broken := *cookie
		broken.Value = state + ".x"
		refused("with a broken cookie", &broken, url.Values{"code": {code}, "state": {state}})
		if _, _, err := w.back(cookie, url.Values{"code": {code}, "state": {state}}); err != nil {
			t.Fatal(err)
		}
		refused("a second time", cookie, url.Values{"code": {code}, "state": {state}})
		// A code that was stolen is worth nothing without the verifier.
		_, theirs := w.begin()
		stolen, _ := p.Authorize(theirs)
		mine, location := w.begin()
		_, state = p.Authorize(location)
		refused("with the code of another sign-in", mine, url.Values{"code": {stolen}, "state": {state}})
		mine, location = w.begin()
		_, state = p.Authorize(location)
		refused("when the provider refuses", mine, url.Values{"error": {"access_denied"}, "error_description": {"no"}, "state": {state}})
	})
}

// A state is spent once, by whichever replica and however many ask at a time.
func TestStatesAreSpentOnAllReplicas(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w, p := organisation(t, d)
		other := newWorld(t, d, func(o *access.Options) {
			o.OIDC = &access.OIDC{Issuer: p.URL, ClientID: issuer.ClientID, ClientSecret: issuer.Secret, RoleClaim: "groups", Roles: map[string]access.Role{"Cache admins": access.Owner}, Client: p.Client()}
		})
		cookie, location := w.begin()
		code, state := p.Authorize(location)
		const each = 3
		type result struct {
			a   *access.Account
			err error
		}
		results := make(chan result, 2*each)
		var wg sync.WaitGroup
		for range each {
			for _, replica := range []*world{w, other} {
				wg.Go(func() {
					a, _, err := replica.back(cookie, url.Values{"code": {code}, "state": {state}})
					results <- result{a, err}
				})
			}
		}
		wg.Wait()
		close(results)
		good := 0
		for r := range results {
			switch {
			case r.err == nil && r.a != nil:
				good++
			case r.a != nil || status(r.err) != 401:
				t.Errorf("got %+v, %v, want 401", r.a, r.err)
			}
		}
		if good != 1 {
			t.Errorf("%d of %d came in by one state", good, 2*each)
		}
	})
}

// The cookie is good for ten minutes and one callback. Its verifier is not in
// the address that the browser is sent to.
func TestTheSignInCookie(t *testing.T) {
	t.Parallel()
	w, p := organisation(t, dbtest.SQLite(t))
	cookie, location := w.begin()
	parts := strings.Split(cookie.Value, ".")
	if len(parts) != 3 || cookie.MaxAge != 600 || !strings.HasPrefix(cookie.Name, "__Host-") || cookie.Path != "/" || cookie.Domain != "" {
		t.Fatalf("the cookie is %+v", cookie)
	}
	if verifier := parts[2]; len(verifier) < 43 || strings.Contains(location, verifier) || strings.Contains(location, issuer.Secret) {
		t.Errorf("the verifier, or the client's secret, is in %s", location)
	}
	again, _ := w.begin()
	for i, part := range strings.Split(again.Value, ".") {
		if part == parts[i] {
			t.Errorf("part %d of two cookies is the same", i)
		}
	}
	code, state := p.Authorize(location)
	r := httptest.NewRequest("GET", base+"/sign-in/callback?"+url.Values{"code": {code}, "state": {state}}.Encode(), nil)
	r.AddCookie(cookie)
	rec := httptest.NewRecorder()
	if _, _, err := w.OIDCCallback(rec, r, base); err != nil {
		t.Fatal(err)
	}
	if cs := rec.Result().Cookies(); len(cs) != 1 || cs[0].Name != cookie.Name || cs[0].MaxAge >= 0 || cs[0].Value != "" {
		t.Errorf("the callback leaves the cookies %+v", cs)
	}
}

// What the provider says when it refuses is for the log, in full; the person
// reads that it refused. The state is spent.
func TestTheProviderRefuses(t *testing.T) {
	t.Parallel()
	w, p := organisation(t, dbtest.SQLite(t))
	cookie, location := w.begin()
	code, state := p.Authorize(location)
	_, _, err := w.back(cookie, url.Values{"error": {"access_denied"}, "error_description": {"<b>AADSTS50105</b>"}, "state": {state}})
	if status(err) != 401 || err.Error() != "The organisation's sign-in refused." {
		t.Errorf("got %v", err)
	}
	if text := whole(err); !strings.Contains(text, "access_denied") || !strings.Contains(text, "AADSTS50105") {
		t.Errorf("the log learns only %q", text)
	}
	if a, _, err := w.back(cookie, url.Values{"code": {code}, "state": {state}}); a != nil || status(err) != 401 {
		t.Errorf("the same state after that: got %+v, %v", a, err)
	}
}

// A replica that never saw the old key does not take it; one that did learns
// new ones by itself, while the provider publishes both.
func TestKeysOfProvidersOverlap(t *testing.T) {
	t.Parallel()
	w, p := organisation(t, dbtest.SQLite(t))
	if _, _, err := w.through(p); err != nil {
		t.Fatal(err)
	}
	var old *ecdsa.PrivateKey
	p.With(func() {
		old = p.Keys[0]
		p.Rotate()
		p.Keys = []*ecdsa.PrivateKey{old, p.Keys[0]}
	})
	if _, _, err := w.through(p); err != nil {
		t.Errorf("signed by the new one of two keys: %v", err)
	}
	p.With(func() { p.Keys = []*ecdsa.PrivateKey{p.Keys[1], old} })
	if _, _, err := w.through(p); err != nil {
		t.Errorf("signed by the old one of two keys: %v", err)
	}
	p.With(func() {
		p.Rotate()
		p.Sign = func(b []byte) string { s, _ := issuer.Signed(old, b); return s }
	})
	late := newWorld(t, w.d, func(o *access.Options) {
		o.OIDC = &access.OIDC{Issuer: p.URL, ClientID: issuer.ClientID, ClientSecret: issuer.Secret, RoleClaim: "groups", Roles: map[string]access.Role{"Cache admins": access.Owner}, Client: p.Client()}
	})
	if a, _, err := late.through(p); a != nil || status(err) != 401 {
		t.Errorf("signed by a key that was withdrawn: got %+v, %v, want 401", a, err)
	}
}

// Whatever part of the provider fails, and however, the person reads a sentence
// without the provider's insides, and nobody comes in.
func TestProvidersFail(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path string
		with http.HandlerFunc
	}{
		"the discovery is of another issuer": {"/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"issuer":"https://db01.example","authorization_endpoint":"x","token_endpoint":"x","jwks_uri":"x"}`)
		}},
		"the discovery is no JSON": {"/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>db01.example") }},
		"the discovery is cut":     {"/.well-known/openid-configuration", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		"the discovery fails": {"/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "db01.example is down", http.StatusServiceUnavailable)
		}},
		"the tokens are cut":     {"/token", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		"the tokens fail":        {"/token", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "db01.example is down", 500) }},
		"the tokens are no JSON": {"/token", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>db01.example") }},
		"the keys are cut":       {"/keys", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		"the keys fail":          {"/keys", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "db01.example is down", 500) }},
		"the keys are none":      {"/keys", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"keys":[]}`) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, p := organisation(t, dbtest.SQLite(t))
			p.With(func() { p.Instead, p.InsteadAt = c.with, c.path })
			rec := httptest.NewRecorder()
			err := w.OIDCStart(rec, httptest.NewRequest("GET", base, nil), base)
			if begun := c.path != "/.well-known/openid-configuration"; begun {
				if err != nil {
					t.Fatal(err)
				}
				code, state := p.Authorize(rec.Header().Get("Location"))
				var session *http.Cookie
				if _, session, err = w.back(rec.Result().Cookies()[0], url.Values{"code": {code}, "state": {state}}); session != nil {
					t.Error("somebody came in")
				}
			} else if rec.Code == http.StatusFound || len(rec.Result().Cookies()) != 0 || status(err) != http.StatusBadGateway {
				t.Errorf("sent to %q, %v; want 502", rec.Header().Get("Location"), err)
			}
			if s := status(err); s != 401 && s != 502 {
				t.Fatalf("got %v", err)
			}
			for _, inside := range []string{"db01", "127.0.0.1", "oidc", "oauth2", "EOF", issuer.Secret} {
				if strings.Contains(err.Error(), inside) {
					t.Errorf("the person reads %q", err)
				}
			}
			if text := whole(err); strings.Contains(text, issuer.Secret) || strings.Count(text, ";") < 2 {
				t.Errorf("the log learns %q, expected a cause without the secret", text)
			}
			p.With(func() { p.Instead = nil })
			if _, _, err := w.through(p); err != nil {
				t.Errorf("when it is well again: %v", err)
			}
		})
	}
}

// A control plane with a wrong secret comes to nothing, and the person does not
// read it, although this provider repeats it.
func TestAWrongClientSecret(t *testing.T) {
	t.Parallel()
	p := issuer.New(t, base)
	w := newWorld(t, dbtest.SQLite(t), func(o *access.Options) {
		o.OIDC = &access.OIDC{Issuer: p.URL, ClientID: issuer.ClientID, ClientSecret: "mistyped-secret", RoleClaim: "groups", Roles: map[string]access.Role{"Cache admins": access.Owner}, Client: p.Client()}
	})
	a, session, err := w.through(p)
	if a != nil || session != nil || status(err) != 401 || strings.Contains(err.Error(), "mistyped") || strings.Contains(err.Error(), "invalid_client") {
		t.Errorf("got %+v, %v", a, err)
	}
	if text := whole(err); !strings.Contains(text, "invalid_client") {
		t.Errorf("the log learns only %q", text)
	}
}

func TestTheProviderIsAway(t *testing.T) {
	t.Parallel()
	w, p := organisation(t, dbtest.SQLite(t))
	p.With(func() { p.Away = true })
	err := w.OIDCStart(httptest.NewRecorder(), httptest.NewRequest("GET", base, nil), base)
	if status(err) != http.StatusBadGateway || strings.Contains(err.Error(), "db01") {
		t.Errorf("got %v", err)
	}
	var no *access.Refusal
	if !errors.As(err, &no) || no.Err == nil {
		t.Errorf("the log learns nothing: %v", err)
	}
	p.With(func() { p.Away = false })
	if _, _, err := w.through(p); err != nil {
		t.Errorf("when it is back: %v", err)
	}
	gone, q := organisation(t, dbtest.SQLite(t))
	cookie, location := gone.begin()
	code, state := q.Authorize(location)
	q.Close()
	if a, session, err := gone.back(cookie, url.Values{"code": {code}, "state": {state}}); a != nil || session != nil || status(err) < 400 || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("nobody listens any more: got %+v, %v", a, err)
	}
	if none := newWorld(t, dbtest.SQLite(t)); none.HasOIDC() || status(none.OIDCStart(httptest.NewRecorder(), httptest.NewRequest("GET", base, nil), base)) != 404 {
		t.Error("without a provider there is one")
	}
}
