package program_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"larder/internal/pki/enroll/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func shell(t *testing.T, script string) program.Command {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("scripts for sh")
	}
	return program.Command{Args: []string{"sh", "-c", script}, Env: []string{"PATH=" + os.Getenv("PATH")}, Timeout: time.Minute, MaxOutput: 100}
}

func TestWhatACommandGetsAndGives(t *testing.T) {
	t.Parallel()
	c := shell(t, `echo "$X,$HOME,$1"; echo warning >&2; cat`)
	c.Args = append(c.Args, "sh", "an argument")
	c.Env, c.Input = append(c.Env, "X=x"), []byte("its input")
	o, err := c.Run(t.Context())
	if err != nil || string(o.Output) != "x,,an argument\nits input" || o.Words != "warning" || !o.State.Success() {
		t.Errorf("%q, %q, %v, %v", o.Output, o.Words, o.State, err)
	}
	c.MaxOutput = 0
	o, err = c.Run(t.Context())
	lines := strings.Split(o.Words, "\n")
	if slices.Sort(lines); err != nil || o.Output != nil || !slices.Equal(lines, []string{"its input", "warning", "x,,an argument"}) {
		t.Errorf("%q, %q, %v", o.Output, o.Words, err)
	}
}

func TestHowCommandsEnd(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	var absent *exec.Error
	o, err := shell(t, "echo why >&2; exit 7").Run(t.Context())
	if !errors.As(err, &exit) || o.State.ExitCode() != 7 || o.Words != "why" {
		t.Errorf("exit 7: %v, %q, %v", o.State, o.Words, err)
	}
	o, err = shell(t, "kill -9 $$").Run(t.Context())
	if !errors.As(err, &exit) || o.State.ExitCode() != -1 || o.State.String() != "signal: killed" {
		t.Errorf("killed: %v, %v", o.State, err)
	}
	for _, name := range []string{"/no/such/program", "no-such-program", plain} {
		c := shell(t, "")
		c.Args[0] = name
		if o, err := c.Run(t.Context()); !errors.As(err, &absent) || o.State != nil {
			t.Errorf("%s: %v, %v", name, o.State, err)
		}
	}
	odd := filepath.Join(t.TempDir(), "odd")
	if err := os.WriteFile(odd, []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := shell(t, "")
	c.Args[0] = odd
	if o, err := c.Run(t.Context()); !errors.Is(err, fs.ErrNotExist) || errors.As(err, &absent) || o.State != nil {
		t.Errorf("what cannot be started: %v, %v", o.State, err)
	}
	o, err = shell(t, "yes").Run(t.Context())
	if !errors.Is(err, program.ErrTooMuch) || len(o.Output) > 100 {
		t.Errorf("too much: %d bytes, %v", len(o.Output), err)
	}
	// It has ended when it is known that it wrote too much.
	if _, err = shell(t, "printf %101s x").Run(t.Context()); !errors.Is(err, program.ErrTooMuch) {
		t.Errorf("a little too much: %v", err)
	}
	if o, err = shell(t, "printf %100s x; sleep 1000 &").Run(t.Context()); err != nil || len(o.Output) != 100 {
		t.Errorf("just enough, and a child that keeps the output open: %d bytes, %v", len(o.Output), err)
	}
}

func TestACommandEndsInTime(t *testing.T) {
	t.Parallel()
	c := shell(t, "echo waiting >&2; sleep 1000 & wait")
	c.Timeout = 500 * time.Millisecond
	if o, err := c.Run(t.Context()); !errors.Is(err, program.ErrTimeout) || o.Words != "waiting" {
		t.Errorf("%q, %v", o.Words, err)
	}
	c.Timeout = time.Minute
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the node stops")
	cancel(why)
	if _, err := c.Run(ctx); !errors.Is(err, why) {
		t.Errorf("%v, want %v", err, why)
	}
}
