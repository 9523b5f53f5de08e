package db_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"larder/internal/control/db"
	"larder/internal/lardertest/dbtest"
)

// Increments that read before they write are not lost, whatever the engine.
func TestTxLosesNothing(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		const writers, each = 8, 15
		var wg sync.WaitGroup
		errs := make(chan error, writers)
		for range writers {
			wg.Go(func() {
				for range each {
					err := d.Tx(ctx, func(tx *sql.Tx) error {
						var n int64
						if err := tx.QueryRowContext(ctx, `SELECT value FROM counters WHERE name = $1`, "revision").Scan(&n); err != nil {
							return err
						}
						_, err := tx.ExecContext(ctx, `UPDATE counters SET value = $1 WHERE name = $2`, n+1, "revision")
						return err
					})
					if err != nil {
						errs <- err
						return
					}
				}
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			t.Error(err)
		}
		var n int64
		if err := d.QueryRowContext(ctx, `SELECT value FROM counters WHERE name = 'revision'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n != writers*each {
			t.Errorf("%d increments are left of %d", n, writers*each)
		}
	})
}

func TestTxUndoes(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		stop := errors.New("stop")
		err := d.Tx(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, `INSERT INTO counters (name, value) VALUES ('x', 1)`); err != nil {
				return err
			}
			return stop
		})
		if !errors.Is(err, stop) {
			t.Fatalf("got %v, want the function's error", err)
		}
		var n int
		if err := d.QueryRowContext(ctx, `SELECT count(*) FROM counters WHERE name = 'x'`).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows are there (%v), want none", n, err)
		}
	})
}

func TestIsDuplicate(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		_, err := d.ExecContext(t.Context(), `INSERT INTO counters (name, value) VALUES ('revision', 1)`)
		if !db.IsDuplicate(err) {
			t.Errorf("%v is not seen as a duplicate", err)
		}
	})
}

// Every older version becomes the newest one, on both engines, and replicas
// that start together do not disturb each other.
func TestMigrateFromEveryVersion(t *testing.T) {
	t.Parallel()
	newest, err := db.Newest()
	if err != nil {
		t.Fatal(err)
	}
	dbtest.EachURL(t, func(t *testing.T, url string) {
		for from := int64(0); from <= newest; from++ {
			url := url
			if strings.HasPrefix(url, "postgres") {
				url = dbtest.Postgres(t)
			} else {
				url = filepath.Join(t.TempDir(), "control.db")
			}
			d, err := db.Open(t.Context(), url, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if from > 0 {
				if err := d.MigrateTo(t.Context(), from); err != nil {
					t.Fatalf("to %d: %v", from, err)
				}
				if _, err := d.ExecContext(t.Context(), `INSERT INTO leases (name, holder, expires) VALUES ('old', 'me', 7)`); err != nil {
					t.Fatal(err)
				}
			}
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					r, err := db.Open(t.Context(), url, nil)
					if err != nil {
						t.Error(err)
						return
					}
					defer r.Close()
					if got, err := r.Migrate(t.Context()); err != nil || got != newest {
						t.Errorf("from %d: version %d (%v), want %d", from, got, err, newest)
					}
				})
			}
			wg.Wait()
			if from > 0 {
				var holder string
				if err := d.QueryRowContext(t.Context(), `SELECT holder FROM leases WHERE name = 'old'`).Scan(&holder); err != nil || holder != "me" {
					t.Errorf("from %d: what was there is gone (%v)", from, err)
				}
			}
		}
	})
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ url, want string }{
		{"", "database.url"},
		{"postgres://larder:s3cret@127.0.0.1:1/x?connect_timeout=1", "127.0.0.1:1"},
		{"postgres://larder:s3cret@[::1/x", "database.url"},
		{filepath.Join(t.TempDir(), "missing", "x.db"), "opening the database"},
	} {
		_, err := db.Open(t.Context(), tt.url, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.url, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the password is in the error: %v", err)
		}
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	if !db.Time(db.Micros(time.Time{})).IsZero() {
		t.Error("the zero time does not come back")
	}
	at := time.Date(2026, 11, 26, 9, 8, 7, 654321000, time.FixedZone("x", 3600))
	if got := db.Time(db.Micros(at)); !got.Equal(at) || got.Location() != time.UTC {
		t.Errorf("got %v, want %v in UTC", got, at)
	}
}
