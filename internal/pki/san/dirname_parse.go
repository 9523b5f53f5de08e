package san

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// ParseDirName reads a name as OpenSSL writes subjects ("/C=DE/O=Example/CN=x",
// a backslash before a slash takes it literally) or as RFC 4514 does
// ("CN=x,O=Example,C=DE").
func ParseDirName(s string) (DirName, error) {
	s = trim(s)
	switch {
	case s == "":
		return DirName{}, errors.New("the name is empty")
	case s[0] == '/':
		return parseSlashes(s)
	}
	return parseRFC4514(s)
}

func parseSlashes(s string) (DirName, error) {
	var rdns [][]attribute
	for _, part := range split(s[1:], '/') {
		typ, value, ok := strings.Cut(part, "=")
		if !ok {
			return DirName{}, fmt.Errorf("no = in %q; a slash within a value needs a backslash before it", part)
		}
		a, err := makeAttribute(trim(typ), unescape(value, func(byte) bool { return true }))
		if err != nil {
			return DirName{}, err
		}
		rdns = append(rdns, []attribute{a})
	}
	return write(rdns)
}

// parseRFC4514 reads a string as of RFC 4514, section 3, with spaces around
// separators as RFC 2253 allowed them.
func parseRFC4514(s string) (DirName, error) {
	var rdns [][]attribute
	for _, part := range split(s, ',') {
		var rdn []attribute
		for _, pair := range split(part, '+') {
			a, err := parsePair(trim(pair))
			if err != nil {
				return DirName{}, err
			}
			rdn = append(rdn, a)
		}
		rdns = append([][]attribute{rdn}, rdns...) // the text has the last first
	}
	return write(rdns)
}

func parsePair(s string) (attribute, error) {
	typ, value, ok := strings.Cut(s, "=")
	if !ok {
		return attribute{}, fmt.Errorf("no = in %q; a comma, a plus or a semicolon within a value needs a backslash before it", s)
	}
	typ, value = trim(typ), trim(value)
	if digits, ok := strings.CutPrefix(value, "#"); ok {
		kind, err := attributeOf(typ)
		if err != nil {
			return attribute{}, err
		}
		oid, err := parseOID(kind.oid)
		if err != nil {
			return attribute{}, err
		}
		der, err := hex.DecodeString(digits)
		if err == nil {
			err = wellFormed(der)
		}
		if err != nil {
			return attribute{}, fmt.Errorf("%s is no hexadecimal DER: %w", typ, err)
		}
		return attribute{oid, der}, nil
	}
	text, err := unescapeValue(value)
	if err != nil {
		return attribute{}, fmt.Errorf("%s: %w", typ, err)
	}
	return makeAttribute(typ, text)
}

// special are the characters that RFC 4514, section 2.4, escapes anywhere.
const special = `"+,;<>\`

// escapeValue writes a value as RFC 4514, section 2.4, says. What does not
// print is escaped too.
func escapeValue(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case strings.ContainsRune(special, r), i == 0 && (r == '#' || r == ' '), i == len(s)-1 && r == ' ':
			b.WriteByte('\\')
			b.WriteRune(r)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			for _, c := range []byte(string(r)) {
				fmt.Fprintf(&b, `\%02X`, c)
			}
		}
	}
	return b.String()
}

func unescapeValue(s string) (string, error) {
	var b []byte
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return "", errors.New(`a quote without a backslash before it`)
		case s[i] != '\\':
			b = append(b, s[i])
		case i+1 < len(s) && strings.IndexByte(special+" #=", s[i+1]) >= 0:
			b = append(b, s[i+1])
			i++
		case i+2 < len(s):
			c, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return "", fmt.Errorf("a backslash before %q, which needs none", s[i+1:i+2])
			}
			b = append(b, c...)
			i += 2
		default:
			return "", errors.New("a backslash at the end")
		}
	}
	return string(b), nil
}
