//go:build !windows

package config

func defaultState(func(string) string) string { return "/var/lib/larder/control" }
