package db

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"

	"larder/internal/sys/disk"
)

// Migrations only ever get longer: a file that was released is never changed,
// moved or removed. They are SQL for both engines (package comment).
//
//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the schema to the version of this program and returns it. Of
// several replicas that start at once, one does it and the others wait. A
// schema of a later program is left as it is: a replica of the version before
// goes on beside it while a fleet of replicas is upgraded.
func (d *DB) Migrate(ctx context.Context) (version int64, err error) {
	p, err := d.provider()
	if err != nil {
		return 0, err
	}
	unlock, err := d.alone(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if _, err := p.Up(ctx); err != nil {
		return 0, fmt.Errorf("bringing the database up to date: %w", err)
	}
	return p.GetDBVersion(ctx)
}

// MigrateTo brings the schema to one version, for tests of upgrades.
func (d *DB) MigrateTo(ctx context.Context, version int64) error {
	p, err := d.provider()
	if err != nil {
		return err
	}
	_, err = p.UpTo(ctx, version)
	return err
}

// Version is the schema's version now; 0 for an empty database.
func (d *DB) Version(ctx context.Context) (int64, error) {
	p, err := d.provider()
	if err != nil {
		return 0, err
	}
	return p.GetDBVersion(ctx)
}

// Newest is the version this program brings a schema to.
func Newest() (int64, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("no migrations in the program: %w", err)
	}
	return goose.NumericComponent(files[len(files)-1])
}

func (d *DB) provider() (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	dialect := goose.DialectSQLite3
	if d.engine == PostgreSQL {
		dialect = goose.DialectPostgres
	}
	return goose.NewProvider(dialect, d.DB, files, goose.WithDisableGlobalRegistry(true))
}

// migrating is the number of the advisory lock that replicas wait for.
const migrating = 0x6c61726465720001

// alone waits until no other process migrates.
func (d *DB) alone(ctx context.Context) (unlock func(), err error) {
	if d.engine != PostgreSQL {
		return d.aloneOnFile(ctx)
	}
	conn, err := d.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, int64(migrating)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("waiting for other replicas: %w", err)
	}
	return func() {
		// A connection that broke has given the lock back.
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, int64(migrating))
		conn.Close()
	}, nil
}

// aloneOnFile is alone for SQLite, whose locks end with each transaction, and a
// migration is several: a file beside the database is locked.
func (d *DB) aloneOnFile(ctx context.Context) (unlock func(), err error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := disk.Lock(d.path + ".migrating")
		if err == nil {
			return func() { _ = l.Unlock() }, nil
		}
		if !errors.Is(err, disk.ErrLocked) {
			return nil, fmt.Errorf("locking the database: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
