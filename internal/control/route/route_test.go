package route

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"larder/internal/control/access"
	"larder/internal/httpsrv"
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

type deep struct {
	Properties struct {
		CacheNode struct {
			Enabled bool    `json:"enabled"`
			Ratio   float64 `json:"ratio"`
			Drives  []struct {
				Path string `json:"path"`
			} `json:"drives"`
		} `json:"cacheNode"`
	} `json:"properties"`
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
	{Method: "GET", Path: "/files/index", Name: "Index", Handle: echo("Index")},
	{Method: "GET", Path: "/files/index/{id}", Name: "IndexOf", Handle: echo("IndexOf", "id")},
	{Method: "HEAD", Path: "/files/index", Name: "IndexHead", Handle: func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("X-Own", "head")
		return nil
	}},
	{Method: "POST", Path: "/deep", Name: "Deep", Handle: func(w http.ResponseWriter, r *http.Request) error {
		var v deep
		return ReadJSON(w, r, &v, false)
	}},
	{Method: "GET", Path: "/other", Name: "Other", Handle: func(http.ResponseWriter, *http.Request) error {
		return fmt.Errorf("asking: %w", &httpsrv.Error{Status: 409, Message: "It is busy.", Err: errors.New("secret")})
	}},
	{Method: "GET", Path: "/away", Name: "Away", Handle: func(http.ResponseWriter, *http.Request) error {
		return &Error{Status: 503, Code: "NotReady", Message: "The database does not answer.", Err: errors.New("db01.example: secret")}
	}},
	{Method: "GET", Path: "/half", Name: "Half", Handle: func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(200)
		if _, err := w.Write([]byte("half")); err != nil {
			return err
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		return Invalid("x", "too late")
	}},
	{Method: "GET", Path: "/broken", Name: "Broken", Handle: func(http.ResponseWriter, *http.Request) error { return errors.New("db01.example: secret") }},
	{Method: "GET", Path: "/panic", Name: "Panic", Handle: func(http.ResponseWriter, *http.Request) error { panic("secret") }},
	{Method: "GET", Path: "/invalid", Name: "Invalid", Handle: func(http.ResponseWriter, *http.Request) error {
		e := Invalid("a.b", "found %q, expected c", "x")
		e.Details = []Detail{{"InvalidParameter", "a.b: wrong", "a.b"}, {"InvalidParameter", "a.c: wrong", "a.c"}}
		return e
	}},
	{Method: "GET", Path: "/groups/{subscriptionId}/{resourceGroupName}", Name: "Group", Needs: access.Read, Handle: echo("Group")},
	{Method: "GET", Path: "/of/{subscriptionId}", Name: "Subscription", Needs: access.Read, Handle: echo("Subscription")},
	{Method: "GET", Path: "/node/{id}", Name: "Node", Needs: access.Read, Handle: echo("Node", "id"), Scope: func(r *http.Request) (string, error) {
		if r.PathValue("id") == "gone" {
			return "", NotFound("The node")
		}
		return access.GroupScope("s", r.PathValue("id")), nil
	}},
	{Method: "GET", Path: "/me", Name: "Me", Needs: access.SignedIn, Handle: func(w http.ResponseWriter, r *http.Request) error {
		return JSON(w, http.StatusOK, access.From(r.Context()).Name)
	}},
	{Method: "POST", Path: "/owned", Name: "Owned", Needs: access.Manage, Filtered: true, Handle: echo("Owned")},
	{Method: "POST", Path: "/asnode", Name: "AsNode", Needs: access.AsNode, Handle: echo("AsNode")},
	{Method: "GET", Path: "/all", Name: "All", Needs: access.Read, Handle: echo("All")},
	{Method: "GET", Path: "/mine", Name: "Mine", Needs: access.Read, Filtered: true, Handle: echo("Mine")},
	{Method: "POST", Path: "/mine", Name: "Change", Needs: access.Operate, Filtered: true, Handle: echo("Change")},
}

// public is table, with those that say nothing of it open to everybody.
func public() []Route {
	routes := slices.Clone(table)
	for i := range routes {
		if routes[i].Needs == "" {
			routes[i].Needs = access.Public
		}
	}
	return routes
}

func newTable(t testing.TB, caller *access.Principal, err error) *Table {
	t.Helper()
	tb, terr := New(nil, func(r *http.Request) (*http.Request, error) {
		if caller == nil {
			return r, err
		}
		return r.WithContext(access.With(r.Context(), caller)), err
	}, public()...)
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
		// What stands for a name keeps its case, its escapes are decoded once, and
		// dots in it are no way up.
		"GET /things/ABC": "Get thingId=ABC", "GET /things/a/": "Get thingId=a", "GET /things/a%252Fb": "Get thingId=a%2Fb", "GET /things/%2E%2E": "Get thingId=..", "GET /things/..": "Get thingId=..",
		"GET /things/a%2F": "Get thingId=a/", "GET /things/special%2Fparts": "Get thingId=special/parts", "GET /th%69ngs": "List", "GET /things/a+b?x=/y": "Get thingId=a+b", "GET /things/%C3%84": "Get thingId=\u00c4",
		// A literal segment is preferred, and left if nothing follows it.
		"GET /files/index": "Index", "GET /files/index/x": "IndexOf id=x", "GET /files/index/x/y": "Files rest=index/x/y", "GET /files/Index2": "Files rest=Index2",
		"GET /files/a/": "Files rest=a", "GET /files//a": "Files rest=/a", "GET /files/a//": "Files rest=a/",
	} {
		method, path, _ := strings.Cut(ask0, " ")
		if w := ask(tb, method, path, ""); w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: %d %s, want %s", ask0, w.Code, w.Body, want)
		}
	}
	for ask0, want := range map[string]int{
		"GET /nothing": 404, "GET /files": 404, "GET /files/": 404, "GET //things": 404, "GET /things//": 404, "GET /things%2Fspecial": 404, "POST /nothing": 404, "OPTIONS /things": 405, "HEAD /things/x": 200, "GET /things/x/parts/y/": 200,
		"GET /things/a/parts": 404, "GET /things//parts/x": 404, "GET /things/a/parts/b/c": 404, "DELETE /things": 405, "PATCH /things/x": 405, "HEAD /things": 200, "HEAD /nothing": 404, "HEAD /mine": 401,
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
		"no object":        {"POST", "/things", `"x"`, 400, "InvalidRequestContent", "", "found a JSON string, expected an object"},
		"no JSON":          {"POST", "/things", `<xml/>`, 400, "InvalidRequestContent", "", "not the JSON expected"},
		"what follows":     {"POST", "/things", `{"name":"a"}x`, 400, "InvalidRequestContent", "", ""},
		"a deep boolean":   {"POST", "/deep", `{"properties":{"cacheNode":{"enabled":"yes"}}}`, 400, "InvalidRequestContent", "properties.cacheNode.enabled", "properties.cacheNode.enabled: found a JSON string, expected true or false"},
		"a deep number":    {"POST", "/deep", `{"properties":{"cacheNode":{"ratio":"1"}}}`, 400, "InvalidRequestContent", "properties.cacheNode.ratio", "expected a number"},
		"within a list":    {"POST", "/deep", `{"properties":{"cacheNode":{"drives":[{"path":"/a"},{"path":1}]}}}`, 400, "InvalidRequestContent", "properties.cacheNode.drives.path", "found a JSON number, expected a string"},
		"a deep object":    {"POST", "/deep", `{"properties":{"cacheNode":[]}}`, 400, "InvalidRequestContent", "properties.cacheNode", "found a JSON array, expected an object"},
		"of httpsrv":       {"GET", "/other", "", 409, "Conflict", "", "It is busy."},
		"away":             {"GET", "/away", "", 503, "NotReady", "", "The database does not answer."},
		"not possible":     {"DELETE", "/things", "", 405, "MethodNotAllowed", "", "DELETE is not possible here"},
		"nothing there":    {"GET", "/nothing", "", 404, "NotFound", "", "/nothing"},
		"who is it":        {"GET", "/all", "", 401, "AuthenticationFailed", "", "Sign in"},
	} {
		w := ask(tb, c.method, c.path, c.body)
		if strings.Contains(w.Body.String(), "secret") || w.Header().Get("Content-Type") != "application/json; charset=utf-8" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v %s", name, w.Header(), w.Body)
		}
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

// All mistakes of a request are told at once, each with its field.
func TestDetailsAreOnTheWire(t *testing.T) {
	t.Parallel()
	w := ask(newTable(t, nil, nil), "GET", "/invalid", "")
	want := `{"error":{"code":"InvalidParameter","message":"a.b: found \"x\", expected c","target":"a.b","details":[` +
		`{"code":"InvalidParameter","message":"a.b: wrong","target":"a.b"},{"code":"InvalidParameter","message":"a.c: wrong","target":"a.c"}]}}` + "\n"
	if w.Body.String() != want {
		t.Errorf("got %s, want %s", w.Body, want)
	}
	// Those without details have no field for them.
	if w := ask(newTable(t, nil, nil), "GET", "/nothing", ""); strings.Contains(w.Body.String(), "details") || strings.Contains(w.Body.String(), "target") {
		t.Errorf("got %s", w.Body)
	}
}

// What a client does not read of an error, the log has.
func TestTheLogHasTheCause(t *testing.T) {
	t.Parallel()
	for path, level := range map[string]string{"/broken": "ERROR", "/panic": "ERROR", "/away": "ERROR", "/other": "DEBUG", "/nothing": "DEBUG"} {
		var b bytes.Buffer // one request writes it, and is over
		tb, err := New(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})), nil, public()...)
		if err != nil {
			t.Fatal(err)
		}
		ask(tb, "GET", path, "")
		line := b.String()
		if strings.Count(line, "\n") != 1 || !strings.Contains(line, "level="+level) || !strings.Contains(line, "path="+path) || path != "/nothing" && !strings.Contains(line, "secret") {
			t.Errorf("%s: the log is %q", path, line)
		}
	}
}

// Over a connection: HEAD is answered without a body, and an answer that broke
// off does not look whole.
func TestOverAConnection(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(newTable(t, nil, nil))
	t.Cleanup(srv.Close)
	do := func(method, path, body string) (*http.Response, string, error) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp, string(b), err
	}
	get, text, err := do("GET", "/things/a", "")
	if err != nil || text != "Get thingId=a" {
		t.Fatalf("%q, %v", text, err)
	}
	head, text, err := do("HEAD", "/things/a", "")
	if err != nil || head.StatusCode != 200 || text != "" || head.ContentLength != get.ContentLength {
		t.Errorf("HEAD: %d %q of %d bytes, %v; GET has %d", head.StatusCode, text, head.ContentLength, err, get.ContentLength)
	}
	if own, _, err := do("HEAD", "/files/index", ""); err != nil || own.StatusCode != 200 || own.Header.Get("X-Own") != "head" {
		t.Errorf("a HEAD of its own: %d %v, %v", own.StatusCode, own.Header, err)
	}
	if _, text, err := do("GET", "/half", ""); err == nil || text != "half" {
		t.Errorf("a half answer: %q, %v, want an error", text, err)
	}
	if resp, text, err := do("POST", "/things", `{"name":"`+strings.Repeat("x", 2*MaxBody)+`"}`); err != nil || resp.StatusCode != 413 || !strings.Contains(text, "RequestBodyTooLarge") {
		t.Errorf("too much: %d %q, %v", resp.StatusCode, text, err)
	}
	if resp, text, err := do("GET", "/panic", ""); err != nil || resp.StatusCode != 500 || strings.Contains(text, "secret") {
		t.Errorf("a panic: %d %q, %v", resp.StatusCode, text, err)
	}
	if resp, text, err := do("PATCH", "/things/%41", ""); err != nil || resp.StatusCode != 405 || !strings.Contains(resp.Header.Get("Allow"), "GET") || !strings.Contains(text, "MethodNotAllowed") {
		t.Errorf("another method: %d %v %q, %v", resp.StatusCode, resp.Header, text, err)
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	group := access.GroupScope("s", "g")
	for name, c := range map[string]struct {
		caller *access.Principal
		want   map[string]int
	}{
		"nobody": {nil, map[string]int{"GET /all": 401, "GET /mine": 401, "GET /groups/s/g": 401, "GET /things": 200, "GET /node/gone": 401, "GET /me": 401, "POST /asnode": 401, "POST /all": 405}},
		"a reader of all": {&access.Principal{Role: access.Reader, Scopes: []string{"/"}}, map[string]int{
			"GET /all": 200, "GET /mine": 200, "POST /mine": 403, "GET /groups/S/G": 200, "GET /of/s": 200, "GET /node/g": 200, "GET /node/gone": 404, "GET /me": 200, "POST /owned": 403, "POST /asnode": 403,
		}},
		"a reader of a subscription": {&access.Principal{Role: access.Reader, Scopes: []string{access.SubscriptionScope("s")}}, map[string]int{
			"GET /all": 403, "GET /of/S": 200, "GET /of/s2": 403, "GET /groups/s/g": 200, "GET /groups/s2/g": 403, "GET /node/g": 200,
		}},
		"a reader of a group": {&access.Principal{Role: access.Reader, Scopes: []string{group}}, map[string]int{
			"GET /all": 403, "GET /mine": 200, "POST /mine": 403, "GET /groups/S/G": 200, "GET /groups/s/g2": 403, "GET /groups/s%2Fresourcegroups%2Fg/x": 403,
			"GET /of/s": 403, "GET /of/s%2Fresourcegroups%2Fg": 403, "GET /groups/s/g%2Fx": 403, "GET /node/G": 200, "GET /node/g2": 403, "GET /node/gone": 404, "GET /me": 200, "HEAD /groups/s/g": 200, "HEAD /groups/s/g2": 403,
		}},
		"an operator of a group": {&access.Principal{Role: access.Operator, Scopes: []string{group}}, map[string]int{"GET /all": 403, "GET /mine": 200, "POST /mine": 200, "POST /owned": 403}},
		// Filtered is for what the role allows somewhere, also an owner of a part.
		"an owner of a group": {&access.Principal{Role: access.Owner, Scopes: []string{group}}, map[string]int{"POST /owned": 200, "GET /all": 403}},
		"without a scope":     {&access.Principal{Role: access.Operator}, map[string]int{"GET /all": 403, "GET /mine": 200, "GET /groups/s/g": 403}},
		"a node":              {&access.Principal{Role: access.NodeRole}, map[string]int{"GET /all": 403, "GET /mine": 403, "GET /groups/s/g": 403, "GET /me": 403, "POST /asnode": 200}},
	} {
		tb := newTable(t, c.caller, nil)
		for ask0, want := range c.want {
			method, path, _ := strings.Cut(ask0, " ")
			if w := ask(tb, method, path, ""); w.Code != want {
				t.Errorf("%s, %s: %d %s, want %d", name, ask0, w.Code, w.Body, want)
			}
		}
	}
	// A 403 says who, what and where, and asks for no other sign-in.
	reader := newTable(t, &access.Principal{Name: "ada", Role: access.Reader, Scopes: []string{group}}, nil)
	if w := ask(reader, "GET", "/groups/s/G2", ""); !strings.Contains(w.Body.String(), "ada, with the role reader, is not allowed to read in /subscriptions/s/resourcegroups/g2.") || w.Header().Get("Www-Authenticate") != "" {
		t.Errorf("got %v %s", w.Header(), w.Body)
	}
	// The guard's own troubles are no refusal.
	broken := newTable(t, nil, errors.New("db01.example: secret"))
	if w := ask(broken, "GET", "/all", ""); w.Code != 500 || strings.Contains(w.Body.String(), "secret") || w.Header().Get("Www-Authenticate") != "" {
		t.Errorf("a guard that fails: %d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := ask(broken, "GET", "/things", ""); w.Code != 200 {
		t.Errorf("what is public asks the guard: %d %s", w.Code, w.Body)
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
		"twice the same rest":     {with(func(r *Route) { r.Path = "/a/{b...}" })[1], {Method: "GET", Path: "/A/{c...}", Name: "C", Needs: access.Public, Handle: echo("C")}},
		"with a slash at the end": with(func(r *Route) { r.Path = "/a/{b}/" }),
		"twice the same":          with(func(r *Route) {}),
		"the same in other case":  with(func(r *Route) { r.Path = "/A/{c}" }),
		"two of one name":         with(func(r *Route) { r.Path, r.Name = "/b", "A" }),
		"without a handler":       with(func(r *Route) { r.Path, r.Handle = "/b", nil }),
		"without a name":          with(func(r *Route) { r.Path, r.Name = "/b", "" }),
		"without what it needs":   with(func(r *Route) { r.Path, r.Needs = "/b", "" }),
		"with a need of its own":  with(func(r *Route) { r.Path, r.Needs = "/b", "everything" }),
	} {
		if _, err := New(nil, nil, rs...); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, rs := range map[string][]Route{
		"another method":    with(func(r *Route) { r.Method = "POST" }),
		"a literal segment": with(func(r *Route) { r.Path = "/a/b" }),
		"a rest":            with(func(r *Route) { r.Path = "/a/{b...}" }),
	} {
		tb, err := New(nil, nil, rs...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := tb.Routes(); len(got) != 2 || got[0].Name != "A" || got[1].Name != "B" {
			t.Errorf("%s: the routes are %v", name, got)
		}
	}
	// The table keeps what it was given.
	rs := []Route{ok}
	tb, err := New(nil, nil, rs...)
	if err != nil {
		t.Fatal(err)
	}
	rs[0].Handle, rs[0].Needs = nil, access.Manage
	if w := ask(tb, "GET", "/a/b", ""); w.Code != 200 {
		t.Errorf("what came after changed it: %d", w.Code)
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

// slow finds a route in the dumbest way: it looks at each, and the one whose
// segments are literal the longest wins.
func slow(routes []Route, segs []string) (*Route, map[string]string) {
	var best *Route
	var values map[string]string
	bestForm := ""
	for i := range routes {
		r := &routes[i]
		parts := strings.Split(strings.Trim(r.Path, "/"), "/")
		got, form, ok := map[string]string{}, "", true
		for k, p := range parts {
			if rest, isRest := strings.CutSuffix(strings.TrimPrefix(p, "{"), "...}"); isRest && k < len(segs) {
				got[rest] = strings.Join(segs[k:], "/")
				form += "a" // comes last
				parts = segs
				break
			}
			switch {
			case k >= len(segs):
				ok = false
			case strings.HasPrefix(p, "{"):
				got[strings.Trim(p, "{}")] = segs[k]
				form += "b"
				ok = ok && segs[k] != ""
			default:
				form += "c"
				ok = ok && strings.ToLower(segs[k]) == p
			}
		}
		if ok && len(parts) == len(segs) && form > bestForm {
			best, values, bestForm = r, got, form
		}
	}
	return best, values
}

// FuzzFind compares the tree with slow: it finds the same route, with the same
// values, and each of them was sent.
func FuzzFind(f *testing.F) {
	for _, p := range []string{"/", "/things", "/things/a%2Fb/parts/c", "/things//parts/x", "/files/index/x/y", "/files/index/", "/FILES/%2e%2e//", "/files/index/%2F", "/groups/a", "//", "/things/%zz", "/mine"} {
		f.Add(p)
	}
	tb := newTable(f, nil, nil)
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI("https://x" + path)
		if err != nil || !strings.HasPrefix(path, "/") {
			return
		}
		segs, err := segments(&http.Request{URL: u})
		if err != nil {
			return
		}
		methods, values := tb.root.find(slices.Clone(segs), nil)
		want, wanted := slow(table, segs)
		if (methods == nil) != (want == nil) {
			t.Fatalf("%q: found %v, expected %v", segs, methods, want)
		}
		for _, tg := range methods {
			if !strings.EqualFold(tg.route.Path, want.Path) {
				t.Fatalf("%q: found %s, expected %s", segs, tg.route.Path, want.Path)
			}
			if len(values) != len(tg.names) {
				t.Fatalf("%q: %q for %q", segs, values, tg.names)
			}
			for i, name := range tg.names {
				if values[i] != wanted[name] {
					t.Fatalf("%q: %s is %q, expected %q", segs, name, values[i], wanted[name])
				}
				if sent, err := url.PathUnescape(u.EscapedPath()); err != nil || !strings.Contains(sent, values[i]) {
					t.Fatalf("%q: %s is %q, which was not sent", path, name, values[i])
				}
			}
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
