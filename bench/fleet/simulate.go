package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"larder/internal/control/db"
)

// grace is how long after the last report was due nodes go on trying.
const grace = 30 * time.Second

// simulate runs a control plane and n nodes once. Everything it writes lies in
// dir, or in the database it was given.
func simulate(ctx context.Context, s settings, n int, dir string) (_ *result, err error) {
	if err := raiseFiles(files(n)); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	url := s.database
	var pg *postgres
	switch url {
	case "":
		if pg, err = startPostgres(ctx); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, pg.end()) }()
		url = pg.url()
	case "sqlite":
		url = filepath.Join(dir, "control.db")
	}
	file, err := configure(dir, url)
	if err != nil {
		return nil, err
	}
	say("making %d nodes", n)
	begun := time.Now()
	all, err := enrol(ctx, file, n)
	if err != nil {
		return nil, fmt.Errorf("making the nodes: %w", err)
	}
	say("%d nodes are made after %s", n, time.Since(begun).Round(time.Second))
	plane, addr, err := startPlane(ctx, s.binary, file, dir)
	if err != nil {
		return nil, err
	}
	r := &result{Nodes: n}
	err = r.watch(ctx, s, plane, pg, addr, all)
	if eerr := plane.end(interrupt); err != nil || eerr != nil {
		return nil, errors.Join(err, eerr)
	}
	r.Said = complaints(plane.log)
	return r, r.look(ctx, url)
}

// files is how many files n nodes make the control plane, and this program, have
// open: a connection each, and what the rest needs.
func files(n int) uint64 { return uint64(n) + 400 }

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}

// configure writes the control plane's configuration.
func configure(dir, url string) (file string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	if !strings.Contains(url, "://") {
		if url, err = filepath.Abs(url); err != nil {
			return "", err
		}
	}
	text := fmt.Sprintf("listen: \"127.0.0.1:0\"\nnames: [localhost, 127.0.0.1]\nstate: %q\ndatabase: {url: %q}\nmetrics_from: [127.0.0.0/8]\n", filepath.Join(dir, "state"), url)
	file = filepath.Join(dir, "control.yaml")
	return file, os.WriteFile(file, []byte(text), 0o600)
}

// startPlane starts the control plane and returns its address, host:port.
func startPlane(ctx context.Context, binary, file, dir string) (_ *process, addr string, err error) {
	cmd := exec.Command(binary, "control", "run", "--config", file)
	ownGroup(cmd)
	p, err := begin(cmd, filepath.Join(dir, "control.log"))
	if err != nil {
		return nil, "", err
	}
	err = p.await(ctx, func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "state", "addresses.json"))
		var a struct{ Control string }
		if err != nil || json.Unmarshal(b, &a) != nil {
			return false
		}
		addr = a.Control
		return true
	})
	if err != nil {
		return nil, "", errors.Join(err, p.end(interrupt))
	}
	return p, addr, nil
}

// complaints are the lines of the control plane's log above info, by message.
func complaints(log string) map[string]int {
	b, _ := os.ReadFile(log)
	found := map[string]int{}
	for line := range strings.Lines(string(b)) {
		var e struct{ Level, Msg, Err string }
		if json.Unmarshal([]byte(line), &e) == nil && e.Level != "INFO" && e.Level != "DEBUG" {
			found[strings.TrimSpace(e.Level+" "+e.Msg+" "+e.Err)]++
		}
	}
	return found
}

// watch lets the nodes come and report, and measures meanwhile.
func (r *result) watch(ctx context.Context, s settings, plane *process, pg *postgres, addr string, all *enrolled) error {
	cfg, err := all.clientTLS()
	if err != nil {
		return err
	}
	var dialled atomic.Uint64
	// Nodes come one by one until the first whole minute after they had one for it.
	begun := time.Now()
	f := &flock{s: s, tls: cfg, first: begun.Add(s.every).Truncate(s.every).Add(s.every), errors: map[string]int{}, dial: dialer{addr, func() net.Addr {
		// Ten thousand connections from each address of the loopback network.
		k := dialled.Add(1) / 10_000 % 250
		return &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+k))}
	}}}
	nodes := make([]*node, len(all.identities))
	turns := rand.Perm(len(nodes)) // neighbours in the database do not come after one another
	for i, id := range all.identities {
		nodes[i] = newNode(f, id, i, float64(turns[i])/float64(len(nodes)))
	}
	sctx, stop := context.WithCancel(ctx)
	defer stop()
	last := f.first.Add(time.Duration(s.minutes) * s.every)
	rctx, cancel := context.WithDeadline(sctx, last.Add(grace))
	defer cancel()
	samples := sample(sctx, stop, plane, pg)
	var reports sync.WaitGroup
	for _, n := range nodes {
		reports.Go(func() {
			if n.come(rctx, begun) {
				n.report(rctx)
			}
		})
	}
	say("the nodes come until %s and report until %s", f.first.Format(time.TimeOnly), last.Format(time.TimeOnly))
	if sleepUntil(sctx, last) {
		r.Metrics, err = scrape(ctx, addr, cfg)
	}
	reports.Wait()
	stop()
	seen, serr := samples()
	if err := errors.Join(err, serr, context.Cause(ctx)); err != nil {
		return err
	}
	r.usage(seen, f.first, last)
	r.nodes = nodes
	r.Errors = f.errors
	for _, n := range nodes {
		n.hangUp()
		r.Sent.add(n.sent)
		r.Taken.add(n.taken)
		r.Polls += n.answered
		r.latencies = append(r.latencies, n.latencies...)
	}
	slices.Sort(r.latencies)
	return nil
}

// usage is what was used up to a moment.
type usage struct {
	at               time.Time
	plane, pg, fleet time.Duration // of processors
	resident, peak   int64         // bytes, of the control plane
}

// sample reads what the processes use, each second until ctx ends, which stop
// makes it do if there is nothing to read any more. The function returned waits
// for the end.
func sample(ctx context.Context, stop func(), plane *process, pg *postgres) func() ([]usage, error) {
	var seen []usage
	var failed error
	var done sync.WaitGroup
	done.Go(func() {
		defer stop()
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			var u usage
			if u, failed = readUsage(plane, pg); failed != nil {
				return
			}
			seen = append(seen, u)
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	})
	return func() ([]usage, error) {
		done.Wait()
		return seen, failed
	}
}

func readUsage(plane *process, pg *postgres) (u usage, err error) {
	u.at = time.Now()
	var errs [4]error
	u.plane, _, errs[0] = processorTime(plane.cmd.Process.Pid)
	u.resident, u.peak, errs[1] = memory(plane.cmd.Process.Pid)
	u.fleet, _, errs[2] = processorTime(os.Getpid())
	if pg != nil {
		u.pg, errs[3] = familyTime(pg.cmd.Process.Pid)
	}
	return u, errors.Join(errs[:]...)
}

// kept is what the database holds at the end.
type kept struct {
	total    sums  // of the customers, by the minute
	single   int64 // requests of the nodes, by the minute
	quarters int64 // minutes of the nodes, by the quarter of an hour
	behind   int   // nodes of which another minute was taken last than was acknowledged
}

// look reads what the database holds.
func (r *result) look(ctx context.Context, url string) (err error) {
	d, err := db.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	version := `SELECT 'SQLite ' || sqlite_version()`
	if d.Engine() == db.PostgreSQL {
		version = `SELECT 'PostgreSQL ' || current_setting('server_version')`
	}
	if err := d.QueryRowContext(ctx, version).Scan(&r.Database); err != nil {
		return err
	}
	if r.kept, err = readKept(ctx, d); err != nil {
		return err
	}
	rows, err := d.QueryContext(ctx, `SELECT node_id, seq FROM nodes`)
	if err != nil {
		return err
	}
	defer rows.Close()
	last := map[string]int64{}
	for rows.Next() {
		var id string
		var seq int64
		if err := rows.Scan(&id, &seq); err != nil {
			return err
		}
		last[id] = seq
	}
	for _, n := range r.nodes {
		if seq := last[n.id.node]; seq < n.taken.minutes || seq > n.sent.minutes {
			r.kept.behind++
		}
	}
	return rows.Err()
}

func readKept(ctx context.Context, d *db.DB) (k kept, err error) {
	for _, q := range []struct {
		query string
		to    []any
	}{
		{`SELECT coalesce(sum(minutes), 0), coalesce(sum(requests), 0) FROM usage_total WHERE span = 60`, []any{&k.total.minutes, &k.total.requests}},
		{`SELECT coalesce(sum(requests), 0) FROM usage WHERE span = 60`, []any{&k.single}},
		{`SELECT coalesce(sum(minutes), 0) FROM usage_minutes`, []any{&k.quarters}},
	} {
		if err := d.QueryRowContext(ctx, q.query).Scan(q.to...); err != nil {
			return k, fmt.Errorf("counting what was kept: %w", err)
		}
	}
	return k, nil
}
