package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/uuid"
	"golang.org/x/oauth2"

	"larder/internal/control/db"
)

// OIDC is how people sign in with the organisation's accounts.
type OIDC struct {
	Issuer       string
	ClientID     string
	ClientSecret string
	RoleClaim    string          // claim with what somebody may, a string or a list
	Roles        map[string]Role // by the claim's values
	Client       *http.Client    // nil: one that waits for 15 s at most
}

const stateCookie = "__Host-larder-sign-in"

// provider is the issuer, found when it is first needed: it may be down when the
// control plane starts.
type provider struct {
	turn chan struct{}  // holds one: whoever looks for the issuer
	p    *oidc.Provider // guarded by turn
}

func (s *Service) provider(ctx context.Context) (*oidc.Provider, error) {
	if s.o.OIDC == nil {
		return nil, refuse(http.StatusNotFound, "NotFound", "No OpenID Connect provider is configured.")
	}
	select {
	case s.oidc.turn <- struct{}{}:
		defer func() { <-s.oidc.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s.oidc.p != nil {
		return s.oidc.p, nil
	}
	// The provider keeps the context for fetching keys later on.
	p, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), s.client0()), s.o.OIDC.Issuer)
	if err != nil {
		return nil, unreachable(err)
	}
	s.oidc.p = p
	return p, nil
}

func (s *Service) client0() *http.Client {
	if s.o.OIDC.Client != nil {
		return s.o.OIDC.Client
	}
	return &http.Client{Timeout: 15 * time.Second}
}

func unreachable(err error) *Refusal {
	return &Refusal{Status: http.StatusBadGateway, Code: "ProviderUnreachable", Message: "The organisation's sign-in cannot be reached; sign in with a local account, or try again.", Err: err}
}

// road notes whether the provider answered. What the libraries return does not
// tell a provider that is down from one that says no.
type road struct {
	http.RoundTripper
	down atomic.Bool
}

func (o *road) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := o.RoundTripper.RoundTrip(r)
	if err != nil || resp.StatusCode >= 500 {
		o.down.Store(true)
	}
	return resp, err
}

// HasOIDC reports whether people can sign in with the organisation's accounts.
func (s *Service) HasOIDC() bool { return s.o.OIDC != nil }

func (s *Service) oauth(p *oidc.Provider, base string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: s.o.OIDC.ClientID, ClientSecret: s.o.OIDC.ClientSecret, Endpoint: p.Endpoint(),
		RedirectURL: base + "/sign-in/callback", Scopes: []string{oidc.ScopeOpenID, "profile", "email"},
	}
}

func random() string {
	var raw [24]byte
	rand.Read(raw[:])
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// OIDCStart sends a person to the provider (authorization code flow with PKCE).
// state, nonce and verifier are bound to the browser by a cookie of ten minutes.
func (s *Service) OIDCStart(w http.ResponseWriter, r *http.Request, base string) error {
	p, err := s.provider(r.Context())
	if err != nil {
		return err
	}
	state, nonce, verifier := random(), random(), oauth2.GenerateVerifier()
	http.SetCookie(w, &http.Cookie{Name: stateCookie, Value: state + "." + nonce + "." + verifier, Path: "/", MaxAge: 600, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	http.Redirect(w, r, s.oauth(p, base).AuthCodeURL(state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier)), http.StatusFound)
	return nil
}

// OIDCCallback signs the person in who comes back from the provider.
func (s *Service) OIDCCallback(w http.ResponseWriter, r *http.Request, base string) (*Account, *http.Cookie, error) {
	p, err := s.provider(r.Context())
	if err != nil {
		return nil, nil, err
	}
	http.SetCookie(w, &http.Cookie{Name: stateCookie, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	no := func(message string, cause error) error {
		return &Refusal{Status: http.StatusUnauthorized, Code: "AuthenticationFailed", Message: message, Err: cause}
	}
	c, err := r.Cookie(stateCookie)
	if err != nil {
		return nil, nil, no("This sign-in was not begun in this browser, or more than ten minutes ago; begin again.", nil)
	}
	parts := strings.Split(c.Value, ".")
	q := r.URL.Query()
	if len(parts) != 3 || subtle.ConstantTimeCompare([]byte(parts[0]), []byte(q.Get("state"))) != 1 {
		return nil, nil, no("This sign-in is not the one that was begun in this browser; begin again.", nil)
	}
	// A state is good once, on every replica.
	if err := s.spend(r.Context(), "sign-in "+parts[0]); err != nil {
		return nil, nil, err
	}
	if e := q.Get("error"); e != "" {
		return nil, nil, no("The organisation's sign-in refused.", fmt.Errorf("provider: %s: %s", clip(e), q.Get("error_description")))
	}
	id, err := s.identify(r.Context(), p, base, q.Get("code"), parts[2])
	if err != nil {
		return nil, nil, err
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(parts[1])) != 1 {
		return nil, nil, no("This sign-in is not the one that was begun in this browser; begin again.", errors.New("another nonce"))
	}
	if id.Subject == "" {
		return nil, nil, no("What the organisation's sign-in says of you cannot be read.", errors.New("no subject"))
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return nil, nil, no("What the organisation's sign-in says of you cannot be read.", err)
	}
	// OpenID Connect Core, section 3.1.3.7: with several audiences the token says
	// for which of them it was made.
	if azp, ok := claims["azp"]; (ok || len(id.Audience) > 1) && azp != s.o.OIDC.ClientID {
		return nil, nil, no("The organisation's sign-in did not confirm who you are; begin again.", fmt.Errorf("a token for %d audiences was made for another of them", len(id.Audience)))
	}
	role, ok := s.roleOf(claims)
	if !ok {
		return nil, nil, &Refusal{Status: http.StatusForbidden, Code: "NoRole", Who: nameOf(claims, id.Subject), Message: fmt.Sprintf("You are known, and none of your %s gives you a role here; whoever runs the control plane can change that.", s.o.OIDC.RoleClaim)}
	}
	a, err := s.provided(r.Context(), id.Issuer+" "+id.Subject, nameOf(claims, id.Subject), role)
	if err != nil {
		return nil, nil, err
	}
	session, err := s.Begin(r.Context(), a, RemoteOf(r))
	return a, session, err
}

// identify has the provider say who came back with a code.
func (s *Service) identify(ctx context.Context, p *oidc.Provider, base, code, verifier string) (*oidc.IDToken, error) {
	client := *s.client0()
	if client.Transport == nil {
		client.Transport = http.DefaultTransport
	}
	way := &road{RoundTripper: client.Transport}
	client.Transport = way
	ctx = oidc.ClientContext(ctx, &client)
	failed := func(err error) error {
		if way.down.Load() {
			return unreachable(err)
		}
		return &Refusal{Status: http.StatusUnauthorized, Code: "AuthenticationFailed", Message: "The organisation's sign-in did not confirm who you are; begin again.", Err: err}
	}
	token, err := s.oauth(p, base).Exchange(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		return nil, failed(err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := p.VerifierContext(ctx, &oidc.Config{ClientID: s.o.OIDC.ClientID, Now: s.now}).Verify(ctx, raw)
	if err != nil {
		return nil, failed(err)
	}
	return id, nil
}

// spend takes something that is good once. It is remembered for as long as its
// cookie lives.
func (s *Service) spend(ctx context.Context, what string) error {
	hash := sha256.Sum256([]byte(what))
	_, err := s.d.ExecContext(ctx, `INSERT INTO once (purpose, hash, expires) VALUES ($1, $2, $3)`, what, hash[:], db.Micros(s.now().Add(15*time.Minute)))
	if db.IsDuplicate(err) {
		return refuse(http.StatusUnauthorized, "AuthenticationFailed", "This sign-in was carried out already; begin again.")
	}
	return err
}

// roleOf is the highest role that the claims give.
func (s *Service) roleOf(claims map[string]any) (best Role, ok bool) {
	var values []string
	switch v := claims[s.o.OIDC.RoleClaim].(type) {
	case string:
		values = append(values, v)
	case []any:
		for _, e := range v {
			if t, ok := e.(string); ok {
				values = append(values, t)
			}
		}
	}
	for value, role := range s.o.OIDC.Roles {
		if slices.Contains(values, value) && rank[role] > rank[best] {
			best, ok = role, true
		}
	}
	return best, ok
}

func nameOf(claims map[string]any, subject string) string {
	for _, k := range []string{"preferred_username", "email", "name"} {
		if v, ok := claims[k].(string); ok && userForm.MatchString(v) {
			return v
		}
	}
	sum := sha256.Sum256([]byte(subject))
	return fmt.Sprintf("user-%x", sum[:8])
}

// provided returns the account of a provider's subject, with the role it has by
// now, making it at the first time.
func (s *Service) provided(ctx context.Context, subject, name string, role Role) (*Account, error) {
	var a *Account
	err := s.d.Tx(ctx, func(tx *sql.Tx) error {
		var err error
		a, err = scanUser(tx.QueryRowContext(ctx, userColumns+` WHERE subject = $1`, subject))
		if errors.Is(err, sql.ErrNoRows) {
			a = &Account{ID: uuid.NewString(), Name: name, Role: role, Scopes: []string{Everything}, Created: s.now().UTC(), Provider: true, subject: subject}
			return s.insertUser(ctx, tx, a)
		}
		if err != nil {
			return err
		}
		if a.Disabled {
			return &Refusal{Status: http.StatusForbidden, Code: "Disabled", Who: a.Name, Message: "This account was disabled here."}
		}
		if a.Role == role {
			return nil
		}
		a.Role = role
		scopes, err := json.Marshal(a.Scopes)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE users SET role = $1, scopes = $2 WHERE id = $3`, string(role), string(scopes), a.ID); err != nil {
			return err
		}
		return s.endSessions(ctx, tx, a.ID)
	})
	return a, err
}
