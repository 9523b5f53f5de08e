package scep

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"larder/internal/pki/enroll/signing"
)

func TestMistakesInTheConfiguration(t *testing.T) {
	t.Parallel()
	const example = "expected an address such as http://ca.example/certsrv/mscep/mscep.dll"
	for _, test := range []struct {
		config Config
		want   string
	}{
		{Config{}, "SCEP server: found nothing; " + example},
		{Config{URL: "ca.example/scep"}, `SCEP server: found "ca.example/scep" without http:// or https://; ` + example},
		{Config{URL: "ca.example:80"}, "SCEP server: found what is no address; " + example},
		{Config{URL: "http:///scep"}, "SCEP server: found an address without a host; " + example},
		{Config{URL: "http://a:b@ca.example"}, "SCEP server: found a user in the address of ca.example; expected the address without it; SCEP knows a challenge password instead"},
		{Config{URL: "http://ca.example/?operation=GetCACert"}, "SCEP server: found something after ? or # in the address; expected the address up to there"},
		{Config{URL: "http://ca.example", Fingerprint: "xyz"}, "CA fingerprint: found 3 characters; expected a SHA-256 of 64 hexadecimal digits; next: openssl x509 -in ca.crt -noout -fingerprint -sha256"},
		{Config{URL: "http://ca.example", Fingerprint: strings.Repeat("ab ", 16)}, "CA fingerprint: found an MD5, as the page of NDES shows it; expected a SHA-256 of 64 hexadecimal digits; next: openssl x509 -in ca.crt -noout -fingerprint -sha256"},
		{Config{URL: "http://ca.example", Fingerprint: strings.Repeat("AB:", 20)}, "CA fingerprint: found a SHA-1, as Windows shows it as thumbprint; expected a SHA-256 of 64 hexadecimal digits; next: openssl x509 -in ca.crt -noout -fingerprint -sha256"},
		{Config{URL: "http://ca.example/scep", Challenge: word}, "SCEP challenge password: found that it would go to whoever answers at http://ca.example/scep, which is without TLS; expected the SHA-256 of the CA's certificate, which tells the CA from others; next: give --ca-fingerprint, as the CA's administrator says it, or use https"},
	} {
		_, err := New(test.config)
		if err == nil || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
	_, err := New(Config{Fingerprint: "x"})
	wantWords(t, err, "SCEP server", "CA fingerprint")
}

func TestWarningsWithoutAFingerprint(t *testing.T) {
	t.Parallel()
	for url, words := range map[string]string{"http://ca.example/scep": "and no TLS", "https://ca.example/scep": "has a certificate for ca.example"} {
		if w := signer(t, Config{URL: url}).Warnings(); len(w) != 1 || !strings.Contains(w[0], words) {
			t.Errorf("%s: %q", url, w)
		}
	}
}

func TestChallengeNeverPrints(t *testing.T) {
	t.Parallel()
	c := Config{URL: "https://ca.example", Challenge: word}
	text, err := json.Marshal(struct{ P signing.Secret }{c.Challenge})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", c, "challenge", c.Challenge)
	for _, shown := range []string{
		string(text), log.String(), fmt.Sprintf("%v %+v %#v %s %q %x", c, c, c, c.Challenge, c.Challenge, c.Challenge), fmt.Sprint(signer(t, c)),
	} {
		if strings.Contains(shown, word) || strings.Contains(shown, fmt.Sprintf("%x", word)) {
			t.Errorf("shown: %s", shown)
		}
	}
}
