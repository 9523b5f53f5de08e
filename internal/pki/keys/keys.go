// Package keys makes, writes and reads private keys of every kind that a
// certificate of a node can have: RSA, ECDSA, Ed25519 and Ed448.
package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"larder/internal/pki/ed448"
)

// Algorithms are the words of "larder tls csr --algo".
const (
	RSA     = "RSA"
	EC      = "EC"
	Ed25519 = "ED25519"
	Ed448   = "ED448"
)

// Sizes are what --key-size-or-curve can be for an algorithm, the default
// first; none for ED25519 and ED448.
func Sizes(algorithm string) []string {
	switch algorithm {
	case RSA:
		return []string{"2048", "3072", "4096"}
	case EC:
		return []string{"prime256v1", "secp384r1"}
	}
	return nil
}

// Generate makes a key. algorithm is one of the constants, sizeOrCurve one of
// its Sizes, or "" for the default.
func Generate(algorithm, sizeOrCurve string) (crypto.Signer, error) {
	sizes := Sizes(algorithm)
	if sizeOrCurve == "" && len(sizes) > 0 {
		sizeOrCurve = sizes[0]
	}
	switch algorithm + " " + sizeOrCurve {
	case "RSA 2048":
		return signer(rsa.GenerateKey(rand.Reader, 2048))
	case "RSA 3072":
		return signer(rsa.GenerateKey(rand.Reader, 3072))
	case "RSA 4096":
		return signer(rsa.GenerateKey(rand.Reader, 4096))
	case "EC prime256v1":
		return signer(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	case "EC secp384r1":
		return signer(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	case "ED25519 ":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return signer(key, err)
	case "ED448 ":
		return signer(ed448.GenerateKey())
	}
	return nil, fmt.Errorf("no kind of key is called %q with %q", algorithm, sizeOrCurve)
}

// signer is nil beside an error, not an interface that holds a nil pointer.
func signer[K crypto.Signer](key K, err error) (crypto.Signer, error) {
	if err != nil {
		return nil, err
	}
	return key, nil
}

// MarshalPEM writes a key as PKCS#8 in PEM, not encrypted: the file's
// permissions guard it.
func MarshalPEM(key crypto.Signer) ([]byte, error) {
	der, err := MarshalPKCS8(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// MarshalPKCS8 writes a key as PKCS#8 DER.
func MarshalPKCS8(key crypto.Signer) ([]byte, error) {
	if k, ok := key.(ed448.PrivateKey); ok {
		return ed448.MarshalPKCS8(k)
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

// ErrNoKey is ParsePEM's for a file without a private key, ErrEncrypted for a
// key that needs a password.
var (
	ErrNoKey     = errors.New("no private key in PEM")
	ErrEncrypted = errors.New("the private key is encrypted")
)

// ParsePEM reads the first private key of a PEM file: PKCS#8, PKCS#1 or SEC 1.
func ParsePEM(data []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, ErrNoKey
		}
		key, err := ParseBlock(block)
		if errors.Is(err, ErrNoKey) {
			continue // EC PARAMETERS, or a certificate
		}
		return key, err
	}
}

// ParseBlock reads the private key of one PEM block; ErrNoKey if it is of
// another kind.
func ParseBlock(block *pem.Block) (crypto.Signer, error) {
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY" || strings.HasSuffix(block.Type, "PRIVATE KEY") && block.Headers["DEK-Info"] != "":
		return nil, ErrEncrypted
	case block.Type == "PRIVATE KEY":
		return ParsePKCS8(block.Bytes)
	case block.Type == "RSA PRIVATE KEY":
		return signer(x509.ParsePKCS1PrivateKey(block.Bytes))
	case block.Type == "EC PRIVATE KEY":
		return signer(x509.ParseECPrivateKey(block.Bytes))
	case strings.HasSuffix(block.Type, "PRIVATE KEY"): // OPENSSH, DSA
		return nil, fmt.Errorf("a key in a form that is not read here (%s); expected PKCS#8, PKCS#1 or SEC 1", block.Type)
	}
	return nil, ErrNoKey
}

// ParsePKCS8 reads a private key from PKCS#8 DER.
func ParsePKCS8(der []byte) (crypto.Signer, error) {
	if key, err := ed448.ParsePKCS8(der); !errors.Is(err, ed448.ErrOther) {
		return signer(key, err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	if s, ok := key.(crypto.Signer); ok {
		return s, nil
	}
	return nil, fmt.Errorf("a key that cannot sign (%T)", key)
}

// PublicOf returns the public key of a certificate, those included that
// crypto/x509 leaves out; nil for a kind that nobody here knows.
func PublicOf(cert *x509.Certificate) crypto.PublicKey {
	return public(cert.PublicKey, cert.RawSubjectPublicKeyInfo)
}

// PublicOfRequest is PublicOf for a request.
func PublicOfRequest(req *x509.CertificateRequest) crypto.PublicKey {
	return public(req.PublicKey, req.RawSubjectPublicKeyInfo)
}

func public(known any, spki []byte) crypto.PublicKey {
	if key, ok := ed448.ParseSPKI(spki); ok {
		return key
	}
	return known
}

// Same reports whether two public keys are one.
func Same(a, b crypto.PublicKey) bool {
	x, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && b != nil && x.Equal(b)
}

// Kind names the kind of a public key for people: "ECDSA P-256", "RSA 2048",
// "Ed25519", "Ed448"; "" for one that nobody here knows.
func Kind(public crypto.PublicKey) string {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	case ed448.PublicKey:
		return "Ed448"
	}
	return ""
}

// Servable reports whether Go's TLS can serve with a key of this kind: not
// with Ed448, nor with P-224, nor with RSA keys too short to sign with.
func Servable(public crypto.PublicKey) bool {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return k.Curve != elliptic.P224()
	case *rsa.PublicKey:
		return k.N.BitLen() >= 1024
	case ed25519.PublicKey:
		return true
	}
	return false
}
