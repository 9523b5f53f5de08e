// Package dbtest gives tests of the control plane a database of each engine.
package dbtest

import (
	"path/filepath"
	"sync"
	"testing"

	"larder/internal/control/db"
)

// Each runs f on a fresh, migrated database of both engines, as two parallel
// subtests.
func Each(t *testing.T, f func(t *testing.T, d *db.DB)) {
	t.Helper()
	EachURL(t, func(t *testing.T, url string) {
		d, err := db.Open(t.Context(), url, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		if _, err := d.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		f(t, d)
	})
}

// EachURL is Each with the URL of an empty database, for tests that open it
// themselves.
func EachURL(t *testing.T, f func(t *testing.T, url string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, filepath.Join(t.TempDir(), "control.db"))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, Postgres(t))
	})
}

// SQLite returns a fresh, migrated SQLite database.
func SQLite(t testing.TB) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), "control.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if _, err := d.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// Postgres returns the URL of an empty database on the test process's own
// PostgreSQL server, which runs while a test has a database on it. Without
// PostgreSQL's programs the test is skipped, and fails in CI.
func Postgres(t testing.TB) string {
	t.Helper()
	s := shared.acquire(t)
	t.Cleanup(func() { shared.release(t) })
	return s.Database(t)
}

// shared is the server that the tests of one process share: starting one takes
// a second.
var shared sharedServer

type sharedServer struct {
	mu     sync.Mutex
	users  int     // guarded by mu
	server *Server // guarded by mu; nil without users
}

func (s *sharedServer) acquire(t testing.TB) *Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		s.server = newServer(t)
		s.server.Start(t)
	}
	s.users++
	return s.server
}

func (s *sharedServer) release(t testing.TB) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 {
		s.server.remove(t)
		s.server = nil
	}
}
