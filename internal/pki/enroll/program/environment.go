package program

import "os"

// Inherited are the variables of the node's environment that a command sees:
// what programs need to find their way, no more. Names are of every system.
func Inherited() []string {
	return []string{
		"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
		"SystemRoot", "SystemDrive", "windir", "ComSpec", "PATHEXT", "TEMP", "TMP", "USERPROFILE", "USERNAME",
		"APPDATA", "LOCALAPPDATA", "ProgramData", "ProgramFiles", "PSModulePath",
	}
}

// Environment has those of the Inherited variables that are set.
func Environment() []string {
	var env []string
	for _, name := range Inherited() {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
