// Package origin is the upstream server of the benchmarks: known bytes, strong validators and, for cold files, a thin line.
package origin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// LargeSize is the length in bytes of a large or a cold file.
	LargeSize = 64 << 20
	// SmallSize is the length in bytes of a small file.
	SmallSize = 4 << 10

	// slack is how far the line may lag behind and catch up: without it the time
	// between two writes of a lone connection would be lost, and 50 MB/s be 40.
	slack   = 5 * time.Millisecond
	portion = 32 << 10 // bytes that the thin line carries for one answer before it is another's turn
	step    = 4099     // bytes between the contents of neighbouring files: prime, so that no two agree at one place
)

// Small, Large and Cold are the paths of file n. Only cold files come through
// the thin line.
func Small(n int) string { return fmt.Sprintf("/small/%d.bin", n) }
func Large(n int) string { return fmt.Sprintf("/large/%d.bin", n) }
func Cold(n int) string  { return fmt.Sprintf("/cold/%d.bin", n) }

// Config says how thin the line of cold files is.
type Config struct {
	Rate  int64         // bytes per second for all cold answers together
	Delay time.Duration // before a cold answer starts
}

// Server is a running origin. Close ends it.
type Server struct {
	Addr string // host:port

	config Config
	slab   []byte
	server *http.Server
	done   chan struct{} // closed when Serve has returned

	cold atomic.Int64 // bytes of cold bodies handed to connections

	mu   sync.Mutex
	free time.Time // when the line will have carried what it was given; guarded by mu
}

// Start listens on a loopback port of the system's choice.
func Start(c Config) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{Addr: l.Addr().String(), config: c, slab: newSlab(LargeSize + 1<<20), done: make(chan struct{})}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(s.done)
		_ = s.server.Serve(l) // always http.ErrServerClosed: Close is the only way out
	}()
	return s, nil
}

// Close cuts all connections.
func (s *Server) Close() error {
	err := s.server.Close()
	<-s.done
	return err
}

// ColdBytes returns how many bytes of cold bodies were sent since the start.
func (s *Server) ColdBytes() int64 { return s.cold.Load() }

// Content returns what a path holds; the caller must not change it.
func (s *Server) Content(path string) ([]byte, error) {
	kind, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	n, err := strconv.Atoi(strings.TrimSuffix(rest, ".bin"))
	if err != nil || n < 0 {
		return nil, fmt.Errorf("no file %q", path)
	}
	from := n * step % (1 << 20)
	switch kind {
	case "small":
		return s.slab[from : from+SmallSize], nil
	case "large", "cold":
		return s.slab[from : from+LargeSize], nil
	}
	return nil, fmt.Errorf("no file %q", path)
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	content, err := s.Content(r.URL.Path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	body := &reader{content: content}
	if strings.HasPrefix(r.URL.Path, "/cold/") {
		if wait(r.Context(), time.Now().Add(s.config.Delay)) != nil {
			return
		}
		body.line, body.ctx = s, r.Context()
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("ETag", `"`+strings.NewReplacer("/", "-", ".bin", "").Replace(r.URL.Path)+`"`)
	http.ServeContent(w, r, "", time.Date(2026, 8, 4, 12, 0, 0, 0, time.UTC), body)
}

// take waits until the line has carried n more bytes: first come, first served.
func (s *Server) take(ctx context.Context, n int) error {
	s.mu.Lock()
	now := time.Now()
	if earliest := now.Add(-slack); s.free.Before(earliest) {
		s.free = earliest
	}
	s.free = s.free.Add(time.Duration(int64(n) * int64(time.Second) / s.config.Rate))
	until := s.free
	s.mu.Unlock()
	return wait(ctx, until)
}

func wait(ctx context.Context, until time.Time) error {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reader is the body of one answer.
type reader struct {
	content []byte
	at      int64
	line    *Server // nil: as fast as it goes
	ctx     context.Context
}

func (r *reader) Read(p []byte) (int, error) {
	if r.at >= int64(len(r.content)) {
		return 0, io.EOF
	}
	if r.line != nil {
		p = p[:min(len(p), portion)]
	}
	n := copy(p, r.content[r.at:])
	if r.line != nil {
		if err := r.line.take(r.ctx, n); err != nil {
			return 0, err
		}
		r.line.cold.Add(int64(n))
	}
	r.at += int64(n)
	return n, nil
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += int64(len(r.content))
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	r.at = offset
	return offset, nil
}

func newSlab(n int) []byte {
	b := make([]byte, n)
	r := rand.NewPCG(2026, 11)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}
