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
	"slices"
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
	u, err := user.Lookup(d.runTimeAccount())
	if err != nil {
		u, err = user.LookupId(d.runTimeAccount())
	}
	if err != nil {
		return
	}
	d.accountThere, d.group = true, u.Gid
	if g, err := user.LookupGroupId(u.Gid); err == nil {
		d.group = g.Name
	}
	d.closed = closedTo(u, d.config)
}

// closedTo is what keeps an account from reading a file, as far as permissions
// of files have a say: directories above it, from the top, and the file.
func closedTo(u *user.User, name string) (closed []string) {
	if !mayDo(u, name, 4) {
		closed = append(closed, name)
	}
	for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
		if !mayDo(u, dir, 1) {
			closed = append(closed, dir)
		}
		if dir == filepath.Dir(dir) {
			slices.Reverse(closed)
			return closed
		}
	}
}

// mayDo says whether an account has rights to a file: 4 to read, 1 to enter.
func mayDo(u *user.User, name string, bits fs.FileMode) bool {
	if u.Uid == "0" {
		return true
	}
	groups, err := u.GroupIds()
	if err != nil {
		groups = []string{u.Gid}
	}
	info, err := os.Stat(name)
	if err != nil {
		return false
	}
	stat := info.Sys().(*syscall.Stat_t)
	perm := info.Mode().Perm()
	switch {
	case strconv.FormatUint(uint64(stat.Uid), 10) == u.Uid:
		perm >>= 6
	case slices.Contains(groups, strconv.FormatUint(uint64(stat.Gid), 10)):
		perm >>= 3
	}
	return perm&bits == bits
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
