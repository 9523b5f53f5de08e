package controlplane_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"larder/internal/lardertest"
	"larder/internal/node"
	"larder/internal/node/link"
)

const nodeYAML = `
listen: {http: ["127.0.0.1:0"], https: [], admin: "127.0.0.1:0"}
state: "$DIR/state"
catalog: {builtin: [], dirs: ["$DIR/catalog.d"]}
tls: {dir: "$DIR/tls"}
drives:
  - {path: "$DIR/drive", size: 200MB}
`

// enrolled is a node of the real binary that belongs to a control plane.
type enrolled struct {
	*lardertest.Node
	id string
}

// words writes the command's words for a node.
func (p *plane) words() (id string, words []string) {
	p.t.Helper()
	var d struct {
		Properties struct{ CustomerID, CacheNodeID, PrimaryAccountKey, RegistrationKey string }
	}
	a := p.do("POST", p.arm(nodePath)+"/getCacheNodeInstallDetails?"+armVersion, "")
	if a.status != 200 {
		p.t.Fatalf("install details: %d %s", a.status, a.body)
	}
	a.into(p.t, &d)
	var roots struct {
		Value []struct{ Fingerprint string }
	}
	p.get("/api/larder/v1/roots", &roots)
	return d.Properties.CacheNodeID, []string{
		"controlurl=" + p.url, "controlfingerprint=" + roots.Value[0].Fingerprint, "customerid=" + d.Properties.CustomerID, "cachenodeid=" + d.Properties.CacheNodeID,
		"customerkey=" + d.Properties.PrimaryAccountKey, "registrationkey=" + d.Properties.RegistrationKey,
	}
}

func (p *plane) state() (short, all string) {
	p.t.Helper()
	var n struct {
		Properties struct {
			Additional struct {
				CacheNodeStateShortText string
			} `json:"additionalCacheNodeProperties"`
		}
	}
	a := p.do("GET", p.arm(nodePath)+"?"+armVersion, "")
	a.into(p.t, &n)
	return n.Properties.Additional.CacheNodeStateShortText, string(a.body)
}

func (p *plane) wantState(want string) {
	p.t.Helper()
	if got, all := p.state(); got != want {
		p.t.Errorf("the node is %q, want %q\n%s", got, want, all)
	}
}

// enrolledNode goes the documented way from nothing to a healthy node.
func (p *plane) enrolledNode() *enrolled {
	t := p.t
	t.Helper()
	if a := p.do("PUT", p.arm("")+"?api-version=2022-09-01", `{"location":"westeurope"}`); a.status != 201 {
		t.Fatalf("group: %d %s", a.status, a.body)
	}
	p.settle(p.do("PUT", p.arm(customerPath)+"?"+armVersion, `{"location":"westeurope","properties":{"customer":{"contactName":"Ada"}}}`))
	made := p.do("PUT", p.arm(nodePath)+"?"+armVersion, `{"location":"westeurope","properties":{"additionalCacheNodeProperties":{"osType":"Linux"}}}`)
	if made.status != 201 || !strings.Contains(string(made.body), `"Registration in Progress"`) {
		t.Errorf("the new node: %d %s", made.status, made.body)
	}
	p.settle(made)
	p.wantState("Not Configured")

	dir := t.TempDir()
	drive := filepath.ToSlash(filepath.Join(dir, "drive"))
	p.settle(p.do("PUT", p.arm(nodePath)+"?"+armVersion, fmt.Sprintf(`{"location":"westeurope","properties":{"cacheNode":{"autoUpdateRingType":"Stable","autoUpdateRequestedDay":2,"autoUpdateRequestedWeek":3,"autoUpdateRequestedTime":"03:00"},
		"additionalCacheNodeProperties":{"osType":"Linux","driveConfiguration":[{"physicalPath":%q,"sizeInGb":1}]}}}`, drive)))
	p.wantState("Not Provisioned")

	id, words := p.words()
	n := &enrolled{id: id}
	cfg := lardertest.NodeConfig{Dir: dir, YAML: nodeYAML}
	// The machine is set up first, as deploy does, and registers.
	first := lardertest.StartNode(t, cfg)
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"node", "register", "--config", filepath.Join(dir, "node.yaml")}, words...)
	if out, err := exec.Command(lardertest.Binary(t), args...).CombinedOutput(); err != nil {
		t.Fatalf("registering: %v\n%s", err, out)
	}
	n.Node = lardertest.StartNode(t, cfg)
	lardertest.Eventually(t, "the node is healthy and runs its document", func() bool {
		s, all := p.state()
		return s == "Healthy" && strings.Contains(all, id) && n.status().Control.Running == 1
	})
	// The same words again are refused: the key is used up.
	out, err := exec.Command(lardertest.Binary(t), append([]string{"node", "register", "--config", otherNode(t)}, words...)...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 4 || !strings.Contains(string(out), "was used") {
		t.Errorf("the same key on another machine: %v\n%s", err, out)
	}
	return n
}

// otherNode is the configuration of a machine that was never a node.
func otherNode(t *testing.T) string {
	t.Helper()
	n := lardertest.StartNode(t, lardertest.NodeConfig{YAML: nodeYAML})
	n.Kill()
	return filepath.Join(n.Dir, "node.yaml")
}

func (n *enrolled) status() node.Status {
	var s node.Status
	_, text := n.Get(node.PathStatus)
	_ = json.Unmarshal([]byte(text), &s) // an empty one says enough
	if s.Control == nil {
		return node.Status{Control: new(link.Status)}
	}
	return s
}

// What is asked of a node reaches it, what it cannot do it says, and without
// the control plane it starts, serves and keeps its document.
func TestANodeFollowsAndOutlivesItsControlPlane(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "")
	n := p.enrolledNode()
	at := "/api/larder/v1/nodes/" + n.id

	if a := p.do("PATCH", at+"/settings", `{"site":"North","limit":{"rate":1000000},"clientNames":["cache.example"]}`); a.status != 200 {
		t.Fatalf("settings: %d %s", a.status, a.body)
	}
	lardertest.Eventually(t, "document 2 runs", func() bool { return n.status().Control.Running == 2 })
	var diff struct {
		Running, Desired, Refused int64
		Differences               []struct{ Path string }
		Why                       string
	}
	lardertest.Eventually(t, "the control plane hears of it", func() bool {
		p.get(at+"/diff", &diff)
		return diff.Running == 2 && len(diff.Differences) == 0
	})
	// Commands beside the node judge certificates by the names that clients were
	// told here.
	look, err := exec.Command(lardertest.Binary(t), "tls", "preflight", "--config", filepath.Join(n.Dir, "node.yaml")).CombinedOutput()
	if !strings.Contains(string(look), "cache.example") {
		t.Errorf("preflight does not know the clients' names: %v\n%s", err, look)
	}
	if a := p.do("PATCH", at+"/settings", `{"catalog":{"builtin":["windoze"]}}`); a.status != 200 {
		t.Fatalf("settings: %d %s", a.status, a.body)
	}
	lardertest.Eventually(t, "the refusal is told", func() bool {
		p.get(at+"/diff", &diff)
		return diff.Refused == 3
	})
	if diff.Running != 2 || !strings.Contains(diff.Why, "windoze") || len(diff.Differences) == 0 || diff.Differences[0].Path != "catalog" {
		t.Errorf("got %+v, want that document 3 is refused because of windoze", diff)
	}
	p.wantState("Unhealthy")

	var settings struct {
		DoCacheHost string
		Registry    string
	}
	p.get("/api/larder/v1/client-settings?site=North", &settings)
	if settings.DoCacheHost != "cache.example" || !strings.Contains(settings.Registry, `"DOCacheHost"="cache.example"`) {
		t.Errorf("client settings: %+v", settings)
	}

	p.kill()
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	n.Node = lardertest.StartNode(t, lardertest.NodeConfig{Dir: n.Dir, YAML: nodeYAML})
	if s := n.status(); !s.Ready || s.Control.Running != 2 || s.Control.Connected {
		t.Errorf("without the control plane: ready %v, %+v; want document 2 and no connection", s.Ready, s.Control)
	}
}
