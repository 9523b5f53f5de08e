package arm

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/control/telemetry"
)

func (s *Service) metricRoutes() []route.Route {
	var rs []route.Route
	for _, at := range []struct{ path, name string }{{customerAt, "Customer"}, {nodeAt, "Node"}} {
		rs = append(rs,
			route.Route{Method: "GET", Path: at.path + "/providers/microsoft.insights/metrics", Name: "Metrics_List" + at.name, Does: "Figures as Azure Monitor shapes them", Needs: access.Read, Answer: telemetry.MetricsResponse{},
				Query: []route.Query{{Name: "metricnames", Does: "comma-separated"}, {Name: "timespan", Does: "two times with a slash between; the last hour if empty"}, {Name: "interval", Does: "PT1M to P1D, or FULL for one point"},
					{Name: "aggregation", Does: "average, minimum, maximum, total, count"}, {Name: "$filter", Does: "cachenodeid eq '*' for a series each node"},
					{Name: "top", Does: "at most so many series, those of the nodes that served most; 100 if empty, 100 at most", Type: "integer"}},
				Handle: s.inSubscription(s.getMetrics)},
			route.Route{Method: "GET", Path: at.path + "/providers/microsoft.insights/metricDefinitions", Name: "MetricDefinitions_List" + at.name, Does: "Which figures there are", Needs: access.Read, Answer: telemetry.Definitions{},
				Handle: s.inSubscription(s.getDefinitions)},
		)
	}
	return rs
}

func (s *Service) getDefinitions(w http.ResponseWriter, r *http.Request) error {
	c, err := s.customer(r)
	if err != nil {
		return err
	}
	id := c.Path()
	if r.PathValue("cacheNodeResourceName") != "" {
		n, err := s.node(r)
		if err != nil {
			return err
		}
		id = n.Path
	}
	return route.JSON(w, http.StatusOK, s.o.Usage.MetricDefinitions(id))
}

func (s *Service) getMetrics(w http.ResponseWriter, r *http.Request) error {
	c, err := s.customer(r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	now := s.o.Now()
	m := telemetry.MetricsQuery{Resource: c.Path(), Region: c.Location, Filter: telemetry.Filter{Customers: []string{c.ID}}, Interval: time.Minute, Now: now}
	if m.From, m.To, err = telemetry.ParseTimespan(q.Get("timespan"), now); err != nil {
		return asMetricsError(err)
	}
	if t := q.Get("interval"); strings.EqualFold(t, "FULL") {
		m.Interval = 0
	} else if t != "" {
		if m.Interval, err = telemetry.ParseGrain(t); err != nil {
			return asMetricsError(err)
		}
	}
	if t := q.Get("metricnames"); t != "" {
		m.Names = strings.Split(t, ",")
	}
	if t := q.Get("aggregation"); t != "" {
		m.Aggregations = strings.Split(t, ",")
	}
	if r.PathValue("cacheNodeResourceName") != "" {
		n, err := s.node(r)
		if err != nil {
			return err
		}
		m.Resource, m.Region, m.Filter = n.Path, n.Location, telemetry.Filter{Nodes: []string{n.NodeID}}
	}
	if f := q.Get("$filter"); f != "" {
		m.Split = true
		if m.Nodes, err = s.split(r, c.ID, f, m); err != nil {
			return err
		}
	}
	out, err := s.o.Usage.Metrics(r.Context(), m)
	if err != nil {
		return asMetricsError(err)
	}
	return route.JSON(w, http.StatusOK, out)
}

func asMetricsError(err error) error {
	if errors.Is(err, telemetry.ErrInvalid) {
		return &route.Error{Status: http.StatusBadRequest, Code: "BadRequest", Message: strings.TrimPrefix(err.Error(), telemetry.ErrInvalid.Error()+": "), Err: err}
	}
	return err
}

// maxSplit is how many nodes one answer tells apart.
const maxSplit = 100

// split reads a filter on the dimension: cachenodeid eq 'GUID', several of them
// with or between, or eq '*' for all nodes. Of those that it names, the resource's
// own are told apart; none, if there are none.
func (s *Service) split(r *http.Request, customer, filter string, m telemetry.MetricsQuery) ([]string, error) {
	top := maxSplit
	if t := r.URL.Query().Get("top"); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil || n < 1 || n > maxSplit {
			return nil, route.Invalid("top", "found %q, expected a number from 1 to %d", t, maxSplit)
		}
		top = n
	}
	var ids []string
	for part := range strings.SplitSeq(filter, " or ") {
		f := strings.Fields(part)
		if len(f) != 3 || !strings.EqualFold(f[0], "cachenodeid") || !strings.EqualFold(f[1], "eq") || len(f[2]) < 3 || f[2][0] != '\'' || f[2][len(f[2])-1] != '\'' {
			return nil, route.Invalid("$filter", "found %q, expected cachenodeid eq '*', or eq 'GUID' with or between several", filter)
		}
		ids = append(ids, strings.ToLower(f[2][1:len(f[2])-1]))
	}
	if len(ids) > maxSplit {
		return nil, route.Invalid("$filter", "found %d nodes, expected %d at most; or eq '*' with top", len(ids), maxSplit)
	}
	only := func(id string) bool { return len(m.Filter.Nodes) == 0 || m.Filter.Nodes[0] == id } // a node's own figures
	if slices.Contains(ids, "*") {
		if len(m.Filter.Nodes) > 0 {
			return m.Filter.Nodes, nil
		}
		return s.most(r.Context(), customer, top, m)
	}
	var out []string
	for _, id := range ids {
		n, err := s.o.Roster.Node(r.Context(), s.o.DB, id)
		if errors.Is(err, roster.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n.Customer == customer && only(n.NodeID) && !slices.Contains(out, n.NodeID) && len(out) < top {
			out = append(out, n.NodeID)
		}
	}
	return out, nil
}

// most are the nodes of a customer, those that served most first, and no more
// than so many.
func (s *Service) most(ctx context.Context, customer string, top int, m telemetry.MetricsQuery) ([]string, error) {
	busy, err := s.o.Usage.ByNode(ctx, m.Filter, m.From, m.To, m.Now, 10*maxSplit)
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	var quiet []string
	for after := ""; ; {
		ns, err := s.o.Roster.Nodes(ctx, customer, after, 500)
		if err != nil {
			return nil, err
		}
		for _, n := range ns {
			after = n.ID
			there[n.NodeID] = true
			if !slices.ContainsFunc(busy, func(b telemetry.Named) bool { return b.Name == n.NodeID }) {
				quiet = append(quiet, n.NodeID)
			}
		}
		if len(ns) < 500 {
			break
		}
	}
	var out []string
	for _, b := range busy {
		if there[b.Name] { // not deleted meanwhile
			out = append(out, b.Name)
		}
	}
	out = append(out, quiet...)
	return out[:min(top, len(out))], nil
}
