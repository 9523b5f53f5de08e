package preflight

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"regexp"
	"strings"
	"unicode"

	"larder/internal/pki/problem"
)

// view is what a client saw.
type view struct {
	sha256 string // lower-case hexadecimal, or ""
	sha1   string // upper-case hexadecimal, or ""
	cert   *x509.Certificate
}

const seenIs = "a SHA-1 or SHA-256 thumbprint in hexadecimal, or a certificate in PEM"

// mostSeen is how much of Options.Seen is looked at: what openssl s_client
// prints is some KiB.
const mostSeen = 1 << 20

// digests are runs of hexadecimal that may be a thumbprint. Bytes are parted
// by colons, spaces or nothing.
var digests = regexp.MustCompile(`\b[0-9A-Fa-f]{2}(?:[: -]?[0-9A-Fa-f]{2})*\b`)

// readSeen reads what a person copied from a client: the output of openssl
// (s_client, x509 -fingerprint), curl or PowerShell, or the field of a
// certificate's window, with what is invisible there.
func readSeen(text string) (view, error) {
	no := &problem.Problem{Field: "what a client saw", Expected: seenIs, Next: "run one of the commands on a client and give what it prints"}
	if len(text) > mostSeen {
		no.Found = "more than 1 MiB"
		return view{}, no
	}
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			no.Found, no.Err = "a certificate that cannot be read", err
			return view{}, no
		}
		return view{sha256: sha256Of(cert), sha1: sha1Of(cert), cert: cert}, nil
	}
	if bytes.Contains([]byte(text), []byte("-----BEGIN ")) {
		no.Found = "PEM without a whole certificate"
		return view{}, no
	}
	var v view
	for line := range strings.Lines(strings.Map(visible, text)) {
		for _, run := range digests.FindAllString(line, -1) {
			switch hash := normal(run); len(hash) {
			case 64:
				v.sha256 = hash
			case 40:
				v.sha1 = strings.ToUpper(hash)
			}
		}
		if v != (view{}) {
			return v, nil // the first is the server's own
		}
	}
	no.Found = "neither of them"
	return view{}, no
}

// visible drops what Windows puts before a thumbprint that is copied.
func visible(r rune) rune {
	switch {
	case r == '\n' || r == '\t' || r == ' ':
		return r
	case r == '\u00a0':
		return ' '
	case unicode.In(r, unicode.Cf, unicode.Cc):
		return -1
	}
	return r
}

// normal is a hash in lower-case hexadecimal without separators.
func normal(hash string) string {
	hash = strings.ToLower(strings.NewReplacer(":", "", " ", "", "-", "").Replace(hash))
	if _, err := hex.DecodeString(hash); err != nil {
		return ""
	}
	return hash
}
