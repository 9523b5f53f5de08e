package livecert

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"larder/internal/strictyaml"
	"larder/internal/sys/private"
)

// Active is what active.yaml says: which pair is in use, or that none is to be
// although it could.
type Active struct {
	Certificate string `yaml:"certificate"` // path of the chain, relative to the TLS directory or absolute
	Key         string `yaml:"key"`         // of its private key, likewise
	Disabled    bool   `yaml:"disabled,omitempty"`
}

// ReadActive reads active.yaml of a TLS directory. Nothing active is
// fs.ErrNotExist.
func ReadActive(dir string) (Active, error) {
	file := activePath(dir)
	text, err := readFile(file)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Active{}, fmt.Errorf("no certificate is active: %w", err)
		}
		return Active{}, fmt.Errorf("reading %s: %w", file, err)
	}
	return parseActive(file, text)
}

// WriteActive replaces active.yaml of a TLS directory; a node that runs follows
// within a second. Its files must be there already, whole.
func WriteActive(dir string, a Active) error {
	text, err := yaml.Marshal(a)
	if err != nil {
		return err
	}
	return private.WriteFile(activePath(dir), text) // of the directory's account, whoever writes
}

func activePath(dir string) string { return filepath.Join(dir, "active.yaml") }

func parseActive(file string, text []byte) (Active, error) {
	var a Active
	doc, _ := strictyaml.Decode(file, text, &a)
	for _, f := range []struct{ name, value, example string }{
		{"certificate", a.Certificate, "certs/node.crt"}, {"key", a.Key, "keys/node.key"},
	} {
		switch {
		case f.value == "" && a.Disabled:
		case f.value == "":
			doc.Add(f.name, "must be set; expected a path such as %s", f.example)
		case !filepath.IsAbs(f.value) && !filepath.IsLocal(filepath.FromSlash(f.value)):
			doc.Add(f.name, "found %q; expected a path below the tls directory, such as %s, or an absolute one", f.value, f.example)
		}
	}
	return a, doc.Err()
}

// Resolve returns the path of a file that active.yaml names.
func Resolve(dir, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(dir, filepath.FromSlash(name))
}
