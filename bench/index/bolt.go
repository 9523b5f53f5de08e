package main

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

type boltEngine struct{ db *bbolt.DB }

var (
	boltKeys     = []byte("key")     // hash of key → id
	boltObjects  = []byte("object")  // id → row
	boltSegments = []byte("segment") // id → segment
)

func openBolt(dir string, o options) (engine, error) {
	db, err := bbolt.Open(filepath.Join(dir, "index.bolt"), 0o600, &bbolt.Options{
		Timeout: time.Second, FreelistType: bbolt.FreelistMapType, NoSync: o.BoltNoSync && !o.Durable,
	})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{boltKeys, boltObjects, boltSegments} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	return &boltEngine{db}, err
}

func (e *boltEngine) Load(batch []object) error {
	return e.db.Update(func(tx *bbolt.Tx) error {
		keys, objects, segments := tx.Bucket(boltKeys), tx.Bucket(boltObjects), tx.Bucket(boltSegments)
		objects.FillPercent = 0.95 // ids only grow
		for i := range batch {
			o := &batch[i]
			id := appendID(nil, o.ID)
			if err := keys.Put(hash128(o.Key), id); err != nil {
				return err
			}
			if err := objects.Put(id, appendRow(nil, o)); err != nil {
				return err
			}
			if err := segments.Put(id, o.Segment); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *boltEngine) Update(batch []object) error {
	return e.db.Update(func(tx *bbolt.Tx) error {
		segments := tx.Bucket(boltSegments)
		for i := range batch {
			if err := segments.Put(appendID(nil, batch[i].ID), batch[i].Segment); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *boltEngine) Lookup(key []byte) (o object, found bool, err error) {
	err = e.db.View(func(tx *bbolt.Tx) error {
		id := tx.Bucket(boltKeys).Get(hash128(key))
		if id == nil {
			return nil
		}
		if o, err = parseRow(binary.BigEndian.Uint64(id), tx.Bucket(boltObjects).Get(id)); err != nil {
			return err
		}
		o.Segment = bytes.Clone(tx.Bucket(boltSegments).Get(id))
		found = bytes.Equal(o.Key, key)
		return nil
	})
	return o, found, err
}

func (e *boltEngine) Scan(after uint64, limit int) (ids []uint64, size int64, err error) {
	err = e.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(boltObjects).Cursor()
		for k, v := c.Seek(appendID(nil, after+1)); k != nil && len(ids) < limit; k, v = c.Next() {
			ids = append(ids, binary.BigEndian.Uint64(k))
			size += int64(binary.BigEndian.Uint64(v))
		}
		return nil
	})
	return ids, size, err
}

func (e *boltEngine) Close() error { return e.db.Close() }
