package sendfile

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// maxStep bounds one system call, so that a fast file and a fast client do not
// keep a thread in the kernel for long.
const maxStep = 4 << 20

// Send writes bytes [off, off+n) of src to dst and returns how many it wrote.
// The file's own offset is neither used nor moved. The connection's write
// deadline is respected. A file that ends early is io.ErrUnexpectedEOF; an
// error of the file is returned as *os.PathError.
func Send(dst *net.TCPConn, src *os.File, off, n int64) (int64, error) {
	rc, err := dst.SyscallConn()
	if err != nil {
		return copyBlocks(dst, src, off, n)
	}
	in := int(src.Fd())
	var sent int64
	var serr error
	unsupported := false
	err = rc.Write(func(fd uintptr) bool {
		for sent < n {
			at := off + sent
			k, err := unix.Sendfile(int(fd), in, &at, int(min(n-sent, maxStep)))
			if k > 0 {
				sent += int64(k)
				continue
			}
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return false // wait until the socket takes more
			case err == nil:
				serr = io.ErrUnexpectedEOF
				return true
			case sent == 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)):
				unsupported = true
				return true
			default:
				serr = err
				return true
			}
		}
		return true
	})
	runtime.KeepAlive(src) // in must stay open
	if unsupported {
		return copyBlocks(dst, src, off, n)
	}
	if serr == nil {
		serr = err
	}
	if errors.Is(serr, unix.EIO) {
		serr = &os.PathError{Op: "sendfile", Path: src.Name(), Err: serr}
	}
	return sent, serr
}
