package node

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"larder/internal/node/catalog"
	"larder/internal/node/freshness"
	"larder/internal/node/origin"
	"larder/internal/node/store"
)

// learn takes from an answer that goes to one client what it says of stored
// ones: that they are no longer good (RFC 9111, 4.4), or what a HEAD tells of
// them (4.3.5).
func (j *job) learn(resp *origin.Response) {
	if j.match.Freshness != catalog.Standard {
		return
	}
	switch j.method {
	case http.MethodHead:
		j.update(resp)
	case http.MethodGet, http.MethodOptions, http.MethodTrace:
	default: // methods that are not known may change anything
		if resp.Status >= 200 && resp.Status < 400 {
			j.invalidate(resp.Header)
		}
	}
}

// invalidate drops what is stored of the URI that was asked for, and of those
// that the answer names on the same host.
func (j *job) invalidate(h http.Header) {
	j.n.forget(j.match.Key)
	base, err := url.Parse(j.asked.scheme + "://" + j.asked.host + j.asked.target())
	if err != nil {
		return
	}
	for _, name := range []string{"Location", "Content-Location"} {
		v := h.Get(name)
		if v == "" {
			continue
		}
		u, err := base.Parse(v)
		if err != nil || u.Scheme != j.asked.scheme || !strings.EqualFold(u.Hostname(), base.Hostname()) {
			continue // another host has no say here, and a broken value none at all
		}
		m, err := j.n.catalog.Load().Match(&catalog.Request{Scheme: u.Scheme, Host: j.asked.host, Path: u.EscapedPath(), RawQuery: u.RawQuery, Explicit: j.asked.named})
		if err == nil && m.Freshness == catalog.Standard {
			j.n.forget(m.Key)
		}
	}
}

// forget drops what is stored under a key. The next request asks the origin,
// whatever is on its way.
func (n *Node) forget(key string) {
	n.filler.Forget(key)
	if obj, err := n.store.Get(key); err == nil {
		obj.Doom()
		obj.Release()
	}
}

// update freshens the stored answer by that of a HEAD, or drops it if that is
// about another one.
//
// One that was asked with credentials, or with fields that do not go upstream
// for shared answers, tells nothing of those: they could have made it another. Of
// one that forbids to keep it nothing is kept (RFC 9111, 5.2.1.5).
func (j *job) update(resp *origin.Response) {
	if resp.Status != http.StatusOK || j.credentials() != "" || freshness.NoStore(j.conditions()) || slices.ContainsFunc(notShared, func(name string) bool { return j.x.Get(name) != "" }) {
		return
	}
	j.key = j.match.Key
	obj, err := j.find()
	if err != nil {
		return
	}
	defer obj.Release()
	old := obj.Meta()
	if old.Status != http.StatusOK || old.Size < 0 || old.RequestTime.After(j.x.Start) {
		return
	}
	m := *old
	m.RequestTime, m.ResponseTime = j.x.Start, time.Now()
	merged := freshness.Merge304(header(old), resp.Header)
	// What varies by more than it did was got with fields that are not known now.
	selects := selecting(merged, j.conditions())
	same := slices.EqualFunc(selects, old.Selecting, func(a, b store.Field) bool { return a.Name == b.Name })
	if !same || !freshness.SameContent(header(old), resp.Header, old.Size, resp.ContentLength) || !storable(anybody, &m, merged) {
		j.n.filler.Forget(j.key)
		obj.Doom()
		return
	}
	m.Header = fields(freshness.Kept(freshness.Standard, merged))
	m.ETag, m.LastModified = merged.Get("Etag"), merged.Get("Last-Modified")
	_ = obj.SetMeta(&m) // it went away meanwhile
}
