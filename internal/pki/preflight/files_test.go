package preflight

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"larder/internal/lardertest"
	"larder/internal/pki/keys"
	"larder/internal/pki/livecert"
)

func TestFilesAreTriedAndRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, sub := range []string{"certs", "keys"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// What was written is to be seen by when the directories changed.
	long := time.Now().Add(-time.Hour)
	all := []string{dir, filepath.Join(dir, "certs"), filepath.Join(dir, "keys")}
	for _, d := range all {
		if err := os.Chtimes(d, long, long); err != nil {
			t.Fatal(err)
		}
	}
	want(t, filesCheck(quiet(t, Options{Dir: dir})), OK, dir+", "+all[1]+", "+all[2]+": can be written to", filepath.Join(dir, "logs"), "can be made")
	for _, d := range all {
		info, err := os.Stat(d)
		if err != nil {
			t.Fatal(err)
		}
		if !info.ModTime().After(long) {
			t.Errorf("%s: nothing was written there", d)
		}
		entries, err := os.ReadDir(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !e.IsDir() || e.Name() != "certs" && e.Name() != "keys" {
				t.Errorf("%s was left behind", filepath.Join(d, e.Name()))
			}
		}
	}
}

func TestFilesInTheWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "tls")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, filesCheck(quiet(t, Options{Dir: file})), Failed, file+" is a file, expected a directory", "move "+file+" away")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(file, "certs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(file, "keys"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, filesCheck(quiet(t, Options{Dir: file})), Failed, filepath.Join(file, "keys")+" is a file", filepath.Join(file, "certs")+": can be written to")
	want(t, filesCheck(Options{}), Failed, "no TLS directory is named", "tls.dir")
}

func TestFilesOpenToOthers(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing there")
	}
	dir := t.TempDir()
	pair := lardertest.NewCA(t).Leaf(t, "cache.example")
	pair.Install(t, dir, "node")
	key := filepath.Join(dir, "keys", "node.key")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, filesCheck(quiet(t, Options{Dir: dir})), Warning, key+" is a private key with permissions 0644", "chmod 600")
	if err := os.Chmod(filepath.Join(dir, "keys"), 0o777); err != nil {
		t.Fatal(err)
	}
	want(t, filesCheck(quiet(t, Options{Dir: dir})), Failed, filepath.Join(dir, "keys")+" can be written to by everybody", "chmod o-w")
}

func TestActiveCertificate(t *testing.T) {
	t.Parallel()
	ca := lardertest.NewCA(t)
	now := time.Now()
	for _, tt := range []struct {
		name    string
		dates   lardertest.LeafOptions
		install bool
		change  func(t *testing.T, dir string, n *NodeState)
		result  Result
		words   []string
	}{
		{name: "none", result: Info, words: []string{"none yet", "larder tls csr"}},
		{name: "none, but one is served", result: Warning, words: []string{"although the node serves one", "tls.dir"},
			change: func(_ *testing.T, _ string, n *NodeState) { *n = NodeState{Running: true, ServedSHA256: "aa"} }},
		{name: "good", install: true, dates: lardertest.LeafOptions{NotAfter: now.Add(100*24*time.Hour + time.Minute)}, result: OK, words: []string{"100 days left", "Test authority", "cache.example"}},
		{name: "near its end", install: true, dates: lardertest.LeafOptions{NotBefore: now.Add(-77 * 24 * time.Hour), NotAfter: now.Add(13 * 24 * time.Hour)}, result: Warning, words: []string{"12 days left", "larder tls renew"}},
		{name: "short life, fresh", install: true, dates: lardertest.LeafOptions{NotAfter: now.Add(24 * time.Hour)}, result: OK, words: []string{"less than a day left"}},
		{name: "last day", install: true, dates: lardertest.LeafOptions{NotBefore: now.Add(-89 * 24 * time.Hour), NotAfter: now.Add(time.Hour)}, result: Warning, words: []string{"less than a day left"}},
		{name: "ended", install: true, dates: lardertest.LeafOptions{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}, result: Failed, words: []string{"it has ended", "larder tls renew"}},
		{name: "not begun", install: true, dates: lardertest.LeafOptions{NotBefore: now.Add(time.Hour)}, result: Failed, words: []string{"it has not begun", "clock"}},
		{name: "another one is served", install: true, dates: lardertest.LeafOptions{NotAfter: now.Add(40*24*time.Hour + time.Minute)}, result: Warning, words: []string{"the node serves another one, SHA-256 " + sixtyFour("ab"), "larder tls show"},
			change: func(_ *testing.T, _ string, n *NodeState) {
				*n = NodeState{Running: true, ServedSHA256: sixtyFour("AB")}
			}},
		{name: "switched off", install: true, result: Info, words: []string{"HTTPS is switched off", "larder tls enable"},
			change: func(t *testing.T, dir string, _ *NodeState) {
				if err := livecert.WriteActive(dir, livecert.Active{Disabled: true}); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "the key is gone", install: true, result: Failed, words: []string{"node.key", "no such file", "larder tls import"},
			change: func(t *testing.T, dir string, _ *NodeState) {
				if err := os.Remove(filepath.Join(dir, "keys", "node.key")); err != nil {
					t.Fatal(err)
				}
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := quiet(t, Options{Dir: t.TempDir()}).withDefaults()
			if tt.install {
				ca.LeafWith(t, tt.dates, "cache.example").Install(t, o.Dir, "node")
			}
			if tt.change != nil {
				tt.change(t, o.Dir, &o.Node)
			}
			want(t, certificateCheck(o, readActive(o.Dir)), tt.result, tt.words...)
		})
	}
}

// sixtyFour is something like a SHA-256.
func sixtyFour(two string) (s string) {
	for range 32 {
		s += two
	}
	return s
}

func TestChain(t *testing.T) {
	t.Parallel()
	ca := lardertest.NewCA(t)
	o := quiet(t, Options{Dir: t.TempDir()}).withDefaults()
	want(t, chainCheck(o, readActive(o.Dir)), Skipped, "no certificate is active")
	ca.Leaf(t, "cache.example").Install(t, o.Dir, "node")
	want(t, chainCheck(o, readActive(o.Dir)), Info, "does not lead to a root that this machine trusts", "CN=Test authority")
	o.Roots = ca.Pool()
	want(t, chainCheck(o, readActive(o.Dir)), OK, "leads to CN=Test authority")
	o.Roots = lardertest.NewCA(t).Pool()
	want(t, chainCheck(o, readActive(o.Dir)), Failed, "does not lead to a root that was given", "import it again")
	// An ended one has its chain still.
	o.Roots = ca.Pool()
	ca.LeafWith(t, lardertest.LeafOptions{NotBefore: time.Now().Add(-30 * time.Minute), NotAfter: time.Now().Add(-time.Minute)}, "cache.example").Install(t, o.Dir, "node")
	want(t, chainCheck(o, readActive(o.Dir)), OK)
}

func TestKeysThatWait(t *testing.T) {
	t.Parallel()
	o := quiet(t, Options{Dir: t.TempDir()}).withDefaults()
	want(t, waitingCheck(o), OK, "none")
	lardertest.NewCA(t).Leaf(t, "cache.example").Install(t, o.Dir, "done")
	want(t, waitingCheck(o), OK, "none")
	for _, kind := range []string{keys.EC, keys.Ed448} {
		key, err := keys.Generate(kind, "")
		if err != nil {
			t.Fatal(err)
		}
		text, err := keys.MarshalPEM(key)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(o.Dir, "keys", kind+".key"), text)
	}
	write(t, filepath.Join(o.Dir, "certs", "EC.csr"), []byte("what is in it is of no matter here"))
	c := waitingCheck(o)
	want(t, c, Info, "EC: requested by "+filepath.Join(o.Dir, "certs", "EC.csr")+" (ECDSA P-256), no certificate yet", "larder tls import", "ED448: a key (Ed448) without request and certificate")
	write(t, filepath.Join(o.Dir, "keys", "broken.key"), []byte("-----BEGIN"))
	want(t, waitingCheck(o), Warning, "broken.key cannot be read: no private key in PEM")
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWhatToDoAboutWriting(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("it has other numbers for these")
	}
	for err, words := range map[error]string{
		&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}:  "make room on the file system of /d",
		&fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}:    "mount the file system of /d for writing",
		&fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission}: "run this as root",
		errors.New("of its own kind"):                               "see what is wrong with /d",
	} {
		if got := doWrite(err, "/d"); !strings.Contains(got, words) {
			t.Errorf("%v: %q, want %q", err, got, words)
		}
	}
}

// TestNamesOfForeignCertificates are written so that a terminal does not obey
// them.
func TestNamesOfForeignCertificates(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"":                        "nobody named",
		"CN=Größe,O=Example":      "CN=Größe,O=Example",
		"CN=\x1b[2Jgone\nOK: all": `"CN=\x1b[2Jgone\nOK: all"`,
	} {
		if got := distinguished(name); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
