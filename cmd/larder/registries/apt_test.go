package registries_test

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// aptPackages are packages of about every archive: one that is small, and one of
// more than a chunk. Those that the archive has are downloaded.
var aptPackages = []string{"hello", "bash"}

func TestApt(t *testing.T) {
	t.Parallel()
	installed(t, "apt-get", "apt-cache", "apt-config")
	sys := readApt(t)
	var publishers []publisher
	for _, u := range sys.sites {
		// One host that is asked over both is asked over TLS.
		if slices.ContainsFunc(publishers, func(p publisher) bool { return p.Hosts[0] == u.Hostname() }) {
			continue
		}
		publishers = append(publishers, publisher{
			Name:      fmt.Sprintf("apt-%d", len(publishers)),
			Hosts:     []string{u.Hostname()},
			Freshness: "revalidate", MaxAge: "1h",
			Rules:  immutable("*.deb", "*/by-hash/*"),
			Origin: originOf(u),
		})
	}

	secondCostsNothing(t, registry{
		publishers: publishers,
		open:       sys.release,
		probe:      "http://" + sys.sites[0].Host + "/",
		proxy:      sys.proxy,
		install: func(t *testing.T, dir string, n *node) (string, error) {
			env := os.Environ()
			if n != nil {
				env = n.isolated()
			}
			env = append(env, "LC_ALL=C", "APT_CONFIG="+sys.config(t, dir, n))
			out := filepath.Join(dir, "out")
			if err := os.MkdirAll(out, 0o700); err != nil {
				return "", err
			}
			// Without Error-Mode apt is content with part of the lists.
			if _, err := run(t, out, env, "apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any"); err != nil {
				return "", err
			}
			names, err := run(t, out, env, "apt-cache", "pkgnames")
			if err != nil {
				return "", err
			}
			has := strings.Fields(names)
			want := slices.DeleteFunc(slices.Clone(aptPackages), func(p string) bool { return !slices.Contains(has, p) })
			if len(want) == 0 {
				return "", fmt.Errorf("none of %v is in the archive, which has %d packages", aptPackages, len(has))
			}
			if _, err := run(t, out, env, "apt-get", append([]string{"download", "-q"}, want...)...); err != nil {
				return "", err
			}
			sum, files, err := digest(out)
			if err == nil && files != len(want) {
				err = fmt.Errorf("got %d files, want those of %v", files, want)
			}
			return sum, err
		},
	})
}

// apt is what apt is configured for.
type apt struct {
	sources map[string]string // text of the source files, by base name
	sites   []*url.URL        // whose content they name, TLS first
	release string            // the first release file
	acquire []string          // lines of configuration about how to fetch
	proxy   string
	paths   map[string]string // of files and directories, by their names in the configuration
}

// readApt reads apt's own configuration.
func readApt(t *testing.T) *apt {
	t.Helper()
	a := &apt{sources: make(map[string]string), paths: make(map[string]string)}
	for _, name := range []string{"Dir::Etc::sourcelist/f", "Dir::Etc::sourceparts/d", "Dir::Etc::trusted/f", "Dir::Etc::trustedparts/d",
		"Dir::Etc::netrc/f", "Dir::Etc::netrcparts/d"} {
		v := ask(t, "apt-config", "shell", "X", name)
		a.paths[name[:len(name)-2]] = strings.Trim(strings.TrimPrefix(v, "X="), "'")
	}
	files, err := filepath.Glob(filepath.Join(a.paths["Dir::Etc::sourceparts"], "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(files, a.paths["Dir::Etc::sourcelist"]) {
		if ext := filepath.Ext(name); ext != ".list" && ext != ".sources" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		a.sources[filepath.Base(name)] = string(text)
	}

	for line := range strings.Lines(ask(t, "apt-config", "dump")) {
		line = strings.TrimSpace(line)
		name, value, _ := strings.Cut(line, " ")
		switch value = strings.Trim(value, `";`); {
		case !strings.HasPrefix(name, "Acquire::") || value == "":
		case strings.HasPrefix(name, "Acquire::IndexTargets"), strings.HasPrefix(name, "Acquire::Languages"), strings.HasPrefix(name, "Acquire::Changelogs"):
			// The packages' lists are enough.
		case strings.EqualFold(name, "Acquire::http::Proxy"), strings.EqualFold(name, "Acquire::https::Proxy"):
			a.proxy = strings.TrimSuffix(value, "/")
		default:
			a.acquire = append(a.acquire, line)
		}
	}
	if a.proxy == "DIRECT" {
		a.proxy = ""
	}

	seen := make(map[string]bool)
	for line := range strings.Lines(ask(t, "apt-get", "indextargets", "--format", "$(REPO_URI) $(BASE_URI)")) {
		raw, base, _ := strings.Cut(strings.TrimSpace(line), " ")
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || seen[u.Scheme+u.Host] {
			continue
		}
		seen[u.Scheme+u.Host] = true
		a.sites = append(a.sites, parseRegistry(t, "apt", raw))
		if a.release == "" {
			a.release = base + "InRelease"
		}
	}
	if len(a.sites) == 0 {
		t.Skip("not configured: apt's sources name no archive over HTTP")
	}
	slices.SortStableFunc(a.sites, func(x, y *url.URL) int { return strings.Compare(y.Scheme, x.Scheme) })
	return a
}

// config writes a configuration under which apt keeps everything in dir and
// touches nothing of the machine's, and returns its name. Through a node the
// sources are asked for in the clear, because that is what a proxy can cache:
// packages are signed.
func (a *apt) config(t *testing.T, dir string, n *node) string {
	t.Helper()
	etc := filepath.Join(dir, "etc")
	for _, d := range []string{"etc/none.d", "etc/sources.list.d", "state/lists/partial", "cache/archives/partial", "log"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.FromSlash(d)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range a.sources {
		if n != nil {
			for _, u := range a.sites {
				text = strings.ReplaceAll(text, "https://"+u.Host, "http://"+u.Host)
			}
		}
		write(t, filepath.Join(etc, "sources.list.d", name), text)
	}
	lines := []string{
		fmt.Sprintf("Dir::Etc::main %q;", filepath.Join(etc, "none")),
		fmt.Sprintf("Dir::Etc::parts %q;", filepath.Join(etc, "none.d")),
		fmt.Sprintf("Dir::Etc::sourcelist %q;", filepath.Join(etc, "none")),
		fmt.Sprintf("Dir::Etc::sourceparts %q;", filepath.Join(etc, "sources.list.d")),
		fmt.Sprintf("Dir::Etc::preferences %q;", filepath.Join(etc, "none")),
		fmt.Sprintf("Dir::Etc::preferencesparts %q;", filepath.Join(etc, "none.d")),
		fmt.Sprintf("Dir::State %q;", filepath.Join(dir, "state")),
		fmt.Sprintf("Dir::State::status %q;", write(t, filepath.Join(dir, "state", "status"), "")),
		fmt.Sprintf("Dir::Cache %q;", filepath.Join(dir, "cache")),
		fmt.Sprintf("Dir::Log %q;", filepath.Join(dir, "log")),
		`APT::Sandbox::User "root";`, // the directories are the test's alone
		`Acquire::Languages "none";`,
		`Acquire::Retries "0";`,
	}
	for _, name := range []string{"trusted", "trustedparts", "netrc", "netrcparts"} {
		lines = append(lines, fmt.Sprintf("Dir::Etc::%s %q;", name, a.paths["Dir::Etc::"+name]))
	}
	lines = append(lines, a.acquire...)
	switch {
	case n != nil:
		lines = append(lines, fmt.Sprintf("Acquire::http::Proxy %q;", "http://"+n.HTTP), fmt.Sprintf("Acquire::https::Proxy %q;", "http://"+n.dead))
	case a.proxy != "":
		lines = append(lines, fmt.Sprintf("Acquire::http::Proxy %q;", a.proxy), fmt.Sprintf("Acquire::https::Proxy %q;", a.proxy))
	}
	return write(t, filepath.Join(dir, "apt.conf"), strings.Join(lines, "\n")+"\n")
}
