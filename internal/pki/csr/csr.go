// Package csr makes certificate requests: it checks what a person asked for,
// writes it as PKCS#10 with any kind of key, and reads it back.
package csr

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"larder/internal/pki/ed448"
	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
	"larder/internal/pki/san"
)

// Request is what a certificate is asked for.
type Request struct {
	Algorithm    string    `json:"algorithm" yaml:"algorithm"`                           // one of keys.RSA, EC, Ed25519, Ed448
	Size         string    `json:"size,omitempty" yaml:"size,omitempty"`                 // one of keys.Sizes; "" is the default
	CommonName   string    `json:"commonName" yaml:"commonName"`                         // not looked at by clients
	Country      string    `json:"country,omitempty" yaml:"country,omitempty"`           // two letters
	State        string    `json:"state,omitempty" yaml:"state,omitempty"`               //
	Organization string    `json:"organization,omitempty" yaml:"organization,omitempty"` //
	Names        san.Names `json:"names" yaml:"names"`
}

// Key makes a key of the kind that r names.
func (r Request) Key() (crypto.Signer, error) { return keys.Generate(r.Algorithm, r.Size) }

var (
	oidExtensionRequest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidServerAuth       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
)

// Create writes and signs the request as PKCS#10 in DER (RFC 2986). It asks
// for the names, for use by a server, and for the key usages that TLS needs of
// the kind of key. key must be of the kind that r names.
func (r Request) Create(key crypto.Signer) ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	algorithm, size := keys.AlgorithmOf(key.Public())
	if algorithm != r.Algorithm || r.Size != "" && size != r.Size {
		return nil, &problem.Problem{Field: "key", Found: fmt.Sprintf("a key of the kind %s", keys.Kind(key.Public())),
			Expected: strings.TrimSpace(r.Algorithm + " " + r.Size), Next: "name the kind of the key, or have another made"}
	}
	info, err := r.info(key.Public())
	if err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	sigAlg, signature, err := sign(key, info)
	if err != nil {
		return nil, fmt.Errorf("signing the request: %w", err)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // CertificationRequest, RFC 2986, section 4.2
		b.AddBytes(info)
		b.AddBytes(sigAlg)
		b.AddASN1BitString(signature)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	// A signer may be broken hardware: what does not verify helps nobody.
	if _, err := Parse(der); err != nil {
		return nil, fmt.Errorf("reading the request just made: %w", err)
	}
	return der, nil
}

// info writes the CertificationRequestInfo (RFC 2986, section 4.1).
func (r Request) info(public crypto.PublicKey) ([]byte, error) {
	subject, err := r.subject()
	if err != nil {
		return nil, err
	}
	spki, err := marshalPublic(public)
	if err != nil {
		return nil, err
	}
	names, err := r.Names.Marshal()
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0) // version 1
		b.AddBytes(subject.DER())
		b.AddBytes(spki)
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // one attribute: RFC 2985, section 5.4.2
				b.AddASN1ObjectIdentifier(oidExtensionRequest)
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						addExtension(b, san.OID, false, func(b *cryptobyte.Builder) { b.AddBytes(names) })
						addExtension(b, oidKeyUsage, true, func(b *cryptobyte.Builder) { b.AddBytes(keyUsage(public)) })
						addExtension(b, oidExtKeyUsage, false, func(b *cryptobyte.Builder) {
							b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidServerAuth) })
						})
					})
				})
			})
		})
	})
	return b.Bytes()
}

// addExtension adds an Extension (RFC 5280, section 4.1). critical is false by
// default and then left out.
func addExtension(b *cryptobyte.Builder, id asn1.ObjectIdentifier, critical bool, value func(*cryptobyte.Builder)) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(cbasn1.OCTET_STRING, value)
	})
}

// keyUsage is the KeyUsage that servers need (RFC 5280, section 4.2.1.3):
// digitalSignature, and keyEncipherment for RSA, which TLS 1.2 may use so.
func keyUsage(public crypto.PublicKey) []byte {
	if _, ok := public.(*rsa.PublicKey); ok {
		return []byte{0x03, 2, 5, 0xa0}
	}
	return []byte{0x03, 2, 7, 0x80}
}

// subject is the name in the order of "openssl req -subj /C=/ST=/O=/CN=".
func (r Request) subject() (san.DirName, error) {
	var attributes []san.Attribute
	for _, a := range []san.Attribute{{Type: "C", Value: r.Country}, {Type: "ST", Value: r.State}, {Type: "O", Value: r.Organization}, {Type: "CN", Value: r.CommonName}} {
		if a.Value != "" {
			attributes = append(attributes, a)
		}
	}
	return san.MakeDirName(attributes...)
}

// marshalPublic writes a SubjectPublicKeyInfo.
func marshalPublic(public crypto.PublicKey) ([]byte, error) {
	if k, ok := public.(ed448.PublicKey); ok {
		return ed448.MarshalSPKI(k)
	}
	return x509.MarshalPKIXPublicKey(public)
}

// sign signs message and names the algorithm in DER: PKCS #1 1.5 for RSA (RFC
// 4055, section 5), ECDSA with a hash as long as the curve (RFC 5758, section
// 3.2), Ed25519 and Ed448 (RFC 8410, section 3).
func sign(key crypto.Signer, message []byte) (algorithm, signature []byte, err error) {
	var oid asn1.ObjectIdentifier
	var hash crypto.Hash
	switch k := key.Public().(type) {
	case *rsa.PublicKey:
		oid, hash = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, crypto.SHA256
	case *ecdsa.PublicKey:
		oid, hash = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, crypto.SHA256
		if k.Params().BitSize > 256 {
			oid, hash = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, crypto.SHA384
		}
	case ed25519.PublicKey:
		oid = asn1.ObjectIdentifier{1, 3, 101, 112}
	case ed448.PublicKey:
		oid = ed448.OID
	default:
		return nil, nil, errors.New("no signature algorithm is known for this kind of key")
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if _, ok := key.Public().(*rsa.PublicKey); ok {
			b.AddASN1NULL() // the others have no parameters
		}
	})
	if algorithm, err = b.Bytes(); err != nil {
		return nil, nil, err
	}
	digest := message
	if hash != 0 {
		h := hash.New()
		h.Write(message)
		digest = h.Sum(nil)
	}
	signature, err = key.Sign(rand.Reader, digest, hash)
	return algorithm, signature, err
}

// MarshalPEM puts a request into PEM.
func MarshalPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// Parse reads a request in PEM or DER and verifies that its own key signed it.
func Parse(data []byte) (*x509.CertificateRequest, error) {
	der, err := requestDER(data)
	if err != nil {
		return nil, err
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, &problem.Problem{Field: "request", Found: "data that is no certificate request", Err: err, Expected: "PKCS#10", Next: "copy it again, or make another with larder tls csr"}
	}
	if err := checkSignature(req); err != nil {
		return nil, &problem.Problem{Field: "request", Found: "a signature that does not verify", Err: err, Expected: "one by the key in the request", Next: "copy the request again, or make another with larder tls csr"}
	}
	return req, nil
}

// requestDER finds the request in data.
func requestDER(data []byte) ([]byte, error) {
	p := &problem.Problem{Field: "request", Expected: "a certificate request, PKCS#10 in PEM or DER"}
	if bytes.HasPrefix(data, []byte{0x30}) && !bytes.Contains(data, []byte("-----BEGIN ")) {
		return data, nil
	}
	var der []byte
	var others []string
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		switch {
		case block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST":
			others = append(others, block.Type)
		case der != nil:
			p.Found, p.Expected = "more than one request", "one"
			return nil, p
		default:
			der = block.Bytes
		}
	}
	switch {
	case der != nil:
		return der, nil
	case len(others) > 0:
		p.Found = "PEM of another kind: " + strings.Join(others, ", ")
	case len(bytes.TrimSpace(data)) == 0:
		p.Found = "nothing"
	case bytes.Contains(data, []byte("-----BEGIN ")):
		p.Found, p.Next = "a PEM block that does not end", "copy it again"
	default:
		p.Found = "neither PEM nor DER"
	}
	return nil, p
}

func checkSignature(req *x509.CertificateRequest) error {
	if !ed448.SignedWith(req.Raw) {
		return req.CheckSignature()
	}
	key, ok := keys.PublicOfRequest(req).(ed448.PublicKey)
	if !ok {
		return errors.New("an Ed448 signature with a key of another kind")
	}
	return ed448.CheckSignature(key, req.Raw)
}

// RequestOf makes a Request of one that was read, so that it can be asked again
// with another key. What Request has no words for is an error, beside what it
// has: asked again without it, the certificate would be another.
func RequestOf(req *x509.CertificateRequest) (Request, error) {
	var r Request
	r.Algorithm, r.Size = keys.AlgorithmOf(keys.PublicOfRequest(req))
	var errs []error
	if r.Algorithm == "" {
		errs = append(errs, &problem.Problem{Field: FlagAlgo, Found: "a kind of key that is unknown here", Expected: algorithms, Next: "make a new request with larder tls csr"})
	}
	subject, err := san.ReadDirName(req.RawSubject)
	if err != nil {
		return r, err
	}
	for _, a := range subject.Attributes() {
		var field *string
		switch a.Type {
		case "C":
			field = &r.Country
		case "ST":
			field = &r.State
		case "O":
			field = &r.Organization
		case "CN":
			field = &r.CommonName
		}
		if field == nil || *field != "" || a.Value == "" {
			errs = append(errs, &problem.Problem{Field: "subject", Found: fmt.Sprintf("%s=%s", a.Type, a.Value), Expected: "each of C, ST, O and CN at most once", Next: "make a new request with larder tls csr"})
			continue
		}
		*field = a.Value
	}
	if r.Names, err = san.OfRequest(req); err != nil {
		errs = append(errs, err)
	}
	return r, errors.Join(errs...)
}
