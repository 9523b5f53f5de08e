package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func openEngine(t *testing.T, c candidate, dir string) engine {
	t.Helper()
	e, err := c.open(dir, options{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func closeEngine(t *testing.T, e engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// check looks at every object up to n: updated says which segments were replaced.
func check(t *testing.T, e engine, n uint64, updated map[uint64][]byte) {
	t.Helper()
	for id := uint64(1); id <= n; id++ {
		o, found, err := e.Lookup(key(id))
		if err != nil || !found {
			t.Fatalf("object %d: found %t, error %v", id, found, err)
		}
		want := newObject(id)
		if s, ok := updated[id]; ok {
			want.Segment = s
		}
		if o.ID != id || o.Size != want.Size || !bytes.Equal(o.Key, want.Key) || !bytes.Equal(o.Meta, want.Meta) || !bytes.Equal(o.Segment, want.Segment) {
			t.Fatalf("object %d is not what was stored", id)
		}
	}
	if _, found, err := e.Lookup(key(n + absent)); found || err != nil {
		t.Errorf("absent key: found %t, error %v", found, err)
	}
	ids, size, err := e.Scan(10, 5)
	if err != nil || !slices.Equal(ids, []uint64{11, 12, 13, 14, 15}) {
		t.Errorf("scan behind 10: %v, error %v", ids, err)
	}
	var want int64
	for _, id := range ids {
		want += newObject(id).Size
	}
	if size != want {
		t.Errorf("scan behind 10: %d bytes, expected %d", size, want)
	}
}

// TestEngines puts the same calls on every candidate: a figure of one that loses data says nothing.
func TestEngines(t *testing.T) {
	t.Parallel()
	for _, c := range candidates {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			e := openEngine(t, c, dir)
			for from := uint64(1); from <= 300; from += 100 {
				if err := e.Load(loadBatch(from, 100)); err != nil {
					t.Fatal(err)
				}
			}
			updated := map[uint64][]byte{7: segment(7, 9), 20: segment(20, 9)}
			if err := e.Update([]object{{ID: 7, Segment: updated[7]}, {ID: 20, Segment: updated[20]}}); err != nil {
				t.Fatal(err)
			}
			check(t, e, 300, updated)
			closeEngine(t, e)
			e = openEngine(t, c, dir)
			check(t, e, 300, updated)
			closeEngine(t, e)
		})
	}
}

// TestLogAfterKill cuts the log where a dying process may have left it.
func TestLogAfterKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := openEngine(t, *engineByName("log"), dir)
	if err := e.Load(loadBatch(1, 50)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "index.log")
	whole, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Update([]object{{ID: 1, Segment: segment(1, 1)}}); err != nil {
		t.Fatal(err)
	}
	// No Close: the tables were never saved, and the last record is torn.
	if err := os.Truncate(path, whole.Size()+10); err != nil {
		t.Fatal(err)
	}
	e = openEngine(t, *engineByName("log"), dir)
	check(t, e, 50, nil)
	closeEngine(t, e)
}

func TestKeysDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for n := uint64(1); n <= 10_000; n++ {
		k := string(key(n))
		if seen[k] {
			t.Fatalf("key %d comes twice: %q", n, k)
		}
		seen[k] = true
	}
	if n := len(key(1)); n < 110 || n > 130 {
		t.Errorf("a key has %d bytes: expected about 120", n)
	}
	if n := len(meta(1)); n < 380 || n > 440 {
		t.Errorf("a meta blob has %d bytes: expected about 400", n)
	}
}
