//go:build unix

package livecert

import (
	"fmt"
	"os"
)

// looseMode is a warning if others than the owner and, for reading, the group
// have to do with the key, "" if not. It is no reason not to serve: the harm
// is done, and no HTTPS would not undo it.
func looseMode(keyFile string) string {
	info, err := os.Stat(keyFile)
	if err != nil || info.Mode().Perm()&^0o640 == 0 {
		return ""
	}
	return fmt.Sprintf("%s: found permissions %04o; expected 0600 or 0640; next: chmod 600, and a new key if others have an account here", at("key", keyFile), info.Mode().Perm())
}
