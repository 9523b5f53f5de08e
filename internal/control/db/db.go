// Package db opens the control plane's database, SQLite or PostgreSQL, and
// brings its schema up to date, so that the packages that keep something in it
// write each statement once.
//
// Statements are the SQL that both understand: parameters are $1, $2, …; types
// are TEXT, BIGINT, DOUBLE PRECISION, BOOLEAN and BYTEA; points in time are
// BIGINT microseconds since 1970 in UTC (Micros, Time), 0 for none; documents
// are TEXT in JSON. Upserts are INSERT … ON CONFLICT … DO UPDATE, RETURNING
// works, and what must be looked at before it is written is read in the same Tx.
package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Engine is the kind of a database.
type Engine string

// The engines.
const (
	SQLite     Engine = "sqlite"
	PostgreSQL Engine = "postgres"
)

// DB is an open database. Its methods, and those of sql.DB for statements that
// stand alone, may be called at the same time.
type DB struct {
	*sql.DB
	engine Engine
	path   string // of the file; "" for PostgreSQL
	log    *slog.Logger
}

// Queryer is what *sql.DB and *sql.Tx have in common, for functions that work
// inside and outside a transaction.
type Queryer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Open opens the database of a URL: postgres://user:password@host/name?…, or
// the path of an SQLite file, with or without "sqlite:" before it. A file that
// is not there is made, for this account alone. The schema is as it was: call
// Migrate. Errors never hold the URL's password.
func Open(ctx context.Context, rawURL string, log *slog.Logger) (*DB, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if strings.HasPrefix(rawURL, "postgres://") || strings.HasPrefix(rawURL, "postgresql://") {
		return openPostgres(ctx, rawURL, log)
	}
	return openSQLite(ctx, strings.TrimPrefix(rawURL, "sqlite:"), log)
}

func openPostgres(ctx context.Context, rawURL string, log *slog.Logger) (*DB, error) {
	cfg, err := pgx.ParseConfig(rawURL)
	if err != nil {
		// pgx redacts the password, except where the URL does not parse at all.
		if _, uerr := url.Parse(rawURL); uerr != nil {
			return nil, errors.New("database.url: not a URL; expected postgres://user:password@host:5432/name")
		}
		return nil, fmt.Errorf("database.url: %w", err)
	}
	cfg.RuntimeParams["application_name"] = "larder"
	cfg.RuntimeParams["default_transaction_isolation"] = "read committed" // what Tx and TxLocked count on
	d := &DB{DB: stdlib.OpenDB(*cfg), engine: PostgreSQL, log: log}
	d.SetMaxOpenConns(16)
	d.SetMaxIdleConns(8)
	d.SetConnMaxIdleTime(5 * time.Minute)
	if err := d.PingContext(ctx); err != nil {
		d.Close()
		return nil, fmt.Errorf("connecting to the database at %s:%d: %w", cfg.Host, cfg.Port, err)
	}
	return d, nil
}

func openSQLite(ctx context.Context, path string, log *slog.Logger) (*DB, error) {
	if path == "" {
		return nil, errors.New("database.url: found nothing, expected postgres://… or the path of a file")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// Made here, so that it is nobody else's from its first moment; SQLite
	// gives its journal the same mode.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	f.Close()
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "foreign_keys(1)", "synchronous(FULL)", "journal_size_limit(67108864)",
	}}
	dsn := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath(), RawQuery: q.Encode()}).String()
	sdb, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	d := &DB{DB: sdb, engine: SQLite, path: path, log: log}
	d.SetMaxOpenConns(8)
	if err := d.PingContext(ctx); err != nil {
		d.Close()
		return nil, fmt.Errorf("opening the database %s: %w", path, err)
	}
	return d, nil
}

// Engine says which kind of database it is.
func (d *DB) Engine() Engine { return d.engine }

// Path is the file of an SQLite database, and "" for PostgreSQL.
func (d *DB) Path() string { return d.path }

// tries is how often Tx runs a transaction that lost against another.
const tries = 12

// Tx runs f in a transaction and commits what it did, or undoes it if f returns
// an error. Those that Tx runs wait for one another from the beginning, on all
// replicas, so what f reads stays as it is, but for what TxLocked and single
// statements change. They are for what people and machines do now and then: none
// loses against another, however many there are, and each waits for those before
// it. f must have no effects but through tx, and must not call Tx: transactions
// that lost against one of TxLocked are run again from the start.
func (d *DB) Tx(ctx context.Context, f func(tx *sql.Tx) error) error {
	if d.engine != PostgreSQL {
		return d.tx(ctx, f) // SQLite has one writer at a time anyway
	}
	return d.tx(ctx, func(tx *sql.Tx) error {
		// It ends with the transaction. What is read after it is what the one
		// before has left: each statement looks anew (read committed).
		if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, writerLock); err != nil {
			return fmt.Errorf("waiting for other writers: %w", err)
		}
		return f(tx)
	})
}

// writerLock is the advisory lock of those who write with Tx.
const writerLock = 0x6c61726465720001

// TxLocked is Tx for transactions that are frequent, lock what they read (SELECT
// … FOR UPDATE on PostgreSQL), always in one order, and otherwise only add: they
// wait for one another row by row.
func (d *DB) TxLocked(ctx context.Context, f func(tx *sql.Tx) error) error { return d.tx(ctx, f) }

func (d *DB) tx(ctx context.Context, f func(tx *sql.Tx) error) error {
	for try := 1; ; try++ {
		err := d.once(ctx, f)
		if err == nil || try == tries || !lost(err) {
			return err
		}
		pause := time.NewTimer(time.Duration(1+rand.IntN(10*try)) * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

func (d *DB) once(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := d.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	defer tx.Rollback() // does nothing after Commit
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// lost is true for what happened only because of another transaction.
func lost(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "40001" || pg.Code == "40P01" // serialization_failure, deadlock_detected
	}
	var lite *sqlite.Error
	return errors.As(err, &lite) && lite.Code()&0xff == sqlite3.SQLITE_BUSY
}

// IsDuplicate is true for an error that says that a row with this key is there.
func IsDuplicate(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "23505" // unique_violation
	}
	var lite *sqlite.Error
	return errors.As(err, &lite) && (lite.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || lite.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// Micros is how a point in time is stored. The zero time is 0.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time is the point in time that Micros stored, in UTC.
func Time(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}
