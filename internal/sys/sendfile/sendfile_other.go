//go:build !linux

package sendfile

import (
	"net"
	"os"
)

// Send writes bytes [off, off+n) of src to dst and returns how many it wrote.
// The file's own offset is neither used nor moved.
func Send(dst *net.TCPConn, src *os.File, off, n int64) (int64, error) {
	return copyBlocks(dst, src, off, n)
}
