package main

import (
	"fmt"
	"io"
	"time"
)

// printTable writes a Markdown table: one row per measure, one column per engine.
func printTable(w io.Writer, o options, results []*Result) {
	fmt.Fprintf(w, "%d objects, batches of %d\n\n|", o.Objects, batchSize)
	for _, r := range results {
		fmt.Fprintf(w, " | %s", r.Engine)
	}
	fmt.Fprint(w, " |\n|---|")
	for range results {
		fmt.Fprint(w, "---|")
	}
	fmt.Fprintln(w)
	for _, row := range []struct {
		name string
		cell func(*Result) string
	}{
		{"load, objects/s", func(r *Result) string { return fmt.Sprintf("%.0f", r.Build.LoadPerSecond) }},
		{"random segment updates/s", func(r *Result) string { return fmt.Sprintf("%.0f", r.Build.UpdatesPerSecond) }},
		{"slowest batch", func(r *Result) string { return short(r.Build.SlowestBatch) }},
		{"clean stop", func(r *Result) string { return short(r.Build.Close) }},
		{"start to first lookup, clean, cold", func(r *Result) string { return short(r.Clean.FirstLookup) }},
		{"start to first lookup, killed, cold", func(r *Result) string { return short(r.Killed.FirstLookup) }},
		{"cold lookup, present, p50 / p99", func(r *Result) string { return r.Clean.ColdPresent.String() }},
		{"cold lookup, absent, p50 / p99", func(r *Result) string { return r.Clean.ColdAbsent.String() }},
		{"hot lookup, present, p50 / p99", func(r *Result) string { return r.Clean.HotPresent.String() }},
		{"hot lookup, absent, p50 / p99", func(r *Result) string { return r.Clean.HotAbsent.String() }},
		{fmt.Sprintf("scan of %d by insertion, p50 / p99", scanBlock), func(r *Result) string { return r.Clean.ScanBlock.String() }},
		{"memory after start, clean (anonymous)", func(r *Result) string { return r.Clean.Opened.String() }},
		{"memory after start, killed (anonymous)", func(r *Result) string { return r.Killed.Opened.String() }},
		{fmt.Sprintf("memory after %d lookups (anonymous)", o.Lookups), func(r *Result) string { return r.Clean.After.String() }},
		{"disk, bytes/object", func(r *Result) string { return fmt.Sprintf("%.0f", r.DiskPerItem) }},
		{"wrong answers, clean / killed", func(r *Result) string { return fmt.Sprintf("%d / %d", r.Clean.Wrong, r.Killed.Wrong) }},
	} {
		fmt.Fprintf(w, "| %s |", row.name)
		for _, r := range results {
			fmt.Fprintf(w, " %s |", row.cell(r))
		}
		fmt.Fprintln(w)
	}
}

func (q quantiles) String() string { return short(q.P50) + " / " + short(q.P99) }

func (m memory) String() string {
	return fmt.Sprintf("%.0f MB (%.0f)", float64(m.RSS)/1e6, float64(m.Anonymous)/1e6)
}

func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	default:
		return fmt.Sprintf("%.1f µs", float64(d)/1e3)
	}
}
