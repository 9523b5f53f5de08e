package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"larder/internal/httpsrv"
	"larder/internal/node/link"
	"larder/internal/node/store"
	"larder/internal/pki/caretaker"
	"larder/internal/pki/enroll"
	"larder/internal/pki/livecert"
	"larder/internal/pki/tlsdir"
)

// The admin calls. They are what the command line uses; whoever reaches the
// admin listener may make them, which is why it is on loopback by default.
const (
	PathStatus  = "/api/larder/v1/status"
	PathObjects = "/api/larder/v1/objects"
	PathPurge   = "/api/larder/v1/purge"
	PathPin     = "/api/larder/v1/pin"
	PathScrub   = "/api/larder/v1/scrub"
	PathExplain = "/api/larder/v1/explain"
	PathTLS     = "/api/larder/v1/tls"
	PathRenew   = "/api/larder/v1/tls/renew"
)

// Status is what a node says of itself.
type Status struct {
	ID          string            `json:"id"`
	Version     string            `json:"version"`
	Started     time.Time         `json:"started"`
	Ready       bool              `json:"ready"`
	Problems    []string          `json:"problems"`
	Addresses   Addresses         `json:"addresses"`
	Drives      []DriveInfo       `json:"drives"`
	Certificate *livecert.Status  `json:"certificate,omitempty"`
	TLS         *caretaker.Status `json:"tls,omitempty"`
	Catalog     CatalogStatus     `json:"catalog"`
	Draining    bool              `json:"draining,omitempty"`
	Control     *link.Status      `json:"control,omitempty"` // nil: no control plane
	Origins     []OriginInfo      `json:"origins"`
	Lifetime    Totals            `json:"lifetime"`
	Period      Totals            `json:"period"` // the last 15 s
	ByType      map[string]Totals `json:"lifetimeByContentType"`
}

// CatalogStatus says what catalogue is in use.
type CatalogStatus struct {
	Publishers int       `json:"publishers"`
	Loaded     time.Time `json:"loaded"`
	Error      string    `json:"error,omitempty"` // what is wrong with the files as they are now
}

// Selection says which objects a call is about: one of its fields is set.
type Selection struct {
	Key       string `json:"key,omitempty"`
	Prefix    string `json:"prefix,omitempty"` // of the URL without its scheme: host/path
	Publisher string `json:"publisher,omitempty"`
	DryRun    bool   `json:"dryRun,omitempty"`
	Off       bool   `json:"off,omitempty"` // pin: unpin instead
}

func (s Selection) filter() (store.Filter, error) {
	n := 0
	for _, v := range []string{s.Key, s.Prefix, s.Publisher} {
		if v != "" {
			n++
		}
	}
	if n != 1 {
		return store.Filter{}, &httpsrv.Error{Status: http.StatusBadRequest, Message: "Name exactly one of key, prefix and publisher."}
	}
	return s.Filter(), nil
}

// Filter returns the store's form of s. A prefix may have been copied with its
// scheme, and a key with a space for the line break in it.
func (s Selection) Filter() store.Filter {
	f := store.Filter{Key: s.Key, Prefix: s.Prefix, Publisher: s.Publisher}
	for _, scheme := range []string{"http://", "https://"} {
		f.Prefix = strings.TrimPrefix(f.Prefix, scheme)
	}
	if !strings.Contains(f.Key, "\n") {
		f.Key = strings.Replace(f.Key, " ", "\n", 1)
	}
	return f
}

// adminHandler serves the admin listener.
func (n *Node) adminHandler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h httpsrv.HandlerFunc) { mux.Handle(pattern, httpsrv.Handle(n.log, h)) }
	handle("GET /summary", n.getSummary)
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	handle("GET /healthz", func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(w, "ok\n")
		return err
	})
	handle("GET /readyz", n.getReady)
	handle("GET "+PathStatus, func(w http.ResponseWriter, r *http.Request) error { return writeJSON(w, n.Status()) })
	handle("GET "+PathObjects, n.getObjects)
	handle("POST "+PathPurge, n.postPurge)
	handle("POST "+PathPin, n.postPin)
	handle("POST "+PathScrub, n.postScrub)
	handle("GET "+PathExplain, n.getExplain)
	handle("GET "+PathTLS, n.getTLS)
	handle("POST "+PathRenew, n.postRenew)
	handle("GET /{$}", func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(w, "Larder node. /summary /metrics /healthz /readyz "+PathStatus+" /debug/pprof/\n")
		return err
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	guarded, err := httpsrv.GuardOrigin(mux)
	if err != nil {
		panic(err) // there are no trusted origins that could be wrong
	}
	return httpsrv.GuardHost(guarded)
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func readJSON(r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 64<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &httpsrv.Error{Status: http.StatusBadRequest, Message: "The body is not the JSON expected: " + err.Error(), Err: err}
	}
	return nil
}

// Status returns what the node says of itself now.
func (n *Node) Status() Status {
	byType := n.stats.snapshot()
	last, _ := n.periods.period()
	s := Status{
		ID: n.id, Version: n.version, Started: n.started, Addresses: n.Addresses(), Drives: driveInfos(n.store.Drives()),
		Origins: originInfos(n.origin.Hosts()), Lifetime: sum(byType), Period: sum(last), ByType: byType,
		Catalog: CatalogStatus{Publishers: len(n.catalog.Load().Publishers())},
	}
	var err error
	if s.Catalog.Loaded, err = n.catalogs.state(); err != nil {
		s.Catalog.Error = err.Error()
	}
	if n.cert.Has() {
		c := n.cert.Status()
		s.Certificate = &c
	}
	if s.TLS = n.https.status(); s.TLS != nil {
		s.TLS.Certificate = nil // it is above
	}
	s.Draining = n.Draining()
	if n.link != nil {
		c := n.link.Status()
		s.Control = &c
	}
	s.Problems = n.problems()
	s.Ready = len(n.unready()) == 0
	return s
}

// unready says why the node should get no traffic.
func (n *Node) unready() []string {
	if n.Draining() {
		return []string{"draining: the control plane asked the node to take itself out of rotation"}
	}
	for _, d := range n.store.Drives() {
		if d.State == "ok" {
			return nil
		}
	}
	return []string{"no drive takes objects"}
}

// problems says what needs attention.
func (n *Node) problems() []string {
	ps := append([]string{}, n.unready()...) // [] in JSON, not null
	for _, d := range n.store.Drives() {
		if d.State != "ok" {
			ps = append(ps, fmt.Sprintf("drive %s is %s: %v", d.Path, d.State, d.Err))
		}
	}
	if _, err := n.catalogs.state(); err != nil {
		ps = append(ps, "the catalogue's files hold a mistake, the old catalogue is in use: "+err.Error())
	}
	return append(ps, n.problemsOfHTTPS()...)
}

func (n *Node) getTLS(w http.ResponseWriter, r *http.Request) error {
	if n.https.care == nil {
		return &httpsrv.Error{Status: http.StatusNotFound, Message: errNotLookedAfter.Error() + "."}
	}
	return writeJSON(w, n.https.status())
}

// postRenew gets a new certificate in the automatic way that is set up, and
// answers when it is in use, or with why not.
func (n *Node) postRenew(w http.ResponseWriter, r *http.Request) error {
	if n.https.care == nil {
		return &httpsrv.Error{Status: http.StatusNotFound, Message: errNotLookedAfter.Error() + "."}
	}
	type outcome struct {
		done *tlsdir.Installed
		err  error
	}
	over := make(chan outcome, 1)
	// Whoever asked may leave; what was begun is brought to its end.
	n.background.Go(func() {
		done, err := n.https.care.Renew(n.ctx)
		over <- outcome{done, err}
	})
	var o outcome
	select {
	case o = <-over:
	case <-r.Context().Done():
		return r.Context().Err()
	}
	done, err := o.done, o.err
	switch {
	case errors.Is(err, enroll.ErrNotAutomatic):
		return &httpsrv.Error{Status: http.StatusNotFound, Message: "Nothing renews this node's certificate by itself; set it up with larder tls auto.", Err: err}
	case errors.Is(err, enroll.ErrBusy):
		return &httpsrv.Error{Status: http.StatusConflict, Message: "A renewal is under way.", Err: err}
	case err != nil:
		// Whoever reaches this listener looks after the node: they get the cause.
		return &httpsrv.Error{Status: http.StatusBadGateway, Message: err.Error(), Err: err}
	}
	return writeJSON(w, done)
}

func (n *Node) getReady(w http.ResponseWriter, r *http.Request) error {
	if why := n.unready(); len(why) > 0 {
		return &httpsrv.Error{Status: http.StatusServiceUnavailable, Message: why[0]}
	}
	_, err := io.WriteString(w, "ready\n")
	return err
}

func (n *Node) getSummary(w http.ResponseWriter, r *http.Request) error {
	life := n.stats.snapshot()
	last, at := n.periods.period()
	return writeJSON(w, Summary{
		Totals: sum(last), Period: SummaryPeriod.String(), Generated: at, ByType: last,
		Lifetime: sum(life), LifetimeByType: life, Started: n.started, Version: n.version,
	})
}

func (n *Node) getObjects(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	limit := 1000
	if v := q.Get("limit"); v != "" {
		var err error
		if limit, err = strconv.Atoi(v); err != nil || limit < 1 || limit > 10_000 {
			return &httpsrv.Error{Status: http.StatusBadRequest, Message: fmt.Sprintf("limit: found %q, expected a number from 1 to 10000.", v)}
		}
	}
	list, err := n.store.List(Selection{Key: q.Get("key"), Prefix: q.Get("prefix"), Publisher: q.Get("publisher")}.Filter(), q.Get("after"), limit)
	if err != nil {
		return err
	}
	return writeJSON(w, objectInfos(list))
}

func (n *Node) postPurge(w http.ResponseWriter, r *http.Request) error {
	var s Selection
	if err := readJSON(r, &s); err != nil {
		return err
	}
	f, err := s.filter()
	if err != nil {
		return err
	}
	if !s.DryRun {
		n.filler.ForgetAll()
	}
	res, err := n.store.Purge(f, s.DryRun)
	if err != nil {
		return err
	}
	if !s.DryRun {
		n.log.InfoContext(r.Context(), "purged", "key", s.Key, "prefix", s.Prefix, "publisher", s.Publisher, "objects", res.Objects, "bytes", res.Bytes)
	}
	return writeJSON(w, Selected{res.Objects, res.Bytes, s.DryRun})
}

func (n *Node) postPin(w http.ResponseWriter, r *http.Request) error {
	var s Selection
	if err := readJSON(r, &s); err != nil {
		return err
	}
	f, err := s.filter()
	if err != nil {
		return err
	}
	res, err := n.store.Pin(f, !s.Off)
	if err != nil {
		return err
	}
	return writeJSON(w, Selected{Objects: res.Objects, Bytes: res.Bytes})
}

// postScrub reads stored chunks again and drops those that have rotted. It
// answers when it is through.
func (n *Node) postScrub(w http.ResponseWriter, r *http.Request) error {
	var s ScrubRequest
	if err := readJSON(r, &s); err != nil {
		return err
	}
	res, err := n.store.Scrub(r.Context(), s.Filter(), s.Rate)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	if err != nil {
		return err
	}
	return writeJSON(w, Scrubbed(res))
}

func (n *Node) getExplain(w http.ResponseWriter, r *http.Request) error {
	e, err := n.catalog.Load().Explain(r.URL.Query().Get("url"))
	if err != nil {
		return &httpsrv.Error{Status: http.StatusBadRequest, Message: err.Error(), Err: err}
	}
	return writeJSON(w, e)
}
