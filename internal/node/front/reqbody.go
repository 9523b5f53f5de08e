package front

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// readAhead is how much of a request body of known length the engine has taken
// from the connection before the handler is called.
const readAhead = 8 << 10

var errBodyOver = errors.New("front: request body read after the answer")

// requestBody is a request body as a handler reads it. Who sends it on may do
// so in the background and for longer than the answer lasts: then it gets an
// error, and never bytes of the next request.
type requestBody struct {
	c      *conn
	length int64       // -1: chunked
	whole  atomic.Bool // it was read to its end

	mu     sync.Mutex
	stream io.Reader // guarded by mu
	left   int64     // guarded by mu
	err    error     // guarded by mu
}

// Read never takes a body that broke off for a whole one.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read(p)
}

// read is Read with mu held.
func (b *requestBody) read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	n, err := b.stream.Read(p)
	if b.length >= 0 {
		b.left -= int64(n)
		switch {
		case b.left == 0:
			err = io.EOF
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
		}
	} else if err == io.EOF && b.c.eof {
		// The engine takes the end of the connection for the last chunk.
		err = io.ErrUnexpectedEOF
	}
	if err == io.EOF {
		b.whole.Store(true)
	}
	b.err = err
	return n, err
}

// settle reports whether nothing of the body is left on the connection.
func (b *requestBody) settle() bool {
	if b.whole.Load() {
		return true
	}
	if b.length < 0 || b.length > readAhead || !b.mu.TryLock() {
		return false
	}
	defer b.mu.Unlock()
	var buf [512]byte
	for b.err == nil {
		b.read(buf[:])
	}
	return b.whole.Load()
}

// end takes the body away from whoever still reads.
func (b *requestBody) end() {
	if b.whole.Load() {
		return
	}
	b.c.abort()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = errBodyOver
	}
	b.stream = nil
}
