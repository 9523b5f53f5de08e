package origin

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a connection to an origin, or through a proxy to it, with TLS done.
type conn struct {
	net.Conn
	silence time.Duration
	gone    func() // called once, at the first Close
	once    sync.Once

	// slashes is what the next write must be given besides what it holds.
	slashes atomic.Pointer[slashes]
}

// slashes says that a request target begins with more than one slash.
// http.Request cannot express that: it takes such a target for an authority.
// So all slashes but one are held back and put in here, into the request line
// of the request that was given this connection.
type slashes struct {
	line []byte // how the request line begins without them: "GET /"
	n    int
}

var errRequestLine = errors.New("the request line is not the one expected")

// Write fails if the peer takes nothing for the silence timeout.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	if s := c.slashes.Swap(nil); s != nil {
		rest, ok := bytes.CutPrefix(p, s.line)
		if !ok {
			return 0, errRequestLine // never ask for something else
		}
		full := make([]byte, 0, len(p)+s.n)
		full = append(full, s.line...)
		full = append(full, strings.Repeat("/", s.n)...)
		full = append(full, rest...)
		n, err := c.Conn.Write(full)
		return max(0, min(n-s.n, len(p))), err
	}
	return c.Conn.Write(p)
}

func (c *conn) Close() error {
	c.once.Do(c.gone)
	return c.Conn.Close()
}
