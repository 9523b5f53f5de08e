//go:build unix

package firewall

import (
	"errors"
	"fmt"
	"os/exec"
)

// find looks for a program, also where only root's PATH leads.
func find(program string) (string, error) {
	if program == "netsh" {
		return "", fmt.Errorf("firewall of Windows: not on this system: %w", errors.ErrUnsupported)
	}
	for _, name := range []string{program, "/usr/sbin/" + program, "/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}
