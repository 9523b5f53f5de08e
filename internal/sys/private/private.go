// Package private writes files that only one account and the administrators may read.
//
// That account is the one the service runs under. On Unix it owns the
// directory: what root writes there is handed to the directory's owner, so
// that an administrator's command and a node without root read the same files.
// On Windows the directory's access list names it (GrantAccount), and what is
// written there gets a list of its own that inherits nothing: SYSTEM and the
// administrators, and that account.
package private

import (
	"fmt"

	"larder/internal/sys/durable"
)

// WriteFile replaces name with data, as durable.WriteFile does, and nobody but
// the account of its directory and the administrators can read it at any
// moment, the temporary file included. Unix: mode 0600, and who writes as root
// gives the file to the owner and group of the directory.
func WriteFile(name string, data []byte) error {
	return durable.WriteFileBy(create, name, data, 0o600)
}

// MkdirAll makes dir and what is missing above it. What it makes is private to
// the account of the directory that was there (Unix: mode 0700, its owner and
// group if root asks). A directory that is there stays as it is.
func MkdirAll(dir string) error { return mkdirAll(dir) }

// GrantAccount makes dir and all that is in it private to account and the
// administrators. Windows: an access list that inherits nothing, for a local
// user (name, .\name), a domain account (DOMAIN\name, name@domain.example), a
// group managed one (DOMAIN\name$) or a service's (NT AUTHORITY\LocalService).
// Unix: a change of owner, which only root may do.
//
// It refuses directories that others need (Shared), and on Unix a path with a
// symbolic link that others than root can have put there. Links inside dir are
// not followed, and a file with a second name stays whose it is and is an error.
func GrantAccount(dir, account string) error {
	if Shared(dir) {
		return fmt.Errorf("giving %s to %s: %w", dir, account, errShared(dir))
	}
	return grantAccount(dir, account)
}

func errShared(dir string) error {
	return fmt.Errorf("%s: found a directory that others need, expected one for the node alone", dir)
}

// BelongsTo says whether a directory is an account's already: on Unix it owns
// it, on Windows the directory's list grants it as GrantAccount does.
func BelongsTo(dir, account string) bool { return belongsTo(dir, account) }

// Loose says whether others than one account and the administrators have to do
// with a file, and how: "permissions 0644", "access for Everyone". A group
// that may read (0640) is not loose. What cannot be looked at is not loose
// either: the one who reads it next will say so.
func Loose(name string) (found string, loose bool) { return looseAccess(name) }
