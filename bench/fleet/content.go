package main

import (
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"time"

	"larder/internal/fleet"
)

// What a node of a school or a branch office says of itself: two drives, six
// origins, a certificate, and five content types with what became of their
// requests. One delivery is about four kilobytes of JSON.

const driveBudget = 200e9 // bytes

var (
	drives  = []string{"/srv/larder/a", "/srv/larder/b"}
	origins = []string{
		"dl.delivery.mp.microsoft.com", "au.download.windowsupdate.com", "officecdn.microsoft.com",
		"swda01-mscdn.manage.microsoft.com", "statics.teams.cdn.office.net", "definitionupdates.microsoft.com",
	}
	contentTypes = []string{"windows-update", "office", "store", "defender", "intune"}
)

// newState is the state of node i when it has started.
func newState(i int, now time.Time) fleet.State {
	now = now.UTC().Truncate(time.Second)
	host := fmt.Sprintf("cache-%d.school.example", i)
	s := fleet.State{
		System: fleet.System{
			Hostname: host, OS: "linux", Arch: "amd64", Edition: "Debian GNU/Linux", Release: "12", Build: "6.1.0-37-amd64", Version: "1.0.0",
			Host: fmt.Sprintf("10.%d.%d.2", i>>8&255, i&255),
		},
		Started: now, HTTP: []string{"0.0.0.0:80"}, HTTPS: []string{"0.0.0.0:443"}, Ready: true,
	}
	for k, path := range drives {
		s.Drives = append(s.Drives, fleet.DriveState{
			Path: path, ID: fmt.Sprintf("%x", sha1.Sum(fmt.Append(nil, "drive ", i, k)))[:32],
			Budget: driveBudget, Used: driveBudget / 2, Free: driveBudget, Objects: 20_000, State: "ok", Since: now,
		})
	}
	for _, h := range origins {
		s.Origins = append(s.Origins, fleet.OriginState{Host: h, LastOKAt: now})
	}
	s.Certificates = []fleet.Certificate{{
		File: "certs/" + host + ".crt", Active: true, Subject: "CN=" + host, Issuer: "CN=Schools Issuing CA 3,O=Schools,C=DE",
		Names: []string{host, "cache.school.example", s.System.Host}, NotBefore: now.AddDate(0, -1, 0), NotAfter: now.AddDate(0, 11, 0),
		SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(host))), SHA1: fmt.Sprintf("%x", sha1.Sum([]byte(host))), KeyType: "ECDSA P-256", Source: "csr",
	}}
	return s
}

// step brings the state up to the moment of a delivery.
func (n *node) step(now time.Time) {
	n.state.Running = n.running
	for i := range n.state.Drives {
		d := &n.state.Drives[i]
		d.Used += n.rand.Int64N(50e6)
		d.Free = 2*driveBudget - d.Used
		d.Objects += n.rand.Int64N(20)
	}
	for i := range n.state.Origins {
		o := &n.state.Origins[i]
		o.OK += n.rand.Int64N(30)
		o.LastOKAt = now.UTC().Truncate(time.Millisecond)
	}
}

// minute makes the next minute, the one that ends at end.
func (n *node) minute(end time.Time) fleet.Minute {
	n.seq++
	end = end.UTC().Truncate(time.Millisecond)
	m := fleet.Minute{Seq: n.seq, Start: end.Add(-n.f.s.every), End: end}
	for _, name := range contentTypes {
		misses, partial := 1+n.rand.Int64N(10), 1+n.rand.Int64N(5)
		t := fleet.Traffic{ContentType: name, Hits: 10 + n.rand.Int64N(200)}
		t.Requests = t.Hits + misses + partial
		t.HitBytes, t.MissBytes = t.Hits*(1<<20)-n.rand.Int64N(1<<20), (misses+partial)*(1<<20)
		t.Fetched = t.MissBytes
		t.Outcomes = []fleet.Outcome{
			{Outcome: "hit", Status: "2xx", Requests: t.Hits}, {Outcome: "miss", Status: "2xx", Requests: misses}, {Outcome: "partial", Status: "2xx", Requests: partial},
		}
		m.Traffic = append(m.Traffic, t)
	}
	for _, h := range origins {
		m.Origins = append(m.Origins, fleet.Upstream{Host: h, OK: 1 + n.rand.Int64N(30)})
	}
	return m
}

func requests(m *fleet.Minute) (sum int64) {
	for i := range m.Traffic {
		sum += m.Traffic[i].Requests
	}
	return sum
}
