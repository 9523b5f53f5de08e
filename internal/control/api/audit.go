package api

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"strconv"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/gate"
	"larder/internal/control/route"
	"larder/internal/pki/authority"
)

// AuditVerdict says whether the audit is as it was written.
type AuditVerdict struct {
	Entries int64  `json:"entries"`
	Head    string `json:"head"` // hash of the last one: write it down elsewhere
	OK      bool   `json:"ok"`
	Broken  string `json:"broken,omitempty"`
}

func (a *API) auditRoutes() []route.Route {
	return []route.Route{
		{Method: "GET", Path: prefix + "/audit", Name: "Audit_List", Does: "Who did what, the latest first", Needs: access.Manage, Query: []route.Query{
			{Name: "from", Type: "date-time"}, {Name: "to", Type: "date-time"}, {Name: "actor", Does: "only what this one did"},
			{Name: "target", Does: "only what was done to this, and to what is below it"}, {Name: "before", Does: "only entries with a lower number", Type: "integer"}, {Name: "limit", Does: "1000 at most", Type: "integer"},
		}, Answer: list[access.Audited]{}, Handle: a.listAudit},
		{Method: "GET", Path: prefix + "/audit/export", Name: "Audit_Export", Does: "All entries in their order, a JSON object a line", Needs: access.Manage, Type: "application/jsonl", Handle: func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "application/jsonl")
			w.Header().Set("Content-Disposition", `attachment; filename="larder-audit.jsonl"`)
			return a.o.Access.ExportAudit(r.Context(), w)
		}},
		{Method: "GET", Path: prefix + "/audit/verify", Name: "Audit_Verify", Does: "Whether any entry was changed or removed", Needs: access.Manage, Answer: AuditVerdict{}, Handle: a.verifyAudit},
	}
}

func (a *API) listAudit(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	most, err := limit(r, 100, 1000)
	if err != nil {
		return err
	}
	f := access.AuditFilter{Actor: q.Get("actor"), Target: q.Get("target")}
	for name, at := range map[string]*time.Time{"from": &f.From, "to": &f.To} {
		if text := q.Get(name); text != "" {
			if *at, err = time.Parse(time.RFC3339, text); err != nil {
				return route.Invalid(name, "found %q, expected a time such as 2026-11-26T08:00:00Z", text)
			}
		}
	}
	if text := q.Get("before"); text != "" {
		if f.Before, err = strconv.ParseInt(text, 10, 64); err != nil || f.Before < 1 {
			return route.Invalid("before", "found %q, expected the number of an entry", text)
		}
	}
	v, err := a.o.Access.Audit(r.Context(), f, most)
	return answerList(w, v, err)
}

func (a *API) verifyAudit(w http.ResponseWriter, r *http.Request) error {
	n, err := a.o.Access.VerifyAudit(r.Context())
	if err != nil && !errors.Is(err, access.ErrAuditBroken) {
		return err
	}
	v := AuditVerdict{Entries: n, OK: err == nil}
	if err != nil {
		v.Broken = err.Error()
	}
	if _, v.Head, err = a.o.Access.AuditHead(r.Context()); err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, v)
}

// Root is a root by which nodes trust the control plane.
type Root struct {
	Fingerprint string    `json:"fingerprint"`
	Subject     string    `json:"subject"`
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
	Signs       bool      `json:"signs"`
}

// RootStep is a step from one root to the next.
type RootStep struct {
	// Step is announce (make the next one and let nodes trust it), activate (let
	// it sign) or retire (end the trust in the one before).
	Step string `json:"step"`
	// Force goes the step although nodes would be cut off and have to be enrolled
	// anew.
	Force bool `json:"force,omitempty"`
}

func (a *API) rootRoutes() []route.Route {
	return []route.Route{
		{Method: "GET", Path: prefix + "/roots", Name: "Roots_List", Does: "The roots by which nodes trust the control plane", Needs: access.Read, Filtered: true, Answer: list[Root]{}, Handle: a.listRoots},
		{Method: "POST", Path: prefix + "/roots", Name: "Roots_Step", Does: "Go a step from one root to the next: announce, activate, retire", Needs: access.Manage, Body: RootStep{}, Answer: list[Root]{}, Handle: a.stepRoots},
	}
}

func (a *API) listRoots(w http.ResponseWriter, r *http.Request) error {
	out := list[Root]{Value: []Root{}}
	for i, c := range a.o.Authorities.Authority().Roots() {
		out.Value = append(out.Value, Root{authority.Fingerprint(c), c.Subject.String(), c.NotBefore, c.NotAfter, i == 0})
	}
	return route.JSON(w, http.StatusOK, out)
}

func (a *API) stepRoots(w http.ResponseWriter, r *http.Request) error {
	var s RootStep
	if err := route.ReadJSON(w, r, &s, true); err != nil {
		return err
	}
	roots := a.o.Authorities
	steps := map[string]func(ctx context.Context, tx *sql.Tx) error{
		"announce": func(ctx context.Context, tx *sql.Tx) error { return roots.Announce(ctx, tx, "Larder") },
		"activate": func(ctx context.Context, tx *sql.Tx) error { return roots.Activate(ctx, tx, s.Force) },
		"retire":   func(ctx context.Context, tx *sql.Tx) error { return roots.Retire(ctx, tx, s.Force) },
	}
	step := steps[s.Step]
	if step == nil {
		return route.Invalid("step", "found %q, expected announce, activate or retire", s.Step)
	}
	err := roots.Change(r.Context(), func(tx *sql.Tx) error {
		if err := step(r.Context(), tx); err != nil {
			return err
		}
		return a.o.Audit(r.Context(), tx, r, Change{Action: "roots." + s.Step, Target: "roots", After: s})
	})
	var left *gate.LeftError
	switch {
	case errors.As(err, &left):
		return &route.Error{Status: http.StatusConflict, Code: "NodesWouldBeCutOff", Message: left.Error(), Err: err}
	case err != nil:
		return &route.Error{Status: http.StatusConflict, Code: "RootStep", Message: err.Error(), Err: err}
	}
	return a.listRoots(w, r)
}
