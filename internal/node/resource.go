package node

import (
	"net/http"
	"strings"
	"sync"

	"larder/internal/node/catalog"
	"larder/internal/node/freshness"
	"larder/internal/node/front"
	"larder/internal/node/store"
)

// A resource is what one request asks for, as fill carries it to upstream and
// back. It does not change once it is made.
type resource struct {
	match   *catalog.Match
	key     string      // what the answer is kept under
	target  string      // path and query as the client sent them
	header  http.Header // what goes upstream of the client's fields
	who     string      // the client's credentials, where they go upstream
	request *freshness.Request
	interim *interims   // nil: nobody waits
	stored  *store.Meta // of the object that is to be revalidated; nil on a miss
	object  *store.Object
}

// interims are a client who waits for the answer, and is told of interim ones
// meanwhile. The request upstream may outlast it.
type interims struct {
	mu sync.Mutex
	x  *front.Exchange // nil once it does not wait any more; guarded by mu
}

func (i *interims) tell() func(status int, h http.Header) {
	if i == nil {
		return nil
	}
	return func(status int, h http.Header) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.x != nil {
			i.x.Interim(status, h)
		}
	}
}

func (i *interims) end() {
	if i == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.x = nil
}

func (r *resource) policy() freshness.Policy { return policy(r.match.Freshness) }

func policy(f catalog.Freshness) freshness.Policy {
	switch f {
	case catalog.Immutable:
		return freshness.Immutable
	case catalog.Revalidate:
		return freshness.Revalidate
	}
	return freshness.Standard
}

// resource describes this request to fill.
func (j *job) resource() *resource {
	r := &resource{match: j.match, key: j.key, target: j.asked.target(), header: j.forward(), who: j.credentials(), stored: j.meta, object: j.obj}
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
		r.request = &freshness.Request{Method: http.MethodGet, Header: func(name string) string { return fields[http.CanonicalHeaderKey(name)] }}
	}
	return r
}

// forward returns the request fields that go upstream for an answer that may
// be shared: nothing that is not in the key may change it. A standard
// publisher's origin says by Vary what may, so it gets all but the conditions
// and ranges, which are the cache's business, and fields that steer origins
// without being part of any request that a browser makes.
func (j *job) forward() http.Header {
	if j.match.Freshness == catalog.Standard {
		h := j.endToEnd()
		for _, name := range notShared {
			delete(h, name)
		}
		return h
	}
	h := http.Header{}
	if ua := j.x.Get("User-Agent"); ua != "" {
		h.Set("User-Agent", ua)
	}
	if via := j.x.Get("Via"); via != "" {
		h.Set("Via", via)
	}
	return h
}

// notShared are request fields that do not go upstream for an answer that may
// be shared: conditions and ranges, and what some origins take for another host,
// path or method than was asked for. Pages that they change, and that are kept
// for all, are how caches are poisoned.
var notShared = []string{
	"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range",
	"X-Host", "X-Original-Host", "X-Original-Url", "X-Rewrite-Url", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override",
	"X-Original-Uri", "X-Url-Scheme", "Front-End-Https", // X-Forwarded-… and its like never go upstream (package origin)
}

// credentials are what no other request may share a first answer with: it may
// turn out to be for one user alone.
func (j *job) credentials() string {
	if j.match.Freshness != catalog.Standard {
		return ""
	}
	authorization, cookie := j.x.Get("Authorization"), j.x.Get("Cookie")
	if authorization == "" && cookie == "" {
		return ""
	}
	return authorization + "\n" + cookie
}

// rangesOf is what is known to have ranges or not: the host, or of a standard
// publisher, whose origins are programs of any kind, the path on it.
func (r *resource) rangesOf() string {
	if r.match.Freshness != catalog.Standard {
		return r.match.Origin.Host
	}
	path, _, _ := strings.Cut(r.target, "?")
	return r.match.Origin.Host + path
}

// name returns the host by which people know the content: the one asked for,
// or, where clients may call the node what they like, the origin's.
func (r *resource) name() string {
	if r.match.Publisher.Default {
		return r.match.Origin.Host
	}
	return r.match.Host
}

// keyedPath returns the part of a key behind the content id: the path, and the
// query as far as it is in the key.
func keyedPath(key string) string {
	_, path, _ := strings.Cut(key, "\n")
	return path
}

// selecting is what of the request chose an answer with the header h.
func selecting(h http.Header, r *freshness.Request) (fs []store.Field) {
	if r == nil {
		return nil
	}
	s, _ := freshness.Selection(h, r)
	for _, x := range s {
		fs = append(fs, store.Field(x))
	}
	return fs
}
