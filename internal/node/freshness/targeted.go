package freshness

import "strings"

// parseTargeted reads CDN-Cache-Control: a Dictionary (RFC 9213, 2.1; RFC
// 9651, 4.2.2) whose members are cache directives. It is not ok, and the field
// is to be ignored, if it is empty, does not parse or gives a number another
// type than Integer.
//
// The last of several members with one name counts: so has RFC 9651 it.
func parseTargeted(line string) (responseDirectives, bool) {
	r := responseDirectives{targeted: true}
	p := fieldParser{rest: strings.Trim(line, " ")}
	if p.rest == "" {
		return r, false
	}
	for {
		name, ok := p.key()
		if !ok {
			return r, false
		}
		m := member{kind: isBoolean, text: "1"}
		if p.next('=') {
			if m, ok = p.value(); !ok {
				return r, false
			}
		}
		if !p.parameters() || !r.addMember(name, m) {
			return r, false
		}
		p.space(" \t")
		if p.rest == "" {
			return r, true
		}
		if !p.next(',') {
			return r, false
		}
		if p.space(" \t"); p.rest == "" {
			return r, false // a comma at the end
		}
	}
}

// addMember takes one member of the dictionary. It is false if a number comes
// as something else. A flag counts with any value but false.
func (r *responseDirectives) addMember(name string, m member) bool {
	on := m.kind != isBoolean || m.text == "1"
	var seconds *delta
	switch name {
	case "max-age":
		seconds = &r.maxAge
	case "s-maxage":
		seconds = &r.sMaxAge
	case "stale-while-revalidate":
		seconds = &r.staleWhileRevalidate
	case "stale-if-error":
		seconds = &r.staleIfError
	case "no-store":
		r.noStore = on
	case "no-cache":
		r.noCache = on && !(m.kind == isString && r.addFields(m.text))
	case "private":
		r.private = on && !(m.kind == isString && r.addFields(m.text))
	case "public":
		r.public = m.kind == isBoolean && on
	case "must-revalidate":
		r.mustRevalidate = on
	case "proxy-revalidate":
		r.proxyRevalidate = on
	case "must-understand":
		r.mustUnderstand = on
	}
	if seconds == nil {
		return true
	}
	if m.kind != isInteger {
		return false
	}
	*seconds = delta{}
	seconds.add(m.text)
	return true
}

type kind int

const (
	isOther kind = iota
	isBoolean
	isInteger
	isString
)

// member is a value of the dictionary as far as cache directives need it: the
// text is "0" or "1" of a boolean, the digits of an integer, the content of a
// string.
type member struct {
	kind kind
	text string
}

// fieldParser reads Structured Fields (RFC 9651, 4.2) from the front of rest.
type fieldParser struct{ rest string }

func (p *fieldParser) next(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *fieldParser) space(set string) { p.rest = strings.TrimLeft(p.rest, set) }

// take cuts off the longest front all of whose bytes satisfy f.
func (p *fieldParser) take(f func(c byte) bool) string {
	n := 0
	for n < len(p.rest) && f(p.rest[n]) {
		n++
	}
	front := p.rest[:n]
	p.rest = p.rest[n:]
	return front
}

func lowerAlpha(c byte) bool { return c >= 'a' && c <= 'z' }
func alpha(c byte) bool      { return lowerAlpha(c | 0x20) }
func digit(c byte) bool      { return c >= '0' && c <= '9' }

func (p *fieldParser) key() (string, bool) {
	if p.rest == "" || !lowerAlpha(p.rest[0]) && p.rest[0] != '*' {
		return "", false
	}
	return p.take(func(c byte) bool {
		return lowerAlpha(c) || digit(c) || c == '_' || c == '-' || c == '.' || c == '*'
	}), true
}

// value reads an item without its parameters, or an inner list.
func (p *fieldParser) value() (member, bool) {
	if !p.next('(') {
		return p.bare()
	}
	for {
		p.space(" ")
		if p.next(')') {
			return member{}, true
		}
		if _, ok := p.bare(); !ok || !p.parameters() {
			return member{}, false
		}
		if p.rest == "" || p.rest[0] != ' ' && p.rest[0] != ')' {
			return member{}, false
		}
	}
}

func (p *fieldParser) parameters() bool {
	for p.next(';') {
		p.space(" ")
		if _, ok := p.key(); !ok {
			return false
		}
		if p.next('=') {
			if _, ok := p.bare(); !ok {
				return false
			}
		}
	}
	return true
}

func (p *fieldParser) bare() (member, bool) {
	if p.rest == "" {
		return member{}, false
	}
	switch c := p.rest[0]; {
	case c == '-' || digit(c):
		return p.number()
	case c == '"':
		return p.text()
	case c == '*' || alpha(c):
		p.take(func(c byte) bool { return tchar(c) || c == ':' || c == '/' })
		return member{}, true
	case c == '?':
		if len(p.rest) < 2 || p.rest[1] != '0' && p.rest[1] != '1' {
			return member{}, false
		}
		m := member{isBoolean, p.rest[1:2]}
		p.rest = p.rest[2:]
		return m, true
	case c == ':':
		p.rest = p.rest[1:]
		p.take(func(c byte) bool { return alpha(c) || digit(c) || c == '+' || c == '/' || c == '=' })
		return member{}, p.next(':')
	case c == '@':
		p.rest = p.rest[1:]
		m, ok := p.number()
		return member{}, ok && m.kind == isInteger
	case strings.HasPrefix(p.rest, `%"`):
		p.rest = p.rest[2:]
		p.take(func(c byte) bool { return c >= ' ' && c < 0x7f && c != '"' })
		return member{}, p.next('"')
	}
	return member{}, false
}

// number reads an Integer of up to 15 digits or a Decimal of 12 and 3.
func (p *fieldParser) number() (member, bool) {
	sign := ""
	if p.next('-') {
		sign = "-"
	}
	digits := p.take(digit)
	if p.next('.') {
		fraction := p.take(digit)
		return member{}, digits != "" && len(digits) <= 12 && fraction != "" && len(fraction) <= 3
	}
	return member{isInteger, sign + digits}, digits != "" && len(digits) <= 15
}

func (p *fieldParser) text() (member, bool) {
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			m := member{isString, unescape(p.rest[1:i])}
			p.rest = p.rest[i+1:]
			return m, true
		case c == '\\':
			i++
			if i == len(p.rest) || p.rest[i] != '"' && p.rest[i] != '\\' {
				return member{}, false
			}
		case c < ' ' || c >= 0x7f:
			return member{}, false
		}
	}
	return member{}, false
}
