package route

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"larder/internal/control/access"
)

// echo answers with the route's name and what the path's names stand for.
func echo(name string, values ...string) func(w http.ResponseWriter, r *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		parts := []string{name}
		for _, v := range values {
			parts = append(parts, v+"="+r.PathValue(v))
		}
		_, err := w.Write([]byte(strings.Join(parts, " ")))
		return err
	}
}

type body struct {
	Name  string   `json:"name"`
	Count int      `json:"count"`
	Words []string `json:"words"`
}

func reads(strict bool) func(w http.ResponseWriter, r *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var b body
		if err := ReadJSON(w, r, &b, strict); err != nil {
			return err
		}
		return JSON(w, http.StatusOK, b)
	}
}

var table = []Route{
	{Method: "GET", Path: "/", Name: "Root", Handle: echo("Root")},
	{Method: "GET", Path: "/things", Name: "List", Handle: echo("List")},
	{Method: "POST", Path: "/things", Name: "Create", Handle: reads(true)},
	{Method: "PUT", Path: "/things", Name: "Lenient", Handle: reads(false)},
	{Method: "GET", Path: "/things/special", Name: "Special", Handle: echo("Special")},
	{Method: "GET", Path: "/things/{thingId}", Name: "Get", Handle: echo("Get", "thingId")},
	{Method: "GET", Path: "/things/{thingId}/parts/{partId}", Name: "Part", Handle: echo("Part", "thingId", "partId")},
	{Method: "GET", Path: "/files/{rest...}", Name: "Files", Handle: echo("Files", "rest")},
	{Method: "GET", Path: "/broken", Name: "Broken", Handle: func(http.ResponseWriter, *http.Request) error { return errors.New("db01.example: secret") }},
	{Method: "GET", Path: "/panic", Name: "Panic", Handle: func(http.ResponseWriter, *http.Request) error { panic("secret") }},
	{Method: "GET", Path: "/invalid", Name: "Invalid", Handle: func(http.ResponseWriter, *http.Request) error {
		e := Invalid("a.b", "found %q, expected c", "x")
		e.Details = []Detail{{"InvalidParameter", "a.b: wrong", "a.b"}, {"InvalidParameter", "a.c: wrong", "a.c"}}
		return e
	}},
	{Method: "GET", Path: "/groups/{subscriptionId}/{resourceGroupName}", Name: "Group", Needs: access.Read, Handle: echo("Group")},
	{Method: "GET", Path: "/all", Name: "All", Needs: access.Read, Handle: echo("All")},
	{Method: "GET", Path: "/mine", Name: "Mine", Needs: access.Read, Filtered: true, Handle: echo("Mine")},
	{Method: "POST", Path: "/mine", Name: "Change", Needs: access.Operate, Filtered: true, Handle: echo("Change")},
}

func newTable(t testing.TB, caller *access.Principal, err error) *Table {
	t.Helper()
	routes := slices.Clone(table)
	for i := range routes {
		if routes[i].Needs == "" {
			routes[i].Needs = access.Public
		}
	}
	tb, terr := New(nil, func(r *http.Request) (*http.Request, error) {
		if caller == nil {
			return r, err
		}
		return r.WithContext(access.With(r.Context(), caller)), err
	}, routes...)
	if terr != nil {
		t.Fatal(terr)
	}
	tb.Challenge = func(*http.Request) string { return "Bearer x" }
	return tb
}

func ask(tb http.Handler, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	tb.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w
}

func TestPathsAreFound(t *testing.T) {
	t.Parallel()
	tb := newTable(t, nil, nil)
	for ask0, want := range map[string]string{
		"GET /": "Root", "GET /things": "List", "GET /Things/": "List", "GET /THINGS/SPECIAL": "Special", "GET /things/Special2": "Get thingId=Special2",
		"GET /things/a%2Fb": "Get thingId=a/b", "GET /things/a%20b": "Get thingId=a b", "GET /things/x/PARTS/y": "Part thingId=x partId=y",
		"GET /things/special/parts/y": "Part thingId=special partId=y", "GET /files/a/b/C": "Files rest=a/b/C", "GET /files/a%2Fb": "Files rest=a/b",
	} {
		method, path, _ := strings.Cut(ask0, " ")
		if w := ask(tb, method, path, ""); w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: %d %s, want %s", ask0, w.Code, w.Body, want)
		}
	}
	for ask0, want := range map[string]int{
		"GET /nothing": 404, "GET /things/a/parts": 404, "GET /things//parts/x": 404, "GET /things/a/parts/b/c": 404, "DELETE /things": 405, "PATCH /things/x": 405, "HEAD /things": 200, "HEAD /nothing": 404, "HEAD /mine": 401,
	} {
		method, path, _ := strings.Cut(ask0, " ")
		w := ask(tb, method, path, "")
		if w.Code != want {
			t.Errorf("%s: %d %s, want %d", ask0, w.Code, w.Body, want)
		}
		if want == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%s: no Allow", ask0)
		}
	}
	if got := ask(tb, "DELETE", "/things", "").Header().Get("Allow"); got != "GET, POST, PUT" {
		t.Errorf("Allow is %q", got)
	}
}

func TestErrorsAreInTheEnvelope(t *testing.T) {
	t.Parallel()
	tb := newTable(t, nil, nil)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		code, target, says string
	}{
		"details":          {"GET", "/invalid", "", 400, "InvalidParameter", "a.b", `found "x", expected c`},
		"nothing":          {"POST", "/things", "", 400, "InvalidRequestContent", "", "empty"},
		"two documents":    {"POST", "/things", "{} {}", 400, "InvalidRequestContent", "", "more than one"},
		"an unknown field": {"POST", "/things", `{"nam":"x"}`, 400, "InvalidRequestContent", "", "nam"},
		"a wrong type":     {"POST", "/things", `{"count":"x"}`, 400, "InvalidRequestContent", "count", "found a JSON string, expected a whole number"},
		"a fraction":       {"POST", "/things", `{"count":1.5}`, 400, "InvalidRequestContent", "count", "a whole number"},
		"not a list":       {"POST", "/things", `{"words":{}}`, 400, "InvalidRequestContent", "words", "an array"},
		"half":             {"POST", "/things", `{"name":`, 400, "InvalidRequestContent", "", "not the JSON expected"},
		"too much":         {"POST", "/things", `{"name":"` + strings.Repeat("x", MaxBody) + `"}`, 413, "RequestBodyTooLarge", "", "1048576"},
		"nothing there":    {"GET", "/nothing", "", 404, "NotFound", "", "/nothing"},
		"who is it":        {"GET", "/all", "", 401, "AuthenticationFailed", "", "Sign in"},
	} {
		w := ask(tb, c.method, c.path, c.body)
		var e Envelope
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
			t.Errorf("%s: %v in %s", name, err, w.Body)
			continue
		}
		if w.Code != c.status || e.Error.Code != c.code || e.Error.Target != c.target || !strings.Contains(e.Error.Message, c.says) || w.Header().Get("X-Ms-Error-Code") != c.code {
			t.Errorf("%s: %d %+v", name, w.Code, e.Error)
		}
		if got := w.Header().Get("Www-Authenticate"); (got != "") != (w.Code == 401) {
			t.Errorf("%s: WWW-Authenticate is %q", name, got)
		}
	}
	for _, path := range []string{"/broken", "/panic"} {
		if w := ask(tb, "GET", path, ""); w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := ask(tb, "PUT", "/things", `{"name":"a","more":1}`); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"name":"a","count":0,"words":null}` || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("a field of a version to come: %d %s", w.Code, w.Body)
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	group := access.GroupScope("s", "g")
	for name, c := range map[string]struct {
		caller *access.Principal
		want   map[string]int
	}{
		"nobody":              {nil, map[string]int{"GET /all": 401, "GET /mine": 401, "GET /groups/s/g": 401, "GET /things": 200}},
		"a reader of all":     {&access.Principal{Role: access.Reader, Scopes: []string{"/"}}, map[string]int{"GET /all": 200, "GET /mine": 200, "POST /mine": 403, "GET /groups/S/G": 200}},
		"a reader of a group": {&access.Principal{Role: access.Reader, Scopes: []string{group}}, map[string]int{"GET /all": 403, "GET /mine": 200, "POST /mine": 403, "GET /groups/S/G": 200, "GET /groups/s/g2": 403, "GET /groups/s%2Fresourcegroups%2Fg/x": 403}},
		"a node":              {&access.Principal{Role: access.NodeRole}, map[string]int{"GET /all": 403, "GET /mine": 403, "GET /groups/s/g": 403}},
	} {
		tb := newTable(t, c.caller, nil)
		for ask0, want := range c.want {
			method, path, _ := strings.Cut(ask0, " ")
			if w := ask(tb, method, path, ""); w.Code != want {
				t.Errorf("%s, %s: %d %s, want %d", name, ask0, w.Code, w.Body, want)
			}
		}
	}
	refused := newTable(t, nil, &Error{Status: 401, Code: "Expired", Message: "It has expired."})
	if w := ask(refused, "GET", "/all", ""); w.Code != 401 || !strings.Contains(w.Body.String(), "Expired") || w.Header().Get("Www-Authenticate") != "Bearer x" {
		t.Errorf("who claims wrongly to be somebody: %d %s", w.Code, w.Body)
	}
}

func TestTablesAreWhole(t *testing.T) {
	t.Parallel()
	ok := Route{Method: "GET", Path: "/a/{b}", Name: "A", Needs: access.Public, Handle: echo("A")}
	with := func(f func(r *Route)) []Route {
		other := ok
		other.Name = "B"
		f(&other)
		return []Route{ok, other}
	}
	for name, rs := range map[string][]Route{
		"twice the same":         with(func(r *Route) {}),
		"the same in other case": with(func(r *Route) { r.Path = "/A/{c}" }),
		"two of one name":        with(func(r *Route) { r.Path, r.Name = "/b", "A" }),
		"without a handler":      with(func(r *Route) { r.Path, r.Handle = "/b", nil }),
		"without a name":         with(func(r *Route) { r.Path, r.Name = "/b", "" }),
		"without what it needs":  with(func(r *Route) { r.Path, r.Needs = "/b", "" }),
		"with a need of its own": with(func(r *Route) { r.Path, r.Needs = "/b", "everything" }),
	} {
		if _, err := New(nil, nil, rs...); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// No path breaks the table, and a value is never more than a segment of what was
// sent.
func FuzzPaths(f *testing.F) {
	for _, p := range []string{"/", "/things/a%2Fb", "/things//", "//", "/files/%2e%2e/x", "/things/x/parts/y", "/groups/a/b"} {
		f.Add("GET", p)
	}
	tb := newTable(f, &access.Principal{Role: access.Reader, Scopes: []string{access.GroupScope("a", "b")}}, nil)
	f.Fuzz(func(t *testing.T, method, path string) {
		r, err := http.NewRequest(method, "https://x"+path, nil)
		if err != nil || !strings.HasPrefix(path, "/") {
			return
		}
		w := httptest.NewRecorder()
		tb.ServeHTTP(w, r)
		if w.Code < 200 || w.Code > 499 && w.Code != 500 {
			t.Fatalf("%s %s: %d", method, path, w.Code)
		}
		if name, value, ok := strings.Cut(w.Body.String(), " thingId="); ok && w.Code == 200 && name == "Get" {
			sent := strings.Split(strings.TrimSuffix(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/"), "/")
			if got, err := unescape(sent[1]); err != nil || got != value {
				t.Fatalf("%s: the value is %q, sent was %q", path, value, sent)
			}
		}
		if w.Body.String() == "Group" && !strings.EqualFold(strings.TrimSuffix(r.URL.Path, "/"), "/groups/a/b") {
			t.Fatalf("%s was taken for the caller's group", path)
		}
	})
}

func TestDescription(t *testing.T) {
	t.Parallel()
	routes := []Route{{Method: "PUT", Path: "/api/x/{id}", Name: "Put", Does: "Put it", Needs: access.Operate, Body: body{}, Answer: body{}, Status: 201, Query: []Query{{Name: "q", Type: "integer", Required: true}}}}
	text, err := OpenAPI(routes, "T", "1", "/api/")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Parameters  []struct {
				Name, In string
				Required bool
			}
			Responses map[string]any
		}
		Components struct {
			Schemas map[string]struct{ Required []string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	op := d.Paths["/api/x/{id}"]["put"]
	if !strings.HasPrefix(d.OpenAPI, "3.1") || op.OperationID != "Put" || len(op.Parameters) != 2 || !op.Parameters[0].Required || op.Responses["201"] == nil || op.Responses["default"] == nil {
		t.Errorf("got %s", text)
	}
	if _, ok := d.Components.Schemas["body"]; !ok {
		t.Error(fmt.Sprint("no schema of the body in ", d.Components))
	}
}
