package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"larder/internal/node/store/index"
)

// sample is a record with something in every field.
func sample() record {
	return record{id: 7, gen: 9, key: "p\n/k", pinned: true, created: time.Unix(5, 0), meta: Meta{
		Publisher: "p", ContentType: "updates", URL: "https://h/k", Status: 206, Size: 300 * mib, ETag: `"e"`, LastModified: "now",
		Header: []Field{{"A", "b"}, {"C", ""}}, Selecting: []Field{{"Accept-Language", "de"}, {"Foo", ""}}, RequestTime: time.Unix(1, 2), ResponseTime: time.Time{}}}
}

func rowOf(r *record) index.Row {
	return index.Row{ID: r.id, Gen: int64(r.gen), Key: []byte(r.key), Size: r.meta.Size, Pinned: r.pinned, Created: r.created.Unix(), Meta: encodeMeta(r)}
}

func TestMetaComesBackAsItWas(t *testing.T) {
	t.Parallel()
	want := sample()
	plain := sample()
	plain.meta.Selecting = nil
	for version, want := range map[byte]record{metaVersion: plain, metaVersionSelects: want} {
		row := rowOf(&want)
		got, err := decodeRow(&row)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(record{})); err != nil || diff != "" || row.Meta[0] != version {
			t.Errorf("version %d, want %d: %v %s", row.Meta[0], version, err, diff)
		}
	}
	for name, change := range map[string]func(*index.Row){
		"another id":         func(r *index.Row) { r.ID++ },
		"another generation": func(r *index.Row) { r.Gen++ },
		"another key":        func(r *index.Row) { r.Key = []byte("p\n/l") },
		"another size":       func(r *index.Row) { r.Size++ },
		"cut off":            func(r *index.Row) { r.Meta = r.Meta[:len(r.Meta)-1] },
		"a bit":              func(r *index.Row) { r.Meta[8] ^= 4 },
		"newer version":      func(r *index.Row) { r.Meta[0]++ },
		"nothing":            func(r *index.Row) { r.Meta = nil },
	} {
		row := rowOf(&want)
		change(&row)
		if _, err := decodeRow(&row); !errors.Is(err, errRow) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecodeMeta: whatever the bytes are, nothing panics, and what is accepted
// is sound. The checksum is made right, or the fuzzer would never get past it.
func FuzzDecodeMeta(f *testing.F) {
	r := sample()
	b := encodeMeta(&r)
	f.Add(b[:len(b)-4], int64(7), r.meta.Size)
	r.meta.Selecting = nil
	b = encodeMeta(&r)
	f.Add(b[:len(b)-4], int64(7), r.meta.Size)
	f.Add([]byte{metaVersion}, int64(1), int64(0))
	f.Fuzz(func(t *testing.T, body []byte, id, size int64) {
		row := index.Row{ID: id, Gen: 9, Key: []byte("k"), Size: size}
		sum := metaSum(body, id, 9, "k")
		row.Meta = append(bytes.Clone(body), byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
		got, err := decodeRow(&row)
		if err != nil {
			return
		}
		if got.meta.Size != size || size < 0 || size > maxSize {
			t.Fatalf("accepted size %d of a row with %d", got.meta.Size, size)
		}
		again := rowOf(&got)
		back, err := decodeRow(&again)
		if diff := cmp.Diff(got, back, cmp.AllowUnexported(record{})); err != nil || diff != "" {
			t.Fatalf("%v %s", err, diff)
		}
	})
}

// FuzzDecodeSegment is the same for the chunk table.
func FuzzDecodeSegment(f *testing.F) {
	s := &segment{sums: make([]uint32, 44)}
	s.present[0].Store(3)
	s.verified[0].Store(1)
	s.allocated[0] = 7
	b := encodeSegment(s, 7, 1, 3)
	f.Add(b[:len(b)-4], int64(1), int64(300))
	f.Fuzz(func(t *testing.T, body []byte, number, chunks int64) {
		if number < 0 || number >= segmentsOf(chunks) || chunks < 0 || chunks > chunksOf(maxSize) {
			return // what callers never ask
		}
		sum := segmentSum(body, 7, number)
		s, err := decodeSegment(append(bytes.Clone(body), byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)), 7, number, 3, chunks)
		if err != nil {
			return
		}
		n := min(segmentChunks, chunks-number*segmentChunks)
		if int64(len(s.sums)) != n {
			t.Fatalf("%d sums for %d chunks", len(s.sums), n)
		}
		for w := range words {
			p, v, a := s.present[w].Load(), s.verified[w].Load(), s.allocated[w]
			if a&^mask(n, w) != 0 || p&^a != 0 || v&^p != 0 {
				t.Fatalf("unsound: allocated %x present %x verified %x of %d", a, p, v, n)
			}
		}
		back, err := decodeSegment(encodeSegment(s, 7, number, 3), 7, number, 3, chunks)
		if err != nil || back.sums[0] != s.sums[0] || back.present[0].Load() != s.present[0].Load() {
			t.Fatalf("does not come back: %v", err)
		}
	})
}

// seedDrive makes a drive with a few objects and returns its index.
func seedDrive(f *testing.F, dir string) []byte {
	s := open(f, options(dir, 100*mib))
	for _, key := range []string{"a", "b", "c", "d"} {
		fill(f, s, key, 3000)
	}
	fill(f, s, "big", mib+5)
	closeStore(f, s)
	b, err := os.ReadFile(filepath.Join(dir, indexName))
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// FuzzOpenDamagedIndex opens a drive whose index was changed in three places and
// cut off: it must open, or say why not; whatever it then serves is right; and
// it must take new objects.
func FuzzOpenDamagedIndex(f *testing.F) {
	base := f.TempDir()
	good := seedDrive(f, base)
	f.Add(uint32(0), byte(1), uint32(20), byte(255), uint32(4096*2+30), byte(7), uint32(1<<31))
	f.Add(uint32(4096+100), byte(1), uint32(4096*3), byte(13), uint32(4096*5), byte(9), uint32(1<<31))
	f.Add(uint32(0), byte(0), uint32(0), byte(0), uint32(0), byte(0), uint32(5000))
	f.Fuzz(func(t *testing.T, at1 uint32, by1 byte, at2 uint32, by2 byte, at3 uint32, by3 byte, length uint32) {
		bad := bytes.Clone(good)
		for _, c := range []struct {
			at uint32
			by byte
		}{{at1, by1}, {at2, by2}, {at3, by3}} {
			bad[int(c.at)%len(bad)] ^= c.by
		}
		if int(length) < len(bad) {
			bad = bad[:length]
		}
		dir := t.TempDir()
		if err := os.CopyFS(filepath.Join(dir, objectsName), os.DirFS(filepath.Join(base, objectsName))); err != nil {
			t.Fatal(err)
		}
		marker, err := os.ReadFile(filepath.Join(base, markerName))
		if err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{markerName: marker, indexName: bad} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		serveWhatIsRight(t, dir)
	})
}

func serveWhatIsRight(t *testing.T, dir string) {
	o := options(dir, 100*mib)
	o.retry = time.Millisecond
	s, err := Open(context.Background(), o)
	if errors.Is(err, ErrNoDrive) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, key := range []string{"a", "b", "c", "d", "big", "none"} {
		x, err := s.Get(key)
		if err != nil {
			continue
		}
		if x.Key() != key {
			t.Fatalf("asked for %q, got %q", key, x.Key())
		}
		if _, err := check(x); err != nil {
			t.Fatal(err)
		}
		x.Release()
	}
	// A drive whose damage was met on the way is opened anew, and empty.
	eventually(t, "takes new objects", func() bool {
		x, err := s.Create("new", Meta{Size: 100})
		if err != nil {
			return s.Drives()[0].State == stateOut
		}
		defer x.Release()
		if err := x.Put(0, content("new", x.Generation(), 100, 0)); err != nil {
			return false
		}
		n, err := check(x)
		if err != nil {
			t.Fatal(err)
		}
		return n == 1
	})
}
