// Package ed448 lets keys and certificates with Ed448 (RFC 8032, RFC 8410) be
// made, read and verified, which crypto/x509 cannot do.
package ed448

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/sign/ed448"
)

// PublicKey and PrivateKey are RFC 8032's. A PrivateKey is a crypto.Signer
// whose Sign takes the whole message, with crypto.Hash(0) as option.
type (
	PublicKey  = ed448.PublicKey
	PrivateKey = ed448.PrivateKey
)

// OID names both the key and the signature algorithm (RFC 8410, section 3).
var OID = asn1.ObjectIdentifier{1, 3, 101, 113}

// ErrOther is the error of ParsePKCS8 for a key of another kind.
var ErrOther = errors.New("not an Ed448 key")

// GenerateKey makes a key.
func GenerateKey() (PrivateKey, error) {
	_, key, err := ed448.GenerateKey(rand.Reader)
	return key, err
}

// algorithm is an AlgorithmIdentifier. Those of Ed448 have no parameters (RFC
// 8410, section 3).
type algorithm struct {
	Algorithm  asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

func (a algorithm) is448() bool { return a.Algorithm.Equal(OID) && len(a.Parameters.FullBytes) == 0 }

// oneAsymmetricKey is RFC 5958's, with what a reader must tolerate after the
// key.
type oneAsymmetricKey struct {
	Version    int
	Algorithm  algorithm
	PrivateKey []byte
	Attributes asn1.RawValue `asn1:"optional,tag:0"`
	PublicKey  asn1.RawValue `asn1:"optional,tag:1"`
}

// ParsePKCS8 reads a private key (RFC 8410, section 7).
func ParsePKCS8(der []byte) (PrivateKey, error) {
	var k oneAsymmetricKey
	rest, err := asn1.Unmarshal(der, &k)
	if err != nil || !k.Algorithm.Algorithm.Equal(OID) {
		return nil, ErrOther
	}
	switch {
	case len(rest) > 0:
		return nil, errors.New("an Ed448 key with something after it")
	case !k.Algorithm.is448():
		return nil, errors.New("an Ed448 key with parameters")
	case k.Version != 0 && k.Version != 1:
		return nil, fmt.Errorf("an Ed448 key of version %d", k.Version)
	}
	var seed []byte // CurvePrivateKey, an octet string in the octet string
	if rest, err := asn1.Unmarshal(k.PrivateKey, &seed); err != nil || len(rest) > 0 {
		return nil, errors.New("an Ed448 key that is no octet string")
	}
	if len(seed) != ed448.SeedSize {
		return nil, fmt.Errorf("an Ed448 key of %d bytes; expected %d", len(seed), ed448.SeedSize)
	}
	key := ed448.NewKeyFromSeed(seed)
	// The public key that may come along is what the seed gives, or the file
	// was put together of two keys.
	if len(k.PublicKey.FullBytes) > 0 && !bytes.Equal(k.PublicKey.Bytes, append([]byte{0}, key.Public().(PublicKey)...)) {
		return nil, errors.New("an Ed448 key with the public key of another")
	}
	return key, nil
}

// MarshalPKCS8 writes a private key as ParsePKCS8 reads it.
func MarshalPKCS8(key PrivateKey) ([]byte, error) {
	seed, err := asn1.Marshal(key.Seed())
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		Version    int
		Algorithm  struct{ Algorithm asn1.ObjectIdentifier }
		PrivateKey []byte
	}{0, struct{ Algorithm asn1.ObjectIdentifier }{OID}, seed})
}

type publicKeyInfo struct {
	Algorithm algorithm
	PublicKey asn1.BitString
}

// ParseSPKI reads a SubjectPublicKeyInfo. It is false for every other kind of
// key.
func ParseSPKI(der []byte) (PublicKey, bool) {
	var info publicKeyInfo
	rest, err := asn1.Unmarshal(der, &info)
	if err != nil || len(rest) > 0 || !info.Algorithm.is448() ||
		len(info.PublicKey.Bytes) != ed448.PublicKeySize || info.PublicKey.BitLength != 8*ed448.PublicKeySize {
		return nil, false
	}
	return PublicKey(info.PublicKey.Bytes), true
}

// MarshalSPKI writes a SubjectPublicKeyInfo.
func MarshalSPKI(key PublicKey) ([]byte, error) {
	return asn1.Marshal(struct {
		Algorithm struct{ Algorithm asn1.ObjectIdentifier }
		PublicKey asn1.BitString
	}{struct{ Algorithm asn1.ObjectIdentifier }{OID}, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}})
}

// Verify says whether sig is key's signature of message.
func Verify(key PublicKey, message, sig []byte) bool { return ed448.Verify(key, message, sig, "") }

// signed is the outer shape that certificates and requests share.
type signed struct {
	TBS       asn1.RawValue
	Algorithm algorithm
	Signature asn1.BitString
}

// SignedWith reports whether a certificate or a request, as DER, carries an
// Ed448 signature.
func SignedWith(der []byte) bool {
	var s signed
	rest, err := asn1.Unmarshal(der, &s)
	return err == nil && len(rest) == 0 && s.Algorithm.is448()
}

// CheckSignature verifies that key signed a certificate or a request, as DER.
func CheckSignature(key PublicKey, der []byte) error {
	var s signed
	if rest, err := asn1.Unmarshal(der, &s); err != nil || len(rest) > 0 {
		return errors.New("not a signed structure")
	}
	if !s.Algorithm.is448() {
		return fmt.Errorf("the signature is of another kind (%s), not Ed448", s.Algorithm.Algorithm)
	}
	if s.Signature.BitLength != 8*ed448.SignatureSize || !Verify(key, s.TBS.FullBytes, s.Signature.Bytes) {
		return errors.New("the Ed448 signature does not match")
	}
	return nil
}

// CheckSignatureFrom verifies that parent's key signed child, whatever kind
// of key that is.
func CheckSignatureFrom(child, parent *x509.Certificate) error {
	if key, ok := ParseSPKI(parent.RawSubjectPublicKeyInfo); ok {
		return CheckSignature(key, child.Raw)
	}
	return parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature)
}
