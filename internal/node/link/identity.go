package link

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"larder/internal/fleet"
	"larder/internal/sys/private"
)

// ErrNotEnrolled: the directory holds no identity.
var ErrNotEnrolled = errors.New("not enrolled with a control plane; see larder node deploy --help")

// identity is what identity.json holds. It does not change once it is read.
type identity struct {
	URL         string `json:"url"` // of the control plane
	CacheNodeID string `json:"cacheNodeId"`
	CustomerID  string `json:"customerId"`
	Line        int64  `json:"line"`
	Key         string `json:"key"`         // PKCS#8 in PEM
	Certificate string `json:"certificate"` // chain in PEM, leaf first
	Roots       string `json:"roots"`       // PEM

	pair tls.Certificate // of Key and Certificate
}

func identityFile(dir string) string { return filepath.Join(dir, "identity.json") }

// readIdentity reads the identity of a directory. Errors: ErrNotEnrolled.
func readIdentity(dir string) (*identity, error) {
	b, err := os.ReadFile(identityFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotEnrolled
	}
	if err != nil {
		return nil, fmt.Errorf("reading the node's identity: %w", err)
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil {
		return nil, fmt.Errorf("%s: not the JSON expected; enrol the node anew", identityFile(dir)) // the cause may quote the key
	}
	return &id, id.complete()
}

// complete checks what was read and makes the pair.
func (id *identity) complete() error {
	var err error
	if id.pair, err = tls.X509KeyPair([]byte(id.Certificate), []byte(id.Key)); err != nil {
		return fmt.Errorf("the node's identity: certificate and key do not belong together: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(id.Roots)) {
		return errors.New("the node's identity: it holds no root to trust the control plane by")
	}
	if id.URL == "" || id.CacheNodeID == "" {
		return errors.New("the node's identity: it does not say whose it is")
	}
	return nil
}

func (id *identity) write(dir string) error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	if err := private.WriteFile(identityFile(dir), append(b, '\n')); err != nil {
		return fmt.Errorf("writing the node's identity: %w", err)
	}
	return nil
}

// with returns the identity with what the control plane issued for key.
func (id *identity) with(key crypto.Signer, issued *fleet.Identity) (*identity, error) {
	text, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	next := &identity{
		URL: id.URL, CustomerID: id.CustomerID, CacheNodeID: issued.CacheNodeID, Line: issued.Line,
		Key: text, Certificate: issued.Certificate, Roots: issued.Roots,
	}
	return next, next.complete()
}

func (id *identity) leaf() *x509.Certificate { return id.pair.Leaf }

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func keyPEM(key crypto.Signer) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// request makes the PKCS#10 request for a key. The control plane puts the names
// in.
func request(key crypto.Signer) (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
	if err != nil {
		return "", fmt.Errorf("making a request for the identity: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}
