package catalog

import "strings"

// pattern is a path pattern: * matches any bytes, both ends are anchored.
type pattern struct {
	text  string
	parts []string // text cut at *; one part: no * at all. Lower case when fold
	fold  bool     // ASCII letters compare without case
}

func newPattern(text string, fold bool) pattern {
	t := text
	for strings.Contains(t, "**") {
		t = strings.ReplaceAll(t, "**", "*")
	}
	if fold {
		t = lowerASCII(t)
	}
	return pattern{text: text, parts: strings.Split(t, "*"), fold: fold}
}

// literals counts the bytes that are not *: how specific the pattern is.
func (p *pattern) literals() int {
	n := 0
	for _, part := range p.parts {
		n += len(part)
	}
	return n
}

// moreSpecific orders patterns, the more specific first: negative when p is.
func (p *pattern) moreSpecific(q *pattern) int {
	if d := q.literals() - p.literals(); d != 0 {
		return d
	}
	return len(q.text) - len(p.text)
}

func (p *pattern) match(s string) bool {
	first, last := p.parts[0], p.parts[len(p.parts)-1]
	if len(p.parts) == 1 {
		return len(s) == len(first) && p.hasPrefix(s, first)
	}
	// Most patterns of the built-in catalogue differ in how they end.
	if len(s) < len(first)+len(last) || !p.hasPrefix(s[len(s)-len(last):], last) || !p.hasPrefix(s, first) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, part := range p.parts[1 : len(p.parts)-1] {
		i := p.index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return true
}

func (p *pattern) hasPrefix(s, prefix string) bool {
	if !p.fold {
		return strings.HasPrefix(s, prefix)
	}
	if len(s) < len(prefix) {
		return false
	}
	for i := 0; i < len(prefix); i++ {
		if lower(s[i]) != prefix[i] {
			return false
		}
	}
	return true
}

func (p *pattern) index(s, part string) int {
	if !p.fold {
		return strings.Index(s, part)
	}
	if part == "" {
		return 0
	}
	// Parts mostly begin with a slash or a dot, which have one case and are few.
	first := part[0]
	letter := 'a' <= first && first <= 'z'
	for i := 0; i+len(part) <= len(s); i++ {
		if !letter {
			skip := strings.IndexByte(s[i:], first)
			if skip < 0 {
				return -1
			}
			i += skip
		}
		if p.hasPrefix(s[i:], part) {
			return i
		}
	}
	return -1
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func lowerASCII(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			var b strings.Builder
			b.Grow(len(s))
			b.WriteString(s[:i])
			for ; i < len(s); i++ {
				b.WriteByte(lower(s[i]))
			}
			return b.String()
		}
	}
	return s
}
