package livecert

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// checkEvery is how often the files are read whether or not anybody said
	// that they changed: network file systems and exotic mounts do not say.
	checkEvery = 30 * time.Second
	// settle is the time from the first sign of a change to looking: a pair is
	// two files, and a file more than one write.
	settle = 200 * time.Millisecond
	// confirm is the time from active.yaml's vanishing to believing it.
	confirm = time.Second
)

// Run follows the files until ctx ends, and returns nil then. It watches their
// directories and reads them every 30 seconds besides.
func (c *Cert) Run(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		c.log.WarnContext(ctx, "certificate directory not watched, reading it every 30 seconds", "dir", c.dir, "err", err)
		return c.follow(ctx, nil, nil, func([]string) {})
	}
	defer w.Close()
	watched := &watch{w: w, c: c}
	return c.follow(ctx, w.Events, w.Errors, watched.only)
}

// follow reloads at events, and in any case every checkEvery. It tells
// directories which directories it wants to hear of.
func (c *Cert) follow(ctx context.Context, events <-chan fsnotify.Event, problems <-chan error, directories func([]string)) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	// Not reset by further events: files that are written to all the time
	// would never be read.
	look := time.NewTimer(0) // at once: they may have changed since Open
	defer look.Stop()
	waiting := true // for look
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-events:
			if !ok {
				events = nil
			} else if !waiting {
				look.Reset(settle)
				waiting = true
			}
			continue
		case err, ok := <-problems:
			if !ok {
				problems = nil
				continue
			}
			// Overflow, mostly: events were lost, so look.
			c.log.WarnContext(ctx, "watching the certificate directory", "dir", c.dir, "err", err)
		case <-look.C:
			waiting = false
		case <-tick.C:
		}
		// First watch, then read: a change between the two is seen.
		directories(c.directories())
		if c.reload() && !waiting {
			look.Reset(confirm)
			waiting = true
		}
	}
}

// directories is where the files of the active pair lie, as far as active.yaml
// can be read, and where links among them lead.
func (c *Cert) directories() []string {
	dirs := []string{filepath.Clean(c.dir)}
	files := []string{activePath(c.dir)}
	if a, err := ReadActive(c.dir); err == nil && !a.Disabled {
		files = append(files, Resolve(c.dir, a.Certificate), Resolve(c.dir, a.Key))
	}
	for _, f := range files {
		dirs = append(dirs, filepath.Dir(f))
		if real, err := filepath.EvalSymlinks(f); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// watch keeps a watcher on a changing set of directories.
type watch struct {
	w *fsnotify.Watcher
	c *Cert
}

// only watches dirs and nothing else. Those that do not exist are tried again
// the next time.
func (w *watch) only(dirs []string) {
	have := w.w.WatchList()
	for _, d := range have {
		if !slices.Contains(dirs, d) {
			_ = w.w.Remove(d) // gone already, or never heard of again: either way it is not watched
		}
	}
	for _, d := range dirs {
		if slices.Contains(have, d) {
			continue
		}
		if err := w.w.Add(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.c.log.Warn("directory not watched, reading it every 30 seconds", "dir", d, "err", err)
		}
	}
}
