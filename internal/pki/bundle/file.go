package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"larder/internal/pki/problem"
)

// ReadFile reads a regular file, or one that a symbolic link leads to.
func ReadFile(path string, o Options) (*Bundle, error) {
	r := newReader(path, o)
	data, err := r.readFile(path)
	if err != nil {
		return nil, err
	}
	return r.parse(data)
}

func (r *reader) readFile(path string) ([]byte, error) {
	info, err := os.Stat(path) // before opening: opening a pipe would wait
	if err != nil {
		return nil, r.noFile(path, err)
	}
	if what := irregular(info.Mode()); what != "" {
		next := "name the file itself"
		if info.IsDir() {
			next = "name a file in it"
			if names := r.nearby(path, ""); names != "" {
				next += ", such as " + names
			}
		}
		return nil, r.problem(what, "a file", next)
	}
	if info.Size() > mostBytes {
		return nil, tooLarge(r.b.field, info.Size())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, r.noFile(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, mostBytes+1))
	if err != nil {
		return nil, r.because(err, "a file that cannot be read to its end", r.wanted(), "check the drive, or copy it from elsewhere")
	}
	return data, nil
}

func tooLarge(field string, size int64) *problem.Problem {
	return &problem.Problem{Field: field, Found: fmt.Sprintf("a file of %d bytes", size), Expected: fmt.Sprintf("at most %d bytes; certificates and keys have a few thousand", mostBytes),
		Next: "give the certificate itself, not an archive or an image that has it"}
}

// irregular says what it is if it is no regular file.
func irregular(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return ""
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "something that is no regular file"
}

// noFile is the Problem of a file that cannot be opened.
func (r *reader) noFile(path string, err error) error {
	var pe *fs.PathError
	cause := err
	if errors.As(err, &pe) {
		cause = pe.Err // the field has the path
	}
	link := ""
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		link = "a symbolic link"
		if target, err := os.Readlink(path); err == nil {
			link += " to " + line(target, "nothing")
		}
	}
	switch {
	case errors.Is(err, syscall.ELOOP), link != "" && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission):
		return r.because(cause, or(link, "a path")+" that leads nowhere, such as in a circle", "a file, or a symbolic link to one", "name the file itself")
	case errors.Is(err, fs.ErrNotExist) && link != "":
		return r.because(fs.ErrNotExist, link, "a file, or a symbolic link to one", "make the link again, or name the file itself")
	case errors.Is(err, fs.ErrNotExist):
		dir := filepath.Dir(path)
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return r.because(fs.ErrNotExist, "nothing, nor the directory "+dir, r.wanted(), "check the path")
		}
		next := "check the path"
		if names := r.nearby(dir, filepath.Base(path)); names != "" {
			next += "; there are " + names
		}
		return r.because(fs.ErrNotExist, "nothing", r.wanted(), next)
	case errors.Is(err, syscall.ENOTDIR):
		return r.problem("a path that goes through something that is no directory", r.wanted(), "check the path")
	case errors.Is(err, fs.ErrPermission):
		return r.because(fs.ErrPermission, or(link, "a file")+" that this account may not read", "the right to read it and to enter the directories above it",
			"run as the account that may, or give it the right")
	}
	return r.because(cause, "a file that cannot be opened", r.wanted(), "check the path and the drive")
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// nearby names files in dir that could be meant, those that resemble missing
// first; "" if there are none.
func (r *reader) nearby(dir, missing string) string {
	endings := []string{".crt", ".cer", ".pem", ".p7b", ".p7c", ".pfx", ".p12", ".der"}
	if r.o.Key {
		endings = []string{".key", ".pem", ".pfx", ".p12", ".der"}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	var names []string
	for _, e := range entries {
		if slices.Contains(endings, strings.ToLower(filepath.Ext(e.Name()))) && !e.IsDir() {
			names = append(names, line(e.Name(), ""))
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return alike(b, missing) - alike(a, missing) })
	if len(names) > 5 {
		names = append(names[:5], "others")
	}
	return strings.Join(names, ", ")
}

// alike is how many letters two names have in common at their beginning.
func alike(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
