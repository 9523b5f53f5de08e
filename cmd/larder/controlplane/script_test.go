package controlplane_test

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"larder/internal/lardertest"
)

// The manual's script goes from nothing to a healthy node with curl alone.
func TestTheManualsScript(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	p := start(t, t.TempDir(), "")
	resp, err := p.http.Get(p.url + "/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	root, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d, %v", resp.StatusCode, err)
	}
	dir := t.TempDir()
	ca, config := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "node.yaml")
	if err := os.WriteFile(ca, root, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "catalog.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(nodeYAML, "$DIR", filepath.ToSlash(dir))), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "../../../docs/operating/first-node.sh", p.url, ca, config, filepath.Join(dir, "drive")+",1")
	cmd.Env = append(os.Environ(), "LARDER_TOKEN="+p.token, "LARDER="+lardertest.Binary(t), "ENROL=node register", "RUN=yes")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"cacheNodeStateShortText: Not Configured", "cacheNodeStateShortText: Not Provisioned", "cacheNodeStateShortText: Healthy"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it did not say %q:\n%s", want, out)
		}
	}
}
