package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// machine describes where and how busy: figures of two runs compare only if this agrees.
func machine() string {
	first := func(path, prefix string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			return "?"
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return strings.TrimSpace(strings.TrimLeft(rest, "\t :"))
			}
		}
		return "?"
	}
	return fmt.Sprintf("%s; %d processors, %s; Linux %s; %s; load average before %s", time.Now().Format(time.DateOnly),
		runtime.NumCPU(), first("/proc/cpuinfo", "model name"), first("/proc/sys/kernel/osrelease", ""), runtime.Version(), first("/proc/loadavg", ""))
}

// tick is the unit of times in /proc/PID/stat; Linux shows it as 100 Hz on every architecture Go runs on.
const tick = 10 * time.Millisecond

// procStat is what is needed of /proc/PID/stat.
type procStat struct {
	parent int
	cpu    time.Duration // user and system, with children that ended and were waited for
}

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	// The name, in parentheses, may hold spaces and parentheses itself.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 15 {
		return procStat{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	var s procStat
	if s.parent, err = strconv.Atoi(fields[1]); err != nil {
		return procStat{}, err
	}
	for _, f := range fields[11:15] { // utime stime cutime cstime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return procStat{}, err
		}
		s.cpu += time.Duration(n) * tick
	}
	return s, nil
}

// processTree returns root and all below it; a root that has ended gives nothing.
func processTree(root int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	alive := false
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil {
			children[s.parent] = append(children[s.parent], pid)
			alive = alive || pid == root
		}
	}
	if !alive {
		return nil
	}
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree
}

// cpuTime adds up what the peer's processes have used so far.
func cpuTime(p Peer) (time.Duration, error) {
	pids := p.PIDs()
	if len(pids) == 0 {
		return 0, fmt.Errorf("%s has ended", p.Name())
	}
	var total time.Duration
	for _, pid := range pids {
		s, err := readStat(pid)
		if err != nil {
			return 0, err
		}
		total += s.cpu
	}
	return total, nil
}

// residentMemory adds up the proportional set sizes, so that pages which
// processes of one peer share count once. Bytes.
func residentMemory(p Peer) int64 {
	var total int64
	for _, pid := range p.PIDs() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // ended since it was listed
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
				total += kb << 10
			}
		}
	}
	return total
}

// memoryPeak samples the peer's memory until ctx ends; wait returns the largest.
func memoryPeak(ctx context.Context, p Peer) (wait func() int64) {
	var peak int64
	var done sync.WaitGroup
	done.Go(func() {
		t := time.NewTicker(250 * time.Millisecond)
		defer t.Stop()
		for {
			peak = max(peak, residentMemory(p))
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	})
	return func() int64 {
		done.Wait()
		return max(peak, residentMemory(p))
	}
}
