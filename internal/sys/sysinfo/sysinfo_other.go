//go:build !linux && !windows

package sysinfo

func read(*Info) {}
