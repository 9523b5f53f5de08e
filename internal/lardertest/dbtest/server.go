package dbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver of the administrator's connection

	"larder/internal/lardertest"
)

// Server is a PostgreSQL server of a test's own, on a Unix socket in a
// directory of its own. It is without the safety of fsync: tests kill the
// server, not the machine.
type Server struct {
	dir      string
	bin      string   // the directory of PostgreSQL's programs
	settings []string // name=value
	proc     *exec.Cmd
	done     chan struct{} // closed when proc has ended
}

// NewServer starts a server that a test may stop and start again. It is removed
// when the test ends.
//
// settings, such as fsync=on, win over those that make tests quick.
func NewServer(t testing.TB, settings ...string) *Server {
	t.Helper()
	s := newServer(t)
	s.settings = settings
	t.Cleanup(func() { s.remove(t) })
	s.Start(t)
	return s
}

func newServer(t testing.TB) *Server {
	t.Helper()
	initdb := findInitdb(t)
	// Not t.TempDir: paths of sockets are short, and the account PostgreSQL
	// runs under must get there.
	dir, err := os.MkdirTemp("", "larder-pg-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{dir: dir, bin: filepath.Dir(initdb)}
	if err := giveAway(dir); err != nil {
		t.Fatal(err)
	}
	cmd := s.command(t, "initdb", "-D", s.data(), "-U", "larder", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	return s
}

// findInitdb returns PostgreSQL's initdb, beside which its other programs are.
// Debian and Red Hat keep them off the PATH.
func findInitdb(t testing.TB) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/initdb", "/usr/pgsql-*/bin/initdb"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	initdb := lardertest.Program(t, "initdb")
	if real, err := filepath.EvalSymlinks(initdb); err == nil {
		return real
	}
	return initdb
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(t testing.TB, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	// Only what it needs: PGHOST and the like would lead elsewhere.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	if err := asOther(cmd); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// Start starts the server and waits until it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	log, err := os.CreateTemp(s.dir, "log-")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	args := []string{"-D", s.data(), "-k", s.dir}
	for _, v := range append([]string{"listen_addresses=", "fsync=off", "full_page_writes=off", "max_connections=200", "shared_buffers=64MB"}, s.settings...) {
		args = append(args, "-c", v)
	}
	cmd := s.command(t, "postgres", args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("postgres: %v", err)
	}
	s.proc, s.done = cmd, make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		cmd.Wait()
	}(s.done)
	admin, err := sql.Open("pgx", s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for admin.PingContext(ctx) != nil {
		select {
		case <-tick.C:
			continue
		case <-s.done:
		case <-ctx.Done():
		}
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("postgres does not answer:\n%s", text)
	}
}

// Stop ends the server at once, as a crash does, and waits until it is gone.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if s.proc == nil {
		return
	}
	if err := s.proc.Process.Signal(quit); err != nil {
		t.Logf("stopping postgres: %v", err)
	}
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		s.proc.Process.Kill()
		<-s.done
	}
	s.proc = nil
}

func (s *Server) remove(t testing.TB) {
	s.Stop(t)
	if err := os.RemoveAll(s.dir); err != nil {
		t.Errorf("removing PostgreSQL's directory: %v", err)
	}
}

// URL is where one of its databases is.
func (s *Server) URL(database string) string {
	return "postgres://larder@/" + database + "?sslmode=disable&host=" + url.QueryEscape(s.dir)
}

// Database makes an empty database that is dropped when the test ends, and
// returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	var raw [6]byte
	rand.Read(raw[:])
	name := "t" + hex.EncodeToString(raw[:])
	s.admin(t, "CREATE DATABASE "+name)
	t.Cleanup(func() {
		if s.proc != nil {
			s.admin(t, "DROP DATABASE "+name+" WITH (FORCE)")
		}
	})
	return s.URL(name)
}

func (s *Server) admin(t testing.TB, statement string) {
	t.Helper()
	admin, err := sql.Open("pgx", s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := admin.ExecContext(ctx, statement); err != nil {
		t.Errorf("%s: %v", statement, err)
	}
}
