package scep

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/smallstep/pkcs7"
	peer "github.com/smallstep/scep"
)

// ndes is a server as NDES is one: a CA with two registration authorities,
// one for signatures, one for encryption. What it reads, it reads with another
// project's library. It does what no server at hand does: approvals, old
// algorithms, and mistakes.
type ndes struct {
	t              testing.TB
	ca, sig, enc   *x509.Certificate
	caKey          *rsa.PrivateKey
	sigKey, encKey *rsa.PrivateKey
	caps           string // "" is 404
	url            string
	cipher         cipherKind // of answers
	decide         func(n int, m *asked) decision
	change         func(*answer)
	body           func(w http.ResponseWriter) bool // instead of an answer

	mu    sync.Mutex
	asked []*asked                 // guarded by mu
	last  *x509.CertificateRequest // guarded by mu; the one that polls are for
}

// asked is a message that came.
type asked struct {
	kind, method, challenge string
	cipher, digest          asn1.ObjectIdentifier
	signer                  *x509.Certificate
	csr                     *x509.CertificateRequest // nil in a poll
}

type decision struct {
	status   status
	failInfo string
	text     string
}

// answer is what goes into a CertRep.
type answer struct {
	id, kind, status string
	nonce            []byte
	cert             *x509.Certificate
	to               *x509.Certificate
	by               *x509.Certificate
	byKey            crypto.Signer
	sealed           []byte // instead of cert
}

const (
	capsNDES   = "POSTPKIOperation\nRenewal\nSHA-512\nSHA-256\nSHA-1\nDES3\n"
	capsModern = "AES\r\nPOSTPKIOperation\r\nSHA-256\r\nRenewal\r\nSCEPStandard"
)

func newNDES(t testing.TB) *ndes {
	t.Helper()
	made := rsaKeys()
	n := &ndes{t: t, caKey: made[0], sigKey: made[1], encKey: made[2], caps: capsModern, cipher: aesCBC()}
	n.ca = issue(t, caTemplate("Enterprise CA"), nil, n.caKey.Public(), n.caKey)
	agent := []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 311, 20, 2, 1}}
	n.sig = issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "NDES-MSCEP-RA"}, KeyUsage: x509.KeyUsageDigitalSignature, UnknownExtKeyUsage: agent}, n.ca, n.sigKey.Public(), n.caKey)
	n.enc = issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "NDES-MSCEP-RA"}, KeyUsage: x509.KeyUsageKeyEncipherment, UnknownExtKeyUsage: agent}, n.ca, n.encKey.Public(), n.caKey)
	server := httptest.NewServer(n)
	t.Cleanup(server.Close)
	n.url = server.URL + "/certsrv/mscep/mscep.dll"
	return n
}

func (n *ndes) seen() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	text := ""
	for _, m := range n.asked {
		text += "[" + m.kind
		if m.challenge != "" {
			text += "+challenge"
		}
		text += "]"
	}
	return text
}

// keep forgets all but the first messages.
func (n *ndes) keep(count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = n.asked[:count]
}

func (n *ndes) message(i int) *asked {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[i]
}

func (n *ndes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	switch query.Get("operation") {
	case "GetCACaps":
		if n.caps == "" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, n.caps)
	case "GetCACert":
		data, err := peer.DegenerateCertificates([]*x509.Certificate{n.sig, n.ca, n.enc})
		if err != nil {
			n.t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-x509-ca-ra-cert")
		_, _ = w.Write(data)
	case "PKIOperation":
		data, err := io.ReadAll(r.Body)
		if r.Method == http.MethodGet {
			data, err = base64.StdEncoding.DecodeString(query.Get("message"))
		}
		if err == nil {
			err = n.operate(w, r.Method, data)
		}
		if err != nil {
			n.t.Errorf("a message that the server cannot read: %v", err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}

func (n *ndes) operate(w http.ResponseWriter, method string, data []byte) error {
	p7, err := pkcs7.Parse(data)
	if err != nil {
		return err
	}
	if err := p7.Verify(); err != nil {
		return err
	}
	a := &answer{kind: string(certRep), by: n.sig, byKey: n.sigKey, to: p7.GetOnlySigner()}
	m := &asked{method: method, signer: a.to, digest: p7.Signers[0].DigestAlgorithm.Algorithm}
	for oid, into := range map[*asn1.ObjectIdentifier]any{&oidTransactionID: &a.id, &oidSenderNonce: &a.nonce, &oidMessageType: &m.kind} {
		if err := p7.UnmarshalSignedAttribute(*oid, into); err != nil {
			return err
		}
	}
	if m.cipher, err = cipherOf(p7.Content); err != nil {
		return err
	}
	if messageType(m.kind) != certPoll {
		message, err := peer.ParsePKIMessage(data)
		if err != nil {
			return err
		}
		if err := message.DecryptPKIEnvelope(n.enc, n.encKey); err != nil {
			return err
		}
		m.csr, m.challenge = message.CSR, message.ChallengePassword
		if err := m.csr.CheckSignature(); err != nil {
			return err
		}
	}
	n.mu.Lock()
	n.asked = append(n.asked, m)
	if m.csr != nil {
		n.last = m.csr
	}
	count, csr := len(n.asked), n.last
	n.mu.Unlock()
	if n.body != nil && n.body(w) {
		return nil
	}
	d := decision{status: success}
	if n.decide != nil {
		d = n.decide(count, m)
	}
	a.status = string(d.status)
	if d.status == success {
		a.cert = issue(n.t, &x509.Certificate{RawSubject: csr.RawSubject, ExtraExtensions: csr.Extensions}, n.ca, csr.PublicKey, n.caKey)
	}
	if n.change != nil {
		n.change(a)
	}
	reply, err := n.certRep(a, d)
	if err != nil {
		return err
	}
	_, _ = w.Write(reply)
	return nil
}

func (n *ndes) certRep(a *answer, d decision) ([]byte, error) {
	content := a.sealed
	if a.cert != nil && content == nil {
		inner, err := peer.DegenerateCertificates([]*x509.Certificate{a.cert})
		if err != nil {
			return nil, err
		}
		if content, err = seal(inner, a.to, n.cipher); err != nil {
			return nil, err
		}
	}
	signed, err := pkcs7.NewSignedData(content)
	if err != nil {
		return nil, err
	}
	attributes := []pkcs7.Attribute{
		{Type: oidTransactionID, Value: a.id}, {Type: oidMessageType, Value: a.kind}, {Type: oidStatus, Value: a.status},
		{Type: oidRecipientNonce, Value: a.nonce}, {Type: oidSenderNonce, Value: a.nonce},
	}
	if d.failInfo != "" {
		attributes = append(attributes, pkcs7.Attribute{Type: oidFailInfo, Value: d.failInfo})
	}
	if d.text != "" {
		attributes = append(attributes, pkcs7.Attribute{Type: oidFailInfoText, Value: d.text})
	}
	if err := signed.AddSigner(a.by, a.byKey, pkcs7.SignerInfoConfig{ExtraSignedAttributes: attributes}); err != nil {
		return nil, err
	}
	return signed.Finish()
}

// cipherOf reads what an EnvelopedData is encrypted with.
func cipherOf(der []byte) (asn1.ObjectIdentifier, error) {
	var outer struct {
		Type    asn1.ObjectIdentifier
		Content struct {
			Version    int
			Recipients asn1.RawValue
			Content    struct {
				Type      asn1.ObjectIdentifier
				Algorithm pkix.AlgorithmIdentifier
				Content   asn1.RawValue
			}
		} `asn1:"explicit,tag:0"`
	}
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("no EnvelopedData: %v", err)
	}
	return outer.Content.Content.Algorithm.Algorithm, nil
}
