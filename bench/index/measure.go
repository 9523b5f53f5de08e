package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

type options struct {
	Objects, Updates, Lookups, Cold int
	Dir                             string
	Durable, BoltNoSync             bool
}

// Result is what one engine did. Durations are nanoseconds in JSON.
type Result struct {
	Engine      string
	Objects     int
	Build       buildFigures
	Clean       openFigures // start after a clean stop
	Killed      openFigures // start after SIGKILL in the middle of updates
	DiskPerItem float64     // bytes on disk per object after the load and a clean stop
}

type candidate struct {
	name string
	open func(dir string, o options) (engine, error)
}

var candidates = []candidate{
	{"sqlite", openSQLite},
	{"bbolt", openBolt},
	{"pebble", openPebble},
	{"log", openLog},
}

func engineNames() (names []string) {
	for _, c := range candidates {
		names = append(names, c.name)
	}
	return names
}

func engineByName(name string) *candidate {
	for i := range candidates {
		if candidates[i].name == name {
			return &candidates[i]
		}
	}
	return nil
}

func engineDir(dir, name string) string { return filepath.Join(dir, name) }

func measure(ctx context.Context, name string, o options) (*Result, error) {
	dir := engineDir(o.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	r := &Result{Engine: name, Objects: o.Objects}
	if err := child(ctx, "build", name, o, &r.Build); err != nil {
		return nil, err
	}
	bytes, err := diskBytes(dir)
	if err != nil {
		return nil, err
	}
	r.DiskPerItem = float64(bytes) / float64(o.Objects)
	if err := forget(dir); err != nil {
		return nil, err
	}
	if err := child(ctx, "open", name, o, &r.Clean); err != nil {
		return nil, err
	}
	if err := kill(ctx, name, o); err != nil {
		return nil, err
	}
	if err := forget(dir); err != nil {
		return nil, err
	}
	return r, child(ctx, "open", name, o, &r.Killed)
}

func command(ctx context.Context, phase, name string, o options) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-phase", phase, "-engines", name, "-dir", o.Dir,
		fmt.Sprintf("-n=%d", o.Objects), fmt.Sprintf("-updates=%d", o.Updates), fmt.Sprintf("-lookups=%d", o.Lookups),
		fmt.Sprintf("-cold=%d", o.Cold), fmt.Sprintf("-durable=%t", o.Durable), fmt.Sprintf("-bbolt-nosync=%t", o.BoltNoSync))
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// child runs a phase to its end and reads its figures.
func child(ctx context.Context, phase, name string, o options, figures any) error {
	cmd, err := command(ctx, phase, name, o)
	if err != nil {
		return err
	}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("phase %s: %w", phase, err)
	}
	return json.Unmarshal(out, figures)
}

// kill starts the phase that updates without end and kills it two seconds after its first batch.
func kill(ctx context.Context, name string, o options) error {
	cmd, err := command(ctx, "churn", name, o)
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return errors.Join(fmt.Errorf("phase churn: %w", err), cmd.Wait())
	}
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
	}
	err = cmd.Process.Kill()
	var exit *exec.ExitError
	if wait := cmd.Wait(); wait != nil && !errors.As(wait, &exit) {
		err = errors.Join(err, wait)
	}
	return errors.Join(err, ctx.Err())
}

func diskBytes(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}
