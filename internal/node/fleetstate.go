package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"larder/internal/fleet"
	"larder/internal/pki/inventory"
	"larder/internal/pki/vet"
	"larder/internal/sys/sysinfo"
)

// FleetState is what the node tells the control plane of how it is now.
func (n *Node) FleetState() fleet.State {
	a := n.Addresses()
	s := fleet.State{
		System: SystemInfo(n.version), Started: n.started, HTTP: a.HTTP, HTTPS: a.HTTPS, Ready: len(n.unready()) == 0, Draining: n.Draining(),
		Drives: []fleet.DriveState{}, Issues: n.issues(), Certificates: n.certificates(), Jobs: n.jobs.list(),
		Replaced: n.program.Replaced(time.Now()),
	}
	for _, d := range n.store.Drives() {
		s.Drives = append(s.Drives, fleet.DriveState{
			Path: d.Path, ID: d.ID, Budget: d.Budget, Used: d.Used, Free: d.Free, Objects: d.Objects, State: d.State, Error: d.Err, Since: d.Since,
		})
	}
	for _, h := range n.origin.Hosts() {
		s.Origins = append(s.Origins, fleet.OriginState{Host: h.Host, OK: h.OK, Failures: h.Failures, LastError: h.LastErr, LastErrorAt: h.LastErrAt, LastOKAt: h.LastOKAt})
	}
	return s
}

// SystemInfo says what a node of this version runs on here.
func SystemInfo(version string) fleet.System {
	s := sysinfo.Read()
	return fleet.System{Hostname: s.Hostname, OS: s.OS, Arch: s.Arch, Edition: s.Edition, Release: s.Release, Build: s.Build, Version: version}
}

// issues are what needs attention, each with a word that stays the same while
// the issue does.
func (n *Node) issues() []fleet.Issue {
	var all []fleet.Issue
	add := func(kind, subject, text, fix string) {
		all = append(all, fleet.Issue{Type: kind, Subject: subject, Text: text, Fix: fix})
	}
	if why := n.unready(); len(why) > 0 && !n.Draining() {
		add("unready", "", why[0], "Look at the drives: larder node status.")
	}
	for _, d := range n.store.Drives() {
		if d.State != "ok" {
			add("drive-"+d.State, d.Path, fmt.Sprintf("drive %s is %s: %s", d.Path, d.State, d.Err), "Mend or replace the disk; the node takes the drive back by itself.")
		}
	}
	if rotten := n.store.ChecksumFailures(); rotten > 0 {
		add("integrity", "", fmt.Sprintf("%d chunks were found rotten since the start and are fetched again", rotten), "Look at the disk's health: what rots once rots again.")
	}
	if _, err := n.catalogs.state(); err != nil {
		add("catalog-invalid", "", "the catalogue's files hold a mistake, the old catalogue is in use: "+err.Error(), "Mend the file; larder node check names every mistake.")
	}
	for _, p := range n.problemsOfHTTPS() {
		kind, fix := "certificate", "larder tls show says more."
		if strings.HasPrefix(p, "HTTPS is not served") {
			kind, fix = "https-closed", "larder tls preflight says who has the port."
		}
		add(kind, "", p, fix)
	}
	return all
}

// certificates are those of the TLS directory, the active one with what is to
// be done about it.
func (n *Node) certificates() []fleet.Certificate {
	var all []fleet.Certificate
	active := ""
	if n.cert.Has() {
		c := n.cert.Status()
		active = c.SHA256
		f := fleet.Certificate{
			File: c.File, Active: true, Subject: c.Subject, Issuer: c.Issuer, Names: c.SANs, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
			SHA256: c.SHA256, SHA1: c.SHA1, KeyType: c.KeyType,
		}
		if st := n.https.status(); st != nil {
			f.Action, f.Severity = st.Warning, severity(st.Level)
			if st.Auto != nil {
				f.Source, f.NextAttempt, f.LastError = st.Auto.Method, st.Auto.NextAttempt, st.Auto.LastError
			}
		}
		all = append(all, f)
	}
	if n.https.dir == nil {
		return all
	}
	ctx, cancel := context.WithTimeout(n.ctx, 2*time.Second)
	defer cancel()
	inv, err := n.https.dir.Inventory(ctx)
	if err != nil {
		return all // somebody imports just now; the next delivery has it
	}
	for i := range inv.Entries {
		e := &inv.Entries[i]
		if e.SHA256 == active {
			all[0].Source = e.Source
			continue
		}
		if e.State == inventory.Active {
			continue // written down and not served: https.status says so
		}
		all = append(all, fleet.Certificate{
			File: e.File, Subject: e.Subject, Issuer: e.Issuer, Names: e.SANs, NotBefore: e.NotBefore, NotAfter: e.NotAfter,
			SHA256: e.SHA256, SHA1: e.SHA1, KeyType: e.KeyType, Source: e.Source,
		})
	}
	return all
}

// severity is a level of warning in the words of reports.
func severity(l vet.Level) string {
	switch {
	case l >= vet.Critical:
		return "error"
	case l > vet.None:
		return "warning"
	}
	return ""
}

// Counters are what the node did since its process started, by content type and
// by origin: counts that only grow. Requests that no publisher serves have the
// content type "none".
func (n *Node) Counters() ([]fleet.Traffic, []fleet.Upstream) {
	var us []fleet.Upstream
	for _, h := range n.origin.Hosts() {
		us = append(us, fleet.Upstream{Host: h.Host, OK: h.OK, Failures: h.Failures})
	}
	return n.stats.traffic(), us
}

func (s *stats) traffic() []fleet.Traffic {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []fleet.Traffic
	for _, name := range slices.Sorted(maps.Keys(s.types)) {
		t := s.types[name]
		f := fleet.Traffic{
			ContentType: name, Requests: t.requests.Load(), Hits: t.hits.Load(),
			HitBytes: t.hit.Load(), MissBytes: t.missed.Load(), Fetched: t.fetched.Load(),
		}
		t.outcomes.Range(func(k, v any) bool {
			key := k.(outcomeKey)
			f.Outcomes = append(f.Outcomes, fleet.Outcome{Outcome: string(key.how), Status: strconv.Itoa(key.class) + "xx", Requests: v.(*outcome).n.Load()})
			return true
		})
		slices.SortFunc(f.Outcomes, func(a, b fleet.Outcome) int { return strings.Compare(a.Outcome+a.Status, b.Outcome+b.Status) })
		all = append(all, f)
	}
	return all
}
