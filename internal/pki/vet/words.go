package vet

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// who names a certificate of the chain: what it is, and its subject.
func (v *vetting) who(c *x509.Certificate) string {
	switch {
	case c == v.leaf():
		return "certificate " + title(c)
	case selfIssued(c):
		return "root " + title(c)
	}
	return "CA certificate " + title(c)
}

// title is a certificate's subject, or what else tells it from others.
func title(c *x509.Certificate) string {
	if s := c.Subject.String(); s != "" {
		return clean(s)
	}
	if names := hostTexts(c); len(names) > 0 {
		return clean(names[0])
	}
	return fmt.Sprintf("with the serial number %X", c.SerialNumber)
}

// clean makes text from a certificate fit for a terminal: whoever made the
// certificate wrote it.
func clean(s string) string {
	const most = 120
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// list joins names, of which a certificate may have hundreds.
func list(names []string) string {
	const most = 6
	var quoted []string
	for i, n := range names {
		if i == most {
			return fmt.Sprintf("%s and %d more", strings.Join(quoted, ", "), len(names)-most)
		}
		quoted = append(quoted, clean(n))
	}
	return strings.Join(quoted, ", ")
}

func at(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

func count(n int64, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}

// span says how long d is.
func span(d time.Duration) string {
	switch {
	case d >= day:
		return count(int64(d/day), "day")
	case d >= time.Hour:
		return count(int64(d/time.Hour), "hour")
	case d >= time.Minute:
		return count(int64(d/time.Minute), "minute")
	}
	return "less than a minute"
}

// keyWords adds a key identifier, written as certificate viewers do.
func keyWords(id []byte) string {
	const most = 20
	switch {
	case len(id) == 0:
		return ""
	case len(id) > most:
		return fmt.Sprintf(" (key %X…)", id[:most])
	}
	return fmt.Sprintf(" (key %X)", id)
}

func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

func same(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) }
