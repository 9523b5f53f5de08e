//go:build unix

package main_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"larder/internal/lardertest"
)

// SIGHUP reads everything again that can change at run time: the access log's
// file, which something else has put aside, and the catalogue, of which a bad
// file leaves the old one in use and visible.
func TestHangupReadsFilesAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{yaml: lardertest.DefaultNodeConfig + "log: {access: \"$DIR/access.log\"}\n", plain: true})
	l.origin.Add("/a", 1000)
	access := filepath.Join(l.Dir, "access.log")
	read := func(name string) string {
		b, _ := os.ReadFile(name)
		return string(b)
	}
	l.get(t, "/a").wantContent(t, "/a", 1, 1000, 0, 1000)
	lardertest.Eventually(t, "the first line of the access log", func() bool { return strings.Contains(read(access), `"path":"/a"`) })

	if err := os.Rename(access, access+".aside"); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(l.Dir, "catalog.d", "bad.yaml")
	if err := os.WriteFile(bad, []byte("name: bad\nhosts: nowhere at all\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := l.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	lardertest.Eventually(t, "the mistake to be visible", func() bool {
		return l.Metric("larder_node_catalog_reload_success_info") == 0
	})
	lardertest.Eventually(t, "a new access log", func() bool { _, err := os.Stat(access); return err == nil })
	l.get(t, "/a?b").wantContent(t, "/a", 1, 1000, 0, 1000)
	lardertest.Eventually(t, "a line in the new access log", func() bool { return strings.Contains(read(access), `"path":"/a"`) })
	if status, text := l.Get("/api/larder/v1/status"); status != http.StatusOK || !strings.Contains(text, "bad.yaml:2") {
		t.Errorf("the status does not name the bad file: %d %s", status, text)
	}
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	if err := l.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	lardertest.Eventually(t, "the mistake to be gone", func() bool {
		return l.Metric("larder_node_catalog_reload_success_info") == 1
	})
}

// The limit of the configuration holds for what is fetched, and not for what
// is sent from the cache.
func TestBandwidthLimit(t *testing.T) {
	t.Parallel()
	const size, rate = 1_000_000, 1_000_000 // 8 Mbit/s: a second
	l := newLab(t, labOptions{yaml: lardertest.DefaultNodeConfig + "upstream: {limit: {rate: 8Mbit/s}}\n", plain: true})
	l.origin.Add("/limited", size)
	cold := l.get(t, "/limited")
	cold.wantContent(t, "/limited", 1, size, 0, size)
	if least := float64(size) / rate * 0.6; cold.whole.Seconds() < least {
		t.Errorf("%d bytes came in %s through a limit of %d bytes/s; want at least %.1f s", size, cold.whole, rate, least)
	}
	warm := l.get(t, "/limited")
	warm.wantContent(t, "/limited", 1, size, 0, size)
	if warm.whole > cold.whole/2 {
		t.Errorf("from the cache it took %s, with the fetch %s", warm.whole, cold.whole)
	}
}
