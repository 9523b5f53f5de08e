package preflight

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// asNobody holds, in the environment of a process without rights, what it is
// to look at.
const asNobody = "LARDER_PREFLIGHT_AS_NOBODY"

type nobodysOptions struct {
	Dir     string
	HTTPS   []string
	Running bool
}

// reportAsNobody is main of that process.
func reportAsNobody() {
	var n nobodysOptions
	if err := json.Unmarshal([]byte(os.Getenv(asNobody)), &n); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	o := Options{Dir: n.Dir, HTTPS: n.HTTPS, Port: 1, Node: NodeState{Running: n.Running}, machine: thisMachine(),
		Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }}
	checks := []Check{filesCheck(o)}
	for i := range n.HTTPS {
		checks = append(checks, portCheck(context.Background(), o, n.HTTPS[i], nil, newHolds()).check)
	}
	if err := json.NewEncoder(os.Stdout).Encode(checks); err != nil {
		os.Exit(1)
	}
}

// lookAsNobody looks as an account without rights does.
func lookAsNobody(t *testing.T, n nobodysOptions) []Check {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs setpriv")
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	text, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	// By its descriptor: the way to the binary may be closed to nobody.
	args := []string{"/proc/self/fd/3"}
	if os.Geteuid() == 0 {
		setpriv, err := exec.LookPath("setpriv")
		if err != nil {
			t.Skip("needs setpriv")
		}
		args = append([]string{setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = append(os.Environ(), asNobody+"="+string(text))
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("looking as nobody: %v", err)
	}
	var checks []Check
	if err := json.Unmarshal(out, &checks); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return checks
}

func TestPortThatNeedsAPrivilege(t *testing.T) {
	t.Parallel()
	if unprivilegedPort() < 2 {
		t.Skip("no port needs a privilege here")
	}
	if l, err := net.Listen("tcp", "127.0.0.1:1"); err == nil {
		l.Close()
	} else if os.Geteuid() == 0 {
		t.Skipf("port 1 is not free: %v", err)
	}
	n := nobodysOptions{Dir: "/", HTTPS: []string{"127.0.0.1:1"}}
	want(t, one(t, lookAsNobody(t, n), IDPort), Failed, "this account may not open it", "CAP_NET_BIND_SERVICE", "ip_unprivileged_port_start=1;")
	n.Running = true
	want(t, one(t, lookAsNobody(t, n), IDPort), Warning, "whether the node's may is not known")
}

// public is a directory that nobody can look into.
func public(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "preflight-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestDirectoryOfAnotherAccount(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs two accounts")
	}
	dir := public(t)
	c := lookAsNobody(t, nobodysOptions{Dir: dir})[0]
	want(t, c, Failed, dir+" cannot be written to: permission denied", "belongs to root, and this runs as", "certs", "cannot be made", "run this as root or as the account that owns "+dir)
	c = lookAsNobody(t, nobodysOptions{Dir: filepath.Join(dir, "not", "there")})[0]
	want(t, c, Failed, "cannot be made: "+dir+": permission denied")
	closed := filepath.Join(dir, "closed")
	if err := os.MkdirAll(filepath.Join(closed, "tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	c = lookAsNobody(t, nobodysOptions{Dir: filepath.Join(closed, "tls")})[0]
	want(t, c, Failed, "cannot be looked at: permission denied", "let this account use "+closed)
}

func TestDirectoriesOfTwoAccounts(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs two accounts")
	}
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	if err := os.Mkdir(keys, 0o700); err != nil {
		t.Fatal(err)
	}
	o := quiet(t, Options{Dir: dir})
	want(t, filesCheck(o), OK)
	if err := os.Chown(keys, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	want(t, filesCheck(o), Warning, keys+" belongs to", "and "+dir+" to root", "chown -R ACCOUNT "+dir)
	// All of it another's is how it is when root looks after a service.
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	want(t, filesCheck(o), OK)
	o.Node.Account = "root"
	want(t, filesCheck(o), Warning, "and the node runs as root", "chown -R root "+dir)
}
