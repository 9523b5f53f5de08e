// Package route is the table of what the control plane answers: each route says
// what it needs of its caller, what it takes and gives, and who handles it, so
// that authorisation, the OpenAPI document and their tests come from one place.
package route

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"larder/internal/control/access"
	"larder/internal/httpsrv"
)

// Route is one thing the control plane answers.
type Route struct {
	Method string
	// Path is a template: "/api/larder/v1/nodes/{cacheNodeId}". Its literal
	// segments are compared without case, as ARM's are, and a slash at the end
	// is ignored. The values of {names} are the request's PathValue, decoded. A
	// last segment {rest...} takes all that follows.
	Path string
	Name string // operationId of the OpenAPI document: "Nodes_Get"
	Does string // its summary, one line

	// Needs is what the caller must be allowed to do, Scope where. Scope nil:
	// the resource group or subscription that Path names in {subscriptionId} and
	// {resourceGroupName}, or everything if it names none.
	Needs access.Action
	Scope func(r *http.Request) (string, error)
	// Filtered routes answer whoever may do this in any scope, and leave out
	// what the caller's scopes do not hold.
	Filtered bool

	Query []Query // beside api-version
	// Body and Answer are zero values of what is taken and given as JSON; nil
	// for none. Status is the one of success, 200 if 0.
	Body   any
	Answer any
	Status int
	// Type is the media type of an answer that is not JSON.
	Type string

	Handle httpsrv.HandlerFunc
}

// Query is a parameter of the query.
type Query struct {
	Name     string
	Does     string
	Type     string // string, integer, boolean or date-time; string if empty
	Required bool
}

// Guard recognises the caller of a request and returns the request with its
// Principal (access.With), or nil if there is none. A caller who claims to be
// somebody and is not is an error.
type Guard func(r *http.Request) (*http.Request, error)

// Table finds the route of a request, lets the guard look at it, and answers.
type Table struct {
	routes []Route
	root   *branch
	guard  Guard
	log    *slog.Logger
	// Challenge is the WWW-Authenticate field of a 401.
	Challenge func(r *http.Request) string
}

// branch is a place in the tree of segments.
type branch struct {
	literal map[string]*branch // by lower-case segment
	any     *branch
	rest    map[string]*target // by method; of {rest...}
	methods map[string]*target
}

type target struct {
	route *Route
	names []string // of the path's values, in their order
}

// New makes a table. Two routes with the same method and path are an error, as
// is one without a handler, a name or a word of what it needs.
func New(log *slog.Logger, guard Guard, routes ...Route) (*Table, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := &Table{routes: slices.Clone(routes), root: new(branch), guard: guard, log: log}
	names := map[string]bool{}
	for i := range t.routes {
		r := &t.routes[i]
		what := r.Method + " " + r.Path
		switch {
		case r.Handle == nil || r.Name == "":
			return nil, fmt.Errorf("route %s: it lacks a handler or a name", what)
		case !slices.Contains(access.Actions, r.Needs):
			return nil, fmt.Errorf("route %s: it does not say what it needs", what)
		case names[r.Name]:
			return nil, fmt.Errorf("route %s: another one is named %s", what, r.Name)
		}
		names[r.Name] = true
		if err := t.root.add(r); err != nil {
			return nil, fmt.Errorf("route %s: %w", what, err)
		}
	}
	return t, nil
}

func (b *branch) add(r *Route) error {
	tg := &target{route: r}
	rested := false
	for seg := range strings.SplitSeq(strings.Trim(r.Path, "/"), "/") {
		name, isName := strings.CutPrefix(seg, "{")
		if isName != strings.HasSuffix(seg, "}") || rested {
			return fmt.Errorf("found %q, expected whole {names}, and {rest...} at the end", seg)
		}
		name = strings.TrimSuffix(name, "}")
		if rest, ok := strings.CutSuffix(name, "..."); ok && isName {
			tg.names = append(tg.names, rest)
			rested = true
			continue
		}
		if isName {
			tg.names = append(tg.names, name)
			if b.any == nil {
				b.any = new(branch)
			}
			b = b.any
			continue
		}
		if b.literal == nil {
			b.literal = map[string]*branch{}
		}
		key := strings.ToLower(seg)
		if b.literal[key] == nil {
			b.literal[key] = new(branch)
		}
		b = b.literal[key]
	}
	if rested {
		return put(&b.rest, r.Method, tg)
	}
	return put(&b.methods, r.Method, tg)
}

func put(m *map[string]*target, method string, tg *target) error {
	if *m == nil {
		*m = map[string]*target{}
	}
	if old := (*m)[method]; old != nil {
		return fmt.Errorf("the same as %s", old.route.Path)
	}
	(*m)[method] = tg
	return nil
}

// find returns the methods of a path, with the values of its names.
func (b *branch) find(segs, values []string) (map[string]*target, []string) {
	if len(segs) == 0 {
		if b.methods != nil {
			return b.methods, values
		}
		return nil, nil
	}
	if next := b.literal[strings.ToLower(segs[0])]; next != nil {
		if m, v := next.find(segs[1:], values); m != nil {
			return m, v
		}
	}
	if b.any != nil && segs[0] != "" {
		if m, v := b.any.find(segs[1:], append(values, segs[0])); m != nil {
			return m, v
		}
	}
	if b.rest != nil {
		return b.rest, append(values, strings.Join(segs, "/"))
	}
	return nil, nil
}

// Routes are the table's, in their order.
func (t *Table) Routes() []Route { return t.routes }

func (t *Table) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	Handle(t.log, t.serve).ServeHTTP(w, r)
}

func (t *Table) serve(w http.ResponseWriter, r *http.Request) error {
	// Segments are split before they are decoded, so that %2F is no slash.
	segs, err := segments(r)
	if err != nil {
		return &Error{Status: http.StatusBadRequest, Code: "InvalidRequestUri", Message: "The path is not properly encoded.", Err: err}
	}
	methods, values := t.root.find(segs, nil)
	if methods == nil {
		return &Error{Status: http.StatusNotFound, Code: "NotFound", Message: fmt.Sprintf("There is nothing at %s; the API is described at %s.", r.URL.Path, OpenAPIPath)}
	}
	tg := methods[r.Method]
	if tg == nil && r.Method == http.MethodHead {
		tg = methods[http.MethodGet]
	}
	if tg == nil {
		var allow []string
		for m := range methods {
			allow = append(allow, m)
		}
		slices.Sort(allow)
		w.Header().Set("Allow", strings.Join(allow, ", "))
		return &Error{Status: http.StatusMethodNotAllowed, Code: "MethodNotAllowed", Message: fmt.Sprintf("%s is not possible here; %s is.", r.Method, strings.Join(allow, ", "))}
	}
	for i, name := range tg.names {
		r.SetPathValue(name, values[i])
	}
	if r, err = t.authorise(w, r, tg.route); err != nil {
		return err
	}
	return tg.route.Handle(w, r)
}

func (t *Table) authorise(w http.ResponseWriter, r *http.Request, route *Route) (*http.Request, error) {
	if route.Needs == access.Public {
		return r, nil
	}
	r, err := t.guard(r)
	if err == nil && access.From(r.Context()) == nil {
		err = &Error{Status: http.StatusUnauthorized, Code: "AuthenticationFailed", Message: "Sign in first: this call needs a bearer token in Authorization, or a session."}
	}
	if err != nil {
		if t.Challenge != nil && statusOf(err) == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", t.Challenge(r))
		}
		return r, err
	}
	p := access.From(r.Context())
	scope, err := route.scope(r)
	if err != nil {
		return r, err
	}
	if p.Can(route.Needs, scope) || route.Filtered && p.May(route.Needs) {
		return r, nil
	}
	return r, &Error{Status: http.StatusForbidden, Code: "AuthorizationFailed",
		Message: fmt.Sprintf("%s, with the role %s, is not allowed to %s in %s.", p.Name, p.Role, route.Needs, scope)}
}

// scope is where a request wants to do what it wants.
func (r *Route) scope(req *http.Request) (string, error) {
	if r.Scope != nil {
		return r.Scope(req)
	}
	sub, group := req.PathValue("subscriptionId"), req.PathValue("resourceGroupName")
	switch {
	case sub == "":
		return access.Everything, nil
	case strings.Contains(sub+group, "/"):
		// A slash that was encoded would make a scope that looks as if it lay
		// within another one.
		return access.Everything, nil
	case group == "":
		return access.SubscriptionScope(sub), nil
	}
	return access.GroupScope(sub, group), nil
}

func segments(r *http.Request) ([]string, error) {
	path := strings.TrimSuffix(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	if path == "" {
		return []string{""}, nil
	}
	segs := strings.Split(path, "/")
	for i, s := range segs {
		d, err := unescape(s)
		if err != nil {
			return nil, err
		}
		segs[i] = d
	}
	return segs, nil
}
