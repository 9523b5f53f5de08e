package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"larder/internal/sys/disk"
)

// Check finds what is wrong with the drives of o without opening or changing
// them: all mistakes at once, each with the field, what was found, what is
// expected and what to do.
func Check(o Options) error {
	errs := []error{checkList(o)}
	for i, d := range o.Drives {
		if d.Path != "" {
			errs = append(errs, checkDrive(i, d)...)
		}
	}
	return errors.Join(errs...)
}

// checkList finds the mistakes that can be seen without looking at the disk.
func checkList(o Options) error {
	if len(o.Drives) == 0 {
		return errors.New("drives: found none, expected at least one; name a directory and how much of it the cache may take")
	}
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	paths := make([]string, len(o.Drives))
	for i, d := range o.Drives {
		if d.Budget <= 0 {
			add("drives[%d].size: found %d, expected more than 0; say how many bytes the cache may take", i, d.Budget)
		}
		if d.Path == "" {
			add("drives[%d].path: found nothing, expected a directory", i)
			continue
		}
		paths[i] = resolve(d.Path)
		for j, other := range paths[:i] {
			switch {
			case other == "":
			case other == paths[i]:
				add("drives[%d].path: found %s, which drives[%d] has already; give each drive a directory of its own", i, d.Path, j)
			case within(other, paths[i]):
				add("drives[%d].path: found %s, which lies inside drives[%d] (%s); put the drives side by side", i, d.Path, j, o.Drives[j].Path)
			case within(paths[i], other):
				add("drives[%d].path: found %s, which contains drives[%d] (%s); put the drives side by side", i, d.Path, j, o.Drives[j].Path)
			}
		}
	}
	if o.Reserve < 0 {
		add("reserve: found %d, expected 0 or more bytes", o.Reserve)
	}
	return errors.Join(errs...)
}

// resolve makes paths comparable, as far as they exist.
func resolve(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return filepath.Clean(path)
	}
	rest := ""
	for dir := abs; ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		if dir == filepath.Dir(dir) {
			return abs
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}

// within reports whether inner lies below outer.
func within(outer, inner string) bool {
	rel, err := filepath.Rel(outer, inner)
	return err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// checkDrive looks at one directory, or where it would be made.
func checkDrive(i int, d Drive) []error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	dir := d.Path
	fi, err := os.Stat(dir)
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir) // Open makes what is missing
		fi, err = os.Stat(dir)
	}
	switch {
	case err != nil:
		add("drives[%d].path: %w; name a directory the cache may use", i, err)
		return errs
	case !fi.IsDir():
		add("drives[%d].path: %s is a file, expected a directory; name the directory the cache may use", i, dir)
		return errs
	}
	if err := writable(dir); err != nil {
		add("drives[%d].path: cannot write: %w; let the user that runs the node own it", i, err)
	}
	if dir == d.Path {
		if _, err := readMarker(dir, d.ID); err != nil {
			add("drives[%d].path: %s: %w", i, dir, err)
		}
	}
	space, err := disk.Usage(dir)
	if err != nil {
		add("drives[%d].path: %w", i, err)
		return errs
	}
	if d.Budget > space.Total {
		add("drives[%d].size: found %.1f GB, expected at most the %.1f GB of the file system that holds %s; make it smaller, or name a directory on a larger one",
			i, float64(d.Budget)/1e9, float64(space.Total)/1e9, d.Path)
	}
	return errs
}

func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".larder-check-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}
