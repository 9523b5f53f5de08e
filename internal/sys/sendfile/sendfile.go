// Package sendfile moves bytes of a file to a TCP connection without copying
// them through the process, where the system can.
//
// Unlike io.Copy, it takes the offset as an argument, so that many connections
// can be served from one open file at the same time.
package sendfile

import (
	"io"
	"net"
	"os"
	"sync"
)

// blockSize is what is read at once where the system has no sendfile.
const blockSize = 128 << 10

var blocks = sync.Pool{New: func() any { b := make([]byte, blockSize); return &b }}

// copyBlocks is Send by reading and writing.
func copyBlocks(dst net.Conn, src *os.File, off, n int64) (int64, error) {
	bp := blocks.Get().(*[]byte)
	defer blocks.Put(bp)
	var sent int64
	for sent < n {
		b := (*bp)[:min(int64(blockSize), n-sent)]
		k, err := src.ReadAt(b, off+sent)
		if k > 0 {
			w, werr := dst.Write(b[:k])
			sent += int64(w)
			if werr != nil {
				return sent, werr
			}
		}
		if err != nil && sent < n {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return sent, err
		}
	}
	return sent, nil
}
