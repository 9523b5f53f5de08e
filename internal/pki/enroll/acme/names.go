package acme

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mholt/acmez/v3/acme"

	"larder/internal/pki/enroll/signing"
	"larder/internal/pki/problem"
)

// names returns the identifiers of a request: each of its alternative names
// once, in order (RFC 8555, section 7.4; RFC 8738, section 3).
func (s *Signer) names(csrDER []byte) ([]acme.Identifier, error) {
	req, err := signing.ParseRequest(csrDER)
	if err != nil {
		return nil, err
	}
	ids, problems := identifiers(req)
	for _, id := range ids {
		if len(s.waysFor(id)) > 0 {
			continue
		}
		if id.Type == "ip" {
			problems = append(problems, &problem.Problem{
				Field:    "certificate request: address " + id.Value,
				Found:    "only " + DNS01 + " to prove it with",
				Expected: HTTP01 + " or " + TLSALPN01 + ": an address has no DNS record to show (RFC 8738, section 7)",
				Next:     "choose one of these, or leave the address out of the request",
			})
		} else {
			problems = append(problems, &problem.Problem{
				Field:    "certificate request: name " + id.Value,
				Found:    "a wildcard, and no " + DNS01 + " to prove it with",
				Expected: DNS01 + ": CAs prove wildcards by nothing else",
				Next:     "set up " + DNS01 + ", or make a request with the names that clients use",
			})
		}
	}
	return ids, signing.Refuse(problems...)
}

func identifiers(req *x509.CertificateRequest) (ids []acme.Identifier, problems []*problem.Problem) {
	for _, name := range req.DNSNames {
		ids = append(ids, acme.Identifier{Type: "dns", Value: strings.ToLower(name)})
	}
	for _, ip := range req.IPAddresses {
		addr, _ := netip.AddrFromSlice(ip)
		ids = append(ids, acme.Identifier{Type: "ip", Value: addr.Unmap().String()})
	}
	for _, other := range otherNames(req) {
		problems = append(problems, &problem.Problem{
			Field:    "certificate request: subject alternative names",
			Found:    other,
			Expected: "DNS names and addresses only: ACME has no others (RFC 8555, RFC 8738)",
			Next:     "make a request without it, or have this one signed another way",
		})
	}
	seen := make(map[acme.Identifier]bool)
	ids = slices.DeleteFunc(ids, func(id acme.Identifier) bool {
		again := seen[id]
		seen[id] = true
		return again
	})
	if len(ids) == 0 && len(problems) == 0 {
		problems = append(problems, &problem.Problem{
			Field: "certificate request: subject alternative names", Found: "none",
			Expected: "at least one DNS name or address", Next: "make the request anew, with the names that clients use",
		})
	}
	// RFC 8555, section 7.4: the request asks for exactly the order's names,
	// its common name among them. Most CAs insist.
	cn := req.Subject.CommonName
	if cn != "" && len(ids) > 0 && !slices.ContainsFunc(ids, func(id acme.Identifier) bool { return strings.EqualFold(id.Value, cn) }) {
		problems = append(problems, &problem.Problem{
			Field:    "certificate request: common name",
			Found:    fmt.Sprintf("%q", cn),
			Expected: "one of the alternative names: an ACME CA counts it among them (RFC 8555, section 7.4)",
			Next:     "make the request anew, with common name " + ids[0].Value,
		})
	}
	return ids, problems
}

// otherNames returns the alternative names that ACME has no word for.
func otherNames(req *x509.CertificateRequest) (texts []string) {
	for _, address := range req.EmailAddresses {
		texts = append(texts, "email:"+address)
	}
	for _, uri := range req.URIs {
		texts = append(texts, "URI:"+uri.String())
	}
	kinds := map[int]string{0: "an otherName", 3: "an X.400 address", 4: "a directory name", 5: "an EDI party name", 8: "a registered ID"}
	for _, ext := range req.Extensions {
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		var all, name asn1.RawValue
		if _, err := asn1.Unmarshal(ext.Value, &all); err != nil {
			continue // crypto/x509 has read it before
		}
		for rest := all.Bytes; len(rest) > 0; {
			var err error
			if rest, err = asn1.Unmarshal(rest, &name); err != nil {
				break
			}
			if kind, ok := kinds[name.Tag]; ok {
				texts = append(texts, kind)
			}
		}
	}
	return texts
}

// waysFor returns the ways that can prove id, in order of preference.
func (s *Signer) waysFor(id acme.Identifier) (ways []Way) {
	for _, w := range s.cfg.Ways {
		switch {
		case id.Type == "ip" && w.Challenge == DNS01:
		case strings.HasPrefix(id.Value, "*.") && w.Challenge != DNS01:
		default:
			ways = append(ways, w)
		}
	}
	return ways
}
