package portal

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"golang.org/x/net/html"

	"larder/internal/control/access"
	"larder/internal/control/alert"
	"larder/internal/control/db"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/control/seal"
	"larder/internal/control/telemetry"
	"larder/internal/fleet"
	"larder/internal/lardertest/dbtest"
	"larder/internal/lardertest/issuer"
)

const (
	at     = "https://control.example"
	phrase = "correct horse battery"
)

var local = &access.Principal{Kind: access.Local, Name: "test", Role: access.Owner, Scopes: []string{access.Everything}}

// world is a portal with all that it stands on, and a clock of sign-ins that
// tests set.
type world struct {
	t      *testing.T
	d      *db.DB
	access *access.Service
	roster *roster.Roster
	alerts *alert.Service
	table  *route.Table
	log    bytes.Buffer // requests are answered one after another

	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func newWorld(t *testing.T, d *db.DB, change ...func(o *access.Options)) *world {
	t.Helper()
	key, err := seal.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, d: d, now: time.Now().UTC().Truncate(time.Second)}
	if w.roster, err = roster.Open(t.Context(), d, key, nil); err != nil {
		t.Fatal(err)
	}
	o := access.Options{DB: d, Sealer: key, Now: w.clock}
	for _, f := range change {
		f(&o)
	}
	w.access = access.New(o)
	w.alerts = alert.New(alert.Options{DB: d, Roster: w.roster, Sealer: key, Version: "1.2.3"})
	p := New(Options{
		DB: d, Access: w.access, Roster: w.roster, Usage: telemetry.New(telemetry.Options{DB: d}), Alerts: w.alerts, Version: "1.2.3", Log: slog.New(slog.NewTextHandler(&w.log, nil)),
		PublicURL: func(r *http.Request) string { return "https://" + r.Host },
		Audit: func(ctx context.Context, q db.Queryer, r *http.Request, e access.Entry) error {
			e.Remote = r.RemoteAddr
			return w.access.Record(ctx, q, e)
		},
	})
	w.table, err = route.New(nil, func(r *http.Request) (*http.Request, error) {
		who, err := w.access.Authenticate(r)
		if err != nil || who == nil {
			return r, asError(err)
		}
		return r.WithContext(access.With(r.Context(), who)), nil
	}, p.Routes()...)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) user(n access.NewUser) *access.Account {
	w.t.Helper()
	n.Password = phrase
	u, err := w.access.CreateUser(w.t.Context(), w.d, n, local)
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// browser keeps cookies and asks for pages as a person does.
type browser struct {
	*world
	cookies map[string]*http.Cookie
	addr    string
}

func (w *world) browser() *browser {
	return &browser{w, map[string]*http.Cookie{}, "192.0.2.1:1234"}
}

func (b *browser) ask(method, path string, form url.Values) *httptest.ResponseRecorder {
	b.t.Helper()
	r := httptest.NewRequest(method, at+path, strings.NewReader(form.Encode())).WithContext(b.t.Context())
	r.RemoteAddr = b.addr
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range b.cookies {
		r.AddCookie(c)
	}
	rec := httptest.NewRecorder()
	b.table.ServeHTTP(rec, r)
	for _, c := range rec.Result().Cookies() {
		b.cookies[c.Name] = c
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	return rec
}

// signIn signs a person in.
func (b *browser) signIn(name string) *browser {
	b.t.Helper()
	if rec := b.ask("POST", "/sign-in", url.Values{"name": {name}, "password": {phrase}}); rec.Code != 303 || rec.Header().Get("Location") != "/" {
		b.t.Fatalf("%s: %d %s", name, rec.Code, rec.Body)
	}
	return b
}

// page parses a page and holds it to what every page must be.
func page(t *testing.T, rec *httptest.ResponseRecorder, want int) *html.Node {
	t.Helper()
	if rec.Code != want {
		t.Fatalf("got %d %s, want %d", rec.Code, rec.Body, want)
	}
	if rec.Header().Get("Content-Type") != "text/html; charset=utf-8" || rec.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("the head is %v", rec.Header())
	}
	doc, err := html.Parse(strings.NewReader(rec.Body.String()))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range breaches(doc) {
		t.Errorf("the page has %s", e)
	}
	return doc
}

// breaches are what a policy of default-src 'none'; style-src 'self'; form-action
// 'self'; base-uri 'none' would block, and inputs that nobody can name.
func breaches(doc *html.Node) []string {
	var found []string
	labels := map[string]bool{}
	var inputs []string
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script", "style", "iframe", "object", "embed", "base", "svg", "video", "audio":
			found = append(found, "an element "+n.Data)
		case "link":
			if kind := attr(n, "rel") + " " + attr(n, "href"); kind != "stylesheet /style.css" && kind != "icon /icon.svg" {
				found = append(found, "a link to "+attr(n, "href"))
			}
		case "label":
			labels[attr(n, "for")] = true
		case "input":
			if attr(n, "type") != "hidden" {
				inputs = append(inputs, attr(n, "id"))
			}
		case "form":
			if attr(n, "method") != "post" {
				found = append(found, "a form that is not posted")
			}
		}
		for _, a := range n.Attr {
			switch {
			case strings.HasPrefix(a.Key, "on"), a.Key == "style":
				found = append(found, fmt.Sprintf("%s=%q", a.Key, a.Val))
			case a.Key == "href", a.Key == "src", a.Key == "action", a.Key == "formaction":
				if !strings.HasPrefix(a.Val, "/") || strings.HasPrefix(a.Val, "//") {
					found = append(found, fmt.Sprintf("%s=%q, which leads elsewhere", a.Key, a.Val))
				}
			}
		}
	}
	for _, id := range inputs {
		if id == "" || !labels[id] {
			found = append(found, fmt.Sprintf("an input %q without a label", id))
		}
	}
	return found
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// text is what people read of an element.
func text(n *html.Node) string {
	var words []string
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			words = append(words, strings.Fields(c.Data)...)
		}
	}
	return strings.Join(words, " ")
}

// all are the elements of a kind.
func all(n *html.Node, kind string) []*html.Node {
	var found []*html.Node
	for c := range n.Descendants() {
		if c.Type == html.ElementNode && c.Data == kind {
			found = append(found, c)
		}
	}
	return found
}

// input is one of a name, nil if there is none.
func input(doc *html.Node, name string) *html.Node {
	for _, n := range all(doc, "input") {
		if attr(n, "name") == name {
			return n
		}
	}
	return nil
}

// said is what the page says is wrong.
func said(doc *html.Node) string {
	for _, n := range all(doc, "p") {
		if attr(n, "role") == "alert" {
			return text(n)
		}
	}
	return ""
}

// The policy of the tests above would notice what it is there for.
func TestBreachesAreNoticed(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"<script>x</script>":                    "an element script",
		"<p onclick=x>":                         `onclick="x"`,
		"<p style='a:b'>":                       `style="a:b"`,
		"<style>a{}</style>":                    "an element style",
		"<a href='javascript:x'>":               "leads elsewhere",
		"<a href='//evil.example'>":             "leads elsewhere",
		"<form action='https://evil.example/'>": "leads elsewhere",
		"<form action='/x'>":                    "not posted",
		"<input name=a>":                        "without a label",
		"<link rel=stylesheet href=/other.css>": "a link to /other.css",
	} {
		doc, err := html.Parse(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(breaches(doc), "; "); !strings.Contains(got, want) {
			t.Errorf("%s: found %q, want %q", body, got, want)
		}
	}
}

func TestSignInForm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	doc := page(t, w.browser().ask("GET", "/sign-in", nil), 200)
	if name, pw := input(doc, "name"), input(doc, "password"); name == nil || pw == nil || attr(pw, "type") != "password" || attr(name, "autocomplete") != "username" || attr(pw, "autocomplete") != "current-password" || input(doc, "code") != nil {
		t.Error("the form is not one of name and password")
	}
	if got := said(doc); got != "" {
		t.Errorf("it complains before anybody did anything: %q", got)
	}
	if len(all(doc, "h1")) != 1 || len(all(doc, "a")) != 0 || !strings.Contains(text(doc), "Larder 1.2.3") {
		t.Errorf("the page says %q", text(doc))
	}
	rec := w.browser().ask("GET", "/style.css", nil)
	if rec.Code != 200 || rec.Header().Get("Content-Type") != "text/css; charset=utf-8" || regexp.MustCompile(`(?i)@import|url\(`).MatchString(rec.Body.String()) {
		t.Errorf("the style is %d %v", rec.Code, rec.Header())
	}
}

// A refusal does not say what was wrong, keeps the name and forgets the password.
func TestWrongPasswords(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		w.user(access.NewUser{Name: "ada", Role: access.Owner})
		b := w.browser()
		for _, form := range []url.Values{
			{"name": {"ada"}, "password": {"wrong password"}},
			{"name": {"eve"}, "password": {"wrong password"}},
			{"name": {`"><script>alert(1)</script>`}, "password": {"wrong password"}},
			{"name": {"ada"}, "password": {""}},
			{},
		} {
			rec := b.ask("POST", "/sign-in", form)
			doc := page(t, rec, 401)
			if got := said(doc); got != "Name, password or code are not right." {
				t.Errorf("%v: the page says %q", form, got)
			}
			if attr(input(doc, "name"), "value") != form.Get("name") || attr(input(doc, "password"), "value") != "" || strings.Contains(rec.Body.String(), "wrong password") || input(doc, "code") != nil {
				t.Errorf("%v: the form is %s", form, rec.Body)
			}
			if len(b.cookies) != 0 {
				t.Errorf("%v: cookies %v", form, b.cookies)
			}
		}
		// A body that is no form, or far too large, is no try.
		if rec := b.ask("POST", "/sign-in", url.Values{"name": {strings.Repeat("x", 100_000)}}); rec.Code != 400 && rec.Code != 413 {
			t.Errorf("a large form: %d", rec.Code)
		}
		var out strings.Builder
		if err := w.access.ExportAudit(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(out.String(), `"outcome":"refused"`); got != 5 || strings.Contains(out.String(), "wrong password") {
			t.Errorf("%d refusals are in the audit\n%s", got, out.String())
		}
		// Who goes on guessing waits, and is told for how long.
		var rec *httptest.ResponseRecorder
		for range 5 {
			rec = b.ask("POST", "/sign-in", url.Values{"name": {"ada"}, "password": {"wrong password"}})
		}
		after, err := strconv.Atoi(rec.Header().Get("Retry-After"))
		if doc := page(t, rec, 429); err != nil || after < 1 || !strings.Contains(said(doc), "Too many failures") {
			t.Errorf("guessing: %v, %q", rec.Header(), said(doc))
		}
		if rec := b.ask("POST", "/sign-in", url.Values{"name": {"ada"}, "password": {phrase}}); rec.Code != 429 {
			t.Errorf("the right password meanwhile: %d", rec.Code)
		}
		w.pass(time.Duration(after) * time.Second)
		b.signIn("ada")
	})
}

// With a second factor the form comes back and asks for the code.
func TestSecondFactor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	u := w.user(access.NewUser{Name: "ada", Role: access.Owner})
	begun, err := w.access.StartTOTP(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	code := func() string {
		c, err := totp.GenerateCode(begun.Secret, w.clock())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if _, err := w.access.ConfirmTOTP(t.Context(), w.d, u.ID, code()); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	b := w.browser()
	doc := page(t, b.ask("POST", "/sign-in", url.Values{"name": {"ada"}, "password": {phrase}}), 401)
	if in := input(doc, "code"); in == nil || attr(in, "autocomplete") != "one-time-code" || attr(input(doc, "name"), "value") != "ada" || !strings.Contains(said(doc), "second factor") || len(b.cookies) != 0 {
		t.Errorf("without the code the page says %q", text(doc))
	}
	doc = page(t, b.ask("POST", "/sign-in", url.Values{"name": {"ada"}, "password": {phrase}, "code": {"000000"}}), 401)
	if in := input(doc, "code"); in == nil || attr(in, "value") != "" || said(doc) != "Name, password or code are not right." {
		t.Errorf("with a wrong code the page says %q", text(doc))
	}
	if rec := b.ask("POST", "/sign-in", url.Values{"name": {"ada"}, "password": {phrase}, "code": {code()}}); rec.Code != 303 || len(b.cookies) != 1 {
		t.Errorf("with the code: %d %s", rec.Code, rec.Body)
	}
}

// The first link makes one owner, once, however many follow it.
func TestTheFirstLink(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		link, err := w.access.FirstLink(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, code, _ := strings.Cut(link, "code=")
		b := w.browser()
		doc := page(t, b.ask("GET", link, nil), 200)
		if in := input(doc, "code"); in == nil || attr(in, "value") != code || attr(in, "type") != "hidden" || attr(input(doc, "password"), "autocomplete") != "new-password" {
			t.Error("the form has no code, or no new password")
		}
		if doc := page(t, b.ask("GET", "/first?code="+url.QueryEscape(`"><script>`), nil), 200); attr(input(doc, "code"), "value") != `"><script>` {
			t.Error("a code with marks is not in the form as it is")
		}
		first := func(code, name, password string) *httptest.ResponseRecorder {
			return w.browser().ask("POST", "/first", url.Values{"code": {code}, "name": {name}, "password": {password}})
		}
		for what, c := range map[string]struct {
			code, name, password string
			want                 int
			says                 string
		}{
			"another code":     {code + "x", "ada", phrase, 403, "This link is not good"},
			"no code":          {"", "ada", phrase, 403, "This link is not good"},
			"a short password": {code, "ada", "short", 400, "at least 12"},
			"a strange name":   {code, "<script>", phrase, 400, "name"},
		} {
			rec := first(c.code, c.name, c.password)
			doc := page(t, rec, c.want)
			if !strings.Contains(said(doc), c.says) || attr(input(doc, "name"), "value") != c.name || strings.Contains(rec.Body.String(), phrase) || len(rec.Result().Cookies()) != 0 {
				t.Errorf("%s: %s", what, rec.Body)
			}
		}
		var wg sync.WaitGroup
		recs := make([]*httptest.ResponseRecorder, 4)
		for i := range recs {
			wg.Go(func() { recs[i] = first(code, fmt.Sprint("ada", i), phrase) })
		}
		wg.Wait()
		made := 0
		for _, rec := range recs {
			switch {
			case rec.Code == 303 && rec.Header().Get("Location") == "/" && len(rec.Result().Cookies()) == 1:
				made++
			case rec.Code != 403 || len(rec.Result().Cookies()) != 0:
				t.Errorf("at the same time: %d %s", rec.Code, rec.Body)
			}
		}
		us, err := w.access.Users(t.Context())
		if err != nil || made != 1 || len(us) != 1 || us[0].Role != access.Owner {
			t.Fatalf("%d were told they are the owner, %d accounts, %v", made, len(us), err)
		}
		if doc := page(t, first(code, "eve", phrase), 403); !strings.Contains(said(doc), "This link is not good") {
			t.Errorf("later the page says %q", said(doc))
		}
		if o := page(t, b.signIn(us[0].Name).ask("GET", "/", nil), 200); !strings.Contains(text(o), us[0].Name+", owner") {
			t.Error("the overview does not say who it is")
		}
		var out strings.Builder
		if err := w.access.ExportAudit(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
		if strings.Count(out.String(), `"user.first"`) != 1 || strings.Contains(out.String(), code) {
			t.Errorf("the audit is\n%s", out.String())
		}
	})
}

func TestTheFirstLinkEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	link, err := w.access.FirstLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(link, "code=")
	w.pass(25 * time.Hour)
	page(t, w.browser().ask("POST", "/first", url.Values{"code": {code}, "name": {"ada"}, "password": {phrase}}), 403)
	if us, err := w.access.Users(t.Context()); err != nil || len(us) != 0 {
		t.Errorf("%d accounts, %v", len(us), err)
	}
}

// Whoever signs out is signed out, also where the cookie was kept; other
// sessions go on.
func TestSignOut(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		w.user(access.NewUser{Name: "ada", Role: access.Owner})
		b, other := w.browser().signIn("ada"), w.browser().signIn("ada")
		page(t, b.ask("GET", "/", nil), 200)
		kept := &browser{w, map[string]*http.Cookie{}, b.addr}
		for k, c := range b.cookies {
			if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || !strings.HasPrefix(c.Name, "__Host-") {
				t.Errorf("the cookie is %+v", c)
			}
			kept.cookies[k] = c
		}
		if rec := b.ask("GET", "/sign-out", nil); rec.Code != 405 {
			t.Errorf("a link signs people out: %d", rec.Code)
		}
		if rec := b.ask("POST", "/sign-out", url.Values{}); rec.Code != 303 || rec.Header().Get("Location") != "/sign-in" || len(b.cookies) != 0 {
			t.Errorf("%d %v, %v are left", rec.Code, rec.Header(), b.cookies)
		}
		for what, b := range map[string]*browser{"the browser": b, "a kept cookie": kept} {
			if rec := b.ask("GET", "/", nil); rec.Code != 303 || rec.Header().Get("Location") != "/sign-in" {
				t.Errorf("%s: %d", what, rec.Code)
			}
		}
		page(t, other.ask("GET", "/", nil), 200)
		if rec := b.ask("POST", "/sign-out", url.Values{}); rec.Code != 303 {
			t.Errorf("signing out twice: %d", rec.Code)
		}
	})
}

// fleetOf makes a customer with a node in each group, that reported what state
// says.
func (w *world) fleetOf(state fleet.State, spec roster.Spec, names map[string]string) {
	w.t.Helper()
	ctx := w.t.Context()
	err := w.d.Tx(ctx, func(tx *sql.Tx) error {
		for group, name := range names {
			if _, err := w.roster.PutGroup(ctx, tx, roster.Group{Subscription: "s", Name: group, Location: "l", Created: time.Now()}); err != nil {
				return err
			}
			c := &roster.Customer{Subscription: "s", Group: group, Name: "c", Location: "l", CustomerID: "id-" + group, Properties: json.RawMessage(`{}`), Provisioning: "Succeeded"}
			if err := w.roster.InsertCustomer(ctx, tx, c); err != nil {
				return err
			}
			n := &roster.Node{NodeID: "node-" + group, Path: c.Path() + "/enterpriseMccCacheNodes/" + name, Customer: strings.ToLower(c.Path()), Name: name, Location: "l", Spec: spec, Properties: json.RawMessage(`{}`), Provisioning: "Succeeded", Configured: true, Created: time.Now()}
			if err := w.roster.InsertNode(ctx, tx, n); err != nil {
				return err
			}
			text, err := json.Marshal(state)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE nodes SET line = 1, last_seen = $1, state = $2, protocol = 1 WHERE node_id = $3`, db.Micros(time.Now()), string(text), n.NodeID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	pass, err := w.alerts.Begin(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	for n, err := range w.roster.All(ctx) {
		if err != nil {
			w.t.Fatal(err)
		}
		pass.Node(n)
	}
	if err := pass.End(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// The overview is for those who are signed in; others are sent to the form, and
// a token that is not good is told so.
func TestTheOverviewNeedsASignIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	w.fleetOf(fleet.State{Ready: true}, roster.Spec{}, map[string]string{"a": "room-1"})
	w.user(access.NewUser{Name: "ada", Role: access.Reader})
	b := w.browser()
	gone := func(what string) {
		t.Helper()
		rec := b.ask("GET", "/", nil)
		if rec.Code != 303 || rec.Header().Get("Location") != "/sign-in" || strings.Contains(rec.Body.String(), "room-1") {
			t.Errorf("%s: %d %s", what, rec.Code, rec.Body)
		}
	}
	gone("nobody")
	b.cookies["__Host-larder"] = &http.Cookie{Name: "__Host-larder", Value: "made-up"}
	gone("a cookie that was made up")
	b.signIn("ada")
	if doc := page(t, b.ask("GET", "/", nil), 200); !strings.Contains(text(doc), "room-1") || !strings.Contains(text(doc), "ada, reader") {
		t.Errorf("the page says %q", text(doc))
	}
	w.pass(8 * 24 * time.Hour)
	gone("a session that has ended")
	for _, path := range []string{"/alerts/x/silence", "/channels/x/test"} {
		if rec := b.ask("POST", path, url.Values{}); rec.Code != 401 {
			t.Errorf("%s: %d, want 401", path, rec.Code)
		}
	}
	r := httptest.NewRequest("GET", at+"/", nil)
	r.Header.Set("Authorization", "Bearer wrong")
	rec := httptest.NewRecorder()
	w.table.ServeHTTP(rec, r)
	if rec.Code != 401 || !strings.Contains(rec.Body.String(), "AuthenticationFailed") {
		t.Errorf("a wrong token: %d %s", rec.Code, rec.Body)
	}
}

// Who may see one group sees its nodes, its certificates and its alerts, and
// counts only them.
func TestTheOverviewKeepsToScopes(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		w.fleetOf(fleet.State{
			Ready: true, Issues: []fleet.Issue{{Type: "integrity", Text: "1 chunk was rotten", Fix: "Look at the disk."}},
			Certificates: []fleet.Certificate{{File: "a.crt", Active: true, Names: []string{"cache.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(300 * 24 * time.Hour)}},
		}, roster.Spec{Site: "site"}, map[string]string{"schools": "room-1", "offices": "desk-1", "schools2": "hall-1"})
		group := func(names ...string) (scopes []string) {
			for _, n := range names {
				scopes = append(scopes, access.GroupScope("s", n))
			}
			return scopes
		}
		for name, c := range map[string]struct {
			user access.NewUser
			sees []string // sorted
			acts bool
		}{
			"owner":     {access.NewUser{Role: access.Owner}, []string{"desk-1", "hall-1", "room-1"}, true},
			"reader":    {access.NewUser{Role: access.Reader, Scopes: group("schools")}, []string{"room-1"}, false},
			"operator":  {access.NewUser{Role: access.Operator, Scopes: group("offices", "schools2")}, []string{"desk-1", "hall-1"}, true},
			"whole":     {access.NewUser{Role: access.Reader, Scopes: []string{access.SubscriptionScope("s")}}, []string{"desk-1", "hall-1", "room-1"}, false},
			"elsewhere": {access.NewUser{Role: access.Operator, Scopes: group("school")}, nil, true},
		} {
			c.user.Name = name
			w.user(c.user)
			doc := page(t, w.browser().signIn(name).ask("GET", "/", nil), 200)
			rows := map[string][]string{}
			for _, s := range all(doc, "section") {
				for _, body := range all(s, "tbody") {
					for _, row := range all(body, "tr") {
						rows[attr(s, "aria-labelledby")] = append(rows[attr(s, "aria-labelledby")], text(all(row, "th")[0]))
					}
				}
			}
			for _, of := range []string{"nodes", "certs"} {
				slices.Sort(rows[of])
				if !slices.Equal(rows[of], c.sees) {
					t.Errorf("%s sees the %s of %q, want %q", name, of, rows[of], c.sees)
				}
			}
			for _, n := range []string{"room-1", "desk-1", "hall-1"} {
				if sees := slices.Contains(c.sees, n); strings.Contains(text(doc), n) != sees {
					t.Errorf("%s: the page has %s: %t, want %t", name, n, !sees, sees)
				}
			}
			if len(rows["attention"]) > 0 != (len(c.sees) > 0) {
				t.Errorf("%s sees the alerts %q", name, rows["attention"])
			}
			counts := text(all(doc, "ul")[0])
			if n := len(c.sees); strings.Contains(counts, fmt.Sprintf("%d Degraded", n)) != (n > 0) {
				t.Errorf("%s counts %q", name, counts)
			}
			if got := len(all(all(doc, "main")[0], "button")) > 0; got != (c.acts && len(c.sees) > 0) {
				t.Errorf("%s has buttons: %t", name, got)
			}
		}
	})
}

// Nobody silences what they do not see.
func TestSilencesKeepToScopes(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := newWorld(t, d)
		w.fleetOf(fleet.State{Ready: true, Issues: []fleet.Issue{{Type: "integrity", Text: "rotten"}}}, roster.Spec{}, map[string]string{"schools": "room-1"})
		w.user(access.NewUser{Name: "here", Role: access.Operator, Scopes: []string{access.GroupScope("s", "schools")}})
		w.user(access.NewUser{Name: "there", Role: access.Operator, Scopes: []string{access.GroupScope("s", "offices")}})
		w.user(access.NewUser{Name: "reader", Role: access.Reader})
		found, err := w.alerts.List(t.Context(), local, alert.Filter{}, 10)
		if err != nil || len(found) != 1 {
			t.Fatalf("%d alerts, %v", len(found), err)
		}
		path := "/alerts/" + found[0].ID + "/silence"
		for name, want := range map[string]int{"there": 404, "reader": 403} {
			if rec := w.browser().signIn(name).ask("POST", path, url.Values{}); rec.Code != want {
				t.Errorf("%s: %d %s, want %d", name, rec.Code, rec.Body, want)
			}
		}
		here := w.browser().signIn("here")
		if doc := page(t, here.ask("GET", "/", nil), 200); !strings.Contains(text(doc), "Rotten bytes were found at room-1") {
			t.Errorf("it was silenced: %q", text(doc))
		}
		if rec := here.ask("GET", path, nil); rec.Code != 405 {
			t.Errorf("a link silences: %d", rec.Code)
		}
		if rec := here.ask("POST", path, url.Values{}); rec.Code != 303 || rec.Header().Get("Location") != "/#attention" {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
		if doc := page(t, here.ask("GET", "/", nil), 200); strings.Contains(text(doc), "Rotten bytes") || !strings.Contains(text(doc), "1 more is silenced.") {
			t.Errorf("it was not silenced: %q", text(doc))
		}
	})
}

// What nodes and people call things is text wherever it is shown.
func TestNamesAreText(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.SQLite(t))
	mean := func(of string) string {
		return of + `<script>alert("` + of + `")</script><img src=x onerror=alert(1)>" onmouseover="x' style='y`
	}
	w.fleetOf(fleet.State{
		Ready: true, System: fleet.System{Version: mean("version")},
		Issues:       []fleet.Issue{{Type: "integrity", Text: mean("reason"), Fix: mean("fix")}},
		Drives:       []fleet.DriveState{{Path: mean("drive"), State: "failed", Error: mean("failure")}},
		Certificates: []fleet.Certificate{{File: mean("file"), Active: true, Severity: "error", Names: []string{mean("subject")}, Action: mean("action"), NotAfter: time.Now().Add(time.Hour)}},
	}, roster.Spec{Site: mean("site")}, map[string]string{"a": mean("node")})
	_, err := w.d.ExecContext(t.Context(), `INSERT INTO alerts (id, rule, subject, state, severity, step, title, reason, fix, members, first_seen, last_seen) VALUES ($1, 'x', 'x', 'firing', 3, 0, $2, $3, $4, '[]', 0, 0)`,
		"00000000-0000-0000-0000-000000000001", mean("title"), mean("why"), mean("remedy"))
	if err != nil {
		t.Fatal(err)
	}
	w.user(access.NewUser{Name: "ada", Role: access.Owner})
	doc := page(t, w.browser().signIn("ada").ask("GET", "/", nil), 200)
	read := text(doc)
	for _, of := range []string{"node", "site", "version", "reason", "fix", "drive", "failure", "subject", "action", "title", "why", "remedy"} {
		if want := strings.Join(strings.Fields(mean(of)), " "); !strings.Contains(read, want) {
			t.Errorf("the page does not say %s as it is", of)
		}
	}
	labelled := slices.ContainsFunc(all(doc, "button"), func(n *html.Node) bool { return attr(n, "aria-label") == "Silence for a day: "+mean("title") })
	if !labelled {
		t.Error("no button has the alert's title as it is")
	}
}

// What is wrong with the organisation's sign-in is said in the form, which still
// takes local accounts.
func TestOrganisationSignIn(t *testing.T) {
	t.Parallel()
	away := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "db01.example: connection refused", http.StatusServiceUnavailable)
	}))
	t.Cleanup(away.Close)
	w := newWorld(t, dbtest.SQLite(t), func(o *access.Options) {
		o.OIDC = &access.OIDC{Issuer: away.URL, ClientID: "larder", ClientSecret: "the-client-secret", RoleClaim: "groups", Client: away.Client()}
	})
	w.user(access.NewUser{Name: "ada", Role: access.Owner})
	doc := page(t, w.browser().ask("GET", "/sign-in", nil), 200)
	if links := all(doc, "a"); len(links) != 1 || attr(links[0], "href") != "/sign-in/organisation" {
		t.Error("no link leads to the organisation's sign-in")
	}
	for _, path := range []string{"/sign-in/organisation", "/sign-in/callback?code=x&state=y", "/sign-in/callback?error=" + url.QueryEscape("<script>")} {
		b := w.browser()
		rec := b.ask("GET", path, nil)
		doc := page(t, rec, 502)
		if !strings.Contains(said(doc), "cannot be reached") || input(doc, "password") == nil || len(all(doc, "a")) != 1 {
			t.Errorf("%s: the page says %q", path, text(doc))
		}
		for _, inside := range []string{"db01", "127.0.0.1", "the-client-secret", "oidc:", "<script"} {
			if strings.Contains(rec.Body.String(), inside) {
				t.Errorf("%s: the page has %q", path, inside)
			}
		}
		if log := w.log.String(); !strings.Contains(log, "503") || !strings.Contains(log, "192.0.2.1") || strings.Contains(log, "the-client-secret") {
			t.Errorf("%s: the log has %q", path, log)
		}
		w.log.Reset()
		b.signIn("ada")
	}
	// Without a provider there is no link, and nothing behind it.
	none := newWorld(t, dbtest.SQLite(t))
	for _, path := range []string{"/sign-in/organisation", "/sign-in/callback?code=x&state=y"} {
		if doc := page(t, none.browser().ask("GET", path, nil), 404); len(all(doc, "a")) != 0 {
			t.Errorf("%s: there is a link", path)
		}
	}
}

// The audit says who was refused, once the provider has said who it is; what
// anybody could send writes nothing down.
func TestRefusedSignInsAreWrittenDown(t *testing.T) {
	t.Parallel()
	p := issuer.New(t, at)
	w := newWorld(t, dbtest.SQLite(t), func(o *access.Options) {
		o.OIDC = &access.OIDC{Issuer: p.URL, ClientID: issuer.ClientID, ClientSecret: issuer.Secret, RoleClaim: "groups", Roles: map[string]access.Role{"Cache admins": access.Owner}, Client: p.Client()}
	})
	written := func() (all []string) {
		t.Helper()
		entries, err := w.access.Audit(t.Context(), access.AuditFilter{}, 100)
		for _, e := range slices.Backward(entries) {
			if e.Action == "user.sign-in" {
				all = append(all, strings.TrimSpace(e.Target+" "+e.Outcome))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	through := func(want int) {
		t.Helper()
		b := w.browser()
		code, state := p.Authorize(b.ask("GET", "/sign-in/organisation", nil).Header().Get("Location"))
		if rec := b.ask("GET", "/sign-in/callback?"+url.Values{"code": {code}, "state": {state}}.Encode(), nil); rec.Code != want {
			t.Errorf("got %d, want %d: %s", rec.Code, want, rec.Body)
		}
	}
	through(303)
	p.With(func() { p.Claims["groups"] = "Others" })
	through(403)
	p.With(func() { p.Change = func(c map[string]any) { c["nonce"] = "another" } })
	through(401)
	if log := w.log.String(); !strings.Contains(log, "another nonce") {
		t.Errorf("the log has %q", log)
	}
	for range 3 {
		w.browser().ask("GET", "/sign-in/callback?code=x&state=y", nil)
	}
	if got, want := written(), []string{"user ada done", "user ada refused"}; !slices.Equal(got, want) {
		t.Errorf("the audit has %q, want %q", got, want)
	}
	// Wrong passwords are written down, and waiting for the next try is not.
	w.user(access.NewUser{Name: "grace", Role: access.Reader})
	for range 30 {
		w.browser().ask("POST", "/sign-in", url.Values{"name": {"grace"}, "password": {"wrong"}})
	}
	if got := written(); len(got) != 2+5 {
		t.Errorf("30 tries in a moment wrote %d entries, want 5: %q", len(got)-2, got)
	}
}
