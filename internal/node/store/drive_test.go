package store

import (
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"larder/internal/node/store/index"
)

func TestPlacementFollowsBudgets(t *testing.T) {
	t.Parallel()
	var ids [3][8]byte
	for i := range ids {
		_, _ = rand.Read(ids[i][:]) // never fails
	}
	all := []*volume{{id: hex.EncodeToString(ids[0][:])}, {id: hex.EncodeToString(ids[1][:])}, {id: hex.EncodeToString(ids[2][:])}}
	for i, n := range []int64{100, 300, 600} {
		all[i].budget.Store(n)
	}
	const n = 20000
	got := map[*volume]int{}
	moved := 0
	for i := range n {
		key := fmt.Sprintf("windows-update\n/file/%d.cab", i)
		first := ranked(all, key)[0]
		got[first]++
		if without := ranked(all[:2], key)[0]; first != all[2] && without != first {
			moved++
		}
	}
	for _, v := range all {
		if share, want := float64(got[v])/n, float64(v.budget.Load())/1000; math.Abs(share-want) > 0.015 {
			t.Errorf("drive %s gets %.3f, want %.3f", v.id, share, want)
		}
	}
	if moved != 0 {
		t.Errorf("%d keys moved between drives that stayed", moved)
	}
}

func TestDrivesAddedAndRemoved(t *testing.T) {
	t.Parallel()
	a, b := Drive{Path: t.TempDir(), Budget: 50 * mib}, Drive{Path: t.TempDir(), Budget: 100 * mib}
	o := Options{Reserve: 1, Drives: []Drive{a}}
	s := open(t, o)
	for i := range 20 {
		fill(t, s, fmt.Sprint(i), 100)
	}
	closeStore(t, s)
	o.Drives = []Drive{b, a} // another order, and a new one that most keys belong to now
	s = open(t, o)
	for i := range 20 {
		if get(t, s, fmt.Sprint(i)) != 1 {
			t.Fatalf("object %d is not found after a drive was added", i)
		}
	}
	for i := range 60 {
		fill(t, s, fmt.Sprint("new ", i), 100)
	}
	closeStore(t, s)
	o.Drives = []Drive{b}
	s = open(t, o)
	n := 0
	for i := range 60 {
		if get(t, s, fmt.Sprint("new ", i)) == 1 {
			n++
		}
	}
	for i := range 20 {
		fill(t, s, fmt.Sprint(i), 200) // newer generations of what is on the drive that is away
	}
	if n < 22 || n > 58 {
		t.Errorf("%d of 60 new objects went to the drive with two thirds of the weight", n)
	}
	closeStore(t, s)
	o.Drives = []Drive{a, b}
	s = open(t, o)
	for i := range 20 {
		o, err := s.Get(fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		if o.Meta().Size != 200 {
			t.Errorf("object %d: an older generation came back with its drive", i)
		}
		o.Release()
	}
	audit(t, s)
	if infos, err := s.List(Filter{Prefix: "host.example/new"}, "", 0); err != nil || len(infos) != 60 {
		t.Errorf("%d listed, %v", len(infos), err)
	}
}

// oneDrive makes a drive with one object in it and returns its directory.
func oneDrive(t *testing.T) string {
	dir := t.TempDir()
	s := open(t, options(dir, 100*mib))
	fill(t, s, "k", 1000)
	closeStore(t, s)
	return dir
}

func TestDrivesThatAreRefused(t *testing.T) {
	t.Parallel()
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*testing.T, string)
		id     string
		want   string
	}{
		"marker lost":    {remove(markerName), "", "found index.db but no larder.drive"},
		"index lost":     {remove(indexName), "", "found objects but no index.db"},
		"marker damaged": {write(markerName, "{"), "", "larder.drive is damaged"},
		"newer format":   {write(markerName, `{"format":2,"id":"x"}`), "", "found format 2, this program knows up to 1"},
		"another drive":  {func(*testing.T, string) {}, "other", "want other"},
		"newer index": {func(t *testing.T, dir string) {
			db, err := sql.Open("sqlite", filepath.Join(dir, indexName))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Exec("UPDATE state SET format = 7"); err != nil {
				t.Fatal(err)
			}
		}, "", "newer format: found version 7, this program knows up to 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := oneDrive(t)
			c.change(t, dir)
			o := options(dir, 100*mib)
			o.Drives[0].ID = c.id
			o.Drives = append(o.Drives, Drive{Path: t.TempDir(), Budget: 100 * mib})
			s := open(t, o)
			st := s.Drives()[0]
			if st.State != stateOut || !strings.Contains(st.Err, c.want) {
				t.Errorf("state %s: %q, want %q", st.State, st.Err, c.want)
			}
			fill(t, s, "k", 10) // the other one works
			closeStore(t, s)
			o.Drives = o.Drives[:1]
			if _, err := Open(t.Context(), o); !errors.Is(err, ErrNoDrive) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("alone: %v", err)
			}
			if objects, err := filepath.Glob(filepath.Join(dir, objectsName, "*", "*", "*")); err != nil || len(objects) != 1 {
				t.Errorf("the objects of the refused drive were touched: %v %v", objects, err)
			}
		})
	}
}

func TestADamagedIndexIsMovedAside(t *testing.T) {
	t.Parallel()
	dir := oneDrive(t)
	if err := os.WriteFile(filepath.Join(dir, indexName), []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	o := options(dir, 100*mib)
	s := open(t, o)
	if value(s.metrics.indexResets) != 1 {
		t.Error("not counted")
	}
	if get(t, s, "k") != -1 {
		t.Error("an object is there without its row")
	}
	fill(t, s, "k", 1000)
	if get(t, s, "k") != 1 {
		t.Error("the drive does not work")
	}
	eventually(t, "old objects removed, old index kept", func() bool {
		objects, err1 := filepath.Glob(filepath.Join(dir, "objects.bad-*"))
		indexes, err2 := filepath.Glob(filepath.Join(dir, "index.db.bad-*"))
		return err1 == nil && err2 == nil && len(objects) == 0 && len(indexes) == 1
	})
	closeStore(t, s)
	s = open(t, o)
	if get(t, s, "k") != 1 || value(s.metrics.indexResets) != 0 {
		t.Error("not there after another start")
	}
}

func TestARowOrFileThatMakesNoSenseLosesOneObject(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*testing.T, string, *index.SQLite){
		"file lost": func(t *testing.T, dir string, _ *index.SQLite) {
			if err := os.Remove(filepath.Join(objectDir(dir, 1), fmt.Sprintf("%016x", 1))); err != nil {
				t.Fatal(err)
			}
		},
		"meta damaged": func(t *testing.T, _ string, x *index.SQLite) {
			if err := x.Apply(&index.Batch{Rows: []index.Row{{ID: 1, Key: []byte("k"), Size: 1000, Meta: []byte("?"), Disk: 8192}}}); err != nil {
				t.Fatal(err)
			}
		},
		"segment damaged": func(t *testing.T, _ string, x *index.SQLite) {
			if err := x.Apply(&index.Batch{Hand: 1, Rows: nil, Segments: []index.Segment{{ID: 1, Seg: 0, Data: []byte{1}}}}); err != nil {
				t.Fatal(err)
			}
		},
		"segment too many": func(t *testing.T, _ string, x *index.SQLite) {
			if err := x.Apply(&index.Batch{Hand: 1, Segments: []index.Segment{{ID: 1, Seg: 9, Data: []byte{1}}}}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := oneDrive(t)
			x, err := index.Open(filepath.Join(dir, indexName))
			if err != nil {
				t.Fatal(err)
			}
			change(t, dir, x)
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
			s := open(t, options(dir, 100*mib))
			fill(t, s, "other", 1000)
			if got := get(t, s, "k"); got != -1 {
				t.Errorf("found with %d chunks", got)
			}
			if value(s.metrics.droppedRows) != 1 {
				t.Error("not counted")
			}
			audit(t, s)
			if st := s.Drives()[0]; st.Objects != 1 || st.Used != overhead+4096 || get(t, s, "other") != 1 {
				t.Errorf("after: %+v", st)
			}
		})
	}
}

func TestCheckNamesAllMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "ok"), link); err != nil {
		t.Skip(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "ok"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Check(options(filepath.Join(dir, "ok"), mib)); err != nil {
		t.Errorf("a good one: %v", err)
	}
	if err := Check(options(filepath.Join(dir, "not", "made", "yet"), mib)); err != nil {
		t.Errorf("a directory that Open will make: %v", err)
	}
	if err := Check(Options{}); err == nil || !strings.Contains(err.Error(), "drives: found none") {
		t.Errorf("no drives: %v", err)
	}
	err := Check(Options{Reserve: -1, Drives: []Drive{
		{Path: filepath.Join(dir, "ok"), Budget: 1 << 60},
		{Path: file, Budget: mib},
		{Path: filepath.Join(dir, "ok", "inside"), Budget: mib},
		{Path: link, Budget: mib},
		{Path: "", Budget: 0},
		{Path: dir, Budget: -5},
		{Path: filepath.Join(file, "below"), Budget: mib},
	}})
	if err == nil {
		t.Fatal("no mistakes found")
	}
	for _, want := range []string{
		"drives[0].size: found 1152921504.6 GB, expected at most the ",
		"drives[1].path: " + file + " is a file, expected a directory",
		"drives[2].path: found " + filepath.Join(dir, "ok", "inside") + ", which lies inside drives[0]",
		"drives[3].path: found " + link + ", which drives[0] has already",
		"drives[4].path: found nothing",
		"drives[4].size: found 0, expected more than 0",
		"drives[5].path: found " + dir + ", which contains drives[0]",
		"drives[5].size: found -5",
		"drives[6].path: ",
		"reserve: found -1",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not said: %s", want)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
	if _, err := Open(t.Context(), Options{Drives: []Drive{{Path: dir, Budget: mib}, {Path: dir, Budget: mib}}}); err == nil {
		t.Error("Open took one directory twice")
	}
}
