package program

import (
	"strings"

	"larder/internal/pki/problem"
)

// Split cuts a command line into its words, one at least, as the package
// comment says. field is what the setting is called.
func Split(field, line string) ([]string, error) {
	wrong := func(found, expected string) error {
		return &problem.Problem{Field: field, Found: found, Expected: expected}
	}
	var words []string
	var word strings.Builder
	inWord := false // '' is a word, too
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == 0 || c == '\n' || c == '\r':
			return nil, wrong("a line break or a NUL", "one line")
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case c == '\'':
			inWord = true
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, wrong("a ' that nothing closes", "pairs of quotation marks")
			}
			word.WriteString(line[i+1 : i+1+end])
			i += 1 + end
		case c == '"':
			inWord = true
			i++
			for ; i < len(line) && line[i] != '"'; i++ {
				if line[i] == '\\' && i+1 < len(line) && line[i+1] == '"' {
					i++
				}
				word.WriteByte(line[i])
			}
			if i == len(line) {
				return nil, wrong(`a " that nothing closes`, "pairs of quotation marks; before a closing one no backslash: write '…' then")
			}
		default:
			inWord = true
			word.WriteByte(c)
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	for _, w := range words {
		if strings.ContainsAny(w, "\x00\r\n") {
			return nil, wrong("a line break or a NUL", "one line")
		}
	}
	if len(words) == 0 || words[0] == "" {
		return nil, wrong("no command", "a program and its arguments")
	}
	return words, nil
}
