// Package node is a running cache node: it wires the stages of a request's way
// (front, catalog, freshness, store, fill, origin), and looks after what runs
// beside them: certificates, the catalogue's files, counters, the admin calls.
package node

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"larder/internal/httpsrv"
	"larder/internal/node/accesslog"
	"larder/internal/node/catalog"
	"larder/internal/node/config"
	"larder/internal/node/fill"
	"larder/internal/node/front"
	"larder/internal/node/link"
	"larder/internal/node/origin"
	"larder/internal/node/store"
	"larder/internal/pki/livecert"
	"larder/internal/sys/disk"
	"larder/internal/sys/durable"
	"larder/internal/sys/ports"
	"larder/internal/sys/program"
)

// Node is one cache server. Open makes it, Run serves until its context ends.
type Node struct {
	cfg     *config.Config
	log     *slog.Logger
	id      string // random, kept in the state directory: Via and the loop guard
	via     string
	version string
	started time.Time

	reg      *prometheus.Registry
	stats    *stats
	periods  periods
	store    *store.Store
	origin   *origin.Client
	filler   *fill.Filler
	front    *front.Server
	access   *accesslog.Log
	cert     *livecert.Cert
	https    *https
	catalog  atomic.Pointer[catalog.Catalog]
	catalogs *catalogs
	getenv   func(string) string
	desired  desired
	jobs     *fleetJobs
	link     *link.Link // nil: no control plane
	program  *program.Watch

	ctx        context.Context // ends when Run does; what serves requests lives under it
	cancel     context.CancelFunc
	background sync.WaitGroup // refreshes; Close waits for them
	refreshing sync.Map       // of type refreshing: those under way

	serving chan struct{} // closed when the listeners are bound

	mu    sync.Mutex
	addrs Addresses // guarded by mu
}

// Addresses are where a node listens. They are in addresses.json in the state
// directory while it runs.
type Addresses struct {
	HTTP  []string `json:"http"`
	HTTPS []string `json:"https"`
	Admin string   `json:"admin"`
}

// Options are what a Node is made of besides its configuration.
type Options struct {
	Log     *slog.Logger
	Version string
	Getenv  func(string) string // default os.Getenv
	// Publishers are further publisher files that are not on disk.
	Publishers []catalog.Source
}

// Open makes a node ready: its drives are locked and open, its catalogue is
// loaded, its listeners are bound when it returns. Mistakes are errors here,
// not surprises later. Run must follow, or Close.
func Open(ctx context.Context, cfg *config.Config, o Options) (_ *Node, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	n := &Node{addrs: Addresses{HTTP: []string{}, HTTPS: []string{}}, cfg: cfg, log: o.Log, version: o.Version, started: time.Now(), reg: prometheus.NewRegistry(), serving: make(chan struct{}), getenv: o.Getenv}
	var undo []func()
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	undo = append(undo, n.cancel)
	n.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.stats = newStats(n.reg)
	setMemoryLimit(o.Getenv)

	if err := os.MkdirAll(cfg.State, 0o750); err != nil {
		return nil, fmt.Errorf("state: making the directory: %w", err)
	}
	if n.id, err = loadID(filepath.Join(cfg.State, "node-id")); err != nil {
		return nil, err
	}
	n.via = "1.1 larder-" + n.id
	if n.program, err = program.Running(); err != nil {
		return nil, fmt.Errorf("looking at the program that runs: %w", err)
	}

	if n.catalogs, err = openCatalogs(cfg, o.Publishers, n.reg, n.log, &n.catalog); err != nil {
		return nil, err
	}
	if cfg.Log.Access != "" {
		if n.access, err = accesslog.Open(accesslog.Options{
			Path: cfg.Log.Access, MaxSize: int64(cfg.Log.AccessMaxSize), Keep: cfg.Log.AccessKeep, Log: n.log, Registerer: n.reg,
		}); err != nil {
			return nil, err
		}
	}
	undo = append(undo, func() { n.access.Close() })
	if n.cert, err = livecert.Open(cfg.TLS.Dir, n.log); err != nil {
		return nil, err
	}
	if err := n.cert.Register(n.reg); err != nil {
		return nil, err
	}
	n.https = openHTTPS(ctx, n)
	undo = append(undo, n.https.close)

	so := storeOptions(cfg)
	so.Log, so.Registerer = n.log, n.reg
	drives := filepath.Join(cfg.State, "drives.json")
	if err := knownDrives(drives, so.Drives); err != nil {
		return nil, err
	}
	if n.store, err = store.Open(ctx, so); err != nil {
		return nil, err
	}
	undo = append(undo, func() { n.store.Close() })
	if err := rememberDrives(drives, n.store.Drives()); err != nil {
		return nil, err
	}

	if n.origin, err = newOrigin(cfg, n, o.Getenv); err != nil {
		return nil, err
	}
	undo = append(undo, n.origin.Close)
	up := upstream{n}
	n.filler = fill.New(fill.Config{
		Source: up, Keeper: up, Silence: cfg.Upstream.SilenceTimeout, Stall: min(5*time.Second, cfg.Upstream.SilenceTimeout/2),
		Log: n.log, Registerer: n.reg,
	})
	undo = append(undo, n.filler.Close)
	if n.jobs, err = openFleetJobs(n); err != nil {
		return nil, err
	}
	n.front = front.New(front.Config{
		Handler: n.serve, Log: n.log, Registerer: n.reg,
		MaxConns: cmp.Or(cfg.Listen.Connections, disk.MaxFiles()*3/8), MaxConnsPerAddress: cfg.Listen.ConnectionsPerAddress,
	})
	n.periods.turn(time.Now(), n.stats.snapshot())
	return n, n.openLink(ctx)
}

// LinkDir is where a node with this state directory keeps its tie to a control
// plane.
func LinkDir(state string) string { return filepath.Join(state, "fleet") }

// openLink takes up the tie to the control plane, if the node was enrolled, and
// applies the last document that worked.
func (n *Node) openLink(ctx context.Context) error {
	l, err := link.Open(link.Config{Dir: LinkDir(n.cfg.State), Node: n, Log: n.log, Registerer: n.reg, Proxy: n.origin.ProxyFor})
	if errors.Is(err, link.ErrNotEnrolled) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	n.link = l
	return l.Start(ctx)
}

// storeOptions translates the configuration for the store.
func storeOptions(cfg *config.Config) store.Options {
	o := store.Options{Reserve: int64(cfg.Reserve), ScrubRate: int64(cfg.ScrubRate)}
	for _, d := range cfg.Drives {
		o.Drives = append(o.Drives, store.Drive{Path: d.Path, Budget: int64(d.Size)})
	}
	return o
}

// Check looks for mistakes that only the machine knows: drives that are too
// small, a catalogue that does not load, a certificate that cannot be served.
// All of them at once.
func Check(cfg *config.Config) error {
	var c atomic.Pointer[catalog.Catalog]
	_, cerr := openCatalogs(cfg, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler), &c)
	_, terr := Standards(cfg)
	_, perr := ProxyRoots(cfg)
	errs := []error{store.Check(storeOptions(cfg)), cerr, terr, perr}
	if len(cfg.Listen.HTTPS) > 0 {
		// None at all is allowed: the node serves HTTP until there is one.
		if _, err := livecert.Check(cfg.TLS.Dir); err != nil && !errors.Is(err, livecert.ErrNoneActive) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func newOrigin(cfg *config.Config, n *Node, getenv func(string) string) (*origin.Client, error) {
	oc := origin.Config{
		ConnectTimeout: cfg.Upstream.ConnectTimeout,
		SilenceTimeout: cfg.Upstream.SilenceTimeout,
		ConnsPerOrigin: cfg.Upstream.ConnectionsPerOrigin,
		Limit:          limit(cfg.Upstream.Limit),
		NodeID:         n.id,
		Own:            n.own,
		Log:            n.log,
		Registerer:     n.reg,
		Proxy:          cfg.Upstream.Proxy.URL(),
	}
	var err error
	if oc.ProxyRoots, err = ProxyRoots(cfg); err != nil {
		return nil, err
	}
	if oc.Proxy != nil {
		_, noProxy, err := origin.ProxyFromEnvironment(getenv)
		if err != nil {
			return nil, fmt.Errorf("upstream.proxy: %w", err)
		}
		oc.NoProxy = noProxy
	}
	return origin.New(oc), nil
}

// ProxyRoots are the roots that origins behind a proxy that opens TLS are trusted
// by: the system's and the proxy's. They are nil if the file names none.
func ProxyRoots(cfg *config.Config) (*x509.CertPool, error) {
	if cfg.Upstream.ProxyCA == "" {
		return nil, nil
	}
	b, err := os.ReadFile(cfg.Upstream.ProxyCA)
	if err != nil {
		return nil, fmt.Errorf("upstream.proxy_ca: %w", err)
	}
	roots, err := withSystem(b)
	if err != nil {
		return nil, fmt.Errorf("upstream.proxy_ca: %s: %w", cfg.Upstream.ProxyCA, err)
	}
	return roots, nil
}

// withSystem are the system's roots and some of PEM text.
func withSystem(pem []byte) (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a machine without any: the proxy's are enough behind it
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("found no certificate, expected PEM")
	}
	return roots, nil
}

func limit(l config.Limit) origin.Limit {
	o := origin.Limit{Rate: int64(l.Rate)}
	for _, w := range l.Schedule {
		o.Windows = append(o.Windows, origin.Window{
			Days: w.Days, From: time.Duration(w.From), To: time.Duration(w.To), Rate: int64(w.Rate),
		})
	}
	return o
}

// own reports whether a is where this node itself listens: fetching from there
// would be a loop.
func (n *Node) own(a netip.AddrPort) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, list := range [][]string{n.addrs.HTTP, n.addrs.HTTPS, {n.addrs.Admin}} {
		for _, s := range list {
			l, err := netip.ParseAddrPort(s)
			if err != nil || l.Port() != a.Port() {
				continue
			}
			if l.Addr().Unmap() == a.Addr().Unmap() || l.Addr().IsUnspecified() && isOwnAddress(a.Addr()) {
				return true
			}
		}
	}
	return false
}

// isOwnAddress reports whether a is an address of this machine.
func isOwnAddress(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, x := range addrs {
		if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr().Unmap() == a.Unmap() {
			return true
		}
	}
	return false
}

// Run serves until ctx ends, then lets answers finish for a moment and closes
// everything the node holds.
func (n *Node) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, n.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	fail := make(chan error, 8)
	spawn := func(what string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				select {
				case fail <- fmt.Errorf("%s: %w", what, err):
				default:
				}
				cancel()
			}
		})
	}
	defer wg.Wait()
	defer cancel()

	admin, err := ports.Listen(n.cfg.Listen.Admin)
	if err != nil {
		return fmt.Errorf("listen.admin: %w", err)
	}
	// What was opened before a mistake is closed again, or nothing would end.
	giveUp := func(why error) error {
		admin.Close()
		n.front.Shutdown(ended())
		return why
	}
	n.mu.Lock()
	n.addrs.Admin = admin.Addr().String()
	n.mu.Unlock()
	for i, addr := range n.cfg.Listen.HTTP {
		ln, err := ports.Listen(addr)
		if err != nil {
			return giveUp(fmt.Errorf("listen.http[%d]: %w", i, err))
		}
		n.mu.Lock()
		n.addrs.HTTP = append(n.addrs.HTTP, ln.Addr().String())
		n.mu.Unlock()
		spawn("http", func() error { return ignoreClosed(n.front.Serve(ln, nil)) })
	}
	if err := n.https.follow(ctx, spawn); err != nil {
		return giveUp(err)
	}
	if err := n.writeAddresses(); err != nil {
		return giveUp(err)
	}
	defer os.Remove(n.addressesFile())
	spawn("admin", func() error { return httpsrv.Serve(ctx, admin, n.adminHandler(), n.log) })
	spawn("certificate", func() error { return n.cert.Run(ctx) })
	spawn("catalogue", func() error { return n.catalogs.Run(ctx) })
	spawn("jobs", func() error { return n.jobs.Run(ctx) })
	if n.link != nil {
		spawn("control plane", func() error { return n.link.Run(ctx) })
	}
	wg.Go(func() { n.turnPeriods(ctx) })
	wg.Go(func() { n.https.watch(ctx, spawn) })
	if care := n.https.care; care != nil {
		spawn("caretaker", func() error { return care.Run(ctx) })
	}
	n.mu.Lock()
	n.log.InfoContext(ctx, "node serves", "http", n.addrs.HTTP, "https", n.addrs.HTTPS, "admin", n.addrs.Admin, "id", n.id, "version", n.version)
	n.mu.Unlock()

	close(n.serving)

	<-ctx.Done()
	n.log.InfoContext(ctx, "node stops")
	grace, done := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer done()
	// Answers that are waiting for upstream get an error at the end of the grace.
	stop := context.AfterFunc(grace, n.cancel)
	defer stop()
	n.front.Shutdown(grace)
	n.cancel()
	select {
	case err := <-fail:
		return err
	default:
		return nil
	}
}

// ended is a context that has ended.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// shutdownGrace is how long answers under way may take when the node stops.
const shutdownGrace = 5 * time.Second

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (n *Node) addressesFile() string { return filepath.Join(n.cfg.State, "addresses.json") }

func (n *Node) writeAddresses() error {
	n.mu.Lock()
	data, err := json.MarshalIndent(n.addrs, "", "  ")
	n.mu.Unlock()
	if err != nil {
		return err
	}
	n.https.say(n.Addresses())
	return durable.WriteFile(n.addressesFile(), append(data, '\n'), 0o644)
}

// WaitServing returns when Run has bound its listeners, or ctx ends.
func (n *Node) WaitServing(ctx context.Context) error {
	select {
	case <-n.serving:
		return nil
	case <-n.ctx.Done():
		return errors.New("the node stopped before it served")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Addresses returns where the node listens, once Run has bound its listeners.
func (n *Node) Addresses() Addresses {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addrs
}

// Reload reads again what can change at run time: catalogue, certificate,
// access log.
func (n *Node) Reload() {
	if err := n.catalogs.reload(); err != nil {
		n.log.Error("catalogue not reloaded: the old one stays in use", "err", err)
	}
	if err := n.cert.Reload(); err != nil {
		n.log.Error("certificate not reloaded: the old one stays in use", "err", err)
	}
	if n.https.care != nil {
		n.https.care.Kick()
	}
	if err := n.access.Reopen(); err != nil {
		n.log.Error("access log not reopened", "err", err)
	}
}

// Close releases everything Open took. Run calls it.
func (n *Node) Close() error {
	n.cancel()
	n.background.Wait()
	n.filler.Close()
	n.origin.Close()
	n.https.close()
	return errors.Join(n.store.Close(), n.access.Close())
}

// turnPeriods begins a new period of the summary every SummaryPeriod.
func (n *Node) turnPeriods(ctx context.Context) {
	tick := time.NewTicker(SummaryPeriod)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			n.periods.turn(now, n.stats.snapshot())
		case <-ctx.Done():
			return
		}
	}
}

// setMemoryLimit tells the collector what a node should stay under, unless the
// environment says otherwise: a cache's memory is the page cache's.
func setMemoryLimit(getenv func(string) string) {
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(128 << 20)
	}
}
