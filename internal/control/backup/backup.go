// Package backup writes all that a control plane keeps into one encrypted file,
// while it runs, and makes a control plane of such a file again, on either
// engine.
//
// The file is age's (age-encryption.org/v1). Inside is gzip, and inside that a
// line of JSON for each row: a header, for each table its name and columns and
// then its rows, and a trailer with the number of rows and the SHA-256 of all
// lines before it, by which a file that was cut or changed is recognised.
package backup

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"larder/internal/control/db"
)

const format = 1

// Header begins a back-up.
type Header struct {
	Format  int       `json:"format"`
	Schema  int64     `json:"schema"` // version of the database's
	Engine  db.Engine `json:"engine"` // it was read from
	Created time.Time `json:"created"`
	Key     string    `json:"key"` // secret; content of the key file
}

// Summary says what a back-up holds.
type Summary struct {
	Created time.Time `json:"created"`
	Schema  int64     `json:"schema"`
	Tables  int       `json:"tables"`
	Rows    int64     `json:"rows"`
}

type line struct {
	Header  *Header  `json:"header,omitempty"`
	Table   string   `json:"table,omitempty"`
	Columns []string `json:"columns,omitempty"`
	Row     []any    `json:"row,omitempty"`
	Rows    *int64   `json:"rows,omitempty"` // of the trailer
	Sum     string   `json:"sum,omitempty"`  // likewise
}

// ErrDamaged: the file was cut or changed, or is no back-up.
var ErrDamaged = errors.New("the back-up is damaged")

// passing are tables whose rows are worth nothing later.
var passing = []string{"leases", "sessions", "access_tokens", "once", "login_failures", "alert_messages"}

// first are tables that others refer to, in the order in which they are filled.
var first = []string{"resource_groups", "customers", "nodes", "tokens", "users"}

// tables lists what is there.
func tables(ctx context.Context, tx *sql.Tx, engine db.Engine) ([]string, error) {
	query := `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name`
	if engine == db.PostgreSQL {
		query = `SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY table_name`
	}
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		if name != "goose_db_version" && !slices.Contains(passing, name) {
			all = append(all, name)
		}
	}
	slices.SortStableFunc(all, func(a, b string) int { return place(a) - place(b) })
	return all, rows.Err()
}

func place(table string) int {
	if i := slices.Index(first, table); i >= 0 {
		return i
	}
	return len(first)
}

// Write writes a back-up of d to w, for recipients. The rows are all of one
// moment. key is the content of the key file.
func Write(ctx context.Context, d *db.DB, key string, w io.Writer, recipients ...age.Recipient) (*Summary, error) {
	version, err := d.Version(ctx)
	if err != nil {
		return nil, err
	}
	enc, err := age.Encrypt(w, recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	z := gzip.NewWriter(enc)
	hash := sha256.New()
	out := json.NewEncoder(io.MultiWriter(z, hash))
	s := &Summary{Created: time.Now().UTC().Truncate(time.Second), Schema: version}
	if err := out.Encode(line{Header: &Header{format, version, d.Engine(), s.Created, key}}); err != nil {
		return nil, err
	}
	err = snapshot(ctx, d, func(tx *sql.Tx) error {
		names, err := tables(ctx, tx, d.Engine())
		if err != nil {
			return err
		}
		s.Tables = len(names)
		for _, name := range names {
			n, err := writeTable(ctx, tx, name, out)
			if err != nil {
				return fmt.Errorf("table %s: %w", name, err)
			}
			s.Rows += n
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(z).Encode(line{Rows: &s.Rows, Sum: hex.EncodeToString(hash.Sum(nil))}); err != nil {
		return nil, err
	}
	return s, errors.Join(z.Close(), enc.Close())
}

// snapshot runs f in a transaction that sees one moment and hinders nobody.
func snapshot(ctx context.Context, d *db.DB, f func(tx *sql.Tx) error) error {
	o := &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}
	if d.Engine() == db.SQLite {
		o = &sql.TxOptions{ReadOnly: true} // WAL: readers see the moment they began
	}
	tx, err := d.BeginTx(ctx, o)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return f(tx)
}

func writeTable(ctx context.Context, tx *sql.Tx, name string, out *json.Encoder) (n int64, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT * FROM `+name)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return 0, err
	}
	types, err := rows.ColumnTypes()
	if err != nil {
		return 0, err
	}
	if err := out.Encode(line{Table: name, Columns: columns}); err != nil {
		return 0, err
	}
	values, at := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		at[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(at...); err != nil {
			return n, err
		}
		row := make([]any, len(values))
		for i, v := range values {
			switch x := v.(type) {
			case []byte:
				v = map[string]string{"b": base64.StdEncoding.EncodeToString(x)}
			case int64:
				if types[i].DatabaseTypeName() == "BOOLEAN" { // SQLite has no other word for it
					v = x != 0
				}
			}
			row[i] = v
		}
		if err := out.Encode(line{Row: row}); err != nil {
			return n, err
		}
		n++
	}
	return n, rows.Err()
}

// reader goes through the lines of a back-up.
type reader struct {
	s    *bufio.Scanner
	hash interface {
		io.Writer
		Sum([]byte) []byte
	}
	rows int64
}

// open decrypts a back-up and reads its header.
func open(r io.Reader, identities ...age.Identity) (*reader, *Header, error) {
	plain, err := age.Decrypt(r, identities...)
	var no *age.NoIdentityMatchError
	if errors.As(err, &no) {
		return nil, nil, errors.New("the back-up was made for another passphrase or key")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	z, err := gzip.NewReader(plain)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	rd := &reader{s: bufio.NewScanner(z), hash: sha256.New()}
	rd.s.Buffer(make([]byte, 64<<10), 64<<20)
	l, err := rd.next()
	if err != nil {
		return nil, nil, err
	}
	if l == nil || l.Header == nil {
		return nil, nil, fmt.Errorf("%w: it has no header", ErrDamaged)
	}
	if l.Header.Format != format {
		return nil, nil, fmt.Errorf("the back-up has the format %d, this program reads %d; use the newer program", l.Header.Format, format)
	}
	newest, err := db.Newest()
	if err != nil {
		return nil, nil, err
	}
	if l.Header.Schema > newest {
		return nil, nil, fmt.Errorf("the back-up is of a database of version %d, this program knows up to %d; use the newer program", l.Header.Schema, newest)
	}
	return rd, l.Header, nil
}

// next returns the next line, nil after a trailer that was right.
func (r *reader) next() (*line, error) {
	if !r.s.Scan() {
		err := r.s.Err()
		if err == nil {
			err = errors.New("its end is missing")
		}
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	text := r.s.Bytes()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var l line
	if err := d.Decode(&l); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if l.Rows != nil {
		if *l.Rows != r.rows || l.Sum != hex.EncodeToString(r.hash.Sum(nil)) {
			return nil, fmt.Errorf("%w: its rows are not those that were written", ErrDamaged)
		}
		if r.s.Scan() {
			return nil, fmt.Errorf("%w: something follows its end", ErrDamaged)
		}
		return nil, r.s.Err()
	}
	if l.Row != nil {
		r.rows++
	}
	r.hash.Write(text)
	r.hash.Write([]byte{'\n'})
	return &l, nil
}

// Verify reads a back-up to its end. Errors: ErrDamaged.
func Verify(in io.Reader, identities ...age.Identity) (*Summary, error) {
	r, h, err := open(in, identities...)
	if err != nil {
		return nil, err
	}
	s := &Summary{Created: h.Created, Schema: h.Schema}
	for {
		l, err := r.next()
		if err != nil {
			return nil, err
		}
		if l == nil {
			s.Rows = r.rows
			return s, nil
		}
		if l.Table != "" {
			s.Tables++
		}
	}
}

// ErrNotEmpty: the database to restore into holds something already.
var ErrNotEmpty = errors.New("the database is not empty")

// Restore fills an empty database with a back-up, brings it up to date, and
// returns the content of the key file. Nothing is kept if it fails.
func Restore(ctx context.Context, in io.Reader, d *db.DB, identities ...age.Identity) (*Summary, string, error) {
	r, h, err := open(in, identities...)
	if err != nil {
		return nil, "", err
	}
	version, err := d.Version(ctx)
	if err != nil {
		return nil, "", err
	}
	if version > 0 {
		return nil, "", fmt.Errorf("%w: its schema is of version %d; name a new file, or another database", ErrNotEmpty, version)
	}
	if err := d.MigrateTo(ctx, h.Schema); err != nil {
		return nil, "", err
	}
	s := &Summary{Created: h.Created, Schema: h.Schema}
	tx, err := d.BeginTx(ctx, nil)
	if err != nil {
		return nil, "", err
	}
	defer tx.Rollback()
	insert, columns := "", 0
	for {
		l, err := r.next()
		if err != nil {
			return nil, "", err
		}
		if l == nil {
			break
		}
		switch {
		case l.Table != "":
			s.Tables++
			if !word(l.Table) || !slices.ContainsFunc(l.Columns, word) || slices.ContainsFunc(l.Columns, func(c string) bool { return !word(c) }) {
				return nil, "", fmt.Errorf("%w: a table with the name %q", ErrDamaged, l.Table)
			}
			// Migrations put rows in, such as counters.
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+l.Table); err != nil {
				return nil, "", fmt.Errorf("table %s: %w", l.Table, err)
			}
			params := make([]string, len(l.Columns))
			for i := range params {
				params[i] = fmt.Sprintf("$%d", i+1)
			}
			columns = len(params)
			insert = `INSERT INTO ` + l.Table + ` (` + strings.Join(l.Columns, ", ") + `) VALUES (` + strings.Join(params, ", ") + `)`
		case l.Row != nil:
			if len(l.Row) != columns {
				return nil, "", fmt.Errorf("%w: a row with %d columns of %d", ErrDamaged, len(l.Row), columns)
			}
			if err := values(l.Row); err != nil {
				return nil, "", err
			}
			if _, err := tx.ExecContext(ctx, insert, l.Row...); err != nil {
				return nil, "", fmt.Errorf("writing a row: %w", err)
			}
		}
	}
	s.Rows = r.rows
	if err := tx.Commit(); err != nil {
		return nil, "", err
	}
	_, err = d.Migrate(ctx)
	return s, h.Key, err
}

func word(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_0123456789") == ""
}

// values turns JSON's values into the database's.
func values(row []any) error {
	for i, v := range row {
		switch x := v.(type) {
		case json.Number:
			n, err := x.Int64()
			if err != nil {
				return fmt.Errorf("%w: a number that is none", ErrDamaged)
			}
			row[i] = n
		case map[string]any:
			text, _ := x["b"].(string)
			b, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return fmt.Errorf("%w: bytes that are none", ErrDamaged)
			}
			row[i] = b
		}
	}
	return nil
}
