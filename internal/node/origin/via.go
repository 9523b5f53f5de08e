package origin

import "strings"

// Looped reports whether a received Via field, its lines joined with commas,
// names this node: the request has been here before.
func (c *Client) Looped(via string) bool {
	if via == "" {
		return false
	}
	elements, _ := splitVia(via)
	for _, e := range elements {
		if strings.EqualFold(receivedBy(e), c.pseudonym) {
			return true
		}
	}
	return false
}

// continueVia returns the Via to send after the given lines. Lines whose
// comments do not close are left out: what follows an open comment would be
// hidden from everybody who parses it, this node's own name first of all.
func (c *Client) continueVia(lines []string) string {
	own := "1.1 " + c.pseudonym
	var kept []string
	for _, l := range lines {
		l = strings.Trim(l, " \t,")
		if _, ok := splitVia(l); ok && l != "" && validValue(l) {
			kept = append(kept, l)
		}
	}
	return strings.Join(append(kept, own), ", ")
}

// splitVia cuts a Via field into its elements at the commas outside comments
// (RFC 9110 sections 5.6.5 and 7.6.3). If comments do not close it is not ok,
// and commas count wherever they stand, so that an open comment cannot hide
// the elements after it.
func splitVia(via string) (elements []string, ok bool) {
	depth, start := 0, 0
	for i := 0; i < len(via); i++ {
		switch via[i] {
		case '\\':
			if depth > 0 {
				i++ // a quoted pair
			}
		case '(':
			depth++
		case ')':
			if depth == 0 {
				return strings.Split(via, ","), false
			}
			depth--
		case ',':
			if depth == 0 {
				elements = append(elements, via[start:i])
				start = i + 1
			}
		}
	}
	if depth > 0 {
		return strings.Split(via, ","), false
	}
	return append(elements, via[start:]), true
}

// receivedBy returns the second word of a Via element: host[:port] or a
// pseudonym. A comment may follow it without a space.
func receivedBy(element string) string {
	words := strings.FieldsFunc(element, func(r rune) bool { return r == ' ' || r == '\t' })
	if len(words) < 2 {
		return ""
	}
	by, _, _ := strings.Cut(words[1], "(")
	return by
}
