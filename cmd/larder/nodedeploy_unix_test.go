//go:build unix

package main

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"testing"
)

// What is advised is enough, whoever owned the configuration before.
func TestAdviceLetsTheAccountRead(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("no account that everybody has")
	}
	top := t.TempDir()
	if err := os.Chmod(filepath.Dir(top), 0o755); err != nil { // which is the test's own
		t.Fatal(err)
	}
	dir := filepath.Join(top, "it's")
	name := filepath.Join(dir, "node.yaml")
	for _, c := range []struct {
		dir, file os.FileMode
		gid       int
		steps     int
	}{
		{0o750, 0o640, 12345, 2}, {0o700, 0o600, 0, 2}, {0o755, 0o600, 12345, 1}, {0o750, 0o644, 12345, 1}, {0o755, 0o644, 0, 0},
	} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for n, mode := range map[string]os.FileMode{dir: c.dir, name: c.file} {
			if err := os.Chown(n, 0, c.gid); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(n, mode); err != nil {
				t.Fatal(err)
			}
		}
		g, err := user.LookupGroupId(u.Gid)
		if err != nil {
			t.Skip(err)
		}
		d := deployment{config: name, group: g.Name, closed: closedTo(u, name)}
		steps := d.advice("nobody")
		if len(steps) != c.steps {
			t.Errorf("%+v: %+v", c, steps)
		}
		for _, s := range steps {
			if out, err := exec.Command("sh", "-c", s.command).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", s.command, err, out)
			}
		}
		if closed := closedTo(u, name); len(closed) != 0 {
			t.Errorf("%+v: after %+v nobody may still not use %q", c, steps, closed)
		}
	}
	// Nobody's business: somebody's home is not opened.
	d := deployment{config: "/root/node.yaml", closed: []string{"/root"}}
	if steps := d.advice("nobody"); len(steps) != 1 || steps[0].command != "mv /root/node.yaml /etc/larder/node.yaml && larder node deploy" {
		t.Errorf("%+v", steps)
	}
}

// The machine is asked for what the plan goes by.
func TestLookAtDirectories(t *testing.T) {
	t.Parallel()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	real, link := filepath.Join(top, "real"), filepath.Join(top, "link")
	if err := os.MkdirAll(filepath.Join(real, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	d := linuxDeployment()
	d.account, d.cfg.State, d.cfg.TLS.Dir = me.Username, link, filepath.Join(top, "none")
	d.look()
	if f := d.there[link]; f.leads != real || !f.belongs || len(f.entries) != 1 || f.entries[0] != "x" || f.hidden {
		t.Errorf("%+v", f)
	}
	if f, there := d.there[d.cfg.TLS.Dir]; there {
		t.Errorf("what is not there: %+v", f)
	}
}
