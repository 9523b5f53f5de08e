package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// spread is a figure over the rounds.
type spread struct{ min, median, max float64 }

func spreadOf[T any](rounds []T, figure func(T) float64) spread {
	v := make([]float64, len(rounds))
	for i, r := range rounds {
		v[i] = figure(r)
	}
	slices.Sort(v)
	return spread{v[0], v[len(v)/2], v[len(v)-1]}
}

// String shows the median and, in parentheses, the least and the most.
func (s spread) String() string {
	return fmt.Sprintf("%s (%s-%s)", figure(s.median), figure(s.min), figure(s.max))
}

func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// markdown writes a table row by row.
type markdown struct{ w io.Writer }

func (m markdown) row(cells ...string) { fmt.Fprintf(m.w, "| %s |\n", strings.Join(cells, " | ")) }

func (m markdown) head(cells ...string) {
	m.row(cells...)
	m.row(slices.Repeat([]string{"---"}, len(cells))...)
}

func printResults(w io.Writer, s settings, subjects []*subject) {
	m := markdown{w}
	var jobs []job
	for _, j := range hotJobs {
		if slices.Contains(s.jobs, j.name) {
			jobs = append(jobs, j)
		}
	}
	if len(jobs) > 0 {
		printHot(m, s, jobs, subjects)
		printRatios(m, jobs, subjects)
	}
	printStampede(m, s, subjects)
	printMemory(m, subjects)
	for _, sub := range subjects {
		for name, why := range sub.Failed {
			fmt.Fprintf(w, "\n%s, %s: %s\n", sub.Peer, name, why)
		}
	}
}

func printHot(m markdown, s settings, jobs []job, subjects []*subject) {
	for _, measure := range []struct {
		title string
		value func(HotRound) float64
	}{
		{"Server CPU per request, µs", func(r HotRound) float64 { return r.CPUPerRequest }},
		{"Server CPU per GiB, ms", func(r HotRound) float64 { return r.CPUPerGiB }},
		{"Requests per second", func(r HotRound) float64 { return r.RequestsPerSecond }},
		{"Throughput, MB/s", func(r HotRound) float64 { return r.BytesPerSecond / 1e6 }},
		{"Longest answer, ms", func(r HotRound) float64 { return ms(r.Longest) }},
		{"Memory peak during the job, MB", func(r HotRound) float64 { return float64(r.Memory) / 1e6 }},
	} {
		fmt.Fprintf(m.w, "\n%s: median (min-max) of %d rounds\n\n", measure.title, s.rounds)
		m.head(append([]string{""}, titles(jobs)...)...)
		for _, sub := range subjects {
			cells := []string{sub.Peer}
			for _, j := range jobs {
				cells = append(cells, cell(sub.Hot[j.name], measure.value))
			}
			m.row(cells...)
		}
	}
}

func titles(jobs []job) (titles []string) {
	for _, j := range jobs {
		titles = append(titles, j.title)
	}
	return titles
}

func cell[T any](rounds []T, value func(T) float64) string {
	if len(rounds) == 0 {
		return "-"
	}
	return spreadOf(rounds, value).String()
}

func cpu(r HotRound) float64 { return r.CPUPerRequest }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// printRatios shows larder's processor time as a part of each peer's: below 1 larder is cheaper.
func printRatios(m markdown, jobs []job, subjects []*subject) {
	for _, own := range subjects {
		if !strings.HasPrefix(own.Peer, "larder") {
			continue
		}
		fmt.Fprintf(m.w, "\nCPU of %s / CPU of the peer: median (min-max) of the rounds' ratios\n\n", own.Peer)
		m.head(append([]string{""}, titles(jobs)...)...)
		for _, peer := range subjects {
			if strings.HasPrefix(peer.Peer, "larder") {
				continue
			}
			cells := []string{peer.Peer}
			for _, j := range jobs {
				cells = append(cells, ratios(own.Hot[j.name], peer.Hot[j.name]))
			}
			m.row(cells...)
		}
	}
}

// ratios pairs the rounds: what disturbed one round disturbed both of a pair.
func ratios(own, peer []HotRound) string {
	n := min(len(own), len(peer))
	pairs := make([]float64, 0, n)
	for i := range n {
		if cpu(peer[i]) > 0 {
			pairs = append(pairs, cpu(own[i])/cpu(peer[i]))
		}
	}
	return cell(pairs, func(v float64) float64 { return v })
}

func printStampede(m markdown, s settings, subjects []*subject) {
	if !slices.Contains(s.jobs, "stampede") {
		return
	}
	fmt.Fprintf(m.w, "\nCold stampede: %d clients, %d connections each, one cold file of %d MiB in 1 MiB ranges; the origin gives %d MB/s after %s\n\n",
		stampedeClients, stampedeConns, 64, s.rate/1_000_000, s.delay)
	m.head("", "rounds", "wall / ideal", "origin bytes / size", "first byte p50, ms", "first byte p99, ms", "first body byte p50, ms", "first body byte p99, ms", "CPU per GiB delivered, ms", "memory peak, MB")
	for _, sub := range subjects {
		r := sub.Stampede
		origin := "-"
		if len(r) > 0 {
			// Three decimals: the target is exactly 1.000.
			o := spreadOf(r, func(r StampedeRound) float64 { return r.OriginRatio })
			origin = fmt.Sprintf("%.3f (%.3f-%.3f)", o.median, o.min, o.max)
		}
		m.row(sub.Peer, fmt.Sprint(len(r)),
			cell(r, func(r StampedeRound) float64 { return r.WallRatio }), origin,
			cell(r, func(r StampedeRound) float64 { return ms(r.FirstByteP50) }),
			cell(r, func(r StampedeRound) float64 { return ms(r.FirstByteP99) }),
			cell(r, func(r StampedeRound) float64 { return ms(r.FirstBodyP50) }),
			cell(r, func(r StampedeRound) float64 { return ms(r.FirstBodyP99) }),
			cell(r, func(r StampedeRound) float64 { return r.CPUPerGiB }),
			cell(r, func(r StampedeRound) float64 { return float64(r.Memory) / 1e6 }))
	}
}

func printMemory(m markdown, subjects []*subject) {
	fmt.Fprint(m.w, "\nPeak of resident memory over everything, MB (proportional set size of all processes)\n\n")
	m.head("", "MB")
	sorted := slices.SortedStableFunc(slices.Values(subjects), func(a, b *subject) int { return cmp.Compare(a.Memory, b.Memory) })
	for _, sub := range sorted {
		m.row(sub.Peer, fmt.Sprintf("%.0f", float64(sub.Memory)/1e6))
	}
}
