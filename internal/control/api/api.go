// Package api is what the control plane does that ARM has no word for: nodes at
// a glance, their settings and jobs, publishers, sites, clients' settings,
// figures, alerts, users and the audit, under /api/larder/v1.
package api

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/alert"
	"larder/internal/control/db"
	"larder/internal/control/gate"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/control/telemetry"
)

// prefix is where all of it lies.
const prefix = "/api/larder/v1"

// Change is what the audit is told.
type Change struct {
	Action        string // node.settings
	Target        string // an ARM id, or a name of its own
	Before, After any    // written as JSON; nil for none
}

// Options are what the API works with.
type Options struct {
	DB     *db.DB
	Roster *roster.Roster
	Access *access.Service
	Usage  *telemetry.Service
	Alerts *alert.Service
	// Authorities are the roots that nodes trust.
	Authorities *gate.Authorities
	// Audit writes a change down within its transaction.
	Audit func(ctx context.Context, q db.Queryer, r *http.Request, c Change) error
	// PublicURL is where the caller reaches the control plane.
	PublicURL func(r *http.Request) string
	// ControlURL is where nodes are told to reach the control plane: by a name
	// of its own, whatever the caller's request says.
	ControlURL func(r *http.Request) string
	// CheckPublishers says what is wrong with an organisation's publisher files,
	// by name.
	CheckPublishers func(files map[string]string) error
	// Fingerprint is that of the root that nodes pin.
	Fingerprint func() string
	Version     string
	Now         func() time.Time
	Log         *slog.Logger
}

// API answers.
type API struct{ o Options }

// New makes an API.
func New(o Options) *API {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.CheckPublishers == nil {
		o.CheckPublishers = func(map[string]string) error { return nil }
	}
	return &API{o}
}

// Routes are all that the API answers.
func (a *API) Routes() []route.Route {
	var all []route.Route
	for _, part := range [][]route.Route{a.nodeRoutes(), a.settingsRoutes(), a.jobRoutes(), a.publisherRoutes(), a.clientRoutes(), a.usageRoutes(), a.peopleRoutes(), a.auditRoutes(), a.alertRoutes(), a.rootRoutes()} {
		all = append(all, part...)
	}
	return all
}

// A list is how several of a thing are answered.
type list[T any] struct {
	Value    []T    `json:"value"`
	NextLink string `json:"nextLink,omitempty"`
}

// nodeScope is the scope of the node that a path names.
func (a *API) nodeScope(r *http.Request) (string, error) {
	m, ok := a.o.Roster.Now().Member(r.PathValue("cacheNodeId"))
	if !ok {
		if err := a.o.Roster.Refresh(r.Context()); err != nil {
			return "", err
		}
		if m, ok = a.o.Roster.Now().Member(r.PathValue("cacheNodeId")); !ok {
			// Whoever may not see everything is not told what is there.
			return access.Everything, nil
		}
	}
	return access.ScopeOf(m.ID), nil
}

// node reads the node that a path names.
func (a *API) node(ctx context.Context, q db.Queryer, r *http.Request) (*roster.Node, error) {
	n, err := a.o.Roster.Node(ctx, q, r.PathValue("cacheNodeId"))
	if errors.Is(err, roster.ErrNotFound) {
		return nil, route.NotFound(fmt.Sprintf("Node %q", r.PathValue("cacheNodeId")))
	}
	return n, err
}

// changeNode reads the node of a path, changes it, and writes it and the
// audit's entry in one transaction. A node that somebody else changed meanwhile
// is read and changed again, unless the caller said which version it means
// (If-Match).
func (a *API) changeNode(r *http.Request, action string, change func(n *roster.Node) (before, after any, err error)) (*roster.Node, error) {
	var n *roster.Node
	for try := 0; ; try++ {
		err := a.o.DB.Tx(r.Context(), func(tx *sql.Tx) error {
			var err error
			if n, err = a.node(r.Context(), tx, r); err != nil {
				return err
			}
			if m := r.Header.Get("If-Match"); m != "" && m != "*" && m != roster.ETag(n.Version) {
				return &route.Error{Status: http.StatusPreconditionFailed, Code: "PreconditionFailed", Message: fmt.Sprintf("The node is version %s now, not %s: read it again.", roster.ETag(n.Version), m)}
			}
			before, after, err := change(n)
			if err != nil {
				return err
			}
			p := access.From(r.Context())
			n.System.Touch(p.Name, systemType(p), a.o.Now())
			if err := a.o.Roster.UpdateNode(r.Context(), tx, n); err != nil {
				return err
			}
			return a.o.Audit(r.Context(), tx, r, Change{Action: action, Target: n.Path, Before: before, After: after})
		})
		if errors.Is(err, roster.ErrChanged) && try < 5 {
			continue
		}
		if err != nil {
			return nil, err
		}
		a.o.Roster.Kick()
		return n, nil
	}
}

// systemType is ARM's word for the kind of a principal.
func systemType(p *access.Principal) string {
	if p.Kind == access.User {
		return "User"
	}
	return "Application"
}

// limit reads the query's limit, at most high.
func limit(r *http.Request, fallback, high int) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > high {
		return 0, route.Invalid("limit", "found %q, expected a number from 1 to %d", text, high)
	}
	return n, nil
}
