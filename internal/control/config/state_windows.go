package config

import "path/filepath"

func defaultState(getenv func(string) string) string {
	dir := getenv("ProgramData")
	if dir == "" {
		dir = `C:\ProgramData`
	}
	return filepath.Join(dir, "Larder", "control")
}
