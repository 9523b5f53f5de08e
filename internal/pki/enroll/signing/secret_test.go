package signing_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"larder/internal/pki/enroll/signing"
)

func TestSecretsNeverPrint(t *testing.T) {
	t.Parallel()
	const word = "open sesame"
	s := signing.Secret(word)
	text, err := json.Marshal(map[string]any{"one": s, "list": []signing.Secret{s}})
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{string(text), fmt.Sprint(s, &s), fmt.Sprintf("%v %+v %#v %s %q %x %d", s, s, s, s, s, s, s)} {
		if strings.Contains(shown, word) || strings.Contains(shown, fmt.Sprintf("%x", word)) || !strings.Contains(shown, "(secret)") {
			t.Errorf("shown: %s", shown)
		}
	}
	if got := s.Hide("he said: " + word + word); got != "he said: (secret)(secret)" {
		t.Errorf("%q", got)
	}
	if got := signing.Secret("").Hide("nothing to hide"); got != "nothing to hide" {
		t.Errorf("%q", got)
	}
}

func TestFingerprints(t *testing.T) {
	t.Parallel()
	want := bytes.Repeat([]byte{0xab}, 32)
	for _, text := range []string{
		strings.Repeat("ab", 32), strings.Repeat("AB", 32), " " + strings.Repeat("AB:", 31) + "AB\n", strings.Repeat("ab ", 32), strings.Repeat("ab-", 31) + "ab",
	} {
		if got, err := signing.ParseFingerprint(text); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %x, %v", text, got, err)
		}
	}
	const next = "; expected a SHA-256 of 64 hexadecimal digits; next: openssl x509 -in ca.crt -noout -fingerprint -sha256"
	for text, found := range map[string]string{
		"":                       "0 characters",
		"xyz":                    "3 characters",
		strings.Repeat("z", 64):  "64 characters",
		strings.Repeat("a", 63):  "63 characters",
		strings.Repeat("ab", 33): "66 characters",
		strings.Repeat("ab", 16): "an MD5, as the page of NDES shows it",
		strings.Repeat("ab", 20): "a SHA-1, as Windows shows it as thumbprint",
	} {
		if _, err := signing.ParseFingerprint(text); err == nil || err.Error() != "CA fingerprint: found "+found+next {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseFingerprint(f *testing.F) {
	f.Add("AB:cd 01-23")
	f.Fuzz(func(t *testing.T, text string) {
		sum, err := signing.ParseFingerprint(text)
		if err != nil {
			return
		}
		if again, err := signing.ParseFingerprint(fmt.Sprintf("%x", sum)); err != nil || !bytes.Equal(again, sum) {
			t.Errorf("%x became %x, %v", sum, again, err)
		}
	})
}
