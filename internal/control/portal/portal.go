// Package portal serves the control plane's pages, and the endpoints at which
// people and programs sign in.
package portal

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/alert"
	"larder/internal/control/db"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/control/telemetry"
	"larder/internal/control/words"
	"larder/internal/httpsrv"
)

//go:embed pages/*
var files embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"bytes": words.Bytes, "ago": agoText, "percent": func(f float64) string { return fmt.Sprintf("%.1f %%", 100*f) },
}).ParseFS(files, "pages/*.html"))

// Options are what a Portal works with.
type Options struct {
	DB        *db.DB
	Access    *access.Service
	Roster    *roster.Roster
	Usage     *telemetry.Service
	Alerts    *alert.Service
	PublicURL func(r *http.Request) string
	Version   string
	Audit     func(ctx context.Context, q db.Queryer, r *http.Request, e access.Entry) error
	Log       *slog.Logger // nil: none
}

// Portal answers browsers.
type Portal struct{ o Options }

// New makes a Portal.
func New(o Options) *Portal {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Portal{o}
}

// Routes are all that the portal answers.
func (p *Portal) Routes() []route.Route {
	page := func(method, path, name, does string, h httpsrv.HandlerFunc) route.Route {
		return route.Route{Method: method, Path: path, Name: name, Does: does, Needs: access.Public, Type: "text/html", Handle: h}
	}
	auth := func(method, path, name, does string, h httpsrv.HandlerFunc) route.Route {
		return route.Route{Method: method, Path: path, Name: name, Does: does, Needs: access.Public, Type: "application/json", Handle: h}
	}
	discovery := func(w http.ResponseWriter, r *http.Request) error {
		return asError(p.o.Access.Discovery(w, r, p.o.PublicURL(r)))
	}
	token := func(w http.ResponseWriter, r *http.Request) error { return asError(p.o.Access.TokenEndpoint(w, r)) }
	return []route.Route{
		page("GET", "/", "Page_Overview", "The fleet at a glance", p.overview),
		page("GET", "/style.css", "Page_Style", "The pages' style", file("style.css", "text/css; charset=utf-8")),
		page("GET", "/icon.svg", "Page_Icon", "The pages' icon", file("icon.svg", "image/svg+xml")),
		page("GET", "/sign-in", "Page_SignIn", "The form to sign in", p.signInForm),
		page("POST", "/sign-in", "Page_SignInPost", "Sign in with name and password", p.signIn),
		page("POST", "/sign-out", "Page_SignOut", "Sign out", p.signOut),
		page("GET", "/sign-in/organisation", "Page_OIDCStart", "Sign in with the organisation's account", func(w http.ResponseWriter, r *http.Request) error {
			return p.sorry(w, r, "sign-in.html", form{}, p.o.Access.OIDCStart(w, r, p.o.PublicURL(r)))
		}),
		page("GET", "/sign-in/callback", "Page_OIDCCallback", "Where the organisation's provider sends people back", p.callback),
		page("GET", "/first", "Page_First", "The form for the first owner", p.firstForm),
		page("POST", "/first", "Page_FirstPost", "Make the first owner", p.first),
		{Method: "POST", Path: "/alerts/{alertId}/silence", Name: "Page_Silence", Does: "Do not tell people of an alert for a day", Needs: access.Operate, Filtered: true, Type: "text/html", Status: http.StatusSeeOther, Handle: p.silence},
		{Method: "POST", Path: "/channels/{channelId}/test", Name: "Page_TestChannel", Does: "Send a test message", Needs: access.Manage, Type: "text/html", Status: http.StatusSeeOther, Handle: p.testChannel},
		auth("GET", "/{tenant}/v2.0/.well-known/openid-configuration", "OAuth_Discovery", "Where tokens are to be had", discovery),
		auth("GET", "/{tenant}/.well-known/openid-configuration", "OAuth_DiscoveryV1", "Where tokens are to be had", discovery),
		auth("POST", "/{tenant}/oauth2/v2.0/token", "OAuth_Token", "An access token for a client secret (RFC 6749, section 4.4)", token),
		auth("POST", "/{tenant}/oauth2/token", "OAuth_TokenV1", "The same in the older shape", token),
	}
}

func asError(err error) error {
	var no *access.Refusal
	if errors.As(err, &no) {
		return &route.Error{Status: no.Status, Code: no.Code, Message: no.Message, Err: no.Err}
	}
	return err
}

// form is what the forms show.
type form struct {
	Error, Name, Code string
	NeedsCode, OIDC   bool
	Version           string
}

func (p *Portal) render(w http.ResponseWriter, status int, name string, data any) error {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, data); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, err := w.Write(b.Bytes())
	return err
}

// sorry shows a form again with what was wrong; other errors stay errors. The
// reason that only the log may have goes there.
func (p *Portal) sorry(w http.ResponseWriter, r *http.Request, page string, f form, err error) error {
	var no *access.Refusal
	if !errors.As(err, &no) {
		return err
	}
	if no.Err != nil {
		p.o.Log.WarnContext(r.Context(), "sign-in failed", "code", no.Code, "remote", r.RemoteAddr, "err", no.Err)
	}
	if no.RetryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(no.RetryAfter/time.Second)+1))
	}
	f.Error, f.OIDC, f.Version = no.Message, p.o.Access.HasOIDC(), p.o.Version
	f.NeedsCode = errors.Is(err, access.ErrCodeNeeded) || f.NeedsCode
	return p.render(w, no.Status, page, f)
}

// file answers with one that the pages use.
func file(name, kind string) httpsrv.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		b, err := files.ReadFile("pages/" + name)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "max-age=3600")
		_, err = w.Write(b)
		return err
	}
}

func (p *Portal) signInForm(w http.ResponseWriter, r *http.Request) error {
	return p.render(w, http.StatusOK, "sign-in.html", form{OIDC: p.o.Access.HasOIDC(), Version: p.o.Version})
}

func (p *Portal) signIn(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		return &route.Error{Status: http.StatusBadRequest, Code: "InvalidRequestContent", Message: "The body is not a form.", Err: err}
	}
	l := access.LoginRequest{Name: r.PostForm.Get("name"), Password: r.PostForm.Get("password"), Code: r.PostForm.Get("code")}
	a, cookie, err := p.o.Access.Login(r, l)
	if err != nil {
		// Whoever must wait is not looked at, and writes nothing down.
		var no *access.Refusal
		if errors.As(err, &no) && !errors.Is(err, access.ErrCodeNeeded) && no.Status != http.StatusTooManyRequests {
			if aerr := p.audit(r, access.Entry{Action: "user.sign-in", Target: "user " + l.Name, Outcome: "refused"}); aerr != nil {
				return aerr
			}
		}
		return p.sorry(w, r, "sign-in.html", form{Name: l.Name, NeedsCode: l.Code != ""}, err)
	}
	return p.welcome(w, r, a, cookie)
}

func (p *Portal) callback(w http.ResponseWriter, r *http.Request) error {
	a, cookie, err := p.o.Access.OIDCCallback(w, r, p.o.PublicURL(r))
	if err != nil {
		// Only who proved to be somebody writes into the audit: the rest could be
		// anybody's, in any number.
		var no *access.Refusal
		if errors.As(err, &no) && no.Who != "" {
			if aerr := p.audit(r, access.Entry{Action: "user.sign-in", Target: "user " + no.Who, Outcome: "refused"}); aerr != nil {
				return aerr
			}
		}
		return p.sorry(w, r, "sign-in.html", form{}, err)
	}
	return p.welcome(w, r, a, cookie)
}

func (p *Portal) audit(r *http.Request, e access.Entry) error {
	return p.o.DB.Tx(r.Context(), func(tx *sql.Tx) error { return p.o.Audit(r.Context(), tx, r, e) })
}

func (p *Portal) welcome(w http.ResponseWriter, r *http.Request, a *access.Account, cookie *http.Cookie) error {
	who := &access.Principal{Kind: access.User, ID: a.ID, Name: a.Name}
	if err := p.audit(r, access.Entry{Actor: who, Action: "user.sign-in", Target: "user " + a.Name}); err != nil {
		return err
	}
	http.SetCookie(w, cookie)
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

func (p *Portal) signOut(w http.ResponseWriter, r *http.Request) error {
	cookie, err := p.o.Access.Logout(r)
	if err != nil {
		return err
	}
	http.SetCookie(w, cookie)
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
	return nil
}

func (p *Portal) firstForm(w http.ResponseWriter, r *http.Request) error {
	return p.render(w, http.StatusOK, "first.html", form{Code: r.URL.Query().Get("code"), Version: p.o.Version})
}

func (p *Portal) first(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		return &route.Error{Status: http.StatusBadRequest, Code: "InvalidRequestContent", Message: "The body is not a form.", Err: err}
	}
	f := form{Code: r.PostForm.Get("code"), Name: r.PostForm.Get("name")}
	var a *access.Account
	err := p.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
		var err error
		if a, err = p.o.Access.RedeemFirst(r.Context(), tx, f.Code, f.Name, r.PostForm.Get("password")); err != nil {
			return err
		}
		return p.o.Audit(r.Context(), tx, r, access.Entry{Actor: &access.Principal{Kind: access.User, ID: a.ID, Name: a.Name}, Action: "user.first", Target: "user " + a.Name, After: a})
	})
	if err != nil {
		return p.sorry(w, r, "first.html", f, err)
	}
	cookie, err := p.o.Access.Begin(r.Context(), a, access.RemoteOf(r))
	if err != nil {
		return err
	}
	return p.welcome(w, r, a, cookie)
}
