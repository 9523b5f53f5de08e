package accesslog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// full has every field.
var full = Record{
	Time:        time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.FixedZone("", 3600)),
	Remote:      netip.MustParseAddr("::ffff:192.0.2.1"),
	Method:      "GET",
	Scheme:      "https",
	Host:        "dl.example",
	Path:        "/files/a\"b",
	Query:       "P1=12345&x=1",
	Range:       "bytes=0-1",
	Status:      206,
	Bytes:       2,
	Duration:    1500*time.Millisecond + 7*time.Microsecond,
	TTFB:        42 * time.Microsecond,
	Publisher:   "windows-update",
	ContentType: "windows",
	CacheStatus: Hit,
	Upstream:    1 << 20,
	UserAgent:   "Microsoft-Delivery-Optimization/10.1",
	Err:         "Get \"https://h/?sig=abc\": refused",
}

const fullLine = `{"time":"2026-11-20T11:00:00.123Z","remote":"192.0.2.1","method":"GET","scheme":"https","host":"dl.example",` +
	`"path":"/files/a\"b","query":"P1=…&x=1","range":"bytes=0-1","status":206,"bytes":2,"duration_seconds":1.500007,"ttfb_seconds":0.000042,` +
	`"publisher":"windows-update","content_type":"windows","cache":"hit","upstream_bytes":1048576,` +
	`"user_agent":"Microsoft-Delivery-Optimization/10.1","error":"Get \"https://h/?sig=…\": refused"}` + "\n"

func open(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return l
}

func read(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

// counter reads a counter by its name and the value of its label, if it has
// one; -1 when it is not there.
func counter(g prometheus.Gatherer, name, label string) float64 {
	families, err := g.Gather()
	if err != nil {
		return -1
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

// dropped reads a counter of l, wherever it is registered.
func dropped(l *Log, reason string) float64 {
	reg := prometheus.NewRegistry()
	reg.MustRegister(l.metrics.dropped)
	return counter(reg, "larder_accesslog_dropped_records_total", reason)
}

func TestLine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "not", "yet", "access.log")
	l := open(t, Options{Path: path})
	l.Write(&full)
	l.Write(&Record{Duration: -time.Second})
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	want := fullLine + `{"time":"0001-01-01T00:00:00.000Z","status":0,"bytes":0,"duration_seconds":0.000000,"ttfb_seconds":0.000000,"upstream_bytes":0}` + "\n"
	if diff := cmp.Diff(want, read(t, path)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
}

func TestNilLogDropsEverything(t *testing.T) {
	t.Parallel()
	var l *Log
	l.Write(&full)
	if err := errors.Join(l.Flush(), l.Reopen(), l.Close()); err != nil {
		t.Error(err)
	}
}

// Lines go to the file by themselves, soon.
func TestLinesAreWrittenSoon(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			l.Write(&full)
			l.Write(&full)
			time.Sleep(linger)
			synctest.Wait()
		}
		if got := strings.Count(read(t, path), "\n"); got != 6 {
			t.Errorf("%d lines after the time lines may linger, want 6", got)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseWritesWhatIsPending(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	reg := prometheus.NewRegistry()
	l := open(t, Options{Path: path, Registerer: reg})
	l.Write(&full)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != fullLine {
		t.Errorf("got %q, want the line", got)
	}
	l.Write(&full)
	if err := errors.Join(l.Flush(), l.Reopen(), l.Close()); err != nil {
		t.Errorf("after Close: %v", err)
	}
	if got := dropped(l, "buffer"); got != 1 {
		t.Errorf("%v records dropped after Close, want 1", got)
	}
	if got := counter(reg, "larder_accesslog_written_bytes_total", ""); got != float64(len(fullLine)) {
		t.Errorf("%v bytes written, want %d", got, len(fullLine))
	}
	if got := counter(reg, "larder_accesslog_dropped_records_total", "buffer"); got != 1 {
		t.Errorf("%v records dropped in the registry, want 1", got)
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	size := int64(len(`{"time":"0001-01-01T00:00:00.000Z","status":1000,"bytes":0,"duration_seconds":0.000000,"ttfb_seconds":0.000000,"upstream_bytes":0}` + "\n"))
	l := open(t, Options{Path: path, MaxSize: 10*size + size/2, Keep: 2})
	const records = 47
	for i := range records {
		l.Write(&Record{Status: 1000 + i})
		if i%9 == 0 { // batches of other lengths than files
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	got := read(t, path+".2") + read(t, path+".1") + read(t, path)
	var want strings.Builder
	for i := 20; i < records; i++ { // of 10, 10, 10, 10 and 7 the last three files are kept
		fmt.Fprintf(&want, `{"time":"0001-01-01T00:00:00.000Z","status":%d,"bytes":0,"duration_seconds":0.000000,"ttfb_seconds":0.000000,"upstream_bytes":0}`+"\n", 1000+i)
	}
	if diff := cmp.Diff(want.String(), got); diff != "" {
		t.Errorf("files in order (-want +got):\n%s", diff)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 3 {
		t.Errorf("%v, %v; want three files", names, err)
	}
}

func TestRotationKeepsNone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	l := open(t, Options{Path: path, MaxSize: 1})
	for range 3 {
		l.Write(&full)
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != fullLine {
		t.Errorf("got %q, want one line: one does not fit, but must go somewhere", got)
	}
	if _, err := os.Stat(path + ".1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("access.log.1: %v, want none", err)
	}
}

// A file that cannot be put aside grows; nothing is lost, and it is said once.
func TestRotationThatFails(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	if err := os.MkdirAll(filepath.Join(path+".1", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	l := open(t, Options{Path: path, MaxSize: 1, Keep: 1, Log: slog.New(slog.NewTextHandler(&logged, nil))})
	for range 3 {
		l.Write(&full)
		if err := l.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, path); got != fullLine+fullLine+fullLine {
		t.Errorf("got %q, want three lines", got)
	}
	if err := os.RemoveAll(path + ".1"); err != nil {
		t.Fatal(err)
	}
	l.Write(&full)
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path+".1"); got != fullLine+fullLine+fullLine {
		t.Errorf("put aside: got %q, want three lines", got)
	}
	if fails, works := strings.Count(logged.String(), "cannot be put aside"), strings.Count(logged.String(), "put aside again"); fails != 1 || works != 1 {
		t.Errorf("said %d times that it fails and %d that it works, want once each: %s", fails, works, logged.String())
	}
}

// logrotate renames the file and sends a signal: what came before is in the
// old file, what comes after in the new.
func TestReopen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	l := open(t, Options{Path: path})
	l.Write(&Record{Status: 200})
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	l.Write(&Record{Status: 201})
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.Write(&Record{Status: 202})
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if old := read(t, path+".old"); strings.Count(old, "\n") != 2 || !strings.Contains(old, "201") {
		t.Errorf("old file: %q, want 200 and 201", old)
	}
	if now := read(t, path); strings.Count(now, "\n") != 1 || !strings.Contains(now, "202") {
		t.Errorf("new file: %q, want 202", now)
	}
}

func TestReopenThatFailsKeepsTheOldFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	path := filepath.Join(dir, "access.log")
	l := open(t, Options{Path: path})
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	l.Write(&full)
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir+".old", "access.log")); got != fullLine {
		t.Errorf("got %q, want the line in the old file", got)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Open(Options{Path: dir}); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a directory as the file: got %v, want an error with its name", err)
	}
}

// A disk that refuses loses records, which are counted, and the next line is
// whole again.
func TestFailingFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	var logged bytes.Buffer
	l := open(t, Options{Path: path, Log: slog.New(slog.NewTextHandler(&logged, nil))})
	if err := l.call(func() error { l.file.torn = true; return l.file.f.Close() }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l.Write(&full)
		l.Write(&full)
		if err := l.Flush(); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Flush: got %v, want fs.ErrClosed", err)
		}
	}
	if got := dropped(l, "file"); got != 4 {
		t.Errorf("%v records dropped, want 4", got)
	}
	if err := l.call(func() error { l.file.f = nil; return nil }); err != nil {
		t.Fatal(err)
	}
	l.Write(&full)
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "\n"+fullLine {
		t.Errorf("got %q, want a new line begun and the record", got)
	}
	if fails, works := strings.Count(logged.String(), "cannot be written"), strings.Count(logged.String(), "written again"); fails != 1 || works != 1 {
		t.Errorf("said %d times that it fails and %d that it works, want once each", fails, works)
	}
}

// While the disk hangs, requests go on: what does not fit is dropped at once.
func TestWriteNeverWaits(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	l := open(t, Options{Path: path})
	hanging, goOn := make(chan struct{}), make(chan struct{})
	called := make(chan error, 1)
	go func() { called <- l.call(func() error { close(hanging); <-goOn; return nil }) }()
	<-hanging
	big := Record{UserAgent: strings.Repeat("a", 64<<10)}
	const records = maxPending/(64<<10) + 10
	for range records {
		l.Write(&big) // would never return if it waited for the writer
	}
	close(goOn)
	if err := errors.Join(<-called, l.Flush()); err != nil {
		t.Fatal(err)
	}
	written := strings.Count(read(t, path), "\n")
	dropped := int(dropped(l, "buffer"))
	if written+dropped != records || dropped < 10 || written == 0 {
		t.Errorf("%d written and %d dropped of %d, want some of both and none lost", written, dropped, records)
	}
}

func TestManyWriters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	l := open(t, Options{Path: path, MaxSize: 100_000, Keep: 100})
	const writers, each = 8, 500
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				l.Write(&Record{Path: fmt.Sprintf("/%d/%d", w, i), Query: "sig=secret"})
			}
		})
	}
	wg.Wait()
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, name := range names {
		text := read(t, name)
		if len(text) > 100_000 {
			t.Errorf("%s has %d bytes", name, len(text))
		}
		s := bufio.NewScanner(strings.NewReader(text))
		for s.Scan() {
			var v struct{ Path, Query string }
			if err := json.Unmarshal(s.Bytes(), &v); err != nil || v.Query != "sig=…" {
				t.Fatalf("%v in %s", err, s.Text())
			}
			seen[v.Path] = true
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d records in the files, want %d", len(seen), writers*each)
	}
}

// Not parallel: AllocsPerRun counts the allocations of all goroutines.
func TestWriteAllocatesAtMostOnce(t *testing.T) {
	l := open(t, Options{Path: filepath.Join(t.TempDir(), "access.log")})
	for range 10000 { // grow the buffers
		l.Write(&full)
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(5000, func() { l.Write(&full) }); n > 1 {
		t.Errorf("%v allocations for a record, want at most 1", n)
	}
}

func BenchmarkWrite(b *testing.B) {
	l := open(b, Options{Path: filepath.Join(b.TempDir(), "access.log"), MaxSize: 100e6, Keep: 1})
	r := full
	r.Err = ""
	r.Query = "cacheHostOrigin=2.tlu.dl.delivery.mp.microsoft.com&P1=1700000000&P2=404&P3=2&P4=" + strings.Repeat("a", 170)
	b.ReportAllocs()
	for b.Loop() {
		l.Write(&r)
	}
	b.ReportMetric(dropped(l, "buffer")/float64(b.N), "dropped/op")
}

// Whatever bytes a client sends, the line is JSON that says the same as
// encoding/json would.
func FuzzLine(f *testing.F) {
	f.Add("GET", "/a\"\\\x00\x1f\x7f\u2028é\xff\xed\xa0\x80", "bytes=0-1", "agent\r\n", int64(5), int64(-1))
	f.Add("\xf0\x9f", "\xf0\x9f\x98\x80", "\xc3", "<>&", int64(0), int64(1)<<62)
	f.Fuzz(func(t *testing.T, method, path, rng, agent string, bytes, nanoseconds int64) {
		r := Record{Method: method, Path: path, Range: rng, UserAgent: agent, Bytes: bytes, Duration: time.Duration(nanoseconds)}
		b := new(line).appendRecord(nil, &r)
		if b[len(b)-1] != '\n' || strings.Count(string(b), "\n") != 1 {
			t.Fatalf("not one line: %q", b)
		}
		type fields struct {
			Method    string  `json:"method"`
			Path      string  `json:"path"`
			Range     string  `json:"range"`
			UserAgent string  `json:"user_agent"`
			Bytes     int64   `json:"bytes"`
			Duration  float64 `json:"duration_seconds"`
		}
		var got, want fields
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%v: %q", err, b)
		}
		std, err := json.Marshal(fields{method, path, rng, agent, bytes, float64(max(nanoseconds/1000, 0)) / 1e6})
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(std, &want); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}
