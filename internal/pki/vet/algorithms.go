package vet

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"

	"larder/internal/pki/ed448"
	"larder/internal/pki/keys"
)

const (
	issueAgain  = "have it issued again with SHA-256 or SHA-384 and an RSA or ECDSA key"
	schannelHas = "Windows (Schannel) has no Ed25519 and refuses it"
)

// algorithms checks the algorithms that certificates were signed with. A
// root's own signature says nothing, so nobody minds it.
func (v *vetting) algorithms() {
	for _, c := range v.path {
		if v.isTop(c) && (v.anchored || v.signsItself(c)) {
			continue
		}
		field := "signature of " + v.who(c)
		const expected = "SHA-256, SHA-384 or SHA-512 with RSA or ECDSA"
		switch word, severity := signatureWord(c); {
		case ed448.SignedWith(c.Raw):
			v.say(SeverityUnservable, CheckEd448, field, "Ed448", expected+": neither Windows nor programs written in Go can verify Ed448",
				"keep it, if you like; for HTTPS have another CA certificate in this chain sign with RSA or ECDSA")
		case c.SignatureAlgorithm == x509.SHA1WithRSA, c.SignatureAlgorithm == x509.ECDSAWithSHA1:
			v.say(severity, CheckSignature, field, word, expected+": Windows, OpenSSL and Go refuse SHA-1 below the root",
				issueAgain+"; on AD CS, certutil -setreg ca\\csp\\CNGHashAlgorithm SHA256 comes first, and the CA's own certificate is renewed if this is it")
		case severity == SeverityFatal:
			v.say(severity, CheckSignature, field, word, expected+": clients refuse this one", issueAgain)
		case isPSS(c.SignatureAlgorithm):
			v.say(severity, CheckSignature, field, word, "RSA with PKCS#1 v1.5 padding, which older clients know too",
				"try it with your oldest client; on AD CS it is AlternateSignatureAlgorithm=1 in CAPolicy.inf")
		case c.SignatureAlgorithm == x509.PureEd25519:
			v.say(severity, CheckSignature, field, word, expected+": "+schannelHas, "have it issued by a CA with an RSA or ECDSA key, if Windows clients are to use this node")
		}
	}
}

func isPSS(a x509.SignatureAlgorithm) bool {
	return a == x509.SHA256WithRSAPSS || a == x509.SHA384WithRSAPSS || a == x509.SHA512WithRSAPSS
}

// signatureWord names a certificate's signature algorithm and says what
// follows from it.
func signatureWord(c *x509.Certificate) (string, Severity) {
	switch c.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		return c.SignatureAlgorithm.String(), SeverityNote
	case x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS:
		return "RSA-PSS (" + c.SignatureAlgorithm.String() + ")", SeverityWarning
	case x509.PureEd25519:
		return "Ed25519", SeverityWarning
	case x509.UnknownSignatureAlgorithm:
	default: // MD5, SHA-1, DSA
		return c.SignatureAlgorithm.String(), SeverityFatal
	}
	oid := signatureOID(c)
	names := map[string]string{
		"1.2.840.113549.1.1.2": "MD2-RSA", "1.2.840.113549.1.1.3": "MD4-RSA", "1.2.840.113549.1.1.14": "SHA224-RSA", "1.2.840.10045.4.3.1": "ECDSA-SHA224",
		"1.2.840.113549.1.1.10": "RSA-PSS with unusual parameters", "1.2.840.10040.4.3": "DSA-SHA1", "2.16.840.1.101.3.4.3.1": "DSA-SHA224", "2.16.840.1.101.3.4.3.2": "DSA-SHA256",
		"2.16.840.1.101.3.4.3.17": "ML-DSA-44", "2.16.840.1.101.3.4.3.18": "ML-DSA-65", "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
	}
	if name, ok := names[oid]; ok {
		return name, SeverityFatal
	}
	return "an algorithm unknown here (" + oid + ")", SeverityFatal
}

// signatureOID returns the object identifier of the signature algorithm, which
// crypto/x509 does not tell for those that it does not know.
func signatureOID(c *x509.Certificate) string {
	var outer struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.Raw, &outer); err != nil {
		return "unreadable"
	}
	return outer.Algorithm.Algorithm.String()
}

// spkiOID returns the object identifier of the kind of key.
func spkiOID(c *x509.Certificate) string {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		return "unreadable"
	}
	return info.Algorithm.Algorithm.String()
}

// publicKeys checks the kinds and sizes of the keys of the path. Of a root that
// is trusted, clients mind the size only.
func (v *vetting) publicKeys() {
	for _, c := range v.path {
		field := "key of " + v.who(c)
		root := v.isTop(c) && v.anchored && c != v.leaf()
		again := "request one with --algo EC, or with --algo RSA"
		if c != v.leaf() {
			again = "have the certificate issued by a CA with such a key"
		}
		k := keys.PublicOf(c)
		if k, ok := k.(*rsa.PublicKey); ok {
			v.rsaKey(field, k, root, again)
			continue
		}
		if root && keys.Kind(k) != "" {
			continue
		}
		switch k := k.(type) {
		case *ecdsa.PublicKey:
			switch k.Curve {
			case elliptic.P256(), elliptic.P384():
			case elliptic.P521():
				v.say(SeverityWarning, CheckKeyKind, field, "ECDSA P-521", "P-256 or P-384: Windows (Schannel) does not offer P-521 unless it is told to", again+", if Windows clients are to use this node")
			default:
				v.say(SeverityFatal, CheckKeyKind, field, kindOf(c), "P-256 or P-384: TLS has no other curves that all clients know", again)
			}
		case ed25519.PublicKey:
			v.say(SeverityWarning, CheckKeyKind, field, "Ed25519", "RSA or ECDSA: "+schannelHas, again+", if Windows clients are to use this node")
		case ed448.PublicKey:
			if c == v.leaf() { // of a CA, what it signed is said by algorithms
				v.say(SeverityUnservable, CheckEd448, field, "Ed448", "RSA or ECDSA: neither this node's TLS nor Windows clients can use Ed448", "keep it, if you like; for HTTPS "+again)
			}
		default:
			v.say(SeverityFatal, CheckKeyKind, field, kindOf(c), "RSA or ECDSA", again)
		}
	}
}

func (v *vetting) rsaKey(field string, k *rsa.PublicKey, root bool, again string) {
	bits := k.N.BitLen()
	found := fmt.Sprintf("RSA with %d bits", bits)
	switch {
	case bits < 2048 && root:
		v.say(SeverityWarning, CheckKeySize, field, found, "2048 or more", "plan for another root: some clients refuse this one already")
	case bits < 2048:
		v.say(SeverityFatal, CheckKeySize, field, found, "2048 or more: clients refuse less", again)
	case bits > 8192:
		v.say(SeverityFatal, CheckKeySize, field, found, "4096 or fewer: programs written in Go refuse more than 8192", again)
	case bits > 4096:
		v.say(SeverityNote, CheckKeySize, field, found, "4096 or fewer", "nothing, unless handshakes are slow; each costs many times that of a smaller key")
	}
	found = fmt.Sprintf("RSA with the public exponent %d", k.E)
	switch {
	case k.E < 3 || k.E%2 == 0:
		v.say(SeverityFatal, CheckKeySize, field, found, "65537: with this one anybody can sign", again)
	case k.E < 65537:
		v.say(SeverityWarning, CheckKeySize, field, found, "65537: some clients refuse a small one", again)
	}
}
