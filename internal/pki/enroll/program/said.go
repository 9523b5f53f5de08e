package program

import (
	"regexp"
	"strings"
	"unicode"
)

const (
	lastWords = 4 << 10        // bytes of what was said in a message
	keptWords = 16 * lastWords // before keys are taken out
)

// limited keeps what it is given until that is too much.
type limited struct {
	data []byte
	max  int
	over func()
}

func (l *limited) Write(p []byte) (int, error) {
	if len(l.data)+len(p) > l.max {
		l.over()
		return len(p), nil // the end comes from over; a broken pipe would only add confusion
	}
	l.data = append(l.data, p...)
	return len(p), nil
}

// tail keeps the last of what it is given: up to twice max bytes.
type tail struct {
	data []byte
	max  int
	cut  bool // something is missing before data
}

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if len(t.data) > 2*t.max {
		t.data = append(t.data[:0], t.data[len(t.data)-t.max:]...)
		t.cut = true
	}
	return len(p), nil
}

var (
	keyBlock = regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)`)
	keyRest  = regexp.MustCompile(`(?s)^.*?-----END [A-Z0-9 ]*PRIVATE KEY-----`)
)

// words are the last few of what was said, without keys. Keys are taken out
// before the text is cut down to lastWords: of a key cut in two nobody would
// know any more what it is.
func (t *tail) words() string {
	text := keyBlock.ReplaceAllString(strings.ToValidUTF8(string(t.data), "?"), "(a private key)")
	if t.cut {
		text = keyRest.ReplaceAllString(text, "(a private key)")
	}
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return -1
	}, text))
	if len(text) > lastWords {
		text = "…" + strings.ToValidUTF8(text[len(text)-lastWords:], "")
	}
	return text
}
