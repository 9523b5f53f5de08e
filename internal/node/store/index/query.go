package index

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

const rowColumns = `id, key, gen, url, publisher, size, stored, disk, chunks, pinned, created, meta`

type scanner interface{ Scan(...any) error }

func readRow(s scanner) (Row, error) {
	var id, gen, size, stored, disk, chunks, pinned, created number
	var key, url, publisher, meta blob
	err := s.Scan(&id, &key, &gen, &url, &publisher, &size, &stored, &disk, &chunks, &pinned, &created, &meta)
	return Row{ID: int64(id), Key: key, Gen: int64(gen), URL: url, Publisher: publisher, Size: int64(size),
		Stored: int64(stored), Disk: int64(disk), Chunks: int64(chunks), Pinned: pinned > 0, Created: int64(created), Meta: meta}, err
}

// Get returns the row with the key, or ErrNotFound. A damaged page can lead the
// search to the row of another key: that is ErrCorrupt, not an answer.
func (x *SQLite) Get(key []byte) (Row, error) {
	r, err := readRow(x.get.QueryRow(bytes(key)))
	if errors.Is(err, sql.ErrNoRows) {
		return Row{}, ErrNotFound
	}
	if err == nil && string(r.Key) != string(key) {
		return Row{}, fmt.Errorf("%w: looking for one key found another", ErrCorrupt)
	}
	return r, classify(err)
}

// Segments returns all segments of the object.
func (x *SQLite) Segments(id int64) ([]Segment, error) {
	return collect(func() (*sql.Rows, error) { return x.segments.Query(id) }, func(rows *sql.Rows) (Segment, error) {
		var seg number
		var data blob
		err := rows.Scan(&seg, &data)
		return Segment{ID: id, Seg: int64(seg), Data: data}, err
	})
}

// Scan returns up to limit rows with ids above after, in the order of ids.
func (x *SQLite) Scan(after int64, limit int) ([]Brief, error) {
	return collect(func() (*sql.Rows, error) { return x.scan.Query(after, limit) }, readBrief)
}

// Select returns up to limit of the rows that f selects with ids above after,
// in the order of ids.
func (x *SQLite) Select(f Filter, after int64, limit int) ([]Brief, error) {
	where, args := f.where()
	args = append([]any{after}, append(args, limit)...)
	return collect(func() (*sql.Rows, error) {
		return x.read.Query(`SELECT id, key, stored, disk, pinned FROM objects WHERE id > ?`+where+` ORDER BY id LIMIT ?`, args...)
	}, readBrief)
}

func readBrief(rows *sql.Rows) (Brief, error) {
	var id, stored, disk, pinned number
	var key blob
	err := rows.Scan(&id, &key, &stored, &disk, &pinned)
	return Brief{ID: int64(id), Key: key, Stored: max(0, int64(stored)), Disk: max(0, int64(disk)), Pinned: pinned > 0}, err
}

// List returns up to limit of the rows that f selects with keys above after,
// in the order of keys; a nil after starts at the first.
func (x *SQLite) List(f Filter, after []byte, limit int) ([]Row, error) {
	where, args := f.where()
	from := ` WHERE 1`
	if after != nil {
		from, args = ` WHERE key > ?`, append([]any{after}, args...)
	}
	args = append(args, limit)
	return collect(func() (*sql.Rows, error) {
		return x.read.Query(`SELECT `+rowColumns+` FROM objects`+from+where+` ORDER BY key LIMIT ?`, args...)
	}, func(rows *sql.Rows) (Row, error) { return readRow(rows) })
}

func (f Filter) where() (string, []any) {
	var b strings.Builder
	var args []any
	if f.Key != nil {
		b.WriteString(` AND key = ?`)
		args = append(args, f.Key)
	}
	if len(f.Prefix) > 0 {
		b.WriteString(` AND substr(url, 1, ?) = ?`) // url is a blob: substr counts bytes
		args = append(args, len(f.Prefix), f.Prefix)
	}
	if len(f.Publisher) > 0 {
		b.WriteString(` AND publisher = ?`)
		args = append(args, f.Publisher)
	}
	return b.String(), args
}

func collect[T any](query func() (*sql.Rows, error), read func(*sql.Rows) (T, error)) (all []T, err error) {
	rows, err := query()
	if err != nil {
		return nil, classify(err)
	}
	defer func() { err = classify(errors.Join(err, rows.Close())) }()
	for rows.Next() {
		v, err := read(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}
