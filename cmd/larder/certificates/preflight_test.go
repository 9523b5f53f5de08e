package certificates_test

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"larder/internal/lardertest"
	"larder/internal/pki/preflight"
)

// look runs "larder tls preflight" in both forms and returns what it found. The
// table must say of each check what the JSON says.
func look(t *testing.T, exit int, args ...string) []preflight.Check {
	t.Helper()
	args = append([]string{"tls", "preflight"}, args...)
	table := larder(t, args...)
	r := larder(t, append(args, "-o", "json")...)
	if table.exit != exit || r.exit != exit {
		t.Errorf("exit codes %d and, as JSON, %d; want %d: %s", table.exit, r.exit, exit, table)
	}
	checks := decode[[]preflight.Check](t, r)
	failed := 0
	for _, c := range checks {
		if c.Found == "" || c.Why == "" || c.Do == "" && (c.Result == preflight.Failed || c.Result == preflight.Warning) {
			t.Errorf("%+v; want what was found, why it matters and what to do", c)
		}
		if c.Result == preflight.Failed {
			failed++
		}
		if head := fmt.Sprintf("[%s] %s\n  found: ", c.Result, c.Title); !strings.Contains(table.stdout, head) {
			t.Errorf("the table lacks %q:\n%s", head, table.stdout)
		}
		if !strings.Contains(table.stdout, "\n  why:   "+c.Why) {
			t.Errorf("the table lacks why %q", c.Why)
		}
		if first, _, _ := strings.Cut(c.Do, "\n"); !strings.Contains(table.stdout, "  do:    "+first) && first != "" {
			t.Errorf("the table lacks what to do, %q:\n%s", first, table.stdout)
		}
	}
	if end := fmt.Sprintf("larder: %d check", failed); failed > 0 != strings.Contains(table.stderr, end) {
		t.Errorf("%d failed, stderr says %q", failed, table.stderr)
	}
	return checks
}

// check is the one check of a kind whose title has these words.
func check(t *testing.T, checks []preflight.Check, id, title string) preflight.Check {
	t.Helper()
	var found []preflight.Check
	for _, c := range checks {
		if c.ID == id && strings.Contains(c.Title, title) {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d checks %s of %q, want one: %+v", len(found), id, title, checks)
	}
	return found[0]
}

func wantCheck(t *testing.T, c preflight.Check, result preflight.Result, words ...string) {
	t.Helper()
	if c.Result != result {
		t.Errorf("%s: %s, want %s: %+v", c.Title, c.Result, result, c)
	}
	for _, w := range words {
		if !strings.Contains(c.Found+"\n"+c.Do, w) {
			t.Errorf("%s: want %q in it: %+v", c.Title, w, c)
		}
	}
}

// Before there is anything: no node, no certificate, not even a directory, and
// nothing of that changes.
func TestPreflightBeforeAnything(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tls")
	address := fmt.Sprintf("127.0.0.1:%d", port(t))
	checks := look(t, 0, "--dir", dir, "--https", address, "--client-names", "localhost,nowhere.invalid,127.0.0.1")
	wantCheck(t, check(t, checks, preflight.IDVersion, ""), preflight.Info, "no node is running here")
	wantCheck(t, check(t, checks, preflight.IDPort, address), preflight.OK, "free")
	wantCheck(t, check(t, checks, preflight.IDNames, ""), preflight.Warning, "nowhere.invalid", "localhost: ask a client where it leads")
	names := check(t, checks, preflight.IDNames, "")
	if !strings.Contains(names.Found, "nowhere.invalid (configuration): does not resolve") && !strings.Contains(names.Found, "nowhere.invalid (configuration): where it leads could not be learnt") {
		t.Errorf("names: %+v", names)
	}
	if !strings.Contains(names.Do, "nowhere.invalid: ") {
		t.Errorf("nothing to do about a name that leads nowhere: %+v", names)
	}
	// A certificate made up for the moment shows that nothing is in between.
	wantCheck(t, check(t, checks, preflight.IDIntercept, "localhost"), preflight.OK, "made up for this check")
	wantCheck(t, check(t, checks, preflight.IDClient, ""), preflight.Info, "openssl s_client -connect localhost:"+address[len("127.0.0.1:"):], "curl -vk", "PowerShell")
	wantCheck(t, check(t, checks, preflight.IDCertificate, ""), preflight.Info, "none yet", "larder tls csr")
	wantCheck(t, check(t, checks, preflight.IDFiles, ""), preflight.OK, "can be made")
	if _, err := os.Lstat(dir); err == nil {
		t.Error("preflight made the TLS directory; it says that nothing is changed")
	}
}

func TestPreflightOnTheRunningNode(t *testing.T) {
	t.Parallel()
	plain, secure := port(t), port(t)
	s := newSite(t, fixedPorts(plain, secure))
	here := fmt.Sprintf("127.0.0.1:%d", secure)
	checks := look(t, 0, "--config", s.config(), "--client-names", "127.0.0.1")
	wantCheck(t, check(t, checks, preflight.IDPort, here), preflight.OK, "free")

	s.first(t)
	leaf := s.shown(t)
	served := fmt.Sprintf("%x", sha256.Sum256(leaf.Raw))
	args := []string{"--config", s.config(), "--client-names", "localhost,127.0.0.1"}
	checks = look(t, 0, args...)
	wantCheck(t, check(t, checks, preflight.IDVersion, ""), preflight.OK)
	wantCheck(t, check(t, checks, preflight.IDPort, here), preflight.OK, "this node serves HTTPS here")
	wantCheck(t, check(t, checks, preflight.IDIntercept, here), preflight.OK, "nothing on this way opens TLS", served)
	wantCheck(t, check(t, checks, preflight.IDCertificate, ""), preflight.OK, served, "days left")
	wantCheck(t, check(t, checks, preflight.IDFiles, ""), preflight.OK, "can be written to")
	wantCheck(t, check(t, checks, preflight.IDTLS, ""), preflight.OK)

	// What somebody saw on a client, in the ways in which programs print it.
	fingerprint := openssl(t, certificatePEM(leaf.Raw), "x509", "-noout", "-subject", "-issuer", "-fingerprint", "-sha1")
	for _, seen := range []string{served, fingerprint, s.write(t, "seen.pem", certificatePEM(leaf.Raw))} {
		wantCheck(t, check(t, look(t, 0, append(args, "--seen", seen)...), preflight.IDClient, ""), preflight.OK, "nothing between them opens TLS")
	}
	proxy := lardertest.NewCA(t).Leaf(t, "localhost")
	other := fmt.Sprintf("%x", sha256.Sum256(proxy.Cert.Raw))
	wantCheck(t, check(t, look(t, 1, append(args, "--seen", other)...), preflight.IDClient, ""), preflight.Failed, "a client sees another certificate", other, served, "TLS inspection")
	wantCheck(t, check(t, look(t, 1, append(args, "--seen", s.write(t, "other.pem", string(proxy.CertPEM)))...), preflight.IDClient, ""), preflight.Failed, "issued by CN=Test authority")
	wantCheck(t, check(t, look(t, 1, append(args, "--seen", "it works for me")...), preflight.IDClient, ""), preflight.Failed, "expected a SHA-1 or SHA-256 thumbprint")

	// Somebody between, for a name of ours: a server that shows its own.
	between := opensslServer(t, string(proxy.CertPEM), string(proxy.KeyPEM))
	wantCheck(t, check(t, look(t, 1, append(args, "--connect", between.address)...), preflight.IDIntercept, between.address), preflight.Failed, other, served)
	if !s.shown(t).Equal(leaf) {
		t.Error("another certificate is served after looking")
	}
}

// Where only the directory is named, the node there says where it serves.
func TestPreflightOfADirectoryAsksItsNode(t *testing.T) {
	t.Parallel()
	plain, secure := port(t), port(t)
	s := newSite(t, fixedPorts(plain, secure))
	here := fmt.Sprintf("127.0.0.1:%d", secure)
	checks := look(t, 0, "--dir", s.tls, "--client-names", "127.0.0.1")
	wantCheck(t, check(t, checks, preflight.IDPort, here), preflight.OK, "free")
	s.first(t)
	checks = look(t, 0, "--dir", s.tls, "--client-names", "127.0.0.1")
	wantCheck(t, check(t, checks, preflight.IDPort, here), preflight.OK, "this node serves HTTPS here")
	wantCheck(t, check(t, checks, preflight.IDIntercept, here), preflight.OK, "nothing on this way opens TLS")
}

func certificatePEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// holder is a process that has a port.
type holder struct {
	address string
	pid     int
}

// opensslServer starts "openssl s_server" with a certificate.
func opensslServer(t *testing.T, cert, key string) holder {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := holder{address: fmt.Sprintf("127.0.0.1:%d", port(t))}
	cmd := exec.Command("openssl", "s_server", "-accept", h.address, "-cert", filepath.Join(dir, "cert.pem"), "-key", filepath.Join(dir, "key.pem"), "-www")
	startDaemon(t, cmd, func() bool {
		conn, err := net.Dial("tcp", h.address)
		return err == nil && conn.Close() == nil
	})
	h.pid = cmd.Process.Pid
	return h
}

func TestPreflightNamesWhoHoldsThePort(t *testing.T) {
	t.Parallel()
	pair := lardertest.NewCA(t).Leaf(t, "localhost", "127.0.0.1")
	h := opensslServer(t, string(pair.CertPEM), string(pair.KeyPEM))
	dir := filepath.Join(t.TempDir(), "tls")
	checks := look(t, 1, "--dir", dir, "--https", h.address, "--client-names", "127.0.0.1")
	c := check(t, checks, preflight.IDPort, h.address)
	wantCheck(t, c, preflight.Failed, "stop that program or let it use another port")
	if runtime.GOOS == "linux" {
		wantCheck(t, c, preflight.Failed, fmt.Sprintf("held by openssl (process %d, ", h.pid), "ss -ltnp")
	}
	// And it is noticed that its certificate is not this node's.
	wantCheck(t, check(t, checks, preflight.IDIntercept, h.address), preflight.Warning, "issued by CN=Test authority", "this node has none to show")

	// A node that is to have the port cannot, and its own command says the same.
	said, _ := lardertest.StartNodeFails(t, lardertest.NodeConfig{YAML: strings.Replace(lardertest.DefaultNodeConfig, `http: ["127.0.0.1:0"]`, `http: ["`+h.address+`"]`, 1)})
	if !strings.Contains(said, h.address) {
		t.Errorf("the node said %s", said)
	}
}

func TestPreflightOfFilesThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	address := fmt.Sprintf("127.0.0.1:%d", port(t))
	dir := filepath.Join(t.TempDir(), "tls")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "keys"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	checks := look(t, 1, "--dir", dir, "--https", address, "--client-names", "127.0.0.1")
	wantCheck(t, check(t, checks, preflight.IDFiles, ""), preflight.Failed, filepath.Join(dir, "keys")+" is a file, expected a directory", "move "+filepath.Join(dir, "keys")+" away")
	wantCheck(t, check(t, checks, preflight.IDPort, address), preflight.OK, "free") // the rest was looked at too

	// The directory itself is a file.
	file := filepath.Join(t.TempDir(), "tls")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	checks = look(t, 1, "--dir", file, "--https", address, "--client-names", "127.0.0.1")
	wantCheck(t, check(t, checks, preflight.IDFiles, ""), preflight.Failed, file+" is a file, expected a directory")
}

// A name of the configuration is a name that clients use.
func TestPreflightLooksAtTheNamesOfTheConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := strings.ReplaceAll(strings.Replace(lardertest.DefaultNodeConfig, `tls: {dir: "$DIR/tls"}`, `tls: {dir: "$DIR/tls", client_names: [cache.invalid]}`, 1), "$DIR", dir)
	for _, sub := range []string{"drive", "catalog.d"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "node.yaml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	checks := look(t, 0, "--config", config)
	wantCheck(t, check(t, checks, preflight.IDNames, ""), preflight.Warning, "cache.invalid (configuration): ")
	wantCheck(t, check(t, checks, preflight.IDPort, "127.0.0.1:0"), preflight.Warning, "the system will choose a port", "clients come to port 443, and no listener is on it")
}
