package private

import "testing"

func TestSharedDirectories(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"/", "//", "/etc", "/etc/", "/var", "/var/lib/", "/var/lib/x/..", "/var/log", "/usr", "/home", "/home/alice", "/home/alice/", "/opt", "/srv", "/tmp", "/Users/alice", "/private/var",
		`C:\`, `c:`, `D:\`, `C:\ProgramData`, `c:\programdata\`, `C:/Windows`, `C:\Windows\System32`, `\\?\C:\Windows`, `C:\Users`, `C:\Users\alice`, `D:\Users\alice`,
	} {
		if !Shared(name) {
			t.Errorf("%s is not shared", name)
		}
	}
	for _, name := range []string{"/var/lib/larder", "/home/alice/tls", "/srv/larder", "/etc/larder", "/tmp/x", `C:\ProgramData\Larder`, `D:\Larder`, `C:\Users\alice\tls`, `\\server\share\larder`} {
		if Shared(name) {
			t.Errorf("%s is shared", name)
		}
	}
}
