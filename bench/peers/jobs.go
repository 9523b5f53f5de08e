package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"larder/bench/load"
	"larder/bench/origin"
)

// job is one hot measurement.
type job struct {
	name   string // key in JSON
	title  string
	tls    bool
	ranges bool // 1 MiB ranges of the large file; otherwise the whole small one
}

var hotJobs = []job{
	{"4k-http", "4 KiB, HTTP", false, false},
	{"4k-tls", "4 KiB, TLS 1.3", true, false},
	{"1m-http", "1 MiB range, HTTP", false, true},
	{"1m-tls", "1 MiB range, TLS 1.3", true, true},
}

const (
	hotConns        = 16
	rangeSize       = 1 << 20
	stampedeClients = 32
	stampedeConns   = 2 // per client
)

// subject is a peer under test and what was measured on it.
type subject struct {
	peer  Peer
	addrs Addrs
	Result
}

// Result is what one peer did. All slices have one element per round, in order.
type Result struct {
	Peer     string
	Hot      map[string][]HotRound
	Stampede []StampedeRound
	Memory   int64             // peak of all rounds, bytes, proportional set size of all processes
	Failed   map[string]string `json:",omitempty"` // job → why there is no figure
}

// HotRound is one run of a hot job.
type HotRound struct {
	Requests          int64
	CPUPerRequest     float64 // microseconds, user and system
	CPUPerGiB         float64 // milliseconds
	RequestsPerSecond float64
	BytesPerSecond    float64
	Longest           time.Duration // one answer took; nanoseconds in JSON
	Memory            int64         // peak, bytes
}

// StampedeRound is one cold stampede.
type StampedeRound struct {
	WallRatio    float64       // of the time the origin's line needs for one copy
	OriginRatio  float64       // bytes the origin sent / size
	FirstByteP50 time.Duration // of the answer; nanoseconds in JSON
	FirstByteP99 time.Duration
	FirstBodyP50 time.Duration // of the answer's body
	FirstBodyP99 time.Duration
	CPUPerGiB    float64 // milliseconds per GiB delivered
	Memory       int64   // peak, bytes
}

func (s *subject) target(secure bool, cert *certificate) load.Target {
	t := load.Target{Addr: s.addrs.HTTP, Host: hostName}
	if secure {
		t.Addr = s.addrs.HTTPS
		t.TLS = &tls.Config{
			ServerName: hostName, RootCAs: cert.Roots, MinVersion: tls.VersionTLS13,
			NextProtos: []string{"http/1.1"}, DynamicRecordSizingDisabled: true,
		}
	}
	return t
}

func pieces(t load.Target, o *origin.Server, ranges bool) ([]load.Piece, error) {
	path := origin.Small(0)
	if ranges {
		path = origin.Large(0)
	}
	content, err := o.Content(path)
	if err != nil {
		return nil, err
	}
	if ranges {
		return t.Ranges(path, content, rangeSize), nil
	}
	return []load.Piece{t.Whole(path, content)}, nil
}

// warm brings the hot objects in; the second pass finds what the first one stored.
func (s *subject) warm(ctx context.Context, o *origin.Server, cert *certificate) error {
	t := s.target(false, cert)
	large, err := o.Content(origin.Large(0))
	if err != nil {
		return err
	}
	// Some peers keep ranges only of a file they hold whole.
	if err := load.Fetch(ctx, t, []load.Piece{t.Whole(origin.Large(0), large)}); err != nil {
		return fmt.Errorf("warming, whole file: %w", err)
	}
	for range 2 {
		for _, ranges := range []bool{false, true} {
			p, err := pieces(t, o, ranges)
			if err != nil {
				return err
			}
			if err := load.Fetch(ctx, t, p); err != nil {
				return fmt.Errorf("warming: %w", err)
			}
		}
	}
	return nil
}

// runHot measures one hot job once.
func (s *subject) runHot(ctx context.Context, j job, o *origin.Server, cert *certificate, duration time.Duration) error {
	if j.tls && s.addrs.HTTPS == "" {
		return nil
	}
	t := s.target(j.tls, cert)
	p, err := pieces(t, o, j.ranges)
	if err != nil {
		return err
	}
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	peak := memoryPeak(sampling, s.peer)
	var before time.Duration
	profiled := func() error { return nil }
	figures, err := load.Hot{Target: t, Pieces: p, Conns: hotConns, Duration: duration, Begin: func() (err error) {
		if l, ok := s.peer.(*larder); ok {
			profiled = l.profile(ctx, j.name, duration)
		}
		before, err = cpuTime(s.peer)
		return err
	}}.Run(ctx)
	after, cpuErr := cpuTime(s.peer)
	err = errors.Join(err, profiled())
	stop()
	memory := peak()
	s.Memory = max(s.Memory, memory)
	if err := errors.Join(err, cpuErr); err != nil {
		return err
	}
	if figures.Requests == 0 {
		return errors.New("no request was answered in time")
	}
	cpu := after - before
	s.Hot[j.name] = append(s.Hot[j.name], HotRound{
		Requests:          figures.Requests,
		CPUPerRequest:     float64(cpu.Microseconds()) / float64(figures.Requests),
		CPUPerGiB:         float64(cpu.Milliseconds()) / (float64(figures.Bytes) / (1 << 30)),
		RequestsPerSecond: float64(figures.InTime) / duration.Seconds(),
		BytesPerSecond:    float64(figures.InTime*int64(len(p[0].Body))) / duration.Seconds(),
		Longest:           figures.Longest,
		Memory:            memory,
	})
	return nil
}

// runStampede measures one cold stampede on file n, which nobody has asked for before.
func (s *subject) runStampede(ctx context.Context, n int, o *origin.Server, rate int64, cert *certificate) error {
	path := origin.Cold(n)
	content, err := o.Content(path)
	if err != nil {
		return err
	}
	t := s.target(false, cert)
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	peak := memoryPeak(sampling, s.peer)
	before, err := cpuTime(s.peer)
	if err != nil {
		return err
	}
	sent := o.ColdBytes()
	figures, err := load.Stampede{
		Target: t, Pieces: t.Ranges(path, content, rangeSize),
		Clients: stampedeClients, Conns: stampedeConns, Seed: uint64(n),
	}.Run(ctx)
	after, cpuErr := cpuTime(s.peer)
	sent = o.ColdBytes() - sent
	stop()
	memory := peak()
	s.Memory = max(s.Memory, memory)
	if err := errors.Join(err, cpuErr); err != nil {
		return err
	}
	ideal := float64(len(content)) / float64(rate)
	s.Stampede = append(s.Stampede, StampedeRound{
		WallRatio:    figures.Wall.Seconds() / ideal,
		OriginRatio:  float64(sent) / float64(len(content)),
		FirstByteP50: figures.FirstByte[len(figures.FirstByte)/2],
		FirstByteP99: figures.FirstByte[len(figures.FirstByte)*99/100],
		FirstBodyP50: figures.FirstBody[len(figures.FirstBody)/2],
		FirstBodyP99: figures.FirstBody[len(figures.FirstBody)*99/100],
		CPUPerGiB:    float64((after - before).Milliseconds()) / (float64(len(content)*stampedeClients) / (1 << 30)),
		Memory:       memory,
	})
	return nil
}
