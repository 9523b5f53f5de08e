package procgroup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"larder/internal/sys/procgroup"
)

// Commands of these tests are the test binary itself, told by its environment
// what to be.
const (
	role    = "PROCGROUP_ROLE" // parent, child or exit
	address = "PROCGROUP_ADDRESS"
)

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		goleak.VerifyTestMain(m)
	case "exit":
		fmt.Print("some output")
		os.Exit(7)
	case "child":
		hold()
	case "parent":
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), role+"=child")
		if err := child.Start(); err != nil {
			panic(err)
		}
		hold()
	}
}

// hold keeps a connection for as long as the process lives, which is until
// somebody ends it or, by closing the connection, lets it go.
func hold() {
	c, err := net.Dial("tcp", os.Getenv(address))
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(c, os.Getenv(role)+"\n")
	_, _ = c.Read(make([]byte, 1))
}

// command is one of this binary, and lives is a listener that gets a
// connection of each process of it.
func command(ctx context.Context, t *testing.T, what string) (cmd *exec.Cmd, lives net.Listener) {
	t.Helper()
	lives, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lives.Close() })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), role+"="+what, address+"="+lives.Addr().String())
	cmd.WaitDelay = 10 * time.Second
	return cmd, lives
}

// accept waits for the two processes, by the words they say.
func accept(t *testing.T, lives net.Listener) map[string]net.Conn {
	t.Helper()
	if err := lives.(*net.TCPListener).SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	conns := make(map[string]net.Conn)
	for range 2 {
		c, err := lives.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var word string
		if _, err := fmt.Fscanln(c, &word); err != nil {
			t.Fatal(err)
		}
		conns[word] = c
	}
	return conns
}

// dies fails if the process at the other end still lives after a while.
func dies(t *testing.T, name string, c net.Conn) {
	t.Helper()
	var late net.Error
	if c == nil {
		t.Errorf("no %s was there", name)
	} else if _, err := c.Read(make([]byte, 1)); errors.As(err, &late) && late.Timeout() {
		t.Errorf("the %s lives", name)
	}
}

func TestTheContextEndsAll(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd, lives := command(ctx, t, "parent")
	ended := make(chan error)
	go func() { ended <- procgroup.Run(cmd) }()
	conns := accept(t, lives)
	cancel()
	if err := <-ended; err == nil {
		t.Error("a command that was killed ended well")
	}
	dies(t, "parent", conns["parent"])
	dies(t, "child", conns["child"])
}

func TestWhatACommandLeavesEndsWithIt(t *testing.T) {
	t.Parallel()
	cmd, lives := command(t.Context(), t, "parent")
	ended := make(chan error)
	go func() { ended <- procgroup.Run(cmd) }()
	conns := accept(t, lives)
	if c := conns["parent"]; c != nil {
		_ = c.Close() // it may go
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	dies(t, "child", conns["child"])
}

func TestOutputAndExitCodeAreTheCommands(t *testing.T) {
	t.Parallel()
	cmd, _ := command(t.Context(), t, "exit")
	var out bytes.Buffer
	cmd.Stdout = &out
	err := procgroup.Run(cmd)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 || out.String() != "some output" {
		t.Errorf("%v, having said %q", err, &out)
	}
}

func TestCommandThatDoesNotStart(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	cmd, _ := command(ended, t, "exit")
	if err := procgroup.Run(cmd); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context: %v", err)
	}
	cmd = exec.CommandContext(t.Context(), cmd.Path+".absent")
	if err := procgroup.Run(cmd); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("what is not there: %v", err)
	}
}
