package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// pebbleEngine keeps three key spaces apart by their first byte: k (hash of
// key → id), o (id → row), s (id → segment).
type pebbleEngine struct {
	db   *pebble.DB
	sync *pebble.WriteOptions
}

// quiet drops pebble's reports of what it compacts.
type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

func openPebble(dir string, o options) (engine, error) {
	opts := &pebble.Options{CacheSize: 16 << 20, MemTableSize: 8 << 20, Logger: quiet{}, FormatMajorVersion: pebble.FormatNewest}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(dir, opts)
	if err != nil {
		return nil, err
	}
	e := &pebbleEngine{db: db, sync: pebble.NoSync}
	if o.Durable {
		e.sync = pebble.Sync
	}
	return e, nil
}

func pebbleKey(space byte, id uint64) []byte { return appendID([]byte{space}, id) }

func (e *pebbleEngine) Load(batch []object) error {
	b := e.db.NewBatch()
	for i := range batch {
		o := &batch[i]
		if err := errors.Join(
			b.Set(append([]byte{'k'}, hash128(o.Key)...), appendID(nil, o.ID), nil),
			b.Set(pebbleKey('o', o.ID), appendRow(nil, o), nil),
			b.Set(pebbleKey('s', o.ID), o.Segment, nil),
		); err != nil {
			return err
		}
	}
	return b.Commit(e.sync)
}

func (e *pebbleEngine) Update(batch []object) error {
	b := e.db.NewBatch()
	for i := range batch {
		if err := b.Set(pebbleKey('s', batch[i].ID), batch[i].Segment, nil); err != nil {
			return err
		}
	}
	return b.Commit(e.sync)
}

// get hands the value to use while it is valid.
func (e *pebbleEngine) get(key []byte, use func([]byte) error) (bool, error) {
	value, closer, err := e.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, errors.Join(use(value), closer.Close())
}

func (e *pebbleEngine) Lookup(key []byte) (o object, found bool, err error) {
	var id uint64
	found, err = e.get(append([]byte{'k'}, hash128(key)...), func(v []byte) error {
		id = binary.BigEndian.Uint64(v)
		return nil
	})
	if !found || err != nil {
		return object{}, false, err
	}
	if found, err = e.get(pebbleKey('o', id), func(v []byte) (err error) {
		o, err = parseRow(id, v)
		return err
	}); !found || err != nil {
		return object{}, false, errors.Join(err, io.ErrUnexpectedEOF)
	}
	if found, err = e.get(pebbleKey('s', id), func(v []byte) error {
		o.Segment = bytes.Clone(v)
		return nil
	}); !found || err != nil {
		return object{}, false, errors.Join(err, io.ErrUnexpectedEOF)
	}
	return o, bytes.Equal(o.Key, key), nil
}

func (e *pebbleEngine) Scan(after uint64, limit int) (ids []uint64, size int64, err error) {
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: pebbleKey('o', after+1), UpperBound: []byte{'o' + 1}})
	if err != nil {
		return nil, 0, err
	}
	for ok := it.First(); ok && len(ids) < limit; ok = it.Next() {
		ids = append(ids, binary.BigEndian.Uint64(it.Key()[1:]))
		size += int64(binary.BigEndian.Uint64(it.Value()))
	}
	return ids, size, errors.Join(it.Error(), it.Close())
}

func (e *pebbleEngine) Close() error { return errors.Join(e.db.Flush(), e.db.Close()) }
