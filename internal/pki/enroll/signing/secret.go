package signing

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"larder/internal/pki/problem"
)

// Secret is a word that no print, log or encoding shows.
type Secret string

// Format writes a placeholder for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret) }

// MarshalText writes the same placeholder.
func (Secret) MarshalText() ([]byte, error) { return []byte(secret), nil }

const secret = "(secret)"

// Hide takes the word out of a text, should somebody have repeated it.
func (s Secret) Hide(text string) string {
	if s == "" {
		return text
	}
	return strings.ReplaceAll(text, string(s), secret)
}

// ParseFingerprint reads the SHA-256 of a CA's certificate, in the ways in
// which tools write it.
func ParseFingerprint(text string) ([]byte, error) {
	clean := strings.NewReplacer(":", "", " ", "", "-", "").Replace(strings.TrimSpace(text))
	sum, err := hex.DecodeString(clean)
	if err == nil && len(sum) == sha256.Size {
		return sum, nil
	}
	p := &problem.Problem{
		Field: "CA fingerprint", Found: fmt.Sprintf("%d characters", len(clean)), Expected: "a SHA-256 of 64 hexadecimal digits",
		Next: "openssl x509 -in ca.crt -noout -fingerprint -sha256",
	}
	switch {
	case err == nil && len(sum) == 16:
		p.Found = "an MD5, as the page of NDES shows it"
	case err == nil && len(sum) == 20:
		p.Found = "a SHA-1, as Windows shows it as thumbprint"
	}
	return nil, p
}
