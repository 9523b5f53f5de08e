// Package arm speaks Azure Resource Manager for Microsoft.ConnectedCache: its
// routes, long-running operations, api-versions and errors, so that Azure's own
// clients manage the fleet by changing a base address.
package arm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"larder/internal/control/access"
	"larder/internal/control/db"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/control/telemetry"
	"larder/internal/httpsrv"
)

// Change is what the audit is told.
type Change struct {
	Action        string
	Target        string
	Before, After any // written as JSON; nil for none
}

// Usage are the figures that resources show.
type Usage interface {
	Overview(ctx context.Context, f telemetry.Filter, now time.Time) (telemetry.Overview, error)
	Metrics(ctx context.Context, q telemetry.MetricsQuery) (*telemetry.MetricsResponse, error)
	ByNode(ctx context.Context, f telemetry.Filter, from, to, now time.Time, most int) ([]telemetry.Named, error)
	Forget(ctx context.Context, customer string) error
	MetricDefinitions(resource string) telemetry.Definitions
}

// Options are what a Service works with.
type Options struct {
	DB           *db.DB
	Roster       *roster.Roster
	Usage        Usage
	Subscription string // GUID of the one that is always there
	PublicURL    func(r *http.Request) string
	// Audit writes a change down within its transaction. r is nil for what an
	// operation does in the background; actor says for whom.
	Audit func(ctx context.Context, q db.Queryer, r *http.Request, actor string, c Change) error
	Now   func() time.Time
	Log   *slog.Logger
}

// Service answers. Run must be running for operations to come to their end.
type Service struct {
	o    Options
	kick chan struct{} // holds one
}

// New makes a Service.
func New(o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{o: o, kick: make(chan struct{}, 1)}
}

const (
	provider = "Microsoft.ConnectedCache"
	groupAt  = "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}"
	typeCust = provider + "/enterpriseMccCustomers"
	typeNode = typeCust + "/enterpriseMccCacheNodes"

	customersAt = groupAt + "/providers/" + typeCust
	customerAt  = customersAt + "/{customerResourceName}"
	nodesAt     = customerAt + "/enterpriseMccCacheNodes"
	nodeAt      = nodesAt + "/{cacheNodeResourceName}"
)

// versions are the api-versions of the provider, in their order.
var versions = []string{"2023-05-01-preview", "2024-11-30-preview", "2026-06-01"}

// renamed is the version since which rings are Stable and Beta, and the fields
// of hosts and firewalls are there.
const renamed = "2026-06-01"

var dateForm = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}(-[a-z0-9-]+)?$`)

// Routes are all that the service answers.
func (s *Service) Routes() []route.Route {
	var all []route.Route
	// own routes are the provider's, others those of ARM itself, whose versions
	// are too many to know.
	add := func(own bool, rs ...route.Route) {
		for _, r := range rs {
			r.Handle = s.handle(own, r.Handle)
			all = append(all, r)
		}
	}
	add(false, s.containerRoutes()...)
	add(true, s.customerRoutes()...)
	add(true, s.nodeRoutes()...)
	add(true, s.operationRoutes()...)
	add(false, s.metricRoutes()...)
	return all
}

// handle looks at what every request of ARM has: an api-version and the ids by
// which it is traced.
func (s *Service) handle(own bool, next httpsrv.HandlerFunc) httpsrv.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		h := w.Header()
		id := uuid.NewString()
		h.Set("X-Ms-Request-Id", id)
		correlation := r.Header.Get("X-Ms-Correlation-Request-Id")
		if _, err := uuid.Parse(correlation); err != nil {
			correlation = id
		}
		h.Set("X-Ms-Correlation-Request-Id", correlation)
		if c := r.Header.Get("X-Ms-Client-Request-Id"); c != "" && strings.EqualFold(r.Header.Get("X-Ms-Return-Client-Request-Id"), "true") && len(c) <= 128 {
			h.Set("X-Ms-Client-Request-Id", c)
		}
		v := r.URL.Query().Get("api-version")
		switch {
		case v == "":
			return &route.Error{Status: http.StatusBadRequest, Code: "MissingApiVersionParameter", Target: "api-version", Message: "The query lacks api-version; expected for example ?api-version=" + versions[len(versions)-1] + "."}
		case own && !slices.Contains(versions, strings.ToLower(v)):
			return &route.Error{Status: http.StatusBadRequest, Code: "InvalidApiVersionParameter", Target: "api-version", Message: fmt.Sprintf("api-version: found %q, expected one of %s.", v, strings.Join(versions, ", "))}
		case !own && !dateForm.MatchString(strings.ToLower(v)):
			return &route.Error{Status: http.StatusBadRequest, Code: "InvalidApiVersionParameter", Target: "api-version", Message: fmt.Sprintf("api-version: found %q, expected a date such as 2024-03-01.", v)}
		}
		return asError(next(w, r))
	}
}

// version is the api-version of a request of the provider.
func version(r *http.Request) string { return strings.ToLower(r.URL.Query().Get("api-version")) }

// asError gives the roster's errors their answers.
func asError(err error) error {
	switch {
	case errors.Is(err, roster.ErrNotFound):
		return &route.Error{Status: http.StatusNotFound, Code: "ResourceNotFound", Message: "The resource was not found.", Err: err}
	case errors.Is(err, roster.ErrChanged):
		return &route.Error{Status: http.StatusConflict, Code: "Conflict", Message: "The resource was changed by somebody else at the same time; read it and try again.", Err: err}
	case errors.Is(err, roster.ErrExists):
		return &route.Error{Status: http.StatusConflict, Code: "Conflict", Message: "The resource was made by somebody else at the same time; read it.", Err: err}
	}
	return err
}

// preconditions looks at If-Match and If-None-Match (RFC 9110, section 13.1).
// tag is "" if the resource is not there.
func preconditions(r *http.Request, tag string) error {
	no := func(format string, args ...any) error {
		return &route.Error{Status: http.StatusPreconditionFailed, Code: "PreconditionFailed", Message: fmt.Sprintf(format, args...)}
	}
	if v := strings.TrimSpace(r.Header.Get("If-Match")); v != "" {
		switch {
		case tag == "":
			return no("If-Match: the resource is not there.")
		case v != "*" && !slices.ContainsFunc(strings.Split(v, ","), func(t string) bool { return strings.TrimSpace(t) == tag }):
			return no("If-Match: the resource is version %s now, not %s: read it again.", tag, v)
		}
	}
	if v := strings.TrimSpace(r.Header.Get("If-None-Match")); v != "" && tag != "" && (v == "*" || strings.Contains(v, tag)) {
		return no("If-None-Match: the resource is there, with version %s.", tag)
	}
	return nil
}

// who is the caller in ARM's words.
func who(r *http.Request) (name, kind string) {
	p := access.From(r.Context())
	if p == nil {
		return "", "Application"
	}
	if p.Kind == access.User {
		return p.Name, "User"
	}
	return p.Name, "Application"
}

// checkSubscription refuses a subscription that is not this control plane's.
func (s *Service) checkSubscription(r *http.Request) error {
	id := r.PathValue("subscriptionId")
	if !strings.EqualFold(id, s.o.Subscription) {
		return &route.Error{Status: http.StatusNotFound, Code: "SubscriptionNotFound", Message: fmt.Sprintf("The subscription '%s' could not be found; this control plane has %s.", id, s.o.Subscription)}
	}
	return nil
}

// page reads $top and $skipToken, and makes the link to the next page.
func (s *Service) page(r *http.Request) (top int, after string, next func(last string) string, err error) {
	q := r.URL.Query()
	top = 100
	if t := q.Get("$top"); t != "" {
		if _, err := fmt.Sscanf(t, "%d", &top); err != nil || top < 1 {
			return 0, "", nil, route.Invalid("$top", "found %q, expected a number from 1", t)
		}
		top = min(top, 1000)
	}
	after = q.Get("$skipToken")
	return top, after, func(last string) string {
		q.Set("$skipToken", last)
		return s.o.PublicURL(r) + r.URL.EscapedPath() + "?" + q.Encode()
	}, nil
}
