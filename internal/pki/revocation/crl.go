package revocation

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/url"
	"slices"
	"time"

	"larder/internal/pki/problem"
)

// distribution is one distribution point of a certificate (RFC 5280, section
// 4.2.1.13).
type distribution struct {
	Point     point          `asn1:"optional,tag:0"`
	Reasons   asn1.BitString `asn1:"optional,tag:1"`
	CRLIssuer asn1.RawValue  `asn1:"optional,tag:2"`
}

// names returns the point's URIs.
func (d distribution) names() []string {
	var all []string
	for _, n := range d.Point.FullName {
		if n.Class == asn1.ClassContextSpecific && n.Tag == 6 {
			all = append(all, string(n.Bytes))
		}
	}
	return all
}

// CRL looks leaf up in the lists that it names (RFC 5280, section 6.3). The
// error is not nil if and only if the status is Unknown, and says why. Delta
// lists and indirect lists, which another than the CA signs, are not
// supported: they leave the status Unknown.
func (c *Checker) CRL(ctx context.Context, leaf, issuer *x509.Certificate) (Answer, error) {
	der, ok := extensionOf(leaf.Extensions, oidPoints)
	if !ok {
		return Answer{Status: NotOffered}, nil
	}
	if p := family("CRL", leaf, issuer); p != nil {
		return unknown(ctx, "CRL", p)
	}
	var points []distribution
	if rest, err := asn1.Unmarshal(der, &points); err != nil || len(rest) > 0 {
		return unknown(ctx, "CRL", &problem.Problem{Field: "CRL", Found: "distribution points that cannot be read", Expected: "those of RFC 5280, section 4.2.1.13", Err: err})
	}
	var problems []*problem.Problem
	if _, ok := extensionOf(leaf.Extensions, oidFreshest); ok {
		problems = append(problems, deltaIgnored("CRL"))
	}
	asked := 0
	for _, d := range points {
		if len(d.CRLIssuer.FullBytes) > 0 {
			problems = append(problems, &problem.Problem{Field: "CRL", Found: "a list that another than the CA signs (an indirect CRL)", Expected: "a list that the CA signs", Next: "have the CA publish its own list too"})
			continue
		}
		if len(d.names()) == 0 {
			problems = append(problems, &problem.Problem{Field: "CRL", Found: "a distribution point without an address", Expected: "an address that begins with http://", Next: "have the CA publish its list over HTTP"})
		}
		for _, text := range d.names() {
			u, p := place("CRL "+clean(text), text)
			if p != nil {
				problems = append(problems, p)
				continue
			}
			if asked++; asked > mostPlaces || ctx.Err() != nil {
				break
			}
			a, noted := c.look(ctx, u, d, leaf, issuer)
			problems = append(problems, noted...)
			if a.Status != Unknown {
				a.Problems = words(problems)
				return a, nil
			}
		}
	}
	return unknown(ctx, "CRL", problems...)
}

func deltaIgnored(field string) *problem.Problem {
	return &problem.Problem{Field: field, Found: "that there are delta lists (freshest CRL)", Expected: "whole lists, which alone are read here", Next: "know that what was revoked since the last whole list is not seen"}
}

// look looks leaf up in one list.
func (c *Checker) look(ctx context.Context, u *url.URL, d distribution, leaf, issuer *x509.Certificate) (Answer, []*problem.Problem) {
	source := "CRL " + show(u)
	l, p := c.shelf.get(ctx, source, u, issuer, c.fetchList)
	if l == nil {
		return Answer{}, []*problem.Problem{p}
	}
	var noted []*problem.Problem
	if p != nil {
		noted = append(noted, p)
	}
	partial, p := inScope(source, l, d, leaf)
	if p != nil {
		return Answer{}, append(noted, p)
	}
	if _, ok := extensionOf(l.head.Extensions, oidFreshest); ok {
		noted = append(noted, deltaIgnored(source))
	}
	e, err := l.find(serialContent(leaf))
	if err != nil { // its entry has a time that is none; parseList looked at the rest
		return Answer{}, append(noted, unusableList(source, err))
	}
	a := Answer{Source: source, NextUpdate: l.head.NextUpdate}
	weak := weakSignature(source, "a list", l.head.SignatureAlgorithm)
	if weak != nil {
		noted = append(noted, weak)
	}
	switch {
	case e != nil:
		a.Status, a.RevokedAt, a.Reason = Revoked, e.at, reason(e.reason)
	case partial:
		return Answer{}, append(noted, &problem.Problem{Field: source, Found: "a list for some reasons of revocation only", Expected: "one for all of them", Next: "have the CA publish a list for all reasons"})
	case weak != nil:
		return Answer{}, noted
	default:
		a.Status = Good
	}
	return a, noted
}

// inScope checks that the list is about such certificates as leaf (RFC 5280,
// section 6.3.3 (b)). partial: it is, and only about some reasons.
func inScope(source string, l *list, d distribution, leaf *x509.Certificate) (partial bool, p *problem.Problem) {
	bad := func(found, expected string) *problem.Problem {
		return &problem.Problem{Field: source, Found: found, Expected: expected, Next: "have the CA publish a whole list, signed by itself, for this certificate"}
	}
	partial = d.Reasons.BitLength > 0
	for _, e := range l.head.Extensions {
		switch {
		case e.Id.Equal(oidDelta):
			return partial, bad("a delta list", "a whole one")
		case e.Critical && !e.Id.Equal(oidScope):
			return partial, bad(fmt.Sprintf("a list with the critical extension %s, which is not understood here", e.Id), "a list without it")
		}
	}
	der, ok := extensionOf(l.head.Extensions, oidScope)
	if !ok {
		return partial, nil
	}
	var s scope
	if rest, err := asn1.Unmarshal(der, &s); err != nil || len(rest) > 0 {
		p := bad("a list that does not say clearly what it is about", "the extension of RFC 5280, section 5.2.5")
		p.Err = err
		return partial, p
	}
	partial = partial || s.SomeReasons.BitLength > 0
	ca := leaf.BasicConstraintsValid && leaf.IsCA
	switch {
	case s.Indirect:
		return partial, bad("an indirect list", "a list of this CA's certificates only")
	case s.OnlyAttribute, s.OnlyUsers && ca, s.OnlyCAs && !ca:
		return partial, bad("a list of other kinds of certificates", "one that this certificate could be on")
	}
	// A CA may split its list. A part that the certificate does not name says
	// nothing about it, and whoever is in between could exchange the parts.
	if len(s.Point.FullName) > 0 || len(s.Point.RelativeName.FullBytes) > 0 {
		if !slices.ContainsFunc(s.Point.FullName, func(n asn1.RawValue) bool {
			return slices.ContainsFunc(d.Point.FullName, func(m asn1.RawValue) bool { return bytes.Equal(n.FullBytes, m.FullBytes) })
		}) {
			return partial, bad("a part of the CA's list that is for other certificates", "the part that this certificate names")
		}
	}
	return partial, nil
}

func unusableList(source string, err error) *problem.Problem {
	return &problem.Problem{Field: source, Found: "something that cannot be used as a list", Expected: "a CRL (RFC 5280, section 5)", Next: "tell whoever runs the CA, if it stays so", Err: err}
}

// fetchList gets a list and checks all that does not depend on a certificate.
func (c *Checker) fetchList(ctx context.Context, source string, u *url.URL, issuer *x509.Certificate) (*list, *problem.Problem) {
	der, p := c.fetch(ctx, source, u, nil, mostCRL)
	if p != nil {
		return nil, p
	}
	return readList(source, der, issuer, time.Now())
}

// readList judges the list der at now.
func readList(source string, der []byte, issuer *x509.Certificate, now time.Time) (*list, *problem.Problem) {
	if bytes.HasPrefix(der, []byte("-----BEGIN ")) {
		return nil, &problem.Problem{Field: source, Found: "a list in PEM", Expected: "one in DER (RFC 5280, section 4.2.1.13)", Next: "tell whoever runs the CA"}
	}
	l, err := parseList(der)
	if err != nil {
		return nil, unusableList(source, err)
	}
	if err := l.signedBy(issuer); err != nil {
		return nil, &problem.Problem{Field: source, Found: "a list that the CA did not sign, or may not", Expected: "the signature of " + clean(issuer.Subject.String()),
			Next: "tell whoever runs the CA; somebody on the way may also have altered the list", Err: err}
	}
	if p := fresh(source, "a list", l.head.ThisUpdate, l.head.NextUpdate, now); p != nil {
		return nil, p
	}
	return l, nil
}
