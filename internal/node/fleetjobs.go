package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"larder/internal/fleet"
	"larder/internal/sys/durable"
)

// fleetJobs carries out what documents ask to be done once: purges, and
// prefills. What became of each is in fleet-jobs.json, so that a restart does
// not purge again and goes on with a prefill where it was.
type fleetJobs struct {
	n    *Node
	file string
	kick chan struct{} // holds one

	mu      sync.Mutex
	wanted  []string                 // ids in the order in which they are done; guarded by mu
	prefill map[string]fleet.Prefill // guarded by mu
	purge   map[string]fleet.Purge   // guarded by mu
	states  map[string]*jobRecord    // guarded by mu
}

// jobRecord is a job's state as it is kept.
type jobRecord struct {
	fleet.JobState
	Next int `json:"next"` // the first URL of a prefill that was not looked at
}

func openFleetJobs(n *Node) (*fleetJobs, error) {
	j := &fleetJobs{n: n, file: filepath.Join(n.cfg.State, "fleet-jobs.json"), kick: make(chan struct{}, 1), states: map[string]*jobRecord{}}
	b, err := os.ReadFile(j.file)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &j.states)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the jobs of the control plane: %w", err)
	}
	return j, nil
}

func checkJobs(d *fleet.Desired, wrong func(field, format string, args ...any)) {
	seen := map[string]bool{}
	id := func(at, id string) {
		if id == "" || seen[id] {
			wrong(at+".id", "found %q, expected one that no other job has", id)
		}
		seen[id] = true
	}
	for i, p := range d.Purge {
		at := fmt.Sprintf("purge[%d]", i)
		id(at, p.ID)
		if _, err := (Selection{Key: p.Key, Prefix: p.Prefix, Publisher: p.Publisher}).filter(); err != nil {
			wrong(at, "expected exactly one of key, prefix and publisher")
		}
	}
	for i, p := range d.Prefill {
		at := fmt.Sprintf("prefill[%d]", i)
		id(at, p.ID)
		for k, text := range p.URLs {
			if u, err := url.Parse(text); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				wrong(fmt.Sprintf("%s.urls[%d]", at, k), "expected an http or https URL")
			}
		}
	}
}

// want replaces what is to be done. Jobs that are not in the lists any more are
// forgotten.
func (j *fleetJobs) want(prefill []fleet.Prefill, purge []fleet.Purge) {
	j.mu.Lock()
	j.wanted, j.prefill, j.purge = nil, map[string]fleet.Prefill{}, map[string]fleet.Purge{}
	keep := map[string]*jobRecord{}
	add := func(id string) {
		j.wanted = append(j.wanted, id)
		if keep[id] = j.states[id]; keep[id] == nil {
			keep[id] = &jobRecord{JobState: fleet.JobState{ID: id, State: "waiting"}}
		}
	}
	for _, p := range purge { // what is to go goes before what is to come
		j.purge[p.ID] = p
		add(p.ID)
	}
	for _, p := range prefill {
		j.prefill[p.ID] = p
		add(p.ID)
	}
	changed := len(keep) != len(j.states)
	for id := range keep {
		changed = changed || j.states[id] == nil
	}
	j.states = keep
	j.mu.Unlock()
	if changed {
		j.save()
	}
	select {
	case j.kick <- struct{}{}:
	default:
	}
}

// list is how far all jobs are.
func (j *fleetJobs) list() []fleet.JobState {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []fleet.JobState
	for _, id := range j.wanted {
		all = append(all, j.states[id].JobState)
	}
	return all
}

// note changes a job's state, unless the job was forgotten meanwhile.
func (j *fleetJobs) note(id string, change func(r *jobRecord)) {
	j.mu.Lock()
	if r := j.states[id]; r != nil {
		change(r)
	}
	j.mu.Unlock()
	j.save()
}

func (j *fleetJobs) save() {
	j.mu.Lock()
	defer j.mu.Unlock()
	b, err := json.Marshal(j.states)
	if err == nil {
		err = durable.WriteFile(j.file, append(b, '\n'), 0o640)
	}
	if err != nil {
		j.n.log.Error("jobs of the control plane not written down: a restart may do one again", "err", err)
	}
}

// Run does what is wanted, one job after another, until ctx ends.
func (j *fleetJobs) Run(ctx context.Context) error {
	wire := newPipeListener()
	defer wire.Close()
	var front sync.WaitGroup
	defer front.Wait()
	defer wire.Close()
	front.Go(func() {
		if err := j.n.front.Serve(wire, nil); err != nil && !errors.Is(err, net.ErrClosed) {
			j.n.log.Error("prefills cannot reach the node's own front", "err", err)
		}
	})
	tick := time.NewTicker(30 * time.Second) // prefills begin at times
	defer tick.Stop()
	for {
		for id := j.next(time.Now()); id != "" && ctx.Err() == nil; id = j.next(time.Now()) {
			j.do(ctx, id, wire)
		}
		select {
		case <-j.kick:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// next is the first job that is to be done now, "" if there is none.
func (j *fleetJobs) next(now time.Time) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range j.wanted {
		switch j.states[id].State {
		case "waiting", "running": // running: before a restart
			if p, ok := j.prefill[id]; !ok || !now.Before(p.NotBefore) {
				return id
			}
		}
	}
	return ""
}

func (j *fleetJobs) do(ctx context.Context, id string, wire *pipeListener) {
	j.mu.Lock()
	purge, isPurge := j.purge[id]
	prefill := j.prefill[id]
	j.mu.Unlock()
	if !isPurge {
		j.doPrefill(ctx, prefill, wire)
		return
	}
	f, err := (Selection{Key: purge.Key, Prefix: purge.Prefix, Publisher: purge.Publisher}).filter()
	if err == nil {
		j.n.filler.ForgetAll()
		res, perr := j.n.store.Purge(f, false)
		j.note(id, func(r *jobRecord) { r.Objects, r.Bytes = res.Objects, res.Bytes })
		err = perr
	}
	j.end(id, err)
}

func (j *fleetJobs) end(id string, err error) {
	j.note(id, func(r *jobRecord) {
		r.State, r.Ended = "done", time.Now().UTC()
		if err != nil {
			r.State, r.Detail = "failed", err.Error()
		}
	})
}

// doPrefill asks for one URL after another as a client would. One that fails
// does not keep the others from coming; the job has failed then, and says why
// of the first.
func (j *fleetJobs) doPrefill(ctx context.Context, p fleet.Prefill, wire *pipeListener) {
	j.mu.Lock()
	r := j.states[p.ID]
	first, failed := 0, ""
	if r != nil {
		first, failed = r.Next, r.Detail
	}
	j.mu.Unlock()
	j.note(p.ID, func(r *jobRecord) { r.State = "running" })
	for i := first; i < len(p.URLs); i++ {
		n, err := get(ctx, wire, p.URLs[i])
		if ctx.Err() != nil {
			return // the next start goes on here
		}
		if err != nil && failed == "" {
			failed = fmt.Sprintf("%s: %v", p.URLs[i], err)
		}
		gone := false
		j.mu.Lock()
		gone = j.states[p.ID] == nil
		j.mu.Unlock()
		if gone {
			return
		}
		j.note(p.ID, func(r *jobRecord) {
			r.Next, r.Detail = i+1, failed
			r.Bytes += n
			if err == nil {
				r.Objects++
			}
		})
	}
	if failed != "" {
		j.end(p.ID, errors.New(failed))
		return
	}
	j.end(p.ID, nil)
}

// get asks the node's own front for a URL, as an HTTP proxy, and reads it to
// its end.
func get(ctx context.Context, wire *pipeListener, target string) (int64, error) {
	u, err := url.Parse(target)
	if err != nil {
		return 0, err
	}
	conn, err := wire.dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go fmt.Fprintf(conn, "GET %s://%s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: larder-prefill\r\nConnection: close\r\n\r\n", u.Scheme, u.Host, u.RequestURI(), u.Host)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		return 0, fmt.Errorf("answered %d: %s", resp.StatusCode, text)
	}
	return io.Copy(io.Discard, resp.Body)
}
