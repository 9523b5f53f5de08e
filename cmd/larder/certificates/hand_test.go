package certificates_test

import (
	"crypto/tls"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"larder/internal/lardertest"
)

// names are all seven kinds at once, with what OpenSSL says of them.
var names = []string{
	"--san-dns", "cache.example.com,localhost", "--san-ip", "127.0.0.1,2001:db8::5", "--san-uri", "https://cache.example.com/x", "--san-email", "it@example.com",
	"--san-rid", "1.2.3.4", "--san-dir-name", "/C=DE/O=Example/CN=node", "--san-other-name", "1.3.6.1.4.1.311.20.2.3;UTF8:node@example.com",
}

var namesInOpenSSL = []string{
	"DNS:cache.example.com", "DNS:localhost", "IP Address:127.0.0.1", "IP Address:2001:DB8:0:0:0:0:0:5", "URI:https://cache.example.com/x", "email:it@example.com",
	"Registered ID:1.2.3.4", "DirName:/C=DE/O=Example/CN=node", "othername: UPN::node@example.com",
}

// Every kind of key, signed by OpenSSL, comes back in every form there is, and
// is served at once.
func TestEveryKeyInEveryForm(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	forms := []struct {
		name string
		make func(t *testing.T, leaf, key string) (file string, args []string)
	}{
		{"PEM", func(t *testing.T, leaf, key string) (string, []string) {
			return s.write(t, "f.crt", s.chain(t, read(t, leaf))), nil
		}},
		{"PEM, root first", func(t *testing.T, leaf, key string) (string, []string) {
			return s.write(t, "f.pem", read(t, s.path("root.pem"))+read(t, s.path("ca.pem"))+read(t, leaf)), nil
		}},
		{"DER", func(t *testing.T, leaf, key string) (string, []string) {
			openssl(t, "", "x509", "-in", leaf, "-outform", "DER", "-out", s.path("f.der"))
			return s.path("f.der"), []string{"--root", s.path("ca.pem")} // DER holds one certificate
		}},
		{"PKCS#7", func(t *testing.T, leaf, key string) (string, []string) {
			openssl(t, "", "crl2pkcs7", "-nocrl", "-certfile", s.path("ca.pem"), "-certfile", leaf, "-outform", "DER", "-out", s.path("f.p7b"))
			return s.path("f.p7b"), nil
		}},
		{"PKCS#7 in PEM", func(t *testing.T, leaf, key string) (string, []string) {
			openssl(t, "", "crl2pkcs7", "-nocrl", "-certfile", leaf, "-certfile", s.path("ca.pem"), "-out", s.path("g.p7b"))
			return s.path("g.p7b"), nil
		}},
		{"PKCS#12", func(t *testing.T, leaf, key string) (string, []string) {
			openssl(t, "", "pkcs12", "-export", "-in", leaf, "-inkey", key, "-certfile", s.path("ca.pem"), "-out", s.path("f.pfx"), "-passout", "pass:hunter2")
			return s.path("f.pfx"), []string{"--password-file", s.write(t, "pass", "hunter2\n")}
		}},
		{"PKCS#12 of old", func(t *testing.T, leaf, key string) (string, []string) {
			openssl(t, "", "pkcs12", "-export", "-legacy", "-in", leaf, "-inkey", key, "-certfile", s.path("ca.pem"), "-out", s.path("f.p12"), "-passout", "pass:hunter2")
			return s.path("f.p12"), []string{"--password", "hunter2"}
		}},
	}
	for _, key := range []struct{ name, algo, size, text, kind string }{
		{"rsa2048", "RSA", "2048", "Public-Key: (2048 bit)", "RSA 2048"},
		{"rsa3072", "RSA", "3072", "Public-Key: (3072 bit)", "RSA 3072"},
		{"rsa4096", "RSA", "4096", "Public-Key: (4096 bit)", "RSA 4096"},
		{"p256", "EC", "prime256v1", "prime256v1", "ECDSA P-256"},
		{"p384", "ec", "secp384r1", "secp384r1", "ECDSA P-384"},
		{"ed25519", "ED25519", "", "ED25519", "Ed25519"},
	} {
		args := append([]string{"tls", "csr", "--dir", s.tls, "--algo", key.algo, "--csr-name", key.name, "--subject-common-name", "cache.example.com",
			"--subject-country", "de", "--subject-state", "Bayern", "--subject-org", "Example, Inc."}, names...)
		if key.size != "" {
			args = append(args, "--key-size-or-curve", key.size)
		}
		must(t, args...)
		csr, keyFile := filepath.Join(s.tls, "certs", key.name+".csr"), filepath.Join(s.tls, "keys", key.name+".key")
		text := openssl(t, "", "req", "-in", csr, "-noout", "-text", "-verify")
		for _, want := range append(slices.Clone(namesInOpenSSL), key.text, `Subject: C = DE, ST = Bayern, O = "Example, Inc.", CN = cache.example.com`) {
			if !strings.Contains(text, want) {
				t.Errorf("%s: OpenSSL does not say %q of the request:\n%s", key.name, want, text)
			}
		}
		if info, err := os.Stat(keyFile); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: the key's file: %v, %v", key.name, info, err)
		}
		leaf := s.write(t, key.name+".pem", s.sign(t, csr))
		for i, form := range forms {
			if i > 1 && strings.HasPrefix(key.name, "rsa") && key.name != "rsa2048" {
				break // the forms do not depend on the size
			}
			file, extra := form.make(t, leaf, keyFile)
			if form.name != "DER" {
				extra = append(extra, "--root", s.path("root.pem"))
			}
			r := must(t, append([]string{"tls", "import", file, "--dir", s.tls}, extra...)...)
			if !strings.Contains(r.stdout, "a handshake with the running node showed it") || !strings.Contains(r.stdout, key.kind) {
				t.Errorf("%s as %s: %s", key.name, form.name, r)
			}
			if form.name == "DER" {
				continue // without its intermediate clients cannot verify it
			}
			s.Refresh()
			out := openssl(t, "", "s_client", "-connect", s.HTTPS, "-servername", "cache.example.com", "-CAfile", s.path("root.pem"), "-verify_hostname", "cache.example.com", "-verify_return_error", "-showcerts")
			if !strings.Contains(out, "Verification: OK") || strings.Count(out, "BEGIN CERTIFICATE") != 2 {
				t.Errorf("%s as %s: s_client says\n%s", key.name, form.name, out)
			}
		}
	}
	if got := must(t, "tls", "list", "--dir", s.tls, "-o", "csv").stdout; strings.Count(got, "\n") != 7 || !strings.HasPrefix(got, "name,state,reason,") {
		t.Errorf("the exported inventory:\n%s", got)
	}
}

// Ed448: made, signed, read and kept, and never pretended to be of use.
func TestEd448IsKeptAndNotServed(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	r := must(t, append([]string{"tls", "csr", "--dir", s.tls, "--algo", "ED448", "--csr-name", "ed", "--subject-common-name", "cache.example.com"}, names...)...)
	if !strings.Contains(r.stderr, "neither Go's TLS") || !strings.Contains(r.stderr, "Windows") {
		t.Errorf("no word on who cannot use it: %s", r)
	}
	csr := filepath.Join(s.tls, "certs", "ed.csr")
	if text := openssl(t, "", "req", "-in", csr, "-noout", "-text", "-verify"); !strings.Contains(text, "ED448 Public-Key") || !strings.Contains(text, "DNS:cache.example.com") {
		t.Errorf("OpenSSL says\n%s", text)
	}
	s.drop(t, "ed.crt", s.chain(t, s.sign(t, csr)))
	alone := larder(t, "tls", "import", "ed", "--dir", s.tls, "--root", s.path("root.pem"))
	if alone.exit == 0 || !strings.Contains(alone.stderr, "HTTPS was NOT switched to it") || !strings.Contains(alone.stderr, "Ed448") {
		t.Errorf("alone: %s", alone)
	}
	if s.Refresh(); s.HTTPS != "" {
		t.Error("HTTPS is on")
	}
	if list := must(t, "tls", "list", "--dir", s.tls); !strings.Contains(list.stdout, "not servable") || !strings.Contains(list.stdout, "Ed448") {
		t.Errorf("list: %s", list)
	}
	if on := larder(t, "tls", "enable", "ed", "--dir", s.tls); on.exit != 5 || !strings.Contains(on.stderr, "Ed448") {
		t.Errorf("enable: %s; want a conflict", on)
	}
	// Beside another one it is kept as well, and that one goes on being served.
	s.first(t)
	serving := s.shown(t)
	if r := must(t, "tls", "import", "ed", "--dir", s.tls, "--inactive"); !strings.Contains(r.stdout, "stored, not in use") {
		t.Errorf("beside another: %s", r)
	}
	if !s.shown(t).Equal(serving) {
		t.Error("another certificate is served")
	}
	// An authority with an Ed448 key: its signatures are verified.
	ca := newPKI(t, "-newkey", "ed448")
	must(t, "tls", "csr", "--dir", s.tls, "--algo", "ED448", "--csr-name", "ed2", "--subject-common-name", "cache.example.com", "--san-dns", "cache.example.com")
	cert := ca.chain(t, ca.sign(t, filepath.Join(s.tls, "certs", "ed2.csr")))
	if r := larder(t, "tls", "import", s.write(t, "ed2.crt", cert), "--dir", s.tls, "--inactive", "--root", ca.path("root.pem")); r.exit != 0 {
		t.Errorf("of an Ed448 authority: %s", r)
	}
	other := newPKI(t, "-newkey", "ed448")
	wrong := ca.sign(t, filepath.Join(s.tls, "certs", "ed2.csr")) + read(t, other.path("ca.pem"))
	if r := larder(t, "tls", "import", s.write(t, "ed3.crt", wrong), "--dir", s.tls, "--inactive", "--root", other.path("root.pem")); r.exit == 0 {
		t.Errorf("signed by another authority of the same name: %s", r)
	}
}

func TestOffOnBackOnTheRunningNode(t *testing.T) {
	t.Parallel()
	s := newSite(t, "")
	s.first(t)
	first := s.shown(t)
	again := must(t, "tls", "renew", "--dir", s.tls, "--export", s.path("again.csr"))
	if !strings.Contains(again.stdout, "the same as before") || read(t, s.path("again.csr")) != read(t, filepath.Join(s.tls, "certs", "node.csr")) {
		t.Errorf("renew: %s", again)
	}
	if r := must(t, "tls", "renew", "--dir", s.tls, "--export", "-"); r.stdout != read(t, s.path("again.csr")) {
		t.Errorf("renew to stdout: %s", r)
	}
	s.drop(t, "node.crt", s.chain(t, s.sign(t, s.path("again.csr"), "-days", "60")))
	must(t, "tls", "import", "--config", s.config(), "-certName", "node")
	if s.shown(t).Equal(first) {
		t.Error("not renewed")
	}
	if r := must(t, "tls", "rollback", "--dir", s.tls); !strings.Contains(r.stdout, "showed it") || !s.shown(t).Equal(first) {
		t.Errorf("rollback: %s", r)
	}
	off := must(t, "tls", "disable", "--dir", s.tls)
	if !strings.Contains(off.stdout, "has closed its ports") {
		t.Errorf("disable: %s", off)
	}
	https := s.HTTPS
	if s.Refresh(); s.HTTPS != "" {
		t.Errorf("the node says it listens on %s", s.HTTPS)
	}
	if conn, err := tls.Dial("tcp", https, &tls.Config{InsecureSkipVerify: true}); err == nil {
		_ = conn.Close()
		t.Error("the port is open")
	}
	if status, _ := s.Get("/readyz"); status != 200 {
		t.Errorf("the node is not ready without HTTPS: %d", status)
	}
	if r := must(t, "tls", "show", "--dir", s.tls); !strings.Contains(r.stdout, "disabled") || !strings.Contains(r.stdout, "larder tls enable") {
		t.Errorf("show: %s", r)
	}
	must(t, "tls", "enable", "--dir", s.tls)
	s.Refresh()
	if !s.shown(t).Equal(first) {
		t.Error("another certificate is served after enable")
	}
}

// What runbooks for Connected Cache say, word for word, by way of its scripts'
// names.
func TestRunbooksOfTheVendorWork(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("these are the scripts for Linux")
	}
	s := newSite(t, "")
	scripts, err := filepath.Abs("../../../packaging/linux")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(lardertest.Binary(t), filepath.Join(bin, "larder")); err != nil {
		t.Fatal(err)
	}
	script := func(name string, args ...string) (string, error) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "/bin/sh", append([]string{filepath.Join(scripts, name)}, args...)...)
		cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	config := []string{"--config", s.config()}
	out, err := script("generateCsr.sh", append([]string{"-algo", "RSA", "-keySizeOrCurve", "2048", "-csrName", "mycsr", "-subjectCommonName", "localhost", "-subjectCountry", "US",
		"-subjectState", "WA", "-subjectOrg", "Contoso", "-sanDns", "localhost", "-sanIp", "127.0.0.1"}, config...)...)
	if err != nil {
		t.Fatalf("generateCsr.sh: %v\n%s", err, out)
	}
	s.drop(t, "mycert.crt", s.chain(t, s.sign(t, filepath.Join(s.tls, "certs", "mycsr.csr"))))
	if out, err = script("importCert.sh", append([]string{"-certName", "mycert.crt", "--root", s.path("root.pem")}, config...)...); err != nil {
		t.Fatalf("importCert.sh: %v\n%s", err, out)
	}
	s.Refresh()
	leaf := s.shown(t)
	if out, err = script("ShowCertDetails.sh", config...); err != nil || !strings.Contains(out, "Thumbprint") || !strings.Contains(out, leaf.NotAfter.UTC().Format("2006-01-02 15:04")) {
		t.Errorf("ShowCertDetails.sh: %v\n%s", err, out)
	}
	if out, err = script("disableTls.sh", config...); err != nil {
		t.Errorf("disableTls.sh: %v\n%s", err, out)
	}
	if s.Refresh(); s.HTTPS != "" {
		t.Error("HTTPS is still on")
	}
	logs, err := filepath.Glob(filepath.Join(s.tls, "logs", "*_????????-??????.log"))
	if err != nil || len(logs) != 2 || !strings.HasPrefix(filepath.Base(logs[0]), "GenerateCsr_") || !strings.HasPrefix(filepath.Base(logs[1]), "ImportCert_") {
		t.Errorf("logs: %v, %v", logs, err)
	}
	for _, l := range logs {
		if strings.Contains(read(t, l), "PRIVATE") {
			t.Errorf("%s holds a key", l)
		}
	}
}
