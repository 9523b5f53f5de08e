package controlplane_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
	"larder/internal/pki/authority"
)

func TestMain(m *testing.M) { lardertest.Main(m) }

// plane is a control plane of the real binary.
type plane struct {
	t       *testing.T
	dir     string
	url     string
	token   string // of an owner
	client  string // its id for OAuth
	http    *http.Client
	roots   *x509.CertPool
	sub     string
	binary  string // "": the one of the tree
	process *exec.Cmd
	done    chan struct{}
	logs    bytes.Buffer
}

// start starts a control plane on a database, SQLite in dir if url is "".
func start(t *testing.T, dir, url string) *plane {
	t.Helper()
	p := &plane{t: t, dir: dir}
	text := fmt.Sprintf("listen: \"127.0.0.1:0\"\nnames: [localhost, 127.0.0.1]\nstate: %q\n", filepath.Join(dir, "state"))
	if url != "" {
		text += fmt.Sprintf("database: {url: %q}\n", url)
	}
	if err := os.WriteFile(filepath.Join(dir, "control.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.run()
	p.token = strings.TrimSpace(p.larder("control", "token", "create", "--name", "test", "--role", "owner", "--config", p.config()))
	var list struct {
		Value []struct{ ID, SubscriptionID string }
	}
	p.get("/subscriptions?api-version=2022-12-01", &list)
	p.sub = list.Value[0].SubscriptionID
	var tokens struct{ Value []struct{ ID string } }
	p.get("/api/larder/v1/tokens", &tokens)
	p.client = tokens.Value[0].ID
	return p
}

func (p *plane) config() string { return filepath.Join(p.dir, "control.yaml") }

func (p *plane) larder(args ...string) string {
	p.t.Helper()
	cmd := exec.Command(lardertest.Binary(p.t), args...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil {
		p.t.Fatalf("larder %s: %v\n%s%s", args[0], err, out.String(), talk.String())
	}
	return out.String()
}

// run starts the process and waits until it answers.
func (p *plane) run() {
	p.t.Helper()
	binary := p.binary
	if binary == "" {
		binary = lardertest.Binary(p.t)
	}
	p.process = exec.Command(binary, "control", "run", "--config", p.config())
	p.process.Stdout, p.process.Stderr = &p.logs, &p.logs
	if err := p.process.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		defer close(done)
		cmd.Wait()
	}(p.process, p.done)
	p.t.Cleanup(p.kill)
	lardertest.Eventually(p.t, "the control plane says where it listens", func() bool {
		b, err := os.ReadFile(filepath.Join(p.dir, "state", "addresses.json"))
		var a struct{ Control string }
		if err != nil || json.Unmarshal(b, &a) != nil {
			return false
		}
		p.url = "https://" + a.Control
		return p.trust()
	})
}

// trust learns the control plane's root, as an administrator does who gets it
// from its machine.
func (p *plane) trust() bool {
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer insecure.CloseIdleConnections()
	resp, err := insecure.Get(p.url + "/ca.pem")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return false
	}
	cfg, err := authority.TrustRoots(string(b))
	if err != nil {
		return false
	}
	p.roots = cfg.RootCAs
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots}}
	p.t.Cleanup(tr.CloseIdleConnections)
	p.http = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return true
}

func (p *plane) kill() {
	select {
	case <-p.done:
		return
	default:
	}
	p.process.Process.Kill()
	<-p.done
	if p.t.Failed() {
		p.t.Logf("the control plane said:\n%s", p.logs.String())
	}
}

// answer is what the control plane said.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}

// do asks with the owner's token. body is JSON text, "" for none.
func (p *plane) do(method, path, body string, fields ...string) answer {
	p.t.Helper()
	return p.as(p.token, method, path, body, fields...)
}

func (p *plane) as(token, method, path, body string, fields ...string) answer {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	url := path
	if strings.HasPrefix(path, "/") {
		url = p.url + path
	}
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Accept", "application/json")
	for _, f := range fields {
		k, v, _ := strings.Cut(f, ": ")
		req.Header.Set(k, v)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, b}
}

func (p *plane) get(path string, v any) {
	p.t.Helper()
	a := p.do("GET", path, "")
	if a.status != 200 {
		p.t.Fatalf("GET %s: %d %s", path, a.status, a.body)
	}
	a.into(p.t, v)
}

const armVersion = "api-version=2026-06-01"

func (p *plane) arm(rest string) string {
	return "/subscriptions/" + p.sub + "/resourceGroups/schools" + rest
}

const customerPath = "/providers/Microsoft.ConnectedCache/enterpriseMccCustomers/north"
const nodePath = customerPath + "/enterpriseMccCacheNodes/room-1"

// settle waits until an operation has ended.
func (p *plane) settle(a answer) {
	p.t.Helper()
	at := a.header.Get("Azure-AsyncOperation")
	if at == "" || a.status >= 300 {
		p.t.Fatalf("no operation to follow: %d %s", a.status, a.body)
	}
	var status struct {
		Status string
		Error  json.RawMessage
	}
	lardertest.Eventually(p.t, "the operation ends", func() bool {
		p.do("GET", at, "").into(p.t, &status)
		return status.Status != "InProgress"
	})
	if status.Status != "Succeeded" {
		p.t.Fatalf("the operation ended as %s: %s", status.Status, status.Error)
	}
}
