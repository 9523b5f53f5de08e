// Package index remembers, for one drive of the store, which objects lie on it
// and what is known of their chunks, in a SQLite file that survives a kill.
package index

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Format is the version of the tables this package reads and writes.
const Format = 1

var (
	// ErrCorrupt: the file is no index, or a damaged one. It will not get better.
	ErrCorrupt = errors.New("index is damaged")
	// ErrFull: the file system has no room for the change. Nothing was changed.
	ErrFull = errors.New("no room for the index")
	// ErrNewer: a later version of the program wrote this index.
	ErrNewer = errors.New("index has a newer format")
	// ErrNotFound: no such row.
	ErrNotFound = errors.New("not in the index")
)

// State is what the index remembers about its drive. Used and Objects are kept
// by the index itself, in the same transaction as the rows they sum up.
type State struct {
	Epoch   uint32 // number of starts, from 1
	Dirty   bool   // open now, or not closed cleanly
	Sweep   bool   // files without a row may exist
	NextID  int64  // every id below may have been given out; none at or above it
	Hand    int64  // eviction goes on behind this id
	Scrub   int64  // the background scrub goes on behind this id
	Used    int64  // sum of Row.Disk
	Objects int64  // number of rows
}

// Row is one object. The columns that filters and totals need lie open; what
// else the store knows of an object is in Meta, which the index does not read.
type Row struct {
	ID, Gen   int64
	Key       []byte
	URL       []byte // without the scheme: what a prefix is compared with
	Publisher []byte
	Size      int64 // bytes of the whole object
	Stored    int64 // bytes present
	Disk      int64 // bytes on disk, by blocks
	Chunks    int64 // chunks present
	Pinned    bool
	Created   int64 // Unix seconds
	Meta      []byte
}

// Segment is the state of neighbouring chunks of an object, as the store encodes it.
type Segment struct {
	ID, Seg int64
	Data    []byte
}

// Brief is as much of a row as eviction and purging need.
type Brief struct {
	ID     int64
	Key    []byte
	Stored int64
	Disk   int64
	Pinned bool
}

// Batch is a set of changes that become durable together. Rows are forgotten
// first, so that a new row may take the key of a forgotten one.
type Batch struct {
	Forget   []int64
	Gone     []int64 // set by Apply, for each of Forget: what Disk was, or -1 if there was no such row
	Rows     []Row
	Segments []Segment
	Hand     int64 // 0: as it was
	Scrub    int64 // 0: as it was
}

// Filter selects rows; its zero value selects all. What is set must all hold.
type Filter struct {
	Key       []byte // nil: any
	Prefix    []byte // of the URL without its scheme
	Publisher []byte
}

// classify joins err with the sentinel that says what it means for the drive.
// Errors that are none of these are trouble below: the device or its file system.
func classify(err error) error {
	var e *sqlite.Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	switch code := e.Code(); {
	case code == sqlite3.SQLITE_IOERR_SHORT_READ:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case code&0xff == sqlite3.SQLITE_FULL,
		code == sqlite3.SQLITE_IOERR_SHMSIZE: // shared memory is a file beside the index
		return fmt.Errorf("%w: %w", ErrFull, err)
	case code&0xff == sqlite3.SQLITE_CORRUPT, code&0xff == sqlite3.SQLITE_NOTADB,
		// The statements are fixed: one that does not compile or does not fit
		// its constraints met other tables than ours.
		code&0xff == sqlite3.SQLITE_ERROR, code&0xff == sqlite3.SQLITE_CONSTRAINT,
		code&0xff == sqlite3.SQLITE_MISMATCH, code&0xff == sqlite3.SQLITE_SCHEMA,
		code&0xff == sqlite3.SQLITE_TOOBIG:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// number reads a column that should hold an integer, whatever it holds: a
// damaged row must not stop the reading of the others.
type number int64

func (n *number) Scan(src any) error {
	v, ok := src.(int64)
	if !ok {
		v = -1
	}
	*n = number(v)
	return nil
}

// blob reads a column that should hold bytes, whatever it holds.
type blob []byte

func (b *blob) Scan(src any) error {
	switch v := src.(type) {
	case []byte:
		*b = append(blob{}, v...)
	case string:
		*b = append(blob{}, v...)
	default:
		*b = nil
	}
	return nil
}
