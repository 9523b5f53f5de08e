package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"larder/internal/control/config"
)

func none(string) string { return "" }

func load(t *testing.T, text string) (*config.Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "control.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(file, none)
}

func TestDefaultsAreEnough(t *testing.T) {
	t.Parallel()
	state := filepath.ToSlash(t.TempDir())
	c, err := load(t, "state: "+state+"\n")
	if err != nil {
		t.Fatal(err)
	}
	if filepath.ToSlash(c.Database.URL) != state+"/control.db" || filepath.ToSlash(c.KeyFile) != state+"/control.key" || c.Listen != ":8440" {
		t.Errorf("got %+v", c)
	}
	if len(c.Names) < 3 {
		t.Errorf("names: got %q, want at least localhost and the loopback addresses", c.Names)
	}
	if err := config.Default(none).Validate(); err != nil {
		t.Errorf("nothing said at all: %v", err)
	}
}

func TestEveryMistakeIsNamed(t *testing.T) {
	t.Parallel()
	_, err := load(t, `
listen: 8440
names: ["https://control.example", control.example, 10.0.0.1]
state: larder
database: {url: "postgres://u:hunter2@[::1/x"}
tls: {certificate: /c.pem}
oidc: {issuer: "http://id.example", roles: {admins: king}}
metrics_from: [10.0.0.1]
retention: {minutes: 1h, days: 8d}
colour: blue
`)
	if err == nil {
		t.Fatal("nothing was found")
	}
	for _, want := range []string{
		"listen: ", "names[0]: ", "state: ", "database.url: ", "tls: ", "oidc.issuer: ", "oidc.client_id: ", "oidc.roles.admins: ",
		"metrics_from[0]", "retention.minutes: ", "retention.days: ", "retention: ", "colour",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the password is in the error:\n%v", err)
	}
	if strings.Contains(err.Error(), "names[1]") || strings.Contains(err.Error(), "names[2]") {
		t.Errorf("a good name is refused:\n%v", err)
	}
}
