//go:build unix

package preflight

import (
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// owner is the account that a file belongs to.
func owner(info fs.FileInfo) (account string, known bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", false
	}
	return accountOf(int(st.Uid)), true
}

func currentAccount() string { return accountOf(os.Geteuid()) }

func accountOf(uid int) string {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return "user " + strconv.Itoa(uid) // of no name here, as in containers
	}
	return u.Username
}

// openToAll reports whether everybody may write to the directory.
func openToAll(info fs.FileInfo) bool { return info.Mode().Perm()&0o002 != 0 }
