package main

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestPackIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "Larder")
	for name, text := range map[string]string{"larder.exe": "MZ", "MccScripts/generateCsr.ps1": "param()", "doc/a.md": "# A"} {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var packed [2][]byte
	for i := range packed {
		file := filepath.Join(t.TempDir(), "out.zip")
		if err := pack(dir, file, "1700000000"); err != nil {
			t.Fatal(err)
		}
		var err error
		if packed[i], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(packed[0], packed[1]) {
		t.Error("the same directory was packed into two different zips")
	}
	z, err := zip.NewReader(bytes.NewReader(packed[0]), int64(len(packed[0])))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || f.Modified.Unix() != 1700000000 {
			t.Errorf("%s: %v, %v", f.Name, err, f.Modified)
		}
		got += f.Name + "=" + string(b) + "\n"
	}
	if want := "Larder/MccScripts/generateCsr.ps1=param()\nLarder/doc/a.md=# A\nLarder/larder.exe=MZ\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if err := pack(filepath.Join(dir, "none"), filepath.Join(t.TempDir(), "out.zip"), ""); err == nil {
		t.Error("a directory that is not there was packed")
	}
}
