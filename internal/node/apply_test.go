package node

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/fleet"
	"larder/internal/lardertest"
)

const filesPublisher = `
name: files
hosts: [files.example]
freshness: immutable
origin: {scheme: http, address: "$ORIGIN"}
`

func bodies(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"1"`)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(strings.Repeat(r.URL.Path, 2000)))
}

// Every part of a document takes effect while clients are served, and not one
// answer is wrong or missing.
func TestDocumentsAreAppliedUnderLoad(t *testing.T) {
	t.Parallel()
	r := start(t, http.HandlerFunc(bodies), map[string]string{"files.yaml": filesPublisher})
	proxied := new(atomic.Int64)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxied.Add(1)
		bodies(w, r)
	}))
	t.Cleanup(proxy.Close)

	var stop atomic.Bool
	var served atomic.Int64
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				path := fmt.Sprintf("/%d/%d", w, i%50)
				resp, err := r.client.Get("http://files.example" + path)
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || string(b) != strings.Repeat(path, 2000) {
					t.Errorf("%s: status %d, %d bytes, %v", path, resp.StatusCode, len(b), err)
					return
				}
				served.Add(1)
			}
		})
	}
	second := filepath.Join(r.dir, "second")
	own := fleet.Publisher{Name: "own", File: fmt.Sprintf("name: own\nhosts: [own.example]\nfreshness: immutable\norigin: {scheme: http, address: %q}\n", proxy.Listener.Addr())}
	for i, d := range []*fleet.Desired{
		{Drives: []fleet.Drive{{Path: filepath.Join(r.dir, "drive"), Size: 256 << 20}, {Path: second, Size: 64 << 20}}},
		{Limit: &fleet.Limit{Rate: 100 << 20, Schedule: []fleet.Window{{Days: []time.Weekday{0, 1, 2, 3, 4, 5, 6}, From: 0, To: 1440, Rate: 50 << 20}}}},
		{Catalog: &fleet.Catalog{Builtin: []string{"office"}, Publishers: []fleet.Publisher{own}}},
		{Proxy: &fleet.Proxy{URL: proxy.URL}, Drives: []fleet.Drive{{Path: second, Size: 64 << 20}}},
		{Drain: true, ClientNames: []string{"cache.example"}},
		{},
	} {
		d.Number = int64(i + 1)
		if err := r.Apply(t.Context(), d); err != nil {
			t.Errorf("document %d: %v", d.Number, err)
		}
		before := served.Load()
		lardertest.Eventually(t, "clients are served on", func() bool { return served.Load() > before+30 || stop.Load() || t.Failed() })
		switch i {
		case 0:
			if n := len(r.FleetState().Drives); n != 2 {
				t.Errorf("%d drives, want 2", n)
			}
		case 2:
			if a := r.do("GET", "http://own.example/x", ""); a.status != 200 || a.body != strings.Repeat("/x", 2000) {
				t.Errorf("the control plane's publisher: status %d", a.status)
			}
			// The files of the node's own directory stay, whatever changes in it.
			r.write("catalog.d/more.yaml", "name: more\nhosts: [more.example]\norigin: {scheme: http, address: \"127.0.0.1:1\"}\n")
			lardertest.Eventually(t, "the file is seen", func() bool { return r.do("GET", "http://more.example/x", "").status == 502 })
			if a := r.do("GET", "http://own.example/y", ""); a.status != 200 {
				t.Errorf("after a reload of files the control plane's publisher is gone: status %d", a.status)
			}
		case 3:
			if ds := r.FleetState().Drives; len(ds) != 1 || ds[0].Path != second {
				t.Errorf("drives are %+v, want only %s", ds, second)
			}
		case 4:
			if s := r.FleetState(); s.Ready || !s.Draining {
				t.Errorf("ready %v, draining %v, want a node that drains", s.Ready, s.Draining)
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	s := r.FleetState()
	if !s.Ready || len(s.Drives) != 1 || s.Drives[0].Path != filepath.Join(r.dir, "drive") {
		t.Errorf("after an empty document: %+v, want what the file says", s)
	}
	if a := r.do("GET", "http://own.example/x", ""); a.status != 403 {
		t.Errorf("a publisher that left is still served: %d", a.status)
	}
}

func TestDocumentsWithMistakesChangeNothing(t *testing.T) {
	t.Parallel()
	r := start(t, http.HandlerFunc(bodies), map[string]string{"files.yaml": filesPublisher})
	good := &fleet.Desired{Number: 1, ClientNames: []string{"cache.example"}, Catalog: &fleet.Catalog{Builtin: []string{}}}
	if err := r.Apply(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	bad := &fleet.Desired{
		Number: 2, Drain: true,
		Drives:      []fleet.Drive{{Path: "cache", Size: 1 << 30}},
		Proxy:       &fleet.Proxy{URL: "ftp://user:hunter2@proxy", CA: "no"},
		Limit:       &fleet.Limit{Rate: -1, Schedule: []fleet.Window{{Days: []time.Weekday{7}, From: 10, To: 5}}},
		Catalog:     &fleet.Catalog{Builtin: []string{"windoze"}, Publishers: []fleet.Publisher{{Name: "../x"}, {Name: "y", File: "nam: y"}}},
		ClientNames: []string{"https://cache"},
		Purge:       []fleet.Purge{{ID: "p"}},
		Prefill:     []fleet.Prefill{{ID: "p", URLs: []string{"file:///etc/passwd"}}},
	}
	err := r.Apply(t.Context(), bad)
	if err == nil {
		t.Fatal("it was applied")
	}
	for _, want := range []string{"drives[0].path: ", "proxy.url: ", "proxy.ca: ", "limit.rate: ", "limit.schedule[0]: ", "limit.schedule[0].days: ", "windoze", "catalog.publishers[0].name: ", "nam",
		"clientNames[0]: ", "purge[0]: ", "prefill[0].id: ", "prefill[0].urls[0]: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the proxy's password is in\n%v", err)
	}
	if err := r.Apply(t.Context(), &fleet.Desired{Number: 3, Drives: []fleet.Drive{{Path: filepath.Join(r.dir, "access.log", "x"), Size: 1 << 30}}}); err == nil || !strings.Contains(err.Error(), "drives[0]") {
		t.Errorf("a drive that cannot be made: got %v", err)
	}
	if s := r.FleetState(); s.Draining || len(s.Drives) != 1 {
		t.Errorf("something of it is in use: %+v", s)
	}
	if a := r.do("GET", "http://files.example/x", ""); a.status != 200 {
		t.Errorf("the node serves no more: %d", a.status)
	}
}

// Purges and prefills are done once; what is done is remembered by the next
// process.
func TestJobsAreDoneOnce(t *testing.T) {
	t.Parallel()
	r := start(t, http.HandlerFunc(bodies), map[string]string{"files.yaml": filesPublisher})
	d := &fleet.Desired{Number: 1, Prefill: []fleet.Prefill{
		{ID: "good", URLs: []string{"http://files.example/a", "http://files.example/b"}},
		{ID: "bad", URLs: []string{"https://elsewhere.example/a", "http://files.example/c"}},
		{ID: "later", URLs: []string{"http://files.example/z"}, NotBefore: time.Now().Add(time.Hour)},
	}}
	state := func(id string) fleet.JobState {
		for _, j := range r.FleetState().Jobs {
			if j.ID == id {
				return j
			}
		}
		return fleet.JobState{}
	}
	if err := r.Apply(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	lardertest.Eventually(t, "prefills end", func() bool { return !state("good").Ended.IsZero() && !state("bad").Ended.IsZero() })
	if j := state("good"); j.State != "done" || j.Objects != 2 || j.Bytes != 2*2*2000 {
		t.Errorf("got %+v, want 2 objects", j)
	}
	if j := state("bad"); j.State != "failed" || j.Objects != 1 || !strings.Contains(j.Detail, "elsewhere.example") || !strings.Contains(j.Detail, "403") {
		t.Errorf("got %+v, want one object and why the other failed", j)
	}
	if j := state("later"); j.State != "waiting" {
		t.Errorf("got %+v, want one that waits", j)
	}
	if a := r.do("GET", "http://files.example/a", ""); !strings.Contains(a.cache(), "hit") {
		t.Errorf("what was prefilled is no hit: %s", a.cache())
	}
	d2 := &fleet.Desired{Number: 2, Purge: []fleet.Purge{{ID: "purge", Prefix: "files.example/"}}}
	if err := r.Apply(t.Context(), d2); err != nil {
		t.Fatal(err)
	}
	lardertest.Eventually(t, "the purge ends", func() bool { return state("purge").State == "done" })
	if j := state("purge"); j.Objects != 3 {
		t.Errorf("got %+v, want 3 objects", j)
	}
	if a := r.do("GET", "http://files.example/a", ""); strings.Contains(a.cache(), "hit;") || a.cache() == "" {
		t.Errorf("what was purged is a hit: %s", a.cache())
	}
	// Another process reads what was done.
	again, err := openFleetJobs(r.Node)
	if err != nil {
		t.Fatal(err)
	}
	again.want(d2.Prefill, d2.Purge)
	if id := again.next(time.Now()); id != "" {
		t.Errorf("job %s would be done again", id)
	}
}

func TestCountersOnlyGrowAndNameOutcomes(t *testing.T) {
	t.Parallel()
	r := start(t, http.HandlerFunc(bodies), map[string]string{"files.yaml": filesPublisher + "content_type: internal\n"})
	r.do("GET", "http://files.example/a", "")
	r.do("GET", "http://files.example/a", "")
	r.do("GET", "http://nobody.example/a", "")
	lardertest.Eventually(t, "they are counted", func() bool {
		ts, _ := r.Counters()
		n := int64(0)
		for _, x := range ts {
			n += x.Requests
		}
		return n == 3
	})
	ts, us := r.Counters()
	if len(ts) != 2 || ts[0].ContentType != "internal" || ts[1].ContentType != "none" {
		t.Fatalf("got %+v, want internal and none", ts)
	}
	in := ts[0]
	if in.Requests != 2 || in.Hits != 1 || in.HitBytes != 4000 || in.MissBytes != 4000 || in.Fetched != 4000 {
		t.Errorf("got %+v, want one hit and one miss of 4000 bytes", in)
	}
	if len(in.Outcomes) != 2 || in.Outcomes[0] != (fleet.Outcome{Outcome: "hit", Status: "2xx", Requests: 1}) {
		t.Errorf("outcomes: got %+v", in.Outcomes)
	}
	if len(us) != 1 || us[0].OK != 1 {
		t.Errorf("origins: got %+v, want one with one answer", us)
	}
}
