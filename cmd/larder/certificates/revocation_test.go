//go:build unix

package certificates_test

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"larder/internal/lardertest"
)

// A revoker is an authority that says which of its certificates it revoked: by
// OCSP, from OpenSSL's responder, and by a list.
type revoker struct {
	*pki
	conf    string
	ocsp    string // URL
	crl     string // URL
	restart func() // the responder, with what was revoked meanwhile
}

func newRevoker(t *testing.T) *revoker {
	t.Helper()
	r := &revoker{pki: newPKI(t)}
	r.write(t, "index.txt", "")
	r.write(t, "serial", "1001\n")
	r.write(t, "crlnumber", "01\n")
	address := fmt.Sprintf("127.0.0.1:%d", port(t))
	lists := httptest.NewServer(http.FileServer(http.Dir(r.dir)))
	t.Cleanup(lists.Close)
	r.ocsp, r.crl = "http://"+address+"/", lists.URL+"/ca.crl"
	r.conf = r.write(t, "ca.conf", fmt.Sprintf(`[ca]
default_ca = d
[d]
database = %[1]s/index.txt
serial = %[1]s/serial
crlnumber = %[1]s/crlnumber
new_certs_dir = %[1]s
certificate = %[1]s/ca.pem
private_key = %[1]s/ca.key
default_md = sha256
default_days = 30
default_crl_days = 7
policy = p
copy_extensions = copyall
x509_extensions = x
unique_subject = no
[p]
commonName = supplied
[x]
authorityKeyIdentifier = keyid
authorityInfoAccess = OCSP;URI:%[2]s
crlDistributionPoints = URI:%[3]s
`, r.dir, r.ocsp, r.crl))
	r.lists(t)
	var stop func()
	r.restart = func() {
		if stop != nil {
			stop()
		}
		cmd := exec.Command("openssl", "ocsp", "-index", r.path("index.txt"), "-port", address[strings.LastIndexByte(address, ':')+1:], "-rsigner", r.path("ca.pem"), "-rkey", r.path("ca.key"), "-CA", r.path("ca.pem"), "-ndays", "1")
		said := new(daemon)
		cmd.Stdout, cmd.Stderr = said, said
		ended := make(chan struct{})
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			defer close(ended)
			_ = cmd.Wait() // it is killed
		}()
		stop = func() {
			_ = cmd.Process.Kill()
			<-ended
		}
		// Not by a connection: it would wait for a question on that.
		lardertest.Eventually(t, "the responder", func() bool { return strings.Contains(said.String(), "ACCEPT") })
	}
	r.restart()
	t.Cleanup(func() { stop() })
	return r
}

// issue signs a request and returns the chain.
func (r *revoker) issue(t *testing.T, csr, name string) string {
	t.Helper()
	openssl(t, "", "ca", "-batch", "-notext", "-config", r.conf, "-in", csr, "-out", r.path(name))
	r.restart()
	return r.chain(t, read(t, r.path(name)))
}

func (r *revoker) revoke(t *testing.T, name string) {
	t.Helper()
	openssl(t, "", "ca", "-config", r.conf, "-revoke", r.path(name), "-crl_reason", "keyCompromise")
	r.lists(t)
	r.restart()
}

// lists writes the list of what is revoked.
func (r *revoker) lists(t *testing.T) {
	t.Helper()
	openssl(t, "", "ca", "-config", r.conf, "-gencrl", "-out", r.path("ca.crl.pem"))
	openssl(t, "", "crl", "-in", r.path("ca.crl.pem"), "-outform", "DER", "-out", r.path("ca.crl"))
}

// revokedSite is a node with two certificates of a revoker, the second in use.
func revokedSite(t *testing.T, onRevoked string) (*site, *revoker, []*x509.Certificate) {
	t.Helper()
	r := newRevoker(t)
	s := &site{pki: r.pki}
	s.Node = lardertest.StartNode(t, lardertest.NodeConfig{YAML: strings.Replace(lardertest.DefaultNodeConfig, `tls: {dir: "$DIR/tls"}`, `tls: {dir: "$DIR/tls", on_revoked: `+onRevoked+`}`, 1)})
	s.tls = filepath.Join(s.Dir, "tls")
	csr := s.request(t, "node")
	var certs []*x509.Certificate
	for _, name := range []string{"first.crt", "second.crt"} {
		s.drop(t, name, r.issue(t, csr, name))
		must(t, "tls", "import", name, "--dir", s.tls, "--root", r.path("root.pem"))
		s.Refresh()
		certs = append(certs, s.shown(t))
	}
	return s, r, certs
}

// askAgain has the node ask now instead of tomorrow.
func (s *site) askAgain(t *testing.T) {
	t.Helper()
	if err := s.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

func TestAnswersAreStapledAndRevokedOnesFallBack(t *testing.T) {
	t.Parallel()
	s, r, certs := revokedSite(t, "previous")
	stapled := func() string {
		return openssl(t, "", "s_client", "-connect", s.HTTPS, "-servername", "localhost", "-CAfile", r.path("root.pem"), "-status")
	}
	lardertest.Eventually(t, "an answer is stapled", func() bool { return s.Metric("larder_tls_stapled_info") == 1 })
	if out := stapled(); !strings.Contains(out, "OCSP Response Status: successful") || !strings.Contains(out, "Cert Status: good") {
		t.Errorf("s_client -status says\n%s", out)
	}
	if show := must(t, "tls", "show", "--dir", s.tls); !strings.Contains(show.stdout, "good, asked on") || !strings.Contains(show.stdout, "stapled") {
		t.Errorf("show: %s", show)
	}

	r.revoke(t, "second.crt")
	s.askAgain(t)
	lardertest.Eventually(t, "the first certificate is served again", func() bool { return s.shown(t).Equal(certs[0]) })
	list := must(t, "tls", "list", "--dir", s.tls)
	if !strings.Contains(list.stdout, "second  revoked") || !strings.Contains(list.stdout, "first   active") {
		t.Errorf("list: %s", list)
	}
	if got := s.Metric("larder_tls_revocations_total"); got != 1 {
		t.Errorf("the metric counts %v revocations, want 1", got)
	}
	again := larder(t, "tls", "import", "second", "--dir", s.tls)
	if again.exit == 0 || !strings.Contains(again.stderr, "revoked on") || !strings.Contains(again.stderr, "OCSP") {
		t.Errorf("imported a revoked one: %s", again)
	}
	if r := larder(t, "tls", "enable", "second", "--dir", s.tls); r.exit != 5 || !strings.Contains(r.stderr, "revoked") {
		t.Errorf("enabled a revoked one: %s", r)
	}

	r.revoke(t, "first.crt")
	s.askAgain(t)
	lardertest.Eventually(t, "HTTPS is off", func() bool { return s.Refresh() && s.HTTPS == "" })
	lardertest.Eventually(t, "the status says why", func() bool {
		return strings.Contains(must(t, "node", "status", "--admin", s.Admin).stdout, "HTTPS is off: the certificate was revoked on")
	})
	if show := must(t, "tls", "show", "--dir", s.tls); !strings.Contains(show.stdout, "revoked") {
		t.Errorf("show: %s", show)
	}
}

func TestRevokedIsServedOnWhereThatIsConfigured(t *testing.T) {
	t.Parallel()
	s, r, certs := revokedSite(t, "keep")
	r.revoke(t, "second.crt")
	s.askAgain(t)
	lardertest.Eventually(t, "the alert", func() bool { return s.Metric("larder_tls_revocations_total") == 1 })
	if !s.shown(t).Equal(certs[1]) {
		t.Error("another certificate is served")
	}
	lardertest.Eventually(t, "the status to say so", func() bool {
		status := must(t, "node", "status", "--admin", s.Admin)
		return strings.Contains(status.stdout, "was revoked") && strings.Contains(status.stdout, "degraded")
	})
}

// A list is looked at where there is no responder, and an authority that
// cannot be reached does not stop an import.
func TestListsAreLookedAtOnImport(t *testing.T) {
	t.Parallel()
	r := newRevoker(t)
	dir := filepath.Join(t.TempDir(), "tls")
	text := strings.Replace(read(t, r.conf), "authorityInfoAccess", "#authorityInfoAccess", 1)
	r.conf = r.write(t, "nocsp.conf", text)
	must(t, "tls", "csr", "--dir", dir, "--algo", "EC", "--csr-name", "node", "--subject-common-name", "localhost", "--san-dns", "localhost")
	csr := filepath.Join(dir, "certs", "node.csr")
	bad := r.write(t, "bad.pem", r.issue(t, csr, "bad.crt"))
	good := r.write(t, "good.pem", r.issue(t, csr, "good.crt"))
	r.revoke(t, "bad.crt")
	if got := larder(t, "tls", "import", bad, "--dir", dir, "--root", r.path("root.pem")); got.exit == 0 || !strings.Contains(got.stderr, "revoked on") || !strings.Contains(got.stderr, "CRL http://") {
		t.Errorf("a revoked one: %s", got)
	}
	if got := must(t, "tls", "import", good, "--dir", dir, "--root", r.path("root.pem")); strings.Contains(got.stderr, "revoked") {
		t.Errorf("a good one: %s", got)
	}
	if err := os.Remove(r.path("ca.crl")); err != nil {
		t.Fatal(err)
	}
	next := r.write(t, "next.pem", r.issue(t, csr, "next.crt"))
	if got := must(t, "tls", "import", next, "--dir", dir); !strings.Contains(got.stderr, "whether it was revoked could not be learnt") {
		t.Errorf("with nobody to ask: %s", got)
	}
}
