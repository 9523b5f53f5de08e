package catalog

import (
	"crypto/x509"
	"net"
	"strconv"
	"strings"
)

func (e *entry) origin(p *Publisher, w place, readFile func(string) ([]byte, error)) {
	o := &e.Origin
	if o.Scheme != "" && o.Scheme != "http" && o.Scheme != "https" {
		w.add("origin.scheme", "found %q, expected http or https", o.Scheme)
	}
	p.Origin.Scheme = o.Scheme
	if o.Host != "" {
		host, suffix, kind, problem := hostPattern(o.Host)
		switch {
		case problem != "":
			w.add("origin.host", "%q %s", o.Host, problem)
		case suffix:
			w.add("origin.host", "%q names many hosts; write one", o.Host)
		case kind == ipHost && o.Address == "":
			w.add("origin.host", "%q is an IP address; write it as origin.address with its port", o.Host)
		}
		p.Origin.Host = host
	}
	if o.Address != "" {
		p.Origin.Address = e.address(w)
	} else if e.Default {
		w.add("origin.address", "must be set for a default publisher, such as \"10.1.2.3:8443\"; without it the node would be an open proxy")
	}
	if e.Default && p.Origin.Host == "" {
		p.Origin.Host = fixedHost(p)
	}
	if o.CA != "" {
		p.Origin.Roots = e.roots(w, readFile)
	}
}

// address checks origin.address and returns it in the form "host:port".
func (e *entry) address(w place) string {
	host, port, err := net.SplitHostPort(e.Origin.Address)
	if err != nil {
		w.add("origin.address", "%q is not host:port, such as \"10.1.2.3:8443\" or \"[fd00::1]:80\"", e.Origin.Address)
		return ""
	}
	normal, suffix, _, problem := hostPattern(host)
	if problem == "" && suffix {
		problem = "names many hosts; write one"
	}
	if problem != "" {
		w.add("origin.address", "the host %q %s", host, problem)
		return ""
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		w.add("origin.address", "%q is not a port; expected a number from 1 to 65535", port)
		return ""
	}
	return net.JoinHostPort(normal, port)
}

// fixedHost is the name a default publisher's origin is asked for. It is never the
// client's, because the key does not hold that.
func fixedHost(p *Publisher) string {
	for _, h := range p.Hosts {
		if !strings.HasPrefix(h, "*.") {
			return h
		}
	}
	host, _, _ := net.SplitHostPort(p.Origin.Address)
	return host
}

func (e *entry) roots(w place, readFile func(string) ([]byte, error)) *x509.CertPool {
	if e.Origin.Scheme != "https" {
		w.add("origin.ca", "only goes with origin.scheme: https")
		return nil
	}
	if readFile == nil {
		w.add("origin.ca", "other files cannot be read from here")
		return nil
	}
	pem, err := readFile(e.Origin.CA)
	if err != nil {
		w.add("origin.ca", "%s", err)
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		w.add("origin.ca", "%s holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", e.Origin.CA)
		return nil
	}
	return pool
}

// joinPort adds the default port of a scheme to an IP address.
func joinPort(host, scheme string) string {
	if scheme == "https" {
		return net.JoinHostPort(host, "443")
	}
	return net.JoinHostPort(host, "80")
}
