package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// result is what a run of one size came to.
type result struct {
	Nodes    int
	Database string // and its version

	Cores, MaxCores float64 // of processors, by the control plane: on average, and over the 10 s in which it used most
	PostgresCores   float64
	FleetCores      float64
	Peak, Resident  float64 // MB: the most, and the average
	Sent, Taken     sums
	Polls           int
	Errors, Said    map[string]int
	Metrics         metrics

	kept      kept
	latencies []time.Duration // ascending
	nodes     []*node
}

// window is the time over which the most that was used is looked for.
const window = 10 * time.Second

// usage works out what was used from one moment to another.
func (r *result) usage(seen []usage, from, to time.Time) {
	var steady []usage
	for _, u := range seen {
		if r.Peak = max(r.Peak, float64(u.peak)/1e6); !u.at.Before(from) && !u.at.After(to) {
			steady = append(steady, u)
			r.Resident += float64(u.resident) / 1e6
		}
	}
	if len(steady) < 2 {
		return
	}
	r.Resident /= float64(len(steady))
	first, last := steady[0], steady[len(steady)-1]
	cores := func(a, b usage, of func(usage) time.Duration) float64 {
		return float64(of(b)-of(a)) / float64(b.at.Sub(a.at))
	}
	plane := func(u usage) time.Duration { return u.plane }
	r.Cores = cores(first, last, plane)
	r.PostgresCores = cores(first, last, func(u usage) time.Duration { return u.pg })
	r.FleetCores = cores(first, last, func(u usage) time.Duration { return u.fleet })
	r.MaxCores = r.Cores
	begin := 0
	for _, u := range steady {
		// The shortest span up to u that is a window long, give or take a sample's
		// lateness.
		for begin+1 < len(steady) && u.at.Sub(steady[begin+1].at) >= window-window/20 {
			begin++
		}
		if u.at.Sub(steady[begin].at) >= window-window/20 {
			r.MaxCores = max(r.MaxCores, cores(steady[begin], u, plane))
		}
	}
}

// percentile is the shortest time that the share p of the reports did not exceed.
func (r *result) percentile(p float64) time.Duration {
	n := len(r.latencies)
	if n == 0 {
		return 0
	}
	return r.latencies[max(0, int(math.Ceil(p*float64(n)))-1)]
}

// losses says what was lost or counted twice, and what was not delivered.
func (r *result) losses() (found []error) {
	if r.Taken != r.Sent {
		found = append(found, fmt.Errorf("%d minutes with %d requests were sent, %d with %d were acknowledged", r.Sent.minutes, r.Sent.requests, r.Taken.minutes, r.Taken.requests))
	}
	// What was sent and not acknowledged may have been kept or not.
	between := func(what string, got, low, high int64) {
		if got < low || got > high {
			found = append(found, fmt.Errorf("%s: found %d in the database, expected %d that were acknowledged, at most %d that were sent", what, got, low, high))
		}
	}
	between("minutes", r.kept.total.minutes, r.Taken.minutes, r.Sent.minutes)
	between("minutes by node", r.kept.quarters, r.Taken.minutes, r.Sent.minutes)
	between("requests", r.kept.total.requests, r.Taken.requests, r.Sent.requests)
	between("requests by node", r.kept.single, r.Taken.requests, r.Sent.requests)
	if r.kept.behind > 0 {
		found = append(found, fmt.Errorf("%d nodes of which another minute was taken last than was acknowledged", r.kept.behind))
	}
	return found
}

// over says which bounds are broken.
func (r *result) over(s settings) (found []error) {
	if s.maxCores > 0 && r.Cores > s.maxCores {
		found = append(found, fmt.Errorf("the control plane used %.2f processors, expected at most %g", r.Cores, s.maxCores))
	}
	if s.maxMB > 0 && r.Peak > s.maxMB {
		found = append(found, fmt.Errorf("the control plane had %.0f MB resident, expected at most %g", r.Peak, s.maxMB))
	}
	if p99 := r.percentile(.99); s.maxP99 > 0 && p99 > s.maxP99 {
		found = append(found, fmt.Errorf("99 of 100 reports took %s or less, expected %s", p99.Round(time.Millisecond), s.maxP99))
	}
	return found
}

// metrics are values of the control plane's own metrics, by name and labels.
type metrics map[string]float64

// mean is the mean of a histogram of ours, by its name without "larder_".
func (m metrics) mean(name string) float64 {
	return m["larder_"+name+"_sum"] / m["larder_"+name+"_count"]
}

// scrape reads the control plane's metrics.
func scrape(ctx context.Context, addr string, cfg *tls.Config) (metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tr := &http.Transport{TLSClientConfig: cfg.Clone(), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("reading the control plane's metrics: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New("reading the control plane's metrics: answered " + resp.Status)
	}
	m := metrics{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			m[name] = v
		}
	}
	return m, lines.Err()
}
