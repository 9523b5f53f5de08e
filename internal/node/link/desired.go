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

// pollWait is how long the control plane is asked to hold a poll, in seconds.
const pollWait = 50

// poll asks for documents until ctx ends.
func (l *Link) poll(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		err := l.pollOnce(ctx)
		l.heard(ctx, err)
		if err == nil {
			failures = 0
			continue
		}
		if ctx.Err() != nil {
			return
		}
		l.metrics.failures.WithLabelValues("desired").Inc()
		failures++
		sleep(ctx, l.backoff(failures, err))
	}
}

func (l *Link) pollOnce(ctx context.Context) error {
	l.mu.Lock()
	after := max(l.running, l.refused)
	l.mu.Unlock()
	id, c := l.current()
	var d fleet.Desired
	got, err := c.call(ctx, "GET", fleet.PathDesired+"?wait="+strconv.Itoa(pollWait)+"&after="+strconv.FormatInt(after, 10), nil, &d)
	if err != nil || !got {
		return err
	}
	if !strings.EqualFold(d.Node, id.CacheNodeID) || d.Number <= after {
		return fmt.Errorf("the control plane sent document %d of node %s, expected one above %d of %s", d.Number, d.Node, after, id.CacheNodeID)
	}
	if err := l.cfg.Node.Apply(ctx, &d); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		l.cfg.Log.ErrorContext(ctx, "document refused: the one before stays in use", "number", d.Number, "err", err)
		l.note(0, d.Number, err.Error())
		return nil
	}
	if err := writeDesired(l.cfg.Dir, &d); err != nil {
		// It runs; after a restart the one before would.
		l.cfg.Log.ErrorContext(ctx, "document applied and not written down", "number", d.Number, "err", err)
	}
	l.cfg.Log.InfoContext(ctx, "document applied", "number", d.Number)
	l.note(d.Number, 0, "")
	return nil
}
