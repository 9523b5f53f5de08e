package disk

import (
	"errors"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"
)

const fsctlSetSparse = 0x900c4

func usage(path string) (Space, error) {
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return Space{}, err
	}
	var free, total, all uint64
	if err := windows.GetDiskFreeSpaceEx(p, &free, &total, &all); err != nil {
		return Space{}, err
	}
	return Space{Total: int64(total), Free: int64(free), Block: cluster(path)}, nil
}

// cluster returns the unit of allocation of the volume that holds path; 4096,
// NTFS's usual one, when the system does not tell.
func cluster(path string) int64 {
	const usual = 4096
	abs, err := filepath.Abs(path)
	if err != nil {
		return usual
	}
	p, err := windows.UTF16PtrFromString(abs)
	if err != nil {
		return usual
	}
	root := make([]uint16, windows.MAX_LONG_PATH)
	if err := windows.GetVolumePathName(p, &root[0], uint32(len(root))); err != nil {
		return usual
	}
	var sectors, bytes, free, total uint32
	ok, _, _ := getDiskFreeSpace.Call(uintptr(unsafe.Pointer(&root[0])),
		uintptr(unsafe.Pointer(&sectors)), uintptr(unsafe.Pointer(&bytes)),
		uintptr(unsafe.Pointer(&free)), uintptr(unsafe.Pointer(&total)))
	if ok == 0 || sectors == 0 || bytes == 0 {
		return usual
	}
	return int64(sectors) * int64(bytes)
}

var getDiskFreeSpace = windows.NewLazySystemDLL("kernel32.dll").NewProc("GetDiskFreeSpaceW")

// fileStandardInfo is FILE_STANDARD_INFO of the Windows API.
type fileStandardInfo struct {
	AllocationSize, EndOfFile int64
	Links                     uint32
	DeletePending, Directory  bool
}

func allocated(f *os.File) (int64, error) {
	var info fileStandardInfo
	err := windows.GetFileInformationByHandleEx(windows.Handle(f.Fd()), windows.FileStandardInfo,
		(*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	if err != nil {
		return 0, &os.PathError{Op: "GetFileInformationByHandleEx", Path: f.Name(), Err: err}
	}
	return info.AllocationSize, nil
}

func makeSparse(f *os.File) error {
	var n uint32
	err := windows.DeviceIoControl(windows.Handle(f.Fd()), fsctlSetSparse, nil, 0, nil, 0, &n, nil)
	if err != nil && !errors.Is(err, windows.ERROR_INVALID_FUNCTION) { // a file system without holes, such as FAT
		return &os.PathError{Op: "FSCTL_SET_SPARSE", Path: f.Name(), Err: err}
	}
	return nil
}

func punchHole(*os.File, int64, int64) error { return errors.ErrUnsupported }

func syncFS(string) error { return errors.ErrUnsupported }

func maxFiles() int { return 1 << 16 }

// lock takes a byte far behind the content: a locked region of a file cannot be
// read by others, and they are to read who holds it.
// noFollow has no counterpart: making links needs a right of its own.
const noFollow = 0

func lock(f *os.File, exclusive bool) error {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if exclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	at := &windows.Overlapped{OffsetHigh: 1 << 30}
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return ErrLocked
	}
	return err
}

func unlock(f *os.File) error {
	return windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, &windows.Overlapped{OffsetHigh: 1 << 30})
}

func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

func isReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }
