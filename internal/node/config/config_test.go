package config_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"larder/internal/lardertest/golden"
	"larder/internal/node/config"
	"larder/internal/strictyaml"
)

func noEnv(string) string { return "" }

func fixtures(t *testing.T, pattern string, atLeast int) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) < atLeast {
		t.Fatalf("%d fixtures %s, %v; want at least %d", len(names), pattern, err, atLeast)
	}
	return names
}

func TestBadFilesSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, name := range fixtures(t, "testdata/bad/*.yaml", 40) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			c, err := config.Load(name, noEnv)
			var mistakes strictyaml.Mistakes
			if !errors.As(err, &mistakes) {
				t.Fatalf("got %v, %v; want mistakes", c, err)
			}
			for _, m := range mistakes {
				if m.Line == 0 && m.Field != "" {
					t.Errorf("no line: %v", m)
				}
			}
			text := strings.ReplaceAll(err.Error(), filepath.ToSlash(name), filepath.Base(name)) + "\n"
			if strings.Contains(text, "hunter2") {
				t.Errorf("the message holds a password: %s", text)
			}
			golden.Check(t, strings.TrimSuffix(name, ".yaml")+".golden", text)
		})
	}
}

func TestGoodFiles(t *testing.T) {
	t.Parallel()
	for _, name := range fixtures(t, "testdata/good/*.yaml", 3) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			c, err := config.Load(name, noEnv)
			if err != nil {
				t.Fatal(err)
			}
			text, err := yaml.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			golden.Check(t, strings.TrimSuffix(name, ".yaml")+".golden", string(text)+"# warnings: "+strings.Join(c.Warnings(), "\n# ")+"\n")
		})
	}
}

// What the contract's file says, in units the node works with.
func TestContractFile(t *testing.T) {
	t.Parallel()
	c, err := config.Load("testdata/good/contract.yaml", noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if got := int64(c.Drives[0].Size); got != 500e9 {
		t.Errorf("size: got %d bytes, want 500e9", got)
	}
	if got := int64(c.Upstream.Limit.Rate); got != 25e6 {
		t.Errorf("rate: got %d bytes/s, want 25e6", got)
	}
	w := c.Upstream.Limit.Schedule[0]
	if got := [7]bool(w.Days); got != [7]bool{false, true, true, true, true, true, false} {
		t.Errorf("days: got %v, want Monday to Friday", got)
	}
	if time.Duration(w.From) != 8*time.Hour || time.Duration(w.To) != 18*time.Hour {
		t.Errorf("times: got %v to %v, want 8h to 18h", time.Duration(w.From), time.Duration(w.To))
	}
	if got := c.Upstream.Proxy.URL().String(); got != "http://user:pass@proxy:3128" {
		t.Errorf("proxy: got %s, want it with its password", got)
	}
	if c.Upstream.ConnectTimeout != 3*time.Second || c.Upstream.SilenceTimeout != 10*time.Second || c.Upstream.ConnectionsPerOrigin != 64 {
		t.Errorf("upstream defaults: got %+v", c.Upstream)
	}
	if c.Log.Level.Level() != slog.LevelInfo || int64(c.Log.AccessMaxSize) != 100e6 || c.Log.AccessKeep != 5 {
		t.Errorf("log defaults: got %+v", c.Log)
	}
}

func TestProxyPasswordIsNeverPrinted(t *testing.T) {
	t.Parallel()
	c, err := config.Parse("f", []byte("drives: [{path: /a, size: 1GB}]\nupstream: {proxy: 'http://user:hunter2@proxy:3128'}"), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	log.Info("configuration", "config", c, "proxy", c.Upstream.Proxy)
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("configuration", "config", c, "proxy", c.Upstream.Proxy)
	asYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprintf("%v %+v %#v", c, c, c), fmt.Sprintf("%v %+v %#v %q", *c, *c, *c, c.Upstream.Proxy),
		logged.String(), string(asYAML),
	} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("password in %s", text)
		}
	}
	if !strings.Contains(logged.String(), "user:xxxxx@proxy:3128") {
		t.Errorf("the proxy itself should be seen: %s", logged.String())
	}
	u := c.Upstream.Proxy.URL()
	u.Host = "changed"
	if got := c.Upstream.Proxy.URL().Host; got != "proxy:3128" {
		t.Errorf("the URL handed out is not a copy: %s", got)
	}
}

func TestProxyFromTheEnvironment(t *testing.T) {
	t.Parallel()
	const drives = "drives: [{path: /a, size: 1GB}]\n"
	env := func(kv ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == name {
					return kv[i+1]
				}
			}
			return ""
		}
	}
	tests := []struct {
		name, file string
		env        func(string) string
		want       string // URL, or the words of the mistake
	}{
		{"capitals", "", env("HTTPS_PROXY", "http://p:1"), "http://p:1"},
		{"small letters", "", env("https_proxy", "p.example:3128"), "http://p.example:3128"},
		{"the file wins", "upstream: {proxy: 'https://file:2/'}", env("HTTPS_PROXY", "http://p:1"), "https://file:2"},
		{"none wins", "upstream: {proxy: none}", env("HTTPS_PROXY", "http://p:1"), "<nil>"},
		{"nothing", "", env(), "<nil>"},
		{"a mistake", "", env("HTTPS_PROXY", "ftp://u:hunter2@p"), "upstream.proxy: HTTPS_PROXY in the environment has a scheme that is not supported"},
		{"only a mistake when used", "upstream: {proxy: none}", env("HTTPS_PROXY", "ftp://p"), "<nil>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := config.Parse("f", []byte(drives+tt.file), tt.env)
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("got %v, want %s", err, tt.want)
				}
				return
			}
			if got := fmt.Sprint(c.Upstream.Proxy.URL()); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestUnreadableFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "nowhere.yaml")
	_, err := config.Load(name, noEnv)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "nowhere.yaml") {
		t.Errorf("got %v, want fs.ErrNotExist with the name", err)
	}
}

func TestValidateWithoutAFile(t *testing.T) {
	t.Parallel()
	c := config.Default(noEnv)
	if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), "drives: must be set") {
		t.Errorf("got %v, want drives: must be set", err)
	}
	c = config.Default(noEnv)
	c.Drives = []config.Drive{{Path: t.TempDir(), Size: 1e9}}
	c.State = t.TempDir()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if want := filepath.Join(c.State, "tls"); c.TLS.Dir != want {
		t.Errorf("tls.dir: got %s, want %s", c.TLS.Dir, want)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		admin string
		warns bool
	}{
		{"127.0.0.1:5001", false}, {"[::1]:5001", false}, {"localhost:5001", false},
		{":5001", true}, {"0.0.0.0:5001", true}, {"192.0.2.1:5001", true}, {"node.example:5001", true},
	}
	for _, tt := range tests {
		c := config.Default(noEnv)
		c.Listen.Admin = tt.admin
		w := c.Warnings()
		if got := len(w) > 0 && strings.Contains(w[0], tt.admin+" can be reached from other machines"); got != tt.warns {
			t.Errorf("admin %s: got %q, want a warning: %v", tt.admin, w, tt.warns)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*.yaml"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("f.yaml", data, noEnv)
		if err != nil {
			var mistakes strictyaml.Mistakes
			if !errors.As(err, &mistakes) || len(mistakes) == 0 {
				t.Fatalf("got %v, want mistakes", err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("valid in the file, not in memory: %v", err)
		}
		// What is written out reads the same; passwords are lost on purpose.
		if c.Catalog.Builtin == nil {
			c.Catalog.Builtin = []string{} // both are written as []
		}
		text, err := yaml.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := config.Parse("f.yaml", text, noEnv)
		if err != nil {
			t.Fatalf("%v\nin %s", err, text)
		}
		text2, err := yaml.Marshal(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(text), string(text2)); diff != "" {
			t.Fatalf("written and read (-first +second):\n%s", diff)
		}
	})
}
