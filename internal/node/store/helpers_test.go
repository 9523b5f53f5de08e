package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const mib = 1 << 20

// options are those of a store with one drive of budget bytes in dir.
func options(dir string, budget int64) Options {
	return Options{Drives: []Drive{{Path: dir, Budget: budget}}, Reserve: 1, ripe: -1}
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// abandon stops the store as a kill would: what is not in the index is lost,
// nothing is marked as clean, the locks are gone.
func abandon(s *Store) {
	s.closed.Store(true)
	s.cancel()
	s.wg.Wait()
	for _, sl := range *s.slots.Load() {
		v := sl.vol.Load()
		if v == nil {
			continue
		}
		v.fail(stateFailed, errors.New("abandoned"))
		v.helpers.Wait()
		v.writer.Wait()
		v.ix.Close()
		v.lock.Unlock()
	}
	s.dropVolume(nil)
	s.metrics.close()
}

// content is what chunk i of generation gen of a key has: it can be checked
// without having been kept.
func content(key string, gen uint64, size, i int64) []byte {
	b := make([]byte, chunkLen(size, i))
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], hash(key))
	binary.LittleEndian.PutUint64(seed[8:], gen)
	binary.LittleEndian.PutUint64(seed[16:], uint64(i))
	rand.NewChaCha8(seed).Read(b)
	return b
}

func create(t testing.TB, s *Store, key string, size int64) *Object {
	t.Helper()
	o, err := s.Create(key, Meta{Publisher: "test", URL: "https://host.example/" + key, Status: 200, Size: size})
	if err != nil {
		t.Fatalf("create %s: %v", key, err)
	}
	return o
}

// put stores chunk i as content says.
func put(t testing.TB, o *Object, size, i int64) {
	t.Helper()
	if err := o.Put(i, content(o.Key(), o.Generation(), size, i)); err != nil {
		t.Fatalf("put %s %d: %v", o.Key(), i, err)
	}
}

// fill creates an object with all its chunks and releases it.
func fill(t testing.TB, s *Store, key string, size int64) {
	t.Helper()
	o := create(t, s, key, size)
	defer o.Release()
	for i := range o.Chunks() {
		put(t, o, size, i)
	}
}

// check compares every chunk that o says it has with what was put, and returns
// how many these are.
func check(o *Object) (int, error) {
	size, n := o.Meta().Size, 0
	for i := range o.Chunks() {
		if !o.Has(i) {
			continue
		}
		got, err := read(o, size, i)
		if err != nil {
			return n, err
		}
		if !bytes.Equal(got, content(o.Key(), o.Generation(), size, i)) {
			return n, fmt.Errorf("chunk %d of %s, generation %d, is not what was put", i, o.Key(), o.Generation())
		}
		n++
	}
	return n, nil
}

func read(o *Object, size, i int64) ([]byte, error) {
	f, err := o.File()
	if err != nil {
		return nil, err
	}
	b := make([]byte, chunkLen(size, i))
	_, err = io.ReadFull(io.NewSectionReader(f, i*ChunkSize, int64(len(b))), b)
	return b, err
}

// get gets an object, checks it and returns how many chunks it has; -1 if it
// is not there.
func get(t testing.TB, s *Store, key string) int {
	t.Helper()
	o, err := s.Get(key)
	if errors.Is(err, ErrNotFound) {
		return -1
	}
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	defer o.Release()
	o.Ask()
	n, err := check(o)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// eventually waits until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		<-tick.C
	}
}

func value(c prometheus.Metric) float64 {
	m := &dto.Metric{}
	if err := c.Write(m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}
