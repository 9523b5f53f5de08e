package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func make1(t *testing.T) (*SQLite, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a dir? with #odd%41 characters")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Skip(err) // a system that does not take them
	}
	path = filepath.Join(path, "index.db")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	x, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x, path
}

func row(id int64, key, publisher string, disk int64) Row {
	return Row{ID: id, Gen: id * 10, Key: []byte(key), URL: []byte("host/" + key), Publisher: []byte(publisher),
		Size: 100, Stored: 50, Disk: disk, Chunks: 1, Created: 5, Meta: []byte{1, 0, 2}}
}

func TestRowsTotalsAndState(t *testing.T) {
	t.Parallel()
	x, path := make1(t)
	first := State{Epoch: 1, NextID: 1}
	if st, err := x.State(); err != nil || st != first {
		t.Fatalf("%+v, %v", st, err)
	}
	a, b := row(1, "a\x00\xff", "p", 1000), row(2, "b", "q", 500)
	b.Pinned = true
	seg := Segment{ID: 1, Seg: 3, Data: []byte("data")}
	if err := x.Apply(&Batch{Rows: []Row{a, b}, Segments: []Segment{seg}, Hand: 4, Scrub: 6}); err != nil {
		t.Fatal(err)
	}
	if got, err := x.Get([]byte("a\x00\xff")); err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("%+v, %v; want %+v", got, err, a)
	}
	if got, err := x.Segments(1); err != nil || !reflect.DeepEqual(got, []Segment{seg}) {
		t.Errorf("%+v, %v", got, err)
	}
	if st, err := x.State(); err != nil || st != (State{Epoch: 1, NextID: 1, Hand: 4, Scrub: 6, Used: 1500, Objects: 2}) {
		t.Errorf("%+v, %v", st, err)
	}
	// A new row takes the key of a forgotten one, in one batch; another changes.
	b.Disk, b.Meta = 700, []byte("new")
	batch := &Batch{Forget: []int64{1, 77}, Rows: []Row{row(3, "a\x00\xff", "p", 1), b}}
	if err := x.Apply(batch); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(batch.Gone, []int64{1000, -1}) {
		t.Errorf("gone: %v", batch.Gone)
	}
	if got, err := x.Segments(1); err != nil || len(got) != 0 {
		t.Errorf("segments of a forgotten row: %v, %v", got, err)
	}
	if got, err := x.Get([]byte("b")); err != nil || !reflect.DeepEqual(got, b) {
		t.Errorf("%+v, %v; want %+v", got, err, b)
	}
	if err := x.Mark(State{Epoch: 9, Dirty: true, Sweep: true, NextID: 100}); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if st, err := x.State(); err != nil || st != (State{Epoch: 9, Dirty: true, Sweep: true, NextID: 100, Hand: 4, Scrub: 6, Used: 701, Objects: 2}) {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := x.Get([]byte("none")); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	for id, want := range map[int64]bool{1: false, 2: true, 3: true} {
		if rows, err := x.Scan(id-1, 1); err != nil || (len(rows) == 1 && rows[0].ID == id) != want {
			t.Errorf("row %d: %v, %v; there: want %v", id, rows, err, want)
		}
	}
}

func TestABatchIsAllOrNothing(t *testing.T) {
	t.Parallel()
	x, _ := make1(t)
	if err := x.Apply(&Batch{Rows: []Row{row(1, "a", "p", 10)}}); err != nil {
		t.Fatal(err)
	}
	// The second row's key is taken: nothing of the batch may stay.
	err := x.Apply(&Batch{Forget: []int64{5}, Rows: []Row{row(2, "b", "p", 10), row(3, "a", "p", 10)}})
	if err == nil {
		t.Fatal("took a key twice")
	}
	if _, err := x.Get([]byte("b")); !errors.Is(err, ErrNotFound) {
		t.Errorf("half a batch is there: %v", err)
	}
	if st, err := x.State(); err != nil || st.Objects != 1 || st.Used != 10 {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestFiltersAndPages(t *testing.T) {
	t.Parallel()
	x, _ := make1(t)
	var b Batch
	for i := range int64(20) {
		b.Rows = append(b.Rows, row(i+1, fmt.Sprintf("k%02d", 19-i), []string{"p", "q"}[i%2], 1))
	}
	b.Rows[3].URL = []byte("hos%_t/\xffä")
	if err := x.Apply(&b); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		f    Filter
		want int
	}{
		{Filter{}, 20},
		{Filter{Key: []byte("k05")}, 1},
		{Filter{Key: []byte{}}, 0},
		{Filter{Prefix: []byte("host/k1")}, 9}, // one has another URL
		{Filter{Prefix: []byte("hos%")}, 1},
		{Filter{Prefix: []byte("hos%_t/\xff")}, 1},
		{Filter{Prefix: []byte("HOST")}, 0},
		{Filter{Publisher: []byte("q")}, 10},
		{Filter{Publisher: []byte("q"), Prefix: []byte("host/k0")}, 5},
	} {
		var ids, keys int
		for after := int64(0); ; {
			page, err := x.Select(c.f, after, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			after = page[len(page)-1].ID
			ids += len(page)
		}
		for after := []byte(nil); ; {
			page, err := x.List(c.f, after, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			after = page[len(page)-1].Key
			keys += len(page)
		}
		if ids != c.want || keys != c.want {
			t.Errorf("%q %q %q: %d by id, %d by key, want %d", c.f.Key, c.f.Prefix, c.f.Publisher, ids, keys, c.want)
		}
	}
	rows, err := x.Scan(18, 10)
	if err != nil || len(rows) != 2 || rows[0].ID != 19 {
		t.Errorf("%v, %v", rows, err)
	}
}

func TestWhatIsNoIndexIsSaidToBeDamaged(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"empty": "", "text": "this is not a database, not at all, whatever its name says, and it is longer than a header of one hundred bytes"} {
		path := filepath.Join(t.TempDir(), "index.db")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if x, err := Open(path); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				x.Close()
			}
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
