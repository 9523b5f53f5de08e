package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func usage(path string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Space{}, err
	}
	unit := int64(st.Bsize)
	return Space{Total: int64(st.Blocks) * unit, Free: int64(st.Bavail) * unit, Block: unit}, nil
}

func punchHole(*os.File, int64, int64) error { return errors.ErrUnsupported }

// syncFS: sync(2) returns on macOS before the writes are done.
func syncFS(string) error { return errors.ErrUnsupported }
