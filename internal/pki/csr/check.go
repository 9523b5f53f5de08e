package csr

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"larder/internal/pki/keys"
	"larder/internal/pki/problem"
	"larder/internal/pki/san"
)

// The flags of "larder tls csr", which are the fields of the problems; those
// for names are san's.
const (
	FlagAlgo       = "--algo"
	FlagSize       = "--key-size-or-curve"
	FlagCommonName = "--subject-common-name"
	FlagCountry    = "--subject-country"
	FlagState      = "--subject-state"
	FlagOrg        = "--subject-org"
)

var algorithms = strings.Join([]string{keys.RSA, keys.EC, keys.Ed25519, keys.Ed448}, ", ")

// Check names all that is wrong with r at once.
func (r Request) Check() error {
	return errors.Join(append(r.checkOwn(), r.Names.Check())...)
}

// checkOwn is Check without what the names themselves say.
func (r Request) checkOwn() []error {
	var errs []error
	wrong := func(p *problem.Problem) { errs = append(errs, p) }
	sizes := keys.Sizes(r.Algorithm)
	switch {
	case !slices.Contains([]string{keys.RSA, keys.EC, keys.Ed25519, keys.Ed448}, r.Algorithm):
		wrong(&problem.Problem{Field: FlagAlgo, Found: quoted(r.Algorithm), Expected: "one of " + algorithms})
	case r.Size == "" || slices.Contains(sizes, r.Size):
	case len(sizes) == 0:
		wrong(&problem.Problem{Field: FlagSize, Found: quoted(r.Size), Expected: "nothing: " + r.Algorithm + " has one size", Next: "leave the flag out"})
	default:
		wrong(&problem.Problem{Field: FlagSize, Found: quoted(r.Size), Expected: "one of " + strings.Join(sizes, ", ") + " for " + r.Algorithm})
	}
	if r.CommonName == "" {
		wrong(&problem.Problem{Field: FlagCommonName, Found: "nothing", Expected: "a name for people, such as the first DNS name"})
	}
	for _, f := range []struct{ flag, typ, value, expected, next string }{
		{FlagCommonName, "CN", r.CommonName, "1 to 64 characters that print", "use a short name: clients look at the alternative names only"},
		{FlagCountry, "C", r.Country, "two letters such as DE (ISO 3166-1)", ""},
		{FlagState, "ST", r.State, "1 to 128 characters that print", ""},
		{FlagOrg, "O", r.Organization, "1 to 64 characters that print", ""},
	} {
		if f.value == "" {
			continue
		}
		if _, err := san.MakeDirName(san.Attribute{Type: f.typ, Value: f.value}); err != nil {
			wrong(&problem.Problem{Field: f.flag, Found: quoted(f.value), Err: err, Expected: f.expected, Next: f.next})
		}
	}
	if r.Names.Len() == 0 {
		wrong(&problem.Problem{Field: san.FlagDNS, Found: "no subject alternative name", Expected: "at least one",
			Next: fmt.Sprintf("give the names and addresses by which clients reach the node with %s and %s", san.FlagDNS, san.FlagIP)})
	}
	return errs
}

func quoted(s string) string {
	if s == "" {
		return "nothing"
	}
	return fmt.Sprintf("%q", s)
}
