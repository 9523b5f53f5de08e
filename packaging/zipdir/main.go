// Command zipdir packs a directory into a zip that depends on nothing but its content.
package main

import (
	"archive/zip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: zipdir DIRECTORY FILE")
		os.Exit(2)
	}
	if err := pack(os.Args[1], os.Args[2], os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintln(os.Stderr, "zipdir:", err)
		os.Exit(1)
	}
}

// pack writes the files below dir into a zip, in the order of their names,
// under the name of dir. All of them have the time that epoch says.
func pack(dir, file, epoch string) error {
	when := time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC) // the first that a zip can hold
	if s, err := strconv.ParseInt(epoch, 10, 64); err == nil && s > when.Unix() {
		when = time.Unix(s, 0).UTC()
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	z := zip.NewWriter(out)
	top := filepath.Base(filepath.Clean(dir))
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		in, err := os.Open(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		defer in.Close()
		w, err := z.CreateHeader(&zip.FileHeader{Name: path.Join(top, name), Method: zip.Deflate, Modified: when})
		if err != nil {
			return err
		}
		_, err = io.Copy(w, in)
		return err
	})
	if err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return out.Close()
}
