// Package issuer is an OpenID Connect provider that tests can have say what they
// like.
package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// What the provider knows the control plane by.
const (
	ClientID = "larder"
	Secret   = "the-client-secret"
)

// Provider is an OpenID Connect provider. With changes what it says.
type Provider struct {
	URL  string
	base string // of those who send people here
	t    testing.TB
	srv  *httptest.Server

	mu     sync.Mutex
	Keys   []*ecdsa.PrivateKey            // those it publishes, the last one signs; guarded by mu
	Claims map[string]any                 // beside the ones it must have; guarded by mu
	Change func(claims map[string]any)    // of each token; guarded by mu
	Sign   func(payload []byte) string    // in place of its own way; guarded by mu
	Codes  map[string]map[string][]string // requests by code; guarded by mu
	Away   bool                           // guarded by mu

	Instead   http.HandlerFunc // answers at InsteadAt; guarded by mu
	InsteadAt string           // guarded by mu
}

// New starts a provider for the control plane at base, an URL without a path. It
// knows one person, ada, of the group "Cache admins".
func New(t testing.TB, base string) *Provider {
	t.Helper()
	p := &Provider{t: t, base: base, Codes: map[string]map[string][]string{}, Claims: map[string]any{"sub": "42", "preferred_username": "ada", "groups": "Cache admins"}}
	p.Rotate()
	p.srv = httptest.NewTLSServer(http.HandlerFunc(p.serve))
	p.URL = p.srv.URL
	t.Cleanup(p.srv.Close)
	return p
}

// Client trusts the provider's certificate.
func (p *Provider) Client() *http.Client { return p.srv.Client() }

// Close has nobody listen any more.
func (p *Provider) Close() { p.srv.Close() }

// With changes fields while nobody is answered.
func (p *Provider) With(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// Rotate makes it sign with another key, and publish no other. Once it is in use
// it is for With.
func (p *Provider) Rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	p.Keys = []*ecdsa.PrivateKey{key}
}

func keyID(k *ecdsa.PrivateKey) string { return fmt.Sprintf("%x", sha256.Sum256(k.X.Bytes()))[:8] }

// Signed is a token that a key of the provider signs.
func Signed(k *ecdsa.PrivateKey, payload []byte) (string, error) {
	return Sign(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k, KeyID: keyID(k)}}, nil, payload)
}

// Sign is a token by any key.
func Sign(key jose.SigningKey, o *jose.SignerOptions, payload []byte) (string, error) {
	s, err := jose.NewSigner(key, o)
	if err != nil {
		return "", err
	}
	jws, err := s.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

func (p *Provider) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.Away {
		http.Error(w, "internal: db01.example is down", http.StatusServiceUnavailable)
		return
	}
	if p.Instead != nil && r.URL.Path == p.InsteadAt {
		p.Instead(w, r)
		return
	}
	answer := func(v any) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		answer(map[string]any{"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"ES256"}})
	case "/keys":
		var set jose.JSONWebKeySet
		for _, k := range p.Keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public(), KeyID: keyID(k), Algorithm: "ES256", Use: "sig"})
		}
		answer(set)
	case "/token":
		if err := r.ParseForm(); err != nil {
			p.t.Error(err)
		}
		id, key, ok := r.BasicAuth()
		if !ok {
			id, key = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
		}
		asked := p.Codes[r.PostForm.Get("code")]
		challenge := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		switch {
		case id != ClientID || key != Secret:
			http.Error(w, `{"error":"invalid_client","error_description":"wrong Secret `+key+`"}`, http.StatusUnauthorized)
			return
		case asked == nil || base64.RawURLEncoding.EncodeToString(challenge[:]) != asked["code_challenge"][0]:
			http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
			return
		}
		now := time.Now()
		claims := map[string]any{"iss": p.URL, "aud": ClientID, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "nonce": asked["nonce"][0]}
		maps.Copy(claims, p.Claims)
		if p.Change != nil {
			p.Change(claims)
		}
		payload, err := json.Marshal(claims)
		if err != nil {
			p.t.Error(err)
		}
		token := ""
		if p.Sign != nil {
			token = p.Sign(payload)
		} else if token, err = Signed(p.Keys[len(p.Keys)-1], payload); err != nil {
			p.t.Error(err)
		}
		answer(map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": token})
	default:
		http.NotFound(w, r)
	}
}

// Authorize is what the provider does with a person it knows: it gives the
// browser a code.
func (p *Provider) Authorize(location string) (code, state string) {
	p.t.Helper()
	u, err := url.Parse(location)
	if err != nil {
		p.t.Fatal(err)
	}
	q := u.Query()
	if !strings.HasPrefix(location, p.URL+"/authorize") || q.Get("client_id") != ClientID || q.Get("redirect_uri") != p.base+"/sign-in/callback" || q.Get("code_challenge_method") != "S256" ||
		q.Get("response_type") != "code" || q.Get("nonce") == "" || !strings.Contains(q.Get("scope"), "openid") {
		p.t.Errorf("sent to %s", location)
	}
	p.With(func() {
		code = fmt.Sprintf("code-%d", len(p.Codes))
		p.Codes[code] = q
	})
	return code, q.Get("state")
}
