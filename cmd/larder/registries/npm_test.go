package registries_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A small package, and another that it needs.
const (
	npmPackage = "is-odd"
	npmVersion = "3.0.1"
	npmNeeds   = "is-number"
)

func TestNpm(t *testing.T) {
	t.Parallel()
	installed(t, "npm")
	root := parseRegistry(t, "npm", ask(t, "npm", "config", "get", "registry"))
	at := originOf(root)
	at.CA = npmSetting(t, "cafile")
	if root.Scheme != "https" {
		at.CA = ""
	}
	proxy := npmSetting(t, "https-proxy")
	if proxy == "" {
		proxy = npmSetting(t, "proxy")
	}

	secondCostsNothing(t, registry{
		publishers: []publisher{{
			Name: "npm", Default: true,
			// An archive never changes; which versions of a package there are does.
			Freshness: "revalidate", MaxAge: "1h",
			Rules:  immutable("*.tgz"),
			Origin: at,
		}},
		open:  root.JoinPath(npmPackage).String(),
		probe: "https://127.0.0.1/" + npmPackage,
		proxy: proxy,
		tls:   true,
		install: func(t *testing.T, dir string, n *node) (string, error) {
			work := filepath.Join(dir, "work")
			write(t, filepath.Join(work, "package.json"), `{"name": "work", "private": true}`)
			args := []string{"install", "--cache", filepath.Join(dir, "cache"), "--ignore-scripts", "--no-audit", "--no-fund",
				"--no-update-notifier", "--fetch-retries=0", npmPackage + "@" + npmVersion}
			env := os.Environ()
			if n != nil {
				env = n.isolated("npm_config_userconfig="+filepath.Join(dir, "no-npmrc"), "npm_config_globalconfig="+filepath.Join(dir, "no-npmrc-either"))
				args = append(args, "--registry=https://"+n.HTTPS+root.EscapedPath(), "--replace-registry-host=always", "--cafile="+n.caFile)
			}
			if _, err := run(t, work, env, "npm", args...); err != nil {
				return "", err
			}
			modules := filepath.Join(work, "node_modules")
			if err := hasVersion(filepath.Join(modules, npmPackage), npmVersion); err != nil {
				return "", err
			}
			if err := hasVersion(filepath.Join(modules, npmNeeds), ""); err != nil {
				return "", err
			}
			sum, _, err := digest(modules)
			return sum, err
		},
	})
}

// npmSetting returns a setting of npm, "" when it is not set.
func npmSetting(t *testing.T, name string) string {
	t.Helper()
	v := ask(t, "npm", "config", "get", name)
	if v == "null" || v == "undefined" {
		return ""
	}
	return v
}

// hasVersion checks what an installed package says of itself; "" is any version.
func hasVersion(dir, version string) error {
	text, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err != nil {
		return err
	}
	var p struct{ Name, Version string }
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	if !strings.HasSuffix(filepath.ToSlash(dir), "/"+p.Name) {
		return fmt.Errorf("%s: got package %q", dir, p.Name)
	}
	if p.Version == "" || version != "" && p.Version != version {
		return errors.New(p.Name + ": got version " + p.Version + ", want " + version)
	}
	return nil
}
