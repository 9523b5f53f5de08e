// Command fleet simulates nodes that report to a control plane, and measures what that costs it.
//
//	go run ./bench/fleet                                            # 10,000 nodes, five minutes, a PostgreSQL of its own
//	go run ./bench/fleet -sizes 1000,10000 -project 100000          # and what 100,000 would cost, by a straight line
//	go run ./bench/fleet -max-cores 1 -max-mb 512 -max-p99 100ms    # ends with 1 if it costs more
//
// The control plane is the real binary in a process of its own; what it used is
// read from /proc. Each node has a record, an identity and connections of its
// own, and does what a node does: it says how it is when it starts, holds a poll
// for its document, and delivers a minute every minute. At the end the minutes
// in the database are compared with those that were sent.
//
// The nodes and PostgreSQL share the machine's processors with the control
// plane, so times are what a machine of this size gives when all of it is on it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type settings struct {
	sizes     []int         // nodes, one run each
	minutes   int           // that each node reports
	every     time.Duration // how long such a minute is
	spread    float64       // the share of a minute in which the reports come
	poll      bool
	reconnect float64 // the share of reports after which a node's connection ends
	database  string  // "", "sqlite", or where an empty one is
	binary    string
	project   int

	maxCores float64
	maxMB    float64
	maxP99   time.Duration
}

func main() {
	var s settings
	nodes := flag.Int("nodes", 10_000, "nodes of the fleet")
	sizes := flag.String("sizes", "", "fleets of several sizes after one another, such as 1000,10000, instead of -nodes")
	flag.IntVar(&s.minutes, "minutes", 5, "minutes that each node reports while it is measured")
	flag.DurationVar(&s.every, "every", time.Minute, "how long such a minute is; less than a minute is for trying")
	flag.Float64Var(&s.spread, "spread", 1, "share of the minute over which the nodes' reports are spread")
	flag.BoolVar(&s.poll, "poll", true, "nodes hold a poll for their document between reports")
	flag.Float64Var(&s.reconnect, "reconnect", .05, "share of reports after which a node's connection is closed, and made anew for the next one")
	flag.StringVar(&s.database, "database", "", "postgres://… or the path of a file, empty and left filled; sqlite: a file of its own (default: a PostgreSQL server of its own)")
	flag.StringVar(&s.binary, "larder", "", "larder's binary (default: build ./cmd/larder)")
	flag.IntVar(&s.project, "project", 0, "nodes to say a cost for, by a straight line through the first and the last of -sizes")
	flag.Float64Var(&s.maxCores, "max-cores", 0, "the most processors that the control plane may use on average; 0: any")
	flag.Float64Var(&s.maxMB, "max-mb", 0, "the most memory that it may have had, in MB; 0: any")
	flag.DurationVar(&s.maxP99, "max-p99", 0, "the longest that 99 of 100 reports may take; 0: any")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := s.complete(*nodes, *sizes, flag.Args())
	if err == nil {
		err = measure(ctx, s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// complete checks what the flags say and fills in the sizes.
func (s *settings) complete(nodes int, sizes string, rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("found the argument %q, expected flags only", rest[0])
	}
	s.sizes = []int{nodes}
	if sizes != "" {
		s.sizes = nil
		for text := range strings.SplitSeq(sizes, ",") {
			n, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil {
				return fmt.Errorf("-sizes: found %q, expected numbers of nodes with commas between them", sizes)
			}
			s.sizes = append(s.sizes, n)
		}
	}
	for _, n := range s.sizes {
		if n < 1 || n > maxNodes {
			return fmt.Errorf("-nodes, -sizes: found %d, expected 1 to %d", n, maxNodes)
		}
	}
	switch {
	case runtime.GOOS != "linux":
		return errors.New("this benchmark reads /proc: run it on Linux")
	case s.minutes < 1:
		return fmt.Errorf("-minutes: found %d, expected at least 1", s.minutes)
	case s.every < time.Second || s.every > time.Hour:
		return fmt.Errorf("-every: found %s, expected 1s to 1h", s.every)
	case s.spread <= 0 || s.spread > 1:
		return fmt.Errorf("-spread: found %g, expected more than 0 and at most 1", s.spread)
	case s.reconnect < 0 || s.reconnect > 1:
		return fmt.Errorf("-reconnect: found %g, expected 0 to 1", s.reconnect)
	case len(s.sizes) > 1 && s.database != "" && s.database != "sqlite":
		return errors.New("-database: a database serves one size; expected none or sqlite with -sizes")
	case s.project != 0 && (len(s.sizes) < 2 || s.sizes[0] == s.sizes[len(s.sizes)-1]):
		return errors.New("-project: needs two different -sizes to draw a line through")
	}
	return nil
}

// measure runs all sizes, prints what came out, and returns an error if minutes
// were lost or a bound is broken.
func measure(ctx context.Context, s settings) (err error) {
	dir, err := os.MkdirTemp("", "larder-fleet-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if s.binary == "" {
		if s.binary, err = build(ctx, dir); err != nil {
			return err
		}
	}
	var results []*result
	var broken []error
	for _, n := range s.sizes {
		r, err := simulate(ctx, s, n, filepath.Join(dir, strconv.Itoa(n)))
		if err != nil {
			broken = append(broken, fmt.Errorf("%d nodes: %w", n, err))
			break // what was measured before is worth showing
		}
		results = append(results, r)
		for _, problem := range append(r.losses(), r.over(s)...) {
			broken = append(broken, fmt.Errorf("%d nodes: %w", n, problem))
		}
	}
	if len(results) > 0 {
		write(os.Stdout, s, results)
	}
	return errors.Join(broken...)
}

// build compiles the binary of this tree into dir.
func build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "larder")
	if out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "larder/cmd/larder").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building larder (run this within its repository, or name a binary with -larder): %w\n%s", err, out)
	}
	return binary, nil
}
