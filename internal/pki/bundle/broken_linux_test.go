package bundle_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"larder/internal/pki/bundle"
)

// readFile is bundle.ReadFile as an account that permissions apply to, root
// or not.
func readFile(t *testing.T, path string, o bundle.Options) (b *bundle.Bundle, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its capabilities
		dropOverride(t)
		b, err = bundle.ReadFile(path, o)
	}()
	<-done
	return b, err
}

// dropOverride takes root's way past permissions from this thread.
func dropOverride(t *testing.T) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&h, &data[0]); err != nil {
		t.Error(err)
	}
	data[0].Effective &^= 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
	if err := unix.Capset(&h, &data[0]); err != nil {
		t.Error(err)
	}
}

func brokenByPermission(good func(*testing.T, string)) []broken {
	chmod := func(t *testing.T, path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	return []broken{
		{"no permission", func(t *testing.T, path string) {
			good(t, path)
			chmod(t, path, 0)
		}, bundle.Options{},
			"found a file that this account may not read (permission denied); expected the right to read it and to enter the directories above it; next: run as the account that may, or give it the right"},
		{"no permission for the directory", func(t *testing.T, path string) {
			good(t, path)
			other := filepath.Join(filepath.Dir(path), "closed")
			if err := os.Mkdir(other, 0); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(filepath.Dir(path), "path"), []byte(filepath.Join(other, "node.pem")), 0o600); err != nil {
				t.Fatal(err)
			}
		}, bundle.Options{},
			"found a file that this account may not read (permission denied); expected the right to read it and to enter the directories above it; next: run as the account that may, or give it the right"},
		{"no permission behind a link", func(t *testing.T, path string) {
			target := filepath.Join(filepath.Dir(path), "node.pem")
			good(t, target)
			chmod(t, target, 0)
			if err := os.Symlink("node.pem", path); err != nil {
				t.Fatal(err)
			}
		}, bundle.Options{},
			"found a symbolic link to node.pem that this account may not read (permission denied); expected the right to read it and to enter the directories above it; next: run as the account that may, or give it the right"},
	}
}
