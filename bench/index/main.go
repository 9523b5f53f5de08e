// Package main is for choosing the engine of the store's index: it puts one workload on each candidate and measures it.
//
//	go run ./bench/index -n 1000000 -engines sqlite,bbolt,pebble,log
//
// Each engine is built, stopped and opened again in processes of its own, so
// that resident memory and the time to the first lookup are those of a node
// that starts, not of the one that filled the index.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
)

func main() {
	var o options
	flag.IntVar(&o.Objects, "n", 1_000_000, "objects in the index, at most 10000000")
	flag.IntVar(&o.Updates, "updates", 200_000, "random segment updates after the load")
	flag.IntVar(&o.Lookups, "lookups", 100_000, "hot lookups")
	flag.IntVar(&o.Cold, "cold", 2_000, "lookups right after a start with nothing in the page cache")
	flag.StringVar(&o.Dir, "dir", "", "where the indexes are built (default: a new temporary directory)")
	flag.BoolVar(&o.Durable, "durable", false, "sync every batch (SQLite FULL, pebble Sync, log fsync); bbolt always does unless -bbolt-nosync")
	flag.BoolVar(&o.BoltNoSync, "bbolt-nosync", false, "let bbolt skip fsync: a power cut may then destroy its file")
	engines := flag.String("engines", strings.Join(engineNames(), ","), "engines to measure, in order")
	keep := flag.Bool("keep", false, "leave the indexes on disk")
	jsonFile := flag.String("json", "", "also write the results to this file")
	phase := flag.String("phase", "", "internal: the phase this process runs")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if *phase != "" {
		err = runPhase(*phase, *engines, o)
	} else {
		err = compare(ctx, strings.Split(*engines, ","), o, *keep, *jsonFile)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "index:", err)
		os.Exit(1)
	}
}

func compare(ctx context.Context, engines []string, o options, keep bool, jsonFile string) error {
	if o.Objects < 1000 || o.Objects > 10_000_000 {
		return fmt.Errorf("-n %d: expected 1000 to 10000000", o.Objects)
	}
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "larder-index-")
		if err != nil {
			return err
		}
		o.Dir = dir
	}
	var results []*Result
	for _, name := range engines {
		if engineByName(name) == nil {
			return fmt.Errorf("-engines %q: expected some of %s", name, strings.Join(engineNames(), ","))
		}
		fmt.Fprintf(os.Stderr, "index: %s, %d objects\n", name, o.Objects)
		r, err := measure(ctx, name, o)
		if !keep {
			err = errors.Join(err, os.RemoveAll(engineDir(o.Dir, name)))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		results = append(results, r)
	}
	if !keep {
		if err := os.Remove(o.Dir); err != nil {
			return err
		}
	}
	printTable(os.Stdout, o, results)
	out, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if jsonFile != "" {
		return os.WriteFile(jsonFile, append(out, '\n'), 0o644)
	}
	fmt.Printf("\n%s\n", out)
	return nil
}
