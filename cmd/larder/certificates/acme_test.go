package certificates_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"larder/internal/lardertest"
	"larder/internal/pki/caretaker"
)

// A program that runs beside a test until its end.
type daemon struct {
	mu  sync.Mutex
	buf strings.Builder // guarded by mu
}

func (d *daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.buf.Write(p)
}

func (d *daemon) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.buf.String()
}

// startDaemon runs cmd and waits until ready.
func startDaemon(t *testing.T, cmd *exec.Cmd, ready func() bool) *daemon {
	t.Helper()
	d := new(daemon)
	cmd.Stdout, cmd.Stderr = d, d
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), d)
		}
	})
	lardertest.Eventually(t, cmd.Path+" to be ready", func() bool {
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", cmd.Path, d)
		default:
		}
		return ready()
	})
	return d
}

// acmeCA starts Let's Encrypt's test authority, which looks for proofs at the
// given ports of 127.0.0.1. It returns its directory and the root of its own
// server.
func acmeCA(t *testing.T, httpPort, tlsPort int) (directory, ca string) {
	t.Helper()
	program := lardertest.Tool(t, lardertest.Pebble)
	dir := t.TempDir()
	own := lardertest.NewCA(t)
	pair := own.Leaf(t, "localhost", "127.0.0.1")
	write := func(name string, data []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	address, manage := fmt.Sprintf("127.0.0.1:%d", port(t)), fmt.Sprintf("127.0.0.1:%d", port(t))
	text, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": address, "managementListenAddress": manage, "certificate": write("cert.pem", pair.CertPEM), "privateKey": write("key.pem", pair.KeyPEM),
		"httpPort": httpPort, "tlsPort": tlsPort, "keyAlgorithm": "ecdsa",
	}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-config", write("config.json", text))
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=20")
	startDaemon(t, cmd, func() bool {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: own.Pool()})
		return err == nil && conn.Close() == nil
	})
	return "https://" + address + "/dir", write("ca.pem", own.PEM)
}

// fixedPorts is a configuration with ports that an authority can be told
// before the node runs.
func fixedPorts(plain, secure int) string {
	return strings.NewReplacer(`http: ["127.0.0.1:0"]`, fmt.Sprintf(`http: ["127.0.0.1:%d"]`, plain), `https: ["127.0.0.1:0"]`, fmt.Sprintf(`https: ["127.0.0.1:%d"]`, secure)).
		Replace(lardertest.DefaultNodeConfig)
}

func TestACMEThroughTheNodesOwnPorts(t *testing.T) {
	t.Parallel()
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			plain, secure := port(t), port(t)
			directory, ca := acmeCA(t, plain, secure)
			s := &site{pki: &pki{dir: t.TempDir()}}
			s.Node = lardertest.StartNode(t, lardertest.NodeConfig{YAML: fixedPorts(plain, secure)})
			s.tls = filepath.Join(s.Dir, "tls")
			r := must(t, "tls", "auto", "--dir", s.tls, "--acme", directory, "--ca", ca, "--agree-terms", "--challenge", challenge, "--san-ip", "127.0.0.1", "-o", "json")
			got := decode[struct {
				Auto *caretaker.Auto `json:"auto"`
			}](t, r)
			if got.Auto == nil || got.Auto.Method != "acme" || got.Auto.LastError != "" || got.Auto.LastSuccess.IsZero() || got.Auto.NextAttempt.Before(got.Auto.LastSuccess) {
				t.Errorf("auto: %s", r)
			}
			if !s.Refresh() || s.HTTPS == "" {
				t.Fatal("HTTPS is not open")
			}
			first, err := s.handshake(t, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := first.PeerCertificates[0].VerifyHostname("127.0.0.1"); err != nil {
				t.Error(err)
			}
			// Renewed by hand, with another key, while the port is in use.
			must(t, "tls", "renew", "--dir", s.tls)
			second, err := s.handshake(t, &tls.Config{InsecureSkipVerify: true})
			if err != nil || second.PeerCertificates[0].Equal(first.PeerCertificates[0]) {
				t.Errorf("not renewed: %v", err)
			}
			// The authority was asked when it would like to renew (RFC 9773).
			lardertest.Eventually(t, "the authority's window", func() bool {
				shown := decode[struct{ Auto *caretaker.Auto }](t, must(t, "tls", "auto", "--dir", s.tls, "-o", "json"))
				return shown.Auto.Why == "when the authority suggests" && !shown.Auto.NextAttempt.Before(shown.Auto.RenewFrom) && !shown.Auto.NextAttempt.After(shown.Auto.RenewTo)
			})
			// Nothing is left of the proofs, and nobody can tell a token.
			if status, _ := s.Get("/healthz"); status != 200 {
				t.Errorf("health: %d", status)
			}
			if _, err := s.handshake(t, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"acme-tls/1"}}); err == nil {
				t.Error("a challenge that is over is answered")
			}
			for _, name := range []string{"credentials", "auto.yaml"} {
				info, err := os.Stat(filepath.Join(s.tls, name))
				if err != nil || info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s: %v, %v; want it private", name, info.Mode(), err)
				}
			}
		})
	}
}

// With nothing that answers, the authority's words reach the administrator, and
// the node goes on without HTTPS.
func TestACMEFailureIsExplained(t *testing.T) {
	t.Parallel()
	directory, ca := acmeCA(t, port(t), port(t)) // where nobody listens
	s := &site{pki: &pki{dir: t.TempDir()}}
	s.Node = lardertest.StartNode(t, lardertest.NodeConfig{})
	s.tls = filepath.Join(s.Dir, "tls")
	r := larder(t, "tls", "auto", "--dir", s.tls, "--acme", directory, "--ca", ca, "--agree-terms", "--san-ip", "127.0.0.1")
	if r.exit == 0 || !strings.Contains(r.stderr, "settings are kept") || !strings.Contains(r.stderr, "127.0.0.1") || !strings.Contains(r.stderr, "http-01") {
		t.Errorf("%s; want the name and the challenge", r)
	}
	shown := larder(t, "tls", "auto", "--dir", s.tls)
	if shown.exit != 0 || !strings.Contains(shown.stdout, "failed, 1 failure in a row") || !strings.Contains(shown.stdout, "next attempt on") {
		t.Errorf("%s; want the failure and the next attempt", shown)
	}
	if problems := decode[struct{ Problems []string }](t, must(t, "node", "status", "--admin", s.Admin, "-o", "json")).Problems; len(problems) == 0 || !strings.Contains(strings.Join(problems, " "), "renew") {
		t.Errorf("status: problems %q, want the failed renewal", problems)
	}
	if got := s.Metric("larder_tls_renewal_failures_total"); got < 1 {
		t.Errorf("the metric counts %v failures", got)
	}
}
