package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"larder/internal/byterange"
	"larder/internal/node/catalog"
	"larder/internal/node/fill"
	"larder/internal/node/freshness"
	"larder/internal/node/origin"
	"larder/internal/node/store"
)

// byLength marks a Reply.Strong that is no HTTP validator: content whose path
// names its bytes is bound together by its length when the origin gives no
// better (docs/decisions/0003-parts-without-validator.md).
const byLength = "length:"

// upstream is the node as the filler's source and keeper: requests go through
// the origin client, answers into the store.
type upstream struct{ n *Node }

// Fetch makes one request upstream.
func (u upstream) Fetch(ctx context.Context, a *fill.Ask) (*fill.Reply, error) {
	r := a.Resource.(*resource)
	h := r.header.Clone()
	if h == nil {
		h = http.Header{}
	}
	if a.Ranged {
		h.Set("Range", "bytes="+strconv.FormatInt(a.Range.Start, 10)+"-"+strconv.FormatInt(a.Range.End-1, 10))
		if a.IfRange != "" && !strings.HasPrefix(a.IfRange, byLength) {
			h.Set("If-Range", a.IfRange)
		}
	}
	if a.Revalidate && r.stored != nil {
		etag, modified := freshness.Validators(header(r.stored))
		if etag != "" {
			h.Set("If-None-Match", etag)
		}
		if modified != "" {
			h.Set("If-Modified-Since", modified)
		}
	}
	began := time.Now()
	resp, err := u.n.origin.Do(ctx, &origin.Request{
		Endpoint: endpoint(r.match.Origin),
		Method:   http.MethodGet,
		Target:   r.target,
		Header:   h,
		Follow:   u.n.follow(r),
		Interim:  r.interim.tell(),
	})
	if err != nil {
		return nil, err
	}
	rep := &fill.Reply{Status: resp.Status, Header: resp.Header, Size: -1, Trailer: resp.Trailer}
	rep.Header.Set(requestTime, began.UTC().Format(time.RFC3339Nano))
	rep.Body = &counted{ReadCloser: resp.Body, add: u.n.stats.upstream(r.match.Publisher.ContentType)}
	switch resp.Status {
	case http.StatusNoContent:
		rep.Size = 0
	case http.StatusPartialContent:
		cr, err := byterange.ParseContentRange(resp.Header.Get("Content-Range"))
		if err != nil || !cr.Satisfied {
			resp.Body.Close()
			return nil, &origin.Error{Status: http.StatusBadGateway, Kind: "protocol", Err: fmt.Errorf("the origin sent a 206 with Content-Range %q", resp.Header.Get("Content-Range"))}
		}
		if resp.ContentLength >= 0 && resp.ContentLength != cr.Range.Len() {
			resp.Body.Close()
			return nil, &origin.Error{Status: http.StatusBadGateway, Kind: "protocol", Err: fmt.Errorf("the origin announced %d bytes for a range of %d", resp.ContentLength, cr.Range.Len())}
		}
		rep.Range, rep.Size = cr.Range, cr.Size
	case http.StatusRequestedRangeNotSatisfiable:
		if cr, err := byterange.ParseContentRange(resp.Header.Get("Content-Range")); err == nil && !cr.Satisfied {
			rep.Size = cr.Size
		}
	case http.StatusNotModified:
	default:
		rep.Size = resp.ContentLength
	}
	rep.Strong = strong(r.policy(), resp.Header, rep.Size)
	return rep, nil
}

// requestTime is a field of our own by which a reply carries when it was asked
// for; it is not stored.
const requestTime = "Larder-Request-Time"

// sent returns when the request was sent that rep answers.
func sent(rep *fill.Reply) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, rep.Header.Get(requestTime))
	return t
}

// strong returns what binds parts of a representation together; "" when
// nothing does.
func strong(p freshness.Policy, h http.Header, size int64) string {
	etag, modified := freshness.StrongValidator(h)
	switch {
	case etag != "":
		return etag
	case modified != "":
		return modified
	case p == freshness.Immutable && size >= 0:
		// Validators too weak for If-Range still tell two versions apart.
		return byLength + strconv.FormatInt(size, 10) + " " + h.Get("ETag") + " " + h.Get("Last-Modified")
	}
	return ""
}

// strongStored is strong for a stored object.
func strongStored(p freshness.Policy, m *store.Meta) string { return strong(p, header(m), m.Size) }

// header returns the fields stored with an object, with canonical names.
func header(m *store.Meta) http.Header {
	h := make(http.Header, len(m.Header))
	for _, f := range m.Header {
		h.Add(f.Name, f.Value)
	}
	return h
}

func endpoint(o catalog.Origin) origin.Endpoint {
	return origin.Endpoint{Scheme: o.Scheme, Host: o.Host, Address: o.Address, Roots: o.Roots}
}

// follow says where a redirect of r may lead: to what the catalogue serves. A
// standard publisher's redirects are its clients' to follow.
func (n *Node) follow(r *resource) func(scheme, host, target string) (origin.Endpoint, string, bool) {
	if r.match.Freshness == catalog.Standard {
		return nil
	}
	cat := n.catalog.Load()
	return func(scheme, host, target string) (origin.Endpoint, string, bool) {
		path, query, _ := strings.Cut(target, "?")
		m, err := cat.Match(&catalog.Request{Scheme: scheme, Host: host, Path: path, RawQuery: query})
		if err != nil {
			return origin.Endpoint{}, "", false
		}
		return endpoint(m.Origin), target, true
	}
}

// NoRanges reports that the origin is known to ignore Range.
func (u upstream) NoRanges(res any) bool {
	return u.n.origin.Ranges(res.(*resource).rangesOf()) == origin.RangesNo
}

// LearnNoRanges remembers that the origin ignores Range.
func (u upstream) LearnNoRanges(res any) {
	u.n.origin.LearnRanges(res.(*resource).rangesOf(), false)
}

// Begin decides about an answer and makes the object for its bytes.
func (u upstream) Begin(res any, rep *fill.Reply) (fill.Object, error) {
	r := res.(*resource)
	standard := r.match.Freshness == catalog.Standard
	if !standard && rep.Status != http.StatusOK && rep.Status != http.StatusPartialContent {
		return nil, &fill.StatusError{Status: rep.Status, Header: rep.Header}
	}
	m := u.meta(r, rep)
	if standard {
		switch {
		case storable(r.request, &m, rep.Header):
		case freshness.NoStore(r.request):
			return nil, fill.ErrOutdated // it is this request that forbids it, which says nothing of others
		default:
			return nil, fill.ErrPass
		}
	}
	if standard && u.outdated(r, &m) {
		return nil, fill.ErrOutdated
	}
	obj, err := u.n.store.Create(r.key, m)
	if err != nil {
		// No room or no drive: clients are served all the same.
		u.n.stats.unstored.Inc()
		u.n.log.Warn("object not stored", "key", r.key, "err", err)
		return newUnstored(m), nil
	}
	return obj, nil
}

// outdated reports whether what is stored by now was asked for later, and is newer
// by the origin's own clock (RFC 9111, section 4: the most recent is used).
func (u upstream) outdated(r *resource, m *store.Meta) bool {
	obj, err := u.n.store.Get(r.key)
	if err != nil {
		return false
	}
	defer obj.Release()
	old := obj.Meta()
	date := func(m *store.Meta) time.Time {
		t, _ := http.ParseTime(header(m).Get("Date"))
		return t
	}
	return old.RequestTime.After(m.RequestTime) && date(old).After(date(m))
}

// Stored reports whether the resource is stored by now, or was replaced or
// renewed since the request looked at it.
func (u upstream) Stored(res any) bool {
	r := res.(*resource)
	obj, err := u.n.store.Get(r.key)
	if err != nil {
		return false
	}
	defer obj.Release()
	return r.object == nil || obj.Generation() != r.object.Generation() || obj.Meta().ResponseTime.After(r.stored.ResponseTime)
}

// notKept are further fields that are not stored: the node makes them itself,
// or they speak of the message that brought the bytes, not of the content.
var notKept = map[string]bool{
	"Content-Length": true, "Accept-Ranges": true, "Cache-Status": true, requestTime: true,
}

// meta makes the description that is stored with an object.
func (u upstream) meta(r *resource, rep *fill.Reply) store.Meta {
	m := store.Meta{
		Publisher: r.match.Publisher.Name, ContentType: r.match.Publisher.ContentType,
		URL: r.match.Origin.Scheme + "://" + r.name() + keyedPath(r.match.Key), Status: rep.Status, Size: rep.Size,
		ETag: rep.Header.Get("ETag"), LastModified: rep.Header.Get("Last-Modified"),
		ResponseTime: time.Now(), Pin: r.match.Pin,
	}
	m.RequestTime = sent(rep)
	kept := freshness.Kept(r.policy(), rep.Header)
	if m.Status == http.StatusPartialContent {
		m.Status = http.StatusOK // the object is of the whole
		delete(kept, "Content-Range")
	}
	m.Header = fields(kept)
	m.Selecting = selecting(rep.Header, r.request)
	return m
}

// fields returns what is replayed to clients, in a fixed order.
func fields(h http.Header) []store.Field {
	names := make([]string, 0, len(h))
	for name := range h {
		if !notKept[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var fs []store.Field
	for _, name := range names {
		for _, v := range h[name] {
			fs = append(fs, store.Field{Name: spelling(name), Value: v})
		}
	}
	return fs
}

// errNotConfirmed says that a 304 was about something else than what is stored.
var errNotConfirmed = errors.New("the origin's 304 does not name the stored version")

// spelling returns a field's name as its specification writes it, where that
// differs from Go's canonical form: clients exist that compare with case
// (docs/protocol.md).
func spelling(name string) string {
	switch name {
	case "Etag":
		return "ETag"
	case "Content-Md5":
		return "Content-MD5"
	case "Www-Authenticate":
		return "WWW-Authenticate"
	case "X-Cid":
		return "X-CID"
	case "X-Ccc":
		return "X-CCC"
	}
	return name
}

// Renew takes note of a 304: the stored object is good again.
func (u upstream) Renew(res any, rep *fill.Reply) error {
	r := res.(*resource)
	if r.object == nil {
		return &origin.Error{Status: http.StatusBadGateway, Kind: "protocol", Err: errors.New("the origin answered 304 to a request without conditions")}
	}
	old := header(r.stored)
	if !freshness.Confirms(old, rep.Header) {
		return errNotConfirmed
	}
	merged := freshness.Merge304(old, rep.Header)
	m := *r.stored
	m.ResponseTime = time.Now()
	m.RequestTime = sent(rep)
	if r.policy() == freshness.Standard {
		// It may not be for all any more, or for no request at all.
		if !storable(anybody, &m, merged) {
			r.object.Doom()
			return errNotConfirmed
		}
	}
	m.Header = fields(freshness.Kept(r.policy(), merged))
	m.Selecting = selecting(merged, r.request)
	if v := merged.Get("Etag"); v != "" {
		m.ETag = v
	}
	if v := merged.Get("Last-Modified"); v != "" {
		m.LastModified = v
	}
	// Whoever asked may have given up meanwhile, and the object may be gone.
	obj, err := u.n.store.Get(r.key)
	if err != nil {
		return errNotConfirmed
	}
	defer obj.Release()
	if obj.Generation() != r.object.Generation() {
		return errNotConfirmed
	}
	if obj.Meta().RequestTime.After(m.RequestTime) {
		return nil // a HEAD that was asked later has told more
	}
	return obj.SetMeta(&m)
}

// storable reports whether an answer to r, described by m and with the header h,
// may be kept for all.
func storable(r *freshness.Request, m *store.Meta, h http.Header) bool {
	s := freshness.Stored{Status: m.Status, Header: h, RequestTime: m.RequestTime, ResponseTime: m.ResponseTime}
	return freshness.Storable(freshness.Standard, r, &s).Store
}

// anybody is a GET of nobody in particular: what decides whether an answer is for
// all.
var anybody = &freshness.Request{Method: http.MethodGet, Header: func(string) string { return "" }}

// Remember says how long a failure answers others who ask for the same.
func (u upstream) Remember(res any, err error) time.Duration {
	r := res.(*resource)
	var se *fill.StatusError
	if errors.As(err, &se) {
		switch {
		case r.match.Freshness != catalog.Immutable:
			return 0 // what is missing now may be there in a moment
		case se.Status == http.StatusNotFound || se.Status == http.StatusGone:
			return 5 * time.Second
		case se.Status >= 500:
			return 2 * time.Second
		}
		return 0 // 401, 403 and the like may be about one client's signature
	}
	var oe *origin.Error
	var te *fill.TimeoutError
	if r.match.Freshness == catalog.Standard {
		// Nearly all of the client's fields went upstream: one that makes the
		// origin fail must not fail everybody. What no request can be the reason of
		// is remembered.
		if errors.As(err, &oe) && slices.Contains(nobodysFault, oe.Kind) {
			return 2 * time.Second
		}
		return 0
	}
	if errors.As(err, &oe) && oe.Kind != origin.KindLimit && oe.Kind != origin.KindCanceled || errors.As(err, &te) {
		return 2 * time.Second
	}
	return 0
}

// nobodysFault are failures that happen before a request is sent.
var nobodysFault = []string{origin.KindResolve, origin.KindRefused, origin.KindTLS, origin.KindForbidden}

// counted counts the bytes of a body that came from upstream.
type counted struct {
	io.ReadCloser
	add func(n int)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if n > 0 {
		c.add(n)
	}
	return n, err
}

// Own reports whether nearly all of the client's fields go upstream.
func (u upstream) Own(res any) (who string, own bool) {
	r := res.(*resource)
	return r.who, r.match.Freshness == catalog.Standard
}

// Shared reports whether an answer may be kept for all.
func (u upstream) Shared(res any, rep *fill.Reply) bool {
	r := res.(*resource)
	m := u.meta(r, rep)
	return r.match.Freshness != catalog.Standard || storable(r.request, &m, rep.Header)
}

// Route names the origin, the scheme and the address that this request leads to.
func (u upstream) Route(res any) string {
	o := &res.(*resource).match.Origin
	return o.Scheme + "://" + o.Host + " " + o.Address
}
