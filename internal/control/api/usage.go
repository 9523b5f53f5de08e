package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/route"
	"larder/internal/control/telemetry"
)

// Series is a chart's data.
type Series struct {
	Interval string            `json:"interval"` // ISO 8601; coarser than asked for where figures are old
	Points   []telemetry.Point `json:"points"`
}

func (a *API) usageRoutes() []route.Route {
	q := []route.Query{
		{Name: "timespan", Does: "two times with a slash between; the last hour if empty"},
		{Name: "customer", Does: "only this organisation, by ARM id"},
		{Name: "node", Does: "only this node, by GUID"},
	}
	grain := append([]route.Query{{Name: "interval", Does: "PT1M, PT5M, PT15M, PT30M, PT1H, PT6H, PT12H or P1D; PT1M if empty"}}, q...)
	get := func(path, name, does string, query []route.Query, answer any, h func(w http.ResponseWriter, r *http.Request, f telemetry.Filter, from, to time.Time) error) route.Route {
		return route.Route{Method: "GET", Path: prefix + "/usage/" + path, Name: "Usage_" + name, Does: does, Needs: access.Read, Filtered: true, Query: query, Answer: answer,
			Handle: func(w http.ResponseWriter, r *http.Request) error {
				f, from, to, err := a.usageOf(r)
				if err != nil {
					return err
				}
				return asUsageError(h(w, r, f, from, to))
			}}
	}
	return []route.Route{
		get("series", "Series", "What went through nodes over time; gaps are marked", grain, Series{}, a.getSeries),
		get("content-types", "ContentTypes", "Sums by content type, the largest first", q, list[telemetry.Named]{}, func(w http.ResponseWriter, r *http.Request, f telemetry.Filter, from, to time.Time) error {
			v, err := a.o.Usage.ByContentType(r.Context(), f, from, to, a.o.Now())
			return answerList(w, v, err)
		}),
		get("nodes", "Nodes", "Sums by node, the largest first", q, list[telemetry.Named]{}, func(w http.ResponseWriter, r *http.Request, f telemetry.Filter, from, to time.Time) error {
			v, err := a.o.Usage.ByNode(r.Context(), f, from, to, a.o.Now(), 1000)
			return answerList(w, v, err)
		}),
		get("outcomes", "Outcomes", "How requests ended", q, list[telemetry.Ended]{}, func(w http.ResponseWriter, r *http.Request, f telemetry.Filter, from, to time.Time) error {
			v, err := a.o.Usage.Outcomes(r.Context(), f, from, to)
			return answerList(w, v, err)
		}),
		get("origins", "Origins", "How origins did, those that failed most first", q, list[telemetry.Origin]{}, func(w http.ResponseWriter, r *http.Request, f telemetry.Filter, from, to time.Time) error {
			v, err := a.o.Usage.Origins(r.Context(), f, from, to)
			return answerList(w, v, err)
		}),
		get("overview", "Overview", "The last 24 hours", q[1:], telemetry.Overview{}, func(w http.ResponseWriter, r *http.Request, f telemetry.Filter, from, to time.Time) error {
			o, err := a.o.Usage.Overview(r.Context(), f, a.o.Now())
			if err != nil {
				return err
			}
			return route.JSON(w, http.StatusOK, o)
		}),
	}
}

func answerList[T any](w http.ResponseWriter, v []T, err error) error {
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, list[T]{Value: v})
}

func asUsageError(err error) error {
	if errors.Is(err, telemetry.ErrInvalid) {
		return &route.Error{Status: http.StatusBadRequest, Code: "InvalidParameter", Message: strings.TrimPrefix(err.Error(), telemetry.ErrInvalid.Error()+": "), Err: err}
	}
	return err
}

func (a *API) getSeries(w http.ResponseWriter, r *http.Request, f telemetry.Filter, from, to time.Time) error {
	text := r.URL.Query().Get("interval")
	if text == "" {
		text = "PT1M"
	}
	grain, err := telemetry.ParseGrain(text)
	if err != nil {
		return err
	}
	points, got, err := a.o.Usage.Series(r.Context(), f, from, to, grain, a.o.Now())
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, Series{Interval: telemetry.GrainText(got), Points: points})
}

// usageOf reads whose figures are asked for, and keeps to what the caller may
// see.
func (a *API) usageOf(r *http.Request) (f telemetry.Filter, from, to time.Time, err error) {
	q := r.URL.Query()
	if from, to, err = telemetry.ParseTimespan(q.Get("timespan"), a.o.Now()); err != nil {
		return f, from, to, asUsageError(err)
	}
	p := access.From(r.Context())
	no := &route.Error{Status: http.StatusForbidden, Code: "AuthorizationFailed", Message: "This is not within your scopes."}
	switch node, customer := q.Get("node"), strings.ToLower(strings.TrimSuffix(q.Get("customer"), "/")); {
	case node != "":
		m, ok := a.o.Roster.Now().Member(node)
		if !ok {
			if !p.Sees(access.Everything) {
				return f, from, to, no
			}
			return f, from, to, route.NotFound("Node " + node)
		}
		if !p.Sees(access.ScopeOf(m.ID)) {
			return f, from, to, no
		}
		f.Nodes = []string{m.Node}
	case customer != "":
		if !p.Sees(access.ScopeOf(customer)) {
			return f, from, to, no
		}
		f.Customers = []string{customer}
	case !p.Sees(access.Everything):
		f.Customers, err = a.customersOf(r.Context(), p)
	}
	return f, from, to, err
}

// customersOf are the customers within a principal's scopes; one that there is
// not, if there are none: no filter would mean all.
func (a *API) customersOf(ctx context.Context, p *access.Principal) ([]string, error) {
	var ids []string
	for after := ""; ; {
		cs, err := a.o.Roster.Customers(ctx, "", "", after, 500)
		if err != nil {
			return nil, err
		}
		for _, c := range cs {
			after = c.ID
			if p.Sees(access.ScopeOf(c.ID)) {
				ids = append(ids, c.ID)
			}
		}
		if len(cs) < 500 {
			break
		}
	}
	if len(ids) == 0 {
		ids = []string{"none"}
	}
	return ids, nil
}
