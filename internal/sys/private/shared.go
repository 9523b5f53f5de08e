package private

import (
	"path"
	"slices"
	"strings"
)

// shared are directories that others need, whatever they are given for.
var shared = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/lost+found", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/sbin", "/snap", "/srv", "/sys", "/tmp", "/usr", "/var",
	"/etc/ssl", "/etc/ssl/certs", "/etc/ssl/private", "/etc/pki", "/etc/pki/tls", "/etc/systemd", "/etc/systemd/system", "/run/lock",
	"/usr/bin", "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/local", "/usr/local/bin", "/usr/local/etc", "/usr/local/lib", "/usr/local/sbin", "/usr/sbin", "/usr/share",
	"/var/backups", "/var/cache", "/var/lib", "/var/local", "/var/log", "/var/mail", "/var/opt", "/var/run", "/var/spool", "/var/tmp", "/var/www",
	"/applications", "/library", "/private", "/private/etc", "/private/tmp", "/private/var", "/private/var/log", "/private/var/tmp", "/system", "/users", "/users/shared", "/volumes",
	"c:/windows", "c:/windows/system32", "c:/windows/temp", "c:/program files", "c:/program files (x86)", "c:/programdata", "c:/users",
	"c:/programdata/microsoft", "c:/programdata/microsoft/windows", "c:/$recycle.bin", "c:/system volume information",
}

// Shared says whether a path is a directory of the system or somebody's home,
// which is not given to one account whatever a configuration says. It goes by
// the name alone, in the form of either system: call it with the path that
// symbolic links lead to as well.
func Shared(name string) bool {
	p := strings.ToLower(name)
	windows := len(p) >= 2 && p[1] == ':' || strings.HasPrefix(p, `\\`)
	if windows {
		for _, prefix := range []string{`\\?\`, `\\.\`} {
			p = strings.TrimPrefix(p, prefix)
		}
		p = strings.ReplaceAll(p, `\`, "/")
	}
	p = path.Clean(p)
	drive, below, ok := strings.Cut(p, "/")
	switch {
	case windows && len(drive) == 2 && drive[1] == ':': // every drive has what the first may have
		if !ok || below == "" {
			return true
		}
		p = "c:/" + below
	case slices.Contains(shared, p):
		return true
	}
	return slices.Contains(shared, p) || slices.Contains([]string{"/home", "/users", "c:/users"}, path.Dir(p))
}
