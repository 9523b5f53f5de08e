package main

import (
	"fmt"
	"io"
	"strings"
)

// options are the flags.
type options struct {
	Seed     uint64
	Requests int
	Workload string
	Sizes    []float64 // percent of the working set
	Policies []string
}

// maxRequests keeps a trace within a few hundred megabytes of memory.
const maxRequests = 10_000_000

func (o options) check() error {
	if o.Requests < 1000 || o.Requests > maxRequests {
		return fmt.Errorf("-requests %d: expected 1000 to %d", o.Requests, maxRequests)
	}
	for _, name := range o.Policies {
		if candidateByName(name) == nil {
			return fmt.Errorf("-policies %q: expected some of %s", name, strings.Join(policyNames(), ","))
		}
	}
	return nil
}

// compare makes the trace once and plays it to every policy at every size.
func compare(w io.Writer, o options) error {
	if err := o.check(); err != nil {
		return err
	}
	f, err := fleetOf(o.Workload)
	if err != nil {
		return err
	}
	t := f.generate(o.Requests, o.Seed)
	printTrace(w, o, f, t)
	free := infinite(t)
	for _, percent := range o.Sizes {
		budget := int64(float64(t.distinct()) * percent / 100)
		var results []result
		for _, name := range o.Policies {
			r := play(t, budget, candidateByName(name).make(setupFor(t, budget)))
			r.Policy = name
			results = append(results, r)
		}
		printTable(w, percent, budget, results, boundOf(t, budget), free)
	}
	return nil
}
