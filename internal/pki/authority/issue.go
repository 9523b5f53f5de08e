package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Issued is a certificate that was signed, with what callers write down.
type Issued struct {
	Chain     []*x509.Certificate // leaf first, without the root
	Serial    string              // lower-case hexadecimal
	SPKI      string              // SHA-256 of the public key, lower-case hexadecimal
	NotBefore time.Time
	NotAfter  time.Time
}

// PEM is the chain, leaf first.
func (i *Issued) PEM() string {
	var b strings.Builder
	for _, c := range i.Chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.String()
}

// TLSCertificate is the chain with its root, for servers: who pins a root must
// be sent it.
func (i *Issued) TLSCertificate(key crypto.Signer, root *x509.Certificate) *tls.Certificate {
	t := &tls.Certificate{PrivateKey: key, Leaf: i.Chain[0]}
	for _, c := range i.Chain {
		t.Certificate = append(t.Certificate, c.Raw)
	}
	t.Certificate = append(t.Certificate, root.Raw)
	return t
}

// maxRequest is the longest request that is looked at, in bytes of PEM.
const maxRequest = 16 << 10

// nodeForm is a GUID in lower case.
var nodeForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// lineURI is the prefix of the URI that carries the line. The ARC of names is
// our own; nobody resolves it.
const lineURI = "larder:line:"

// IssueNode signs an identity for the key of a PKCS#10 request in PEM. The
// request proves that its sender has the key; nothing else of it gets into the
// certificate: that is for the node, a GUID, and its line, good for NodeLife,
// and only to be a TLS client with. Errors: ErrRootExpired; others are about the
// request.
func (a *Authority) IssueNode(csrPEM, node string, line int64, now time.Time) (*Issued, error) {
	pub, err := readRequest(csrPEM)
	if err != nil {
		return nil, err
	}
	if !nodeForm.MatchString(node) {
		return nil, fmt.Errorf("node: found %q, expected a GUID in lower case", node)
	}
	return a.sign(&x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"Larder"}, OrganizationalUnit: []string{"node"}, CommonName: node},
		URIs:        []*url.URL{{Scheme: "urn", Opaque: "uuid:" + node}, {Scheme: "larder", Opaque: "line:" + strconv.FormatInt(line, 10)}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, pub, NodeLife, now)
}

// IssueServer signs a certificate for a server under names, host names and
// addresses.
func (a *Authority) IssueServer(pub crypto.PublicKey, names []string, life time.Duration, now time.Time) (*Issued, error) {
	if len(names) == 0 {
		return nil, errors.New("names: found none, expected at least one host name or address")
	}
	t := &x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"Larder"}, CommonName: clipName(names[0])},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	return a.sign(t, pub, life, now)
}

// clipName keeps a common name within its 64 characters (RFC 5280, appendix A).
func clipName(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}

func (a *Authority) sign(t *x509.Certificate, pub crypto.PublicKey, life time.Duration, now time.Time) (*Issued, error) {
	ca := a.cur.Load().active
	now = now.UTC().Truncate(time.Second)
	t.SerialNumber = newSerial()
	t.NotBefore, t.NotAfter = now.Add(-backdate), now.Add(life)
	if t.NotAfter.After(ca.cert.NotAfter) {
		t.NotAfter = ca.cert.NotAfter
	}
	if !now.Before(t.NotAfter) {
		return nil, fmt.Errorf("%w, at %s: let another one sign", ErrRootExpired, ca.cert.NotAfter.Format(time.RFC3339))
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, pub, ca.key)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return &Issued{
		Chain: []*x509.Certificate{cert}, Serial: serialText(cert.SerialNumber), SPKI: hex.EncodeToString(sum[:]),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
	}, nil
}

// readRequest returns the key of a request that proves it has it.
func readRequest(text string) (crypto.PublicKey, error) {
	if len(text) > maxRequest {
		return nil, fmt.Errorf("found %d bytes, expected a request of %d at most", len(text), maxRequest)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
		return nil, errors.New("found no CERTIFICATE REQUEST in PEM")
	}
	if strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("found more than one request")
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("not a PKCS#10 request: %w", err)
	}
	if err := checkKey(req.PublicKey); err != nil {
		return nil, err
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("its signature is not by its key: %w", err)
	}
	return req.PublicKey, nil
}

// checkKey says which keys an identity may have.
func checkKey(pub any) error {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("found a key on %s, expected P-256 or P-384", k.Curve.Params().Name)
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 4096 {
			return fmt.Errorf("found an RSA key of %d bits, expected 2048 to 4096", n)
		}
		return nil
	}
	return errors.New("found a key of another kind, expected EC, Ed25519 or RSA")
}
