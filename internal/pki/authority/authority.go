// Package authority is the control plane's own CA: it signs the identities by
// which nodes prove themselves, and the control plane's server certificate, and
// says what an identity that is shown is worth.
//
// It is pure and in memory: callers keep what it gives.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync/atomic"
	"time"
)

// How long what is signed is good.
const (
	RootLife   = 10 * 365 * 24 * time.Hour
	NodeLife   = 30 * 24 * time.Hour
	ServerLife = 90 * 24 * time.Hour

	// backdate is for clocks that are behind.
	backdate = time.Hour
)

// CA is a root with its key.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// Create makes a root with a key on P-256. name is for people who look at its
// certificate.
func Create(name string, now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now = now.UTC().Truncate(time.Second)
	tmpl := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{Organization: []string{"Larder"}, CommonName: strings.TrimSpace(name + " root " + now.Format(time.DateOnly))},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(RootLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing a root: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{cert, key}, nil
}

// Load reads a root in DER and its key in PKCS#8 DER, as Certificate and Key
// gave them.
func Load(cert, key []byte) (*CA, error) {
	c, err := x509.ParseCertificate(cert)
	if err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	if !c.IsCA || !c.BasicConstraintsValid || c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("root: found a certificate that may not sign others")
	}
	k, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return nil, errors.New("root: its key is not PKCS#8") // the cause may quote the key
	}
	signer, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("root: found a key of type %T, expected one that signs", k)
	}
	if pub, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(c.PublicKey) {
		return nil, errors.New("root: the key is another certificate's")
	}
	return &CA{c, signer}, nil
}

// Certificate is the root.
func (c *CA) Certificate() *x509.Certificate { return c.cert }

// Key is the root's key, a secret, in PKCS#8 DER.
func (c *CA) Key() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(c.key) }

// Authority is the root that signs and those that are trusted besides: one that
// is to follow it, or the one it followed. It may be used by several goroutines.
type Authority struct {
	cur atomic.Pointer[state]
}

// state does not change.
type state struct {
	active *CA
	roots  []*x509.Certificate // active first
	pool   *x509.CertPool
	pem    string
}

// New makes an Authority that signs with active.
func New(active *CA, trusted ...*x509.Certificate) *Authority {
	a := new(Authority)
	a.Replace(active, trusted...)
	return a
}

// Replace changes the root that signs and the others that are trusted.
func (a *Authority) Replace(active *CA, trusted ...*x509.Certificate) {
	s := &state{active: active, roots: append([]*x509.Certificate{active.cert}, trusted...), pool: x509.NewCertPool()}
	var b strings.Builder
	for _, c := range s.roots {
		s.pool.AddCert(c)
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	s.pem = b.String()
	a.cur.Store(s)
}

// Roots are those that are trusted, the one that signs first.
func (a *Authority) Roots() []*x509.Certificate { return a.cur.Load().roots }

// RootsPEM are the Roots in PEM.
func (a *Authority) RootsPEM() string { return a.cur.Load().pem }

// newSerial is 127 random bits: positive, and at most 20 octets (RFC 5280,
// section 4.1.2.2).
func newSerial() *big.Int {
	var raw [16]byte
	rand.Read(raw[:])
	raw[0] &= 0x7f
	raw[0] |= 0x40 // no leading zeros: every serial is as long
	return new(big.Int).SetBytes(raw[:])
}

func serialText(n *big.Int) string { return fmt.Sprintf("%032x", n) }

// Fingerprint names a certificate: "sha256:" and the SHA-256 of its DER in
// lower-case hexadecimal.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ParseFingerprint reads a fingerprint as Fingerprint writes it, or as other
// programs do: without "sha256:", in upper case, with colons or blanks.
func ParseFingerprint(s string) (sum [32]byte, err error) {
	text := strings.ToLower(strings.TrimSpace(s))
	text = strings.TrimPrefix(strings.TrimPrefix(text, "sha256:"), "sha-256:")
	text = strings.NewReplacer(":", "", " ", "").Replace(text)
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(sum) {
		return sum, fmt.Errorf("fingerprint: found %d characters, expected sha256: and 64 hexadecimal digits", len(s))
	}
	copy(sum[:], raw)
	return sum, nil
}
