package preflight

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"larder/internal/sys/disk"
	"larder/internal/sys/private"
)

// subDirs are the directories of a TLS directory, itself first.
var subDirs = [...]string{"", "certs", "keys", "logs", "credentials"}

// leastFree is room for years of certificates.
const leastFree = 1 << 20

// filesCheck writes to the TLS directory as far as it is there, and where it
// would be made, and removes what it wrote.
func filesCheck(o Options) Check {
	c := Check{ID: IDFiles, Title: "Files in " + o.Dir, Result: OK,
		Why: "keys, requests and certificates are written there by this program and read by the node; who else can write there can put in a certificate of their own"}
	if o.Dir == "" {
		c.Result, c.Title, c.Found, c.Do = Failed, "Files", "no TLS directory is named", "set tls.dir in the node's configuration, or give --dir"
		return c
	}
	var found, do, good, missing []string
	bad := func(r Result, text, next string) {
		c.Result = worse(c.Result, r)
		found = append(found, text)
		do = append(do, next)
	}
	top := "" // who owns the TLS directory
	for _, sub := range subDirs {
		dir := filepath.Join(o.Dir, sub)
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, dir)
			continue
		}
		switch {
		case err != nil:
			bad(Failed, fmt.Sprintf("%s cannot be looked at: %v", dir, bare(err)), "let this account use "+filepath.Dir(dir)+", or run this as the account that does")
			continue
		case !info.IsDir():
			bad(Failed, dir+" is a file, expected a directory", "move "+dir+" away")
			continue
		}
		before := len(found)
		if err := tryFile(dir); err != nil {
			bad(Failed, fmt.Sprintf("%s cannot be written to: %v", dir, bare(err)), doWrite(err, dir))
		}
		if openToAll(info) {
			bad(Failed, dir+" can be written to by everybody", "chmod o-w "+dir+", and look at what lies in it")
		}
		who, known := owner(info)
		if sub == "" {
			top = who
		}
		if known {
			if text, next := ownership(o, dir, who, top); text != "" {
				bad(Warning, text, next)
			}
		}
		if len(found) == before {
			good = append(good, dir)
		}
	}
	// Glob is wrong only about patterns, and finds nothing then.
	keyFiles, _ := filepath.Glob(filepath.Join(o.Dir, "keys", "*.key"))
	for _, file := range keyFiles[:min(len(keyFiles), mostFiles)] {
		if how, loose := private.Loose(file); loose {
			bad(Warning, file+" is a private key with "+how, "take that away (chmod 600), and make a new key if others have an account here")
		}
	}
	if len(missing) > 0 {
		parent := existing(missing[0])
		if err := tryDir(parent); err != nil {
			bad(Failed, fmt.Sprintf("%s cannot be made: %s: %v", strings.Join(missing, ", "), parent, bare(err)), doWrite(err, parent))
		} else {
			found = append(found, strings.Join(missing, ", ")+": not there, can be made")
		}
	}
	if space, err := disk.Usage(existing(o.Dir)); err != nil {
		found = append(found, fmt.Sprintf("how much room there is could not be learnt: %v", bare(err)))
	} else if space.Free < leastFree {
		bad(Failed, fmt.Sprintf("%d bytes are free", space.Free), "make room: at least 1 MiB")
	}
	if len(good) > 0 {
		found = append([]string{strings.Join(good, ", ") + ": can be written to"}, found...)
	}
	c.Found, c.Do = strings.Join(found, "\n"), strings.Join(distinct(do), "\n")
	return c
}

// distinct leaves what was said before out.
func distinct(lines []string) (once []string) {
	for _, l := range lines {
		if !slices.Contains(once, l) {
			once = append(once, l)
		}
	}
	return once
}

// existing is path, or the nearest directory above it that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) || filepath.Dir(path) == path {
			return path
		}
		path = filepath.Dir(path)
	}
}

// tryFile writes a file in dir, whole, and removes it.
func tryFile(dir string) error {
	f, err := os.CreateTemp(dir, ".preflight-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString("larder tls preflight was here and should have removed this\n")
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// tryDir makes a directory in dir and removes it.
func tryDir(dir string) error {
	made, err := os.MkdirTemp(dir, ".preflight-*")
	if err != nil {
		return err
	}
	return os.Remove(made)
}

// bare is err without the path, which is said already and for a temporary
// file says nothing.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func doWrite(err error, dir string) string {
	switch {
	case disk.IsFull(err):
		return "make room on the file system of " + dir
	case disk.IsReadOnly(err):
		return "mount the file system of " + dir + " for writing, or let the service write there (systemd: ReadWritePaths=)"
	case errors.Is(err, fs.ErrPermission):
		return "run this as root or as the account that owns " + dir + ", or give it to this account"
	}
	return "see what is wrong with " + dir
}

// ownership says what is wrong with who owns dir. Root may write anywhere, and
// what it writes should then be the node's to read.
func ownership(o Options, dir, who, top string) (text, next string) {
	me := currentAccount()
	switch {
	case o.Node.Account != "" && who != o.Node.Account:
		return fmt.Sprintf("%s belongs to %s, and the node runs as %s", dir, who, o.Node.Account),
			"chown -R " + o.Node.Account + " " + o.Dir
	case o.Node.Account != "":
	case who != top && top != "":
		return fmt.Sprintf("%s belongs to %s, and %s to %s", dir, who, o.Dir, top), "give both to the account that the node runs as: chown -R ACCOUNT " + o.Dir
	case who != me && !o.machine.privileged:
		return fmt.Sprintf("%s belongs to %s, and this runs as %s", dir, who, me), "run this as " + who + ", or as root"
	}
	return "", ""
}
