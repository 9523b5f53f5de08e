// Package bundle reads the certificates and keys an administrator has, in
// whatever form they came: PEM, DER, PKCS#7 or PKCS#12.
//
// The form is found by looking at the bytes, never at a file's name. Whoever
// made the file is not trusted: sizes, nesting and the work that key
// derivation asks for are bounded before they are spent.
package bundle

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
)

const (
	// mostBytes is how large a file may be. A chain with its key has a few
	// KiB, and a wrong path may lead to anything.
	mostBytes = 1 << 20

	mostCerts = 100
	mostKeys  = 100

	// mostKeyBytes is how long the DER of a private key may be, a little more
	// than RSA with mostKeyBits takes. Checking a key costs more than its
	// length squared.
	mostKeyBytes = 16 << 10
	mostKeyBits  = 16384
)

// Bundle is what a file holds.
type Bundle struct {
	Format   string              // "PEM", "DER", "PKCS#7" or "PKCS#12"
	Encoding string              // how that was wrapped: "PEM", "Base64" or "binary"; then ", UTF-16" if so
	Certs    []*x509.Certificate // in the order of the file, each once
	Keys     []crypto.Signer     // likewise
	Requests int                 // certificate requests (PKCS#10)
	Others   []string            // what else is there and was left alone, such as "a revocation list (CRL)"

	field string // what to call the file in messages
}

// Options says how to read a file.
type Options struct {
	Password    string
	HasPassword bool // a password was given; it may be empty
	Key         bool // a private key is what is wanted: a file without certificates will do
}

// ErrPassword is what errors.Is finds where a password is wrong or missing.
var ErrPassword = errors.New("the password is wrong or missing")

// passwordError is the cause of a Problem about a password, in words that
// say which.
type passwordError string

func (e passwordError) Error() string        { return string(e) }
func (e passwordError) Is(target error) bool { return target == ErrPassword }

// Parse reads what data holds. name is for messages, such as a file's path.
// A file with less than it promises (a block that does not end, a certificate
// that cannot be read) is refused as a whole: half a chain must not pass for
// the whole.
func Parse(name string, data []byte, o Options) (*Bundle, error) {
	return newReader(name, o).parse(data)
}

// reader is one reading of one file.
type reader struct {
	o       Options
	b       *Bundle
	work    work   // what may still be spent on deriving keys
	where   string // where in the file the reader is, such as " in PEM block 2 (CERTIFICATE, line 31)"
	number  int    // certificates so far, doubles included
	request string // the subject of the first request
}

func newReader(name string, o Options) *reader {
	o.HasPassword = o.HasPassword || o.Password != ""
	field := "certificate"
	if o.Key {
		field = "key"
	}
	return &reader{o: o, b: &Bundle{field: field + " (" + name + ")"}, work: mostWork}
}

const wanted = "a certificate in PEM, DER, PKCS#7 (.p7b) or PKCS#12 (.pfx)"

func (r *reader) wanted() string {
	if r.o.Key {
		return "a private key in PEM, DER or PKCS#12 (.pfx)"
	}
	return wanted
}

// problem is a Problem with this file.
func (r *reader) problem(found, expected, next string) *problem.Problem {
	return &problem.Problem{Field: r.b.field, Found: found + r.where, Expected: expected, Next: next}
}

// because is problem with its cause.
func (r *reader) because(err error, found, expected, next string) *problem.Problem {
	p := r.problem(found, expected, next)
	p.Err = err
	return p
}

const copyAgain = "copy the whole file again from where it was issued"

func (r *reader) parse(data []byte) (*Bundle, error) {
	switch {
	case len(data) > mostBytes:
		return nil, tooLarge(r.b.field, int64(len(data)))
	case len(data) == 0:
		return nil, r.problem("an empty file", r.wanted(), "if it is not being written right now, "+copyAgain)
	}
	text, wide := decodeText(data)
	var err error
	switch {
	case startsDER(data): // before PEM, which may be inside of it
		r.b.Format, r.b.Encoding = "DER", "binary"
		err = r.der(data)
	case hasPEM(text):
		r.b.Format, r.b.Encoding = "PEM", "PEM"
		err = r.pem(text)
	default:
		der, ok := decodeBase64(text)
		if !ok {
			return nil, r.stranger(data, text)
		}
		r.b.Format, r.b.Encoding = "DER", "Base64"
		err = r.der(der)
	}
	if err != nil {
		return nil, err
	}
	if wide {
		r.b.Encoding += ", UTF-16"
	}
	r.where = ""
	if err := r.enough(); err != nil {
		return nil, err
	}
	return r.b, nil
}

// enough says whether what was wanted is there, and if not, what is there
// instead.
func (r *reader) enough() error {
	b := r.b
	if len(b.Certs) > 0 && !r.o.Key || len(b.Keys) > 0 && r.o.Key {
		return nil
	}
	there := slices.Clone(b.Others)
	if b.Requests > 0 {
		text := "a certificate request"
		if r.request != "" {
			text += " for " + r.request
		}
		there = append([]string{text}, there...)
	}
	if len(b.Keys) > 0 {
		there = append([]string{"a private key (" + kind(b.Keys[0].Public()) + ")"}, there...)
	}
	if len(b.Certs) > 0 {
		there = append([]string{fmt.Sprintf("%s for %s", count(len(b.Certs), "certificate"), name(b.Certs[0].Subject))}, there...)
	}
	if len(there) > 5 {
		there = append(there[:5], "more")
	}
	lacking, next := "certificate", "give the file that came back from the CA"
	switch {
	case r.o.Key:
		lacking, next = "private key", "give the file that has the key, or a PKCS#12 file with certificate and key"
	case len(b.Keys) > 0 && b.Requests == 0:
		next = "give the file that came back from the CA; a key need not be given, it is found by the certificate"
	case b.Requests > 0:
		next = "send the request to the CA, and give the file that comes back"
	}
	found := "nothing that is known here"
	if len(there) > 0 {
		found = strings.Join(there, " and ") + ", but no " + lacking
	}
	return r.problem(found, r.wanted(), next)
}

// cert takes one certificate in.
func (r *reader) cert(der []byte) error {
	r.number++
	if r.number > mostCerts {
		return r.problem(fmt.Sprintf("more than %d certificates", mostCerts), "the node's certificate and those that lead to its root", "take the others out of the file, such as a whole store of roots")
	}
	for _, c := range r.b.Certs {
		if bytes.Equal(c.Raw, der) {
			return nil
		}
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return r.because(err, fmt.Sprintf("a certificate (number %d of the file) that cannot be read", r.number), "an X.509 certificate as RFC 5280 has it",
			copyAgain+"; if it stays so, have it issued again without this mistake, or take it out of the file if the node's certificate does not need it")
	}
	if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() > mostKeyBits {
		return r.problem(fmt.Sprintf("a certificate (number %d of the file, %s) with a key of %d bits", r.number, name(c.Subject), k.N.BitLen()),
			fmt.Sprintf("at most %d bits", mostKeyBits), "have it issued for a key that clients accept")
	}
	r.b.Certs = append(r.b.Certs, c)
	return nil
}

// key takes one private key in. parse gets der.
func (r *reader) key(der []byte, parse func([]byte) (crypto.Signer, error)) error {
	const expected = "ECDSA, RSA, Ed25519 or Ed448"
	if len(der) > mostKeyBytes {
		return r.problem(fmt.Sprintf("a private key of %d bytes", len(der)), fmt.Sprintf("at most %d bytes, enough for RSA with %d bits", mostKeyBytes, mostKeyBits), "use a smaller key")
	}
	key, err := parse(der)
	if err != nil {
		return r.because(err, "a private key that cannot be read", expected, "use the key that the request was made with, or take this one out of the file")
	}
	for _, k := range r.b.Keys {
		if keys.Same(k.Public(), key.Public()) {
			return nil
		}
	}
	if len(r.b.Keys) == mostKeys {
		return r.problem(fmt.Sprintf("more than %d private keys", mostKeys), "the key of the node's certificate", "take the others out of the file")
	}
	r.b.Keys = append(r.b.Keys, key)
	return nil
}

// other notes something that is left alone.
func (r *reader) other(what string) {
	if !slices.Contains(r.b.Others, what) {
		r.b.Others = append(r.b.Others, what)
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func kind(public crypto.PublicKey) string {
	if k := keys.Kind(public); k != "" {
		return k
	}
	return "a kind unknown here"
}

// name is a name as one short line, whatever the certificate says.
func name(n pkix.Name) string { return line(n.String(), "no subject") }

// line makes text that came out of a file fit for a message, and for a
// comment between PEM blocks: nothing in it can begin a line.
func line(text, empty string) string {
	const most = 120
	if text == "" {
		return empty
	}
	var b strings.Builder
	for i, c := range text {
		switch {
		case i >= most:
			return b.String() + "…"
		case !unicode.IsPrint(c):
			b.WriteByte('?')
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// short is enough of a certificate's SHA-256 to tell it from others.
func short(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:4])
}
