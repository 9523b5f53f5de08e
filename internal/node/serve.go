package node

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"larder/internal/byterange"
	"larder/internal/node/catalog"
	"larder/internal/node/fill"
	"larder/internal/node/freshness"
	"larder/internal/node/front"
	"larder/internal/node/origin"
	"larder/internal/node/store"
)

// serve takes one request its whole way: who is asked for, what the catalogue
// says, what is stored, what has to be fetched, and the answer.
func (n *Node) serve(x *front.Exchange) {
	if n.https.challenges.Pending() && n.https.answerChallenge(x) {
		return
	}
	j := jobs.Get().(*job)
	*j = job{n: n, x: x, method: x.Method()}
	x.Done = j.done
	j.target = x.Target()
	a, sentence, ok := parseAsked(j.target, x.Host(), x.TLS())
	if j.method == http.MethodConnect {
		j.refuse(http.StatusMethodNotAllowed, "This is a cache, not a tunnel: CONNECT is not served.")
		return
	}
	if !ok {
		j.refuse(http.StatusBadRequest, sentence)
		return
	}
	j.asked = a
	if via := x.Get("Via"); via != "" && n.origin.Looped(via) {
		j.refuse(http.StatusLoopDetected, "The request came back to the node that sent it.")
		return
	}
	m, err := n.catalog.Load().Match(&catalog.Request{Scheme: a.scheme, Host: a.host, Path: a.path, RawQuery: a.query, Explicit: a.named})
	if err != nil {
		var no *catalog.NotServedError
		if !errors.As(err, &no) {
			n.log.Error("catalogue lookup", "err", err)
			j.refuse(http.StatusInternalServerError, "The catalogue could not be asked.")
			return
		}
		if !a.named && a.path == "/" {
			j.refuse(http.StatusForbidden, no.Reason+" This is a Larder cache node; whoever runs it sees more with \"larder node status\".")
			return
		}
		j.refuse(http.StatusForbidden, no.Reason)
		return
	}
	j.match = m
	if a.port != "" && a.port != "80" && a.port != "443" && m.Origin.Address == "" {
		j.refuse(http.StatusForbidden, "Only the standard ports are served.")
		return
	}
	if p := m.Publisher; p.Methods != nil && !slices.Contains(p.Methods, j.method) {
		x.Add("Allow", strings.Join(p.Methods, ", "))
		j.refuse(http.StatusMethodNotAllowed, "This content can only be read.")
		return
	}
	read := j.method == http.MethodGet || j.method == http.MethodHead
	if m.Freshness == catalog.Standard && (!read || j.uncacheable()) {
		j.pass()
		return
	}
	if !read {
		x.Add("Allow", "GET, HEAD")
		j.refuse(http.StatusMethodNotAllowed, "This content can only be read.")
		return
	}
	// What changed upstream while it was being opened is opened again.
	for range 3 {
		if j.open() {
			return
		}
		j.letGo()
	}
	j.refuse(http.StatusBadGateway, "The content keeps changing upstream.")
}

// uncacheable reports whether a request to a standard publisher must not be
// answered from, or kept in, a shared cache: its answer is the asker's own.
func (j *job) uncacheable() bool {
	return j.x.Get("Authorization") != "" || j.method == http.MethodHead
}

// open finds or fetches the content and answers. False: what it found went
// away in between, and it is worth another look.
func (j *job) open() bool {
	n, m := j.n, j.match
	obj, err := n.store.Get(m.Key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		// Not known is not absent: the request is served, but from upstream.
		n.log.Warn("store lookup", "key", m.Key, "err", err)
	}
	if err != nil {
		return j.fetch(fill.Want{}, nil)
	}
	j.obj = obj
	j.meta = obj.Meta()
	if m.Freshness == catalog.Immutable {
		j.how = hit
		return j.answer()
	}
	now := time.Now()
	d := freshness.Decide(now, policy(m.Freshness), m.MaxAge, stored(j.meta), j.conditions())
	switch d.Action {
	case freshness.Use:
		j.how = hit
		j.ttl = d.Lifetime - d.Age
		if d.Refresh {
			j.refresh()
		}
		return j.answer()
	case freshness.GatewayTimeout:
		j.refuse(http.StatusGatewayTimeout, "Nothing stored can answer this, and the request forbids to fetch it.")
		return true
	}
	return j.fetch(fill.Want{Revalidate: true}, &d)
}

// stored shows a stored object to freshness.
func stored(m *store.Meta) *freshness.Stored {
	return &freshness.Stored{Status: m.Status, Header: header(m), RequestTime: m.RequestTime, ResponseTime: m.ResponseTime}
}

// conditions shows the request to freshness.
func (j *job) conditions() *freshness.Request {
	return &freshness.Request{Method: j.method, Header: j.x.Get}
}

// resource describes this request to fill.
func (j *job) resource() *resource {
	r := &resource{match: j.match, target: j.asked.target(), header: j.forward(), stored: j.meta, object: j.obj}
	if j.match.Freshness == catalog.Standard {
		// The request outlives its exchange: what is asked of it later is copied.
		fields := map[string]string{}
		j.x.Fields(func(name, value string) {
			name = http.CanonicalHeaderKey(name)
			if old, ok := fields[name]; ok {
				value = old + ", " + value
			}
			fields[name] = value
		})
		r.request = &freshness.Request{Method: j.method, Header: func(name string) string { return fields[http.CanonicalHeaderKey(name)] }}
	}
	return r
}

// forward returns the request fields that go upstream for an answer that may
// be shared: nothing that is not in the key may change it, except what a
// standard publisher's Vary would name.
func (j *job) forward() http.Header {
	h := http.Header{}
	if ua := j.x.Get("User-Agent"); ua != "" {
		h.Set("User-Agent", ua)
	}
	if via := j.x.Get("Via"); via != "" {
		h.Set("Via", via)
	}
	if j.match.Freshness == catalog.Standard {
		for _, name := range []string{"Accept", "Accept-Language", "Accept-Charset"} {
			if v := j.x.Get(name); v != "" {
				h.Set(name, v)
			}
		}
	}
	return h
}

// fetch asks upstream, together with everybody who asks for the same now.
// d is set when there is a stored object that has to be revalidated.
func (j *job) fetch(w fill.Want, d *freshness.Decision) bool {
	n, m := j.n, j.match
	if d == nil && strings.Contains(strings.ToLower(j.x.Get("Cache-Control")), "only-if-cached") && m.Freshness == catalog.Standard {
		j.refuse(http.StatusGatewayTimeout, "Nothing stored can answer this, and the request forbids to fetch it.")
		return true
	}
	if !w.Revalidate {
		w = j.want()
	}
	res := j.resource()
	o, err := n.filler.Open(n.ctx, m.Key, res, w)
	switch {
	case errors.Is(err, fill.ErrPass):
		j.letGo()
		j.pass()
		return true
	case errors.Is(err, errNotConfirmed):
		j.obj.Doom()
		return false
	case err != nil && d != nil && staleInstead(d, err):
		// A stored answer that was good is better than none.
		j.how = stale
		n.log.Info("serving stale content", "key", m.Key, "err", err)
		return j.answer()
	case err != nil:
		j.fail(err)
		return true
	case o.Pass != nil && d != nil && d.StaleIfError && o.Pass.Status >= 500 && o.Pass.Status != http.StatusNotImplemented:
		o.Pass.Body.Close()
		j.how = stale
		return j.answer()
	case o.Pass != nil:
		j.letGo()
		j.relay(o.Pass)
		return true
	case o.Renewed && !j.upToDate():
		return false // it was stored, or replaced, in between
	case o.Renewed:
		j.meta = j.obj.Meta()
		j.how = revalidated
		return j.answer()
	}
	if obj := j.obj; obj != nil {
		obj.Release() // the old generation
		j.obj, j.meta = nil, nil
	}
	j.how = miss
	j.content = o.Content
	if obj, ok := o.Content.Object().(*store.Object); ok {
		obj.Retain()
		j.obj, j.meta = obj, obj.Meta()
	} else {
		j.meta = &o.Content.Object().(*unstored).meta
	}
	return j.answer()
}

// upToDate reports whether the request's object is the one that is stored.
func (j *job) upToDate() bool {
	if j.obj == nil {
		return false
	}
	obj, err := j.n.store.Get(j.match.Key)
	if err != nil {
		return false
	}
	defer obj.Release()
	return obj.Generation() == j.obj.Generation()
}

// staleInstead reports whether the stored answer may stand in for the failure
// err: when the origin could not be asked, or said that it is out of order, but
// never against its own word about the content.
func staleInstead(d *freshness.Decision, err error) bool {
	var se *fill.StatusError
	if errors.As(err, &se) {
		return se.Status >= 500 && d.StaleIfError
	}
	return d.StaleIfError || d.StaleIfUnreachable
}

// refresh asks the origin in the background whether the stored object is still
// good, while this answer uses it (RFC 5861).
func (j *job) refresh() {
	n, obj, res, key := j.n, j.obj, j.resource(), j.match.Key
	obj.Retain()
	n.background.Go(func() {
		defer obj.Release()
		o, err := n.filler.Open(n.ctx, key, res, fill.Want{Revalidate: true})
		switch {
		case err != nil:
			n.log.Debug("background refresh", "key", key, "err", err)
		case o.Pass != nil:
			o.Pass.Body.Close()
		case o.Content != nil:
			o.Content.Close()
		}
	})
}

// want translates the request's Range into what is to be fetched first.
func (j *job) want() fill.Want {
	if j.method == http.MethodHead {
		return fill.Want{Probe: true}
	}
	whole := fill.Want{Range: byterange.Range{End: -1}, Whole: j.match.Freshness != catalog.Immutable}
	v := j.x.Get("Range")
	if v == "" {
		return whole
	}
	specs, ok := byterange.Parse(v)
	switch {
	case !ok || len(specs) == 0:
		return whole
	case len(specs) > 1 || specs[0].First < 0:
		return fill.Want{Probe: true} // the length decides what is needed
	case specs[0].Last < 0:
		return fill.Want{Range: byterange.Range{Start: specs[0].First, End: -1}}
	case specs[0].Last == 1<<63-1:
		return fill.Want{Range: byterange.Range{Start: specs[0].First, End: -1}}
	}
	return fill.Want{Range: byterange.Range{Start: specs[0].First, End: specs[0].Last + 1}}
}

// fail answers with what went wrong upstream. Transient trouble is 502, 503 or
// 504, never 4xx: a client bans the node for those (docs/protocol.md).
func (j *job) fail(err error) {
	var (
		se *fill.StatusError
		ue *fill.UnsatisfiedError
		te *fill.TimeoutError
		oe *origin.Error
	)
	j.err = err
	switch {
	case errors.As(err, &ue):
		j.x.Add("Content-Range", byterange.Unsatisfied(ue.Size))
		j.refuse(http.StatusRequestedRangeNotSatisfiable, "The range lies behind the end of the content.")
	case errors.As(err, &se):
		status := se.Status
		if status >= 500 && status != 503 && status != 504 || status < 400 {
			status = http.StatusBadGateway
		}
		if v := se.Header.Get("Retry-After"); v != "" {
			j.x.Add("Retry-After", v)
		}
		j.refuse(status, "The origin "+j.match.Origin.Host+" answered "+strconv.Itoa(se.Status)+".")
	case errors.As(err, &te):
		j.refuse(http.StatusGatewayTimeout, "The origin "+j.match.Origin.Host+" does not answer.")
	case errors.As(err, &oe):
		j.refuse(oe.Status, "The origin "+j.match.Origin.Host+" could not be asked ("+oe.Kind+").")
	case errors.Is(err, context.Canceled):
		j.refuse(http.StatusServiceUnavailable, "The node is stopping.")
	default:
		j.refuse(http.StatusBadGateway, "The origin "+j.match.Origin.Host+" could not be asked.")
	}
}
