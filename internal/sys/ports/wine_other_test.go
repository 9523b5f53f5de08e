//go:build !windows

package ports

func wine() bool { return false }
