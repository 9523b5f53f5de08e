package enroll

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"larder/internal/pki/csr"
	"larder/internal/strictyaml"
)

func words() csr.Words {
	return csr.Words{Algorithm: "EC", KeySizeOrCurve: "prime256v1", CommonName: "cache.example", SANDNS: []string{"cache.example"}}
}

func TestSettingsAreWrittenAndRead(t *testing.T) {
	t.Parallel()
	for _, s := range []*Settings{
		{ACME: &ACME{Directory: "https://ca.example/dir", Email: []string{"it@example.com"}, Challenge: []string{"dns-01"}, DNSCommand: "/bin/hook", EABKeyID: "k", EABKeyFile: "credentials/eab-key"}},
		{EST: &EST{URL: "https://ca.example", User: "u", PasswordFile: "credentials/est-password"}, Key: KeyKeep},
		{SCEP: &SCEP{URL: "http://ca.example/scep", Fingerprint: strings.Repeat("ab", 32)}, Name: "node"},
		{Command: &Command{Run: "/bin/sign --profile 'a b'", Timeout: time.Minute}, Roots: "/etc/ssl/root.pem"},
	} {
		dir := t.TempDir()
		s.Request = words()
		if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("nothing there: %v", err)
		}
		if err := s.Save(dir); err != nil {
			t.Fatal(err)
		}
		got, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.Method(), diff)
		}
		if err := Remove(dir); err != nil {
			t.Fatal(err)
		}
		if err := Remove(dir); err != nil {
			t.Errorf("removed twice: %v", err)
		}
	}
}

func TestBadSettingsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	const request = "request: {algo: EC, common_name: a.example, san_dns: [a.example]}\n"
	tests := []struct{ text, want string }{
		{request, "found 0 of acme, est, scep and command"},
		{request + "command: {run: /bin/sign}\nscep: {url: http://a/}", "found 2 of acme, est, scep and command"},
		{request + "command: {run: ''}", "command.run: must be set"},
		{request + "command: {run: /bin/sign, timeout: -5s}", "command.timeout: "},
		{request + "command: {run: /bin/sign}\nkey: sometimes", `key: found "sometimes"; expected rotate or keep`},
		{request + "acme: {}", "acme.directory: must be set"},
		{request + "acme: {directory: 'https://a/', challenge: [http-02]}", `acme.challenge[0]: found "http-02"`},
		{request + "acme: {directory: 'https://a/', challenge: [dns-01]}", "acme.dns_command: must be set for dns-01"},
		{request + "acme: {directory: 'https://a/', eab_key_id: k}", "go together"},
		{request + "est: {url: 'https://a/', user: u}", "user and password_file go together"},
		{request + "est: {url: 'https://a/', client_cert: c}", "client_cert and client_key go together"},
		{request + "scep: {}", "scep.url: must be set"},
		{request + "scep: {url: 'http://a/', password: x}", "password"},
		{"command: {run: /bin/sign}\nrequest: {algo: DSA}", "--algo"},
		{"command: {run: /bin/sign}\nrequest: {algo: EC, common_name: a.example}", "--san-"},
	}
	for _, tt := range tests {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "auto.yaml"), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(dir)
		var ms strictyaml.Mistakes
		if !errors.As(err, &ms) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want mistakes with %q", tt.text, err, tt.want)
		}
	}
}
