package firewall

import (
	"context"
	"os/exec"
	"time"
)

// patience is how long a firewall's program may take.
const patience = 30 * time.Second

// system runs programs of this machine.
func system(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	path, err := find(program)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	return string(out), err
}
