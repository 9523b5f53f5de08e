package bundle

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"larder/internal/pki/keys"
)

// shape is what a DER structure is, by the kinds of its parts.
type shape int

const (
	unknown shape = iota
	certificate
	request
	revocationList
	publicKey
	plainKey     // PKCS#8
	encryptedKey // PKCS#8, encrypted
	rsaKey       // PKCS#1
	ecKey        // SEC 1
	rsaPublicKey
	contentInfo // PKCS#7, or CMS
	pfx
	ocspResponse
	parameters
)

// shapeOf looks at the parts of a structure, and at theirs where that does
// not decide. It does not say that the structure is right.
func shapeOf(der []byte) shape {
	parts := tags(der)
	inner := func(i int) string {
		all, err := children(der)
		if err != nil || i >= len(all) {
			return ""
		}
		return tags(all[i].FullBytes)
	}
	switch {
	case parts == "SSB":
		switch tbs := inner(0); {
		case matches(tbs, "0ISSSSS*"), matches(tbs, "ISSSSS*"):
			return certificate
		case matches(tbs, "ISS0*"), tbs == "ISS":
			return request
		case matches(tbs, "ISST*"), matches(tbs, "SST*"):
			return revocationList
		}
		return certificate // a bad one: crypto/x509 says how
	case matches(parts, "ISO*"):
		return plainKey
	case parts == "SO":
		return encryptedKey
	case matches(parts, "IO*"):
		return ecKey
	case matches(parts, "IIIIIIIII*"):
		return rsaKey
	case parts == "II":
		return rsaPublicKey
	case parts == "SB":
		return publicKey
	case parts == "o0" || parts == "o":
		return contentInfo
	case (parts == "IS" || parts == "ISS") && matches(inner(1), "o*"):
		return pfx
	case parts == "E0" || parts == "E":
		return ocspResponse
	}
	return unknown
}

// matches says whether parts is pattern; a * at its end stands for anything.
func matches(parts, pattern string) bool {
	if begin, ok := bytes.CutSuffix([]byte(pattern), []byte("*")); ok {
		return bytes.HasPrefix([]byte(parts), begin)
	}
	return parts == pattern
}

// tags writes the kinds of a sequence's parts, a letter each: Sequence, sEt,
// Integer, Octet string, Bit string, oid, Time, a digit for a context tag.
// It is "" for what is no sequence.
func tags(der []byte) string {
	parts, err := children(der)
	if err != nil {
		return ""
	}
	letters := make([]byte, 0, len(parts))
	for _, p := range parts {
		c := byte('?')
		switch {
		case p.Class == asn1.ClassContextSpecific && p.Tag < 10:
			c = '0' + byte(p.Tag)
		case p.Class != asn1.ClassUniversal:
		case p.Tag == asn1.TagSequence:
			c = 'S'
		case p.Tag == asn1.TagSet:
			c = 's'
		case p.Tag == asn1.TagInteger:
			c = 'I'
		case p.Tag == asn1.TagOctetString:
			c = 'O'
		case p.Tag == asn1.TagBitString:
			c = 'B'
		case p.Tag == asn1.TagOID:
			c = 'o'
		case p.Tag == asn1.TagEnum:
			c = 'E'
		case p.Tag == asn1.TagUTCTime || p.Tag == asn1.TagGeneralizedTime:
			c = 'T'
		}
		letters = append(letters, c)
	}
	return string(letters)
}

// children are the first parts of a sequence or set, as many as tell shapes
// apart.
func children(der []byte) ([]asn1.RawValue, error) {
	var whole asn1.RawValue
	if _, err := asn1.Unmarshal(der, &whole); err != nil {
		return nil, err
	}
	if !whole.IsCompound {
		return nil, errMalformed
	}
	return values(whole.Bytes, 12)
}

// values reads values that follow one another, most of them.
func values(der []byte, most int) ([]asn1.RawValue, error) {
	var all []asn1.RawValue
	for len(der) > 0 && len(all) < most {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			return nil, err
		}
		all, der = append(all, v), rest
	}
	return all, nil
}

// unmarshal is asn1.Unmarshal for all of der.
func unmarshal(der []byte, v any) error {
	rest, err := asn1.Unmarshal(der, v)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow its end", len(rest))
	}
	return err
}

// startsDER says whether data begins like DER (or BER). A text may begin with
// a 0, which is 0x30, but hardly with such a length after it.
func startsDER(data []byte) bool {
	return data[0] == 0x30 && (len(data) > 1 && 0x80 <= data[1] && data[1] <= 0x84 || !isText(data))
}

// der reads structures that follow one another.
func (r *reader) der(data []byte) error {
	for n := 1; ; n++ {
		value, rest, err := toDER(data)
		if err != nil {
			return r.badDER(err, data)
		}
		if err := r.structure(value); err != nil {
			return err
		}
		if len(bytes.Trim(rest, "\x00\t\r\n\x1a ")) == 0 {
			return nil
		}
		if rest[0] != 0x30 {
			return r.problem(fmt.Sprintf("%d bytes that are no DER after %s", len(rest), count(n, "structure")), r.wanted(), copyAgain)
		}
		data = rest
	}
}

func (r *reader) badDER(err error, data []byte) error {
	cut := truncatedError{}
	switch {
	case errors.Is(err, errNested):
		return r.because(err, "binary data that is no certificate", r.wanted(), copyAgain)
	case errors.As(err, &cut):
		if h, err := readHeader(data); err != nil || h.indefinite {
			cut = truncatedError{0, len(data)}
		}
		return r.because(cut, "binary data (DER) that was cut off", "the whole structure", copyAgain+"; in a file transfer, use binary mode")
	}
	return r.because(err, "binary data that is no DER", r.wanted(), copyAgain+"; in a file transfer, use binary mode")
}

// structure takes in what one DER structure is.
func (r *reader) structure(der []byte) error {
	switch shapeOf(der) {
	case certificate:
		return r.cert(der)
	case request:
		r.b.Requests++
		if req, err := x509.ParseCertificateRequest(der); err == nil && r.request == "" {
			r.request = name(req.Subject)
		}
	case revocationList:
		r.other("a revocation list (CRL)")
	case publicKey, rsaPublicKey:
		r.other("a public key")
	case ocspResponse:
		r.other("an OCSP response")
	case plainKey:
		return r.key(der, keys.ParsePKCS8)
	case rsaKey:
		return r.key(der, func(der []byte) (crypto.Signer, error) { return x509.ParsePKCS1PrivateKey(der) })
	case ecKey:
		return r.key(der, func(der []byte) (crypto.Signer, error) { return x509.ParseECPrivateKey(der) })
	case encryptedKey:
		return r.encryptedKey(der)
	case contentInfo:
		return r.pkcs7(der)
	case pfx:
		return r.pkcs12(der)
	default:
		return r.problem("a structure (DER) that is neither certificate nor key", r.wanted(), "give the file that came back from the CA")
	}
	return nil
}

// encryptedKey reads an EncryptedPrivateKeyInfo (RFC 5958, section 3).
func (r *reader) encryptedKey(der []byte) error {
	var info encryptedPrivateKeyInfo
	if err := unmarshal(der, &info); err != nil {
		return r.because(err, "an encrypted private key that cannot be read", "PKCS#8", copyAgain)
	}
	const what = "an encrypted private key"
	plain, err := r.decrypt(info.Algorithm, info.Data, r.passwords())
	if err != nil {
		return r.undecrypted(err, what)
	}
	return r.key(plain, keys.ParsePKCS8)
}

// password is the Problem of a password that is missing or wrong.
func (r *reader) password(what string) error {
	if r.o.HasPassword {
		return r.because(passwordError("the password given does not open it"), what, "the password that it was made with",
			"check the password: capitals, the keyboard's layout, a blank or a line's end after it; if it is right, the file is damaged")
	}
	next := "give the password that it was made with"
	if r.b.Format != "PKCS#12" && !r.o.Key {
		next += ", or take the key out of the file"
	}
	return r.because(passwordError("no password was given"), what, "a password with it", next)
}

// undecrypted is the Problem of what decrypt failed with.
func (r *reader) undecrypted(err error, what string) error {
	var scheme schemeError
	var asked workError
	switch {
	case errors.Is(err, ErrPassword):
		return r.password(what)
	case errors.As(err, &asked):
		return r.because(err, what, fmt.Sprintf("at most %d rounds of key derivation in a file", mostWork),
			"export it again with usual settings (some thousand rounds); so many only keep this machine busy")
	case errors.As(err, &scheme):
		return r.because(err, what, "encryption as OpenSSL and Windows write it: AES or 3DES", "export it again, with AES-256")
	}
	return r.because(err, what, "encryption as RFC 8018 and RFC 7292 have it", copyAgain)
}
