package registries_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"larder/internal/lardertest"
)

func TestMain(m *testing.M) { lardertest.Main(m) }

// A registry is what a package manager of this machine is configured for.
type registry struct {
	publishers []publisher
	open       string // a URL of the registry itself that needs no signing in
	probe      string // a URL of it as clients of the node ask, for the catalogue to explain
	proxy      string // that the client is told to use, for the node to use instead; "" none
	tls        bool   // the client comes to the node over HTTPS

	// install makes a real client with empty caches in dir install a package,
	// through n or, if that is nil, as the machine is configured. It returns what
	// identifies the content that came out.
	install func(t *testing.T, dir string, n *node) (string, error)
}

// node is a node in front of a registry. Only one client uses it, so that its
// figures are about that client.
type node struct {
	*lardertest.Node
	caFile string // with registry.tls
	dead   string // "host:port" that refuses connections
}

// publisher is a publisher file as an administrator would write it.
type publisher struct {
	Name      string   `yaml:"name"`
	Hosts     []string `yaml:"hosts,omitempty"`
	Default   bool     `yaml:"default,omitempty"`
	Freshness string   `yaml:"freshness"`
	MaxAge    string   `yaml:"max_age,omitempty"`
	Rules     []rule   `yaml:"rules"`
	Origin    origin   `yaml:"origin"`
}

type rule struct {
	Path      string `yaml:"path"`
	Freshness string `yaml:"freshness"`
}

type origin struct {
	Scheme  string `yaml:"scheme"`
	Host    string `yaml:"host"`
	Address string `yaml:"address"`
	CA      string `yaml:"ca,omitempty"`
}

// immutable makes rules of patterns.
func immutable(patterns ...string) (rs []rule) {
	for _, p := range patterns {
		rs = append(rs, rule{p, "immutable"})
	}
	return rs
}

// originOf is where the registry at u is asked. The address is written down,
// because registries of an organisation have private ones more often than not.
func originOf(u *url.URL) origin {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return origin{Scheme: u.Scheme, Host: u.Hostname(), Address: net.JoinHostPort(u.Hostname(), port)}
}

// secondCostsNothing is the scenario of every client: a machine installs a package
// through the node, then a second one does, and then a third one while the
// registry cannot be reached.
func secondCostsNothing(t *testing.T, r registry) {
	t.Helper()
	needsNoSigningIn(t, r.open)
	n := start(t, r)

	first, err := r.install(t, t.TempDir(), n)
	if err != nil {
		if _, direct := r.install(t, t.TempDir(), nil); direct != nil {
			t.Skipf("the registry does not serve this machine even without the node: %v", direct)
		}
		t.Fatalf("through the node, while it works without: %v\nstatus: %s", err, n.status())
	}
	cost := n.fetched(t)
	if cost <= 0 {
		t.Fatalf("the first installation cost %.0f bytes upstream: it did not come through the node", cost)
	}
	t.Logf("the first installation: %.0f bytes from upstream", cost)

	again := func(what string) {
		t.Helper()
		sent := n.Metric("larder_node_sent_bytes_total")
		began := time.Now()
		got, err := r.install(t, t.TempDir(), n)
		if err != nil {
			t.Fatalf("%s: %v\nstatus: %s", what, err, n.status())
		}
		if got != first {
			t.Errorf("%s: got content %s, want that of the first, %s", what, got, first)
		}
		if more := n.fetched(t) - cost; more != 0 {
			t.Errorf("%s: %.0f bytes from upstream, want 0\n%s", what, more, n.objects())
		}
		sent = n.Metric("larder_node_sent_bytes_total") - sent
		if sent <= 0 {
			t.Errorf("%s: the node sent %.0f bytes: the client did not come through it", what, sent)
		}
		t.Logf("%s: %.0f bytes from the node in %v", what, sent, time.Since(began).Round(time.Millisecond))
	}
	again("the second installation")

	// Now even what may change must be asked for, and nobody answers.
	n.publish(t, r, func(p *publisher) { p.MaxAge, p.Origin.Address = "", n.dead })
	again("the third installation, without the registry")
}

// start starts a node for r.
func start(t *testing.T, r registry) *node {
	t.Helper()
	n := &node{dead: refused(t)}
	dir := t.TempDir()
	cfg := lardertest.NodeConfig{
		Dir:   dir,
		YAML:  lardertest.DefaultNodeConfig,
		Files: map[string]string{"catalog.d/registry.yaml": publisherFile(t, r, func(*publisher) {})},
	}
	if r.proxy != "" {
		cfg.YAML += fmt.Sprintf("upstream: {proxy: %q}\n", r.proxy)
	}
	if r.tls {
		ca := lardertest.NewCA(t)
		ca.Leaf(t, "127.0.0.1").Install(t, filepath.Join(dir, "tls"), "node")
		n.caFile = write(t, filepath.Join(t.TempDir(), "ca.pem"), string(ca.PEM))
	}
	n.Node = lardertest.StartNode(t, cfg)
	return n
}

// publisherFile is r's publisher file after a change.
func publisherFile(t *testing.T, r registry, change func(*publisher)) string {
	t.Helper()
	ps := slices.Clone(r.publishers)
	for i := range ps {
		change(&ps[i])
	}
	text, err := yaml.Marshal(map[string]any{"publishers": ps})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// publish replaces the node's publisher file and waits until it is in use.
func (n *node) publish(t *testing.T, r registry, change func(*publisher)) {
	t.Helper()
	write(t, filepath.Join(n.Dir, "catalog.d", "registry.yaml"), publisherFile(t, r, change))
	lardertest.Eventually(t, "the new publisher file is in use", func() bool {
		_, text := n.Get("/api/larder/v1/explain?url=" + url.QueryEscape(r.probe))
		return strings.Contains(text, n.dead)
	})
}

// fetched is how many bytes came from upstream, once nothing comes any more.
func (n *node) fetched(t *testing.T) float64 {
	t.Helper()
	lardertest.Eventually(t, "nothing is being fetched", func() bool { return n.Metric("larder_fill_active_runs") == 0 })
	return n.Metric("larder_node_fetched_bytes_total")
}

func (n *node) status() string {
	_, text := n.Get("/api/larder/v1/status")
	return text
}

// objects lists what the node stored, newest last, for a message.
func (n *node) objects() string {
	_, text := n.Get("/api/larder/v1/objects?limit=1000")
	var list []struct {
		URL          string
		Size, Stored int64
		Created      time.Time
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return text
	}
	var b strings.Builder
	for _, o := range list {
		fmt.Fprintf(&b, "%s  %d of %d  %s\n", o.Created.Format(time.TimeOnly), o.Stored, o.Size, o.URL)
	}
	return b.String()
}

// refused returns a loopback address where nobody listens.
func refused(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

// installed skips the test when the client is not on this machine, or when
// tests are to be short.
func installed(t *testing.T, clients ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: no registry is asked")
	}
	for _, c := range clients {
		if _, err := exec.LookPath(c); err != nil {
			t.Skipf("not configured: there is no %s on this machine", c)
		}
	}
}

// parseRegistry reads the URL of a registry. It skips the test when no node can
// stand in front of it.
func parseRegistry(t *testing.T, client, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		t.Fatalf("%s is configured for what is no URL", client) // it may hold a password
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		t.Skipf("not configured: %s has no registry over HTTP (found %q)", client, u.Redacted())
	case u.User != nil:
		t.Skip(signingIn)
	}
	return u
}

const signingIn = "the registry wants clients to sign in: a node passes such requests on and keeps nothing"

// needsNoSigningIn skips the test when the registry wants to know who asks. Other
// trouble is not its business: the clients will tell.
func needsNoSigningIn(t *testing.T, rawURL string) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(rawURL)
	if err != nil {
		return
	}
	_ = resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		t.Skip(signingIn)
	}
}

// isolated is the environment without what leads a client past the node, or to
// caches of this machine, and with what leads it nowhere instead.
func (n *node) isolated(env ...string) []string {
	out := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		name = strings.ToLower(name)
		return strings.HasSuffix(name, "_proxy") || strings.HasPrefix(name, "npm_config_")
	})
	nowhere := "http://" + n.dead
	out = append(out, "HTTP_PROXY="+nowhere, "HTTPS_PROXY="+nowhere, "http_proxy="+nowhere, "https_proxy="+nowhere,
		"NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	return append(out, env...)
}

// run runs a client and returns its stdout. The error has the end of what it said.
func run(t *testing.T, dir string, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, env, 5*time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stderr.String())
		if len(said) > 2000 {
			said = "…" + said[len(said)-2000:]
		}
		return "", fmt.Errorf("%s %s: %w\n%s", name, args[0], err, said)
	}
	return stdout.String(), nil
}

// ask runs a client for one word of its configuration, away from the
// repository and its files.
func ask(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := run(t, t.TempDir(), os.Environ(), name, args...)
	if err != nil {
		t.Fatalf("asking for the configuration: %v", err)
	}
	return strings.TrimSpace(out)
}

// digest identifies all regular files of a tree that are not hidden.
func digest(dir string) (sum string, files int, err error) {
	h := sha256.New()
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path != dir && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		files++
		fmt.Fprintf(h, "%s %d\n", filepath.ToSlash(rel), len(text))
		h.Write(text)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), files, err
}

// write writes a file below directories that need not exist, and returns its name.
func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
