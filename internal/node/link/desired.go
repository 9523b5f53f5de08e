package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"larder/internal/fleet"
	"larder/internal/sys/private"
)

func desiredFile(dir string) string { return filepath.Join(dir, "desired.json") }

// readDesired returns the document that worked last, nil if there is none.
func readDesired(dir, node string) (*fleet.Desired, error) {
	b, err := os.ReadFile(desiredFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var d fleet.Desired
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("%s: %w", desiredFile(dir), err)
	}
	if !strings.EqualFold(d.Node, node) {
		return nil, fmt.Errorf("%s: found the document of node %s, expected %s", desiredFile(dir), d.Node, node)
	}
	return &d, nil
}

// writeDesired keeps a document that worked. It may hold a proxy's password.
func writeDesired(dir string, d *fleet.Desired) error {
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	return private.WriteFile(desiredFile(dir), append(b, '\n'))
}

// pollWait is how long the control plane is asked to hold a poll at most.
const pollWait = 50 * time.Second

// poll asks for the document after the one that is in use, and waits for it,
// until somebody wishes for a delivery, or as long as given.
func (l *Link) poll(ctx context.Context, wait time.Duration) error {
	wait = min(wait, pollWait)
	// Whoever does not answer a while after that will not: a connection that a
	// router has forgotten says nothing.
	pctx, cancel := context.WithTimeout(ctx, wait+30*time.Second)
	defer cancel()
	wished := make(chan struct{})
	go func() {
		defer close(wished)
		select {
		case <-l.prompt:
			l.Deliver() // talk takes it
			cancel()
		case <-pctx.Done():
		}
	}()
	d, err := l.ask(pctx, wait)
	early := pctx.Err() != nil && !errors.Is(pctx.Err(), context.DeadlineExceeded)
	cancel()
	<-wished
	switch {
	case d != nil:
		l.take(ctx, d) // its time is its own: drives may take a while to open
		return nil
	case early:
		return nil
	}
	return err
}

// ask asks once for the document after the newest that came. It is nil if there
// is none.
func (l *Link) ask(ctx context.Context, wait time.Duration) (*fleet.Desired, error) {
	l.mu.Lock()
	after := max(l.running, l.refused)
	l.mu.Unlock()
	id, c := l.current()
	var d fleet.Desired
	got, err := c.call(ctx, "GET", fleet.PathDesired+"?wait="+strconv.FormatFloat(wait.Seconds(), 'f', 3, 64)+"&after="+strconv.FormatInt(after, 10), nil, &d)
	if err != nil || !got {
		return nil, err
	}
	if !strings.EqualFold(d.Node, id.CacheNodeID) || d.Number <= after {
		return nil, fmt.Errorf("the control plane sent document %d of node %s, expected one above %d of %s", d.Number, d.Node, after, id.CacheNodeID)
	}
	return &d, nil
}

// take has the node apply a document. One that it refuses is tried again, later
// and later, until it works or the next one comes: what was in its way, a drive
// not mounted yet, may go without anybody writing a new one.
func (l *Link) take(ctx context.Context, d *fleet.Desired) {
	log := l.cfg.Log.With("number", d.Number)
	if err := l.cfg.Node.Apply(ctx, d); err != nil {
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		again := l.pending != nil && l.pending.Number == d.Number
		known := again && l.why == err.Error()
		if !again {
			l.tries = 0
		}
		l.pending = d
		l.tries++
		l.pendingAt = time.Now().Add(l.cfg.Interval << min(l.tries-1, 6))
		l.mu.Unlock()
		if !known {
			log.ErrorContext(ctx, "document refused: the one before stays in use, this one is tried again", "err", err)
			l.note(0, d.Number, err.Error())
		}
		return
	}
	if err := writeDesired(l.cfg.Dir, d); err != nil {
		// It runs; after a restart the one before would.
		log.ErrorContext(ctx, "document applied and not written down", "err", err)
	}
	log.InfoContext(ctx, "document applied")
	l.note(d.Number, 0, "")
}

// takeAgain takes a document that was refused, if it is time.
func (l *Link) takeAgain(ctx context.Context) {
	l.mu.Lock()
	d := l.pending
	if d != nil && time.Now().Before(l.pendingAt) {
		d = nil
	}
	l.mu.Unlock()
	if d != nil {
		l.take(ctx, d)
	}
}
