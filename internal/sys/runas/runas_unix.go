//go:build unix

package runas

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func needed(dir string) (bool, error) {
	if os.Geteuid() != 0 {
		return false, nil
	}
	uid, _, err := ids(dir)
	return uid != 0, err
}

func ids(dir string) (uid, gid uint32, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("the owner of %s: %w", dir, errors.ErrUnsupported)
	}
	return st.Uid, st.Gid, nil
}

func owner(cmd *exec.Cmd, dir string) error {
	uid, gid, err := ids(dir)
	if err != nil {
		return err
	}
	c := &syscall.Credential{Uid: uid, Gid: gid}
	home := "/"
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil { // one without a name has no groups either
		home = u.HomeDir
		groups, err := u.GroupIds()
		if err != nil {
			return err
		}
		for _, g := range groups {
			n, err := strconv.ParseUint(g, 10, 32)
			if err != nil {
				return err
			}
			c.Groups = append(c.Groups, uint32(n))
		}
	}
	cmd.Env = append(ours(os.Environ()), "HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c}
	lowPorts(cmd.SysProcAttr)
	return nil
}

// ours is what another account's program may see of this one's environment: an
// administrator's holds their tokens and agents.
func ours(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return !slices.Contains([]string{"PATH", "TZ", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"}, strings.ToUpper(name))
	})
}
