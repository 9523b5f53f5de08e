// Package sysinfo says what system the process runs on.
package sysinfo

import (
	"os"
	"runtime"
	"strings"
	"sync"
)

// Info is a system, as far as it tells.
type Info struct {
	Hostname string
	OS, Arch string // as Go names them
	Edition  string // "Debian GNU/Linux", "Windows Server 2022 Datacenter"
	Release  string // "12", "21H2"
	Build    string // the kernel's or Windows' build
}

// Read returns what the system says of itself. All but the host's name is asked
// for once.
func Read() Info {
	i := once()
	i.Hostname, _ = os.Hostname()
	return i
}

var once = sync.OnceValue(func() Info {
	i := Info{OS: runtime.GOOS, Arch: runtime.GOARCH}
	read(&i)
	return i
})

// osRelease reads the file of os-release(5).
func osRelease(text string) (name, version string) {
	for line := range strings.Lines(text) {
		k, v, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		v = strings.Trim(v, `"'`)
		switch k {
		case "NAME":
			name = v
		case "VERSION_ID":
			version = v
		}
	}
	return name, version
}
