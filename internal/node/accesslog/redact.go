package accesslog

import (
	"bytes"
	"strings"
)

const (
	// hidden stands for what is not written.
	hidden = "…"

	maxName  = 64 // bytes of a name as received; a longer one may be anything
	maxValue = 32 // bytes of a value nobody knows; a longer one may be a token

	// maxRounds bounds how often a text was percent-encoded over.
	maxRounds = 4
)

// secretNames are parameters, in small letters, whose values let somebody in.
var secretNames = map[string]bool{
	"p1": true, "p2": true, "p3": true, "p4": true, // Windows Update's signed URLs
	"sig": true, "key": true, "policy": true, "key-pair-id": true,
	"hdnts": true, "hdnea": true, "hdntl": true, "__gda__": true, "hmac": true,
	"pwd": true, "pass": true, "jwt": true, "code": true, "sid": true, "tk": true,
}

// secretWords make a parameter's value a secret when its name has one of them:
// Signature, sauth, access_token, X-Amz-Security-Token, X-Amz-Credential, …
var secretWords = [][]byte{
	[]byte("token"), []byte("secret"), []byte("passw"), []byte("signature"), []byte("credential"),
	[]byte("auth"), []byte("apikey"), []byte("api_key"), []byte("api-key"), []byte("session"),
}

// Redact returns a query with the values of secret parameters replaced by "…".
// It would rather hide too much: values of unknown parameters longer than 32
// bytes, and whatever holds another query, are hidden as well. Percent-encoding
// a name, or the separators, does not get round it.
func Redact(query string) string {
	return string(appendRedacted(nil, query))
}

func appendRedacted(dst []byte, query string) []byte {
	for {
		items, rest, more := strings.Cut(query, "&")
		for {
			item, others, semicolon := strings.Cut(items, ";")
			var hid bool
			dst, hid = appendItem(dst, item)
			// Whether a semicolon ends a value is the origin's to say. If it
			// does not, what follows is still the secret.
			if hid || !semicolon {
				break
			}
			dst = append(dst, ';')
			items = others
		}
		if !more {
			return dst
		}
		dst = append(dst, '&')
		query = rest
	}
}

// appendItem appends one parameter, name=value or a name alone, and reports
// whether it hid something.
func appendItem(dst []byte, item string) (_ []byte, hid bool) {
	rawName, value, hasValue := strings.Cut(item, "=")
	if !hasValue && len(item) > maxValue {
		return append(dst, hidden...), true
	}
	var space [maxName]byte
	name, ok := plain(space[:0], rawName)
	if !ok {
		return append(dst, hidden...), true
	}
	dst = append(dst, rawName...)
	if !hasValue {
		return dst, false
	}
	dst = append(dst, '=')
	if !isOrigin(name, value) && (isSecret(name) || !isHarmless(value)) {
		return append(dst, hidden...), true
	}
	return append(dst, value...), false
}

// isSecret judges a plain name.
func isSecret(name []byte) bool {
	if secretNames[string(name)] {
		return true
	}
	for _, word := range secretWords {
		if bytes.Contains(name, word) {
			return true
		}
	}
	return false
}

// isHarmless reports whether a value is short and holds no parameters itself.
func isHarmless(value string) bool {
	var space [maxName]byte
	if len(value) > maxValue {
		return false
	}
	_, ok := plain(space[:0], value)
	return ok
}

// isOrigin reports whether this is the host a Delivery Optimization client asks
// for, which is longer than other values and wanted in every log.
func isOrigin(name []byte, value string) bool {
	if string(name) != "cachehostorigin" || len(value) > 253 {
		return false
	}
	for i := range len(value) {
		c := value[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-') {
			return false
		}
	}
	return true
}

// plain decodes a name or value into dst, in small letters and without spaces
// around it, until nothing is encoded any more. It is not ok when that takes
// too long, or brings separators to light: then it is more than it seemed.
func plain(dst []byte, s string) (_ []byte, ok bool) {
	if len(s) > maxName {
		return nil, false
	}
	dst = append(dst, s...)
	for round := 0; bytes.IndexByte(dst, '%') >= 0; round++ {
		n, decoded := 0, false
		for i := 0; i < len(dst); i++ {
			c := dst[i]
			if c == '%' && i+2 < len(dst) {
				if hi, lo := unhex(dst[i+1]), unhex(dst[i+2]); hi >= 0 && lo >= 0 {
					c = byte(hi<<4 | lo)
					i += 2
					decoded = true
				}
			}
			dst[n] = c
			n++
		}
		dst = dst[:n]
		if !decoded {
			break
		}
		if round == maxRounds {
			return nil, false
		}
	}
	for i, c := range dst {
		switch {
		case c == '=' || c == '&' || c == ';' || c == '?':
			return nil, false
		case c == '+':
			dst[i] = ' '
		case c >= 'A' && c <= 'Z':
			dst[i] = c + 'a' - 'A'
		}
	}
	return bytes.TrimSpace(dst), true
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// appendRedactedText redacts URLs within a message: their queries, and what
// stands before an @ in their authority.
func appendRedactedText(dst []byte, text string) []byte {
	for text != "" {
		i := strings.IndexAny(text, "?:")
		if i < 0 {
			break
		}
		if text[i] == '?' {
			end := i + 1 + wordLen(text[i+1:])
			dst = append(dst, text[:i+1]...)
			dst = appendRedacted(dst, text[i+1:end])
			text = text[end:]
			continue
		}
		if !strings.HasPrefix(text[i:], "://") {
			dst = append(dst, text[:i+1]...)
			text = text[i+1:]
			continue
		}
		dst = append(dst, text[:i+3]...)
		text = text[i+3:]
		word := text[:wordLen(text)]
		if at := strings.LastIndexByte(word, '@'); at >= 0 && !strings.ContainsAny(word[:at], "/?#") {
			dst = append(dst, hidden...)
			text = text[at:]
		}
	}
	return append(dst, text...)
}

// wordLen is the length of text up to what ends a URL in a message.
func wordLen(text string) int {
	if i := strings.IndexAny(text, " \t\r\n\"'<>`"); i >= 0 {
		return i
	}
	return len(text)
}
