package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"larder/internal/control/db"
)

// postgres is a PostgreSQL server of this program's own, on a Unix socket. It is
// set as it is delivered: what it acknowledges is on the disk.
type postgres struct {
	*process
	dir string
}

// startPostgres makes a server with an empty database. end must follow.
func startPostgres(ctx context.Context) (_ *postgres, err error) {
	initdb, err := findInitdb()
	if err != nil {
		return nil, err
	}
	// Paths of sockets are short, and the account PostgreSQL runs under must get
	// there.
	p := new(postgres)
	if p.dir, err = os.MkdirTemp("", "larder-pg-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.end())
		}
	}()
	if err := giveAway(p.dir); err != nil {
		return nil, err
	}
	command := func(name string, args ...string) (*exec.Cmd, error) {
		cmd := exec.Command(filepath.Join(filepath.Dir(initdb), name), args...)
		// Only what it needs: PGHOST and the like would lead elsewhere.
		cmd.Dir, cmd.Env = p.dir, []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
		return cmd, asUnprivileged(cmd)
	}
	data := filepath.Join(p.dir, "data")
	cmd, err := command("initdb", "-D", data, "-U", "larder", "--auth=trust", "--encoding=UTF8", "--locale=C")
	if err != nil {
		return nil, err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if cmd, err = command("postgres", "-D", data, "-k", p.dir, "-c", "listen_addresses="); err != nil {
		return nil, err
	}
	if p.process, err = begin(cmd, filepath.Join(p.dir, "log")); err != nil {
		return nil, err
	}
	return p, p.await(ctx, func() bool {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		d, err := db.Open(ctx, p.url(), nil)
		return err == nil && d.Close() == nil
	})
}

// findInitdb returns PostgreSQL's initdb, beside which its other programs are.
// Debian and Red Hat keep them off the PATH.
func findInitdb() (string, error) {
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/initdb", "/usr/pgsql-*/bin/initdb"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	initdb, err := exec.LookPath("initdb")
	if err != nil {
		return "", fmt.Errorf("PostgreSQL: %w; install it, or name a database with -database", err)
	}
	return filepath.EvalSymlinks(initdb)
}

func (p *postgres) url() string {
	return "postgres://larder@/postgres?sslmode=disable&host=" + url.QueryEscape(p.dir)
}

// end stops the server and removes what it kept.
func (p *postgres) end() error {
	var err error
	if p.process != nil {
		err = p.process.end(atOnce)
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}
