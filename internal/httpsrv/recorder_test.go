package httpsrv_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"larder/internal/httpsrv"
)

func TestRecorderKeepsTheFastWay(t *testing.T) {
	t.Parallel()
	rec := any(&httpsrv.Recorder{})
	if _, ok := rec.(io.ReaderFrom); !ok {
		t.Error("Recorder hides ReadFrom: files would no longer go through sendfile")
	}
	if _, ok := rec.(interface{ Unwrap() http.ResponseWriter }); !ok {
		t.Error("Recorder hides Unwrap: no deadlines could be set")
	}
	if _, ok := rec.(http.Flusher); !ok {
		t.Error("Recorder hides Flush")
	}
}

// countingConn counts what reaches the connection by ReadFrom, the door to
// sendfile.
type countingConn struct {
	*net.TCPConn
	bytes *atomic.Int64
}

func (c countingConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	c.bytes.Add(n)
	return n, err
}

type countingListener struct {
	net.Listener
	bytes *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c.(*net.TCPConn), l.bytes}, nil
}

func TestFilesReachTheConnectionAsFiles(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	var rec *httpsrv.Recorder
	done := make(chan struct{})
	var sent atomic.Int64
	srv := httptest.NewUnstartedServer(httpsrv.Handle(nil, func(w http.ResponseWriter, r *http.Request) error {
		defer close(done)
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		rec = w.(*httpsrv.Recorder)
		w.Header().Set("Content-Length", strconv.Itoa(size)) // else chunked, which no file can be
		_, err = io.CopyN(w, f, size)
		return err
	}))
	srv.Listener = countingListener{srv.Listener, &sent}
	srv.Start()
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
		t.Fatalf("read %d bytes, %v; want %d", n, err, size)
	}
	<-done
	if rec.Status != 200 || rec.Bytes != size {
		t.Errorf("recorded %d, %d bytes; want 200, %d", rec.Status, rec.Bytes, size)
	}
	// The first 512 bytes go through Write, for the content type.
	if sent.Load() < size-512 {
		t.Errorf("%d bytes reached the connection as a file, want about %d", sent.Load(), size)
	}
}

func TestRecorderNotes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		do     func(w *httpsrv.Recorder)
		status int
		bytes  int64
	}{
		{"nothing", func(*httpsrv.Recorder) {}, 0, 0},
		{"write", func(w *httpsrv.Recorder) { _, _ = w.Write([]byte("abc")) }, 200, 3},
		{"first status", func(w *httpsrv.Recorder) { w.WriteHeader(404); w.WriteHeader(500) }, 404, 0},
		{"1xx is not the head", func(w *httpsrv.Recorder) { w.WriteHeader(103); w.WriteHeader(206) }, 206, 0},
		{"101 is", func(w *httpsrv.Recorder) { w.WriteHeader(101) }, 101, 0},
		{"flush", func(w *httpsrv.Recorder) { w.Flush() }, 200, 0},
		{"a writer without ReadFrom", func(w *httpsrv.Recorder) { _, _ = w.ReadFrom(strings.NewReader("abcd")) }, 200, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			under := httptest.NewRecorder()
			rec := httpsrv.NewRecorder(under)
			tt.do(rec)
			if rec.Status != tt.status || rec.Bytes != tt.bytes {
				t.Errorf("got %d, %d bytes; want %d, %d", rec.Status, rec.Bytes, tt.status, tt.bytes)
			}
			if int64(under.Body.Len()) != tt.bytes {
				t.Errorf("%d bytes arrived, want %d", under.Body.Len(), tt.bytes)
			}
		})
	}
}
