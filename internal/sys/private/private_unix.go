//go:build unix

package private

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// create is os.CreateTemp for the owner of dir. The directory is opened once
// and asked by its descriptor: it belongs to an account with fewer rights than
// root, which must not be able to put another one in its place half-way.
func create(dir, pattern string) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	base := strings.TrimSuffix(pattern, "*") + rand.Text()
	f, err := root.OpenFile(base, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	parent, err := root.Open(".")
	if err == nil {
		err = errors.Join(handOver(parent, f), parent.Close())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), root.Remove(base))
	}
	return f, nil
}

// handOver gives what was made in a directory to the directory's owner and
// group, if it is root who made it and the directory is not root's. Both are
// open: a name may lead elsewhere a moment later.
func handOver(dir, made *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var owner unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &owner); err != nil {
		return &fs.PathError{Op: "stat", Path: dir.Name(), Err: err}
	}
	if owner.Uid == 0 && owner.Gid == 0 {
		return nil
	}
	return made.Chown(int(owner.Uid), int(owner.Gid))
}

func mkdirAll(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return &fs.PathError{Op: "mkdir", Path: dir, Err: unix.ENOTDIR}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent, base := filepath.Split(filepath.Clean(dir))
	if parent == "" {
		parent = "."
	}
	if err := mkdirAll(filepath.Clean(parent)); err != nil {
		return err
	}
	in, err := os.OpenFile(parent, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	made, err := mkdirIn(in, base)
	if err != nil {
		return err
	}
	return made.Close()
}

// mkdirIn makes a directory in one that is open, and opens it. One that
// somebody else made meanwhile will do, and stays whose it is.
func mkdirIn(in *os.File, base string) (*os.File, error) {
	mkdirErr := unix.Mkdirat(int(in.Fd()), base, 0o700)
	if mkdirErr != nil && mkdirErr != unix.EEXIST {
		return nil, &fs.PathError{Op: "mkdir", Path: filepath.Join(in.Name(), base), Err: mkdirErr}
	}
	made, err := openIn(in, base, unix.O_DIRECTORY)
	if err != nil || mkdirErr == unix.EEXIST {
		return made, err
	}
	// Still what was made: whoever may write here can have moved another there.
	if names, err := made.Readdirnames(1); err != io.EOF || len(names) > 0 {
		return nil, errors.Join(fmt.Errorf("%s: found a directory with something in it, expected the one just made", made.Name()), made.Close())
	}
	if err := handOver(in, made); err != nil {
		return nil, errors.Join(err, made.Close())
	}
	return made, nil
}

// openIn opens what is called base in a directory, which must not be a link.
func openIn(in *os.File, base string, flags int) (*os.File, error) {
	name := filepath.Join(in.Name(), base)
	for {
		// Not blocking: it may have become a pipe.
		fd, err := unix.Openat(int(in.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|flags, 0)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case err != unix.EINTR:
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

// maxLinks is how many symbolic links a path may have.
const maxLinks = 40

// openTrusted opens a directory, and makes what is missing of its path. A
// symbolic link counts only where nobody but root and the caller can put one:
// elsewhere the owner of the directory that it lies in would choose what is
// opened. The name of what it returns has no links in it.
func openTrusted(dir string) (at *os.File, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if at, err = os.Open("/"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = at.Close()
		}
	}()
	step := func(next *os.File) { _, at = at.Close(), next }
	rest, links := strings.Split(abs, "/"), 0
	for len(rest) > 0 {
		base := rest[0]
		rest = rest[1:]
		if base == "" || base == "." {
			continue
		}
		var stat unix.Stat_t
		switch err := unix.Fstatat(int(at.Fd()), base, &stat, unix.AT_SYMLINK_NOFOLLOW); {
		case err == unix.ENOENT:
			made, err := mkdirIn(at, base)
			if err != nil {
				return at, err
			}
			step(made)
		case err != nil:
			return at, &fs.PathError{Op: "stat", Path: filepath.Join(at.Name(), base), Err: err}
		case stat.Mode&unix.S_IFMT == unix.S_IFLNK:
			target, err := readLink(at, base)
			if err != nil {
				return at, err
			}
			if links++; links > maxLinks {
				return at, &fs.PathError{Op: "open", Path: dir, Err: unix.ELOOP}
			}
			rest = append(strings.Split(target, "/"), rest...)
			if strings.HasPrefix(target, "/") {
				top, err := os.Open("/")
				if err != nil {
					return at, err
				}
				step(top)
			}
		default:
			// ".." of a link's target, too: the parent of what is open.
			next, err := openIn(at, base, unix.O_DIRECTORY)
			if err != nil {
				return at, err
			}
			step(next)
		}
	}
	return at, nil
}

// readLink is where a link leads, if it is one to go by.
func readLink(in *os.File, base string) (string, error) {
	name := filepath.Join(in.Name(), base)
	var dir unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &dir); err != nil {
		return "", &fs.PathError{Op: "stat", Path: in.Name(), Err: err}
	}
	if me := uint32(os.Geteuid()); dir.Uid != 0 && dir.Uid != me || dir.Mode&0o022 != 0 {
		return "", fmt.Errorf("%s: found a symbolic link where others than root may put one, expected a directory; next: give the path that it leads to", name)
	}
	buf := make([]byte, 4096) // the longest path there is
	n, err := unix.Readlinkat(int(in.Fd()), base, buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(buf[:n]), nil
}

func grantAccount(dir, account string) error {
	uid, gid, err := lookup(account)
	if err != nil {
		return err
	}
	if me := os.Geteuid(); me != 0 && me != uid {
		return fmt.Errorf("giving %s to %s: only root may do that: %w", dir, account, fs.ErrPermission)
	}
	top, err := openTrusted(dir)
	if err != nil {
		return fmt.Errorf("giving %s to %s: %w", dir, account, err)
	}
	defer top.Close()
	if Shared(top.Name()) {
		return fmt.Errorf("giving %s to %s: %w", dir, account, errShared(top.Name()))
	}
	if err := give(top, uid, gid); err != nil {
		return fmt.Errorf("giving %s to %s: %w", dir, account, err)
	}
	info, err := top.Stat()
	if err != nil {
		return err
	}
	if perm := info.Mode().Perm(); perm&^0o750 != 0 {
		return top.Chmod(perm & 0o750)
	}
	return nil
}

// give gives a directory and the files and directories in it away. Those who
// have the right to write there may change any name at any time, so what is
// given is what is open, and what that is was asked after opening it. Links and
// the like stay whose they are: who owns the directory may remove them.
func give(dir *os.File, uid, gid int) (err error) {
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	var failed []error
	var files []string
	for _, base := range names {
		mine, kind, err := lookAt(dir, base, uid, gid)
		switch {
		case err == nil && kind == unix.S_IFDIR:
			err = giveIn(dir, base, uid, gid)
		case err == nil && kind == unix.S_IFREG && !mine:
			files = append(files, base)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	if len(files) > 0 && os.Geteuid() == 0 {
		// Root's alone meanwhile. A file of somebody else's that was given a
		// second name here would be seen to have two, or only one if that name
		// could be taken away again just before it is counted.
		if err := errors.Join(dir.Chown(0, 0), dir.Chmod(0o700)); err != nil {
			return errors.Join(append(failed, err)...)
		}
		defer func() { err = errors.Join(err, dir.Chmod(info.Mode())) }()
	}
	for _, base := range files {
		if err := giveIn(dir, base, uid, gid); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	if os.Geteuid() == 0 {
		failed = append(failed, dir.Chown(uid, gid))
	}
	return errors.Join(failed...)
}

// lookAt says what a name in a directory is, and whether it is given already.
func lookAt(dir *os.File, base string, uid, gid int) (mine bool, kind uint32, err error) {
	var stat unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), base, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, 0, &fs.PathError{Op: "stat", Path: filepath.Join(dir.Name(), base), Err: err}
	}
	return int(stat.Uid) == uid && int(stat.Gid) == gid, uint32(stat.Mode) & unix.S_IFMT, nil
}

func giveIn(dir *os.File, base string, uid, gid int) error {
	f, err := openIn(dir, base, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	switch {
	case stat.Mode&unix.S_IFMT == unix.S_IFDIR:
		return give(f, uid, gid)
	case stat.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil
	case stat.Nlink > 1:
		// It has a name elsewhere as well, and what it is there for is not known here.
		return fmt.Errorf("%s: found %d names for this file, expected one; it was left as it is", f.Name(), stat.Nlink)
	}
	return f.Chown(uid, gid)
}

// belongsTo goes by the owner.
func belongsTo(dir, account string) bool {
	uid, _, err := lookup(account)
	if err != nil {
		return false
	}
	var stat unix.Stat_t
	return unix.Stat(dir, &stat) == nil && int(stat.Uid) == uid
}

// lookup finds an account by its name or number.
func lookup(account string) (uid, gid int, err error) {
	u, err := user.Lookup(account)
	if err != nil {
		byNumber, numberErr := user.LookupId(account)
		if numberErr != nil {
			return 0, 0, fmt.Errorf("account: found %q, expected the name of an account of this machine: %w", account, err)
		}
		u = byNumber
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, err
}

func looseAccess(name string) (string, bool) {
	info, err := os.Stat(name)
	if err != nil {
		return "", false
	}
	allowed := fs.FileMode(0o640)
	if info.IsDir() {
		allowed = 0o750
	}
	perm := info.Mode().Perm()
	if perm&^allowed&0o077 == 0 {
		return "", false
	}
	return fmt.Sprintf("permissions %04o", perm), true
}
