package sendfile

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func pair(t *testing.T) (server *net.TCPConn, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); s.Close() })
	return s.(*net.TCPConn), client
}

func file(t *testing.T, size int) (*os.File, []byte) {
	t.Helper()
	data := make([]byte, size)
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, data
}

// Many connections read different parts of one open file at once: the offset
// is an argument, not the file's.
func TestManyReadersOfOneFile(t *testing.T) {
	t.Parallel()
	f, data := file(t, 9<<20)
	var wg sync.WaitGroup
	for i := range 8 {
		server, client := pair(t)
		off, n := int64(i)*(1<<20)+int64(i), int64(1<<20)
		wg.Go(func() {
			sent, err := Send(server, f, off, n)
			if err != nil || sent != n {
				t.Errorf("Send = %d, %v; want %d, nil", sent, err, n)
			}
			server.Close()
		})
		wg.Go(func() {
			got, err := io.ReadAll(client)
			if err != nil || !bytes.Equal(got, data[off:off+n]) {
				t.Errorf("reader %d: %d bytes, %v; want bytes [%d, %d)", i, len(got), err, off, off+n)
			}
		})
	}
	wg.Wait()
}

func TestFileThatEndsEarly(t *testing.T) {
	t.Parallel()
	f, _ := file(t, 1000)
	server, client := pair(t)
	go io.Copy(io.Discard, client) // ends when the test closes the connection
	if sent, err := Send(server, f, 500, 1000); !errors.Is(err, io.ErrUnexpectedEOF) || sent != 500 {
		t.Errorf("Send past the end = %d, %v; want 500, unexpected EOF", sent, err)
	}
}

func TestWriteDeadline(t *testing.T) {
	t.Parallel()
	f, _ := file(t, 32<<20)
	server, _ := pair(t) // nobody reads
	server.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := Send(server, f, 0, 32<<20); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Send to a client that does not read: %v; want the deadline", err)
	}
}

func TestCopyBlocks(t *testing.T) {
	t.Parallel()
	f, data := file(t, 300_000)
	server, client := pair(t)
	go func() {
		defer server.Close()
		if n, err := copyBlocks(server, f, 7, 299_000); n != 299_000 || err != nil {
			t.Errorf("copyBlocks = %d, %v", n, err)
		}
	}()
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, data[7:299_007]) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}
