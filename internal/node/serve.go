package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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
	*j = job{n: n, x: x, method: x.Method(), get: j.get}
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
	if m.Freshness == catalog.Standard && !read {
		j.fwd = freshness.ForwardMethod
		if j.forwards() == 0 {
			j.lastRecipient()
			return
		}
		j.pass()
		return
	}
	if !read {
		x.Add("Allow", "GET, HEAD")
		j.refuse(http.StatusMethodNotAllowed, "This content can only be read.")
		return
	}
	// What changed upstream while it was being opened is opened again.
	j.key = m.Key
	for range 3 {
		if j.open() {
			return
		}
		j.letGo()
	}
	if m.Freshness == catalog.Standard {
		j.pass()
		return
	}
	j.refuse(http.StatusBadGateway, "The content keeps changing upstream.")
}

// open finds or fetches the content and answers. False: what it found went
// away in between, and it is worth another look.
func (j *job) open() bool {
	n, m := j.n, j.match
	obj, err := j.find()
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		// Not known is not absent: the request is served, but from upstream.
		n.log.Warn("store lookup", "key", j.key, "err", err)
	}
	switch {
	case err == nil:
		j.obj, j.meta = obj, obj.Meta()
		if !j.mayUse() {
			j.letGo()
			if freshness.Decide(time.Now(), freshness.Standard, 0, nil, j.conditions()).Action == freshness.GatewayTimeout {
				j.refuse(http.StatusGatewayTimeout, nothingStored)
				return true
			}
			j.pass()
			return true
		}
	case m.Freshness == catalog.Standard && freshness.Decide(time.Now(), freshness.Standard, 0, nil, j.conditions()).Action == freshness.GatewayTimeout:
		j.refuse(http.StatusGatewayTimeout, nothingStored)
		return true
	case m.Freshness == catalog.Standard && j.alone():
		j.pass()
		return true
	default:
		return j.fetch(fill.Want{}, nil)
	}
	if m.Freshness == catalog.Immutable {
		j.how = hit
		return j.answer()
	}
	now := time.Now()
	d := freshness.Decide(now, policy(m.Freshness), m.MaxAge, j.stored(), j.conditions())
	switch d.Action {
	case freshness.Use:
		j.how = hit
		j.ttl = d.Lifetime - d.Age
		if d.Refresh && !freshness.NoStore(j.conditions()) {
			j.refresh()
		}
		return j.answer()
	case freshness.GatewayTimeout:
		j.refuse(http.StatusGatewayTimeout, nothingStored)
		return true
	}
	if m.Freshness == catalog.Standard && j.alone() {
		j.letGo()
		j.pass()
		return true
	}
	j.fwd = d.CacheStatus().Forward
	return j.fetch(fill.Want{Revalidate: true}, &d)
}

// alone reports whether the origin's answer to a standard publisher's request is
// for the one who asks only, if the origin must be asked: a HEAD brings nothing to
// keep, and whoever forbids to keep it, or asks about the origin's own
// representation (RFC 9110, 13.1.1 and 13.1.4), is to hear what it says.
func (j *job) alone() bool {
	return j.method == http.MethodHead || freshness.NoStore(j.conditions()) ||
		j.x.Get("If-Match") != "" || j.x.Get("If-Unmodified-Since") != ""
}

const nothingStored = "Nothing stored can answer this, and the request forbids to fetch it."

// find returns what is stored and was chosen by fields that this request has
// too, held; else it leaves in j.key what the answer is to be kept under.
func (j *job) find() (*store.Object, error) {
	obj, err := j.n.store.Get(j.key)
	if err != nil || j.chosen(obj.Meta()) {
		return obj, err
	}
	if j.key == j.match.Key {
		j.fwd = freshness.ForwardVary
		j.key = j.variant(obj.Meta(), obj.Generation())
		obj.Release()
		if obj, err = j.n.store.Get(j.key); err != nil || j.chosen(obj.Meta()) {
			return obj, err
		}
	}
	obj.Doom() // the origin varies by other fields than it did
	obj.Release()
	return nil, store.ErrNotFound
}

// chosen reports whether an answer is the one for this request's fields.
func (j *job) chosen(m *store.Meta) bool {
	return len(m.Selecting) == 0 || freshness.Selects(selection(m), j.conditions())
}

// variant is the key of the answer for this request's fields, given the variant
// that is under the URI's own key: that which came first. Its generation is part
// of the key, so that what replaces or invalidates it does so to all of them.
func (j *job) variant(m *store.Meta, generation uint64) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d\n", generation)
	for _, s := range freshness.Reselect(selection(m), j.conditions()) {
		fmt.Fprintf(h, "%d %s %d %s\n", len(s.Name), s.Name, len(s.Value), s.Value)
	}
	return j.match.Key + "\nvariant " + hex.EncodeToString(h.Sum(nil)[:16])
}

// selection shows a stored answer's selecting fields to freshness.
func selection(m *store.Meta) []freshness.Selecting {
	s := make([]freshness.Selecting, len(m.Selecting))
	for i, f := range m.Selecting {
		s[i] = freshness.Selecting(f)
	}
	return s
}

// mayUse reports whether the answer that was found may be used, validated or
// not, for a request with credentials.
func (j *job) mayUse() bool {
	return j.match.Freshness != catalog.Standard || j.x.Get("Authorization") == "" || freshness.ForAll(j.stored())
}

// stored shows what was found to freshness.
func (j *job) stored() *freshness.Stored {
	if j.obj == nil {
		return stored(j.meta).(*freshness.Stored)
	}
	return j.obj.Derived(j.meta, stored).(*freshness.Stored)
}

func stored(m *store.Meta) any {
	s := &freshness.Stored{Status: m.Status, Header: header(m), RequestTime: m.RequestTime, ResponseTime: m.ResponseTime}
	return s.Prepare()
}

// conditions shows the request to freshness, as long as it is answered.
func (j *job) conditions() *freshness.Request {
	j.request = freshness.Request{Method: j.method, Header: j.get}
	return &j.request
}

// fetch asks upstream, together with everybody who asks for the same now.
// d is set when there is a stored object that has to be revalidated.
func (j *job) fetch(w fill.Want, d *freshness.Decision) bool {
	n, m := j.n, j.match
	if !w.Revalidate {
		w = j.want()
	}
	res := j.resource()
	if m.Freshness == catalog.Standard {
		res.interim = &interims{x: j.x}
	}
	o, err := n.filler.Open(n.ctx, j.key, res, w)
	res.interim.end()
	j.shared = o.Shared
	switch {
	case errors.Is(err, fill.ErrPass), errors.Is(err, fill.ErrUnaskedPart) && m.Freshness == catalog.Standard:
		// Nothing can be made of it for others; the client has asked for itself.
		j.letGo()
		j.pass()
		return true
	case errors.Is(err, errNotConfirmed):
		j.obj.Doom()
		return false
	case err != nil && d != nil && staleInstead(d, err):
		// A stored answer that was good is better than none.
		j.how = stale
		n.log.Info("serving stale content", "key", j.key, "err", err)
		return j.answer()
	case err != nil && o.Shared && m.Freshness == catalog.Standard && (upstream{n}).Remember(res, err) == 0 && !errors.As(err, new(*fill.UnsatisfiedError)) && !errors.As(err, new(*fill.TimeoutError)):
		// It may be the fault of what the one who asked sent. Silence is not waited
		// for twice.
		j.letGo()
		j.pass()
		return true
	case err != nil:
		j.fail(err)
		return true
	case o.Pass != nil && d != nil && d.StaleIfError && o.Pass.Status >= 500 && o.Pass.Status != http.StatusNotImplemented:
		o.Pass.Body.Close()
		j.how = stale
		return j.answer()
	case o.Pass != nil && o.Pass.Status == http.StatusPartialContent:
		// The part that was asked for suits the store, not this client.
		o.Pass.Body.Close()
		j.letGo()
		j.pass()
		return true
	case o.Pass != nil:
		j.letGo()
		j.relay(o.Pass, o.Pass.Size)
		return true
	case o.Renewed && !j.upToDate():
		return false // it was stored, or replaced, in between
	case o.Renewed:
		j.meta = j.obj.Meta()
		switch {
		case !j.chosen(j.meta), j.tooEarly(): // it was validated for somebody else
			return false
		case !j.mayUse():
			j.letGo()
			j.pass()
			return true
		}
		j.how = revalidated
		return j.answer()
	}
	if obj := j.obj; obj != nil {
		obj.Release() // the old generation
		j.obj, j.meta = nil, nil
	}
	j.how = miss
	j.content, j.res = o.Content, res
	if obj, ok := o.Content.Object().(*store.Object); ok {
		obj.Retain()
		j.obj, j.meta = obj, obj.Meta()
	} else {
		j.meta = &o.Content.Object().(*unstored).meta
	}
	if !j.chosen(j.meta) {
		// It was got together with a request that has other fields.
		j.key = j.variant(j.meta, o.Content.Object().Generation())
		return false
	}
	if !j.mayUse() {
		j.letGo()
		j.pass()
		return true
	}
	if j.tooEarly() {
		return false
	}
	return j.answer()
}

// tooEarly reports whether the answer, which is somebody else's, was asked for
// before this request came and may not be reused without asking (RFC 9111,
// section 4: no-cache, stale as it came, or the client's own wish). Who waited
// for it in vain then shares one that is asked for now.
func (j *job) tooEarly() bool {
	return j.match.Freshness == catalog.Standard && j.meta.RequestTime.Before(j.x.Start) &&
		freshness.Decide(time.Now(), freshness.Standard, 0, j.stored(), j.conditions()).Action != freshness.Use
}

// upToDate reports whether the request's object is the one that is stored.
func (j *job) upToDate() bool {
	if j.obj == nil {
		return false
	}
	obj, err := j.n.store.Get(j.key)
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

// refreshing is a refresh under way. There is one at a time of those whose answer
// is for all, and one of those whose answer may be one client's.
type refreshing struct {
	generation uint64
	own        bool
}

// refresh asks the origin in the background whether the stored object is still
// good, while this answer uses it (RFC 5861).
func (j *job) refresh() {
	n, obj, key := j.n, j.obj, j.key
	res := j.resource()
	one := refreshing{obj.Generation(), res.who != ""}
	if _, busy := n.refreshing.LoadOrStore(one, nil); busy {
		return
	}
	obj.Retain()
	n.background.Go(func() {
		defer obj.Release()
		defer n.refreshing.Delete(one)
		o, err := n.filler.Open(n.ctx, key, res, fill.Want{Revalidate: true})
		switch {
		case errors.Is(err, errNotConfirmed):
			obj.Doom()
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
	case j.x.Get("If-Range") != "":
		return fill.Want{Probe: true} // the validator decides whether there is a range at all
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
