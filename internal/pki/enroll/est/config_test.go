package est

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"larder/internal/pki/enroll/signing"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"ca.example":                                "https://ca.example/.well-known/est",
		" ca.example:8443/ ":                        "https://ca.example:8443/.well-known/est",
		"https://ca.example":                        "https://ca.example/.well-known/est",
		"HTTPS://ca.example/.well-known/est/":       "https://ca.example/.well-known/est",
		"https://ca.example/.well-known/est/nodes":  "https://ca.example/.well-known/est/nodes",
		"https://gw.example/tenant/.well-known/est": "https://gw.example/tenant/.well-known/est",
		"[2001:db8::1]:8443":                        "https://[2001:db8::1]:8443/.well-known/est",
	} {
		if got, err := normalise(in, ""); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	if got, err := normalise("ca.example", "servers"); err != nil || got != "https://ca.example/.well-known/est/servers" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestMistakesInTheConfiguration(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		config Config
		want   string
	}{
		{Config{}, "EST server: found nothing; expected an address such as https://ca.example/.well-known/est"},
		{Config{URL: "https://"}, "EST server: found an address without a host; expected https://HOST"},
		{Config{URL: "http://ca.example"}, "EST server: found http://ca.example; expected https: EST needs TLS (RFC 7030, section 3.3)"},
		{Config{URL: "https://node:word@ca.example"}, "EST server: found a user in the address of ca.example; expected the address without it; user and password have settings of their own"},
		{Config{URL: "https://ca.example/?x=y"}, "EST server: found something after ? or # in the address; expected the address up to there"},
		{Config{URL: "https://ca.example:port"}, "EST server: found what is no address; expected an address such as https://ca.example/.well-known/est"},
		{Config{URL: "ca.example", Label: "a/b"}, `EST label: found "a/b"; expected one path segment of letters, digits, - and _`},
		{Config{URL: "ca.example", Label: ".."}, `EST label: found ".."; expected one path segment of letters, digits, - and _`},
		{Config{URL: "ca.example", Label: "cacerts"}, `EST label: found "cacerts"; expected not the name of an operation (RFC 7030, section 3.2.2)`},
		{Config{URL: "ca.example", Fingerprint: "abc"}, "CA fingerprint: found 3 characters; expected a SHA-256 of 64 hexadecimal digits; next: openssl x509 -in ca.crt -noout -fingerprint -sha256"},
		{Config{URL: "ca.example", Fingerprint: strings.Repeat("ab", 32), Roots: x509.NewCertPool()}, "EST trust: found roots and a fingerprint; expected one of them; next: keep the roots if you have the CA's certificate, the fingerprint if you do not"},
		{Config{URL: "ca.example", User: "node"}, "EST password: found a user without a password; expected both or neither"},
		{Config{URL: "ca.example", Password: password}, "EST user: found a password without a user; expected both or neither"},
		{Config{URL: "ca.example", User: "a:b", Password: password}, "EST user: found a colon in the name; expected a name without one (RFC 7617, section 2)"},
		{Config{URL: "ca.example", ClientCert: &tls.Certificate{}}, "EST client certificate: found a certificate or a key alone; expected both"},
	} {
		_, err := New(test.config)
		if err == nil || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
	_, err := New(Config{User: "node", Fingerprint: "x"})
	wantWords(t, err, "EST server", "EST password", "CA fingerprint")
}

func TestPasswordNeverPrints(t *testing.T) {
	t.Parallel()
	c := Config{URL: "ca.example", User: user, Password: password}
	text, err := json.Marshal(struct{ P signing.Secret }{c.Password})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", c, "password", c.Password)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "password", c.Password, "list", []signing.Secret{c.Password})
	for _, shown := range []string{
		string(text), log.String(), fmt.Sprint(c, c.Password), fmt.Sprintf("%v %+v %#v %s %q %x %d", c, c, c, c.Password, c.Password, c.Password, c.Password),
		fmt.Sprint(signer(t, c)), fmt.Sprintf("%+v", []any{&c.Password, []signing.Secret{c.Password}}),
	} {
		if strings.Contains(shown, password) || strings.Contains(shown, fmt.Sprintf("%x", password)) {
			t.Errorf("shown: %s", shown)
		}
	}
}
