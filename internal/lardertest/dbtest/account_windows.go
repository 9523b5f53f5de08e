package dbtest

import (
	"os"
	"os/exec"
)

var quit = os.Kill

func giveAway(string) error { return nil }

func asOther(*exec.Cmd) error { return nil }
