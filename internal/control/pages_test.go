package control

import (
	"database/sql"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"larder/internal/control/access"
)

// browser keeps cookies and asks for pages as a person does.
type browser struct {
	*caller
	cookies map[string]*http.Cookie
}

func (b *browser) ask(method, path string, form url.Values, fields ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	r := httptest.NewRequest(method, "https://control.example"+path, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for _, f := range fields {
		k, v, _ := strings.Cut(f, ": ")
		r.Header.Set(k, v)
	}
	for _, c := range b.cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	b.handler().ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		b.cookies[c.Name] = c
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	return w
}

var inline = regexp.MustCompile(`(?i)<script|<style|\son[a-z]+=|\sstyle=|javascript:`)

// page is a page that must be there, and hold to the policy it is sent with.
func (b *browser) page(path string, want int) string {
	b.t.Helper()
	w := b.ask("GET", path, nil)
	text := w.Body.String()
	if w.Code != want {
		b.t.Fatalf("%s: %d %s", path, w.Code, text)
	}
	if found := inline.FindString(text); found != "" {
		b.t.Errorf("%s has %q, which the policy forbids", path, found)
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		b.t.Errorf("%s: the policy is %q", path, csp)
	}
	if want == 200 && (!strings.Contains(text, `<html lang="en">`) || strings.Count(text, "<h1") != 1) {
		b.t.Errorf("%s has no language, or not one h1", path)
	}
	return text
}

const phrase = "correct horse battery"

// The first owner comes by the link that is good once; people sign in and out.
func TestPeopleComeIn(t *testing.T) {
	t.Parallel()
	c := &caller{Control: open(t), t: t} // with a token of an owner's there is no first one
	b := &browser{c, map[string]*http.Cookie{}}
	if w := b.ask("GET", "/", nil); w.Code != 303 || w.Header().Get("Location") != "/sign-in" {
		t.Errorf("a stranger gets %d %s", w.Code, w.Header().Get("Location"))
	}
	link, err := c.FirstLink(t.Context())
	if err != nil || link == "" {
		t.Fatalf("the link is %q, %v", link, err)
	}
	_, code, _ := strings.Cut(link, "code=")
	if text := b.page(link, 200); !strings.Contains(text, code) {
		t.Error("the form does not hold the code")
	}
	if w := b.ask("POST", "/first", url.Values{"code": {code}, "name": {"olga"}, "password": {"short"}}); w.Code != 400 || !strings.Contains(w.Body.String(), "olga") {
		t.Errorf("a short password: %d %s", w.Code, w.Body)
	}
	if w := b.ask("POST", "/first", url.Values{"code": {code + "x"}, "name": {"eve"}, "password": {phrase}}); w.Code < 400 {
		t.Errorf("another code: %d", w.Code)
	}
	if w := b.ask("POST", "/first", url.Values{"code": {code}, "name": {"olga"}, "password": {phrase}}, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"); w.Code != 403 {
		t.Errorf("from another site: %d", w.Code)
	}
	if w := b.ask("POST", "/first", url.Values{"code": {code}, "name": {"olga"}, "password": {phrase}}); w.Code != 303 {
		t.Fatalf("the first owner: %d %s", w.Code, w.Body)
	}
	if text := b.page("/", 200); !strings.Contains(text, "olga, owner") {
		t.Error("the page does not say who it is")
	}
	if w := b.ask("POST", "/first", url.Values{"code": {code}, "name": {"eve"}, "password": {phrase}}); w.Code < 400 {
		t.Errorf("the link a second time: %d", w.Code)
	}
	if w := b.ask("POST", "/sign-out", url.Values{}); w.Code != 303 || len(b.cookies) != 0 {
		t.Errorf("signing out: %d, %v", w.Code, b.cookies)
	}
	b.page("/sign-in", 200)
	w := b.ask("POST", "/sign-in", url.Values{"name": {`"><script>x`}, "password": {"wrong"}})
	if w.Code != 401 || inline.MatchString(w.Body.String()) || !strings.Contains(w.Body.String(), "&lt;script&gt;") {
		t.Errorf("a wrong password: %d %s", w.Code, w.Body)
	}
	if w := b.ask("POST", "/sign-in", url.Values{"name": {"Olga"}, "password": {phrase}}); w.Code != 303 {
		t.Errorf("signing in: %d %s", w.Code, w.Body)
	}
	b.page("/", 200)
}

// The overview shows what one may see and nothing else, and takes names for what
// they are.
func TestTheOverview(t *testing.T) {
	t.Parallel()
	c := calling(t)
	c.resources(newest)
	c.reported()
	other := strings.NewReplacer("schools", "offices", "north", "south", "room-1", "desk-1")
	if w := c.do("PUT", other.Replace(groupAt)+"?api-version=2022-09-01", `{"location":"l"}`); w.Code != 201 {
		t.Fatal(w.Body)
	}
	c.settle(c.do("PUT", other.Replace(customerAt)+newest, `{"location":"l"}`))
	c.settle(c.do("PUT", other.Replace(nodeAt)+newest, `{"location":"l"}`))
	if _, err := c.d.ExecContext(t.Context(), `UPDATE nodes SET settings = '{"site":"<script>alert(1)</script>"}' WHERE name = 'room-1'`); err != nil {
		t.Fatal(err)
	}
	if err := c.watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	people := map[string]*browser{}
	for name, u := range map[string]access.NewUser{
		"owner": {Role: access.Owner}, "operator": {Role: access.Operator, Scopes: []string{access.GroupScope(c.subscription, "schools")}}, "reader": {Role: access.Reader, Scopes: []string{access.GroupScope(c.subscription, "offices")}},
	} {
		u.Name, u.Password = name, phrase
		err := c.d.Tx(t.Context(), func(tx *sql.Tx) error {
			_, err := c.Control.access.CreateUser(t.Context(), tx, u, &access.Principal{Kind: access.Local, Name: "test", Role: access.Owner, Scopes: []string{"/"}})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		b := &browser{c, map[string]*http.Cookie{}}
		if w := b.ask("POST", "/sign-in", url.Values{"name": {name}, "password": {phrase}}); w.Code != 303 {
			t.Fatalf("%s: %d %s", name, w.Code, w.Body)
		}
		people[name] = b
	}
	for name, c := range map[string]struct{ has, lacks []string }{
		"owner":    {[]string{"room-1", "desk-1", "Rotten bytes were found at room-1", "Silence for a day", "Where people are told", "Not configured", "cache.school.example", "&lt;script&gt;alert(1)"}, nil},
		"operator": {[]string{"room-1", "Rotten bytes", "Silence for a day"}, []string{"desk-1", "Where people are told"}},
		"reader":   {[]string{"desk-1", "Nothing."}, []string{"room-1", "Rotten", "Silence for a day", "cache.school.example", "Where people are told"}},
	} {
		text := people[name].page("/", 200)
		for _, want := range c.has {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not see %q", name, want)
			}
		}
		for _, not := range c.lacks {
			if strings.Contains(text, not) {
				t.Errorf("%s sees %q", name, not)
			}
		}
	}
	id := regexp.MustCompile(`/alerts/([0-9a-f-]{36})/silence`).FindStringSubmatch(people["owner"].page("/", 200))
	if id == nil {
		t.Fatal("no alert can be silenced")
	}
	silence := "/alerts/" + id[1] + "/silence"
	if w := people["reader"].ask("POST", silence, url.Values{}); w.Code != 403 {
		t.Errorf("a reader silences: %d", w.Code)
	}
	if w := people["operator"].ask("POST", silence, url.Values{}, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"); w.Code != 403 {
		t.Errorf("another site silences: %d", w.Code)
	}
	if w := people["operator"].ask("POST", silence, url.Values{}); w.Code != 303 {
		t.Fatalf("an operator silences: %d %s", w.Code, w.Body)
	}
	if text := people["operator"].page("/", 200); strings.Contains(text, "Rotten") || !strings.Contains(text, "1 more is silenced") {
		t.Error("the alert is not silenced")
	}
	if err := c.watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := people["owner"].page("/", 200); !strings.Contains(text, "1 more is silenced") {
		t.Error("the silence does not last")
	}
	// A channel's button says how it went.
	w := c.do("POST", "/api/larder/v1/alerts/channels", `{"name":"pager","kind":"webhook","webhook":{"url":"https://127.0.0.1:1/secret"}}`)
	ch := regexp.MustCompile(`"id":"([0-9a-f-]{36})"`).FindStringSubmatch(w.Body.String())
	if w.Code != 201 || ch == nil {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := people["operator"].ask("POST", "/channels/"+ch[1]+"/test", url.Values{}); w.Code != 403 {
		t.Errorf("an operator tests a channel: %d", w.Code)
	}
	if w := people["owner"].ask("POST", "/channels/"+ch[1]+"/test", url.Values{}); w.Code != 303 {
		t.Errorf("an owner tests a channel: %d %s", w.Code, w.Body)
	}
	if text := people["owner"].page("/", 200); !strings.Contains(text, "pager") || !strings.Contains(text, "refused") || strings.Contains(text, "secret") {
		t.Error("the page does not say how the test went")
	}
	// What was done is in the audit.
	audit := c.do("GET", "/api/larder/v1/audit", "").Body.String()
	for _, want := range []string{"silence.create", "channel.create", "channel.test", "user.sign-in"} {
		if !strings.Contains(audit, want) {
			t.Errorf("the audit lacks %s", want)
		}
	}
	if strings.Contains(audit, "127.0.0.1:1/secret") {
		t.Error("the audit has a secret")
	}
}
