package sysinfo

import (
	"runtime"
	"testing"
)

func TestOSRelease(t *testing.T) {
	t.Parallel()
	name, version := osRelease("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\n# VERSION_ID=13\nID=debian\n")
	if name != "Debian GNU/Linux" || version != "12" {
		t.Errorf("got %q %q", name, version)
	}
	if name, version := osRelease(""); name != "" || version != "" {
		t.Errorf("of nothing: got %q %q", name, version)
	}
}

func TestThisSystemIsKnown(t *testing.T) {
	t.Parallel()
	i := Read()
	if i.OS != runtime.GOOS || i.Arch != runtime.GOARCH || i.Hostname == "" {
		t.Errorf("got %+v", i)
	}
	if (runtime.GOOS == "linux" || runtime.GOOS == "windows") && i.Build == "" {
		t.Errorf("no build in %+v", i)
	}
}
