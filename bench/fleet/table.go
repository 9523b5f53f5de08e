package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// write says in Markdown where and how it was measured, and what came out.
func write(w io.Writer, s settings, results []*result) {
	row := func(cells ...any) {
		text := make([]string, len(cells))
		for i, c := range cells {
			text[i] = fmt.Sprint(c)
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(text, " | "))
	}
	head := func(cells ...any) {
		row(cells...)
		fmt.Fprintln(w, "|"+strings.Repeat("---|", len(cells)))
	}
	head("", "")
	row("date", time.Now().Format(time.DateOnly))
	row("machine", machine())
	row("Go", runtime.Version())
	row("database", results[0].Database+place(s))
	row("command", "`go run ./bench/fleet "+strings.Join(os.Args[1:], " ")+"`")
	row("load", load(s))
	fmt.Fprintln(w)
	head("nodes", "reports", "p50, ms", "p90, ms", "p99, ms", "longest, ms", "errors", "control plane, cores", "most of 10 s, cores", "memory peak, MB", "memory mean, MB",
		"PostgreSQL, cores", "simulator, cores", "minutes sent", "acknowledged", "in the database")
	for _, r := range results {
		errors := 0
		for _, n := range r.Errors {
			errors += n
		}
		pg := "-"
		if r.PostgresCores > 0 {
			pg = fmt.Sprintf("%.2f", r.PostgresCores)
		}
		row(r.Nodes, len(r.latencies), ms(r.percentile(.5)), ms(r.percentile(.9)), ms(r.percentile(.99)), ms(r.percentile(1)), errors,
			fmt.Sprintf("%.2f", r.Cores), fmt.Sprintf("%.2f", r.MaxCores), fmt.Sprintf("%.0f", r.Peak), fmt.Sprintf("%.0f", r.Resident), pg, fmt.Sprintf("%.2f", r.FleetCores),
			r.Sent.minutes, r.Taken.minutes, r.kept.total.minutes)
	}
	fmt.Fprintln(w)
	for _, r := range results {
		m := r.Metrics
		fmt.Fprintf(w, "%d nodes: deliveries per transaction %.1f, time of a transaction %.1f ms; alerts looked at in %.0f ms; %.0f goroutines; heap in use %.0f MB, from the system %.0f MB; %d polls answered.\n",
			r.Nodes, m.mean("telemetry_batch_deliveries"), 1000*m.mean("telemetry_commit_seconds"), 1000*m.mean("alert_evaluation_seconds"),
			m["go_goroutines"], m["go_memstats_heap_inuse_bytes"]/1e6, m["go_memstats_sys_bytes"]/1e6, r.Polls)
		for _, list := range []map[string]int{r.Errors, r.Said} {
			for _, what := range slices.Sorted(maps.Keys(list)) {
				fmt.Fprintf(w, "- %d times %s\n", list[what], what)
			}
		}
	}
	if s.project > 0 && len(results) > 1 {
		a, b := results[0], results[len(results)-1]
		cores := lineThrough(a.Nodes, a.Cores, b.Nodes, b.Cores)
		mb := lineThrough(a.Nodes, a.Peak, b.Nodes, b.Peak)
		fmt.Fprintf(w, "\nProjection for %d nodes, by a straight line through %d and %d: %.1f cores (%.3f and %.3f for each 1,000 nodes), %.0f MB (%.0f and %.1f for each 1,000 nodes). Not measured.\n",
			s.project, a.Nodes, b.Nodes, cores.at(s.project), cores.fixed, 1000*cores.slope, mb.at(s.project), mb.fixed, 1000*mb.slope)
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }

// line is what something costs: fixed, and slope for each node.
type line struct{ fixed, slope float64 }

func lineThrough(n1 int, v1 float64, n2 int, v2 float64) line {
	slope := (v2 - v1) / float64(n2-n1)
	return line{v1 - slope*float64(n1), slope}
}

func (l line) at(n int) float64 { return l.fixed + l.slope*float64(n) }

func load(s settings) string {
	text := fmt.Sprintf("%d minutes of %s; a report each, spread over %g of the minute", s.minutes, s.every, s.spread)
	if s.poll {
		text += "; a poll held by each node"
	}
	if s.reconnect > 0 {
		text += fmt.Sprintf("; %g of the reports end their connection", s.reconnect)
	}
	return text
}

func place(s settings) string {
	switch s.database {
	case "":
		return ", on the same machine, set as it is delivered"
	case "sqlite":
		return ", in the control plane's process"
	}
	return ", as it was given"
}

// machine says where: figures of two runs compare only if this agrees.
func machine() string {
	first := func(path, prefix string) string {
		b, _ := os.ReadFile(path)
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return strings.TrimSpace(strings.TrimLeft(rest, "\t :"))
			}
		}
		return "?"
	}
	return fmt.Sprintf("%d processors, %s; memory %s; Linux %s", runtime.NumCPU(), first("/proc/cpuinfo", "model name"), first("/proc/meminfo", "MemTotal"), first("/proc/sys/kernel/osrelease", ""))
}
