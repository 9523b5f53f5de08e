package vet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"larder/internal/pki/keys"
)

// keyMatch holds the certificate against the private key at hand.
func (v *vetting) keyMatch() {
	if v.Key == nil || keys.Same(keys.PublicOf(v.leaf()), v.Key) {
		return
	}
	field := "key of " + v.who(v.leaf())
	for i, c := range v.chain[1:] {
		if keys.Same(keys.PublicOf(c), v.Key) {
			v.say(SeverityFatal, CheckKey, field, fmt.Sprintf("the private key's own certificate, %s, as number %d of %d", title(c), i+2, len(v.chain)),
				"it to be the first, followed by the one that issued it, and so on", "put the certificates into that order")
			return
		}
	}
	v.say(SeverityFatal, CheckKey, field, fmt.Sprintf("%s, which does not belong to the private key at hand (%s)", kindOf(v.leaf()), kindWord(v.Key)),
		"the certificate that was issued for the request of this key",
		"import the certificate that the CA issued for this request, or the key that belongs to this certificate along with it")
}

func kindOf(c *x509.Certificate) string {
	if kind := keys.Kind(keys.PublicOf(c)); kind != "" {
		return kind
	}
	return "a kind of key unknown here (" + spkiOID(c) + ")"
}

func kindWord(key crypto.PublicKey) string {
	if kind := keys.Kind(key); kind != "" {
		return kind
	}
	return "a kind unknown here"
}

// authority refuses a CA's certificate in the place of a server's. What is
// self-signed is selfSigned's.
func (v *vetting) authority() {
	leaf := v.leaf()
	if !leaf.IsCA {
		return
	}
	next := "import the certificate that the CA issued for this node"
	if len(v.chain) > 1 {
		next = "put the node's own certificate first"
	}
	v.say(SeverityFatal, CheckCA, "basic constraints of "+v.who(leaf), "the certificate of a CA", "the certificate of a server: whoever holds the key of a CA can vouch for anybody", next)
}

// selfSigned is about a certificate that no CA stands behind.
func (v *vetting) selfSigned() {
	leaf := v.leaf()
	if !v.signsItself(leaf) {
		return
	}
	const next = "have the organisation's CA sign a request (larder tls csr)"
	field := "issuer of " + v.who(leaf)
	switch {
	case v.anchored:
		v.say(SeverityWarning, CheckSelfSigned, field, "itself (self-signed), and it is trusted here", "a CA, whose certificate stays with the clients when this one is renewed",
			next+"; otherwise every client must be given each new certificate before the node uses it")
	case v.unrooted():
		v.say(SeverityWarning, CheckSelfSigned, field, "itself (self-signed)", "a CA that clients trust", next)
	default:
		v.say(SeverityFatal, CheckSelfSigned, field, "itself (self-signed)", "a CA that clients trust",
			next+"; if every client has been given this very certificate, name it with --root FILE")
	}
}

// keyUsage checks what the key may be used for (RFC 5280, section 4.2.1.3).
// Without the extension, anything.
func (v *vetting) keyUsage() {
	leaf := v.leaf()
	if leaf.KeyUsage == 0 {
		return
	}
	field := "key usage of " + v.who(leaf)
	_, isRSA := leaf.PublicKey.(*rsa.PublicKey)
	_, isEC := leaf.PublicKey.(*ecdsa.PublicKey)
	switch {
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		v.say(SeverityFatal, CheckKeyUsage, field, usageWords(leaf.KeyUsage), "digital signature: the key signs every TLS 1.3 handshake, and those of TLS 1.2 that keep a past secret",
			"have it issued from a template for web servers, with digital signature")
	case isRSA && leaf.KeyUsage&x509.KeyUsageKeyEncipherment == 0:
		v.say(SeverityNote, CheckKeyUsage, field, usageWords(leaf.KeyUsage)+", without key encipherment", "", "nothing: only the RSA key exchange of TLS 1.2 would need it, and this node does not offer that")
	case isEC && leaf.KeyUsage&(x509.KeyUsageKeyEncipherment|x509.KeyUsageDataEncipherment) != 0:
		v.say(SeverityNote, CheckKeyUsage, field, usageWords(leaf.KeyUsage), "digital signature; an ECDSA key cannot encipher", "nothing: clients pass over it")
	}
}

func usageWords(u x509.KeyUsage) string {
	var words []string
	for i, w := range []string{"digital signature", "non-repudiation", "key encipherment", "data encipherment", "key agreement", "certificate signing", "CRL signing", "encipher only", "decipher only"} {
		if u&(1<<i) != 0 {
			words = append(words, w)
		}
	}
	return strings.Join(words, ", ")
}

// extendedKeyUsage looks for server authentication (RFC 5280, section
// 4.2.1.12), in the certificate and in the CAs above it, whose list bounds
// what those below can be for.
func (v *vetting) extendedKeyUsage() {
	for _, c := range v.path {
		if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
			continue
		}
		field := "extended key usage of " + v.who(c)
		switch {
		case slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny):
			v.say(SeverityWarning, CheckExtendedKeyUsage, field, "any purpose (anyExtendedKeyUsage), and not server authentication by name", "server authentication (1.3.6.1.5.5.7.3.1), which some Windows clients insist on",
				"have it issued from a template for web servers")
		case c == v.leaf():
			v.say(SeverityFatal, CheckExtendedKeyUsage, field, purposeWords(c), "server authentication (1.3.6.1.5.5.7.3.1)", "have it issued from a template for web servers")
		default:
			v.say(SeverityFatal, CheckExtendedKeyUsage, field, purposeWords(c), "server authentication, or no list: what a CA is not for, its certificates cannot be for",
				"have the certificate issued by a CA that may issue for servers")
		}
	}
}

func purposeWords(c *x509.Certificate) string {
	known := map[x509.ExtKeyUsage]string{
		x509.ExtKeyUsageClientAuth: "client authentication", x509.ExtKeyUsageCodeSigning: "code signing", x509.ExtKeyUsageEmailProtection: "e-mail protection",
		x509.ExtKeyUsageTimeStamping: "time stamping", x509.ExtKeyUsageOCSPSigning: "OCSP signing",
	}
	var words []string
	for _, u := range c.ExtKeyUsage {
		if w, ok := known[u]; ok {
			words = append(words, w)
		} else {
			words = append(words, "another purpose")
		}
	}
	for _, oid := range c.UnknownExtKeyUsage {
		words = append(words, oid.String())
	}
	return list(words)
}

// validity checks the times of all certificates of the path.
func (v *vetting) validity() {
	for _, c := range v.path {
		field := "validity of " + v.who(c)
		switch {
		case v.Now.After(c.NotAfter):
			next := "renew it; clients refuse it and go past the node"
			if c != v.leaf() {
				next = "get the CA's present certificate and import the chain again; if there is none, the CA must be renewed first"
			}
			v.say(SeverityFatal, CheckValidity, field, fmt.Sprintf("its end on %s, %s ago", at(c.NotAfter), span(v.Now.Sub(c.NotAfter))), "a certificate that is valid now, "+at(v.Now), next)
		case v.Now.Before(c.NotBefore):
			ahead := c.NotBefore.Sub(v.Now)
			next := "wait until then, or have it issued again"
			if ahead <= day {
				next = "compare the clocks of this machine and of the CA; otherwise wait until then"
			}
			v.say(SeverityFatal, CheckValidity, field, fmt.Sprintf("its beginning on %s, %s from now", at(c.NotBefore), span(ahead)), "a certificate that is valid now, "+at(v.Now), next)
		case c != v.leaf() && c.NotAfter.Before(v.leaf().NotAfter):
			v.say(SeverityWarning, CheckValidity, field, fmt.Sprintf("its end on %s, in %s and before that of the node's certificate on %s", at(c.NotAfter), span(c.NotAfter.Sub(v.Now)), at(v.leaf().NotAfter)),
				"a CA that outlives what it issues", "import the chain again with the CA's next certificate before that day")
		}
	}
}

// publicLifetime is what the CA/Browser Forum's Baseline Requirements, section
// 6.3.2, allowed until March 2026. They allow less year by year; a
// certificate that is longer than even this was not issued by a public CA.
const publicLifetime = 398 * day

func (v *vetting) lifetime() {
	leaf := v.leaf()
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life > publicLifetime+time.Second {
		v.say(SeverityNote, CheckLifetime, "lifetime of "+v.who(leaf), span(life), "398 days or fewer, if a public CA had issued it", "nothing, if it is from the organisation's own CA: Windows and Linux clients do not mind")
	}
}

// renewal compares with the certificate in use until now.
func (v *vetting) renewal() {
	leaf, old := v.leaf(), v.Previous
	if old == nil {
		return
	}
	if same(leaf, old) {
		v.say(SeverityNote, CheckRenewal, v.who(leaf), "the very certificate that is in use", "a new one", "nothing, if this is on purpose")
		return
	}
	if !keys.Same(keys.PublicOf(leaf), keys.PublicOf(old)) {
		v.say(SeverityWarning, CheckRenewal, "key of "+v.who(leaf), fmt.Sprintf("another key (%s) than the certificate in use has (%s)", kindOf(leaf), kindOf(old)), "the same key, if the same request was signed again",
			"nothing, if the key was renewed on purpose; otherwise make sure that this is the answer to this node's request")
	}
	var lost []string
	for _, n := range hostTexts(old) {
		if !Covers(leaf, n) && !slices.ContainsFunc(leaf.DNSNames, func(m string) bool { return lower(m) == lower(n) }) {
			lost = append(lost, n)
		}
	}
	if len(lost) > 0 {
		v.say(SeverityWarning, CheckRenewal, "names of "+v.who(leaf), "names missing that the certificate in use has: "+list(lost), "all of its names", "request it again with them, if clients use them")
	}
	if leaf.NotAfter.Before(old.NotAfter) {
		v.say(SeverityWarning, CheckRenewal, "validity of "+v.who(leaf), fmt.Sprintf("its end on %s, before that of the certificate in use on %s", at(leaf.NotAfter), at(old.NotAfter)), "a later end", "make sure that this is the newer certificate and not an old file")
	}
}
