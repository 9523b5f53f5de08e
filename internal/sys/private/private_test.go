package private

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// tempDir is t.TempDir for Wine as well, under which os.RemoveAll fails.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "private")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var names []string
		_ = filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
			names = append(names, name)
			return err
		})
		for i := range names {
			if err := os.Remove(names[len(names)-1-i]); err != nil {
				t.Error(err)
			}
		}
	})
	return dir
}

func TestWriteFileReplacesAndIsPrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), "keys")
	if err := MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "node.key")
	for _, want := range []string{"first", "second, which is longer", ""} {
		if err := WriteFile(name, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
		for _, n := range []string{name, dir} {
			if found, loose := Loose(n); loose {
				t.Errorf("%s is loose: %s", n, found)
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// A file that was open to others is private once it has been replaced.
func TestWriteFileMakesALooseFilePrivate(t *testing.T) {
	t.Parallel()
	name := filepath.Join(tempDir(t), "node.key")
	if err := os.WriteFile(name, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(name, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if found, loose := Loose(name); loose {
		t.Errorf("loose: %s", found)
	}
}

// Nobody else can open the temporary file before there is anything in it.
func TestTemporaryFileIsPrivateFromTheStart(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	f, err := create(dir, ".node.key.tmp-*")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if found, loose := Loose(f.Name()); loose {
		t.Errorf("%s is loose: %s", f.Name(), found)
	}
	if filepath.Dir(f.Name()) != dir || !bytes.HasPrefix([]byte(filepath.Base(f.Name())), []byte(".node.key.tmp-")) {
		t.Errorf("made %s in %s", f.Name(), dir)
	}
}

func TestWhatCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	if err := WriteFile(filepath.Join(dir, "none", "f"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	taken := filepath.Join(dir, "taken")
	if err := MkdirAll(filepath.Join(taken, "child")); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(taken, []byte("x")); err == nil {
		t.Error("replaced a directory by a file")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	file := filepath.Join(dir, "file")
	if err := WriteFile(file, nil); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{file, filepath.Join(file, "below")} {
		if err := MkdirAll(d); err == nil {
			t.Errorf("made a directory at %s, where there is a file", d)
		}
	}
}

func TestMkdirAllLeavesWhatIsThere(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), "a")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(dir, "b", "c")
	for range 2 {
		if err := MkdirAll(below); err != nil {
			t.Fatal(err)
		}
	}
	if _, loose := Loose(dir); !loose {
		t.Error("the directory that was there was changed")
	}
	for _, d := range []string{below, filepath.Dir(below)} {
		if found, loose := Loose(d); loose {
			t.Errorf("%s is loose: %s", d, found)
		}
	}
}

func TestGrantToNobody(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), "tls")
	if err := GrantAccount(dir, "nobody of that name"); err == nil || !bytes.Contains([]byte(err.Error()), []byte(`account: found "nobody of that name", expected `)) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory was made for an account that is not there")
	}
}

func TestWhatIsNotThereIsNotLoose(t *testing.T) {
	t.Parallel()
	if found, loose := Loose(filepath.Join(tempDir(t), "none")); loose || found != "" {
		t.Errorf("%q, %v", found, loose)
	}
}
