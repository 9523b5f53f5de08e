package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// raiseFiles lets this process and its children have n files open, which
// connections count among.
func raiseFiles(n uint64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	limit := l.Max
	l.Cur, l.Max = max(l.Cur, n), max(l.Max, n)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("opening %d files at once: %w; raise the limit, which is %d (ulimit -Hn), or take fewer nodes", n, err, limit)
	}
	return nil
}

// ownGroup keeps the terminal's interrupt from a child: it is ended in order.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// unprivileged is the account that PostgreSQL runs under if this is root's
// process, which it refuses; nil: under this one.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, fmt.Errorf("no account postgres or nobody to run PostgreSQL under")
}

// giveAway makes dir PostgreSQL's.
func giveAway(dir string) error {
	c, err := unprivileged()
	if err != nil || c == nil {
		return err
	}
	return os.Chown(dir, int(c.Uid), int(c.Gid))
}

// asUnprivileged has a program of PostgreSQL run under its account.
func asUnprivileged(cmd *exec.Cmd) error {
	ownGroup(cmd)
	c, err := unprivileged()
	cmd.SysProcAttr.Credential = c
	return err
}

// atOnce is PostgreSQL's immediate shutdown.
const atOnce = syscall.SIGQUIT
