// Package larder_test guards the shape of the tree: who may import whom, and
// the habits of docs/design.md and CONTRIBUTING.md that a parser can see.
package larder_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// A rule looks at the whole tree and says what it finds, one line each. Every
// rule carries the proof that it can fail: small trees that break it, each
// with words its finding must have, and one that keeps it.
type rule struct {
	name  string
	check func(t *tree) []string
	bad   []sample
	good  string
}

// The tree of a sample is text: each file after a line "-- path --".
type sample struct{ want, tree string }

func TestTree(t *testing.T) {
	t.Parallel()
	real, err := readTree(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(real.files) < 10 {
		t.Fatalf("only %d Go files read: not the root of the module?", len(real.files))
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			for _, finding := range r.check(real) {
				t.Error(finding)
			}
		})
	}
}

func TestRulesCanFail(t *testing.T) {
	t.Parallel()
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			if len(r.bad) == 0 {
				t.Error("no tree that breaks this rule")
			}
			for i, s := range r.bad {
				got := r.check(sampleTree(t, s.tree))
				if !slices.ContainsFunc(got, func(f string) bool { return strings.Contains(f, s.want) }) {
					t.Errorf("bad tree %d: got %q, want a finding with %q", i, got, s.want)
				}
			}
			if got := r.check(sampleTree(t, r.good)); len(got) > 0 {
				t.Errorf("good tree: got %q, want none", got)
			}
		})
	}
}

// A tree is what the rules see: the Go files, parsed and in order of their
// paths, and the few other files that rules compare them with.
type tree struct {
	fset  *token.FileSet
	files []*file
	text  map[string]string // go.mod and Markdown below docs/decisions, by path
}

type file struct {
	path string // slashes, relative to the root
	dir  string // "." for the root
	test bool
	ast  *ast.File
}

func (f *file) pkg() string { return f.ast.Name.Name }

// imports returns the import paths of f with the position of each.
func (f *file) imports() map[string]*ast.ImportSpec {
	m := make(map[string]*ast.ImportSpec)
	for _, s := range f.ast.Imports {
		if p, err := strconv.Unquote(s.Path.Value); err == nil {
			m[p] = s
		}
	}
	return m
}

// local returns the directory of an import path of this module, or "".
func local(importPath string) string {
	dir, ok := strings.CutPrefix(importPath, "larder/")
	if !ok {
		return ""
	}
	return dir
}

// within reports whether dir is root or lies below it.
func within(dir, root string) bool { return dir == root || strings.HasPrefix(dir, root+"/") }

func (t *tree) at(pos token.Pos) string {
	p := t.fset.Position(pos)
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// calls reports every mention of name in the package with this import path,
// such as os.Rename, in f.
func (f *file) mentions(importPath string, names []string, found func(pos token.Pos, name string)) {
	spec, ok := f.imports()[importPath]
	if !ok {
		return
	}
	local := path.Base(importPath)
	if spec.Name != nil {
		local = spec.Name.Name
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == local && slices.Contains(names, sel.Sel.Name) {
				found(sel.Pos(), path.Base(importPath)+"."+sel.Sel.Name)
			}
		}
		return true
	})
}

// readTree parses the Go files of a module. It leaves out what the go command
// leaves out, and modules of their own.
func readTree(fsys fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), text: make(map[string]string)}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			if p == "." {
				return nil
			}
			if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || slices.Contains([]string{"testdata", "node_modules", "vendor", "bin"}, name) {
				return fs.SkipDir
			}
			if _, err := fs.Stat(fsys, path.Join(p, "go.mod")); err == nil {
				return fs.SkipDir
			}
			return nil
		}
		switch ext := filepath.Ext(p); {
		case p == "go.mod", ext == ".md" && strings.HasPrefix(p, "docs/decisions/"):
			data, err := fs.ReadFile(fsys, p)
			if err != nil {
				return err
			}
			t.text[p] = string(data)
		case ext == ".go":
			data, err := fs.ReadFile(fsys, p)
			if err != nil {
				return err
			}
			parsed, err := parser.ParseFile(t.fset, p, data, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			t.files = append(t.files, &file{path: p, dir: path.Dir(p), test: strings.HasSuffix(p, "_test.go"), ast: parsed})
		}
		return nil
	})
	return t, err
}

func sampleTree(t *testing.T, archive string) *tree {
	t.Helper()
	fsys := make(fstest.MapFS)
	var name string
	for line := range strings.Lines(archive) {
		if n, ok := strings.CutPrefix(line, "-- "); ok {
			name = strings.TrimSuffix(strings.TrimSpace(n), " --")
			fsys[name] = &fstest.MapFile{}
		} else if name != "" {
			fsys[name].Data = append(fsys[name].Data, line...)
		}
	}
	if len(fsys) == 0 {
		t.Fatalf("no file in the sample %q", archive)
	}
	tr, err := readTree(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}
