// Package main is for measuring larder beside the caches it is compared with, in one run on one machine.
//
//	go run ./bench/peers                 # all that is installed, three rounds
//	go run ./bench/peers -short          # larder and nginx, one second per job: are the answers right
//	go run ./bench/peers -peers larder,before -before OLD -profile DIR   # what a change brought, and where the time goes
//
// What counts is the processor time of the server's processes per request,
// read from /proc: it says the same on a busy machine as on an idle one. The
// peers take turns within a round, so that what disturbs one disturbs all.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"larder/bench/origin"
)

type settings struct {
	rounds   int
	duration time.Duration
	peers    []string
	jobs     []string
	binary   string
	before   string
	profiles string
	rate     int64
	delay    time.Duration
	json     string
	short    bool
	dir      string
}

func main() {
	var s settings
	flag.IntVar(&s.rounds, "rounds", 3, "rounds; the table shows their median")
	flag.DurationVar(&s.duration, "time", 3*time.Second, "length of each hot job")
	peers := flag.String("peers", "larder,larder-1,nginx,varnish,squid,ats,ats-slice", "who is measured, in order; larder-N runs with GOMAXPROCS=N, larder-standard by the origin's Cache-Control, before (-N, -standard) is the binary of -before")
	jobs := flag.String("jobs", "4k-http,4k-tls,1m-http,1m-tls,stampede", "what is measured")
	flag.StringVar(&s.binary, "larder", "", "larder's binary (default: build ./cmd/larder)")
	flag.StringVar(&s.before, "before", "", "an older binary of larder, for the peers \"before\"")
	flag.StringVar(&s.profiles, "profile", "", "write a processor profile of larder's hot jobs into this directory (costs a little)")
	flag.Int64Var(&s.rate, "rate", 50_000_000, "bytes per second of the origin in the stampede")
	flag.DurationVar(&s.delay, "delay", 20*time.Millisecond, "the origin's delay in the stampede")
	flag.StringVar(&s.json, "json", "", "write all figures to this file")
	flag.StringVar(&s.dir, "dir", "", "where the caches lie (default: a new temporary directory)")
	flag.BoolVar(&s.short, "short", false, "larder, and nginx if it is installed; one round, one second per job: checks answers, not speed")
	flag.Parse()
	if s.short {
		s.rounds, s.duration, *peers = 1, time.Second, "larder,nginx"
	}
	s.peers, s.jobs = strings.Split(*peers, ","), strings.Split(*jobs, ",")

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) (err error) {
	if runtime.GOOS != "linux" {
		return errors.New("this benchmark reads /proc: run it on Linux")
	}
	if s.rounds < 1 || s.duration <= 0 || s.rate < 1 {
		return errors.New("-rounds, -time and -rate: expected more than zero")
	}
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "larder-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(s.dir, 0o755); err != nil { // peers that give up root must get in
		return err
	}
	for _, file := range []*string{&s.before, &s.profiles} {
		if *file == "" {
			continue
		}
		if *file, err = filepath.Abs(*file); err != nil {
			return err
		}
	}
	if s.profiles != "" {
		if err := os.MkdirAll(s.profiles, 0o755); err != nil {
			return err
		}
	}
	up, err := origin.Start(origin.Config{Rate: s.rate, Delay: s.delay})
	if err != nil {
		return err
	}
	defer up.Close()
	cert, err := newCertificate(s.dir)
	if err != nil {
		return err
	}
	subjects, err := start(ctx, s, up, cert)
	defer func() {
		for _, sub := range subjects {
			err = errors.Join(err, sub.peer.Stop())
		}
	}()
	if err != nil {
		return err
	}
	where := machine()
	measure(ctx, s, subjects, up, cert)
	if err := ctx.Err(); err != nil {
		return err
	}
	fmt.Println(where)
	printResults(os.Stdout, s, subjects)
	if s.json != "" {
		if err := writeJSON(s.json, where, subjects); err != nil {
			return err
		}
	}
	return failures(s, subjects)
}

// newPeer makes the peer of a name on the command line.
func newPeer(name string, s settings) (Peer, error) {
	switch name {
	case "nginx":
		return &nginx{process{name: "nginx"}}, nil
	case "varnish":
		return &varnish{process{name: "Varnish"}}, nil
	case "squid":
		return &squid{process{name: "Squid"}}, nil
	case "ats":
		return newTrafficServer(false), nil
	case "ats-slice":
		return newTrafficServer(true), nil
	}
	if l := newLarder(name, s); l != nil {
		if l.binary == "" {
			return nil, fmt.Errorf("-peers %q: expected the older binary, too: -before FILE", name)
		}
		return l, nil
	}
	return nil, fmt.Errorf("-peers %q: expected larder, larder-N, larder-standard, before, nginx, varnish, squid, ats or ats-slice", name)
}

// start starts and warms the peers. One that cannot is left out with a word, but for larder, without which there is no comparison.
func start(ctx context.Context, s settings, up *origin.Server, cert *certificate) ([]*subject, error) {
	var subjects []*subject
	for _, name := range s.peers {
		own := strings.HasPrefix(name, "larder")
		if own && s.binary == "" {
			binary, err := buildLarder(ctx, s.dir)
			if err != nil {
				return subjects, err
			}
			s.binary = binary
		}
		peer, err := newPeer(name, s)
		if err != nil {
			return subjects, err
		}
		sub := &subject{peer: peer, Result: Result{Peer: peer.Name(), Hot: map[string][]HotRound{}, Failed: map[string]string{}}}
		dir := filepath.Join(s.dir, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return subjects, err
		}
		sub.addrs, err = peer.Start(ctx, dir, up.Addr, cert)
		if err == nil {
			err = sub.warm(ctx, up, cert)
		}
		switch {
		case err == nil:
			subjects = append(subjects, sub)
		case own:
			return append(subjects, sub), fmt.Errorf("%s: %w", peer.Name(), err)
		default:
			fmt.Fprintf(os.Stderr, "bench: left out: %s: %v\n", peer.Name(), errors.Join(err, peer.Stop()))
		}
	}
	if len(subjects) == 0 {
		return nil, errors.New("none of the peers could be started")
	}
	return subjects, nil
}

// tooSlow ends a peer's stampedes after the first: the others would say the same, minutes later.
const tooSlow = 5

func measure(ctx context.Context, s settings, subjects []*subject, up *origin.Server, cert *certificate) {
	file := 0
	for round := range s.rounds {
		for _, j := range hotJobs {
			if !slices.Contains(s.jobs, j.name) {
				continue
			}
			for _, sub := range subjects {
				if sub.Failed[j.name] != "" || ctx.Err() != nil {
					continue
				}
				fmt.Fprintf(os.Stderr, "round %d/%d  %-22s %s\n", round+1, s.rounds, j.title, sub.Peer)
				if err := sub.runHot(ctx, j, up, cert, s.duration); err != nil {
					sub.Failed[j.name] = err.Error()
				}
			}
		}
		if !slices.Contains(s.jobs, "stampede") {
			continue
		}
		for _, sub := range subjects {
			if sub.Failed["stampede"] != "" || ctx.Err() != nil {
				continue
			}
			if n := len(sub.Stampede); n > 0 && sub.Stampede[n-1].WallRatio > tooSlow {
				continue
			}
			fmt.Fprintf(os.Stderr, "round %d/%d  %-22s %s\n", round+1, s.rounds, "cold stampede", sub.Peer)
			if err := sub.runStampede(ctx, file, up, s.rate, cert); err != nil {
				sub.Failed["stampede"] = err.Error()
			}
			file++
		}
	}
}

// failures is an error when larder failed a job, or, in the short form, anybody did.
func failures(s settings, subjects []*subject) error {
	var errs []error
	for _, sub := range subjects {
		for name, why := range sub.Failed {
			if s.short || strings.HasPrefix(sub.Peer, "larder") {
				errs = append(errs, fmt.Errorf("%s: %s: %s", sub.Peer, name, why))
			}
		}
	}
	return errors.Join(errs...)
}

func writeJSON(path, where string, subjects []*subject) error {
	results := make([]Result, len(subjects))
	for i, sub := range subjects {
		results[i] = sub.Result
	}
	b, err := json.MarshalIndent(struct {
		Machine string
		Results []Result
	}{where, results}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
