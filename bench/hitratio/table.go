package main

import (
	"fmt"
	"io"
)

// printTrace says in Markdown what the requests are like.
func printTrace(w io.Writer, o options, f fleet, t *trace) {
	fmt.Fprintf(w, "Workload %s, seed %d: %d requests in %d days, %d objects (%.0f%% asked for once), %s asked for, %s of them distinct.\n\n",
		o.Workload, o.Seed, len(t.requests), f.Days, len(t.objects),
		100*float64(t.askedOnce())/float64(len(t.objects)), amount(t.asked()), amount(t.distinct()))
	type sum struct {
		objects, requests int
		bytes, asked      int64
	}
	sums := make([]sum, len(f.Kinds))
	for _, o := range t.objects {
		s := &sums[o.kind]
		s.objects++
		s.bytes += o.size
	}
	for i := range t.requests {
		r := &t.requests[i]
		o := t.objects[r.object]
		s := &sums[o.kind]
		s.requests++
		s.asked += o.bytes(r.first, r.end)
	}
	fmt.Fprint(w, "| content | objects | bytes of them | requests | bytes asked for |\n|---|---|---|---|---|\n")
	for i, s := range sums {
		fmt.Fprintf(w, "| %s | %d | %s | %d | %s |\n", f.Kinds[i].Name, s.objects, amount(s.bytes), s.requests, amount(s.asked))
	}
}

// printTable writes one row per policy at one size of the cache. Fetched bytes
// are relative to those of a cache that never evicts.
func printTable(w io.Writer, percent float64, budget int64, results []result, b bound, free result) {
	fmt.Fprintf(w, "\nCache of %g%% of the distinct bytes: %s\n\n", percent, amount(budget))
	fmt.Fprint(w, "| policy | object hit ratio | byte hit ratio | fetched, of infinite | memory, bytes/object | time, ns/request |\n|---|---|---|---|---|---|\n")
	for _, r := range results {
		fmt.Fprintf(w, "| %s | %s | %s | %.3f | %s | %d |\n", r.Policy, share(float64(r.Hits), r.Requests), share(float64(r.Asked-r.Fetched), r.Asked),
			ratio(float64(r.Fetched), free.Fetched), memory(r), r.Took.Nanoseconds()/max(1, r.Requests))
	}
	fmt.Fprintf(w, "| bound | %s | %s | %.3f | | |\n", share(b.Hits, free.Requests), share(b.Bytes, free.Asked), ratio(float64(free.Asked)-b.Bytes, free.Fetched))
	fmt.Fprintf(w, "| infinite | %s | %s | 1.000 | | |\n", share(float64(free.Hits), free.Requests), share(float64(free.Asked-free.Fetched), free.Asked))
}

func ratio(a float64, b int64) float64 { return a / float64(max(1, b)) }

func share(part float64, whole int64) string { return fmt.Sprintf("%.2f%%", 100*ratio(part, whole)) }

func memory(r result) string {
	switch n := ratio(float64(r.Memory), int64(r.Held)); {
	case n == 0:
		return "0"
	case n < 10:
		return fmt.Sprintf("%.2f", n)
	default:
		return fmt.Sprintf("%.0f", n)
	}
}

// amount writes bytes in decimal units, as drives are sold.
func amount(n int64) string {
	switch {
	case n >= 1e12:
		return fmt.Sprintf("%.2f TB", float64(n)/1e12)
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	default:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
}
