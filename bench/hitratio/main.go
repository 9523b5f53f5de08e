// Command hitratio is for choosing what the store evicts: it plays the requests of a made-up fleet to a cache under one policy after the other.
//
//	go run ./bench/hitratio -workload mixed -requests 2000000 -sizes 1,5,20 -seed 1
//
// Nothing is fetched or stored; only objects and bytes are counted, so weeks of
// a fleet take seconds. What is not simulated: how long a fill takes (it is
// there at once, and whoever asks meanwhile has a hit), pins, floors of
// publishers, several drives, and blocks of the file system.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// shortRequests is how many requests -short makes: enough to see that all works.
const shortRequests = 30_000

func main() {
	var o options
	flag.Uint64Var(&o.Seed, "seed", 1, "what the workload is drawn from; the same seed gives the same requests")
	flag.IntVar(&o.Requests, "requests", 2_000_000, "requests to make, about")
	flag.StringVar(&o.Workload, "workload", "mixed", "patchday, mirror or mixed")
	sizes := flag.String("sizes", "1,5,20", "cache sizes, percent of the bytes of all that is asked for")
	policies := flag.String("policies", strings.Join(policyNames(), ","), "policies to compare, in order")
	short := flag.Bool("short", false, fmt.Sprintf("make only %d requests", shortRequests))
	flag.Parse()

	o.Policies = strings.Split(*policies, ",")
	if *short {
		o.Requests = shortRequests
	}
	var err error
	if o.Sizes, err = parseSizes(*sizes); err == nil {
		err = compare(os.Stdout, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hitratio:", err)
		os.Exit(1)
	}
}

func parseSizes(text string) (sizes []float64, err error) {
	for s := range strings.SplitSeq(text, ",") {
		n, e := strconv.ParseFloat(s, 64)
		if e != nil || !(n > 0 && n <= 100) {
			err = errors.Join(err, fmt.Errorf("-sizes %q: expected percentages above 0 and up to 100", s))
		}
		sizes = append(sizes, n)
	}
	return sizes, err
}
