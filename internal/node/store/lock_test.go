package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const secondEnv = "LARDER_TEST_SECOND" // directory: this process tries to open it

func second(dir string) {
	_, err := Open(context.Background(), options(dir, 10*mib))
	fmt.Println(errors.Is(err, ErrInUse), err)
}

func TestASecondProcessIsKeptOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, options(dir, 10*mib))
	fill(t, s, "k", 10)
	try := func() string {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), secondEnv+"="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	out := try()
	if !strings.HasPrefix(out, "true ") || !strings.Contains(out, dir) || !strings.Contains(out, fmt.Sprint(os.Getpid())) {
		t.Errorf("the second process got %q; want ErrInUse with the path and the holder", out)
	}
	if get(t, s, "k") != 1 {
		t.Error("the first process was disturbed")
	}
	closeStore(t, s)
	if out := try(); !strings.HasPrefix(out, "false <nil>") {
		t.Errorf("after Close: %q", out)
	}
}
