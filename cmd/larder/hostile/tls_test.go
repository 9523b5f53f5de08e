package hostile

import (
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// secure starts a node that speaks TLS.
func secure(t *testing.T) *lardertest.Node {
	t.Helper()
	dir := t.TempDir()
	lardertest.NewCA(t).Leaf(t, "127.0.0.1", "node.test").Install(t, dir+"/tls", "node")
	return lardertest.StartNode(t, lardertest.NodeConfig{Dir: dir})
}

// scan is what sslscan says, as far as it matters here.
type scan struct {
	Test struct {
		Protocols []struct {
			Type    string `xml:"type,attr"`
			Version string `xml:"version,attr"`
			Enabled string `xml:"enabled,attr"`
		} `xml:"protocol"`
		Renegotiation struct {
			Supported string `xml:"supported,attr"`
		} `xml:"renegotiation"`
		Compression struct {
			Supported string `xml:"supported,attr"`
		} `xml:"compression"`
		Heartbleed []struct {
			Vulnerable string `xml:"vulnerable,attr"`
		} `xml:"heartbleed"`
		Fallback struct {
			Supported string `xml:"supported,attr"`
		} `xml:"fallback"`
		Ciphers []struct {
			Version string `xml:"sslversion,attr"`
			Bits    int    `xml:"bits,attr"`
			Cipher  string `xml:"cipher,attr"`
		} `xml:"cipher"`
		Groups []struct {
			Name string `xml:"name,attr"`
			Bits int    `xml:"bits,attr"`
		} `xml:"group"`
	} `xml:"ssltest"`
}

// A scanner of the distribution finds two versions of TLS, ciphers with forward
// secrecy and authenticated encryption, and nothing of what is known to be weak.
func TestScanner(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("sslscan"); err != nil {
		t.Skip("there is no sslscan on this machine")
	}
	t.Run("node", func(t *testing.T) {
		t.Parallel()
		scanned(t, secure(t).HTTPS)
	})
	t.Run("control plane", func(t *testing.T) {
		t.Parallel()
		scanned(t, controlPlane(t))
	})
}

// controlPlane starts one and returns its address.
func controlPlane(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "control.yaml")
	if err := os.WriteFile(config, []byte(fmt.Sprintf("listen: \"127.0.0.1:0\"\nnames: [localhost, 127.0.0.1]\nstate: %q\n", filepath.Join(dir, "state"))), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(lardertest.Binary(t), "control", "run", "--config", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var at struct{ Control string }
	lardertest.Eventually(t, "the control plane listens", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "state", "addresses.json"))
		return err == nil && json.Unmarshal(b, &at) == nil && at.Control != ""
	})
	return at.Control
}

// scanned looks at what a scanner says of an address.
func scanned(t *testing.T, addr string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sslscan", "--xml=-", "--no-colour", addr).Output()
	if err != nil {
		t.Fatal(err)
	}
	var s scan
	if err := xml.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	enabled := map[string]bool{}
	for _, p := range s.Test.Protocols {
		enabled[p.Type+" "+p.Version] = p.Enabled == "1"
	}
	for _, p := range []string{"ssl 2", "ssl 3", "tls 1.0", "tls 1.1"} {
		if on, known := enabled[p]; on || !known {
			t.Errorf("%s: enabled %v, looked for %v; want it off", p, on, known)
		}
	}
	if !enabled["tls 1.2"] || !enabled["tls 1.3"] {
		t.Errorf("TLS 1.2 and 1.3 are not both spoken: %v", enabled)
	}
	if s.Test.Renegotiation.Supported != "0" || s.Test.Compression.Supported == "1" { // what its OpenSSL cannot try is left out
		t.Errorf("renegotiation %q, compression %q; want neither", s.Test.Renegotiation.Supported, s.Test.Compression.Supported)
	}
	for _, h := range s.Test.Heartbleed {
		if h.Vulnerable != "0" {
			t.Error("Heartbleed")
		}
	}
	if len(s.Test.Ciphers) < 4 {
		t.Errorf("only %d ciphers were found:\n%s", len(s.Test.Ciphers), out)
	}
	for _, c := range s.Test.Ciphers {
		forward := strings.HasPrefix(c.Cipher, "ECDHE-") || strings.HasPrefix(c.Cipher, "TLS_")
		sealed := strings.Contains(c.Cipher, "GCM") || strings.Contains(c.Cipher, "POLY1305")
		if !forward || !sealed || c.Bits < 128 {
			t.Errorf("%s %s of %d bits is weak", c.Version, c.Cipher, c.Bits)
		}
	}
	for _, g := range s.Test.Groups {
		if g.Bits < 112 {
			t.Errorf("the group %s has %d bits", g.Name, g.Bits)
		}
	}
}

// What a scanner does not ask: a client that names nobody is shown the
// certificate, one that wants to negotiate anew is left alone, and a session of
// the process before is nobody's.
func TestHandshakes(t *testing.T) {
	t.Parallel()
	n := secure(t)
	cfg := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(4), MaxVersion: tls.VersionTLS12}
	shake := func(addr string) tls.ConnectionState {
		t.Helper()
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState()
	}
	first := shake(n.HTTPS) // an address is no server name (RFC 6066, section 3)
	if len(first.PeerCertificates) == 0 || first.DidResume {
		t.Errorf("without a name: %d certificates", len(first.PeerCertificates))
	}
	if again := shake(n.HTTPS); !again.DidResume {
		t.Error("a session is not taken up again: each connection costs a signature")
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	// The same port, so that the client looks for its session.
	addr := n.HTTPS
	n = lardertest.StartNode(t, lardertest.NodeConfig{Dir: n.Dir, YAML: strings.Replace(lardertest.DefaultNodeConfig, `https: ["127.0.0.1:0"]`, `https: ["`+addr+`"]`, 1)})
	if after := shake(n.HTTPS); after.DidResume {
		t.Error("the keys of tickets outlive the process: they lie somewhere")
	}
}
