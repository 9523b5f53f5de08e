package control

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"larder/internal/control/access"
	"larder/internal/control/config"
	"larder/internal/control/route"
)

func open(t *testing.T) *Control {
	t.Helper()
	cfg := config.Default(func(string) string { return "" })
	cfg.State, cfg.Listen, cfg.Names = filepath.Join(t.TempDir(), "control"), "127.0.0.1:0", []string{"localhost"}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), cfg, Options{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Each route is written down in testdata/routes.txt with what it needs: a new
// one, or one that needs something else, is a change that somebody has to look at.
func TestEveryRouteIsWrittenDown(t *testing.T) {
	t.Parallel()
	var lines []string
	for _, r := range open(t).table.Routes() {
		line := fmt.Sprintf("%-9s %-6s %s", r.Needs, r.Method, r.Path)
		if r.Filtered {
			line += " (filtered)"
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	got := strings.Join(lines, "\n") + "\n"
	const file = "testdata/routes.txt"
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the routes are not those of %s; look at each that differs, then write it there. They are:\n%s", file, got)
	}
}

// may is the whole of authorisation, written a second time and in another way:
// who may do what kind of thing, by where they may.
var may = map[access.Action]map[access.Role]bool{
	access.SignedIn: {access.Owner: true, access.Operator: true, access.Reader: true},
	access.Read:     {access.Owner: true, access.Operator: true, access.Reader: true},
	access.Operate:  {access.Owner: true, access.Operator: true},
	access.Secrets:  {access.Owner: true, access.Operator: true},
	access.Manage:   {access.Owner: true},
	access.AsNode:   {access.NodeRole: true},
}

// Every route, asked by every role within every scope, answers those who may and
// nobody else.
func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	c := open(t)
	l, err := c.EnrolLocal(t.Context()) // a node in the group "local"
	if err != nil {
		t.Fatal(err)
	}
	sub := c.subscription
	scopes := map[string]string{
		"everything": access.Everything, "the subscription": access.SubscriptionScope(sub), "the group": access.GroupScope(sub, "local"),
		"another group": access.GroupScope(sub, "local2"), "another subscription": access.SubscriptionScope(sub + "0"),
	}
	// where says whether a scope holds the place that a path is about.
	where := map[string]map[string]bool{
		"everything":       {"everything": true},
		"the subscription": {"everything": true, "the subscription": true},
		"the group":        {"everything": true, "the subscription": true, "the group": true},
	}
	var caller *access.Principal
	reached := false
	routes := c.routes()
	for i := range routes {
		routes[i].Handle = func(w http.ResponseWriter, r *http.Request) error { reached = true; return nil }
	}
	table, err := route.New(nil, func(r *http.Request) (*http.Request, error) {
		if caller == nil {
			return r, nil
		}
		return r.WithContext(access.With(r.Context(), caller)), nil
	}, routes...)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, rt := range routes {
		path := strings.NewReplacer("{subscriptionId}", sub, "{resourceGroupName}", "Local", "{cacheNodeId}", strings.ToUpper(l.CacheNodeID)).Replace(rt.Path)
		for strings.Contains(path, "{") {
			i, j := strings.Index(path, "{"), strings.Index(path, "}")
			path = path[:i] + "x" + path[j+1:]
		}
		place := "everything"
		switch {
		case strings.Contains(rt.Path, "{resourceGroupName}"), strings.Contains(rt.Path, "{cacheNodeId}"):
			place = "the group"
		case strings.Contains(rt.Path, "{subscriptionId}"):
			place = "the subscription"
		}
		ask := func(who string, p *access.Principal, want bool) {
			t.Helper()
			tried++
			caller, reached = p, false
			w := httptest.NewRecorder()
			table.ServeHTTP(w, httptest.NewRequest(rt.Method, path, nil))
			if reached != want {
				t.Errorf("%s %s (%s), asked by %s: let in %v, want %v (%d)", rt.Method, rt.Path, rt.Needs, who, reached, want, w.Code)
			}
			if !reached && w.Code != http.StatusUnauthorized && w.Code != http.StatusForbidden {
				t.Errorf("%s %s, asked by %s: answered %d", rt.Method, rt.Path, who, w.Code)
			}
		}
		ask("nobody", nil, rt.Needs == access.Public)
		for _, role := range access.Roles {
			for name, scope := range scopes {
				p := &access.Principal{Kind: access.Token, Name: "test", Role: role, Scopes: []string{scope}}
				if role == access.NodeRole {
					p.Scopes = nil
				}
				want := rt.Needs == access.Public
				if !want && may[rt.Needs][role] {
					switch rt.Needs {
					case access.SignedIn, access.AsNode:
						want = true
					case access.Manage:
						want = name == "everything"
					default:
						want = rt.Filtered || where[place][name]
					}
				}
				ask(fmt.Sprintf("%s of %s", role, name), p, want)
			}
		}
	}
	if tried < 1500 {
		t.Errorf("only %d were tried", tried)
	}
}

// The description is of what answers, and each name in it is there once.
func TestTheDescriptionIsOfWhatAnswers(t *testing.T) {
	t.Parallel()
	c := open(t)
	text, err := route.OpenAPI(c.table.Routes(), "Larder", "test", "/api/larder/")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range c.table.Routes() {
		if strings.HasPrefix(r.Path, "/api/larder/") && strings.Count(string(text), `"operationId": "`+r.Name+`"`) != 1 {
			t.Errorf("%s is not in the description, or twice", r.Name)
		}
		if r.Does == "" {
			t.Errorf("%s does not say what it does", r.Name)
		}
	}
	if strings.Contains(string(text), `"$ref": "#/components/schemas/"`) {
		t.Error("a type without a name")
	}
}
