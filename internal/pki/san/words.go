package san

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"larder/internal/pki/problem"
)

// Texts are names as a person gives them: the values of the flags, each of
// which may be a comma-separated list. A backslash before a comma or another
// backslash takes it literally.
type Texts struct {
	DNS, IP, URI, Email, RID, DirName, OtherName []string
}

// The flags that give names, which are the fields of the problems.
const (
	FlagDNS       = "--san-dns"
	FlagIP        = "--san-ip"
	FlagURI       = "--san-uri"
	FlagEmail     = "--san-email"
	FlagRID       = "--san-rid"
	FlagDirName   = "--san-dir-name"
	FlagOtherName = "--san-other-name"
)

// Parse reads names from the words of the command line. It names all mistakes
// at once. A name that is given twice is taken once.
//
// Directory names are lists of the slash form, "/C=DE/O=Example/CN=node", or,
// where the value does not begin with a slash, of RFC 4514 names with
// semicolons between them, for these have commas inside.
func Parse(flags Texts) (Names, error) {
	var errs []error
	n := Names{
		DNS:       parseAll(&errs, FlagDNS, listed(flags.DNS), parseDNS, same[string]),
		IP:        parseAll(&errs, FlagIP, listed(flags.IP), parseIP, same[netip.Addr]),
		URI:       parseAll(&errs, FlagURI, listed(flags.URI), parseURI, same[string]),
		Email:     parseAll(&errs, FlagEmail, listed(flags.Email), parseEmail, same[string]),
		RID:       parseAll(&errs, FlagRID, listed(flags.RID), parseRID, x509.OID.Equal),
		DirName:   parseAll(&errs, FlagDirName, listedNames(flags.DirName), parseDirNameWord, DirName.Equal),
		OtherName: parseAll(&errs, FlagOtherName, listed(flags.OtherName), parseOtherNameWord, OtherName.Equal),
	}
	if err := errors.Join(errs...); err != nil {
		return Names{}, err
	}
	return n, nil
}

// Words are the texts that Parse reads n from. Unknown names have none.
func (n Names) Words() Texts {
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace
	var t Texts
	for _, s := range n.DNS {
		t.DNS = append(t.DNS, escape(s))
	}
	for _, ip := range n.IP {
		t.IP = append(t.IP, ip.String())
	}
	for _, s := range n.URI {
		t.URI = append(t.URI, escape(s))
	}
	for _, s := range n.Email {
		t.Email = append(t.Email, escape(s))
	}
	for _, oid := range n.RID {
		t.RID = append(t.RID, oid.String())
	}
	for _, d := range n.DirName {
		text, _ := d.MarshalText() // never an error
		t.DirName = append(t.DirName, string(text))
	}
	for _, o := range n.OtherName {
		t.OtherName = append(t.OtherName, escape(o.String()))
	}
	return t
}

// Check says what Parse would say of names that came another way.
func (n Names) Check() error {
	_, err := Parse(n.Words())
	return err
}

func same[T comparable](a, b T) bool { return a == b }

// parseAll reads all entries of one flag.
func parseAll[T any](errs *[]error, flag string, entries []string, parse func(string) (T, *problem.Problem), same func(a, b T) bool) []T {
	var all []T
	for _, entry := range entries {
		var v T
		p := &problem.Problem{Found: "an empty entry", Expected: "a name before and after each comma",
			Next: "leave the comma out; a comma that belongs to a name needs a backslash before it"}
		if entry != "" {
			v, p = parse(entry)
		}
		switch {
		case p != nil:
			p.Field = flag
			*errs = append(*errs, p)
		case !slices.ContainsFunc(all, func(w T) bool { return same(v, w) }):
			all = append(all, v)
		}
	}
	return all
}

// listed takes the values of a flag apart.
func listed(values []string) []string {
	var entries []string
	for _, value := range values {
		for _, part := range split(value, ',') {
			entries = append(entries, unescape(trim(part), func(c byte) bool { return c == ',' || c == '\\' }))
		}
	}
	return entries
}

// listedNames is listed for directory names, whose escapes are left to
// ParseDirName.
func listedNames(values []string) []string {
	var entries []string
	for _, value := range values {
		separator := byte(';')
		if strings.HasPrefix(trim(value), "/") {
			separator = ','
		}
		for _, part := range split(value, separator) {
			entries = append(entries, trim(part))
		}
	}
	return entries
}

// split cuts at a separator that has no backslash before it, and leaves the
// backslashes where they are.
func split(s string, separator byte) []string {
	var parts []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case separator:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// trim removes spaces around s, but not one that a backslash keeps.
func trim(s string) string {
	s = strings.TrimLeft(s, " \t\r\n")
	t := strings.TrimRight(s, " \t\r\n")
	slashes := len(t) - len(strings.TrimRight(t, `\`))
	if slashes%2 == 1 && len(t) < len(s) {
		t = s[:len(t)+1]
	}
	return t
}

// unescape removes a backslash before what may have one.
func unescape(s string, may func(byte) bool) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && may(s[i+1]) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func parseRID(s string) (x509.OID, *problem.Problem) {
	oid, err := parseOID(s)
	if err != nil {
		return x509.OID{}, &problem.Problem{Found: fmt.Sprintf("%q", s), Expected: "a dotted object identifier such as 1.3.6.1.4.1.99999.1"}
	}
	return oid, nil
}

func parseDirNameWord(s string) (DirName, *problem.Problem) {
	d, err := ParseDirName(s)
	if err != nil {
		return DirName{}, &problem.Problem{Found: fmt.Sprintf("%q", s), Err: err, Expected: "a name such as /C=DE/O=Example/CN=node or CN=node,O=Example,C=DE",
			Next: "put a backslash before commas, slashes and semicolons that belong to a value"}
	}
	return d, nil
}

func parseOtherNameWord(s string) (OtherName, *problem.Problem) {
	o, err := ParseOtherName(s)
	if err != nil {
		return OtherName{}, &problem.Problem{Found: fmt.Sprintf("%q", s), Err: err, Expected: "OID;UTF8:text, OID;IA5:text, OID;PRINTABLE:text, OID;HEX:der or UPN:user@domain"}
	}
	return o, nil
}
