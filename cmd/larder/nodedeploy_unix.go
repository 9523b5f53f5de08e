//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"larder/internal/sys/durable"
	"larder/internal/sys/private"
)

const beAdministrator = "call it with sudo"

func isAdministrator() bool { return os.Geteuid() == 0 }

// onThisSystem fills in what only this system can say.
func (d *deployment) onThisSystem() {
	for _, dir := range []string{"/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		if _, err := os.Stat(filepath.Join(dir, serviceName+".service")); err == nil {
			d.unit = true
		}
	}
	_, err := os.Stat(dropInFile)
	d.dropIn = err == nil
	if u, err := user.Lookup(d.runTimeAccount()); err == nil {
		d.accountThere = true
		d.readable = mayRead(u, d.config)
	}
}

// mayRead says whether an account may read a file, as far as the file itself
// and the directory it is in have a say.
func mayRead(u *user.User, name string) bool {
	groups, err := u.GroupIds()
	if err != nil {
		groups = []string{u.Gid}
	}
	may := func(name string, bits fs.FileMode) bool {
		info, err := os.Stat(name)
		if err != nil {
			return false
		}
		stat := info.Sys().(*syscall.Stat_t)
		perm := info.Mode().Perm()
		if strconv.FormatUint(uint64(stat.Uid), 10) == u.Uid {
			return perm>>6&bits == bits
		}
		for _, g := range groups {
			if strconv.FormatUint(uint64(stat.Gid), 10) == g {
				return perm>>3&bits == bits
			}
		}
		return perm&bits == bits
	}
	return may(name, 4) && may(filepath.Dir(name), 1)
}

func grantDir(dir, account string) error { return private.GrantAccount(dir, account) }

func writeDropIn(name, text string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(name, []byte(text), 0o644)
}

func removeDropIn(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func runProgram(ctx context.Context, program string, args ...string) error {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
