package certificates_test

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"larder/internal/lardertest"
)

const (
	inNamespace = "LARDER_TEST_IN_NETWORK_NAMESPACE"
	nobody      = 65534
	stranger    = 65533 // an account with which neither root nor the node has to do
)

// need skips a test unless it runs as root and these programs are there.
func need(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: a network name space, and other accounts")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: %v", p, err)
		}
	}
}

// The whole life of a certificate as it is meant on Linux: root gives orders,
// the node runs as an account without rights but for the one to open ports
// below 1024. It plays in a network name space, in which ports 80 and 443 are
// free.
func TestNodeWithoutPrivileges(t *testing.T) {
	t.Parallel()
	need(t, "setpriv", "unshare", "ip")
	if os.Getenv(inNamespace) != "" {
		withoutPrivileges(t)
		return
	}
	if out, err := exec.CommandContext(t.Context(), "unshare", "-n", "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Skipf("this machine has no network name spaces: %v: %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "-n", "sh", "-c", `ip link set lo up && exec "$0" "$@"`, self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1", "LARDER_BINARY="+lardertest.Binary(t))
	switch out, err := cmd.CombinedOutput(); {
	case err != nil:
		t.Errorf("%v:\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skip(string(out))
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Errorf("nothing was tested:\n%s", out)
	}
}

// publicDir is a directory that every account may go through, unlike
// t.TempDir.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "larder-unprivileged-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func command(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	return string(out), err
}

// giveTo gives a tree to an account.
func giveTo(t *testing.T, uid int, dir string) {
	t.Helper()
	if out, err := command(t, "chown", "-R", fmt.Sprintf("%d:%[1]d", uid), dir); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func as(uid int, more ...string) []string {
	return append([]string{fmt.Sprintf("--reuid=%d", uid), fmt.Sprintf("--regid=%d", uid), "--clear-groups", "--no-new-privs"}, more...)
}

// asNobody is a program that runs the node as nobody. It gives nobody what
// StartNode made in dir, and nothing below: what root wrote there later must be
// right as it is. words are more arguments of setpriv.
func asNobody(t *testing.T, dir, larder, name string, words ...string) string {
	t.Helper()
	file := filepath.Join(filepath.Dir(larder), name)
	script := fmt.Sprintf("#!/bin/sh\nset -e\ncd '%s'\nchown %d:%[2]d . node.yaml state drive catalog.d tls\nexec setpriv %s '%s' \"$@\"\n", dir, nobody, strings.Join(as(nobody, words...), " "), larder)
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

func withoutPrivileges(t *testing.T) {
	public := publicDir(t)
	larderFile := filepath.Join(public, "larder")
	if out, err := command(t, "install", "-m", "0755", lardertest.Binary(t), larderFile); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := &site{pki: newPKI(t)}
	home := filepath.Join(public, "node")
	yaml := fixedPorts(80, 443)
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}

	// Without the right the node says what it lacks.
	said, _ := lardertest.StartNodeFails(t, lardertest.NodeConfig{YAML: yaml, Dir: home, Binary: asNobody(t, home, larderFile, "powerless", "--bounding-set=-all", "--inh-caps=-all")})
	if !strings.Contains(said, "127.0.0.1:80") || !strings.Contains(said, "permission denied") || !strings.Contains(said, "CAP_NET_BIND_SERVICE") {
		t.Errorf("without the right to open port 80 the node said\n%s", said)
	}

	start := func() {
		t.Helper()
		s.Node = lardertest.StartNode(t, lardertest.NodeConfig{YAML: yaml, Dir: home,
			Binary: asNobody(t, home, larderFile, "capable", "--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service", "--bounding-set=-all,+net_bind_service")})
	}
	start()
	s.tls = filepath.Join(s.Dir, "tls")
	status := read(t, fmt.Sprintf("/proc/%d/status", s.PID()))
	for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534\n", "Gid:\t65534\t65534\t65534\t65534\n", "CapEff:\t0000000000000400\n", "CapBnd:\t0000000000000400\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(status, want) {
			t.Fatalf("the node is not what is to be tested, want %q:\n%s", want, status)
		}
	}

	// By hand, by root.
	csr := s.request(t, "node")
	s.ownedByNobody(t)
	chain := s.write(t, "node.crt", s.chain(t, s.sign(t, csr)))
	if r := must(t, "tls", "import", chain, "--dir", s.tls, "--root", s.path("root.pem")); !strings.Contains(r.stdout, "a handshake with the running node showed it") {
		t.Errorf("import: %s", r)
	}
	s.served(t)
	was := s.shown(t)
	if s.HTTPS != "127.0.0.1:443" {
		t.Errorf("HTTPS at %s, want port 443", s.HTTPS)
	}
	s.ownedByNobody(t)
	if r := larder(t, "tls", "preflight", "--config", s.config(), "--client-names", "127.0.0.1"); r.exit != 0 || !strings.Contains(r.stdout, "[ok] Files in "+s.tls) || !strings.Contains(r.stdout, "this node serves HTTPS here") {
		t.Errorf("preflight by root: %s", r)
	}

	// Without hands, by the node: what signs must be the node's to run.
	signing := filepath.Join(public, "pki")
	if out, err := command(t, "cp", "-r", s.pki.dir, signing); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.pki = &pki{dir: signing}
	run := s.signer(t, 20)
	giveTo(t, nobody, signing)
	if r := s.auto(t, "--sign-command", run, "--root", s.path("root.pem")); r.exit != 0 || !strings.Contains(r.stdout, "by command, next attempt on") {
		t.Fatalf("auto: %s", r)
	}
	s.ownedByNobody(t)
	got := s.shown(t)
	if r := must(t, "tls", "renew", "--dir", s.tls); got.Equal(was) || s.shown(t).Equal(got) || !strings.Contains(r.stdout, "showed it") {
		t.Errorf("renew: %s", r)
	}
	s.ownedByNobody(t)
	log := read(t, filepath.Join(s.tls, "logs", "audit.jsonl"))
	if !strings.Contains(log, `"by":"node"`) || !strings.Contains(log, `"by":"root"`) {
		t.Errorf("the audit file does not say who did what:\n%s", log)
	}

	// The node starts again with what root left.
	got = s.shown(t)
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	start()
	s.served(t)
	if !s.shown(t).Equal(got) {
		t.Error("another certificate after a start")
	}
	// So does it after root did everything while it was off.
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	// Where nobody cannot run the binary it is said, and not done as root.
	if r := larder(t, "tls", "renew", "--dir", s.tls); r.exit == 0 || !strings.Contains(r.stderr, "put larder where every account may run it") {
		t.Errorf("renew with a binary of root's: %s", r)
	}
	if r := call(t, "", larderFile, "tls", "renew", "--dir", s.tls); r.exit != 0 {
		t.Fatalf("renew with the node off: %s", r)
	}
	if log := read(t, filepath.Join(s.tls, "logs", "audit.jsonl")); !strings.HasPrefix(log[strings.LastIndex(strings.TrimSpace(log), `"by":`):], `"by":"nobody"`) {
		t.Errorf("root, with the node off, renewed as somebody else than its owner:\n%s", log)
	}
	s.ownedByNobody(t)
	start()
	s.served(t)
	if s.shown(t).Equal(got) {
		t.Error("not renewed while the node was off")
	}
	s.closedToStrangers(t, larderFile)
	if _, err := s.handshake(t, &tls.Config{RootCAs: s.roots(t), ServerName: "localhost"}); err != nil {
		t.Error(err)
	}
}

// ownedByNobody checks that everything in the TLS directory is the node's
// account's, and nobody else's to read.
func (s *site) ownedByNobody(t *testing.T) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(s.tls, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t)
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		} else {
			files++
		}
		if owner.Uid != nobody || owner.Gid != nobody || info.Mode().Perm() != want {
			t.Errorf("%s: account %d, group %d, %v; want %d, %[5]d, %[6]v", name, owner.Uid, owner.Gid, info.Mode(), nobody, want)
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Errorf("%d files, %v", files, err)
	}
}

// closedToStrangers checks that another account learns no key, even where
// somebody opened the directories to it.
func (s *site) closedToStrangers(t *testing.T, larderFile string) {
	t.Helper()
	ask := func(args ...string) (string, error) {
		t.Helper()
		return command(t, "setpriv", append(as(stranger), args...)...)
	}
	key := filepath.Join(s.tls, "keys", "node.key")
	if out, err := command(t, "setpriv", append(as(nobody), "cat", key)...); err != nil || !strings.Contains(out, "PRIVATE KEY") {
		t.Fatalf("the node's own account cannot read its key: %v: %s", err, out)
	}
	if out, err := ask("ls", s.tls); err == nil {
		t.Errorf("a stranger lists the directory: %s", out)
	}
	if out, err := ask(larderFile, "tls", "show", "--dir", s.tls); err == nil || !strings.Contains(out, "permission denied") || !strings.Contains(out, "run the command as the node's account or as an administrator") {
		t.Errorf("a stranger's show: %v: %s", err, out)
	} else if code := exitCode(err); code != 4 {
		t.Errorf("a stranger's show: exit code %d, want 4 (denied): %s", code, out)
	}
	for _, dir := range []string{s.Dir, s.tls, filepath.Join(s.tls, "keys"), filepath.Join(s.tls, "credentials")} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secrets, err := filepath.Glob(filepath.Join(s.tls, "keys", "*"))
	if err != nil || len(secrets) < 2 {
		t.Errorf("keys: %v, %v", secrets, err)
	}
	for _, file := range append(secrets, filepath.Join(s.tls, "auto.yaml")) {
		if out, err := ask("cat", file); err == nil || !strings.Contains(out, "Permission denied") {
			t.Errorf("a stranger reads %s: %v: %s", file, err, out)
		}
	}
}

func exitCode(err error) int {
	if ended, ok := err.(*exec.ExitError); ok {
		return ended.ExitCode()
	}
	return -1
}
