package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Proxy is the URL of a proxy. Its password never appears where it is printed.
type Proxy struct {
	url  *url.URL
	none bool
}

var errProxy = errors.New("is not the URL of a proxy; write http://proxy.example:3128, with user:password@ before the host where the proxy asks for them (special characters as %XX), or none")

// URL returns the proxy's URL with its password, or nil where there is none.
func (p Proxy) URL() *url.URL {
	if p.url == nil {
		return nil
	}
	u := *p.url
	return &u
}

// IsZero reports whether nothing was said about a proxy.
func (p Proxy) IsZero() bool { return p.url == nil && !p.none }

// Expected says what belongs into a field of this type.
func (Proxy) Expected() string { return "a URL such as http://proxy.example:3128, or none" }

// String leaves the password out.
func (p Proxy) String() string {
	switch {
	case p.url != nil:
		return p.url.Redacted()
	case p.none:
		return "none"
	}
	return ""
}

// GoString leaves the password out, too.
func (p Proxy) GoString() string { return fmt.Sprintf("config.Proxy(%q)", p.String()) }

// MarshalText leaves the password out: what is written this way is for people.
func (p Proxy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a URL. The scheme may be left out and is http then. Its
// errors never quote what was found, which may be a password.
func (p *Proxy) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	switch s {
	case "":
		return errProxy
	case "none":
		*p = Proxy{none: true}
		return nil
	}
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	switch {
	case err != nil, strings.Trim(u.Hostname(), "0123456789") == "", u.Opaque != "", u.RawQuery != "", u.Fragment != "", u.Path != "" && u.Path != "/", !validPort(u):
		return errProxy
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("has a scheme that is not supported; expected http or https")
	}
	u.Path = ""
	*p = Proxy{url: u}
	return nil
}

// validPort reports whether the port, if there is one, is one.
func validPort(u *url.URL) bool {
	port := u.Port()
	if port == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	n, err := portNumber(port)
	return err == nil && n > 0
}

// fromEnvironment uses HTTPS_PROXY, in capitals or not, when the file says
// nothing. It returns the variable it read, for messages.
func (p *Proxy) fromEnvironment(getenv func(string) string) (variable string, err error) {
	if !p.IsZero() {
		return "", nil
	}
	for _, variable := range []string{"HTTPS_PROXY", "https_proxy"} {
		if v := getenv(variable); v != "" {
			return variable, p.UnmarshalText([]byte(v))
		}
	}
	return "", nil
}
