package registries_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// module is small, and this repository already says what it must be.
const module = "golang.org/x/time"

func TestGo(t *testing.T) {
	t.Parallel()
	installed(t, "go")
	root := parseRegistry(t, "go", firstProxy(ask(t, "go", "env", "GOPROXY")))
	version, sums := fromThisRepository(t)
	checksums := "off"
	if db := ask(t, "go", "env", "GOSUMDB"); hasChecksums(t, root, db) {
		checksums = db
	}

	secondCostsNothing(t, registry{
		publishers: []publisher{{
			Name: "go-modules", Default: true,
			// A module's version never changes; which versions there are does. A
			// .info of a branch, @v/main.info, changes too.
			Freshness: "revalidate", MaxAge: "1h",
			Rules:  immutable("*/@v/v*.zip", "*/@v/v*.mod", "*/@v/v*.info", "*/tile/*"),
			Origin: originOf(root),
		}},
		open:  root.JoinPath(module, "@v", "list").String(),
		probe: "http://127.0.0.1/" + module + "/@v/list",
		install: func(t *testing.T, dir string, n *node) (string, error) {
			env := append(os.Environ(), "GOFLAGS=-modcacherw")
			if n != nil {
				env = n.isolated("GOFLAGS=-modcacherw", "GOENV=off", "GOPRIVATE=", "GONOPROXY=", "GONOSUMDB=", "GOSUMDB="+checksums,
					"GOPROXY=http://"+n.HTTP+strings.TrimSuffix(root.EscapedPath(), "/"))
			}
			env = append(env, "GOTOOLCHAIN=local", "GOWORK=off", "GO111MODULE=on", "GOPATH="+filepath.Join(dir, "gopath"), "GOMODCACHE="+filepath.Join(dir, "modules"))
			work := filepath.Join(dir, "work")
			write(t, filepath.Join(work, "go.mod"), "module example.test/work\n\ngo 1.21\n")

			versions, err := run(t, work, env, "go", "list", "-m", "-versions", module)
			if err != nil {
				return "", err
			}
			if _, err := run(t, work, env, "go", "get", module+"@"+version); err != nil {
				return "", err
			}
			if _, err := run(t, work, env, "go", "mod", "verify"); err != nil {
				return "", err
			}
			got, err := os.ReadFile(filepath.Join(work, "go.sum"))
			if err != nil {
				return "", err
			}
			if string(got) != sums {
				return "", fmt.Errorf("go.sum: got\n%swant that of this repository,\n%s", got, sums)
			}
			sum, files, err := digest(filepath.Join(dir, "modules", filepath.FromSlash(module)+"@"+version))
			if err == nil && files == 0 {
				err = fmt.Errorf("no files in the module cache")
			}
			return sum + " " + strings.TrimSpace(versions), err
		},
	})
}

// firstProxy returns the first entry of GOPROXY, which go asks before any other.
func firstProxy(list string) string {
	first, _, _ := strings.Cut(list, ",")
	first, _, _ = strings.Cut(first, "|")
	return first
}

// fromThisRepository returns the module's version of go.mod and its lines of go.sum.
func fromThisRepository(t *testing.T) (version, sums string) {
	t.Helper()
	root := filepath.Join("..", "..", "..")
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mod)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == module {
			version = f[1]
		}
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sum)) {
		if strings.HasPrefix(line, module+" "+version+" ") || strings.HasPrefix(line, module+" "+version+"/go.mod ") {
			sums += line
		}
	}
	if version == "" || strings.Count(sums, "\n") != 2 {
		t.Fatalf("go.mod and go.sum: got version %q and sums %q of %s", version, sums, module)
	}
	return version, sums
}

// hasChecksums reports whether the registry also serves the checksum database,
// so that go need not go past the node for it.
func hasChecksums(t *testing.T, root *url.URL, db string) bool {
	t.Helper()
	name, _, _ := strings.Cut(db, " ") // "name key url"
	name, _, _ = strings.Cut(name, "+")
	if name == "" || name == "off" {
		return false
	}
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(root.JoinPath("sumdb", name, "supported").String())
	if err != nil {
		return false // the installation will say why
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode == http.StatusOK
}
