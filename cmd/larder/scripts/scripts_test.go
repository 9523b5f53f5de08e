package scripts_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"larder/internal/lardertest"
)

func TestMain(m *testing.M) { lardertest.Main(m) }

// patience is how long a process may take to say or do what it is waited for.
const patience = time.Minute

// TestScripts runs the scripts of testdata. Besides testscript's own commands
// they have:
//
//	exits CODE PROGRAM [ARG…]         run a program that must end with this exit code
//	start NAME REGEXP PROGRAM [ARG…]  start a program and wait until it said so on stdout
//	interrupt NAME CODE               press Ctrl-C; it must end with this exit code
//	said NAME                         make what it wrote the last stdout and stderr
//	capture VAR REGEXP                set a variable to the first group found in the last stdout
//	try NAME N REGEXP                 run the Nth line it wrote that has a match, as a shell does
//	expand FILE…                      replace $NAME in files by the script's variables
//
// and the variables NOBODY, an address where nobody listens, and SILENT, one
// where somebody listens and says nothing.
func TestScripts(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the scripts are for systems with interrupts and a shell")
	}
	bin := t.TempDir()
	if err := os.Symlink(lardertest.Binary(t), filepath.Join(bin, "larder")); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		ContinueOnError:     true,        // a run shows all that is wrong
		Deadline:            deadline(t), // ends a command that hangs
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("TZ", "UTC")
			return addresses(env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "start": start, "interrupt": interrupt, "said": said, "capture": capture, "try": try, "expand": expand,
		},
	})
}

// addresses sets NOBODY and SILENT.
func addresses(env *testscript.Env) error {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	env.Setenv("NOBODY", nobody.Addr().String())
	if err := nobody.Close(); err != nil {
		return err
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connections wait in its queue for ever
	if err != nil {
		return err
	}
	env.Setenv("SILENT", silent.Addr().String())
	env.Defer(func() { _ = silent.Close() })
	return nil
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG…]")
	}
	if got := exitCode(ts, ts.Exec(args[1], args[2:]...)); strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code: got %d, want %s", got, args[0])
	}
}

func exitCode(ts *testscript.TestScript, err error) int {
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended):
		return ended.ExitCode()
	}
	ts.Fatalf("%v", err)
	return 0
}

// A process is one that start started.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr output
	done           chan struct{} // closed when it has ended
	err            error         // how; after done
}

func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: start NAME REGEXP PROGRAM [ARG…]")
	}
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	name, err := lookPath(ts.Getenv("PATH"), args[2])
	ts.Check(err)
	p := &process{cmd: exec.Command(name, args[3:]...), done: make(chan struct{})}
	p.stdout.until, p.stdout.there = re, make(chan struct{})
	p.cmd.Dir = ts.MkAbs(".")
	for _, v := range []string{"PATH", "HOME", "TMPDIR", "TZ"} {
		p.cmd.Env = append(p.cmd.Env, v+"="+ts.Getenv(v))
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	ts.Check(p.cmd.Start())
	go func() { // ends with the process, which Defer kills and waits for
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	ts.Defer(func() {
		_ = p.cmd.Process.Kill() // fails when it has ended
		<-p.done
	})
	processes.Store(key(ts, args[0]), p)
	ts.Defer(func() { processes.Delete(key(ts, args[0])) })

	timer := time.NewTimer(patience)
	defer timer.Stop()
	why := "it ended"
	select {
	case <-p.stdout.there:
		return
	case <-p.done:
	case <-timer.C:
		why = fmt.Sprintf("waited %v", patience)
	}
	ts.Fatalf("%s did not say %q: %s\nstdout:\n%s\nstderr:\n%s", args[0], args[1], why, p.stdout.String(), p.stderr.String())
}

// processes holds those of all scripts: testscript gives a command nowhere else
// to keep something.
var processes sync.Map // "directory of the script NUL name" to *process

func key(ts *testscript.TestScript, name string) string { return ts.Getenv("WORK") + "\x00" + name }

func find(ts *testscript.TestScript, name string) *process {
	p, ok := processes.Load(key(ts, name))
	if !ok {
		ts.Fatalf("%s was not started", name)
	}
	return p.(*process)
}

func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: interrupt NAME CODE")
	}
	p := find(ts, args[0])
	ts.Check(p.cmd.Process.Signal(os.Interrupt))
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		ts.Fatalf("%s did not end within %v of its interrupt\nstderr:\n%s", args[0], patience, p.stderr.String())
	}
	if got := exitCode(ts, p.err); strconv.Itoa(got) != args[1] {
		ts.Fatalf("%s: exit code: got %d, want %s\nstderr:\n%s", args[0], got, args[1], p.stderr.String())
	}
}

func said(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: said NAME")
	}
	p := find(ts, args[0])
	_, err := io.WriteString(ts.Stdout(), p.stdout.String())
	ts.Check(err)
	_, err = io.WriteString(ts.Stderr(), p.stderr.String())
	ts.Check(err)
}

func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture VAR REGEXP")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	found := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) < 2 {
		ts.Fatalf("no match and group for %q in:\n%s", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], found[1])
}

func try(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: try NAME N REGEXP")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	re, err := regexp.Compile(args[2])
	ts.Check(err)
	for line := range strings.Lines(find(ts, args[0]).stdout.String()) {
		if !re.MatchString(line) {
			continue
		}
		if n--; n == 0 {
			line = strings.TrimSpace(line)
			ts.Logf("$ %s", line)
			ts.Check(ts.Exec("sh", "-c", line))
			return
		}
	}
	ts.Fatalf("%s said fewer lines that match %q", args[0], args[2])
}

func expand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: expand FILE…")
	}
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// lookPath is exec.LookPath for a PATH that is not this process's.
func lookPath(path, name string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// output collects what a process writes and says when something is there.
type output struct {
	until *regexp.Regexp
	there chan struct{} // closed when until matches

	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p)
	if o.until != nil && o.until.Match(o.buf.Bytes()) {
		close(o.there)
		o.until = nil
	}
	return len(p), nil
}

// String returns what was written.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// deadline leaves time to say what hung. A machine that does much else at once
// takes minutes for what takes seconds alone.
func deadline(t *testing.T) time.Time {
	if d, ok := t.Deadline(); ok {
		return d.Add(-30 * time.Second)
	}
	return time.Now().Add(10 * time.Minute)
}
