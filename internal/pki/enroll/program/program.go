// Package program runs a command of the administrator's, given as one line,
// and bounds what it may take and say.
//
// The line is split at spaces and tabs; what stands in '…' is taken as it is;
// in "…" a \" is a quotation mark. Elsewhere a backslash is a backslash, so
// that paths of Windows need no care. Nothing else is special: whoever wants a
// shell writes
//
//	sh -c '/opt/pki/sign | tee /tmp/last.pem'
//
// A command that takes too long is killed, with everything that it started;
// what it leaves running when it ends is killed, too.
package program

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"time"

	"larder/internal/sys/procgroup"
)

// graceForPipes is how long to wait for the output of children that escaped.
const graceForPipes = 2 * time.Second

var (
	// ErrTimeout is that a command was killed after its Timeout.
	ErrTimeout = errors.New("it took too long")
	// ErrTooMuch is that it was killed for more than MaxOutput.
	ErrTooMuch = errors.New("it wrote too much")
)

// Command is what to run.
type Command struct {
	Args    []string // as Split gives them: one at least
	Env     []string // all of its environment
	Input   []byte   // its standard input
	Timeout time.Duration
	// MaxOutput is how many bytes of standard output are wanted; 0 counts
	// that among the words.
	MaxOutput int
}

// Outcome is how a command ended.
type Outcome struct {
	Output []byte
	// Words are the last 4 KiB of what it wrote to standard error, fit for
	// messages and without private keys; "" for none.
	Words string
	State *os.ProcessState // nil: it did not start
}

// Run runs a command once. The error is nil if it ended with exit code 0 in
// time; else it is ErrTimeout, ErrTooMuch, the cause of ctx's end, an
// *exec.Error if there is no such program, an *exec.ExitError, or what kept it
// from being started or read from.
func (c Command) Run(ctx context.Context) (Outcome, error) {
	path, err := exec.LookPath(c.Args[0])
	if err != nil {
		return Outcome{}, err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, c.Timeout, ErrTimeout)
	defer cancel()
	running, stop := context.WithCancelCause(bounded)
	defer stop(nil)

	out := &limited{max: c.MaxOutput, over: func() { stop(ErrTooMuch) }}
	said := &tail{max: keptWords}
	cmd := exec.CommandContext(running, path, c.Args[1:]...)
	cmd.Env = c.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Input), out, said
	if c.MaxOutput == 0 {
		cmd.Stdout = said // one writer for both: os/exec then writes in turn
	}
	cmd.WaitDelay = graceForPipes
	err = procgroup.Run(cmd)
	outcome := Outcome{Output: out.data, Words: said.words(), State: cmd.ProcessState}
	// A child that stays and keeps the output open does not spoil what the
	// command itself has written.
	well := err == nil || errors.Is(err, exec.ErrWaitDelay) && outcome.State.Success()
	switch cause := context.Cause(running); {
	case well && !errors.Is(cause, ErrTooMuch):
		return outcome, nil
	case cause != nil:
		return outcome, cause
	}
	return outcome, err
}
