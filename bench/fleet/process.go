package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server that was started, with a file for what it says.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	err  error         // why it ended; written before done is closed
}

// begin starts cmd; what it says goes to the file log.
func begin(cmd *exec.Cmd, log string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() { // ends with the process, which end waits for
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// await returns when ready is true, which it asks now and then.
func (p *process) await(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %w\n%s", filepath.Base(p.cmd.Path), p.err, p.said())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", filepath.Base(p.cmd.Path), context.Cause(ctx), p.said())
		}
	}
	return nil
}

// said returns the last of what the process said.
func (p *process) said() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-4000):])
}

// end asks the process to end and waits until it has.
func (p *process) end(how os.Signal) error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself: %w\n%s", filepath.Base(p.cmd.Path), errors.Join(p.err, errors.New("nobody asked it to")), p.said())
	default:
	}
	_ = p.cmd.Process.Signal(how) // gone just now: done says so
	select {
	case <-p.done:
		return nil
	case <-time.After(time.Minute):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within a minute and was killed", filepath.Base(p.cmd.Path))
	}
}

// interrupt is how the control plane is asked to end.
const interrupt = syscall.SIGTERM

// tick is the unit of times in /proc/PID/stat; Linux shows it as 100 Hz on every
// architecture Go runs on.
const tick = 10 * time.Millisecond

// processorTime is what a process has used so far, with the children that it had
// and waited for; and which process is its parent.
func processorTime(pid int) (used time.Duration, parent int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The name, in parentheses, may hold spaces and parentheses itself.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: found %d fields", pid, len(fields))
	}
	if parent, err = strconv.Atoi(fields[1]); err != nil {
		return 0, 0, err
	}
	for _, f := range fields[11:15] { // utime stime cutime cstime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		used += time.Duration(n) * tick
	}
	return used, parent, nil
}

// familyTime is processorTime of a process and its children.
func familyTime(pid int) (time.Duration, error) {
	sum, _, err := processorTime(pid)
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// One that ended since it was listed counts with its parent.
		if used, parent, err := processorTime(child); err == nil && parent == pid {
			sum += used
		}
	}
	return sum, nil
}

// memory is how much a process has resident, and the most it ever had, in bytes.
func memory(pid int) (now, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	kB := func(name string) (n int64) {
		_, rest, ok := strings.Cut(string(b), "\n"+name+":")
		if _, serr := fmt.Sscan(rest, &n); !ok || serr != nil {
			err = fmt.Errorf("/proc/%d/status: found no %s", pid, name)
		}
		return n << 10
	}
	now, peak = kB("VmRSS"), kB("VmHWM")
	return now, peak, err
}
