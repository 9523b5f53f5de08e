//go:build linux

package wine_test

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"larder/internal/lardertest"
)

// windows is a Wine prefix: a machine with its own C: drive and registry.
type windows struct {
	wine, prefix string
	env          []string
}

// newWindows makes a Wine prefix in which Go programs run. It takes some ten
// seconds and 700 MB, so the tests share one.
func newWindows(t *testing.T) *windows {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: a Wine prefix takes too long")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("Wine runs programs of the machine's own kind, and the tests build amd64")
	}
	wine := need(t, "wine", "wine64")
	server := need(t, "wineserver")
	gcc := need(t, "x86_64-w64-mingw32-gcc")
	w := &windows{wine: wine, prefix: filepath.Join(t.TempDir(), "prefix")}
	w.env = append(os.Environ(),
		"WINEPREFIX="+w.prefix, "WINEARCH=win64", "WINEDEBUG=-all", "DISPLAY=", "WAYLAND_DISPLAY=",
		"WINEDLLOVERRIDES=mscoree,mshtml=", // or Wine asks in a window whether it may fetch them
		"HOME="+t.TempDir(),
	)
	t.Cleanup(func() {
		for _, arg := range []string{"-k", "-w"} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			cmd := exec.CommandContext(ctx, server, arg)
			cmd.Env = w.env
			_ = cmd.Run()
			cancel()
		}
	})
	if out, err := w.command(t, "wineboot", "-i").CombinedOutput(); err != nil {
		t.Fatalf("making a Wine prefix: %v\n%s", err, out)
	}
	// Go programs take random numbers from a library that Wine 8 lacks.
	dll := filepath.Join(w.prefix, "drive_c/windows/system32/bcryptprimitives.dll")
	if _, err := os.Stat(dll); err == nil {
		return w
	}
	if out, err := exec.Command(gcc, "-shared", "-O2", "-o", dll, "testdata/bcryptprimitives.c", "-ladvapi32").CombinedOutput(); err != nil {
		t.Fatalf("building bcryptprimitives.dll: %v\n%s", err, out)
	}
	return w
}

// need is the first of some programs that is there.
func need(t *testing.T, names ...string) string {
	t.Helper()
	for _, n := range names {
		if path, err := exec.LookPath(n); err == nil {
			return path
		}
	}
	t.Skipf("%s is not on this machine; .ci/install-wine installs it where apt-get is", strings.Join(names, " or "))
	return ""
}

func (w *windows) command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, w.wine, append([]string{program}, args...)...)
	cmd.Env = w.env
	return cmd
}

// run is the output of a program that must exit with 0.
func (w *windows) run(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := w.command(t, program, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", filepath.Base(program), args, err, out, stderr.String())
	}
	return string(out)
}

// on is a path of C: as Linux sees it.
func (w *windows) on(path ...string) string {
	return filepath.Join(append([]string{w.prefix, "drive_c"}, path...)...)
}

// goBuild builds for Windows.
func goBuild(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %q: %v\n%s", args, err, out)
	}
}

func TestWine(t *testing.T) {
	t.Parallel()
	w := newWindows(t)
	t.Run("certificates by hand", func(t *testing.T) { certificates(t, w) })
	t.Run("a node that runs", func(t *testing.T) { running(t, w) })
	t.Run("deploy", func(t *testing.T) { deploy(t, w) })
	t.Run("tests of packages", func(t *testing.T) { packages(t, w) })
}

// larder is larder.exe where an administrator would put it.
func (w *windows) larder(t *testing.T) string {
	t.Helper()
	exe := w.on("Program Files", "Larder", "larder.exe")
	if _, err := os.Stat(exe); err == nil {
		return exe
	}
	if err := os.MkdirAll(filepath.Dir(exe), 0o755); err != nil {
		t.Fatal(err)
	}
	goBuild(t, "build", "-buildvcs=false", "-o", exe, "larder/cmd/larder")
	return exe
}

// certificates goes the way of an administrator: a key and a request on
// Windows, a signature by OpenSSL elsewhere, import, and a look at the result.
func certificates(t *testing.T, w *windows) {
	exe := w.larder(t)
	if out := w.run(t, exe, "version"); !strings.HasPrefix(out, "larder ") || !strings.HasSuffix(strings.TrimSpace(out), "windows/amd64") {
		t.Errorf("version: %s", out)
	}
	const dir = `C:\ProgramData\Larder\tls`
	ca := newAuthority(t)
	for _, c := range []struct {
		name, shows string
		args        []string
	}{
		{"rsa", "RSA 2048", []string{"-algo", "RSA", "-keySizeOrCurve", "2048", "-csrName", "rsa", "-subjectCommonName", "cache.example.com", "-sanDns", "cache.example.com"}},
		{"ec", "ECDSA P-256", []string{"--algo", "EC", "--key-size-or-curve", "prime256v1", "--csr-name", "ec", "--subject-common-name", "cache.example.com", "--san-dns", "cache.example.com,other.example.com", "--san-ip", "10.0.0.5"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.run(t, exe, append([]string{"tls", "csr", "--dir", dir}, c.args...)...)
			csr := w.on("ProgramData", "Larder", "tls", "certs", c.name+".csr")
			crt := w.on("ProgramData", "Larder", "tls", "certs", c.name+".crt")
			ca.sign(t, csr, crt)
			w.run(t, exe, "tls", "import", c.name+".crt", "--dir", dir, "--root", `Z:`+strings.ReplaceAll(ca.cert, "/", `\`))
			var shown struct {
				Name, Subject, KeyType, SHA1 string
				SANs                         []string
				Active                       bool
			}
			out := w.run(t, exe, "tls", "show", "--dir", dir, "--output", "json")
			if err := json.Unmarshal([]byte(out), &shown); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if !shown.Active || !strings.EqualFold(shown.SHA1, ca.thumbprint(t, crt)) || !strings.Contains(shown.Subject, "cache.example.com") || !strings.Contains(out, c.shows) {
				t.Errorf("shown: %+v\n%s", shown, out)
			}
			// All that Wine keeps of an access list are the permissions of Unix;
			// the administrators become the group.
			key := w.on("ProgramData", "Larder", "tls", "keys", c.name+".key")
			if info, err := os.Stat(key); err != nil || info.Mode().Perm()&0o007 != 0 {
				t.Errorf("the key: %v, %v; want others to be out", info, err)
			}
		})
	}
}

// running renews the certificate of a node that serves: each import must be
// seen by a client, from Linux, without a restart.
func running(t *testing.T, w *windows) {
	exe := w.larder(t)
	ca := newAuthority(t)
	pem, err := os.ReadFile(ca.cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	if err := os.MkdirAll(w.on("node"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := "listen: {http: ['127.0.0.1:0'], https: ['127.0.0.1:0'], admin: '127.0.0.1:0'}\n" +
		"state: 'C:\\node\\state'\nreserve: 1MB\ndrives: [{path: 'C:\\node\\drive', size: 1GB}]\n"
	if err := os.WriteFile(w.on("node", "node.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	node := w.command(t, exe, "node", "run", "--config", `C:\node\node.yaml`)
	var log strings.Builder // read when the node has ended
	node.Stderr = &log
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = node.Process.Kill()
		_ = node.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	var addresses struct{ HTTPS []string }
	read := func() bool {
		b, err := os.ReadFile(w.on("node", "state", "addresses.json"))
		return err == nil && json.Unmarshal(b, &addresses) == nil
	}
	lardertest.Eventually(t, "the node to say where it listens", read)
	w.run(t, exe, "tls", "csr", "--config", `C:\node\node.yaml`, "--algo", "EC", "--key-size-or-curve", "prime256v1", "--csr-name", "node",
		"--subject-common-name", "cache.example.com", "--san-dns", "cache.example.com")
	certs := func(name string) string { return w.on("node", "state", "tls", "certs", name) }
	for range 3 { // the first, and two that renew it by the same request
		ca.sign(t, certs("node.csr"), certs("node.crt"))
		out := w.run(t, exe, "tls", "import", "node.crt", "--config", `C:\node\node.yaml`, "--root", `Z:`+strings.ReplaceAll(ca.cert, "/", `\`))
		lardertest.Eventually(t, "HTTPS to open", func() bool { return read() && len(addresses.HTTPS) == 1 })
		c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "cache.example.com"}}).DialContext(t.Context(), "tcp", addresses.HTTPS[0])
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		sum := sha1.Sum(c.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw)
		if got, want := hex.EncodeToString(sum[:]), ca.thumbprint(t, certs("node.crt")); !strings.EqualFold(got, want) || !strings.Contains(out, want) {
			t.Errorf("a client sees %s, want %s\n%s", got, want, out)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// authority is a certification authority of OpenSSL.
type authority struct{ openssl, cert, key string }

func newAuthority(t *testing.T) *authority {
	t.Helper()
	dir := t.TempDir()
	a := &authority{need(t, "openssl"), filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")}
	a.call(t, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", a.key, "-out", a.cert,
		"-subj", "/CN=Example Root", "-days", "3650", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
	return a
}

func (a *authority) call(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(a.openssl, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// sign copies the names and usages of the request, as an authority set up for
// that does.
func (a *authority) sign(t *testing.T, csr, crt string) {
	t.Helper()
	a.call(t, "x509", "-req", "-in", csr, "-CA", a.cert, "-CAkey", a.key, "-CAcreateserial", "-copy_extensions", "copyall", "-days", "90", "-out", crt)
}

func (a *authority) thumbprint(t *testing.T, crt string) string {
	t.Helper()
	out := a.call(t, "x509", "-in", crt, "-noout", "-fingerprint", "-sha1")
	_, print, _ := strings.Cut(strings.TrimSpace(out), "=")
	return strings.ReplaceAll(print, ":", "")
}

// deploy looks at the plan for Windows, made on Windows.
func deploy(t *testing.T, w *windows) {
	exe := w.larder(t)
	config := w.on("ProgramData", "Larder", "node.yaml")
	if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte("drives:\n  - {path: 'C:\\ProgramData\\Larder\\cache', size: 1GB}\nreserve: 1MB\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := w.run(t, exe, "node", "deploy", "--config", `C:\ProgramData\Larder\node.yaml`, "--run-time-account", `CORP\larder$`, "--dry-run")
	for _, want := range []string{
		`service larder-node, as CORP\larder$`,
		`"C:\Program Files\Larder\larder.exe" node run --config C:\ProgramData\Larder\node.yaml`,
		`netsh advfirewall firewall add rule name="Larder HTTPS" dir=in action=allow protocol=TCP localport=443 program="C:\Program Files\Larder\larder.exe"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan lacks %s\n%s", want, out)
		}
	}
}

// packages runs the tests of packages that have something for Windows alone.
func packages(t *testing.T, w *windows) {
	w.env = append(w.env, "LARDER_TEST_SERVICE=larder-test") // this machine is there for it
	for _, pkg := range []string{"private", "ports", "firewall", "winservice"} {
		t.Run(pkg, func(t *testing.T) {
			exe := filepath.Join(t.TempDir(), pkg+".test.exe")
			goBuild(t, "test", "-c", "-o", exe, "larder/internal/sys/"+pkg)
			cmd := w.command(t, exe, "-test.v")
			cmd.Dir = t.TempDir()
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "--- SKIP") {
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
}
