package scep

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/smallstep/pkcs7"

	"larder/internal/pki/bundle"
	"larder/internal/pki/enroll/inquiry"
	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
)

// messageType, status and failInfo are those of RFC 8894, section 3.2.1.
type messageType string

const (
	certRep    messageType = "3"
	renewalReq messageType = "17"
	pkcsReq    messageType = "19"
	certPoll   messageType = "20"
)

func (m messageType) name() string {
	return map[messageType]string{certRep: "CertRep", renewalReq: "RenewalReq", pkcsReq: "PKCSReq", certPoll: "CertPoll"}[m]
}

type status string

const (
	success status = "0"
	failure status = "2"
	pending status = "3"
)

var (
	oidMessageType    = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 2}
	oidStatus         = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 3}
	oidFailInfo       = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 4}
	oidSenderNonce    = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 5}
	oidRecipientNonce = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 6}
	oidTransactionID  = asn1.ObjectIdentifier{2, 16, 840, 1, 113733, 1, 9, 7}
	oidFailInfoText   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 24, 1}
)

// rsaPrivate signs and reads messages.
type rsaPrivate interface {
	crypto.Signer
	crypto.Decrypter
}

func rsaKey(key crypto.Signer) (rsaPrivate, bool) {
	if key == nil {
		return nil, false
	}
	_, isRSA := key.Public().(*rsa.PublicKey)
	both, ok := key.(rsaPrivate)
	return both, isRSA && ok
}

// identity is who speaks: answers are encrypted to it.
type identity struct {
	cert *x509.Certificate
	key  rsaPrivate
}

// newIdentity makes the self-signed certificate of somebody who has none yet
// (RFC 8894, section 2.3): with the request's subject and, if it is of RSA,
// the request's key.
func newIdentity(req *x509.CertificateRequest, key crypto.Signer) (*identity, error) {
	own, ok := rsaKey(key)
	if !ok {
		made, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		own = made
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, RawSubject: req.RawSubject,
		// As long as an approval may take, and with some slack for clocks.
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(30 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}, &x509.Certificate{RawSubject: req.RawSubject}, own.Public(), own)
	if err != nil {
		return nil, fmt.Errorf("making a certificate to ask with: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &identity{cert: cert, key: own}, nil
}

// cipherKind and digestKind are what messages are made with.
type cipherKind struct {
	name string
	oid  asn1.ObjectIdentifier
	size int // of the key
	make func(key []byte) (cipher.Block, error)
}

type digestKind struct {
	name string
	oid  asn1.ObjectIdentifier
}

// The shapes of EnvelopedData (RFC 2315, section 10) that we write. The
// library's own Encrypt takes its cipher from a variable that all share, and
// knows no 3DES.
type (
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content any `asn1:"explicit,tag:0"`
	}
	envelopedData struct {
		Version    int
		Recipients []recipient `asn1:"set"`
		Content    encryptedContent
	}
	recipient struct {
		Version   int
		Issuer    issuerAndSerial
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	issuerAndSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	encryptedContent struct {
		Type      asn1.ObjectIdentifier
		Algorithm pkix.AlgorithmIdentifier
		Content   []byte `asn1:"tag:0"`
	}
)

// seal encrypts content to a certificate.
func seal(content []byte, to *x509.Certificate, kind cipherKind) ([]byte, error) {
	key := make([]byte, kind.size)
	_, _ = rand.Read(key) // never fails
	block, err := kind.make(key)
	if err != nil {
		return nil, err
	}
	iv := make([]byte, block.BlockSize())
	_, _ = rand.Read(iv)
	padding := block.BlockSize() - len(content)%block.BlockSize()
	sealed := slices.Concat(content, bytes.Repeat([]byte{byte(padding)}, padding))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(sealed, sealed)
	return envelope(key, iv, sealed, to, kind)
}

// envelope is EnvelopedData with what was encrypted by key.
func envelope(key, iv, sealed []byte, to *x509.Certificate, kind cipherKind) ([]byte, error) {
	public, ok := to.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("the recipient's key is not of RSA")
	}
	//lint:ignore SA1019 PKCS #1 v1.5 is what the protocol has
	sealedKey, err := rsa.EncryptPKCS1v15(rand.Reader, public, key)
	if err != nil {
		return nil, err
	}
	ivDER, err := asn1.Marshal(iv)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(contentInfo{pkcs7.OIDEnvelopedData, envelopedData{
		Recipients: []recipient{{
			Issuer:    issuerAndSerial{asn1.RawValue{FullBytes: to.RawIssuer}, to.SerialNumber},
			Algorithm: pkix.AlgorithmIdentifier{Algorithm: pkcs7.OIDEncryptionAlgorithmRSA, Parameters: asn1.NullRawValue},
			Key:       sealedKey,
		}},
		Content: encryptedContent{
			Type:      pkcs7.OIDData,
			Algorithm: pkix.AlgorithmIdentifier{Algorithm: kind.oid, Parameters: asn1.RawValue{FullBytes: ivDER}},
			Content:   sealed,
		},
	}})
}

// message makes a pkiMessage (RFC 8894, section 3).
func message(kind messageType, id string, nonce, content []byte, who *identity, to *x509.Certificate, able capabilities) ([]byte, error) {
	sealed, err := seal(content, to, able.cipher())
	if err != nil {
		return nil, fmt.Errorf("encrypting to %s: %w", to.Subject, err)
	}
	signed, err := pkcs7.NewSignedData(sealed)
	if err != nil {
		return nil, err
	}
	signed.SetDigestAlgorithm(able.digest().oid)
	if err := signed.AddSigner(who.cert, who.key, pkcs7.SignerInfoConfig{ExtraSignedAttributes: []pkcs7.Attribute{
		{Type: oidTransactionID, Value: id},
		{Type: oidMessageType, Value: string(kind)},
		{Type: oidSenderNonce, Value: nonce},
	}}); err != nil {
		return nil, fmt.Errorf("signing a message: %w", err)
	}
	return signed.Finish()
}

// reply is a CertRep that was for us and of the CA.
type reply struct {
	status status
	certs  []*x509.Certificate // if success
}

// parseReply reads a CertRep (RFC 8894, section 3.3.2). A failure is an error
// that is Refused.
func parseReply(data []byte, id string, nonce []byte, who *identity, ca *authority) (*reply, error) {
	odd := func(found, expected string, err error) error {
		return &problem.Problem{Field: "SCEP answer", Found: found, Expected: expected, Err: err, Next: "look into the CA's log if this goes on"}
	}
	p7, err := pkcs7.Parse(data)
	if err != nil {
		return nil, odd("what is no PKCS#7 message", "a CertRep", err)
	}
	// Only the CA's own certificates count, not those that come along.
	p7.Certificates = ca.signers
	if len(p7.Signers) != 1 {
		return nil, odd(fmt.Sprintf("%d signatures", len(p7.Signers)), "the CA's", nil)
	}
	// SHA-1 is taken, whatever the CA's capabilities are: both servers of the
	// tests list SHA-256 and sign with SHA-1 nevertheless. What it is weak
	// against is of no use here: two messages of one digest have to be made
	// before either is signed, and our nonce is in them.
	if err := p7.Verify(); err != nil {
		return nil, odd("a signature that is not the CA's", "that of a certificate which GetCACert gave", err)
	}
	var kind messageType
	var gotID, result string
	var gotNonce []byte
	if err := errors.Join(
		p7.UnmarshalSignedAttribute(oidMessageType, (*string)(&kind)),
		p7.UnmarshalSignedAttribute(oidTransactionID, &gotID),
		p7.UnmarshalSignedAttribute(oidRecipientNonce, &gotNonce),
		p7.UnmarshalSignedAttribute(oidStatus, &result),
	); err != nil {
		return nil, odd("a message without its attributes", "a CertRep", err)
	}
	switch {
	case kind != certRep:
		return nil, odd(fmt.Sprintf("a message of type %.10q", string(kind)), "a CertRep (3)", nil)
	case gotID != id || string(gotNonce) != string(nonce):
		return nil, odd("the answer to another question", "the answer to this one", nil)
	}
	switch status(result) {
	case pending:
		return &reply{status: pending}, nil
	case failure:
		return nil, refusal(p7)
	case success:
	default:
		return nil, odd(fmt.Sprintf("a status of %.10q", result), "0, 2 or 3", nil)
	}
	inner, err := open(p7.Content, who)
	if err != nil {
		return nil, odd("a certificate that cannot be decrypted", "one encrypted to the certificate that asked", err)
	}
	b, err := bundle.Parse("SCEP answer", inner, bundle.Options{})
	if err != nil {
		return nil, err
	}
	if len(b.Certs) == 0 {
		return nil, odd("success without a certificate", "one", nil)
	}
	return &reply{status: success, certs: b.Certs}, nil
}

// open decrypts EnvelopedData.
func open(der []byte, who *identity) (content []byte, err error) {
	// The library panics where a cipher text is not of whole blocks, or its
	// padding is longer than itself.
	defer func() {
		if r := recover(); r != nil {
			content, err = nil, fmt.Errorf("malformed: %v", r)
		}
	}()
	p7, err := pkcs7.Parse(der)
	if err != nil {
		return nil, err
	}
	return p7.Decrypt(who.cert, who.key)
}

// refusal says why the CA said no (RFC 8894, section 3.2.1.4.1).
func refusal(p7 *pkcs7.PKCS7) error {
	p := &problem.Problem{Field: "SCEP request"}
	var info, text string
	if err := p7.UnmarshalSignedAttribute(oidFailInfo, &info); err != nil {
		p.Err = err
	}
	switch info {
	case "0":
		p.Found, p.Next = "that the CA does not take an algorithm of it (badAlg)", "use an RSA key of 2048 bits, or see what the CA takes"
	case "1":
		p.Found, p.Next = "that the CA could not verify the message (badMessageCheck)", "see that the CA's certificate has not changed; look into its log"
	case "2":
		p.Found, p.Next = "that the CA does not permit it (badRequest)", "see that the challenge password is right and has not been used up, and that the CA may sign these names"
	case "3":
		p.Found, p.Next = "that the CA's time is too far from that of the message (badTime)", "set the clock here, or there"
	case "4":
		p.Found, p.Next = "that the CA knows no such certificate or request (badCertID)", "enrol anew"
	default:
		p.Found, p.Next = fmt.Sprintf("that the CA said no for a reason it did not name (%.20q)", info), "look into the CA's log"
	}
	if p7.UnmarshalSignedAttribute(oidFailInfoText, &text) == nil && text != "" {
		p.Found += ", saying: " + inquiry.Clip(text, 300)
	}
	return signing.Refuse(p)
}

func aesCBC() cipherKind {
	return cipherKind{"AES-128", pkcs7.OIDEncryptionAlgorithmAES128CBC, 16, aes.NewCipher}
}

func tripleDES() cipherKind {
	return cipherKind{"3DES", pkcs7.OIDEncryptionAlgorithmDESEDE3CBC, 24, des.NewTripleDESCipher}
}
