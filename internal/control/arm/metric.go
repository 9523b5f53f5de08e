package arm

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"larder/internal/control/access"
	"larder/internal/control/route"
	"larder/internal/control/telemetry"
)

func (s *Service) metricRoutes() []route.Route {
	var rs []route.Route
	for _, at := range []struct{ path, name string }{{customerAt, "Customer"}, {nodeAt, "Node"}} {
		rs = append(rs,
			route.Route{Method: "GET", Path: at.path + "/providers/microsoft.insights/metrics", Name: "Metrics_List" + at.name, Does: "Figures as Azure Monitor shapes them", Needs: access.Read, Answer: telemetry.MetricsResponse{},
				Query: []route.Query{{Name: "metricnames", Does: "comma-separated"}, {Name: "timespan", Does: "two times with a slash between; the last hour if empty"}, {Name: "interval", Does: "PT1M to P1D"},
					{Name: "aggregation", Does: "average, minimum, maximum, total, count"}, {Name: "$filter", Does: "cachenodeid eq '*' for a series each node"}},
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
	if t := q.Get("interval"); t != "" && !strings.EqualFold(t, "FULL") {
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
		if q.Get("$filter") != "" {
			m.Split = []string{n.NodeID}
		}
	} else if m.Split, err = s.split(r, c.ID, q.Get("$filter")); err != nil {
		return err
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
// with or between, or eq '*' for all nodes.
func (s *Service) split(r *http.Request, customer, filter string) ([]string, error) {
	if filter == "" {
		return nil, nil
	}
	bad := route.Invalid("$filter", "found %q, expected cachenodeid eq '*', or eq 'GUID' with or between several", filter)
	var ids []string
	all := false
	for part := range strings.SplitSeq(filter, " or ") {
		f := strings.Fields(part)
		if len(f) != 3 || !strings.EqualFold(f[0], "cachenodeid") || !strings.EqualFold(f[1], "eq") || len(f[2]) < 3 || f[2][0] != '\'' || f[2][len(f[2])-1] != '\'' {
			return nil, bad
		}
		id := strings.ToLower(f[2][1 : len(f[2])-1])
		all = all || id == "*"
		ids = append(ids, id)
	}
	ns, err := s.o.Roster.Nodes(r.Context(), customer, "", 1000)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range ns { // only the customer's own
		for _, id := range ids {
			if (all || n.NodeID == id) && len(out) < maxSplit {
				out = append(out, n.NodeID)
				break
			}
		}
	}
	return out, nil
}
