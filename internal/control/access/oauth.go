package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"larder/internal/control/db"
)

// accessLife is how long an access token is good.
const accessLife = time.Hour

// tenantForm are the names of tenants that clients put into paths. All of them
// mean this control plane: there is only one.
var tenantForm = regexp.MustCompile(`^[A-Za-z0-9.-]{1,100}$`)

// Discovery answers where tokens are to be had, in the shape of OpenID Connect
// Discovery that Azure's clients read. base is where the caller reaches the
// control plane.
func (s *Service) Discovery(w http.ResponseWriter, r *http.Request, base string) error {
	tenant := r.PathValue("tenant")
	if !tenantForm.MatchString(tenant) {
		return refuse(http.StatusNotFound, "NotFound", "There is no such tenant.")
	}
	at := base + "/" + url.PathEscape(tenant)
	return writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                at + "/v2.0",
		"token_endpoint":                        at + "/oauth2/v2.0/token",
		"authorization_endpoint":                at + "/oauth2/v2.0/authorize",
		"jwks_uri":                              at + "/discovery/v2.0/keys",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic"},
		"grant_types_supported":                 []string{"client_credentials"},
		"response_types_supported":              []string{"token"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"tenant_region_scope":                   nil,
		"cloud_instance_name":                   strings.TrimPrefix(base, "https://"),
	})
}

// oauthError is an error of RFC 6749, section 5.2.
type oauthError struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

// TokenEndpoint gives an access token for a client secret (RFC 6749, section
// 4.4): the client is a token's id, its secret the token itself.
func (s *Service) TokenEndpoint(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	fail := func(status int, code, format string, args ...any) error {
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="larder"`)
		}
		return writeJSON(w, status, oauthError{Code: code, Description: fmt.Sprintf(format, args...)})
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return fail(http.StatusBadRequest, "invalid_request", "Content-Type: expected application/x-www-form-urlencoded.")
	}
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		return fail(http.StatusBadRequest, "invalid_request", "The body is not a form.")
	}
	form := r.PostForm
	if g := form.Get("grant_type"); g != "client_credentials" {
		return fail(http.StatusBadRequest, "unsupported_grant_type", "grant_type: found %q, expected client_credentials.", clip(g))
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if user, password, ok := r.BasicAuth(); ok {
		id, _ = url.QueryUnescape(user)
		secret, _ = url.QueryUnescape(password)
	}
	if form.Get("scope") == "" && form.Get("resource") == "" {
		return fail(http.StatusBadRequest, "invalid_scope", "scope: expected <the control plane>/.default, or resource for the older endpoint.")
	}
	from := RemoteOf(r)
	if wait, err := s.mayTry(r.Context(), from); err != nil {
		return err
	} else if wait > 0 {
		setRetryAfter(w, wait)
		return fail(http.StatusTooManyRequests, "temporarily_unavailable", "Too many failures; try again later.")
	}
	p, err := s.client(r, id, secret)
	if err != nil {
		return err
	}
	if p == nil {
		if _, err := s.try(r.Context(), "", from); err != nil {
			return err
		}
		return fail(http.StatusUnauthorized, "invalid_client", "client_id and client_secret do not belong together, or the token has expired or was revoked.")
	}
	access := newSecret(accessPrefix)
	hash := sha256.Sum256([]byte(access))
	life := accessLife
	if !p.Expires.IsZero() {
		life = min(life, p.Expires.Sub(s.now()))
	}
	if _, err := s.d.ExecContext(r.Context(), `INSERT INTO access_tokens (hash, token, expires) VALUES ($1, $2, $3)`, hash[:], p.ID, db.Micros(s.now().Add(life))); err != nil {
		return fmt.Errorf("writing an access token: %w", err)
	}
	seconds := int(life / time.Second)
	out := map[string]any{"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": access}
	if res := form.Get("resource"); res != "" { // the shape of the older endpoint
		now := s.now().Unix()
		out["resource"], out["expires_on"], out["not_before"] = res, fmt.Sprint(now+int64(seconds)), fmt.Sprint(now)
		out["expires_in"], out["ext_expires_in"] = fmt.Sprint(seconds), fmt.Sprint(seconds)
	}
	return writeJSON(w, http.StatusOK, out)
}

// client returns the token whose id and secret these are, nil if they are not.
func (s *Service) client(r *http.Request, id, secret string) (*APIToken, error) {
	if !wellFormed(secret) || !strings.HasPrefix(secret, tokenPrefix) {
		return nil, nil
	}
	p, err := s.bearer(r.Context(), secret)
	var no *Refusal
	if errors.As(err, &no) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(p.ID), []byte(strings.ToLower(id))) != 1 {
		return nil, nil
	}
	return scanToken(s.d.QueryRowContext(r.Context(), tokenColumns+` WHERE id = $1`, p.ID))
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, err = w.Write(b)
	return err
}

// RemoteOf is the address a request comes from, of IPv6 its network of 64 bits:
// who has one address of it has them all.
func RemoteOf(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return network(ap.Addr())
}

func network(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

func setRetryAfter(w http.ResponseWriter, d time.Duration) {
	w.Header().Set("Retry-After", fmt.Sprint(int(d/time.Second)+1))
}
