package livecert

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
)

// mostBytes is how much of a file is read: certificates and keys are a few
// KiB, and a wrong path may lead to anything.
const mostBytes = 1 << 20

// A pair is a certificate with its key. It never changes.
type pair struct {
	tls      *tls.Certificate
	chain    []*x509.Certificate
	status   Status // without Err
	warnings []string
}

// lookup is what one look at the directory found.
type lookup struct {
	pair   *pair
	absent bool     // there is no active.yaml; with err: nor is there the directory
	off    bool     // active.yaml says that HTTPS is switched off
	err    error    // why what is there cannot be used
	hash   [32]byte // of all that the outcome depends on
}

// look reads the active pair of dir.
func look(dir string) lookup {
	sum := sha256.New()
	l := lookAt(dir, sum)
	if l.err != nil {
		fmt.Fprintf(sum, "\x00%v", l.err)
	}
	sum.Sum(l.hash[:0])
	return l
}

// lookAt writes all that it reads to sum.
func lookAt(dir string, sum io.Writer) lookup {
	file := activePath(dir)
	text, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(dir); err != nil {
			return lookup{absent: errors.Is(err, fs.ErrNotExist), err: fmt.Errorf("tls directory: %w", err)}
		}
		return lookup{absent: true}
	}
	if err != nil {
		return lookup{err: fmt.Errorf("reading %s: %w", file, err)}
	}
	fmt.Fprintf(sum, "%d\x00%s", len(text), text)
	a, err := parseActive(file, text)
	if err != nil {
		return lookup{err: err}
	}
	if a.Disabled {
		return lookup{off: true}
	}
	certFile, keyFile := Resolve(dir, a.Certificate), Resolve(dir, a.Key)
	cert, errCert := readPart("certificate", certFile)
	key, errKey := readPart("key", keyFile)
	if err := errors.Join(errCert, errKey); err != nil {
		return lookup{err: err}
	}
	fmt.Fprintf(sum, "%d\x00%s%d\x00%s", len(cert), cert, len(key), key)
	p, err := build(certFile, cert, keyFile, key)
	if err != nil {
		return lookup{err: err}
	}
	if w := looseMode(keyFile); w != "" {
		p.warnings = append(p.warnings, w)
	}
	return lookup{pair: p}
}

func readPart(field, name string) ([]byte, error) {
	data, err := readFile(name)
	if err == nil {
		return data, nil
	}
	p := &problem.Problem{Field: at(field, name), Found: "a file that cannot be read", Expected: "a PEM file", Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.Found, p.Next = "no such file", "put it there, or name another one in active.yaml"
	case errors.Is(err, fs.ErrPermission):
		p.Found, p.Next = "a file that this process may not read", "make it readable for the account that runs the node"
	}
	return nil, p
}

func at(field, file string) string { return field + " (" + file + ")" }

var errTooLarge = fmt.Errorf("it is larger than %d bytes", mostBytes)

// readFile reads a whole regular file.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name) // before opening: opening a pipe would wait
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("it is a directory")
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, mostBytes+1))
	if err == nil && len(data) > mostBytes {
		err = errTooLarge
	}
	return data, err
}

// build makes the pair of what the two files hold, or says what is wrong with
// it.
func build(certFile string, certPEM []byte, keyFile string, keyPEM []byte) (*pair, error) {
	chain, errChain := parseChain(at("certificate", certFile), certPEM)
	key, errKey := parseKey(at("key", keyFile), keyPEM)
	if err := errors.Join(errChain, errKey); err != nil {
		return nil, err
	}
	if err := matching(certFile, chain, keyFile, key); err != nil {
		return nil, err
	}
	leaf := chain[0]
	keyType, err := usable(at("certificate", certFile), leaf)
	if err != nil {
		return nil, err
	}
	p := &pair{chain: chain, tls: &tls.Certificate{PrivateKey: key, Leaf: leaf}}
	for i, c := range chain {
		p.tls.Certificate = append(p.tls.Certificate, c.Raw)
		if i > 0 && !bytes.Equal(chain[i-1].RawIssuer, c.RawSubject) {
			p.warnings = append(p.warnings, fmt.Sprintf("%s: certificate %d (%s) did not issue the one before it; some clients cannot follow such a chain",
				at("certificate", certFile), i+1, c.Subject))
		}
	}
	sum256, sum1 := sha256.Sum256(leaf.Raw), sha1.Sum(leaf.Raw)
	p.status = Status{
		File: certFile, KeyFile: keyFile, Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(),
		SANs: names(leaf.DNSNames, leaf.IPAddresses), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		SHA256: hex.EncodeToString(sum256[:]), SHA1: strings.ToUpper(hex.EncodeToString(sum1[:])),
		KeyType: keyType, Loaded: time.Now(),
	}
	if len(p.status.SANs) == 0 {
		p.warnings = append(p.warnings, at("certificate", certFile)+": it names neither a DNS name nor an address as subject alternative name; clients do not look at the common name")
	}
	return p, nil
}

// parseChain reads the certificates of a PEM file, in their order.
func parseChain(field string, data []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	var others []string
	rest := data
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			others = append(others, block.Type)
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &problem.Problem{Field: field, Found: fmt.Sprintf("something that is no certificate as number %d", len(chain)+1),
				Expected: "an X.509 certificate", Next: "copy it again from where it was issued", Err: err}
		}
		chain = append(chain, c)
	}
	// What does not end is not decoded: a file that is being written, or was
	// cut off. Half a chain must not pass for the whole.
	if begun := bytes.Count(data, []byte("-----BEGIN CERTIFICATE-----")); begun > len(chain) {
		return nil, &problem.Problem{Field: field, Found: fmt.Sprintf("%d certificates begun and %d whole", begun, len(chain)),
			Expected: "PEM blocks with their END lines", Next: "if it is not being written right now, copy it again"}
	}
	if len(chain) == 0 {
		return nil, noPEM(field, "a certificate in PEM (-----BEGIN CERTIFICATE-----)", data, others)
	}
	return chain, nil
}

// noPEM says what is in a file that does not hold what it should.
func noPEM(field, expected string, data []byte, others []string) *problem.Problem {
	p := &problem.Problem{Field: field, Found: "text that is not PEM", Expected: expected, Next: "copy the file again, or import it in its own format with larder tls import"}
	switch trimmed := bytes.TrimSpace(data); {
	case len(trimmed) == 0:
		p.Found, p.Next = "an empty file", "if it is not being written right now, copy it again"
	case len(others) > 0:
		p.Found = "PEM of another kind: " + strings.Join(others, ", ")
	case len(data) > 1 && data[0] == 0x30 && data[1]&0x80 != 0:
		p.Found, p.Next = "binary data (DER or PKCS#12)", "import it with larder tls import, or convert it to PEM"
	case bytes.Contains(data, []byte("-----BEGIN ")):
		p.Found, p.Next = "a PEM block that does not end", "if it is not being written right now, copy it again"
	}
	return p
}

// parseKey reads the first private key of a PEM file.
func parseKey(field string, data []byte) (crypto.Signer, error) {
	key, err := keys.ParsePEM(data)
	switch {
	case errors.Is(err, keys.ErrNoKey):
		return nil, noPEM(field, "a private key in PEM (-----BEGIN PRIVATE KEY-----)", data, blockTypes(data))
	case errors.Is(err, keys.ErrEncrypted):
		return nil, &problem.Problem{Field: field, Found: "an encrypted private key", Expected: "one without a password",
			Next: "decrypt it (openssl pkey -in FILE -out FILE) and protect it by its permissions, 0600"}
	case err != nil:
		return nil, &problem.Problem{Field: field, Found: "a private key that cannot be read", Expected: keyKinds,
			Next: "use the key that the request was made with", Err: err}
	}
	return key, nil
}

// blockTypes names the PEM blocks of data.
func blockTypes(data []byte) (types []string) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return types
		}
		types = append(types, block.Type)
	}
}

const keyKinds = "ECDSA (P-256, P-384, P-521), RSA or Ed25519"

// matching says whether the first certificate of chain is that of key.
func matching(certFile string, chain []*x509.Certificate, keyFile string, key crypto.Signer) error {
	if keys.Same(keys.PublicOf(chain[0]), key.Public()) {
		return nil
	}
	for i, c := range chain[1:] {
		if keys.Same(keys.PublicOf(c), key.Public()) {
			return &problem.Problem{Field: at("certificate", certFile), Found: fmt.Sprintf("the node's own certificate (%s) as number %d of %d", c.Subject, i+2, len(chain)),
				Expected: "it to be the first, followed by the one that issued it, and so on", Next: "put the certificates of the file into that order"}
		}
	}
	if _, err := usable(at("certificate", certFile), chain[0]); err != nil {
		return err
	}
	return &problem.Problem{Field: at("key", keyFile), Found: fmt.Sprintf("a key of the kind %s that does not belong to the certificate %s (%s)", keys.Kind(key.Public()), certFile, chain[0].Subject),
		Expected: "the private key that the certificate was requested with", Next: "name the pair that belongs together in active.yaml"}
}

// usable says of what kind the certificate's key is, if TLS can use it.
func usable(field string, leaf *x509.Certificate) (string, error) {
	public := keys.PublicOf(leaf)
	if name := keys.Kind(public); keys.Servable(public) {
		return name, nil
	} else if name != "" {
		return "", &problem.Problem{Field: field, Found: name, Expected: keyKinds, Next: "request a certificate with another kind of key; TLS cannot serve with this one"}
	}
	return "", &problem.Problem{Field: field, Found: "a kind of key unknown here", Expected: keyKinds, Next: "request a certificate with another kind of key; TLS cannot serve with this one"}
}

// staple is for the one who makes p, before others see it.
func (p *pair) staple(answer []byte) {
	p.tls.OCSPStaple = answer
	p.status.Stapled = len(answer) > 0
}

// validity is what is wrong with using p at now, "" if nothing is.
func (p *pair) validity(now time.Time) string {
	s := &p.status
	found := problem.Problem{Field: at("certificate", s.File), Expected: "one that is valid now, " + day(now)}
	switch {
	case now.After(s.NotAfter):
		found.Found, found.Next = "one that ended on "+day(s.NotAfter), "renew it; clients refuse it and go past the node"
	case now.Before(s.NotBefore):
		found.Found, found.Next = "one that begins on "+day(s.NotBefore), "set the clock of this machine, or wait; clients refuse it until then"
	default:
		return ""
	}
	return found.Error()
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// sameAs says whether TLS would show the same with p as with q.
func (p *pair) sameAs(q *pair) bool {
	if len(p.tls.Certificate) != len(q.tls.Certificate) {
		return false
	}
	for i := range p.tls.Certificate {
		if !bytes.Equal(p.tls.Certificate[i], q.tls.Certificate[i]) {
			return false
		}
	}
	return true
}
