// Package runas runs a program with the rights of the account that a directory belongs to, for an administrator who must not lend it their own.
package runas

import "os/exec"

// Needed reports whether this process has more rights than the account that
// dir belongs to: what lies in dir may be that account's word, and must not be
// carried out with them.
func Needed(dir string) (bool, error) { return needed(dir) }

// Owner makes cmd run as the account that dir belongs to, with nothing of this
// process's rights but that of opening ports below 1024, and of its environment
// only where programs, time zone, proxies and roots are. Where the system
// cannot do that it is errors.ErrUnsupported.
func Owner(cmd *exec.Cmd, dir string) error { return owner(cmd, dir) }
