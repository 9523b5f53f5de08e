package command

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"larder/internal/lardertest"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const host = "cache.example.com"

// shell skips where there is none. The commands of these tests are scripts of
// an administrator on Unix.
func shell(t testing.TB) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("scripts for sh")
	}
	for _, name := range []string{"sh", "openssl"} {
		lardertest.Program(t, name)
	}
}

func request(t testing.TB, algorithm string) ([]byte, crypto.Signer) {
	t.Helper()
	key, err := keys.Generate(algorithm, "")
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 5)},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

// script writes an executable and returns it as a word of a command line.
func script(t testing.TB, text string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "sign it")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return "'" + name + "'"
}

func sign(t testing.TB, command string, timeout time.Duration, csr []byte, current *signing.Current) ([]*x509.Certificate, error) {
	t.Helper()
	s, err := New(Config{Command: command, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	return s.Sign(t.Context(), csr, nil, current)
}

func wantWords(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v; want %q in it", err, w)
		}
	}
}

// openSSLCA makes a root and an issuing CA as an administrator would, and
// returns the directory.
func openSSLCA(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", `
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout root.key -out root.crt -subj "/CN=Root" -days 2
		openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.csr -subj "/CN=Issuing"
		printf 'basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' > ca.ext
		openssl x509 -req -in ca.csr -CA root.crt -CAkey root.key -extfile ca.ext -days 1 -out ca.crt
	`)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

func TestOpenSSLSignsInEveryForm(t *testing.T) {
	t.Parallel()
	shell(t)
	dir := openSSLCA(t)
	signs := `set -e
cd '` + dir + `'
cert=$(mktemp)
openssl x509 -req -CA ca.crt -CAkey ca.key -days 1 -copy_extensions copyall -out "$cert" 2>/dev/null
`
	for form, ends := range map[string]struct {
		text   string
		length int
	}{
		"PEM":                    {`cat "$cert"`, 1},
		"PEM with its chain":     {`cat root.crt ca.crt "$cert"`, 2},
		"DER":                    {`openssl x509 -in "$cert" -outform DER`, 1},
		"PKCS#7":                 {`openssl crl2pkcs7 -nocrl -certfile root.crt -certfile "$cert" -certfile ca.crt`, 2},
		"PKCS#7 in DER":          {`openssl crl2pkcs7 -nocrl -certfile "$cert" -certfile ca.crt -outform DER`, 2},
		"text around":            {`openssl x509 -in "$cert" -text; echo Done.`, 1},
		"words on the other one": {`echo signing >&2; cat "$cert"`, 1},
		"a child left behind":    {`cat "$cert"; sleep 100 &`, 1},
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			algorithms := []string{keys.EC}
			if form == "PEM" {
				algorithms = []string{keys.RSA, keys.EC, keys.Ed25519}
			}
			for _, algorithm := range algorithms {
				csr, key := request(t, algorithm)
				chain, err := sign(t, script(t, signs+ends.text), 0, csr, nil)
				if err != nil {
					t.Fatal(err)
				}
				if len(chain) != ends.length || !keys.Same(chain[0].PublicKey, key.Public()) || !slices.Equal(chain[0].DNSNames, []string{host}) {
					t.Errorf("%s: %d certificates, the first for %q", algorithm, len(chain), chain[0].DNSNames)
				}
			}
		})
	}
}

func TestCommandKnowsWhatItIsFor(t *testing.T) {
	t.Setenv("LARDER_TEST_SECRET", "not for commands") // hence not parallel
	shell(t)
	csr, key := request(t, keys.EC)
	file := filepath.Join(t.TempDir(), "env")
	command := script(t, `env | sort > "$1"; cat >> "$1"; exit 1`) + " '" + file + "'"
	show := func(current *signing.Current) string {
		_, err := sign(t, command, 0, csr, current)
		wantWords(t, err, "exit code 1")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	got := show(nil)
	for _, want := range []string{"LARDER_COMMON_NAME=" + host + "\n", "LARDER_SAN=DNS:" + host + ",IP:10.0.0.5\n", "PATH=" + os.Getenv("PATH") + "\n", "-----BEGIN CERTIFICATE REQUEST-----\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, not := range []string{"LARDER_RENEWAL", "not for commands", "PRIVATE KEY"} {
		if strings.Contains(got, not) {
			t.Errorf("%s in\n%s", not, got)
		}
	}
	cert := selfSigned(t, key)
	if got := show(&signing.Current{Chain: []*x509.Certificate{cert}, Key: key}); !strings.Contains(got, "LARDER_RENEWAL=1\n") {
		t.Errorf("no word of the renewal in\n%s", got)
	}
}

func selfSigned(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestWhatCommandsSayByEnding(t *testing.T) {
	t.Parallel()
	shell(t)
	csr, _ := request(t, keys.EC)
	_, otherKey := request(t, keys.EC)
	file := filepath.Join(t.TempDir(), "other.crt")
	der := selfSigned(t, otherKey).Raw
	if err := os.WriteFile(file, der, 0o600); err != nil {
		t.Fatal(err)
	}
	keyText, err := keys.MarshalPEM(otherKey)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, keyText, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, text string
		refused    bool
		words      []string
	}{
		{"trouble", "echo first >&2; echo the CA is down >&2; exit 3", false, []string{"sign it: found exit code 3", "the CA is down", "run the command by hand"}},
		{"later", "echo queued >&2; exit 75", false, []string{"exit code 75 (try again later), saying: queued"}},
		{"no", "echo not you >&2; exit 77", true, []string{"exit code 77 (refused), saying: not you", "see why the CA said no"}},
		{"killed", "kill -9 $$", false, []string{"signal: killed"}},
		{"nothing", "exit 0", false, []string{"nothing on its standard output"}},
		{"white space", "echo; echo '  '", false, []string{"nothing on its standard output"}},
		{"garbage", "echo hello", false, []string{"output"}},
		{"another key", "cat '" + file + "'", true, []string{"issued certificate: public key"}},
		{"the request", "cat", false, []string{"certificate request"}},
		{"a key", "cat '" + keyFile + "'", false, []string{"a private key"}},
		{"too much", "yes", false, []string{"more than 1048576 bytes on its standard output"}},
		{"a lot of words", "yes words >&2 & sleep 0.2; echo last >&2; exit 1", false, []string{"exit code 1, saying: …"}},
		{"a key among its words", "echo before >&2; cat '" + keyFile + "' >&2; echo after >&2; exit 1", false, []string{"before\n(a private key)\nafter"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := sign(t, script(t, test.text), time.Minute, csr, nil)
			wantWords(t, err, test.words...)
			if signing.IsRefused(err) != test.refused {
				t.Errorf("%v: refused %v", err, !test.refused)
			}
			for _, line := range strings.Split(string(keyText), "\n")[1:3] {
				if line != "" && strings.Contains(err.Error(), line) {
					t.Errorf("the key is in: %v", err)
				}
			}
			if len(err.Error()) > 4<<10+500 {
				t.Errorf("%d bytes of error", len(err.Error()))
			}
			var p *problem.Problem
			if !errors.As(err, &p) {
				t.Errorf("%T is no problem", err)
			}
		})
	}
}

func TestSlowCommandIsKilledWithItsChildren(t *testing.T) {
	t.Parallel()
	shell(t)
	csr, _ := request(t, keys.EC)
	// A child writes to the FIFO, and has it open as long as it lives.
	fifo := filepath.Join(t.TempDir(), "fifo")
	if out, err := exec.CommandContext(t.Context(), "mkfifo", fifo).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0) // does not wait for the child
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	_, err = sign(t, script(t, `(exec > '`+fifo+`'; echo here; sleep 1000) & echo waiting >&2; wait; sleep 1000`), 3*time.Second, csr, nil)
	wantWords(t, err, "that it still ran after 3s, saying: waiting", "it has been killed")
	if signing.IsRefused(err) {
		t.Error("refused; it may pass")
	}
	if err := f.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(f); err != nil || string(said) != "here\n" {
		t.Errorf("the child said %q and lives: %v", said, err)
	}
}

func TestCommandEndsWithItsContext(t *testing.T) {
	t.Parallel()
	shell(t)
	csr, _ := request(t, keys.EC)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the node stops")
	started := filepath.Join(t.TempDir(), "started")
	if out, err := exec.CommandContext(t.Context(), "mkfifo", started).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	go func() {
		_, _ = os.ReadFile(started) // until the command has written to it
		cancel(why)
	}()
	s, err := New(Config{Command: script(t, "echo > '"+started+"'; sleep 1000")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign(ctx, csr, nil, nil); !errors.Is(err, why) {
		t.Errorf("%v, want %v", err, why)
	}
}

func TestCommandThatIsNotThere(t *testing.T) {
	t.Parallel()
	csr, _ := request(t, keys.EC)
	_, err := sign(t, "/no/such/program -v", 0, csr, nil)
	wantWords(t, err, "--sign-command /no/such/program: found no program that can be run", "give its whole path")
	_, err = sign(t, "x", 0, []byte("no request"), nil)
	wantWords(t, err, "certificate request: found what is no PKCS#10 request")
	s, err := New(Config{Command: "sign --password hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(s); text != "command sign" {
		t.Errorf("it calls itself %q", text)
	}
	_, err = New(Config{Command: "sign 'it"})
	wantWords(t, err, "--sign-command: found a ' that nothing closes")
	_, err = New(Config{Command: "sign", Timeout: -time.Second})
	wantWords(t, err, "--sign-command timeout: found -1s")
}
