package ports

import (
	"os/user"
	"strconv"
)

// accountName is the name of a Unix account, or its number.
func accountName(uid uint32) string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		return u.Username
	}
	return unknownAccount(uid)
}
