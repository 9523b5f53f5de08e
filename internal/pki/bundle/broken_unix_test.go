//go:build unix

package bundle_test

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"larder/internal/pki/bundle"
)

// brokenHere are the rows that need Unix.
func brokenHere(t *testing.T, good func(*testing.T, string)) []broken {
	t.Helper()
	link := func(target string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
		}
	}
	// named makes the file that names another path, see TestBroken.
	named := func(t *testing.T, path, other string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), "path"), []byte(other), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	none := bundle.Options{}
	rows := []broken{
		{"a pipe", func(t *testing.T, path string) {
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}, none,
			"found a pipe; expected a file; next: name the file itself"},
		{"a socket", func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, none,
			"found a socket; expected a file; next: name the file itself"},
		{"a device", func(t *testing.T, path string) { named(t, path, "/dev/null") }, none,
			"found a device; expected a file; next: name the file itself"},
		{"a link to what is not there", link("gone.pem"), none,
			"found a symbolic link to gone.pem (file does not exist); expected a file, or a symbolic link to one; next: make the link again, or name the file itself"},
		{"a link to itself", link("file"), none,
			"found a symbolic link to file that leads nowhere, such as in a circle (too many levels of symbolic links); expected a file, or a symbolic link to one; next: name the file itself"},
		{"a link to a directory", link("."), none,
			"found a directory; expected a file; next: name a file in it"},
		{"a path through a file", func(t *testing.T, path string) {
			good(t, path)
			named(t, path, filepath.Join(path, "node.pem"))
		}, none,
			"found a path that goes through something that is no directory; expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: check the path"},
		{"a path without its directory", func(t *testing.T, path string) {
			named(t, path, filepath.Join(filepath.Dir(path), "gone", "node.pem"))
		}, none,
			"found nothing, nor the directory DIR/gone (file does not exist); expected a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx); next: check the path"},
	}
	return append(rows, brokenByPermission(good)...)
}
