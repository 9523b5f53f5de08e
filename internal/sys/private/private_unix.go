//go:build unix

package private

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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
	if err := handOver(root, f.Chown); err != nil {
		return nil, errors.Join(err, f.Close(), root.Remove(base))
	}
	return f, nil
}

// handOver calls chown with the owner and group of a directory, if it is root
// who asks and the directory is not root's.
func handOver(dir *os.Root, chown func(uid, gid int) error) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := dir.Stat(".")
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	if owner.Uid == 0 && owner.Gid == 0 {
		return nil
	}
	return chown(int(owner.Uid), int(owner.Gid))
}

func mkdirAll(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
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
	root, err := os.OpenRoot(parent)
	if err != nil {
		return err
	}
	defer root.Close()
	switch err := root.Mkdir(base, 0o700); {
	case errors.Is(err, fs.ErrExist): // somebody else was faster
		return nil
	case err != nil:
		return err
	}
	return handOver(root, func(uid, gid int) error { return root.Lchown(base, uid, gid) })
}

func grantAccount(dir, account string) error {
	uid, gid, err := lookup(account)
	if err != nil {
		return err
	}
	if me := os.Geteuid(); me != 0 && me != uid {
		return fmt.Errorf("giving %s to %s: only root may do that: %w", dir, account, fs.ErrPermission)
	}
	if err := mkdirAll(dir); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := root.Lstat(name)
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		if info.Mode().IsRegular() && stat.Nlink > 1 {
			// It has a name elsewhere as well, and what it is there for is not known here.
			return fmt.Errorf("%s: found %d names for this file, expected one", filepath.Join(dir, name), stat.Nlink)
		}
		if int(stat.Uid) == uid && int(stat.Gid) == gid {
			return nil
		}
		return root.Lchown(name, uid, gid)
	})
	if err != nil {
		return fmt.Errorf("giving %s to %s: %w", dir, account, err)
	}
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	if perm := info.Mode().Perm(); perm&^0o750 != 0 {
		return root.Chmod(".", perm&0o750)
	}
	return nil
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
