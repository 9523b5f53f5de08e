package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"larder/internal/fleet"
	"larder/internal/node/catalog"
	"larder/internal/node/config"
	"larder/internal/node/origin"
	"larder/internal/node/store"
)

// desired is what the control plane has made of the node: the document in use.
// Where a part of it is missing, the configuration file is in charge.
type desired struct {
	applying sync.Mutex                    // held while a document is applied
	doc      atomic.Pointer[fleet.Desired] // nil before the first
	draining atomic.Bool
}

// Apply makes the node what the document says. All of it is looked at, and what
// is new is complete, before anything changes: a mistake leaves the node as it
// is, and the error names every field of the document that is wrong. Running
// requests end as they began. It may be called before Run and while it serves.
func (n *Node) Apply(ctx context.Context, d *fleet.Desired) error {
	n.desired.applying.Lock()
	defer n.desired.applying.Unlock()

	next, err := n.build(d)
	if err != nil {
		return err
	}
	// Drives are the one part that may fail although all is right, so they are
	// first; SetDrives itself changes nothing when it fails.
	if err := n.setDrives(ctx, next.drives); err != nil {
		return err
	}
	n.catalogs.use(next.catalog, next.builtin, next.publishers)
	if old := n.desired.doc.Load(); old == nil && d.Proxy != nil || old != nil && !same(old.Proxy, d.Proxy) {
		n.origin.SetProxy(next.proxy, next.proxyRoots, next.noProxy)
	}
	if old := n.desired.doc.Load(); old == nil && d.Limit != nil || old != nil && !same(old.Limit, d.Limit) {
		n.origin.SetLimit(next.limit)
	}
	if n.https.renewer != nil {
		n.https.renewer.SetClientNames(d.ClientNames)
	}
	n.desired.draining.Store(d.Drain)
	n.desired.doc.Store(d)
	n.jobs.want(d.Prefill, d.Purge)
	n.log.InfoContext(ctx, "document in use", "number", d.Number)
	return nil
}

// built is what a document comes to, before anything of it is in use.
type built struct {
	drives     []store.Drive
	catalog    *catalog.Catalog
	builtin    []string
	publishers []catalog.Source
	proxy      *url.URL
	proxyRoots *x509.CertPool
	noProxy    func(string) bool
	limit      origin.Limit
}

func (n *Node) build(d *fleet.Desired) (*built, error) {
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
	}
	b := &built{limit: limit(n.cfg.Upstream.Limit), builtin: n.cfg.Catalog.Builtin, drives: storeOptions(n.cfg).Drives}
	if len(d.Drives) > 0 {
		b.drives = nil
		for i, dr := range d.Drives {
			if !filepath.IsAbs(dr.Path) {
				wrong(fmt.Sprintf("drives[%d].path", i), "found %q, expected an absolute path on this machine", dr.Path)
			}
			b.drives = append(b.drives, store.Drive{Path: dr.Path, Budget: dr.Size})
		}
	}
	if d.Limit != nil {
		b.limit = limitOf(d.Limit, wrong)
	}
	n.buildProxy(d.Proxy, b, wrong)
	if d.Catalog != nil {
		b.builtin = d.Catalog.Builtin
		files := catalog.Memory{}
		for i, p := range d.Catalog.Publishers {
			name := p.Name + ".yaml"
			if p.Name == "" || strings.ContainsAny(p.Name, `/\`) || strings.HasPrefix(p.Name, ".") || files[name] != nil {
				wrong(fmt.Sprintf("catalog.publishers[%d].name", i), "found %q, expected a name that no other has", p.Name)
				continue
			}
			files[name] = []byte(p.File)
		}
		if len(files) > 0 {
			b.publishers = []catalog.Source{{Name: "the control plane", FS: files}}
		}
	}
	var err error
	if b.catalog, err = n.catalogs.compile(b.builtin, b.publishers); err != nil {
		errs = append(errs, fmt.Errorf("catalog: %w", err))
	}
	for i, name := range d.ClientNames {
		if _, err := netip.ParseAddr(name); err != nil && (name == "" || strings.ContainsAny(name, " /:\\*")) {
			wrong(fmt.Sprintf("clientNames[%d]", i), "found %q, expected a host name or an IP address", name)
		}
	}
	checkJobs(d, wrong)
	return b, errors.Join(errs...)
}

func limitOf(l *fleet.Limit, wrong func(field, format string, args ...any)) origin.Limit {
	out := origin.Limit{Rate: l.Rate}
	if l.Rate < 0 {
		wrong("limit.rate", "found %d, expected bytes per second, or 0 for no limit", l.Rate)
	}
	for i, w := range l.Schedule {
		at := fmt.Sprintf("limit.schedule[%d]", i)
		o := origin.Window{From: time.Duration(w.From) * time.Minute, To: time.Duration(w.To) * time.Minute, Rate: w.Rate}
		if w.From < 0 || w.From >= w.To || w.To > 24*60 {
			wrong(at, "found %d to %d, expected minutes since midnight, from before to", w.From, w.To)
		}
		if w.Rate < 0 {
			wrong(at+".rate", "found %d, expected bytes per second, or 0 for no limit", w.Rate)
		}
		for _, day := range w.Days {
			if day < time.Sunday || day > time.Saturday {
				wrong(at+".days", "found %d, expected 0, Sunday, to 6", day)
				continue
			}
			o.Days[day] = true
		}
		out.Windows = append(out.Windows, o)
	}
	return out
}

func (n *Node) buildProxy(p *fleet.Proxy, b *built, wrong func(field, format string, args ...any)) {
	_, noProxy, err := origin.ProxyFromEnvironment(n.getenv)
	if err == nil {
		b.noProxy = noProxy
	}
	if b.proxyRoots, err = ProxyRoots(n.cfg); err != nil {
		wrong("proxy", "%v", err)
	}
	switch {
	case p == nil:
		b.proxy = n.cfg.Upstream.Proxy.URL()
	case p.URL != "":
		var cp config.Proxy
		if err := cp.UnmarshalText([]byte(p.URL)); err != nil {
			wrong("proxy.url", "%v", err) // it does not quote what may be a password
		}
		b.proxy = cp.URL()
	}
	if p != nil && p.CA != "" {
		if b.proxyRoots, err = withSystem([]byte(p.CA)); err != nil {
			wrong("proxy.ca", "%v", err)
		}
	}
}

// setDrives gives the store its drives, those it knew before with their ids.
func (n *Node) setDrives(ctx context.Context, drives []store.Drive) error {
	now := n.store.Drives()
	equal := len(now) == len(drives)
	for i := 0; equal && i < len(now); i++ {
		equal = now[i].Path == drives[i].Path && now[i].Budget == drives[i].Budget
	}
	if equal {
		return nil
	}
	file := filepath.Join(n.cfg.State, "drives.json")
	if err := knownDrives(file, drives); err != nil {
		return err
	}
	if err := n.store.SetDrives(ctx, drives); err != nil {
		return err
	}
	return rememberDrives(file, n.store.Drives())
}

// Draining reports whether the node was asked to take itself out of rotation.
func (n *Node) Draining() bool { return n.desired.draining.Load() }

// same reports whether two parts of a document say the same.
func same(a, b any) bool { return reflect.DeepEqual(a, b) }
