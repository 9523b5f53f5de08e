package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	sqlite3 "modernc.org/sqlite/lib"

	"modernc.org/sqlite"
)

const schema = `
CREATE TABLE objects (
	id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, gen INTEGER NOT NULL,
	url BLOB NOT NULL, publisher BLOB NOT NULL, size INTEGER NOT NULL,
	stored INTEGER NOT NULL, disk INTEGER NOT NULL, chunks INTEGER NOT NULL,
	pinned INTEGER NOT NULL, created INTEGER NOT NULL, meta BLOB NOT NULL);
CREATE TABLE segments (
	id INTEGER NOT NULL, seg INTEGER NOT NULL, data BLOB NOT NULL,
	PRIMARY KEY (id, seg)) WITHOUT ROWID;
CREATE TABLE state (
	one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL,
	epoch INTEGER NOT NULL, dirty INTEGER NOT NULL, sweep INTEGER NOT NULL,
	next_id INTEGER NOT NULL, hand INTEGER NOT NULL, scrub INTEGER NOT NULL,
	used INTEGER NOT NULL, objects INTEGER NOT NULL);
INSERT INTO state VALUES (1, 1, 1, 0, 0, 1, 0, 0, 0, 0);
CREATE TRIGGER objects_added AFTER INSERT ON objects BEGIN
	UPDATE state SET used = used + new.disk, objects = objects + 1; END;
CREATE TRIGGER objects_changed AFTER UPDATE OF disk ON objects WHEN new.disk <> old.disk BEGIN
	UPDATE state SET used = used + new.disk - old.disk; END;
CREATE TRIGGER objects_removed AFTER DELETE ON objects BEGIN
	UPDATE state SET used = used - old.disk, objects = objects - 1; END;`

// SQLite is an index in one SQLite database. Its methods may be called at the
// same time; changes wait for each other, readers wait for nobody.
type SQLite struct {
	write *sql.DB // one connection
	read  *sql.DB // a few

	upsert, putSegment, forgetRow, forgetSegments, setHand, setScrub *sql.Stmt // of write
	get, segments, scan                                              *sql.Stmt // of read
}

// Create makes an empty index at path; an index that is there is left as it is.
func Create(path string) error {
	db, err := connect(path, "rwc", 1)
	if err != nil {
		return err
	}
	err = inTransaction(db, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRow(`SELECT count(*) FROM sqlite_schema WHERE name = 'state'`).Scan(&n); err != nil || n == 1 {
			return err
		}
		_, err := tx.Exec(schema)
		return err
	})
	return errors.Join(classify(err), db.Close())
}

// Open opens the index that Create made at path.
func Open(path string) (_ *SQLite, err error) {
	// Asked of the system first, so that a file that may not be opened is not
	// taken for a damaged one.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	x := &SQLite{}
	defer func() {
		if err != nil {
			err = errors.Join(openError(err), x.Close())
		}
	}()
	if x.write, err = connect(path, "rw", 1); err != nil {
		return nil, err
	}
	if x.read, err = connect(path, "rw", 4); err != nil {
		return nil, err
	}
	var format number
	if err := x.write.QueryRow(`SELECT format FROM state WHERE one = 1`).Scan(&format); err != nil {
		return nil, err
	}
	if format > Format {
		return nil, fmt.Errorf("%w: found version %d, this program knows up to %d", ErrNewer, format, Format)
	}
	if format < 1 {
		return nil, fmt.Errorf("%w: format version %d", ErrCorrupt, format)
	}
	return x, x.prepare()
}

// openError is classify for an index that the system lets us open and write.
func openError(err error) error {
	var e *sqlite.Error
	if errors.Is(err, sql.ErrNoRows) || errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_READONLY {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return classify(err)
}

func connect(path, mode string, conns int) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	p := filepath.ToSlash(abs)
	if !strings.HasPrefix(p, "/") {
		p = "/" + p // C:/…
	}
	// No mmap: a bad sector must be an error, not the end of the process.
	q := url.Values{"mode": {mode}, "_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)", "cache_size(-4096)",
		"mmap_size(0)", "trusted_schema(OFF)", "cell_size_check(ON)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: p, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

func (x *SQLite) prepare() error {
	for _, s := range []struct {
		stmt  **sql.Stmt
		db    *sql.DB
		query string
	}{
		{&x.upsert, x.write, `INSERT INTO objects (id, key, gen, url, publisher, size, stored, disk, chunks, pinned, created, meta)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET stored = excluded.stored, disk = excluded.disk, chunks = excluded.chunks,
			pinned = excluded.pinned, url = excluded.url, publisher = excluded.publisher, meta = excluded.meta`},
		{&x.putSegment, x.write, `INSERT OR REPLACE INTO segments (id, seg, data) VALUES (?, ?, ?)`},
		{&x.forgetRow, x.write, `DELETE FROM objects WHERE id = ? RETURNING disk`},
		{&x.forgetSegments, x.write, `DELETE FROM segments WHERE id = ?`},
		{&x.setHand, x.write, `UPDATE state SET hand = ?`},
		{&x.setScrub, x.write, `UPDATE state SET scrub = ?`},
		{&x.get, x.read, `SELECT ` + rowColumns + ` FROM objects WHERE key = ?`},
		{&x.segments, x.read, `SELECT seg, data FROM segments WHERE id = ?`},
		{&x.scan, x.read, `SELECT id, key, stored, disk, pinned FROM objects WHERE id > ? ORDER BY id LIMIT ?`},
	} {
		var err error
		if *s.stmt, err = s.db.Prepare(s.query); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the index. What Apply took is in it.
func (x *SQLite) Close() error {
	var errs []error
	for _, db := range []*sql.DB{x.read, x.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// State reads the state of the drive.
func (x *SQLite) State() (State, error) {
	var epoch, dirty, sweep, next, hand, scrub, used, objects number
	err := x.write.QueryRow(`SELECT epoch, dirty, sweep, next_id, hand, scrub, used, objects FROM state WHERE one = 1`).
		Scan(&epoch, &dirty, &sweep, &next, &hand, &scrub, &used, &objects)
	if err != nil {
		return State{}, openError(err)
	}
	if epoch < 1 || epoch >= 1<<32-1 || next < 1 || next > 1<<62 || used < 0 || objects < 0 || hand < 0 || scrub < 0 {
		return State{}, fmt.Errorf("%w: its state row makes no sense", ErrCorrupt)
	}
	return State{Epoch: uint32(epoch), Dirty: dirty != 0, Sweep: sweep != 0, NextID: int64(next),
		Hand: int64(hand), Scrub: int64(scrub), Used: int64(used), Objects: int64(objects)}, nil
}

// Mark stores Epoch, Dirty, Sweep and NextID of s and does not return before
// they, and everything applied before, would survive a loss of power.
func (x *SQLite) Mark(s State) error {
	ctx := context.Background()
	conn, err := x.write.Conn(ctx)
	if err != nil {
		return classify(err)
	}
	_, err = conn.ExecContext(ctx, `PRAGMA synchronous = FULL`)
	if err == nil {
		_, err = conn.ExecContext(ctx, `UPDATE state SET epoch = ?, dirty = ?, sweep = ?, next_id = ?`,
			s.Epoch, s.Dirty, s.Sweep, s.NextID)
	}
	_, back := conn.ExecContext(ctx, `PRAGMA synchronous = NORMAL`)
	return classify(errors.Join(err, back, conn.Close()))
}

// Apply makes the changes of b in one transaction, and sets b.Gone.
func (x *SQLite) Apply(b *Batch) error {
	b.Gone = make([]int64, len(b.Forget))
	return classify(inTransaction(x.write, func(tx *sql.Tx) error {
		forgetRow, forgetSegments := tx.Stmt(x.forgetRow), tx.Stmt(x.forgetSegments)
		for i, id := range b.Forget {
			disk := number(-1)
			err := forgetRow.QueryRow(id).Scan(&disk)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			b.Gone[i] = int64(disk)
			if _, err := forgetSegments.Exec(id); err != nil {
				return err
			}
		}
		upsert := tx.Stmt(x.upsert)
		for i := range b.Rows {
			r := &b.Rows[i]
			if _, err := upsert.Exec(r.ID, bytes(r.Key), r.Gen, bytes(r.URL), bytes(r.Publisher), r.Size,
				r.Stored, r.Disk, r.Chunks, r.Pinned, r.Created, bytes(r.Meta)); err != nil {
				return err
			}
		}
		put := tx.Stmt(x.putSegment)
		for _, s := range b.Segments {
			if _, err := put.Exec(s.ID, s.Seg, bytes(s.Data)); err != nil {
				return err
			}
		}
		if b.Hand != 0 {
			if _, err := tx.Stmt(x.setHand).Exec(b.Hand); err != nil {
				return err
			}
		}
		if b.Scrub != 0 {
			if _, err := tx.Stmt(x.setScrub).Exec(b.Scrub); err != nil {
				return err
			}
		}
		return nil
	}))
}

// bytes makes an empty value of a nil one, which SQL would take for NULL.
func bytes(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func inTransaction(db *sql.DB, f func(*sql.Tx) error) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// Suffixes are what the names of the files of one index end with.
var Suffixes = []string{"", "-wal", "-shm"}
