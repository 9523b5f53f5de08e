package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	batchSize  = 1000
	hotSet     = 10_000 // objects that hot lookups choose from
	scanBlock  = 256
	scanBlocks = 400
)

type buildFigures struct {
	LoadPerSecond, UpdatesPerSecond float64
	SlowestBatch                    time.Duration
	Close                           time.Duration
}

type openFigures struct {
	FirstLookup             time.Duration // from before open to the first object found
	Opened, After           memory        // right after the first lookup; after all the others
	ColdPresent, ColdAbsent quantiles
	HotPresent, HotAbsent   quantiles
	ScanBlock               quantiles
	Wrong                   int // objects whose key or meta was not what was loaded
}

// memory is bytes of the process, after a garbage collection.
type memory struct{ RSS, Anonymous int64 }

type quantiles struct{ P50, P99 time.Duration }

// runPhase does one phase and prints its figures as JSON.
func runPhase(phase, name string, o options) error {
	c := engineByName(name)
	if c == nil {
		return fmt.Errorf("unknown engine %q", name)
	}
	dir := engineDir(o.Dir, name)
	var figures any
	var err error
	switch phase {
	case "build":
		figures, err = build(c, dir, o)
	case "open":
		figures, err = open(c, dir, o)
	case "churn":
		return churn(c, dir, o)
	default:
		return fmt.Errorf("unknown phase %q", phase)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(figures)
}

func build(c *candidate, dir string, o options) (f buildFigures, err error) {
	e, err := c.open(dir, o)
	if err != nil {
		return f, err
	}
	// Making the batches is not the engine's work and is left out of its time.
	var spent time.Duration
	timed := func(do func([]object) error, batch []object) error {
		start := time.Now()
		err := do(batch)
		took := time.Since(start)
		spent += took
		f.SlowestBatch = max(f.SlowestBatch, took)
		return err
	}
	for from := 1; from <= o.Objects; from += batchSize {
		if err := timed(e.Load, loadBatch(uint64(from), min(batchSize, o.Objects-from+1))); err != nil {
			return f, err
		}
	}
	f.LoadPerSecond = float64(o.Objects) / spent.Seconds()
	spent = 0
	r := rand.New(rand.NewPCG(1, 2))
	for done := 0; done < o.Updates; done += batchSize {
		if err := timed(e.Update, updateBatch(r, o.Objects, batchSize)); err != nil {
			return f, err
		}
	}
	f.UpdatesPerSecond = float64(o.Updates) / spent.Seconds()
	start := time.Now()
	err = e.Close()
	f.Close = time.Since(start)
	return f, err
}

func churn(c *candidate, dir string, o options) error {
	e, err := c.open(dir, o)
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(3, 4))
	for first := true; ; first = false {
		if err := e.Update(updateBatch(r, o.Objects, batchSize)); err != nil {
			return err
		}
		if first {
			fmt.Println("ready")
		}
	}
}

func open(c *candidate, dir string, o options) (f openFigures, err error) {
	r := rand.New(rand.NewPCG(5, 6))
	number := func() uint64 { return r.Uint64N(uint64(o.Objects)) + 1 }
	start := time.Now()
	e, err := c.open(dir, o)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()

	// lookup times one lookup and checks what it found.
	lookup := func(n uint64, want bool) (time.Duration, error) {
		k := key(n)
		start := time.Now()
		got, found, err := e.Lookup(k)
		took := time.Since(start)
		switch {
		case err != nil:
			return 0, err
		case found != want:
			f.Wrong++
		case found && (!bytes.Equal(got.Key, k) || !bytes.Equal(got.Meta, meta(n)) || len(got.Segment) != len(segment(n, 0))):
			f.Wrong++
		}
		return took, nil
	}
	run := func(times int, want bool, number func() uint64) (quantiles, error) {
		took := make([]time.Duration, times)
		for i := range took {
			var err error
			if took[i], err = lookup(number(), want); err != nil {
				return quantiles{}, err
			}
		}
		return quantilesOf(took), nil
	}

	if _, err := lookup(number(), true); err != nil {
		return f, err
	}
	f.FirstLookup = time.Since(start)
	f.Opened = readMemory()
	hot := make([]uint64, min(hotSet, o.Objects))
	for i := range hot {
		hot[i] = number()
	}
	anyHot := func() uint64 { return hot[r.IntN(len(hot))] }
	warm := 0
	for _, part := range []struct {
		times  int
		want   bool
		number func() uint64
		out    *quantiles
	}{
		{o.Cold, true, number, &f.ColdPresent},
		{o.Cold, false, func() uint64 { return number() + absent }, &f.ColdAbsent},
		{len(hot), true, func() uint64 { warm++; return hot[warm-1] }, &quantiles{}},
		{o.Lookups, true, anyHot, &f.HotPresent},
		{o.Lookups / 10, false, func() uint64 { return anyHot() + absent }, &f.HotAbsent},
	} {
		if *part.out, err = run(part.times, part.want, part.number); err != nil {
			return f, err
		}
	}
	f.After = readMemory()
	f.ScanBlock, err = scan(e, number())
	return f, err
}

// scan walks blocks in order of insertion as eviction does.
func scan(e engine, after uint64) (quantiles, error) {
	took := make([]time.Duration, scanBlocks)
	for i := range took {
		start := time.Now()
		ids, _, err := e.Scan(after, scanBlock)
		took[i] = time.Since(start)
		if err != nil {
			return quantiles{}, err
		}
		if after = 0; len(ids) == scanBlock {
			after = ids[len(ids)-1]
		}
	}
	return quantilesOf(took), nil
}

func quantilesOf(d []time.Duration) quantiles {
	if len(d) == 0 {
		return quantiles{}
	}
	slices.Sort(d)
	return quantiles{P50: d[len(d)/2], P99: d[len(d)*99/100]}
}

// readMemory is zero on systems without /proc.
func readMemory() (m memory) {
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(status)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		kb, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "VmRSS:":
			m.RSS = kb << 10
		case "RssAnon:":
			m.Anonymous = kb << 10
		}
	}
	return m
}
