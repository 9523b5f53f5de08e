package preflight

import "io/fs"

// Who owns a directory on Windows and who may write to it is in its access
// list, which the mode does not show: internal/sys/private looks after that.

func owner(fs.FileInfo) (account string, known bool) { return "", false }

func currentAccount() string { return "" }

func openToAll(fs.FileInfo) bool { return false }
