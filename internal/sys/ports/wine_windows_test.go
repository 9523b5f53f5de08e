package ports

import "golang.org/x/sys/windows"

// wine is true under Wine, which knows who listens but not, in version 8, by
// which process.
func wine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}
