package firewall

import (
	"path/filepath"

	"golang.org/x/sys/windows"
)

// find takes programs from Windows' own directory only: this runs with the
// rights of an administrator, wherever PATH leads.
func find(program string) (string, error) {
	dir, err := windows.GetSystemDirectory()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, program+".exe"), nil
}
