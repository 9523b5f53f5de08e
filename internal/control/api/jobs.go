package api

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"

	"larder/internal/control/access"
	"larder/internal/control/roster"
	"larder/internal/control/route"
	"larder/internal/fleet"
)

// Purge asks a node to drop objects: exactly one of the fields is set.
type Purge struct {
	Key       string `json:"key,omitempty"`
	Prefix    string `json:"prefix,omitempty"` // of the URL without its scheme: host/path
	Publisher string `json:"publisher,omitempty"`
}

// Prefill asks a node to fetch what clients will want.
type Prefill struct {
	URLs      []string  `json:"urls"`
	NotBefore time.Time `json:"notBefore,omitzero"`
}

// Job is a purge or prefill with what the node says of it.
type Job struct {
	ID      string         `json:"id"`
	Kind    string         `json:"kind"` // purge or prefill
	Purge   *fleet.Purge   `json:"purge,omitempty"`
	Prefill *fleet.Prefill `json:"prefill,omitempty"`
	fleet.JobState
}

// maxJobs is how many jobs a node's document holds: the oldest that are done go
// when more come.
const maxJobs = 50

func (a *API) jobRoutes() []route.Route {
	at := prefix + "/nodes/{cacheNodeId}"
	return []route.Route{
		{Method: "GET", Path: at + "/jobs", Name: "Jobs_List", Does: "A node's purges and prefills, and how far they are", Needs: access.Read, Scope: a.nodeScope, Answer: list[Job]{}, Handle: a.listJobs},
		{Method: "POST", Path: at + "/purge", Name: "Jobs_Purge", Does: "Have a node drop objects", Needs: access.Operate, Scope: a.nodeScope, Body: Purge{}, Answer: Job{}, Status: http.StatusAccepted, Handle: a.postPurge},
		{Method: "POST", Path: at + "/prefill", Name: "Jobs_Prefill", Does: "Have a node fetch what clients will want", Needs: access.Operate, Scope: a.nodeScope, Body: Prefill{}, Answer: Job{}, Status: http.StatusAccepted, Handle: a.postPrefill},
		{Method: "DELETE", Path: at + "/jobs/{jobId}", Name: "Jobs_Delete", Does: "Take a job out of a node's document", Needs: access.Operate, Scope: a.nodeScope, Status: http.StatusNoContent, Handle: a.deleteJob},
	}
}

func jobsOf(n *roster.Node) []Job {
	states := map[string]fleet.JobState{}
	for _, s := range n.State.Jobs {
		states[s.ID] = s
	}
	all := []Job{}
	add := func(j Job) {
		s, ok := states[j.ID]
		if !ok {
			s = fleet.JobState{State: "waiting", Detail: "the node has not said that it knows of it"}
		}
		s.ID = j.ID
		j.JobState = s
		all = append(all, j)
	}
	for i := range n.Spec.Purge {
		add(Job{ID: n.Spec.Purge[i].ID, Kind: "purge", Purge: &n.Spec.Purge[i]})
	}
	for i := range n.Spec.Prefill {
		add(Job{ID: n.Spec.Prefill[i].ID, Kind: "prefill", Prefill: &n.Spec.Prefill[i]})
	}
	return all
}

func (a *API) listJobs(w http.ResponseWriter, r *http.Request) error {
	n, err := a.node(r.Context(), a.o.DB, r)
	if err != nil {
		return err
	}
	return route.JSON(w, http.StatusOK, list[Job]{Value: jobsOf(n)})
}

// room makes room for one more job, by dropping those that are over.
func room(n *roster.Node) error {
	over := map[string]bool{}
	for _, s := range n.State.Jobs {
		over[s.ID] = s.State == "done" || s.State == "failed"
	}
	for len(n.Spec.Purge)+len(n.Spec.Prefill) >= maxJobs {
		if i := slices.IndexFunc(n.Spec.Purge, func(p fleet.Purge) bool { return over[p.ID] }); i >= 0 {
			n.Spec.Purge = slices.Delete(n.Spec.Purge, i, i+1)
			continue
		}
		if i := slices.IndexFunc(n.Spec.Prefill, func(p fleet.Prefill) bool { return over[p.ID] }); i >= 0 {
			n.Spec.Prefill = slices.Delete(n.Spec.Prefill, i, i+1)
			continue
		}
		return &route.Error{Status: http.StatusConflict, Code: "TooManyJobs", Message: fmt.Sprintf("The node has %d jobs that are not over; wait, or delete some.", maxJobs)}
	}
	return nil
}

func (a *API) postPurge(w http.ResponseWriter, r *http.Request) error {
	var p Purge
	if err := route.ReadJSON(w, r, &p, true); err != nil {
		return err
	}
	given := 0
	for _, v := range []string{p.Key, p.Prefix, p.Publisher} {
		if v != "" {
			given++
		}
		if len(v) > 4096 {
			return route.Invalid("purge", "found %d characters, expected 4096 at most", len(v))
		}
	}
	if given != 1 {
		return route.Invalid("key", "found %d of key, prefix and publisher, expected exactly one", given)
	}
	job := fleet.Purge{ID: uuid.NewString(), Key: p.Key, Prefix: p.Prefix, Publisher: p.Publisher}
	return a.addJob(w, r, "node.purge", p, func(n *roster.Node) { n.Spec.Purge = append(n.Spec.Purge, job) })
}

func (a *API) postPrefill(w http.ResponseWriter, r *http.Request) error {
	var p Prefill
	if err := route.ReadJSON(w, r, &p, true); err != nil {
		return err
	}
	var m mistakes
	if len(p.URLs) == 0 || len(p.URLs) > 1000 {
		m.add("urls", "found %d, expected 1 to 1000", len(p.URLs))
	}
	for i, text := range p.URLs {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || len(text) > 4096 {
			m.add(fmt.Sprintf("urls[%d]", i), "expected an http or https URL without a password, 4096 characters at most")
		}
	}
	if err := m.err(); err != nil {
		return err
	}
	job := fleet.Prefill{ID: uuid.NewString(), URLs: p.URLs, NotBefore: p.NotBefore}
	return a.addJob(w, r, "node.prefill", p, func(n *roster.Node) { n.Spec.Prefill = append(n.Spec.Prefill, job) })
}

func (a *API) addJob(w http.ResponseWriter, r *http.Request, action string, what any, add func(n *roster.Node)) error {
	n, err := a.changeNode(r, action, func(n *roster.Node) (any, any, error) {
		if err := room(n); err != nil {
			return nil, nil, err
		}
		add(n)
		return nil, what, nil
	})
	if err != nil {
		return err
	}
	jobs := jobsOf(n)
	for i := range jobs { // the one that was just added is the last of its kind
		if jobs[i].Kind == map[string]string{"node.purge": "purge", "node.prefill": "prefill"}[action] && (i+1 == len(jobs) || jobs[i+1].Kind != jobs[i].Kind) {
			return route.JSON(w, http.StatusAccepted, jobs[i])
		}
	}
	return fmt.Errorf("the job that was added is not there")
}

func (a *API) deleteJob(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("jobId")
	_, err := a.changeNode(r, "node.job.delete", func(n *roster.Node) (any, any, error) {
		before := len(n.Spec.Purge) + len(n.Spec.Prefill)
		n.Spec.Purge = slices.DeleteFunc(n.Spec.Purge, func(p fleet.Purge) bool { return p.ID == id })
		n.Spec.Prefill = slices.DeleteFunc(n.Spec.Prefill, func(p fleet.Prefill) bool { return p.ID == id })
		if len(n.Spec.Purge)+len(n.Spec.Prefill) == before {
			return nil, nil, route.NotFound(fmt.Sprintf("Job %q", id))
		}
		return map[string]string{"id": id}, nil, nil
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
