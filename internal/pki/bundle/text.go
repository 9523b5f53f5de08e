package bundle

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// decodeText takes a byte order mark away and makes UTF-8 of UTF-16, which
// Windows' editors write. Other data stays as it is.
func decodeText(data []byte) (text []byte, wide bool) {
	order := binary.ByteOrder(binary.LittleEndian)
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return data[3:], false
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		data = data[2:]
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		order, data = binary.BigEndian, data[2:]
	case bytes.HasPrefix(data, []byte("-\x00-\x00")), bytes.HasPrefix(data, []byte("M\x00I\x00")):
	case bytes.HasPrefix(data, []byte("\x00-\x00-")), bytes.HasPrefix(data, []byte("\x00M\x00I")):
		order = binary.BigEndian
	default:
		return data, false
	}
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = order.Uint16(data[2*i:])
	}
	return []byte(string(utf16.Decode(units))), true
}

// isText says whether data can be read by a person, in whatever character
// set: DER never goes without control characters.
func isText(data []byte) bool {
	return !bytes.ContainsFunc(data, func(r rune) bool { return r < ' ' && !strings.ContainsRune("\t\r\n\f\x1a", r) })
}

const (
	begins = "-----BEGIN "
	ends   = "-----END "
	dashes = "-----"
)

// lines are the lines of a text, however they end, without blanks around.
func lines(text []byte) []string {
	all := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(text)), "\n")
	for i, l := range all {
		all[i] = strings.TrimSpace(l)
	}
	return all
}

func hasPEM(text []byte) bool {
	return slices.ContainsFunc(lines(text), func(l string) bool {
		return strings.HasPrefix(l, begins) || strings.HasPrefix(l, ends)
	})
}

// pem reads all blocks of a PEM file (RFC 7468, read laxly: blanks around
// lines, lines of any length, text around blocks). encoding/pem skips what it
// cannot read; here that is an error.
func (r *reader) pem(text []byte) error {
	var body []string
	kind, number, begun := "", 0, 0
	for i, l := range lines(text) {
		if rest, ok := strings.CutPrefix(l, begins); ok {
			if kind != "" {
				return r.cutOff(kind, begun)
			}
			number++
			begun = i + 1
			if kind, l, ok = strings.Cut(rest, dashes); !ok || kind == "" {
				return r.problem(fmt.Sprintf("a PEM line that cannot be read (line %d)", begun), begins+"CERTIFICATE"+dashes, copyAgain)
			}
			r.where = fmt.Sprintf(" in PEM block %d (%s, line %d)", number, line(kind, ""), begun)
		} else if kind == "" {
			if strings.HasPrefix(l, ends) {
				r.where = ""
				return r.problem(fmt.Sprintf("the end of a PEM block without its beginning (line %d)", i+1), "whole blocks, from "+begins+"… to "+ends+"…", copyAgain)
			}
			continue // text around the blocks
		}
		before, end, ok := strings.Cut(l, ends)
		if body = append(body, strings.TrimSpace(before)); !ok {
			continue
		}
		if end, _, _ := strings.Cut(end, dashes); end != kind {
			return r.problem("an end of another kind ("+line(end, "none")+")", ends+line(kind, "")+dashes, copyAgain)
		}
		if err := r.block(kind, body); err != nil {
			return err
		}
		kind, body = "", nil
	}
	if kind != "" {
		return r.cutOff(kind, begun)
	}
	return nil
}

func (r *reader) cutOff(kind string, begun int) error {
	r.where = ""
	return r.problem(fmt.Sprintf("a PEM block (%s) that begins in line %d and does not end", line(kind, ""), begun), "its line "+ends+line(kind, "")+dashes,
		"if the file is not being written right now, "+copyAgain)
}

// block reads what is between the lines of one block.
func (r *reader) block(kind string, body []string) error {
	headers := make(map[string]string) // RFC 1421, section 4.6; without continuation lines
	for len(body) > 0 {
		key, value, ok := strings.Cut(body[0], ":")
		if !ok && body[0] != "" {
			break
		}
		headers[key] = strings.TrimSpace(value)
		body = body[1:]
	}
	switch {
	case kind == "OPENSSH PRIVATE KEY":
		r.other("an OpenSSH private key")
		return nil
	case strings.HasPrefix(kind, "PGP "):
		r.other("something of PGP (" + line(kind, "") + ")")
		return nil
	case strings.HasSuffix(kind, " PARAMETERS"): // of the key that follows, which has them too
		r.other("parameters of keys (" + line(kind, "") + ")")
		return nil
	}
	data, err := fromBase64(strings.Join(body, ""))
	switch {
	case err != nil && strings.Contains(strings.Join(body, ""), `\n`):
		return r.problem(`\n in place of line ends`, "real line ends", "write it again, with real line ends")
	case err != nil:
		return r.because(err, "text that is not Base64", "what is between "+begins+"… and "+ends+"… as it was issued", copyAgain)
	case len(data) == 0:
		return r.problem("nothing", r.wanted(), copyAgain)
	}
	if headers["DEK-Info"] != "" {
		if data, err = r.traditional(kind, headers, data); err != nil {
			return err
		}
	}
	switch {
	case kind == "TRUSTED CERTIFICATE": // OpenSSL puts what it trusts it for after it
		der, _, err := toDER(data)
		if err != nil {
			return r.badDER(err, data)
		}
		return r.cert(der)
	case shapeOf(data) == unknown && !known(kind):
		r.other("PEM of another kind (" + line(kind, "") + ")")
		return nil
	}
	return r.der(data)
}

// known says whether a block of this kind must be readable.
func known(kind string) bool {
	return strings.Contains(kind, "CERTIFICATE") || strings.HasSuffix(kind, "KEY") || strings.HasPrefix(kind, "PKCS") || kind == "CMS" || kind == "X509 CRL"
}

// traditional decrypts a private key as OpenSSL wrote it before PKCS#8
// (RFC 1421, section 4.6.1.3). It derives its key with one round of MD5, so
// that there is nothing to bound.
func (r *reader) traditional(kind string, headers map[string]string, data []byte) ([]byte, error) {
	const what = "an encrypted private key"
	b := &pem.Block{Type: kind, Headers: headers, Bytes: data}
	//lint:ignore SA1019 such files are weakly protected, and they are there
	plain, err := x509.DecryptPEMBlock(b, []byte(r.o.Password))
	switch {
	case err == nil && isSequence(plain):
		return plain, nil
	case err == nil, err == x509.IncorrectPasswordError:
		return nil, r.password(what)
	}
	return nil, r.because(err, what, "encryption as OpenSSL writes it", "convert it: openssl pkey -in FILE -out FILE")
}

// decodeBase64 reads DER that is in Base64 without PEM's lines.
func decodeBase64(text []byte) ([]byte, bool) {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("M")) { // 0x30
		return nil, false
	}
	data, err := fromBase64(strings.Join(strings.Fields(string(text)), ""))
	return data, err == nil && len(data) > 0 && data[0] == 0x30
}

// fromBase64 reads Base64 with or without its padding, and blanks inside.
func fromBase64(text string) ([]byte, error) {
	text = strings.TrimRight(strings.Join(strings.Fields(text), ""), "=")
	return base64.RawStdEncoding.DecodeString(text)
}
