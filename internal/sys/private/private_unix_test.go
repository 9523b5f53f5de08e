//go:build unix

package private

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func ownerOf(t *testing.T, name string) (uid, gid int) {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	return int(stat.Uid), int(stat.Gid)
}

func permOf(t *testing.T, name string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestModes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "f")
	if err := WriteFile(name, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if permOf(t, name) != 0o600 || permOf(t, dir) != 0o700 || permOf(t, filepath.Dir(dir)) != 0o700 {
		t.Errorf("modes %04o, %04o, %04o", permOf(t, name), permOf(t, dir), permOf(t, filepath.Dir(dir)))
	}
}

func TestLooseModes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	if err := WriteFile(name, nil); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[fs.FileMode]string{
		0o400: "", 0o600: "", 0o640: "", 0o700: "",
		0o644: "permissions 0644", 0o660: "permissions 0660", 0o604: "permissions 0604", 0o777: "permissions 0777", 0o601: "permissions 0601",
	} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if got, loose := Loose(name); got != want || loose != (want != "") {
			t.Errorf("%04o: %q, %v; want %q", mode, got, loose, want)
		}
	}
	for mode, want := range map[fs.FileMode]bool{0o700: false, 0o750: false, 0o755: true, 0o770: true} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if _, loose := Loose(dir); loose != want {
			t.Errorf("directory %04o: loose %v, want %v", mode, loose, want)
		}
	}
}

// What root writes where the service's account is at home is that account's.
func TestRootHandsOver(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := t.TempDir()
	const uid, gid = 12345, 12346
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(dir, "a", "b")
	if err := MkdirAll(below); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(below, "f")
	for range 2 {
		if err := WriteFile(name, []byte("x")); err != nil {
			t.Fatal(err)
		}
		// A file of root's own becomes the account's when it is replaced.
		if err := os.Chown(name, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteFile(name, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{filepath.Dir(below), below, name} {
		if u, g := ownerOf(t, n); u != uid || g != gid {
			t.Errorf("%s belongs to %d:%d, want %d:%d", n, u, g, uid, gid)
		}
	}
}

func TestGrantGivesAllOfIt(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("no account that everybody has")
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "tls")
	name := filepath.Join(dir, "keys", "node.key")
	if err := MkdirAll(filepath.Dir(name)); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(name, nil); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, account := range []string{"nobody", nobody.Uid} { // by name and by number
		if err := GrantAccount(dir, account); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{dir, filepath.Dir(name), name} {
		if u, _ := ownerOf(t, n); strconv.Itoa(u) != nobody.Uid {
			t.Errorf("%s belongs to %d", n, u)
		}
	}
	if u, _ := ownerOf(t, outside); u != 0 {
		t.Error("a file outside was given away through a link")
	}
	if permOf(t, dir) != 0o750 {
		t.Errorf("mode %04o, want others to be out", permOf(t, dir))
	}

	// A second name may lead anywhere: that file is not given away.
	if err := os.Link(outside, filepath.Join(dir, "second")); err != nil {
		t.Fatal(err)
	}
	if err := GrantAccount(dir, "nobody"); err == nil || !strings.Contains(err.Error(), "found 2 names for this file, expected one") {
		t.Errorf("a file with another name: %v", err)
	}
	if u, _ := ownerOf(t, outside); u != 0 {
		t.Error("a file with another name was given away")
	}
}

// The account that has a directory could put a link there that leads anywhere.
func TestGrantDoesNotGoThroughLinksOfOthers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	base := t.TempDir()
	theirs, secret := filepath.Join(base, "theirs"), filepath.Join(base, "secret")
	for _, dir := range []string{theirs, filepath.Join(secret, "below")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(secret, filepath.Join(theirs, "tls")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(theirs, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(theirs, "tls"), filepath.Join(theirs, "tls", "below"), filepath.Join(theirs, "tls", "new")} {
		if err := GrantAccount(dir, "nobody"); err == nil || !strings.Contains(err.Error(), theirs+"/tls: found a symbolic link where others than root may put one") {
			t.Errorf("%s: %v", dir, err)
		}
	}
	for _, dir := range []string{secret, filepath.Join(secret, "below")} {
		if u, _ := ownerOf(t, dir); u != 0 {
			t.Errorf("%s was given away", dir)
		}
	}

	// A link of root's where only root can put one is as good as a directory.
	link := filepath.Join(base, "link")
	if err := os.Symlink("theirs/../secret", link); err != nil {
		t.Fatal(err)
	}
	if err := GrantAccount(filepath.Join(link, "below"), "nobody"); err != nil {
		t.Fatal(err)
	}
	if u, _ := ownerOf(t, filepath.Join(secret, "below")); u == 0 {
		t.Error("not given")
	}
	if u, _ := ownerOf(t, secret); u != 0 {
		t.Error("given away with what is in it")
	}
}

// What a name leads to is asked as well.
func TestGrantOfSharedDirectories(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/usr/share", link); err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/etc", "/etc/", "/usr/../etc", link} {
		if err := GrantAccount(dir, me.Username); err == nil || !strings.Contains(err.Error(), "found a directory that others need") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// One who has a directory may change names in it at any time: what is given is
// what was looked at.
func TestGrantWhileNamesChange(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	base := t.TempDir()
	for _, d := range []string{base, filepath.Dir(base)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(base, "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(secret, 0o666); err != nil { // or the kernel may not let others give it a name
		t.Fatal(err)
	}
	dir := filepath.Join(base, "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := GrantAccount(dir, "nobody"); err != nil {
		t.Fatal(err)
	}
	uid, gid := ownerOf(t, dir)
	cmd := exec.Command("/bin/sh", "-c", "while :; do ln ../secret f; rm -f f; ln -s ../secret f; rm -f f; done 2>/dev/null")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		_ = GrantAccount(dir, "nobody")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if u, _ := ownerOf(t, secret); u != 0 {
		t.Error("a file outside was given away")
	}
	if u, _ := ownerOf(t, dir); u != uid || permOf(t, dir) != 0o700 {
		t.Errorf("the directory is left with %d, mode %04o", u, permOf(t, dir))
	}
}

func TestBelongsTo(t *testing.T) {
	t.Parallel()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if !BelongsTo(dir, me.Username) || BelongsTo(dir, "no such account") || BelongsTo(filepath.Join(dir, "none"), me.Username) {
		t.Error("the owner is not told from others")
	}
}

func TestOnlyRootGivesAway(t *testing.T) {
	t.Parallel()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "tls")
	if err := GrantAccount(dir, me.Username); err != nil {
		t.Errorf("to oneself: %v", err)
	}
	if os.Geteuid() == 0 {
		t.Skip("the rest is for others than root")
	}
	if err := GrantAccount(dir, "root"); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "only root may do that") {
		t.Errorf("to root: %v", err)
	}
}
