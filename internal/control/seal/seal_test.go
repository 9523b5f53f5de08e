package seal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"larder/internal/control/seal"
)

func TestSealedIsOpenedOnlyWithKeyAndContext(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "control.key")
	k, err := seal.Open(file, true)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.Seal([]byte("secret"), []byte("customers.primary/1"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("secret")) {
		t.Error("the secret is readable")
	}
	again, err := seal.Open(file, false)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := again.Open(sealed, []byte("customers.primary/1")); err != nil || string(plain) != "secret" {
		t.Errorf("got %q (%v), want the secret", plain, err)
	}
	other, err := seal.Open(filepath.Join(t.TempDir(), "other.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(sealed)
	changed[len(changed)-1] ^= 1
	for name, f := range map[string]func() ([]byte, error){
		"another key":     func() ([]byte, error) { return other.Open(sealed, []byte("customers.primary/1")) },
		"another context": func() ([]byte, error) { return k.Open(sealed, []byte("customers.primary/2")) },
		"changed":         func() ([]byte, error) { return k.Open(changed, []byte("customers.primary/1")) },
		"cut":             func() ([]byte, error) { return k.Open(sealed[:5], []byte("customers.primary/1")) },
		"nothing":         func() ([]byte, error) { return k.Open(nil, nil) },
	} {
		if plain, err := f(); !errors.Is(err, seal.ErrWrongKey) || plain != nil {
			t.Errorf("%s: got %q, %v, want ErrWrongKey", name, plain, err)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "control.key")
	if _, err := seal.Open(file, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that it is not there", err)
	}
	if err := os.WriteFile(file, []byte("abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Open(file, true); err == nil || !strings.Contains(err.Error(), "64 hexadecimal") {
		t.Errorf("got %v, want what was expected", err)
	}
	if runtime.GOOS == "windows" {
		return // modes say nothing there
	}
	if err := os.WriteFile(file, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Open(file, true); err == nil || !strings.Contains(err.Error(), "0644") {
		t.Errorf("got %v, want that others may read it", err)
	}
}
