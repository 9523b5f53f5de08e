package main

import (
	"bytes"
	"database/sql"
	"errors"
	"path/filepath"

	_ "modernc.org/sqlite" // registers the driver
)

// sqliteEngine finds keys by an indexed 64-bit hash and compares the key in
// the row: an index over the keys themselves would hold each key twice.
type sqliteEngine struct {
	db     *sql.DB // one writer
	reader *sql.DB

	insertObject, insertSegment *sql.Stmt
	lookup, scan                *sql.Stmt
}

const sqliteSchema = `
CREATE TABLE IF NOT EXISTS object (id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, size INTEGER NOT NULL, key BLOB NOT NULL, meta BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS object_hash ON object (hash);
CREATE TABLE IF NOT EXISTS segment (object INTEGER NOT NULL, n INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (object, n)) WITHOUT ROWID;
`

func openSQLite(dir string, o options) (engine, error) {
	sync := "NORMAL"
	if o.Durable {
		sync = "FULL"
	}
	dsn := "file:" + filepath.Join(dir, "index.db") + "?_pragma=journal_mode(WAL)&_pragma=synchronous(" + sync + ")&_pragma=cache_size(-16384)&_pragma=busy_timeout(5000)"
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	e := &sqliteEngine{db: db}
	if e.reader, err = sql.Open("sqlite", dsn); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	e.reader.SetMaxOpenConns(1)
	if err := e.prepare(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *sqliteEngine) prepare() (err error) {
	if _, err = e.db.Exec(sqliteSchema); err != nil {
		return err
	}
	for _, p := range []struct {
		db   *sql.DB
		stmt **sql.Stmt
		text string
	}{
		{e.db, &e.insertObject, `INSERT INTO object (id, hash, size, key, meta) VALUES (?, ?, ?, ?, ?)`},
		{e.db, &e.insertSegment, `INSERT INTO segment (object, n, data) VALUES (?, 0, ?) ON CONFLICT DO UPDATE SET data = excluded.data`},
		{e.reader, &e.lookup, `SELECT o.id, o.size, o.key, o.meta, s.data FROM object o JOIN segment s ON s.object = o.id AND s.n = 0 WHERE o.hash = ?`},
		{e.reader, &e.scan, `SELECT id, size FROM object WHERE id > ? ORDER BY id LIMIT ?`},
	} {
		if *p.stmt, err = p.db.Prepare(p.text); err != nil {
			return err
		}
	}
	return nil
}

func (e *sqliteEngine) inTx(do func(*sql.Tx) error) error {
	tx, err := e.db.Begin()
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func (e *sqliteEngine) Load(batch []object) error {
	return e.inTx(func(tx *sql.Tx) error {
		insertObject, insertSegment := tx.Stmt(e.insertObject), tx.Stmt(e.insertSegment)
		for i := range batch {
			o := &batch[i]
			if _, err := insertObject.Exec(int64(o.ID), int64(hash64(o.Key)), o.Size, o.Key, o.Meta); err != nil {
				return err
			}
			if _, err := insertSegment.Exec(int64(o.ID), o.Segment); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *sqliteEngine) Update(batch []object) error {
	return e.inTx(func(tx *sql.Tx) error {
		insertSegment := tx.Stmt(e.insertSegment)
		for i := range batch {
			if _, err := insertSegment.Exec(int64(batch[i].ID), batch[i].Segment); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *sqliteEngine) Lookup(key []byte) (object, bool, error) {
	rows, err := e.lookup.Query(int64(hash64(key)))
	if err != nil {
		return object{}, false, err
	}
	defer rows.Close()
	for rows.Next() {
		var o object
		if err := rows.Scan(&o.ID, &o.Size, &o.Key, &o.Meta, &o.Segment); err != nil {
			return object{}, false, err
		}
		if bytes.Equal(o.Key, key) {
			return o, true, nil
		}
	}
	return object{}, false, rows.Err()
}

func (e *sqliteEngine) Scan(after uint64, limit int) (ids []uint64, size int64, err error) {
	rows, err := e.scan.Query(int64(after), limit)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var id uint64
		var n int64
		if err := rows.Scan(&id, &n); err != nil {
			return nil, 0, err
		}
		ids, size = append(ids, id), size+n
	}
	return ids, size, rows.Err()
}

func (e *sqliteEngine) Close() error {
	return errors.Join(e.reader.Close(), e.db.Close())
}
