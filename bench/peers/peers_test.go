package main

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestProcessTree(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	// A shell with a child; both end when their standard input does.
	cmd := exec.Command("sh", "-c", "cat; true")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// An echo proves that cat runs.
	if _, err := in.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	tree := processTree(cmd.Process.Pid)
	if len(tree) != 2 || tree[0] != cmd.Process.Pid {
		t.Errorf("tree of the shell %d: %v, expected it and its cat", cmd.Process.Pid, tree)
	}
	if own := processTree(os.Getpid()); !slices.Contains(own, tree[len(tree)-1]) {
		t.Errorf("own tree %v: expected %d in it", own, tree[len(tree)-1])
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if tree := processTree(cmd.Process.Pid); tree != nil {
		t.Errorf("tree of a process that ended: %v", tree)
	}
}

func TestReadStat(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	s, err := readStat(os.Getpid())
	if err != nil || s.parent != os.Getppid() {
		t.Errorf("parent %d, error %v: expected %d", s.parent, err, os.Getppid())
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	own := &subject{Result: Result{Peer: "larder", Hot: map[string][]HotRound{
		"4k-http": {{CPUPerRequest: 10}, {CPUPerRequest: 30}, {CPUPerRequest: 12}},
	}}}
	peer := &subject{Result: Result{Peer: "other", Hot: map[string][]HotRound{
		"4k-http": {{CPUPerRequest: 20}, {CPUPerRequest: 40}, {CPUPerRequest: 20}},
	}, Stampede: []StampedeRound{{WallRatio: 1.5, OriginRatio: 1}}}}
	var out bytes.Buffer
	printResults(&out, settings{rounds: 3, rate: 50_000_000, jobs: []string{"4k-http", "1m-tls", "stampede"}}, []*subject{own, peer})
	for _, want := range []string{
		"| larder | 12.0 (10.0-30.0) | - |",
		"| other | 20.0 (20.0-40.0) | - |",
		"| other | 0.60 (0.50-0.75) | - |", // pairs of one round: 0.50, 0.75, 0.60
		"| other | 1 | 1.50 (1.50-1.50) | 1.000 (1.000-1.000) |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line %q in:\n%s", want, &out)
		}
	}
}

func TestNewPeer(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"larder": "larder", "larder-2": "larder, 2 proc", "nginx": "nginx", "ats-slice": "Traffic Server, slice", "before-1-standard": "before, 1 proc, standard"} {
		p, err := newPeer(name, settings{binary: "new", before: "old"})
		if err != nil || p.Name() != want {
			t.Errorf("%s: %v, error %v; expected %q", name, p, err, want)
		}
	}
	for _, name := range []string{"apache", "larder-x", "before"} {
		if _, err := newPeer(name, settings{binary: "new"}); err == nil {
			t.Errorf("the peer %q was accepted", name)
		}
	}
}
