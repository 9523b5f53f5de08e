package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/node/catalog"
	"larder/internal/node/config"
)

// catalogs keeps the catalogue in use and replaces it when its files change:
// the next one is complete before anybody sees it, and one that does not load
// leaves the old one in use, with a gauge and the error to show it.
type catalogs struct {
	dirs  []string
	extra []catalog.Source
	log   *slog.Logger
	cur   *atomic.Pointer[catalog.Catalog]

	ok         prometheus.Gauge
	loaded     prometheus.Gauge
	publishers prometheus.Gauge

	load sync.Mutex // held while the catalogue is replaced

	mu      sync.Mutex
	builtin []string         // guarded by mu
	desired []catalog.Source // the control plane's publishers; guarded by mu

	err  error     // of the last load; guarded by mu
	at   time.Time // of the last load that worked; guarded by mu
	seen string    // what the files looked like at the last load; guarded by mu
}

func openCatalogs(cfg *config.Config, extra []catalog.Source, r prometheus.Registerer, log *slog.Logger, cur *atomic.Pointer[catalog.Catalog]) (*catalogs, error) {
	c := &catalogs{builtin: cfg.Catalog.Builtin, dirs: cfg.Catalog.Dirs, extra: extra, log: log, cur: cur,
		ok: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "larder_node_catalog_reload_success_info",
			Help: "1 if the catalogue's files as they are now are in use, 0 if they hold a mistake and the old catalogue is.",
		}),
		loaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "larder_node_catalog_loaded_timestamp_seconds",
			Help: "When the catalogue in use was loaded.",
		}),
		publishers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "larder_node_catalog_publishers",
			Help: "Publishers in the catalogue in use.",
		}),
	}
	r.MustRegister(c.ok, c.loaded, c.publishers)
	return c, c.reload()
}

// CatalogSources returns what a catalogue loads from directories. One that is
// not there yet holds no files.
func CatalogSources(dirs []string) []catalog.Source {
	var sources []catalog.Source
	for _, dir := range dirs {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			continue
		}
		sources = append(sources, catalog.Source{Name: dir, FS: os.DirFS(dir), ReadFile: os.ReadFile})
	}
	return sources
}

// compile makes a catalogue of built-in publishers, the control plane's, and
// the files as they are now. It is not in use yet.
func (c *catalogs) compile(builtin []string, desired []catalog.Source) (*catalog.Catalog, error) {
	sources := append([]catalog.Source(nil), c.extra...)
	sources = append(sources, desired...)
	return catalog.Load(builtin, append(sources, CatalogSources(c.dirs)...)...)
}

// use puts a catalogue that was compiled in use, and remembers of what it is
// made, for when the files change.
func (c *catalogs) use(next *catalog.Catalog, builtin []string, desired []catalog.Source) {
	c.load.Lock()
	defer c.load.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.builtin, c.desired, c.err = builtin, desired, nil
	c.swapLocked(next)
}

// reload loads the catalogue anew and swaps it in.
func (c *catalogs) reload() error {
	c.load.Lock()
	defer c.load.Unlock()
	seen := c.look() // before reading: what changes meanwhile is seen the next time
	c.mu.Lock()
	builtin, desired := c.builtin, c.desired
	c.mu.Unlock()
	next, err := c.compile(builtin, desired)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err, c.seen = err, seen
	if err != nil {
		c.ok.Set(0)
		return err
	}
	c.swapLocked(next)
	return nil
}

func (c *catalogs) swapLocked(next *catalog.Catalog) {
	c.at = time.Now()
	c.cur.Store(next)
	c.ok.Set(1)
	c.loaded.Set(float64(c.at.Unix()))
	c.publishers.Set(float64(len(next.Publishers())))
}

// state returns when the catalogue in use was loaded and what is wrong with
// its files now.
func (c *catalogs) state() (time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at, c.err
}

// look describes the files of the directories, without reading them.
func (c *catalogs) look() string {
	var b strings.Builder
	for _, dir := range c.dirs {
		entries, err := os.ReadDir(dir)
		fmt.Fprintln(&b, dir, err)
		for _, e := range entries {
			if fi, err := e.Info(); err == nil {
				fmt.Fprintln(&b, e.Name(), fi.Size(), fi.ModTime().UnixNano(), fi.Mode())
			}
		}
	}
	return b.String()
}

// changed reports whether the files look other than when they were last read.
func (c *catalogs) changed() bool {
	seen := c.look()
	c.mu.Lock()
	defer c.mu.Unlock()
	return seen != c.seen
}

// recheck is how often files are looked at where no word of changes comes, as
// from network file systems.
const recheck = 30 * time.Second

// settle is how long files must be quiet before they are read: editors and
// package managers write in several steps.
const settle = 300 * time.Millisecond

// Run reloads the catalogue when its directories change, until ctx ends.
func (c *catalogs) Run(ctx context.Context) error {
	if len(c.dirs) == 0 {
		<-ctx.Done()
		return nil
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		c.log.WarnContext(ctx, "catalogue files are not watched: reload with SIGHUP", "err", err)
		<-ctx.Done()
		return nil
	}
	defer w.Close()
	watched := map[string]bool{}
	watch := func() {
		for _, dir := range c.dirs {
			if !watched[dir] && w.Add(dir) == nil {
				watched[dir] = true
			} else if !watched[dir] {
				w.Add(filepath.Dir(dir)) // to see it come
			}
		}
	}
	watch()
	quiet := time.NewTimer(settle) // once at the start: files may have changed since Open
	defer quiet.Stop()
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			quiet.Reset(settle)
		case e, ok := <-w.Events:
			if !ok {
				return nil
			}
			if e.Op == fsnotify.Chmod {
				continue
			}
			quiet.Reset(settle)
		case <-quiet.C:
			watch()
			if !c.changed() {
				continue
			}
			if err := c.reload(); err != nil {
				c.log.ErrorContext(ctx, "catalogue not reloaded: the old one stays in use", "err", err)
			} else {
				c.log.InfoContext(ctx, "catalogue reloaded")
			}
		case err := <-w.Errors:
			c.log.WarnContext(ctx, "watching the catalogue", "err", err)
		case <-ctx.Done():
			return nil
		}
	}
}
